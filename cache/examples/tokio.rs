//! The same cache from tasks of tokio. Its futures need no particular runtime: smol, or a loop of
//! your own, drives them as well.
//!
//! `cargo run --example tokio -- /path/of/a/new/file`

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tierce_cache::{Cache, Config, Put};
use tierce_io::FormatOptions;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("the path of a new file")?;
    let options = FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
    tierce_io::format(&path, &options)?;

    let cache = Arc::new(Cache::open(Config::new(&path))?.typed::<u64, [u8]>());
    let tasks = (0u64..8).map(|tenant| {
        let cache = Arc::clone(&cache);
        tokio::spawn(async move {
            let put = Put::new().write_point(tenant).ttl(Duration::from_secs(600));
            for n in 0..200 {
                cache.insert_async(&(tenant << 32 | n), &[tenant as u8; 4096], &put).await?;
            }
            cache.get_async(&(tenant << 32)).await
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        println!("{:?} bytes", task.await??.map(|value| value.len()));
    }
    // An operation that takes too long is dropped, and leaves nothing behind.
    let limit = Duration::from_secs(1);
    tokio::time::timeout(limit, cache.insert_async(&7, &[7; 100], &Put::new())).await??;
    cache.flush_async().await?;
    Ok(())
}
