//! All parts at once: two reclaimers that invalidate, a collector, and workers who allocate,
//! write sectors, read and pin, over so few buckets that they keep running out.

#![cfg(tierce_shuttle)]

use tierce_core::Policy;
use tierce_lockfree::Config;
use tierce_shuttle_tests::check;
use tierce_shuttle_tests::world::{Work, run};

const WORK: Work = Work { devices: 2, workers: 3, operations: 7 };

fn config() -> Config {
    Config::default().cpus(2).open_buckets(2).gc_written_share(3)
}

/// The defaults: collections keep their findings to themselves until they finish.
#[test]
fn least_recently_used_with_cells() {
    check(|| run(config(), WORK));
}

/// Marks are cleared in place, everything is discarded, nothing is recycled.
#[test]
fn first_in_first_out_with_discards_and_marks_in_place() {
    let config = || {
        config()
            .policy(Policy::Fifo)
            .invalidate_during_gc(false)
            .discard(true)
            .recycle_prio_chain(false)
    };
    check(move || run(config(), WORK));
}

/// Every list is a queue, one bucket is open, and more threads want one device.
#[test]
fn random_without_cells_and_one_open_bucket() {
    let config = || config().policy(Policy::Random).cpus(0).open_buckets(1);
    check(move || run(config(), Work { devices: 1, workers: 4, operations: 6 }));
}
