//! Random sequences of operations on the executable specification and on the concurrent
//! allocator, side by side. After every operation these are the same:
//!
//! 1. its result and its events, in order;
//! 2. every bucket's word (of open buckets without the pins taken in advance);
//! 3. the four free lists and `free_inc`, in order;
//! 4. `min_prio`, `need_gc`, the rescale counter, whether marks are valid, who holds prio writes
//!    back; per device whether it waits for a collection, FIFO's cursor, sectors written,
//!    discards;
//! 5. the open buckets in the order of their use, and what each remembers;
//! 6. the counters that both have.
//!
//! The allocator has no cells and writes no batch on demand. Not compared, or avoided, because
//! the two differ by design (`tierce_lockfree::sim` says why):
//!
//! * `available` of several devices, which is clamped per device instead of per set;
//! * foreign pins on free buckets (nobody forges pointers here);
//! * with more than 8 slots, writes that continue a stream: they are found by hints;
//! * policies that differ between devices; `gc_due`, which counts whole buckets here.
//!
//! `PROPTEST_CASES` says how many sequences are run, 200 if it is not set, shared by as many
//! threads as there are processors. What was done is counted and printed by kind of operation and
//! by kind of garbage collection (findings kept in shadows, or marks in place); only what had an
//! effect counts, for most operations can be asked for in vain. A zero anywhere fails the test.

#![cfg(not(any(tierce_loom, tierce_shuttle)))]

mod counts;
mod operation;

use counts::Counts;
use operation::{Config, Op, config, op};
use proptest::prelude::*;
use proptest::test_runner::{Config as Settings, TestError, TestRunner};
use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use tierce_core::spec::sim::Engine;
use tierce_core::spec::{DeviceOptions, Live, Options, Place, Pointer, Set, Write};
use tierce_core::{BucketId, BucketIndex, DeviceIndex, Geometry, Policy, Reserve, Sizes};
use tierce_lockfree::sim::Scripted;

const BUCKETS: u32 = 24;
const BUCKET_SECTORS: u32 = 64;
/// An operation in a thousand shrinks to none: with a few more every sequence has 200.
const OPERATIONS: core::ops::Range<usize> = 205..265;

/// A pointer and what it is for.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Key {
    pointer: Pointer,
    sectors: u32,
    live: Live,
    /// A whole bucket that was allocated, rather than sectors.
    whole: bool,
}

/// Both allocators, and an owner who does the same to either.
struct Pair {
    config: Config,
    spec: Set,
    real: Scripted,
    /// Allocated and not yet in the index: each holds a pin.
    held: Vec<Key>,
    index: Vec<Key>,
    pins: Vec<BucketId>,
    in_gc: bool,
    /// Where each stream goes on.
    next: [(u64, u64); 6],
    inodes: u64,
    /// Whether the operation that is being compared did anything.
    effect: bool,
}

impl Pair {
    fn new(config: Config) -> Self {
        let geometry = Geometry::new(BUCKETS, 1, BUCKET_SECTORS, 8).expect("a legal shape");
        let mut sizes = Sizes::bcache(&geometry, 0);
        (sizes.btree, sizes.moving_gc, sizes.none, sizes.free_inc) = config.sizes;
        sizes.candidates = 2 * sizes.free_inc;
        let devices = (0..u64::from(config.devices)).map(|d| {
            let mut device = DeviceOptions::new(geometry, sizes);
            device.policy = config.policy;
            (device.sync, device.discard) = (config.sync, config.discard);
            device.seed = config.seed.wrapping_add(d);
            device.journal_buckets = config.journal;
            device
        });
        let devices: Vec<_> = devices.collect();
        let mut options = Options::default();
        options.invalidate_during_gc = config.shadow;
        options.recycle_prio_chain = config.recycle;
        options.open_buckets = config.slots;
        let mut pair = Self {
            spec: Engine::create(options.clone(), devices.clone()).expect("legal settings"),
            real: Engine::create(options, devices).expect("legal settings"),
            config,
            held: Vec::new(),
            index: Vec::new(),
            pins: Vec::new(),
            in_gc: false,
            next: [(0, 0); 6],
            inodes: 0,
            effect: false,
        };
        pair.both(|e| shown(e.start()), |e| shown(e.start()));
        pair
    }

    /// Does the same to both and compares the results, which it returns.
    fn both<T: PartialEq + Debug>(
        &mut self,
        spec: impl FnOnce(&mut Set) -> T,
        real: impl FnOnce(&mut Scripted) -> T,
    ) -> T {
        let wanted = spec(&mut self.spec);
        let got = real(&mut self.real);
        assert_eq!(got, wanted, "the results differ (left: concurrent, right: specification)");
        wanted
    }

