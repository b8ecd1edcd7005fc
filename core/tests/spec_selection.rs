//! Parts of the executable specification against the plainest possible restatement.
//!
//! 1. An lru pass takes what a full sort by (key, bucket) puts first, for any table.
//! 2. A fifo pass takes what a walk from the cursor finds, and leaves the cursor behind it.
//! 3. Both kinds of garbage collection find the same in any order of the keys, wherever nothing
//!    was pinned.
//! 4. Ageing gives what decrementing each bucket gives.
//! 5. No script, whatever it says, panics the runner.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use tierce_core::policy::lru_key;
use tierce_core::spec::{DeviceOptions, Live, Options, Pass, Pointer, Set, sim};
use tierce_core::{
    BucketId, BucketIndex, DeviceIndex, Gen, Geometry, Mark, Policy, Prio, Sizes, Snapshot,
};

const DEVICE: DeviceIndex = DeviceIndex::FIRST;
const BUCKETS: u32 = 64;
const FIRST: u32 = 3;

fn id(b: u32) -> BucketId {
    BucketId::new(DEVICE, BucketIndex::new(b))
}

fn set(policy: Policy, free_inc: u32, candidates: u32, shadow: bool) -> Set {
    let geometry = Geometry::new(BUCKETS, FIRST, 64, 8).unwrap();
    let mut sizes = Sizes::bcache(&geometry, 0);
    (sizes.none, sizes.free_inc, sizes.candidates) = (4, free_inc, candidates);
    let mut device = DeviceOptions::new(geometry, sizes);
    device.policy = policy;
    let mut options = Options::bcache();
    options.invalidate_during_gc = shadow;
    Set::new(options, vec![device]).unwrap()
}

/// A state of a bucket nobody has on a list: few values, so that keys tie.
fn word() -> impl Strategy<Value = Snapshot> {
    let few = prop_oneof![Just(0u16), Just(1), Just(100), Just(32767), Just(32768), Just(65535)];
    let prio = prop_oneof![3 => few, 1 => any::<u16>()];
    let sectors = prop_oneof![3 => 0u32..4, 1 => 0u32..=8191];
    (any::<u8>(), prop_oneof![3 => 0u8..4, 1 => 94u8..=96], prio, 0u8..4, sectors, 0u16..6)
        .prop_map(|(gen_, ahead, prio, mark, sectors, pin)| {
            Snapshot::default()
                .with_gen(Gen::new(gen_))
                .with_last_gc(Gen::new(gen_.wrapping_sub(ahead)))
                .with_prio(Prio::new(prio))
                .with_mark(Mark::from_bits(mark))
                .with_sectors(sectors)
                .with_pin(pin.saturating_sub(4))
        })
}

fn table() -> impl Strategy<Value = Vec<Snapshot>> {
    prop::collection::vec(word(), BUCKETS as usize)
}

fn fill(set: &mut Set, table: &[Snapshot]) {
    for (b, &word) in table.iter().enumerate() {
        set.store(id(b as u32), word).unwrap();
    }
}

