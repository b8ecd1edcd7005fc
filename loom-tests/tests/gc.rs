//! Garbage collection, `lockfree/src/gc.rs`: shadow marks against insertion and invalidation,
//! and the prio chain, which only its mark protects.
//!
//! Breaks that must turn these red: `gc_ignores_pins`, `gc_ignores_reuse`.
#![cfg(tierce_loom)]

use loom::sync::atomic::{AtomicU32, Ordering};
use loom::sync::{Arc, Mutex, Notify};
use loom::thread;
use tierce_core::{Mark, Policy, Reserve};
use tierce_lockfree::{Allocator, BucketRef, Marked, PrioWrite, Reclaimer, Step, model as inside};
use tierce_loom_tests::{
    model,
    tiny::{self, bucket},
};

type Index = Mutex<Option<BucketRef>>;

fn collect(allocator: &Allocator, index: &Index) {
    let gc = allocator.begin_gc().expect("one at a time");
    let found = *index.lock().expect("no thread panics");
    if let Some(pointer) = found {
        let _ = gc.mark(pointer, 8, Mark::Dirty);
    }
    gc.finish();
}

/// A writer inserts the only copy behind the walk, or before it.
#[test]
fn a_dirty_bucket_is_never_invalidated() {
    model(|| {
        let (allocator, mut reclaimer) = tiny::allocator(tiny::settings(), 1);
        let _ = reclaimer.step();
        let index = Arc::new(Mutex::new(None));
        let (other, others_index) = (Arc::clone(&allocator), Arc::clone(&index));
        let collector = thread::spawn(move || collect(&other, &others_index));
        let held = allocator.try_alloc(Reserve::None).unwrap().expect("a free bucket");
        let pointer = held.bucket_ref();
        held.mark_dirty();
        *index.lock().unwrap() = Some(pointer);
        held.written();
        assert!(!inside::invalidate(&allocator, pointer.id()), "it holds the only copy");
        collector.join().unwrap();
        assert!(!inside::invalidate(&allocator, pointer.id()), "it holds the only copy");
    });
}

/// I4: the index may be lock-free. Whoever unpinned a bucket before the snapshot had inserted its
/// key before, and a snapshot that sees the unpin makes the walk see the key.
#[test]
fn i4_the_walk_meets_what_was_inserted_before_the_snapshot() {
    model(|| {
        let (allocator, mut reclaimer) = tiny::of_five(tiny::settings(), 0, 2);
        let _ = reclaimer.step();
        let held = allocator.try_alloc(Reserve::None).unwrap().expect("a free bucket");
        let pointer = held.bucket_ref();
        held.mark_dirty();
        core::mem::forget(held);
        let index = Arc::new(AtomicU32::new(0));
        let (other, others_index) = (Arc::clone(&allocator), Arc::clone(&index));
        let collector = thread::spawn(move || {
            let gc = other.begin_gc().expect("one at a time");
            // Acquire: pairs with the insertion.
            if others_index.load(Ordering::Acquire) == 1 {
                let _ = gc.mark(pointer, 8, Mark::Dirty);
            }
            gc.finish();
        });
        // Release: publishes the key.
        index.store(1, Ordering::Release);
        inside::unpin(&allocator, pointer.id());
        collector.join().unwrap();
        assert!(!inside::invalidate(&allocator, pointer.id()), "it holds the only copy");
    });
}

/// I14, marking in place: from the moment at which the marks are cleared until they are set again
/// no pass takes anything.
#[test]
fn i14_no_pass_meets_cleared_marks() {
    model(|| {
        let settings = tiny::settings().invalidate_during_gc(false).policy(Policy::Fifo);
        let (allocator, mut reclaimer) = tiny::of_five(settings, 0, 2);
        let pointer = tiny::full(&allocator);
        inside::mark_dirty(&allocator, pointer.id());
        let other = Arc::clone(&allocator);
        let collector = thread::spawn(move || {
            let gc = other.begin_gc().expect("one at a time");
            assert_eq!(gc.mark(pointer, 8, Mark::Dirty), Marked::Live, "it holds the only copy");
            gc.finish();
        });
        let _ = reclaimer.step();
        collector.join().unwrap();
        let word = allocator.snapshot(pointer.id()).expect("one of its buckets");
        assert_eq!((word.gen_(), word.mark()), (pointer.gen_(), Mark::Dirty));
    });
}

