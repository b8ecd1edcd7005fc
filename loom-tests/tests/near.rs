//! Cells that are near, `lockfree/src/near.rs` and `cells.rs`.
//!
//! The sections themselves are a model here (`lockfree/src/section/model.rs`): of the kernel's
//! promise they keep that a section is over before a barrier or begins after it.
//!
//! Breaks that must turn these red: `section_any_mode`, `close_no_barrier`, `open_no_barrier`,
//! `open_ignores_visitors`, `open_ignores_waiters`, `wait_while_near`.
#![cfg(tierce_loom)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use tierce_core::BucketIndex;
use tierce_lockfree::model::NearCells;
use tierce_loom_tests::model;

const B: BucketIndex = BucketIndex::new(5);

/// Cells in which B is in the row of this thread, the first.
fn with_one() -> Arc<NearCells> {
    let cells = NearCells::new(3, 1);
    assert!(cells.push(B), "there is room");
    Arc::new(cells)
}

/// Who has it puts it back where he is.
fn put_back(cells: &NearCells, taken: Option<BucketIndex>) {
    if let Some(bucket) = taken {
        assert_eq!(bucket, B);
        while !cells.push(bucket) {
            // The mode changes; who changes it comes to an end.
            thread::yield_now();
        }
    }
}

/// Nobody is there any more.
fn assert_one(cells: &NearCells) {
    let left = (cells.pop_anywhere(), cells.pop_anywhere());
    assert_eq!(left, (Some(B), None), "a bucket must be neither lost nor doubled");
}

/// One of those who tried has got the bucket, or it is still there.
fn assert_taken_once(cells: &NearCells, tried: impl IntoIterator<Item = Option<BucketIndex>>) {
    let mut tried: Vec<_> = tried.into_iter().collect();
    tried.push(cells.pop_anywhere());
    assert_eq!(tried.iter().flatten().count(), 1, "one must get it: {tried:?}");
}

/// The owner stores, the thief makes the cells shared.
#[test]
fn a_thief_and_the_owner_take_a_bucket_once() {
    model(|| {
        let cells = with_one();
        cells.open();
        let other = Arc::clone(&cells);
        let thief = thread::spawn(move || other.pop_anywhere());
        let mine = cells.pop();
        assert_taken_once(&cells, [mine, thief.join().unwrap()]);
    });
}

/// The thief exchanges, the owner makes the cells near.
#[test]
fn an_exchange_is_over_before_the_first_store() {
    model(|| {
        let cells = with_one();
        let other = Arc::clone(&cells);
        let thief = thread::spawn(move || other.pop_anywhere());
        cells.open();
        let mine = cells.pop();
        assert_taken_once(&cells, [mine, thief.join().unwrap()]);
    });
}

/// As before, of a thief who has no sections, and of an owner who opens.
#[test]
fn a_visitor_is_gone_before_the_first_store() {
    model(|| {
        let cells = NearCells::new(3, 1);
        let other = BucketIndex::new(4);
        // The other thread's row is the second.
        assert!(cells.push_anywhere(other) && cells.push_anywhere(B), "there is room");
        assert_eq!(cells.pop(), Some(other));
        let cells = Arc::new(cells);
        let shared = Arc::clone(&cells);
        let owner = thread::spawn(move || {
            shared.open();
            shared.pop()
        });
        let taken = cells.pop_as_visitor();
        assert_taken_once(&cells, [owner.join().unwrap(), taken]);
    });
}

/// Two thieves at once: the second must not rely on a barrier that the first has not made yet.
#[test]
fn each_thief_makes_his_barrier() {
    model(|| {
        let cells = with_one();
        cells.open();
        let thieves: Vec<_> = (0..2)
            .map(|_| {
                let other = Arc::clone(&cells);
                thread::spawn(move || other.pop_anywhere())
            })
            .collect();
        let mine = cells.pop();
        let stolen = thieves.into_iter().map(|thief| thief.join().unwrap());
        assert_taken_once(&cells, stolen.chain([mine]));
    });
}

/// There and back again: the version tells one turn from another.
#[test]
fn a_bucket_survives_turns() {
    model(|| {
        let cells = with_one();
        cells.open();
        let other = Arc::clone(&cells);
        let thief = thread::spawn(move || {
            let taken = other.pop_anywhere();
            put_back(&other, taken);
        });
        let taken = cells.pop();
        put_back(&cells, taken);
        cells.open();
        thief.join().unwrap();
        assert_one(&cells);
    });
}

/// What was done to a bucket before it was stored is seen by who takes it.
#[test]
fn what_the_pusher_did_happened_before_the_pop() {
    model(|| {
        let cells = NearCells::new(3, 1);
        assert!(cells.push(B) && cells.pop() == Some(B), "row and CPU are the first");
        cells.open();
        let shared = Arc::new((cells, UnsafeCell::new(0)));
        let other = Arc::clone(&shared);
        let thief = thread::spawn(move || {
            if other.0.pop_anywhere() == Some(B) {
                // SAFETY: the pop must have made it ours; loom checks that.
                let seen = other.1.with(|data| unsafe { *data });
                assert_eq!(seen, 1, "the pusher's write must happen before the pop");
            }
        });
        // SAFETY: the bucket is the pusher's until he pushes it.
        shared.1.with_mut(|data| unsafe { *data = 1 });
        // It may not find room while the mode changes.
        let _pushed = shared.0.push(B);
        thief.join().unwrap();
    });
}

/// Who stores has no fence: the waiter's barrier stands in for it.
#[test]
fn i10_a_stored_bucket_or_a_sleeper_is_seen() {
    model(|| {
        let cells = Arc::new(NearCells::new(3, 1));
        assert!(cells.push(B) && cells.pop() == Some(B), "row and CPU are the first");
        cells.open();
        let other = Arc::clone(&cells);
        let sleeper = thread::spawn(move || {
            other.wait();
            other.pop_anywhere().is_some()
        });
        let pushed = cells.push_and_look(B);
        let found = sleeper.join().unwrap();
        assert!(found || pushed != Some(false), "they must not miss each other");
    });
}

/// Somebody makes the cells near while somebody else begins to wait.
#[test]
fn i10_nobody_waits_while_cells_become_near() {
    model(|| {
        let cells = Arc::new(NearCells::new(3, 1));
        assert!(cells.push(B) && cells.pop() == Some(B), "row and CPU are the first");
        let other = Arc::clone(&cells);
        let sleeper = thread::spawn(move || {
            other.wait();
            other.pop_anywhere().is_some()
        });
        cells.open();
        let pushed = cells.push_and_look(B);
        let found = sleeper.join().unwrap();
        assert!(found || pushed != Some(false), "they must not miss each other");
    });
}
