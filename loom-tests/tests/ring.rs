//! The queue, `lockfree/src/ring.rs`.
//!
//! Breaks that must turn these red: `ring_push_relaxed`, `ring_advance_relaxed`,
//! `ring_some_told_early`.
#![cfg(tierce_loom)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use tierce_lockfree::model::Ring;
use tierce_loom_tests::model;

#[test]
fn what_the_pusher_did_happened_before_the_pop() {
    model(|| {
        let shared = Arc::new((Ring::new(1), UnsafeCell::new(0)));
        let other = Arc::clone(&shared);
        let popper = thread::spawn(move || {
            if other.0.pop() == Some(5) {
                // SAFETY: the pop must have made it ours; loom checks that.
                let seen = other.1.with(|data| unsafe { *data });
                assert_eq!(seen, 1, "the pusher's write must happen before the pop");
            }
        });
        // SAFETY: the bucket is the pusher's until he pushes it.
        shared.1.with_mut(|data| unsafe { *data = 1 });
        assert!(shared.0.push(5));
        popper.join().unwrap();
    });
}

/// What the exact-failure argument needs: also if a third thread said that the item was gone.
#[test]
fn who_finds_it_empty_synchronised_with_who_emptied_it() {
    model(|| {
        let shared = Arc::new((Ring::new(2), AtomicU32::new(0)));
        assert!(shared.0.push(5));
        let others: Vec<_> = (0..2)
            .map(|_| {
                let other = Arc::clone(&shared);
                thread::spawn(move || {
                    // Relaxed (both): ordered by the ring.
                    other.1.fetch_add(1, Ordering::Relaxed);
                    if other.0.pop().is_some() {
                        return;
                    }
                    assert_eq!(other.1.load(Ordering::Relaxed), 2, "who took it counted before");
                })
            })
            .collect();
        others.into_iter().for_each(|other| other.join().unwrap());
        assert_eq!((shared.0.pop(), shared.0.inserts()), (None, 1));
    });
}

/// Two push, two pop, and one slot less than items.
#[test]
fn each_item_comes_out_once() {
    model(|| {
        let ring = Arc::new(Ring::new(1));
        assert!(ring.push(1));
        let other = Arc::clone(&ring);
        let rival = thread::spawn(move || {
            let first = other.pop();
            (first, other.push(3))
        });
        let pushed = ring.push(2);
        let mine = ring.pop();
        let (others, others_pushed) = rival.join().unwrap();
        let rest: Vec<_> = std::iter::from_fn(|| ring.pop()).collect();
        let mut out: Vec<_> = rest.into_iter().chain(mine).chain(others).collect();
        out.sort_unstable();
        let went_in = [(1, true), (2, pushed), (3, others_pushed)];
        let went_in = went_in.into_iter().filter_map(|(item, went)| went.then_some(item));
        assert!(went_in.eq(out.iter().copied()), "lost or twice: {out:?}");
        let all = 1 + u64::from(pushed) + u64::from(others_pushed);
        assert_eq!(ring.inserts(), all, "every insertion is counted in the end");
    });
}

/// Two at a time beside another who pushes and pops: whoever has pushed finds something, none is
/// lost or out of order, and the second does not fit where others have taken its place.
#[test]
fn several_come_in_order_and_others_see_them() {
    model(|| {
        let ring = Arc::new(Ring::new(3));
        let other = Arc::clone(&ring);
        let rival = thread::spawn(move || {
            assert!(other.push(3), "there is room for all");
            other.pop().expect("his own is there, or one before it")
        });
        assert_eq!(ring.push_some(&[1, 2]), 2, "there is room for all");
        let his = rival.join().unwrap();
        let rest: Vec<_> = std::iter::from_fn(|| ring.pop()).collect();
        let out: Vec<_> = std::iter::once(his).chain(rest).collect();
        let ours: Vec<_> = out.iter().copied().filter(|&item| item < 3).collect();
        assert!(out.len() == 3 && ours == [1, 2], "lost, twice or out of order: {out:?}");
        assert_eq!(ring.inserts(), 3, "every insertion is counted in the end");
    });
}

/// What those did who filled the slots before is seen by whoever sees that all have come, also if
/// it was told by one who pushed several.
#[test]
fn who_is_told_of_several_synchronised_with_all() {
    model(|| {
        let shared = Arc::new((Ring::new(3), AtomicU32::new(0)));
        let other = Arc::clone(&shared);
        let rival = thread::spawn(move || {
            // Relaxed: ordered by the ring.
            other.1.store(1, Ordering::Relaxed);
            assert!(other.0.push(3));
        });
        assert_eq!(shared.0.push_some(&[1, 2]), 2);
        if shared.0.inserts() == 3 {
            // Relaxed: ordered by the ring.
            assert_eq!(shared.1.load(Ordering::Relaxed), 1, "the third came before");
        }
        rival.join().unwrap();
    });
}

/// A queue that was never empty, nor full when somebody pushes, says neither.
#[test]
fn it_is_empty_or_full_only_when_it_is() {
    model(|| {
        let ring = Arc::new(Ring::new(2));
        assert!(ring.push(1));
        let other = Arc::clone(&ring);
        let rival = thread::spawn(move || {
            assert!(other.push(2), "there was room for one");
            assert!(other.pop().is_some(), "there were two for two");
        });
        assert!(ring.pop().is_some(), "there was one for each");
        assert!(ring.push(3), "there was room");
        rival.join().unwrap();
        assert!(ring.pop().is_some() && ring.pop().is_none());
    });
}
