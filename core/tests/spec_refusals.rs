//! What the executable specification refuses.
//!
//! 1. A set is made only of settings that can work, and the error names the setting.
//! 2. A durable table is loaded only if it fits its device.
//! 3. Buckets and devices that are not of the set, and pointers outside the buckets that may be
//!    allocated, are refused by every operation.
//! 4. A refused operation changes nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use tierce_core::spec::{
    Allocation, DeviceOptions, Figure, Live, MAX_OPEN_BUCKETS, Marked, Options, Place, Pointer,
    PrioWrite, Set, Table, Write,
};
use tierce_core::word::PIN_LIMIT;
use tierce_core::{
    BucketId, BucketIndex, DeviceIndex, Error, Gen, Geometry, Mark, Policy, Prio, Reserve, Sizes,
    Snapshot,
};

const DEVICE: DeviceIndex = DeviceIndex::FIRST;
const BUCKETS: u32 = 32;
const FIRST: u32 = 2;

fn id(b: u32) -> BucketId {
    BucketId::new(DEVICE, BucketIndex::new(b))
}

fn device() -> DeviceOptions {
    let geometry = Geometry::new(BUCKETS, FIRST, 64, 8).unwrap();
    let mut sizes = Sizes::bcache(&geometry, 1);
    (sizes.moving_gc, sizes.none, sizes.free_inc, sizes.candidates) = (1, 2, 4, 8);
    DeviceOptions::new(geometry, sizes)
}

/// A set at work: 2 and 3 reserved, a prio chain, buckets on `none` and in `free_inc`.
fn set() -> Set {
    let mut set = Set::new(Options::bcache(), vec![device()]).unwrap();
    assert!(set.start().unwrap().reused.is_empty());
    set.step(DEVICE);
    set
}

fn text<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn settings_of_a_set() {
    let new = |options, devices| text(Set::new(options, devices));
    for (open, wanted) in [
        (0, "open_buckets is 0, wanted 1 to 4096"),
        (MAX_OPEN_BUCKETS + 1, "open_buckets is 4097, wanted 1 to 4096"),
    ] {
        let mut options = Options::default();
        options.open_buckets = open;
        assert_eq!(new(options, vec![device()]), wanted);
    }
    assert_eq!(new(Options::default(), vec![]), "devices is 0, wanted 1 to 8");
    assert_eq!(new(Options::default(), vec![device(); 9]), "devices is 9, wanted 1 to 8");
    assert!(Set::new(Options::default(), vec![device(); 8]).is_ok());
    for ((bucket, block), wanted) in [
        ((128, 8), "bucket_sectors is 128, wanted 64 as on the first device of the set"),
        ((64, 4), "block_sectors is 4, wanted 8 as on the first device of the set"),
    ] {
        let mut other = device();
        other.geometry = Geometry::new(BUCKETS, FIRST, bucket, block).unwrap();
        assert_eq!(new(Options::default(), vec![device(), other]), wanted);
    }
}

#[test]
fn settings_of_a_device() {
    type Change = fn(&mut DeviceOptions);
    let cases: [(Change, &str); 12] = [
        (|d| d.sizes.btree = 33, "sizes.btree is 33, wanted 0 to 32"),
        (|d| d.sizes.prio = 0, "sizes.prio is 0, wanted 1 to 32"),
        (|d| d.sizes.prio = 33, "sizes.prio is 33, wanted 1 to 32"),
        (|d| d.sizes.moving_gc = 33, "sizes.moving_gc is 33, wanted 0 to 32"),
        (|d| d.sizes.none = 0, "sizes.none is 0, wanted 1 to 32"),
        (|d| d.sizes.free_inc = 1, "sizes.free_inc is 1, wanted 2 to 32"),
        (|d| (d.sync, d.sizes.free_inc) = (false, 0), "sizes.free_inc is 0, wanted 1 to 32"),
        (|d| d.sizes.free_inc = 33, "sizes.free_inc is 33, wanted 2 to 32"),
        (|d| d.sizes.candidates = 0, "sizes.candidates is 0, wanted 1 to 256"),
        (|d| d.sizes.candidates = 257, "sizes.candidates is 257, wanted 1 to 256"),
        (|d| d.journal_buckets = 30, "journal_buckets is 30, wanted 0 to 29"),
        (|d| d.journal_buckets = u32::MAX, "journal_buckets is 4294967295, wanted 0 to 29"),
    ];
    for (change, wanted) in cases {
        let mut device = device();
        change(&mut device);
        assert_eq!(text(Set::new(Options::default(), vec![device])), wanted);
    }
    let mut scratch = device();
    (scratch.sync, scratch.sizes.free_inc, scratch.journal_buckets) = (false, 1, 29);
    assert_eq!(scratch.validate(), Ok(()));
}

