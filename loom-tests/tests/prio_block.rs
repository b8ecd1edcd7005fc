//! Holding prio writes back, `lockfree/src/prio_block.rs`: a freed index node's new gen must not
//! become durable before the node's replacement (I6), and nobody sleeps for ever (I7, I10).
//!
//! Breaks that must turn these red: `prio_block_no_owner_fence`, `prio_block_no_writer_fence`,
//! `prio_block_no_version`, `prio_block_no_redo`, `prio_block_leave_relaxed`, `hungry_no_fence`,
//! `unblocked_no_fence`.
#![cfg(tierce_loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use tierce_core::{BucketIndex, Gen, Mark, Reserve, Snapshot};
use tierce_lockfree::model::{PrioBlocks, Table};
use tierce_lockfree::{
    Allocator, BucketRef, Bump, PrioWrite, Reclaimer, Step, WaitFor, model as inside,
};
use tierce_loom_tests::{model, tiny};

/// An allocator with one index node.
fn with_node() -> (Arc<Allocator>, Reclaimer, BucketRef) {
    let (allocator, reclaimer) = tiny::of_five(tiny::settings().sync(true), 1, 2);
    let node = allocator.try_alloc(Reserve::Btree).expect("in use").expect("filled at start");
    let pointer = node.bucket_ref();
    node.written();
    (allocator, reclaimer, pointer)
}

/// Frees the node; `replaced` says that what replaces it is durable.
fn replace(allocator: &Allocator, node: BucketRef, replaced: &AtomicU32) {
    let block = allocator.prio_block();
    assert_eq!(block.bump_gen(node), Bump::Bumped(node.gen_().next()));
    // Relaxed: published by the end of the block, as a journal write is.
    replaced.store(1, Ordering::Relaxed);
    drop(block);
}

/// The gens of a table that may be named by the journal.
fn publishable(write: &mut PrioWrite) -> Vec<Gen> {
    loop {
        let mut gens = Vec::new();
        write.encode(0, |_, gen_| gens.push(gen_));
        if write.confirm() {
            return gens;
        }
        assert!(write.wait_unblocked(), "nothing has ended");
    }
}

/// Writes the table once.
fn write_prios(reclaimer: &mut Reclaimer, node: BucketRef, replaced: &AtomicU32) {
    loop {
        match reclaimer.write_now() {
            Step::Wait(WaitFor::PrioBlock) => {
                reclaimer.park(None);
            }
            Step::PrioWrite(mut write) => {
                if publishable(&mut write)[node.bucket().as_usize()] != node.gen_() {
                    // Relaxed: ordered by whatever made the write be confirmed.
                    let replaced = replaced.load(Ordering::Relaxed);
                    assert_eq!(replaced, 1, "no gen is published before what replaces its node");
                }
                reclaimer.prio_durable(write);
                return;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A point at which the checker switches threads. It orders nothing.
fn meet(point: &AtomicU32) {
    // Relaxed: see above.
    point.fetch_add(1, Ordering::Relaxed);
}

/// I6: the protocol alone, with one bucket. The checker must be told where to switch threads: of
/// all that a word was read by, it remembers only the last.
#[test]
fn i6_an_advanced_gen_is_published_with_its_replacement() {
    model(|| {
        const B: BucketIndex = BucketIndex::new(0);
        let node = Snapshot::default().with_mark(Mark::Metadata);
        let point = AtomicU32::new(0);
        let shared =
            Arc::new((PrioBlocks::default(), Table::new(&[node]), AtomicU32::new(0), point));
        let other = Arc::clone(&shared);
        let owner = thread::spawn(move || {
            let (blocks, table, replaced, point) = &*other;
            blocks.take();
            meet(point);
            assert!(table.bump_gen(B, node.gen_()));
            meet(point);
            // Relaxed: published by the end of the block, as a journal write is.
            replaced.store(1, Ordering::Relaxed);
            blocks.leave();
            meet(point);
        });
        let (blocks, table, replaced, point) = &*shared;
        meet(point);
        if let Some(before) = blocks.free() {
            meet(point);
            let encoded = table.read_for_prios(B).gen_();
            if blocks.unchanged(before) && encoded != node.gen_() {
                // Relaxed: ordered by whatever made the blocks be unchanged.
                let replaced = replaced.load(Ordering::Relaxed);
                assert_eq!(replaced, 1, "no gen is published before what replaces its node");
            }
        }
        owner.join().unwrap();
    });
}

/// I6: an owner frees a node while the table is written.
#[test]
fn i6_no_table_overtakes_what_replaces_a_node() {
    model(|| {
        let (allocator, mut reclaimer, node) = with_node();
        let replaced = Arc::new(AtomicU32::new(0));
        let other = Arc::clone(&replaced);
        let owner = thread::spawn(move || replace(&allocator, node, &other));
        write_prios(&mut reclaimer, node, &replaced);
        owner.join().unwrap();
    });
}

/// I15: a node whose gen has run to its limit stays allocated, whoever frees it first.
#[test]
fn i15_a_node_at_its_limit_stays_allocated() {
    model(|| {
        let (allocator, _reclaimer, node) = with_node();
        let mut pointer = node;
        let block = allocator.prio_block();
        while let Bump::Bumped(gen_) = block.bump_gen(pointer) {
            pointer = BucketRef::new(node.id(), gen_);
            if inside::lag(&allocator, node.id()) == 95 {
                break;
            }
        }
        let other = Arc::clone(&allocator);
        let rival = thread::spawn(move || other.prio_block().bump_gen(pointer));
        let seen = [block.bump_gen(pointer), rival.join().unwrap()];
        let bumped = seen.iter().filter(|seen| matches!(seen, Bump::Bumped(_))).count();
        assert_eq!(bumped, 1, "only one frees it: {seen:?}");
        assert!(seen.contains(&Bump::Stale), "the other finds it freed: {seen:?}");
        let limit = BucketRef::new(node.id(), pointer.gen_().next());
        assert_eq!(block.bump_gen(limit), Bump::MustGc);
        assert_eq!(inside::lag(&allocator, node.id()), 96, "no gen runs further ahead");
    });
}
