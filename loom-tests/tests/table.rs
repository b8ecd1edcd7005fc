//! The words of the table, `lockfree/src/table.rs`.
//!
//! Breaks that must turn these red: `unpin_relaxed`, `invalidate_relaxed`, `pin_blind`,
//! `touch_plain_store`, `free_looks_first`.
#![cfg(tierce_loom)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use tierce_core::{BucketIndex, Gen, Mark, Prio, Snapshot};
use tierce_lockfree::model::Table;
use tierce_loom_tests::model;

const B: BucketIndex = BucketIndex::new(0);
const OLD: Gen = Gen::new(0);

fn table(word: Snapshot) -> Arc<Table> {
    Arc::new(Table::new(&[word]))
}

/// What two holders did with the bucket happened before its reuse, although only the last unpin
/// is what invalidation reads, and a touch comes between.
#[test]
fn unpin_happens_before_reuse() {
    model(|| {
        let aged = Snapshot::default().with_pin(2).with_prio(Prio::new(7));
        let shared = Arc::new((Table::new(&[aged]), [UnsafeCell::new(0), UnsafeCell::new(0)]));
        let holders: Vec<_> = (0..2)
            .map(|i| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    // SAFETY: each holder has a cell of his own, until he unpins.
                    shared.1[i].with_mut(|data| unsafe { *data = 1 });
                    shared.0.unpin(B);
                })
            })
            .collect();
        shared.0.touch(B, OLD);
        if shared.0.invalidate(B).is_some() {
            for cell in &shared.1 {
                // SAFETY: the invalidation must have made it ours; loom checks that.
                let seen = cell.with(|data| unsafe { *data });
                assert_eq!(seen, 1, "the holder's write must happen before reuse");
            }
        }
        holders.into_iter().for_each(|holder| holder.join().unwrap());
        assert!(shared.0.read(B).pin_count() <= 1, "no unpin may be lost");
    });
}

/// I1: a pin is granted after those who held one did their work, not beside it.
#[test]
fn i1_a_pin_sees_what_earlier_holders_did() {
    model(|| {
        let shared = Arc::new((Table::new(&[Snapshot::default().with_pin(1)]), UnsafeCell::new(0)));
        let other = Arc::clone(&shared);
        let holder = thread::spawn(move || {
            // SAFETY: the holder's, until he unpins.
            other.1.with_mut(|data| unsafe { *data = 1 });
            other.0.unpin(B);
        });
        let word = shared.0.pinned(B, OLD).expect("the gen has not moved");
        if word.pin_count() == 1 {
            // SAFETY: the only pin is ours, and must have made it ours; loom checks that.
            let seen = shared.1.with(|data| unsafe { *data });
            assert_eq!(seen, 1, "the holder's write must happen before the pin");
        }
        holder.join().unwrap();
    });
}

/// I1: the short way into reuse is as strict as the long one.
#[test]
fn i1_an_unpin_happens_before_the_short_way() {
    model(|| {
        let shared = Arc::new((Table::new(&[Snapshot::default().with_pin(1)]), UnsafeCell::new(0)));
        let other = Arc::clone(&shared);
        let holder = thread::spawn(move || {
            // SAFETY: the holder's, until he unpins.
            other.1.with_mut(|data| unsafe { *data = 1 });
            other.0.unpin(B);
        });
        if shared.0.unused(B, OLD) {
            // SAFETY: the short way must have made it ours; loom checks that.
            let seen = shared.1.with(|data| unsafe { *data });
            assert_eq!(seen, 1, "the holder's write must happen before reuse");
        }
        holder.join().unwrap();
    });
}

/// I1: an index node's last life; who frees it has done with it.
#[test]
fn i1_what_the_owner_did_happens_before_reuse() {
    model(|| {
        let node = Snapshot::default().with_mark(Mark::Metadata);
        let shared = Arc::new((Table::new(&[node]), UnsafeCell::new(0)));
        let other = Arc::clone(&shared);
        let reclaimer = thread::spawn(move || {
            if other.0.invalidate(B).is_some() {
                // SAFETY: the invalidation must have made it ours; loom checks that.
                let seen = other.1.with(|data| unsafe { *data });
                assert_eq!(seen, 1, "the owner's write must happen before reuse");
            }
        });
        // SAFETY: the owner's, until he frees it.
        shared.1.with_mut(|data| unsafe { *data = 1 });
        assert!(shared.0.free(B, OLD), "its owner has it");
        reclaimer.join().unwrap();
    });
}

/// I3: who frees a bucket that is being reused takes nothing from its next owner.
#[test]
fn i3_a_late_free_leaves_the_next_life_alone() {
    model(|| {
        let table = table(Snapshot::default().with_mark(Mark::Reclaimable));
        let other = Arc::clone(&table);
        let next = thread::spawn(move || {
            other.invalidate(B).expect("free or not, it can be reused");
            assert!(other.allocate(B), "nobody else pinned it");
            other.mark_dirty(B);
        });
        let freed = table.free(B, OLD);
        next.join().unwrap();
        let mark = table.read(B).mark();
        assert_eq!(mark, Mark::Dirty, "the only copy must stay (freed: {freed})");
    });
}

#[test]
fn one_invalidation_wins() {
    model(|| {
        let table = table(Snapshot::default());
        let other = Arc::clone(&table);
        let rival = thread::spawn(move || other.invalidate(B).is_some());
        let mine = table.invalidate(B).is_some();
        assert!(mine ^ rival.join().unwrap(), "exactly one invalidation must win");
        let word = table.read(B);
        assert_eq!((word.gen_(), word.pin_count()), (OLD.next(), 1));
    });
}

#[test]
fn pin_excludes_invalidation() {
    model(|| {
        let table = table(Snapshot::default());
        let other = Arc::clone(&table);
        let reclaimer = thread::spawn(move || other.invalidate(B).is_some());
        if table.pin(B, OLD) {
            assert_eq!(table.read(B).gen_(), OLD, "a pin must freeze the gen");
            table.unpin(B);
        } else {
            assert_eq!(table.read(B).gen_(), OLD.next(), "a pin fails only if the gen moved");
        }
        let taken = reclaimer.join().unwrap();
        assert_eq!(table.read(B).pin_count(), u16::from(taken), "pins must come out even");
    });
}

/// A reader with a stale pointer must not make an allocation believe in a foreign pin.
#[test]
fn a_stale_pin_leaves_no_trace() {
    model(|| {
        let table = table(Snapshot::default().with_gen(OLD.next()).with_pin(1));
        let other = Arc::clone(&table);
        let reader = thread::spawn(move || other.pin(B, OLD));
        assert!(table.allocate(B), "a pin that fails must never be visible");
        assert!(!reader.join().unwrap());
    });
}

/// Four owners change four fields at once.
#[test]
fn no_transition_loses_anothers_field() {
    model(|| {
        let start = Snapshot::default().with_pin(2).with_prio(Prio::new(7)).with_sectors(3);
        let table = table(start);
        let spawn = |work: fn(&Table)| {
            let table = Arc::clone(&table);
            thread::spawn(move || work(&table))
        };
        let writer = spawn(|table| {
            table.mark_dirty(B);
            table.unpin(B);
        });
        let reader = spawn(|table| table.touch(B, OLD));
        let start = start.with_pin(1); // it was pinned: its mark stays
        table.gc_publish(B, start, Mark::None, OLD);
        writer.join().unwrap();
        reader.join().unwrap();
        let word = table.read(B);
        assert_eq!((word.mark(), word.sectors()), (Mark::Dirty, 3), "{word:?}");
        assert_eq!(word.pin_count(), 1, "no unpin may be lost");
    });
}