proptest! {
    #[test]
    fn lru_takes_what_a_full_sort_puts_first(
        table in table(), min_prio in 0u16..=32768, free_inc in 2u32..20, candidates in 1u32..40,
    ) {
        let mut set = set(Policy::Lru, free_inc, candidates, false);
        fill(&mut set, &table);
        let min_prio = Prio::new(min_prio);
        set.store_figure(DEVICE, tierce_core::spec::Figure::MinPrio(min_prio)).unwrap();
        let mut sorted: Vec<_> = (FIRST..BUCKETS)
            .filter(|&b| table[b as usize].can_invalidate())
            .map(|b| (lru_key(table[b as usize], min_prio), BucketIndex::new(b)))
            .collect();
        sorted.sort_unstable();
        sorted.truncate(candidates.min(free_inc) as usize);
        let pass = set.invalidate(DEVICE);
        let wanted: Vec<_> = sorted.iter().map(|(_, b)| *b).collect();
        prop_assert_eq!(set.free_inc(DEVICE).collect::<Vec<_>>(), wanted);
        let full = sorted.len() == free_inc as usize;
        prop_assert_eq!(pass, if full { Pass::Filled } else { Pass::Short });
        prop_assert_eq!(set.needs_gc(DEVICE), !full);
    }

    #[test]
    fn fifo_takes_what_a_walk_finds(
        table in table(), free_inc in 2u32..20, cursor in prop_oneof![0u32..70, any::<u32>()],
    ) {
        let mut set = set(Policy::Fifo, free_inc, 1, false);
        fill(&mut set, &table);
        set.store_figure(DEVICE, tierce_core::spec::Figure::FifoNext(cursor)).unwrap();
        let start = if (FIRST..BUCKETS).contains(&cursor) { cursor } else { FIRST };
        let usable = BUCKETS - FIRST;
        let walk = (0..usable).map(|n| FIRST + (start - FIRST + n) % usable);
        let wanted: Vec<_> = walk
            .filter(|&b| table[b as usize].can_invalidate())
            .take(free_inc as usize)
            .map(BucketIndex::new)
            .collect();
        let pass = set.invalidate(DEVICE);
        prop_assert_eq!(set.free_inc(DEVICE).collect::<Vec<_>>(), wanted.clone());
        if pass == Pass::Filled {
            prop_assert_eq!(set.fifo_next(DEVICE), wanted[wanted.len() - 1].get() + 1);
        }
    }

    #[test]
    fn garbage_collection_is_the_same_in_both_kinds_and_any_order(
        table in table(),
        keys in prop::collection::vec((FIRST..BUCKETS, 0u8..100, 0u32..5000, 0u8..3), 0..120),
        seed: u64,
    ) {
        let unpinned: Vec<_> = table.iter().map(|w| w.with_pin(0)).collect();
        let mut shuffled = keys.clone();
        shuffled.sort_by_key(|k| (u64::from(k.0) * 31 + u64::from(k.2)).wrapping_mul(seed | 1));
        let run = |shadow, keys: &[(u32, u8, u32, u8)]| {
            let mut set = set(Policy::Lru, 2, 4, shadow);
            fill(&mut set, &unpinned);
            set.gc_begin().unwrap();
            for &(b, behind, sectors, live) in keys {
                let gen_ = unpinned[b as usize].gen_().get().wrapping_sub(behind / 10);
                let live = [Live::Clean, Live::Dirty, Live::Metadata][usize::from(live)];
                set.gc_mark(Pointer::new(id(b), Gen::new(gen_)), sectors, live).unwrap();
            }
            set.gc_finish().unwrap();
            set
        };
        let (in_place, shadow) = (run(false, &keys), run(true, &shuffled));
        prop_assert_eq!(
            &in_place.words(DEVICE)[FIRST as usize..],
            &shadow.words(DEVICE)[FIRST as usize..]
        );
        prop_assert_eq!(in_place.gauges(), shadow.gauges());
        for b in FIRST..BUCKETS {
            let word = in_place.word(id(b)).unwrap();
            let of_bucket = || keys.iter().filter(|k| k.0 == b);
            let valid = || of_bucket().filter(|k| k.1 < 10);
            let sectors = valid().map(|k| k.2).sum::<u32>().min(8191);
            prop_assert_eq!(u32::from(word.sectors()), sectors);
            let mark = valid().map(|k| k.3 + 1).max().unwrap_or(0);
            prop_assert_eq!(word.mark(), Mark::from_bits(mark));
            prop_assert_eq!(word.gc_gen(), of_bucket().map(|k| k.1 / 10).max().unwrap_or(0));
        }
    }

    #[test]
    fn ageing_decrements(table in table(), before in 0u16..=32768) {
        let mut set = set(Policy::Lru, 2, 4, false);
        fill(&mut set, &table);
        let figure = tierce_core::spec::Figure::MinPrio(Prio::new(before));
        set.store_figure(DEVICE, figure).unwrap();
        // 64 buckets of 64 sectors: one pass per 4 sectors.
        prop_assert!(set.account_io(1));
        prop_assert_eq!(set.gauges().rescale_counter, 3);
        let mut smallest = None;
        for (word, now) in table.iter().zip(set.words(DEVICE)) {
            let ages = !matches!(word.prio().get(), 0 | 65535) && word.pin_count() == 0;
            let prio = word.prio().get() - u16::from(ages);
            prop_assert_eq!(*now, word.with_prio(Prio::new(prio)));
            if ages {
                smallest = Some(smallest.unwrap_or(prio).min(prio));
            }
        }
        prop_assert_eq!(set.gauges().min_prio.get(), smallest.unwrap_or(before));
        prop_assert!(!set.account_io(3));
        prop_assert!(set.account_io(u64::MAX), "an absurd amount is one pass, too");
    }
}