#[test]
fn durable_tables() {
    let records = vec![(Prio::FRESH, Gen::new(3)); BUCKETS as usize];
    let open = |records: &[(Prio, Gen)], chain: &[u32], journal| {
        let mut device = device();
        device.journal_buckets = journal;
        let mut table = Table::new(records.to_vec());
        table.chain = chain.iter().map(|&b| BucketIndex::new(b)).collect();
        Set::open(Options::default(), vec![(device, table)])
    };
    let wanted = "table records is 31, wanted 32, one per bucket";
    assert_eq!(text(open(&records[1..], &[], 0)), wanted);
    for (chain, journal, wanted) in [
        (&[9, 1][..], 0, "bucket of the prio chain is 1, wanted 2 to 31, each once"),
        (&[32], 0, "bucket of the prio chain is 32, wanted 2 to 31, each once"),
        (&[9, 10, 9], 0, "bucket of the prio chain is 9, wanted 2 to 31, each once"),
        (&[6], 5, "bucket of the prio chain is 6, wanted 7 to 31, each once"),
    ] {
        assert_eq!(text(open(&records, chain, journal)), wanted);
    }
    assert_eq!(text(Set::open(Options::default(), vec![])), "devices is 0, wanted 1 to 8");
    let set = open(&records, &[7, 31], 5).unwrap();
    assert_eq!(set.prio_chain(DEVICE).collect::<Vec<_>>(), [7, 31].map(BucketIndex::new));
    assert_eq!(set.durable_gen(id(9)), Some(Gen::new(3)));
}

/// Every operation that names a bucket, on buckets that the set does not have.
#[test]
fn buckets_outside_the_set() {
    let mut set = set();
    set.gc_begin().unwrap();
    let before = format!("{set:?}");
    let elsewhere = BucketId::new(DeviceIndex::new(1), BucketIndex::new(5));
    for bucket in [elsewhere, id(BUCKETS), id(u32::MAX)] {
        let wanted = format!("bucket {bucket}: found none, wanted a bucket of the set");
        let texts = [
            text(set.give_back(bucket)),
            text(set.unused(bucket)),
            text(set.unpin(bucket)),
            text(set.mark_dirty(bucket)),
            text(set.free(bucket)),
            text(set.bump_gen(bucket)),
            text(set.store(bucket, Snapshot::default())),
            text(set.store_durable(bucket, Gen::new(1))),
        ];
        assert!(texts.iter().all(|text| *text == wanted), "{texts:?}");
        assert_eq!(
            (set.word(bucket), set.place(bucket), set.durable_gen(bucket)),
            Default::default()
        );
    }
    // Pointers come from an index and may say anything, so they also may not name buckets that
    // are never allocated.
    for bucket in [elsewhere, id(BUCKETS), id(u32::MAX), id(0), id(FIRST - 1)] {
        let pointer = Pointer::new(bucket, Gen::new(0));
        assert!(!set.pin(pointer) && !set.touch(pointer), "{pointer}");
        assert_eq!(set.begin_read(pointer), None);
        assert_eq!(set.gc_mark(pointer, 1, Live::Dirty), Ok(Marked::OutOfRange));
    }
    assert_eq!(format!("{set:?}"), before, "nothing of it changed anything");

    let mut opening = set.after_crash().unwrap();
    let before = format!("{opening:?}");
    for bucket in [elsewhere, id(BUCKETS), id(0)] {
        let pointer = Pointer::new(bucket, Gen::new(9));
        assert_eq!(opening.observe(pointer, 1, Live::Clean), Ok(Marked::OutOfRange));
        assert_eq!(opening.observe_uuids(pointer), Ok(Marked::OutOfRange));
    }
    assert_eq!(format!("{opening:?}"), before);
}

#[test]
fn devices_outside_the_set() {
    let mut set = set();
    let before = format!("{set:?}");
    let absent = DeviceIndex::new(1);
    let wanted = "device 1: found 1 devices, wanted one of the set";
    assert_eq!(text(set.set_policy(absent, Policy::Fifo)), wanted);
    assert_eq!(text(set.fail_device(absent, "test")), wanted);
    assert_eq!(text(set.store_figure(absent, Figure::NeedGc(1))), wanted);
    assert_eq!(text(set.clear_free_inc(absent)), wanted);
    let wanted = "bucket 1:0: found none, wanted a bucket of the set";
    assert_eq!(text(set.moving_candidates(absent)), wanted);
    assert_eq!((set.geometry(absent), set.sizes(absent)), (None, None));
    assert_eq!(set.words(absent), []);
    assert_eq!(format!("{set:?}"), before);
    assert_eq!(set.geometry(DEVICE), Some(device().geometry));
    assert_eq!(set.sizes(DEVICE), Some(device().sizes));
}

