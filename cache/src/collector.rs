//! Garbage collection over the index: a thread that sleeps until one is due.

use crate::engine::Engine;
use std::time::{Duration, Instant};
use tierce_core::Mark;
use tierce_core::geometry::SECTOR_BYTES;
use tierce_lockfree::Marked;

/// Between two collections at least so much time passes: a set in which nothing can be reused
/// would otherwise be searched without a pause as long as somebody waits for space.
const PAUSE: Duration = Duration::from_millis(5);

/// Collects whenever it is due, until the allocator is closed.
pub(crate) fn run(engine: &Engine) {
    let mut last: Option<Instant> = None;
    while engine.allocator.wait_gc_due(None) {
        if let Some(pause) = last.and_then(|at| PAUSE.checked_sub(at.elapsed())) {
            std::thread::sleep(pause);
        }
        collect(engine);
        last = Some(Instant::now());
    }
}

/// One collection: every entry is marked, stale ones are removed. Requests go on; a shard of the
/// index is locked while it is looked at.
pub(crate) fn collect(engine: &Engine) {
    let Ok(gc) = engine.allocator.begin_gc() else { return };
    engine.index.retain(|location| {
        let sectors = location.bytes.div_ceil(SECTOR_BYTES);
        let marked = gc.mark(location.bucket, sectors, Mark::Reclaimable);
        // A stale entry stays until its bucket's new gen is durable, see `lineage.rs`.
        matches!(marked, Marked::Live) || engine.lives.may_come_back(location.bucket)
    });
    gc.finish();
}
