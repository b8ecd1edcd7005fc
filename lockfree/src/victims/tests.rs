//! Checks of LRU passes:
//!
//! * I17: whatever the path — portable or with vectors, one thread or more — a pass over a quiet
//!   table takes what a full sort would take, in its order.
//! * I14: while others change words, a pass takes only what may be taken.

use super::lru::{self, Lru};
use super::rank::{Keys, Rank};
use super::scan::{Limit, Scan};
use super::{Pass, Scanner, Taken, scan, vectors};
use crate::ageing::AgeClock;
use crate::config::Config;
use crate::table::Table;
use crate::words::{Line, Words};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tierce_core::draws::Draws;
use tierce_core::policy::lru_key;
use tierce_core::word::BUSY;
use tierce_core::{AgeEpoch, BucketIndex, Gen, Geometry, Mark, Prio, Snapshot};

/// A device with a table, and what a pass over it is given.
struct Given {
    geometry: Geometry,
    words: Vec<Snapshot>,
    epoch: AgeEpoch,
    min_prio: Prio,
    far: Vec<BucketIndex>,
    wanted: usize,
    candidates: usize,
}

impl Given {
    fn new(first: u32, words: Vec<Snapshot>) -> Self {
        let nbuckets = u32::try_from(words.len()).expect("few");
        let geometry = Geometry::new(nbuckets, first, 1024, 8).expect("a shape");
        let wanted = words.len().div_ceil(256);
        let (min_prio, far) = (Prio::OLDEST, Vec::new());
        let epoch = AgeEpoch::FIRST;
        Self { geometry, words, epoch, min_prio, far, wanted, candidates: 2 * wanted }
    }

    /// By the definition: sort everything.
    fn expected(&self) -> Vec<BucketIndex> {
        let can =
            |&b: &BucketIndex| self.words[b.as_usize()].can_invalidate() && !self.far.contains(&b);
        let kept = |w| self.epoch.reveal(self.epoch.stamped(w));
        let key = |b: BucketIndex| lru_key(kept(self.words[b.as_usize()]), self.min_prio);
        let mut all: Vec<_> = self.geometry.buckets().filter(can).collect();
        all.sort_by_key(|&b| (key(b), b));
        all.truncate(self.wanted.min(self.candidates));
        all
    }

    fn table(&self) -> Table {
        Table::new(self.words.iter().copied(), Arc::new(AgeClock::at(self.epoch)))
    }

    /// What a pass takes from `table`, in its order, and whether a far bucket was in the way.
    fn pass(&self, table: &Table, scanner: &Scanner) -> (Vec<BucketIndex>, bool) {
        self.next_pass(table, scanner, &mut Lru::default())
    }

    /// The same after others.
    fn next_pass(
        &self,
        table: &Table,
        scanner: &Scanner,
        lru: &mut Lru,
    ) -> (Vec<BucketIndex>, bool) {
        let mut order = Vec::new();
        let mut pass = Pass {
            table,
            geometry: &self.geometry,
            min_prio: self.min_prio,
            far: &self.far,
            write_early: false,
            wanted: self.wanted,
            taken: |taken: Taken<'_>| order.extend(taken.buckets),
        };
        lru::pass(&mut pass, self.candidates, lru, scanner);
        let write_early = pass.write_early;
        (order, write_early)
    }
}

fn scanner(pass_threads: u32, pass_vectors: bool) -> Scanner {
    Scanner::new(&Config::default().pass_threads(pass_threads).pass_vectors(pass_vectors))
}

fn word(prio: u16, sectors: u32) -> Snapshot {
    let word = Snapshot::default().with_prio(Prio::new(prio)).with_sectors(sectors);
    word.with_mark(Mark::Reclaimable)
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Random,
    AllEqual,
    Ascending,
    Descending,
    Ineligible,
    /// Any bits at all: metadata's prio, gens at the limit, every mark.
    Wild,
    /// Few keys, each in many buckets.
    Ties,
}

const SHAPES: [Shape; 7] = [
    Shape::Random,
    Shape::AllEqual,
    Shape::Ascending,
    Shape::Descending,
    Shape::Ineligible,
    Shape::Wild,
    Shape::Ties,
];