#[test]
fn stores_that_contradict_the_place() {
    let mut set = set();
    let chain = BucketId::new(DEVICE, set.prio_chain(DEVICE).next().unwrap());
    let free = BucketId::new(DEVICE, set.list(DEVICE, Reserve::None).next().unwrap());
    let inc = BucketId::new(DEVICE, set.free_inc(DEVICE).next().unwrap());
    let open = set.alloc_sectors(Write::new(1, 0, 8)).unwrap().ready().unwrap().bucket;
    assert_eq!(set.place(open), Some(Place::Open));
    let before = format!("{set:?}");
    let pinned = |pin| Snapshot::default().with_pin(pin);
    for (bucket, word, wanted) in [
        (id(9), pinned(PIN_LIMIT + 1), "found 49153, wanted pin 0xC000 or less"),
        (chain, pinned(0), "found a reclaimable mark, wanted metadata or dirty"),
        (
            chain,
            pinned(0).with_mark(Mark::Reclaimable),
            "found a reclaimable mark, wanted metadata or dirty",
        ),
        (open, pinned(0), "found pin 0, wanted pin 1 or more on a list or open"),
        (free, pinned(0), "found pin 0, wanted pin 1 or more on a list or open"),
        (inc, pinned(0), "found pin 0, wanted pin 1 or more on a list or open"),
    ] {
        let text = text(set.store(bucket, word));
        assert_eq!(text, format!("storing the state of bucket {bucket}: {wanted}"));
    }
    assert_eq!(format!("{set:?}"), before);
    set.store(chain, pinned(0).with_mark(Mark::Dirty)).unwrap();
    set.store(inc, pinned(2)).unwrap();
    set.check().unwrap();
}

/// The bucket has its foreign pin as long as it is set aside: without it, it would have to be
/// free.
#[test]
fn a_bucket_set_aside_keeps_a_foreign_pin() {
    let mut set = set();
    let free = BucketId::new(DEVICE, set.list(DEVICE, Reserve::None).next().unwrap());
    assert!(set.pin(Pointer::new(free, set.word(free).unwrap().gen_())));
    let _ = set.alloc(Reserve::None);
    assert_eq!(set.set_aside(DEVICE).collect::<Vec<_>>(), [free.bucket()]);
    for pin in [0, 1] {
        let text = text(set.store(free, Snapshot::default().with_pin(pin)));
        assert!(text.starts_with("storing the state of bucket 0:"), "{text}");
        set.check().unwrap();
    }
    set.store(free, Snapshot::default().with_pin(2)).unwrap();
    set.check().unwrap();
    set.unpin(free).unwrap();
    assert!(matches!(set.place(free), Some(Place::Free(_) | Place::Ready)));
}

#[test]
fn states_that_forbid_the_operation() {
    let mut set = set();
    let chain = BucketId::new(DEVICE, set.prio_chain(DEVICE).next().unwrap());
    let wanted = "found in the prio chain, wanted not in the prio chain";
    assert_eq!(text(set.free(chain)), format!("freeing bucket {chain}: {wanted}"));
    let wanted = "found PrioChain, wanted with an owner";
    assert_eq!(text(set.bump_gen(chain)), format!("advancing the gen of bucket {chain}: {wanted}"));
    let wanted = "found Out with pin 0, wanted held, with a pin";
    assert_eq!(text(set.mark_dirty(id(31))), format!("marking bucket 0:31 dirty: {wanted}"));
    let wanted = "found Out with pin 0, wanted held, with pin 1";
    assert_eq!(text(set.give_back(id(31))), format!("giving back bucket 0:31: {wanted}"));
    let nothing = Write::new(1, 0, 0);
    assert_eq!(text(set.alloc_sectors(nothing)), "sectors is 0, wanted at least 1");
    assert_eq!(
        text(set.alloc_set(Reserve::None, 0)),
        "n is 0, wanted 1 to 1, the devices of the set"
    );
    assert_eq!(
        text(set.alloc_set(Reserve::None, 2)),
        "n is 2, wanted 1 to 1, the devices of the set"
    );
    let wanted = "gc_mark: found no running GC, wanted gc_begin first";
    assert_eq!(text(set.gc_mark(Pointer::new(id(5), Gen::new(0)), 1, Live::Clean)), wanted);
    let wanted = "observe: found no start-up, wanted between open and start";
    assert_eq!(text(set.observe(Pointer::new(id(5), Gen::new(0)), 1, Live::Clean)), wanted);
    assert_eq!(text(set.observe_uuids(Pointer::new(id(5), Gen::new(0)))), wanted);
}

