//! Garbage collection, `lockfree/src/gc.rs`: shadow marks against insertion and invalidation,
//! and the prio chain, which only its mark protects.
//!
//! Breaks that must turn these red: `gc_ignores_pins`, `gc_ignores_reuse`.
#![cfg(tierce_loom)]

use loom::sync::{Arc, Mutex, Notify};
use loom::thread;
use tierce_core::{Mark, Reserve};
use tierce_lockfree::{Allocator, BucketRef, Config, PrioWrite, Reclaimer, Step, model as inside};
use tierce_loom_tests::{
    model, model_within,
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

fn next_write(reclaimer: &mut Reclaimer) -> PrioWrite {
    let Step::PrioWrite(mut write) = reclaimer.step() else { panic!("a batch is due") };
    write.encode(0, |_, _| ());
    assert!(write.confirm(), "nobody holds it back");
    write
}

/// A bucket of the live chain is released, recycled, and in the next chain, while a collection
/// publishes that began when it was in the old one.
#[test]
fn the_prio_chain_keeps_its_mark() {
    model_within(0, || {
        let settings = Config { sync: true, ..tiny::settings() };
        // What becomes ready goes to `btree`: `none` stays empty, chains come from `prio`.
        let (allocator, mut reclaimer) = tiny::of_buckets(11, settings, 3, 1, 2);
        while let Some(node) = allocator.try_alloc(Reserve::Btree).unwrap() {
            node.written();
        }
        let write = next_write(&mut reclaimer);
        reclaimer.prio_durable(write);
        let write = next_write(&mut reclaimer);
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
        reclaimer.prio_durable(write); // the old chain goes to the prio reserve …
        go_on.notify();
        let write = next_write(&mut reclaimer);
        let chain = write.chain()[0]; // … and from there into the new one
        collector.join().unwrap();
        let word = allocator.snapshot(bucket(chain.get())).unwrap();
        assert_eq!(word.mark(), Mark::Metadata, "the live chain must not be reused: {word:?}");
    });
}