impl Shape {
    fn words(self, nbuckets: u32, seed: u64) -> Vec<Snapshot> {
        let mut draws = Draws::new(seed);
        let steps = |n: u32| (u64::from(n) * 32768 / u64::from(nbuckets)) as u16;
        let word = |n| match self {
            Self::Random => word(draws.below(32769) as u16, draws.below(1025)),
            Self::AllEqual => word(700, 1024),
            Self::Ascending => word(steps(n), 1024),
            Self::Descending => word(steps(nbuckets - 1 - n), 1024),
            Self::Ineligible => {
                let word = word(draws.below(32769) as u16, 1024);
                if draws.below(10) == 0 { word } else { word.with_mark(Mark::Dirty) }
            }
            Self::Wild => {
                let bits =
                    u64::from(draws.below(u32::MAX)) << 32 | u64::from(draws.below(u32::MAX));
                let word = Snapshot::from_bits(bits).with_pin(draws.below(2) as u16);
                if draws.below(9) == 0 { word.with_prio(Prio::METADATA) } else { word }
            }
            Self::Ties => word([0, 9, 700][draws.below(3) as usize], 8 * draws.below(3)),
        };
        (0..nbuckets).map(word).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 300 }, ..Default::default() })]

    /// Both kernels against a full sort: devices from the smallest on, every order, any
    /// `min_prio`, from one bucket to all of them wanted, few or many candidates, far buckets.
    #[test]
    fn a_pass_is_a_full_sort(
        nbuckets in prop_oneof![8u32..200, 4000u32..9000],
        first in 1u32..40,
        shape in 0..SHAPES.len(),
        seed: u64,
        epoch in 0u16..65535,
        min_prio in prop_oneof![Just(0u16), 0u16..=32768],
        wanted in prop_oneof![1usize..20, 1usize..9000],
        candidates in prop_oneof![1usize..40, 1usize..9000],
        far in 0usize..4,
    ) {
        let first = first.min(nbuckets - 1);
        let mut given = Given::new(first, SHAPES[shape].words(nbuckets, seed));
        given.epoch = AgeEpoch::from_bits(epoch).expect("not metadata");
        given.min_prio = Prio::new(min_prio);
        (given.wanted, given.candidates) = (wanted, candidates);
        given.far = given.expected().into_iter().step_by(3).take(far).collect();
        given.far.sort_unstable();
        let expected = (given.expected(), !given.far.is_empty());
        for vectors in [false, true] {
            prop_assert_eq!(&given.pass(&given.table(), &scanner(1, vectors)), &expected);
        }
    }

    /// A scan finds everything up to its limit and nothing else, among equal keys too: whatever
    /// rank the limit is, and if it is the last.
    #[test]
    fn a_scan_finds_everything_up_to_its_limit(
        nbuckets in prop_oneof![8u32..900, 4000u32..9000],
        shape in 0..SHAPES.len(),
        seed: u64,
        epoch in 0u16..65535,
        at: proptest::sample::Index,
        threads in 1usize..6,
    ) {
        let mut given = Given::new(1, SHAPES[shape].words(nbuckets, seed));
        given.epoch = AgeEpoch::from_bits(epoch).expect("not metadata");
        (given.wanted, given.candidates) = (usize::MAX, usize::MAX);
        let (table, expected) = (given.table(), given.expected());
        let keys = Keys { epoch: given.epoch, min_prio: given.min_prio };
        let geometry = &given.geometry;
        let scan = Scan { table: &table, geometry, keys, far: &[], threads };
        let mut all: Vec<_> = expected.iter().filter_map(|&b| scan.rank(b)).collect();
        prop_assert_eq!(all.len(), expected.len());
        let limit = if all.is_empty() { Rank::LAST } else { *at.get(&all) };
        all.retain(|&rank| rank <= limit);
        let limit = Limit { rank: limit, most: usize::MAX };
        for vectors in [false, true] {
            let mut found = Vec::new();
            let scanner = scanner(1, vectors);
            for piece in 0..scan.pieces() {
                scan.piece(piece, limit, &scanner, &mut found);
            }
            found.sort_unstable();
            prop_assert_eq!(&found, &all);
        }
    }

    /// The scan may let through too much, never too little.
    #[test]
    fn an_estimate_is_a_lower_bound(bits: u64, epoch in 0u16..65535, min_prio in 0u16..40000) {
        let epoch = AgeEpoch::from_bits(epoch).expect("not metadata");
        let keys = Keys { epoch, min_prio: Prio::new(min_prio) };
        let key = keys.key(Snapshot::from_bits(bits));
        prop_assert!(keys.estimate().of(bits) <= key);
        prop_assert!(Rank::new(key, BucketIndex::new(u32::MAX)) < Rank::LAST);
    }
}