/// A forged pointer pins a bucket on a free list. The prio write counts what it really has
/// before it takes anything, and never writes into that bucket.
#[test]
fn a_prio_write_passes_over_foreign_pins() {
    let mut set = set();
    let pinned: Vec<_> = [Reserve::None, Reserve::Prio]
        .into_iter()
        .flat_map(|reserve| set.list(DEVICE, reserve).collect::<Vec<_>>())
        .map(|b| BucketId::new(DEVICE, b))
        .collect();
    // All but the last are pinned: there is one left for a table of one part.
    assert!(pinned.len() > 1);
    let (last, pinned) = pinned.split_last().unwrap();
    for &bucket in pinned {
        assert!(set.pin(Pointer::new(bucket, set.word(bucket).unwrap().gen_())));
    }
    let old: Vec<_> = set.prio_chain(DEVICE).collect();
    assert!(matches!(set.prio_write(DEVICE), PrioWrite::Written { .. }));
    assert_eq!(set.prio_chain(DEVICE).collect::<Vec<_>>(), [last.bucket()]);
    assert_ne!(old, [last.bucket()]);
    let aside: Vec<_> = set.set_aside(DEVICE).map(|b| BucketId::new(DEVICE, b)).collect();
    assert_eq!(aside, pinned);
    assert_eq!(set.counters().foreign_pin_total, pinned.len() as u64);
    assert_eq!(set.prio_write(DEVICE), PrioWrite::WouldBlock);
    set.check().unwrap();
    // Each comes back when its pin goes.
    for &bucket in pinned {
        set.unpin(bucket).unwrap();
    }
    assert_eq!(set.set_aside(DEVICE).len(), 0);
    set.check().unwrap();
}

/// What is given back while all lists are full waits in hand, is in no other place, and goes
/// first when there is room.
#[test]
fn what_finds_no_room_is_kept() {
    let mut set = set();
    let p = set.alloc(Reserve::None).ready().unwrap();
    set.step(DEVICE);
    let in_hand: Vec<_> = set.ready(DEVICE).collect();
    set.give_back(p.bucket).unwrap();
    assert_eq!(set.place(p.bucket), Some(Place::Ready));
    let wanted: Vec<_> = in_hand.iter().copied().chain([p.bucket.bucket()]).collect();
    assert_eq!(set.ready(DEVICE).collect::<Vec<_>>(), wanted);
    let _ = set.alloc(Reserve::None);
    set.step(DEVICE);
    assert_eq!(set.list(DEVICE, Reserve::None).last(), wanted.first().copied());
    set.check().unwrap();
}

/// A set that runs for hours may keep no list of what happened, and does the same.
#[test]
fn events_can_be_switched_off() {
    let mut quiet = Options::bcache();
    quiet.record_events = false;
    let mut sets = [Options::bcache(), quiet].map(|options| {
        let mut set = Set::new(options, vec![device()]).unwrap();
        assert!(set.start().unwrap().reused.is_empty());
        set.step(DEVICE);
        set
    });
    assert_eq!(sets[0].words(DEVICE), sets[1].words(DEVICE));
    assert_eq!(sets[0].counters(), sets[1].counters());
    assert!(!sets[0].take_events().is_empty());
    assert_eq!(sets[1].take_events(), []);
}

/// A failed device hands nothing out and reclaims nothing; the first cause is the one that
/// counts, and allocations say that waiting would not help.
#[test]
fn a_failed_device() {
    let mut set = Set::new(Options::default(), vec![device(); 2]).unwrap();
    assert!(set.start().unwrap().reused.is_empty());
    set.step(DEVICE);
    set.step(DeviceIndex::new(1));
    let open = set.alloc_sectors(Write::new(1, 0, 8)).unwrap().ready().unwrap().bucket;
    assert_eq!(set.failure(open.device()), None);
    set.fail_device(open.device(), "worn out").unwrap();
    set.fail_device(open.device(), "and again").unwrap();
    assert_eq!(set.failure(open.device()), Some("worn out"));
    assert_eq!(set.place(open), Some(Place::Out), "its open buckets are closed");
    assert_eq!(set.alloc_on(open.device(), Reserve::None), Allocation::Failed);
    assert_eq!(set.alloc_set(Reserve::None, 2), Ok(Allocation::Failed));
    assert_eq!(set.prio_write(open.device()), PrioWrite::Failed);
    assert_eq!(set.step(open.device()).to_string(), "failed");
    assert_eq!(set.counters().alloc_fail_failed_total, 2);
    let other = set.alloc(Reserve::None).ready().unwrap();
    assert_ne!(other.bucket.device(), open.device(), "the other device goes on");
    set.unpin(open).unwrap();
    set.free(open).unwrap();
    set.check().unwrap();
}
