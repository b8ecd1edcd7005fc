//! What the unit tests begin with.

use std::sync::Arc;
use std::task::Wake;
use tierce_io::{FormatOptions, Sim, SimOptions, format_on};

/// A simulated device of so many buckets, of `bucket` bytes in blocks of 512, formatted.
pub(crate) fn formatted(seed: u64, buckets: u64, bucket: u32) -> Arc<Sim> {
    let sim = Sim::new(&SimOptions::default().seed(seed).bytes(buckets * u64::from(bucket)));
    let options = FormatOptions::default().bucket(bucket).block(512);
    format_on(&*sim, &options).expect("a device without faults");
    sim
}

/// A task of which only counts how many hold it: its wakers.
pub(crate) struct Task;

impl Wake for Task {
    fn wake(self: Arc<Self>) {}
}
