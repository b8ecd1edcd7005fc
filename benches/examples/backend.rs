//! A backend of one's own, beside the baselines: `cargo run --release --example backend`.
//!
//! This one is a stack behind a lock, which hands out again what was written last: fast, and no
//! cache at all.

use std::sync::Mutex;
use tierce_bench::backend::{Full, Space};
use tierce_bench::bars::{Plan, Section, run_of, terminal};
use tierce_bench::measure::Environment;

struct Stack {
    free: Mutex<Vec<u32>>,
}

/// A bucket in somebody's hands; dropping it gives it back.
struct Popped<'a> {
    stack: &'a Stack,
    bucket: u32,
}

impl Drop for Popped<'_> {
    fn drop(&mut self) {
        self.stack.free.lock().expect("no panic").push(self.bucket);
    }
}

impl Space for Stack {
    const NAME: &'static str = "stack";
    type Bucket<'a> = Popped<'a>;
    type Extent<'a> = std::convert::Infallible;

    fn start(full: &Full) -> Self {
        Self { free: Mutex::new(full.buckets().map(|bucket| bucket.get()).collect()) }
    }

    fn try_alloc(&self) -> Option<Popped<'_>> {
        let bucket = self.free.lock().expect("no panic").pop()?;
        Some(Popped { stack: self, bucket })
    }

    fn alloc(&self) -> Popped<'_> {
        loop {
            match self.try_alloc() {
                Some(bucket) => return bucket,
                None => std::thread::yield_now(),
            }
        }
    }

    fn written<'a>(&'a self, bucket: Popped<'a>) {
        drop(bucket);
    }
}

fn main() {
    let plan = Plan { sections: vec![Section::Alloc], ..Plan::quick() };
    let results = run_of::<Stack>(&plan, &|progress| eprintln!("{}", progress.what));
    println!("{}", terminal(&Environment::read(), &results.rows));
}
