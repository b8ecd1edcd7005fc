//! Thread per core: each thread has a cache of its own on a device of its own, with one stream and
//! one ring, and drives futures itself. Nothing is shared.
//!
//! `cargo run --example thread_per_core -- /path/of/one /path/of/another`

use std::error::Error;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use tierce_cache::{Cache, Config, Put};
use tierce_io::FormatOptions;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor there is.
fn run<T>(future: impl Future<Output = T>) -> T {
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn core(path: &str) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let options = FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
    tierce_io::format(path, &options)?;
    let cache = Cache::open(Config::new(path).cpus(1).streams(1))?.typed::<u64, [u8]>();
    run(async {
        for n in 0..1000 {
            cache.insert_async(&n, &[n as u8; 4096], &Put::new()).await?;
        }
        cache.flush_async().await
    })?;
    Ok(cache.stats().device_bytes_written)
}

fn main() {
    let cores = std::env::args().skip(1).map(|path| thread::spawn(move || core(&path)));
    for core in cores.collect::<Vec<_>>() {
        println!("{:?} bytes written", core.join().expect("no thread panics"));
    }
}
