//! Garbage collection over the index: a thread that sleeps until one is due.

use crate::cache::Shared;
use std::time::{Duration, Instant};
use tierce_core::Mark;
use tierce_lockfree::Marked;

/// Between two collections at least so much time passes: a set in which nothing can be reused
/// would otherwise be searched without a pause as long as somebody waits for space.
const PAUSE: Duration = Duration::from_millis(5);

/// Collects whenever it is due, until the allocator is closed.
pub(crate) fn run(shared: &Shared) {
    let mut last: Option<Instant> = None;
    while shared.allocator.wait_gc_due(None) {
        if let Some(pause) = last.and_then(|at| PAUSE.checked_sub(at.elapsed())) {
            std::thread::sleep(pause);
        }
        collect(shared);
        last = Some(Instant::now());
    }
}

/// One collection: every entry is marked, stale ones are removed.
pub(crate) fn collect(shared: &Shared) {
    let Ok(gc) = shared.allocator.begin_gc() else { return };
    shared.index.retain(|location| {
        let marked = gc.mark(location.bucket, location.sectors, Mark::Reclaimable);
        matches!(marked, Marked::Live)
    });
    gc.finish();
}