    fn device(&self, n: u8) -> DeviceIndex {
        DeviceIndex::new(n % self.config.devices)
    }
}

/// Errors are compared as such: their texts differ where the two know different things.
fn shown<T: Debug, E>(result: Result<T, E>) -> Option<String> {
    result.ok().map(|value| format!("{value:?}"))
}

/// The same method of both engines.
macro_rules! both {
    ($pair:expr, $method:ident($($arg:expr),*)) => {
        $pair.both(|e| Engine::$method(e, $($arg),*), |e| Engine::$method(e, $($arg),*))
    };
}
macro_rules! both_shown {
    ($pair:expr, $method:ident($($arg:expr),*)) => {{
        let result = $pair.both(
            |e| shown(Engine::$method(e, $($arg),*)),
            |e| shown(Engine::$method(e, $($arg),*)),
        );
        $pair.effect |= result.is_some();
        result
    }};
}

fn choose<T: Copy>(of: &[T], which: u8) -> Option<(usize, T)> {
    let at = usize::from(which).checked_rem(of.len())?;
    Some((at, of[at]))
}

impl Pair {
    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Alloc { device, reserve } => {
                let (device, reserve) = (self.device(device), Reserve::ALL[usize::from(reserve)]);
                let got = both!(self, alloc_on(device, reserve)).ready();
                self.effect = got.is_some();
                self.held.extend(got.map(|pointer| whole(pointer, reserve)));
            }
            Op::AllocSet { reserve, n } => {
                let reserve = Reserve::ALL[usize::from(reserve)];
                let n = usize::from(n.min(self.config.devices));
                let got = self.both(
                    |e| Engine::alloc_set(e, reserve, n).expect("n is legal"),
                    |e| Engine::alloc_set(e, reserve, n).expect("n is legal"),
                );
                let pointers = got.ready().unwrap_or_default();
                self.effect = !pointers.is_empty();
                self.held.extend(pointers.into_iter().map(|pointer| whole(pointer, reserve)));
            }
            Op::Sectors { stream, jump, sectors, write_point, write_prio } => {
                let exact = self.config.slots <= 8;
                let stream = usize::from(stream);
                if jump || !exact {
                    self.inodes += 1;
                    self.next[stream] = (self.inodes % if exact { 4 } else { u64::MAX }, 0);
                }
                let (inode, offset) = self.next[stream];
                let mut write = Write::new(inode, offset, sectors.into());
                (write.write_point, write.write_prio) = (write_point.into(), write_prio);
                write.flash_only = inode % 3 == 2;
                self.sectors(stream, write);
            }
            Op::MarkDirty(which) => {
                if let Some((at, key)) = choose(&self.held, which) {
                    both_shown!(self, mark_dirty(key.pointer.bucket));
                    if self.held[at].live == Live::Clean {
                        self.held[at].live = Live::Dirty;
                    }
                }
            }
            Op::Written(which) => {
                if let Some((at, key)) = choose(&self.held, which) {
                    self.held.swap_remove(at);
                    self.index.push(key);
                    both_shown!(self, unpin(key.pointer.bucket));
                }
            }
            Op::GiveBack(which) => {
                if let Some((at, key)) = choose(&self.held, which).filter(|(_, key)| key.whole) {
                    if both_shown!(self, give_back(key.pointer.bucket)).is_some() {
                        self.held.swap_remove(at);
                    }
                    // The specification alone records where it went; the lists show that.
                    self.spec.take_events();
                }
            }
            ref other => self.hold_or_more(other),
        }
    }

    fn sectors(&mut self, stream: usize, write: Write) {
        let got = self.both(
            |e| Engine::alloc_sectors(e, write).expect("at least one sector"),
            |e| Engine::alloc_sectors(e, write).expect("at least one sector"),
        );
        let Some(extent) = got.ready() else { return };
        self.effect = true;
        self.next[stream].1 += u64::from(extent.sectors);
        self.held.push(Key {
            pointer: Pointer::new(extent.bucket, extent.gen_),
            sectors: extent.sectors,
            live: Live::Clean,
            whole: false,
        });
    }

    fn hold_or_more(&mut self, op: &Op) {
        match *op {
            Op::Pin(which) => {
                // A pin on a free bucket would be a foreign one.
                let Some((_, key)) = choose(&self.index, which) else { return };
                let place = self.spec.place(key.pointer.bucket);
                if matches!(place, Some(Place::Out | Place::Open)) && both!(self, pin(key.pointer))
                {
                    self.pins.push(key.pointer.bucket);
                    self.effect = true;
                }
            }
            Op::Unpin(which) => {
                if let Some((at, bucket)) = choose(&self.pins, which) {
                    self.pins.swap_remove(at);
                    both_shown!(self, unpin(bucket));
                }
            }
            Op::Touch(which) => {
                if let Some((_, key)) = choose(&self.index, which) {
                    self.effect = both!(self, touch(key.pointer));
                }
            }
            Op::Forget(which) => {
                if let Some((at, _)) = choose(&self.index, which) {
                    self.index.swap_remove(at);
                    self.effect = true;
                }
            }
            Op::Free(which) => {
                if let Some((_, key)) = choose(&self.index, which) {
                    both_shown!(self, free(key.pointer.bucket));
                }
            }
            Op::Bump(which) => {
                if let Some((_, key)) = choose(&self.index, which) {
                    // Often, so that the limits are reached.
                    for _ in 0..which % 40 {
                        both_shown!(self, bump_gen(key.pointer.bucket));
                    }
                }
            }
            Op::Unused(which) => {
                if let Some((_, key)) = choose(&self.index, which) {
                    both_shown!(self, unused(key.pointer.bucket));
                }
            }
            ref other => self.background(other),
        }
    }

    fn background(&mut self, op: &Op) {
        match *op {
            Op::Io(sectors) => {
                self.effect = both!(self, account_io(u64::from(sectors % 16)));
            }
            Op::Step(n) => {
                let device = self.device(n);
                both!(self, step(device));
            }
            Op::Pass(n) => {
                let device = self.device(n);
                both!(self, invalidate(device));
            }
            Op::PrioWrite(n) => {
                let device = self.device(n);
                both!(self, prio_write(device));
            }
            Op::Block(true) => {
                both!(self, prio_block());
                self.effect = true;
            }
            Op::Block(false) => {
                both_shown!(self, prio_unblock());
            }
            Op::GcBegin => self.in_gc |= both_shown!(self, gc_begin()).is_some(),
            Op::GcMark(which) => {
                if let Some((_, key)) = choose(&self.index, which) {
                    both_shown!(self, gc_mark(key.pointer, key.sectors, key.live));
                }
            }
            Op::GcFinish => {
                for key in self.index.clone() {
                    both_shown!(self, gc_mark(key.pointer, key.sectors, key.live));
                }
                both_shown!(self, gc_finish());
                self.in_gc = false;
            }
            Op::GcAbandon => {
                both_shown!(self, gc_abandon());
                self.in_gc = false;
            }
            Op::Moving(n) => {
                let device = self.device(n);
                both_shown!(self, moving_candidates(device));
            }
            Op::SetPolicy(n) => {
                let policy = Policy::from_number(n).expect("there are three");
                let devices = self.spec.device_indexes();
                if devices.len() == 1 {
                    both_shown!(self, set_policy(DeviceIndex::FIRST, policy));
                }
            }
            Op::Fail(n) => {
                let device = self.device(n);
                both_shown!(self, fail_device(device, "the test said so"));
            }
            _ => self.crash(),
        }
    }

    fn crash(&mut self) {
        self.spec = Engine::after_crash(&self.spec).expect("as before");
        self.real = Engine::after_crash(&self.real).expect("as before");
        (self.held, self.pins, self.in_gc) = (Vec::new(), Vec::new(), false);
        self.index.sort_by_key(|key| key.live != Live::Metadata);
        for key in self.index.clone() {
            both_shown!(self, observe(key.pointer, key.sectors, key.live));
        }
        both_shown!(self, start());
    }

    fn compare(&mut self) {
        self.effect |= !both!(self, take_events()).is_empty();
        for device in self.spec.device_indexes() {
            for bucket in (0..BUCKETS).map(|b| BucketId::new(device, BucketIndex::new(b))) {
                let (got, wanted) =
                    (Engine::word(&self.real, bucket), Engine::word(&self.spec, bucket));
                assert_eq!(got, wanted, "bucket {bucket}, {:?}", self.spec.place(bucket));
            }
            let figures = |e: &dyn Fn(Reserve) -> Vec<BucketIndex>| Reserve::ALL.map(e);
            assert_eq!(
                figures(&|reserve| Engine::list(&self.real, device, reserve)),
                figures(&|reserve| Engine::list(&self.spec, device, reserve)),
                "free lists of {device}"
            );
            assert_eq!(of_device(&self.real, device), of_device(&self.spec, device), "{device}");
        }
        let mut wanted = Engine::gauges(&self.spec);
        let got = Engine::gauges(&self.real);
        if self.config.devices > 1 {
            (wanted.available, wanted.in_use_percent) = (got.available, got.in_use_percent);
        }
        assert_eq!(got, wanted);
        assert_eq!(Engine::slots(&self.real), Engine::slots(&self.spec));
        assert_eq!(Engine::unused_slots(&self.real), Engine::unused_slots(&self.spec));
        self.compare_counters();
        Engine::check(&self.real).expect("every bucket in one place");
        Engine::check(&self.spec).expect("every bucket in one place");
    }

    fn compare_counters(&self) {
        let (got, wanted) = (self.real.stats(), self.spec.counters());
        let sum = |of: &dyn Fn(&tierce_lockfree::DeviceStats) -> u64| {
            got.devices.iter().map(of).sum::<u64>()
        };
        let allocs = Reserve::ALL.map(|r| sum(&|d| d.alloc_total[r.as_usize()]));
        assert_eq!(allocs, wanted.alloc_total);
        assert_eq!(sum(&|d| d.alloc_fail_total), wanted.alloc_fail_empty_total);
        assert_eq!(sum(&|d| d.invalidate_total), wanted.invalidate_total);
        assert_eq!(sum(&|d| d.prio_write_total), wanted.prio_write_total);
        assert_eq!(sum(&|d| d.foreign_pin_total), wanted.foreign_pin_total);
        assert_eq!(got.rescale_total, wanted.rescale_total);
        assert_eq!(got.gc_stale_total, wanted.gc_stale_total);
    }
}