/// Large enough for helpers; the result does not depend on them.
#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn any_number_of_threads_takes_the_same() {
    for (number, shape) in SHAPES.into_iter().enumerate() {
        let given = Given::new(3, shape.words(300_000, number as u64));
        let expected = given.expected();
        for (threads, vectors) in [(1, false), (1, true), (2, false), (2, true), (5, true)] {
            let scanner = scanner(threads, vectors);
            let (order, _) = given.pass(&given.table(), &scanner);
            assert_eq!(order.len(), expected.len(), "{shape:?}, {threads} threads");
            assert!(order == expected, "{shape:?}, {threads} threads, vectors {vectors}");
            assert_eq!(scanner.threads().running(), threads as usize - 1);
        }
    }
}

/// One thread needs no pool, nor does a small device.
#[test]
fn no_thread_is_started_without_need() {
    let given = Given::new(1, Shape::Random.words(10_000, 1));
    let scanner = scanner(4, true);
    assert_eq!(given.pass(&given.table(), &scanner).0, given.expected());
    assert_eq!(scanner.threads().running(), 0);
}

/// The sample sees only the few buckets that are smallest, so that its limit is far too low:
/// a wider scan makes up for it.
#[test]
fn a_sample_that_misleads_costs_time_only() {
    let mut given = Given::new(1, Shape::Random.words(10_000, 2));
    for (number, bucket) in lru::all_sampled(&given.geometry).enumerate() {
        given.words[bucket.as_usize()] = word(number as u16 % 7, 1);
    }
    given.wanted = 2000;
    given.candidates = 3000;
    let expected = given.expected();
    assert_eq!(expected.len(), 2000);
    for vectors in [false, true] {
        assert!(given.pass(&given.table(), &scanner(1, vectors)).0 == expected);
    }
}

/// What happens to a device between two passes.
#[derive(Clone, Copy, Debug)]
enum Between {
    /// What was taken is full again.
    Nothing,
    /// Most of what would have been next is used: a guess is too low.
    Touched,
    /// A third of all becomes nearly empty, the last ones first: it is far too high.
    Emptied,
}

impl Between {
    fn happen(self, given: &mut Given, taken: &[BucketIndex]) {
        let fresh = word(Prio::FRESH.get(), 1024);
        taken.iter().for_each(|bucket| given.words[bucket.as_usize()] = fresh);
        match self {
            Self::Nothing => {}
            Self::Touched => {
                given.wanted *= 3;
                let mut next = given.expected();
                given.wanted /= 3;
                next.retain(|bucket| bucket.get() % 16 != 0);
                next.iter().for_each(|bucket| given.words[bucket.as_usize()] = fresh);
            }
            Self::Emptied => {
                let empty = Shape::Descending.words(given.words.len() as u32, 0);
                let third = given.words.iter_mut().zip(empty).step_by(3);
                third.for_each(|(word, empty)| *word = empty.with_sectors(1));
            }
        }
    }
}

/// Whether a limit was guessed, and how well, makes no difference to what is taken.
#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn a_guess_costs_time_only() {
    use Between::{Emptied, Nothing, Touched};
    let alone = SHAPES.map(|shape| (shape, 1, 8000));
    for (shape, threads, nbuckets) in alone.into_iter().chain([(Shape::Random, 2, 263_000)]) {
        let mut given = Given::new(1, shape.words(nbuckets, 5));
        given.candidates = 4 * given.wanted;
        let (scanner, mut lru) = (scanner(threads, true), Lru::default());
        for between in [Nothing, Touched, Nothing, Emptied, Nothing] {
            let (order, _) = given.next_pass(&given.table(), &scanner, &mut lru);
            assert!(order == given.expected(), "{shape:?}, {threads} threads, before {between:?}");
            between.happen(&mut given, &order);
            lru.forget_wrong_guesses();
        }
    }
}

