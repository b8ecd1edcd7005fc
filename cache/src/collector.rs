//! Garbage collection over the index: a thread that sleeps until one is due.

use crate::engine::Engine;
use crate::events::{event, span};
use std::time::{Duration, Instant};
use tierce_core::geometry::SECTOR_BYTES;
use tierce_core::{Mark, broken};
use tierce_lockfree::Marked;

/// Between two collections at least so much time passes: a set in which nothing can be reused
/// would otherwise be searched without a pause as long as somebody waits for space.
const PAUSE: Duration = Duration::from_millis(5);

/// Collects whenever it is due, until the allocator is closed.
pub(crate) fn run(engine: &Engine) {
    let mut last: Option<Instant> = None;
    while engine.allocator().wait_gc_due(None) {
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
    let _span = span!(DEBUG, "gc");
    let Ok(gc) = engine.allocator().begin_gc() else { return };
    let (mut entries, mut removed) = (0_u64, 0_u64);
    engine.index.retain(|location| {
        let sectors = location.bytes.div_ceil(SECTOR_BYTES);
        let marked = gc.mark(location.bucket, sectors, Mark::Reclaimable);
        // A stale entry stays until its bucket's new gen is durable, see `lineage.rs`.
        let may_come_back =
            engine.lives.may_come_back(location.bucket) && !broken!("index_forgets_early");
        let is_kept = matches!(marked, Marked::Live) || may_come_back;
        entries += 1;
        removed += u64::from(!is_kept);
        is_kept
    });
    gc.finish();
    event!(DEBUG, "collected", entries = entries, removed = removed);
}

#[cfg(test)]
mod tests {
    use super::collect;
    use crate::engine::Engine;
    use crate::testing::formatted;
    use crate::{Cache, Config, Put};
    use std::pin::pin;
    use std::task::{Context, Waker};
    use tierce_core::Policy;
    use tierce_io::{Fault, FaultKind, Operation};

    /// Entries of buckets that were invalidated while their new gens are not durable.
    fn in_between(engine: &Engine) -> usize {
        let mut count = 0;
        engine.index.retain(|location| {
            let is_stale = engine.allocator().begin_read().open(location.bucket).is_none();
            count += usize::from(is_stale && engine.lives.may_come_back(location.bucket));
            true
        });
        count
    }

    #[test]
    fn what_may_come_back_is_not_forgotten() {
        let sim = formatted(0, 640, 16 << 10);
        let config = Config::new("sim").streams(1).policy(Policy::Fifo);
        let cache = Cache::open_on(&config, vec![sim.clone()]).expect("opens");
        let value = vec![7; 14_500];
        for key in 0..1000_u32 {
            cache.insert(&key.to_le_bytes(), &value).expect("older ones make room");
        }
        sim.inject(Fault::new(FaultKind::Stall, Operation::Flush, 0).for_good());
        let put = Put::default();
        let mut context = Context::from_waker(Waker::noop());
        'full: for key in 1000_u32.. {
            let name = key.to_le_bytes();
            let mut insert = pin!(cache.insert_async(&name, &value, &put));
            while insert.as_mut().poll(&mut context).is_pending() {
                if sim.stalled() > 0 {
                    break 'full;
                }
                std::thread::yield_now();
            }
        }
        let before = in_between(cache.engine());
        collect(cache.engine());
        let after = in_between(cache.engine());
        // First, so that the cache can end whatever was found.
        sim.clear_faults();
        sim.resume();
        assert!(before > 0, "the write that makes room hangs");
        assert_eq!(after, before);
        cache.close().expect("closes");
    }
}