/// The figures of a device that the language shows.
fn of_device<E: Engine>(e: &E, d: DeviceIndex) -> (Vec<BucketIndex>, bool, u32, u64, u64) {
    (e.free_inc(d), e.needs_gc(d), e.fifo_next(d), e.sectors_written(d), e.discards(d))
}

fn whole(pointer: Pointer, reserve: Reserve) -> Key {
    let live = match reserve {
        Reserve::Btree | Reserve::Prio => Live::Metadata,
        Reserve::MovingGc | Reserve::None => Live::Clean,
    };
    Key { pointer, sectors: BUCKET_SECTORS, live, whole: true }
}

/// So many random sequences.
fn side_by_side(cases: u32) -> Counts {
    let (counts, reached) = (RefCell::new(Counts::default()), Cell::new(0));
    let settings = Settings {
        cases,
        max_shrink_iters: 1_000,
        failure_persistence: None,
        ..Settings::default()
    };
    // An operation shrinks to none.
    let ops = prop::collection::vec(prop::option::weighted(0.999, op()), OPERATIONS);
    let strategy = (config(), ops);
    let result = TestRunner::new(settings).run(&strategy, |(config, ops)| {
        let mut counts = counts.borrow_mut();
        counts.sequence(&config);
        let mode = usize::from(!config.shadow);
        let mut pair = Pair::new(config);
        pair.compare();
        for (at, op) in ops.iter().enumerate() {
            reached.set(at);
            if let Some(op) = op {
                pair.effect = false;
                pair.apply(op);
                pair.compare();
                counts.operations[op.kind()][mode] += u64::from(pair.effect);
            }
        }
        Ok(())
    });
    match result {
        Ok(()) => counts.into_inner(),
        Err(TestError::Abort(why)) => panic!("{why}"),
        Err(TestError::Fail(why, (config, ops))) => {
            let ops: Vec<_> = ops[..=reached.get()].iter().flatten().collect();
            panic!("{why}\nminimal failing input: {config:?}\n{ops:?}")
        }
    }
}

#[test]
fn the_concurrent_allocator_does_what_the_specification_does() {
    let asked = std::env::var("PROPTEST_CASES").ok().map(|n| n.parse().expect("PROPTEST_CASES"));
    let cases: u32 = asked.unwrap_or(200);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()) as u32;
    let mut counts = Counts::default();
    std::thread::scope(|scope| {
        let share = |thread| cases / threads + u32::from(thread < cases % threads);
        let runs: Vec<_> =
            (0..threads).map(|t| scope.spawn(move || side_by_side(share(t)))).collect();
        for run in runs {
            // It has said what failed.
            counts.add(&run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
    });
    assert_eq!(counts.sequences, u64::from(cases), "all that were asked for");
    counts.report();
}