/// I14, marking in place: abandoned in the middle, its marks are not relied on until another
/// collection has finished.
#[test]
fn i14_an_abandoned_collection_leaves_nothing_to_take() {
    model(|| {
        let settings = tiny::settings().invalidate_during_gc(false).policy(Policy::Fifo);
        let (allocator, mut reclaimer) = tiny::of_five(settings, 0, 2);
        let pointer = tiny::full(&allocator);
        inside::mark_dirty(&allocator, pointer.id());
        let other = Arc::clone(&allocator);
        let collector = thread::spawn(move || {
            drop(other.begin_gc().expect("one at a time"));
            assert!(other.gc_due(), "nothing can be reused before another one");
            let gc = other.begin_gc().expect("one at a time");
            let _ = gc.mark(pointer, 8, Mark::Dirty);
            gc.finish();
        });
        let _ = reclaimer.step();
        collector.join().unwrap();
        let word = allocator.snapshot(pointer.id()).expect("one of its buckets");
        assert_eq!((word.gen_(), word.mark()), (pointer.gen_(), Mark::Dirty));
    });
}

/// The bucket was full when the collection began, and is in another life when it ends.
#[test]
fn a_reused_bucket_keeps_its_mark() {
    model(|| {
        let (allocator, mut reclaimer) = tiny::allocator(tiny::settings(), 1);
        let _ = reclaimer.step();
        let full = (1..8).map(bucket).find(|&b| allocator.snapshot(b).unwrap().pin_count() == 0);
        let full = full.expect("a full bucket");
        let index = Arc::new(Mutex::new(None));
        let (other, others_index) = (Arc::clone(&allocator), Arc::clone(&index));
        let gc = allocator.begin_gc().expect("one at a time");
        assert!(inside::invalidate(&allocator, full), "in the middle of a collection");
        let writer = thread::spawn(move || {
            inside::unpin(&other, full); // onto a list, from there to a writer, who opens it
            let pointer = BucketRef::new(full, other.snapshot(full).unwrap().gen_());
            let pin = other.pin(pointer).expect("it is the writer's");
            inside::mark_dirty(&other, full);
            *others_index.lock().unwrap() = Some(pointer);
            drop(pin);
        });
        gc.finish(); // its walk met no key
        writer.join().unwrap();
        assert!(!inside::invalidate(&allocator, full), "it holds the only copy");
        assert!(index.lock().unwrap().is_some());
    });
}

/// A whole prio write.
fn write_prios(reclaimer: &mut Reclaimer) {
    let write = begin_write(reclaimer);
    end_write(reclaimer, write);
}

fn begin_write(reclaimer: &mut Reclaimer) -> PrioWrite {
    let Step::PrioWrite(write) = reclaimer.write_now() else { panic!("there are buckets for it") };
    write
}

fn end_write(reclaimer: &mut Reclaimer, mut write: PrioWrite) {
    write.encode(0, |_, _| ());
    assert!(write.confirm(), "nobody holds it back");
    reclaimer.prio_durable(write);
}

/// An allocator whose prio chain is one bucket, and alone goes round.
fn with_chain() -> (Arc<Allocator>, Reclaimer) {
    let (allocator, mut reclaimer) = tiny::of_five(tiny::settings().sync(true), 1, 2);
    write_prios(&mut reclaimer);
    while let Some(node) = allocator.try_alloc(Reserve::Btree).expect("in use") {
        node.written();
    }
    let next = tiny::full(&allocator).id();
    assert!(inside::invalidate(&allocator, next));
    inside::release(&allocator, next); // for the next chain
    (allocator, reclaimer)
}

/// I4: a bucket of the live chain is released, recycled, and in the next chain, all with one
/// gen, while a collection publishes that began when it was in the old one.
#[test]
fn i4_the_prio_chain_keeps_its_mark() {
    model(|| {
        let (allocator, mut reclaimer) = with_chain();
        let write = begin_write(&mut reclaimer);
        let other = Arc::clone(&allocator);
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (says_begun, told) = (Arc::clone(&begun), Arc::clone(&go_on));
        let collector = thread::spawn(move || {
            let gc = other.begin_gc().expect("the only one");
            says_begun.notify();
            told.wait();
            gc.finish();
        });
        begun.wait();
        end_write(&mut reclaimer, write); // the old chain goes to the prio reserve …
        go_on.notify();
        let write = begin_write(&mut reclaimer); // … and from there into the new one
        collector.join().unwrap();
        let word = allocator.snapshot(bucket(write.chain()[0].get())).unwrap();
        assert_eq!(word.mark(), Mark::Metadata, "the live chain must not be reused: {word:?}");
    });
}

/// I4: as above, while the collection begins: a bucket leaves the chain between the look at its
/// word and the look at the chain, or does not.
#[test]
fn i4_a_chain_that_ends_meanwhile_keeps_its_mark() {
    model(|| {
        let (allocator, mut reclaimer) = with_chain();
        let write = begin_write(&mut reclaimer);
        let other = Arc::clone(&allocator);
        let collector = thread::spawn(move || {
            other.begin_gc().expect("the only one").finish();
        });
        end_write(&mut reclaimer, write);
        let write = begin_write(&mut reclaimer);
        collector.join().unwrap();
        let word = allocator.snapshot(bucket(write.chain()[0].get())).unwrap();
        assert_eq!(word.mark(), Mark::Metadata, "the live chain must not be reused: {word:?}");
    });
}