/// Both kernels let the same words pass, whatever their bits, with any bound.
#[test]
fn vectors_compute_what_the_portable_scan_does() {
    let Some(avx2) = vectors::Avx2::detect() else {
        eprintln!("skipped: no AVX2 here, passes run the portable scan only");
        return;
    };
    let mut draws = Draws::new(3);
    for round in 0..200 {
        let idle = if round % 2 == 0 { !BUSY } else { u64::MAX };
        let word = |draws: &mut Draws| {
            let [high, low] = [0; 2].map(|_| u64::from(draws.below(u32::MAX)));
            Snapshot::from_bits((high << 32 | low) & idle)
        };
        let words: Vec<_> = (0..draws.below(5000)).map(|_| word(&mut draws)).collect();
        let words = Words::new(words.into_iter());
        let epoch = AgeEpoch::from_bits(draws.below(65535) as u16).expect("not metadata");
        let keys = Keys { epoch, min_prio: Prio::new(draws.below(32769) as u16) };
        let bound = draws.below(1 << 28);
        let (mut scalar, mut vector) = (Vec::new(), Vec::new());
        scan::portable(words.lines(), keys.estimate(), bound, &mut |at| scalar.push(at));
        avx2.scan(words.lines(), keys.estimate(), bound, &mut |at| vector.push(at));
        assert_eq!(vector, scalar, "{keys:?}, bound {bound}");
        let by_definition = words.lines().iter().flat_map(Line::words).enumerate();
        let passes = |word: u64| word & BUSY == 0 && keys.estimate().of(word) < bound;
        let expected: Vec<_> =
            by_definition.filter(|&(_, w)| passes(w)).map(|(at, _)| at).collect();
        assert_eq!(scalar, expected);
    }
}

/// Three threads pin, unpin, touch and mark while passes go on. Buckets that nobody changes are
/// taken exactly, and of the others only what can be: nothing that is pinned by its holder.
#[test]
#[cfg_attr(miri, ignore = "too much for an interpreter")]
fn while_others_change_words_only_what_may_be_taken_is() {
    const N: u32 = 40_000;
    // Every other bucket is quiet. The busy ones are younger than all that is wanted, but they
    // are empty at times, which makes them the smallest.
    let quiet = |bucket: BucketIndex| bucket.get().is_multiple_of(2);
    let age = |n: u32| {
        if n.is_multiple_of(2) { word((n % 1000) as u16, 1024) } else { word(32000, 1024) }
    };
    for vectors in [false, true] {
        let given = Given::new(1, (0..N).map(age).collect());
        let table = given.table();
        let stop = AtomicBool::new(false);
        let scanner = scanner(1, vectors);
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (table, stop) = (&table, &stop);
                scope.spawn(move || disturb(table, stop, thread, N));
            }
            let _stop = Stop(&stop);
            let mut taken = BTreeSet::new();
            let mut expected: Vec<_> = given.geometry.buckets().filter(|&b| quiet(b)).collect();
            expected.sort_by_key(|&b| (lru_key(given.words[b.as_usize()], Prio::OLDEST), b));
            for _ in 0..60 {
                let (order, _) = given.pass(&table, &scanner);
                // Fewer, if too many were pinned between a look and the next.
                assert!(order.len() <= given.wanted, "{} are too many", order.len());
                for &bucket in &order {
                    let word = table.peek(bucket);
                    assert_eq!(word.gen_(), Gen::new(1), "{bucket} was taken once");
                    assert!(word.pin_count() >= 1 && taken.insert(bucket), "{bucket}: {word:?}");
                }
                let calm: Vec<_> = order.into_iter().filter(|&b| quiet(b)).collect();
                assert_eq!(calm, expected.drain(..calm.len()).collect::<Vec<_>>());
            }
            assert!(!taken.is_empty(), "nothing was taken at all");
        });
    }
}

/// Stops the others when it is dropped, also by a panic: nobody would ever end otherwise.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        // Relaxed: nothing is published with it.
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Pins, touches, frees and unpins odd buckets of gen 0, as their users would.
fn disturb(table: &Table, stop: &AtomicBool, thread: u32, nbuckets: u32) {
    let mut draws = Draws::new(thread.into());
    // Relaxed: nothing is published with it.
    while !stop.load(Ordering::Relaxed) {
        let bucket = BucketIndex::new(draws.below(nbuckets) | 1);
        let Some(_pinned) = table.pin(bucket, Gen::new(0)) else { continue };
        match draws.below(8) {
            0 => assert!(table.free(bucket, Gen::new(0)), "a pin freezes the gen of {bucket}"),
            1 => table.mark_dirty(bucket),
            _ => table.touch(bucket, Gen::new(0)),
        }
        let after = table.read(bucket);
        assert_eq!(after.gen_(), Gen::new(0), "a pin freezes the gen of {bucket}");
        table.unpin(bucket, 1);
    }
}
