//! The free lists, `lockfree/src/reserves.rs`: failing exactly.
//!
//! Breaks that must turn these red: `mover_unannounced`, `insert_uncounted`,
//! `cell_pop_unreleased`.
#![cfg(tierce_loom)]

use loom::sync::Arc;
use loom::thread;
use tierce_core::{BucketIndex, Geometry, Reserve, Sizes};
use tierce_lockfree::model::{Popped, Reserves};
use tierce_loom_tests::model;

const X: BucketIndex = BucketIndex::new(1);
const Y: BucketIndex = BucketIndex::new(2);

/// Cells of two for each CPU, and as many places in the queue.
fn lists(cpus: u32) -> Arc<Reserves> {
    let geometry = Geometry::new(64, 1, 128, 8).expect("a legal shape");
    let mut sizes = Sizes::tierce(&geometry, 0);
    (sizes.btree, sizes.prio, sizes.moving_gc, sizes.none) = (0, 0, 0, 4 * cpus);
    assert_eq!(sizes.cells_per_cpu(cpus), 2);
    Arc::new(Reserves::new(&sizes, cpus))
}

fn bucket(popped: Popped) -> BucketIndex {
    match popped {
        Popped::Bucket(bucket, None) => bucket,
        other => panic!("expected a bucket, got {other:?}"),
    }
}

/// Two buckets, two takers. One takes both out of the queue, one of them for the cells.
#[test]
fn a_mover_hides_nothing() {
    model(|| {
        let lists = lists(1);
        lists.release(X);
        lists.release(Y);
        let other = Arc::clone(&lists);
        let mover = thread::spawn(move || other.pop(Reserve::None));
        let mine = lists.pop(Reserve::None);
        let others = mover.join().unwrap();
        let seen = [mine, others];
        assert!(!seen.contains(&Popped::Empty), "there was always one for each: {seen:?}");
        assert!(seen.iter().any(|seen| matches!(seen, Popped::Bucket(..))), "one must get his");
        if seen.contains(&Popped::MoversSeen) {
            bucket(lists.pop(Reserve::None));
        }
        assert_eq!(lists.pop(Reserve::None), Popped::Empty, "nothing may come out twice");
    });
}

/// A bucket is put where the scan has been, then another taken from where it is going.
#[test]
fn an_insertion_behind_the_scan_is_noticed() {
    model(|| {
        let lists = lists(2);
        lists.give_back(X); // into the cells of this thread, the last place the other looks
        let other = Arc::clone(&lists);
        let scanner = thread::spawn(move || other.pop(Reserve::None));
        lists.release(Y); // into the queue
        let mine = lists.pop(Reserve::None);
        let others = scanner.join().unwrap();
        let seen = [mine, others];
        assert!(!seen.contains(&Popped::Empty), "at every instant one was free: {seen:?}");
    });
}

/// The same without the queue, whose lock orders more than the real one.
#[test]
fn an_insertion_into_cells_behind_the_scan_is_noticed() {
    model(|| {
        let lists = lists(2);
        let scanner = {
            let other = Arc::clone(&lists);
            lists.give_back(X);
            thread::spawn(move || other.pop(Reserve::None))
        };
        lists.give_back(Y); // behind X in the same row …
        let mine = bucket(lists.pop(Reserve::None));
        let others = scanner.join().unwrap();
        assert_ne!(others, Popped::Empty, "at every instant one was free; this got {mine}");
    });
}