/// Text that is nearly a script.
fn line() -> impl Strategy<Value = String> {
    let op = prop::sample::select(vec![
        "new",
        "start",
        "step",
        "alloc",
        "alloc_set",
        "alloc_sectors",
        "uuid",
        "free",
        "put",
        "get",
        "touch",
        "inc_gen",
        "set",
        "gc",
        "gc_start",
        "gc_mark",
        "gc_finish",
        "gc_abandon",
        "rescale",
        "invalidate",
        "clear_inc",
        "prio_write",
        "prio_block",
        "prio_unblock",
        "dump",
        "stats",
        "lists",
        "open",
        "echo",
        "moving",
        "dirty",
        "give_back",
        "unused",
        "crash",
        "observe",
        "policy",
        "fail",
        "bogus",
    ]);
    let word = prop_oneof![
        4 => "[0-9]{1,2}",
        1 => "[0-9]{1,2}-[0-9]{1,2}",
        1 => "[0-1]:[0-9]{1,2}(:(clean|dirty|meta))?(@[0-9]{1,3})?",
        1 => "[0-9]{1,2}:[0-9]{1,5}(:(clean|dirty|meta))?(@[0-9]{1,3})?",
        1 => "(prio|gen|last_gc|pin|sectors|n|dev|offset|inode|write_point|rescale)=[0-9]{1,5}",
        1 => "(reserve=(none|btree|prio|movinggc)|mark=(free|clean|dirty|meta)|keep=1|needs_gc=1)",
        1 => "(lru|fifo|random|sectors=0|n=18446744073709551615|seed=9|flash_only=1)",
        1 => "\\PC{0,6}",
    ];
    (op, prop::collection::vec(word, 0..4))
        .prop_map(|(op, words)| format!("{op} {}", words.join(" ")))
}

proptest! {
    #[test]
    fn no_script_panics(
        ndev in 1u8..=2, sync in 0u8..=1, recycle in 0u8..=1,
        gc in prop_oneof![Just("in_place"), Just("shadow")],
        lines in prop::collection::vec(line(), 0..80),
    ) {
        let mut runner = sim::Runner::<Set>::new(sim::Limits::SMALL);
        let mut out = String::new();
        let new = format!(
            "new nbuckets=32 bucket_sectors=64 ndev={ndev} sync={sync} recycle={recycle} gc={gc} \
             policy=fifo r_btree=1 r_prio=1 r_movinggc=2 r_none=3 r_inc=4 slots=3"
        );
        for line in [&*new, "start", "step"].into_iter().chain(lines.iter().map(String::as_str)) {
            if let Err(e) = runner.line(line, &mut out) {
                // A line that fails names itself; the invariants are checked by the runner, and
                // an engine that broke one would say so here.
                let text = e.to_string();
                prop_assert!(text.starts_with("line "), "{}", text);
                prop_assert!(!text.contains("one place") && !text.contains("on its list"));
            }
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = sim::run::<Set>(&text, sim::Limits::SMALL);
    }
}

#[test]
fn errors_name_the_line_and_what_was_wanted() {
    let new = "new nbuckets=16 bucket_sectors=64 r_none=2 r_inc=4\n";
    for (script, wanted) in [
        ("step", "line 1: step: found no set, wanted `new` before it"),
        ("new bucket_sectors=64", "line 1: new: found no nbuckets=, wanted nbuckets=8..33554432"),
        (
            "new nbuckets=16 bucket_sectors=65",
            "line 1: new bucket_sectors: found 65, wanted a power of two, 8 to 262144",
        ),
        (
            "new nbuckets=16 nbuckets=16",
            "line 1: new: found nbuckets= twice, wanted each at most once",
        ),
        (
            "NEW alloc n=0",
            "line 2: alloc n: found 0, wanted a number from 1 to 18446744073709551615",
        ),
        (
            "NEW alloc reserve=moving_gc",
            "line 2: alloc reserve: found moving_gc, wanted none, btree, prio or movinggc",
        ),
        ("NEW alloc dev=1", "line 2: alloc dev: found 1, wanted a number from 0 to 0"),
        ("NEW free", "line 2: free: found nothing, wanted buckets"),
        ("NEW free 16", "line 2: free bucket: found 16, wanted a number from 0 to 15"),
        ("NEW dump 3-2", "line 2: dump: found 3-2, wanted a range that ascends"),
        ("NEW gc 3", "line 2: gc: found 3, wanted B:S[:clean|dirty|meta][@G]"),
        ("NEW gc 3:1:old", "line 2: gc: found 3:1:old, wanted B:S[:clean|dirty|meta][@G]"),
        ("NEW set 3 mark=old", "line 2: set mark: found old, wanted free, clean, dirty or meta"),
        ("NEW stats now", "line 2: stats: found now, wanted nothing after it"),
        ("NEW prio_unblock", "line 2: prio_unblock: found nobody, wanted somebody who blocks"),
        ("NEW policy mru", "line 2: policy: found mru, wanted lru, fifo or random"),
        (
            "NEW alloc_sectors inode=1",
            "line 2: alloc_sectors: found no offset=, wanted offset=0..18446744073709551615",
        ),
    ] {
        let script = script.replace("NEW ", new);
        let e = sim::run::<Set>(&script, sim::Limits::default()).unwrap_err();
        assert_eq!(e.to_string(), wanted);
    }
}
