//! Random sequences of operations on the executable specification, driven by an owner that keeps
//! an index and knows what is physically in each bucket. After every operation:
//!
//! 1. [`Set::check`] holds: each bucket in exactly one place, lists within their sizes, open
//!    buckets pinned, available ≤ nbuckets.
//! 2. On a list ⇔ pin 1 (nobody forges pointers here); a place nobody holds has pin 0.
//! 3. gen − last_gc ≤ 96 (one more is possible where a GC in place cleared last_gc under an index
//!    node that is freed meanwhile), gen − durable gen ≤ 96.
//! 4. A gen advances only where no dirty, metadata or pinned bucket is hit: every key of dirty
//!    data and of index nodes stays valid.
//! 5. A valid key leads to the data it was made for: whatever is handed out again was
//!    invalidated. After a power loss and start-up, the same (the crash rule).
//! 6. Extents of a bucket are disjoint and leave no gap.
//! 7. A failed `alloc_set` changes nothing; a successful one gives one bucket from each of n
//!    devices, those with most to give, in device order.
//! 8. An allocation comes from `none`, or from the caller's reserve if `none` is empty.
//! 9. What leaves `free_inc` has a durable gen, if the device has prio writes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use tierce_core::spec::{
    Allocation, Bump, DeviceOptions, Event, Extent, Live, Options, Place, Pointer, PrioWrite, Set,
    Unused, Write,
};
use tierce_core::{BucketId, BucketIndex, DeviceIndex, Geometry, Policy, Reserve, Sizes};

const BUCKETS: u32 = 20;
const BUCKET_SECTORS: u32 = 16;

/// What a sequence runs on.
#[derive(Clone, Debug)]
struct Config {
    devices: u8,
    sync: bool,
    shadow: bool,
    recycle: bool,
    discard: bool,
    policy: Policy,
    free_inc: u32,
    none: u32,
    slots: u16,
    seed: u64,
}

fn config() -> impl Strategy<Value = Config> {
    let policy = prop_oneof![Just(Policy::Lru), Just(Policy::Fifo), Just(Policy::Random)];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    (1u8..=3, flags, policy, 2u32..=8, 1u32..=4, 1u16..=4, any::<u64>()).prop_map(
        |(devices, (sync, shadow, recycle, discard), policy, free_inc, none, slots, seed)| Config {
            devices,
            sync,
            shadow,
            recycle,
            discard,
            policy,
            free_inc,
            none,
            slots,
            seed,
        },
    )
}

/// One thing that the owner or the reclaimer does. Numbers choose among what there is.
#[derive(Clone, Debug)]
enum Op {
    Alloc { device: u8, reserve: u8 },
    AllocSet { reserve: u8, n: u8 },
    Sectors { inode: u8, jump: bool, sectors: u8, write_point: u8, flash: bool, dirty: bool },
    Insert { which: u8, dirty: bool },
    GiveBack(u8),
    Drop(u8),
    Remove(u8),
    FreeNode(u8),
    Unused(u8),
    Step(u8),
    Invalidate(u8),
    PrioWrite(u8),
    Block(bool),
    Touch(u8),
    Io(u16),
    GcBegin,
    GcVisit(u8),
    GcFinish,
    GcAbandon,
    Moving(u8),
    SetPolicy { device: u8, policy: u8 },
    Fail(u8),
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (any::<u8>(), 0u8..4).prop_map(|(device, reserve)| Op::Alloc { device, reserve }),
        3 => (0u8..4, 1u8..=3).prop_map(|(reserve, n)| Op::AllocSet { reserve, n }),
        8 => (0u8..4, any::<bool>(), 1u8..24, 0u8..3, any::<bool>(), any::<bool>()).prop_map(
            |(inode, jump, sectors, write_point, flash, dirty)| Op::Sectors {
                inode, jump, sectors, write_point, flash, dirty
            }
        ),
        10 => (any::<u8>(), prop::bool::weighted(0.2))
            .prop_map(|(which, dirty)| Op::Insert { which, dirty }),
        1 => any::<u8>().prop_map(Op::GiveBack),
        1 => any::<u8>().prop_map(Op::Drop),
        5 => any::<u8>().prop_map(Op::Remove),
        3 => any::<u8>().prop_map(Op::FreeNode),
        2 => any::<u8>().prop_map(Op::Unused),
        12 => any::<u8>().prop_map(Op::Step),
        2 => any::<u8>().prop_map(Op::Invalidate),
        1 => any::<u8>().prop_map(Op::PrioWrite),
        1 => any::<bool>().prop_map(Op::Block),
        2 => any::<u8>().prop_map(Op::Touch),
        2 => any::<u16>().prop_map(Op::Io),
        4 => Just(Op::GcBegin),
        4 => any::<u8>().prop_map(Op::GcVisit),
        6 => Just(Op::GcFinish),
        1 => Just(Op::GcAbandon),
        1 => any::<u8>().prop_map(Op::Moving),
        1 => (any::<u8>(), 0u8..3).prop_map(|(device, policy)| Op::SetPolicy { device, policy }),
        1 => prop::bool::weighted(0.1).prop_map(|f| if f { Op::Fail(0) } else { Op::Step(0) }),
        1 => Just(Op::Crash),
    ]
}

/// A key of the index, or what is about to become one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Key {
    pointer: Pointer,
    offset: u32,
    sectors: u32,
    live: Live,
    /// What was written there.
    content: u64,
}

/// The set, its owner, and the medium.
struct World {
    set: Set,
    config: Config,
    /// Allocated and written, not yet in the index: each holds a pin.
    held: Vec<Key>,
    /// In the index; every change of it is durable at once.
    index: Vec<Key>,
    /// Which content each sector range of a bucket has, by first sector.
    medium: BTreeMap<(DeviceIndex, u32), BTreeMap<u32, (u32, u64)>>,
    written: u64,
    /// Keys that a GC under way has still to visit.
    to_visit: Option<Vec<Key>>,
    next_offset: [u64; 8],
    /// Invalidated since the last prio write of their device.
    not_durable: BTreeSet<BucketId>,
}

impl World {
    fn new(config: Config) -> Self {
        let geometry = Geometry::new(BUCKETS, 1, BUCKET_SECTORS, 4).unwrap();
        let mut sizes = Sizes::bcache(&geometry, 0);
        (sizes.btree, sizes.prio, sizes.moving_gc) = (1, 1, 1);
        (sizes.none, sizes.free_inc) = (config.none, config.free_inc);
        sizes.candidates = 2 * config.free_inc;
        let mut device = DeviceOptions::new(geometry, sizes);
        device.policy = config.policy;
        device.sync = config.sync;
        device.discard = config.discard;
        device.seed = config.seed;
        let mut options = Options::default();
        options.invalidate_during_gc = config.shadow;
        options.recycle_prio_chain = config.recycle;
        options.open_buckets = config.slots;
        let devices = vec![device; usize::from(config.devices)];
        let mut set = Set::new(options, devices).unwrap();
        assert!(set.start().unwrap().reused.is_empty());
        set.take_events();
        Self {
            set,
            config,
            held: Vec::new(),
            index: Vec::new(),
            medium: BTreeMap::new(),
            written: 0,
            to_visit: None,
            next_offset: [0; 8],
            not_durable: BTreeSet::new(),
        }
    }

    fn device(&self, n: u8) -> DeviceIndex {
        DeviceIndex::new(n % self.config.devices)
    }

    fn all_buckets(&self) -> Vec<BucketId> {
        let bucket = |d, b| BucketId::new(d, BucketIndex::new(b));
        let devices = self.set.device_indexes();
        devices.flat_map(|d| (0..BUCKETS).map(move |b| bucket(d, b))).collect()
    }

    /// Writes to the medium and returns the key for it.
    fn write(&mut self, pointer: Pointer, offset: u32, sectors: u32, live: Live) -> Key {
        self.written += 1;
        let id = pointer.bucket;
        let ranges = self.medium.entry((id.device(), id.bucket().get())).or_default();
        ranges.insert(offset, (sectors, self.written));
        Key { pointer, offset, sectors, live, content: self.written }
    }

    /// A whole bucket was handed out: what it held is gone.
    fn receive(&mut self, pointer: Pointer, reserve: Reserve) {
        let id = pointer.bucket;
        self.medium.remove(&(id.device(), id.bucket().get()));
        let live = match reserve {
            Reserve::Btree | Reserve::Prio => Live::Metadata,
            Reserve::MovingGc | Reserve::None => Live::Clean,
        };
        let key = self.write(pointer, 0, BUCKET_SECTORS, live);
        self.held.push(key);
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Alloc { device, reserve } => self.alloc(device, Reserve::ALL[usize::from(reserve)]),
            Op::AllocSet { reserve, n } => {
                self.alloc_set(Reserve::ALL[usize::from(reserve)], usize::from(n));
            }
            Op::Sectors { inode, jump, sectors, write_point, flash, dirty } => {
                let inode = u64::from(inode) + if flash { 4 } else { 0 };
                self.sectors(inode, jump, u32::from(sectors), u64::from(write_point), dirty);
            }
            Op::Insert { which, dirty } => self.insert(which, dirty),
            Op::GiveBack(which) => self.give_back(which),
            Op::Drop(which) => {
                if let Some(key) = choose(&self.held, which) {
                    self.forget_held(key);
                    self.set.unpin(key.pointer.bucket).unwrap();
                }
            }
            Op::Remove(which) => {
                let data = |k: &&Key| k.live != Live::Metadata;
                let keys: Vec<_> = self.index.iter().filter(data).copied().collect();
                if let Some(key) = choose(&keys, which) {
                    self.index.retain(|k| *k != key);
                }
            }
            Op::FreeNode(which) => self.free_node(which),
            Op::Unused(which) => self.unused(which),
            Op::Touch(which) => {
                if let Some(key) = choose(&self.index, which) {
                    self.set.touch(key.pointer);
                }
            }
            Op::Io(sectors) => {
                self.set.account_io(u64::from(sectors) % 64);
            }
            Op::GcBegin => {
                if self.to_visit.is_none() {
                    self.set.gc_begin().unwrap();
                    self.to_visit = Some(self.index.clone());
                }
            }
            Op::GcVisit(n) => self.visit(usize::from(n)),
            Op::GcFinish => {
                if self.to_visit.is_some() {
                    self.visit(usize::MAX);
                    self.set.gc_finish().unwrap();
                    self.to_visit = None;
                }
            }
            Op::GcAbandon => {
                if self.to_visit.take().is_some() {
                    self.set.gc_abandon().unwrap();
                }
            }
            Op::Crash => self.crash(),
            ref background => self.background(background),
        }
        self.follow_events();
    }

    fn background(&mut self, op: &Op) {
        match *op {
            Op::Step(n) => {
                self.set.step(self.device(n));
            }
            Op::Invalidate(n) => {
                self.set.invalidate(self.device(n));
            }
            Op::PrioWrite(n) => {
                let device = self.device(n);
                let before = self.set.clone();
                let written = self.set.prio_write(device);
                if !matches!(written, PrioWrite::Written { .. }) {
                    assert_eq!(before.words(device), self.set.words(device), "{written:?}");
                }
            }
            Op::Block(true) => {
                self.set.prio_block();
            }
            Op::Block(false) => {
                let blocked = self.set.gauges().prio_blocked;
                assert_eq!(self.set.prio_unblock().is_ok(), blocked > 0);
            }
            Op::Moving(n) => {
                let device = self.device(n);
                if let Ok(chosen) = self.set.moving_candidates(device) {
                    self.check_moving(device, &chosen);
                }
            }
            Op::SetPolicy { device, policy } => {
                let policy = Policy::from_number(policy).unwrap();
                self.set.set_policy(self.device(device), policy).unwrap();
            }
            Op::Fail(n) => self.set.fail_device(self.device(n), "on purpose").unwrap(),
            _ => unreachable!("{op:?} is the owner's"),
        }
    }

    fn alloc(&mut self, device: u8, reserve: Reserve) {
        let device = self.device(device);
        let front = |list| self.set.list(device, list).next();
        let expected = front(Reserve::None).or_else(|| front(reserve));
        match self.set.alloc_on(device, reserve) {
            Allocation::Ready(pointer) => {
                assert_eq!(Some(pointer.bucket.bucket()), expected);
                self.receive(pointer, reserve);
            }
            Allocation::Empty => assert_eq!(expected, None),
            Allocation::Failed => assert!(self.set.failure(device).is_some()),
        }
    }

    fn alloc_set(&mut self, reserve: Reserve, n: usize) {
        if n > usize::from(self.config.devices) {
            assert!(self.set.alloc_set(reserve, n).is_err());
            return;
        }
        let before = self.set.clone();
        let usable = |device| {
            let own = if reserve == Reserve::None { 0 } else { before.list(device, reserve).len() };
            before.list(device, Reserve::None).len() + own
        };
        let live = |d: &DeviceIndex| before.failure(*d).is_none() && usable(*d) > 0;
        let mut best: Vec<_> = before.device_indexes().filter(live).collect();
        best.sort_by_key(|d| std::cmp::Reverse(usable(*d)));
        match self.set.alloc_set(reserve, n).unwrap().ready() {
            Some(pointers) => {
                best.truncate(n);
                best.sort_unstable();
                let devices: Vec<_> = pointers.iter().map(|p| p.bucket.device()).collect();
                assert_eq!(devices, best);
                pointers.into_iter().for_each(|p| self.receive(p, reserve));
            }
            None => {
                assert!(best.len() < n);
                self.assert_same(&before);
            }
        }
    }

    fn assert_same(&self, before: &Set) {
        assert_eq!(self.set.gauges(), before.gauges());
        for device in self.set.device_indexes() {
            assert_eq!(self.set.words(device), before.words(device));
            for reserve in Reserve::ALL {
                assert!(self.set.list(device, reserve).eq(before.list(device, reserve)));
            }
        }
        assert!(self.set.slots().eq(before.slots()));
    }

    fn sectors(&mut self, inode: u64, jump: bool, sectors: u32, write_point: u64, dirty: bool) {
        let offset = &mut self.next_offset[inode as usize];
        *offset += if jump { 1000 } else { 0 };
        let mut write = Write::new(inode, *offset, sectors);
        write.write_point = write_point;
        write.flash_only = inode >= 4;
        let before = self.set.clone();
        let Some(extent) = self.set.alloc_sectors(write).unwrap().ready() else {
            self.assert_same(&before);
            return;
        };
        self.next_offset[inode as usize] += u64::from(extent.sectors);
        self.check_extent(&before, extent, sectors);
        let pointer = Pointer::new(extent.bucket, extent.gen_);
        let live = if dirty { Live::Dirty } else { Live::Clean };
        if dirty {
            self.set.mark_dirty(extent.bucket).unwrap();
        }
        let key = self.write(pointer, extent.offset, extent.sectors, live);
        self.held.push(key);
    }

    /// It begins where the last extent of the bucket ended, or at 0 of a new bucket.
    fn check_extent(&mut self, before: &Set, extent: Extent, asked: u32) {
        let id = extent.bucket;
        let place = (id.device(), id.bucket().get());
        if before.place(id) != Some(Place::Open) {
            assert_eq!(extent.offset, 0);
            self.medium.remove(&place);
        }
        let end = |ranges: &BTreeMap<u32, (u32, u64)>| ranges.iter().map(|(o, (s, _))| o + s).max();
        let expected = self.medium.get(&place).and_then(end).unwrap_or(0);
        assert_eq!(extent.offset, expected);
        assert!(extent.sectors >= 1 && extent.sectors <= asked);
        assert!(extent.offset + extent.sectors <= BUCKET_SECTORS);
    }

    fn insert(&mut self, which: u8, dirty: bool) {
        let Some(mut key) = choose(&self.held, which) else { return };
        self.forget_held(key);
        if dirty && key.live == Live::Clean {
            key.live = Live::Dirty;
            self.set.mark_dirty(key.pointer.bucket).unwrap();
        }
        self.index.push(key); // before the pin goes
        self.set.unpin(key.pointer.bucket).unwrap();
    }

    fn forget_held(&mut self, key: Key) {
        self.held.retain(|k| *k != key);
    }

    fn give_back(&mut self, which: u8) {
        let Some(key) = choose(&self.held, which) else { return };
        let id = key.pointer.bucket;
        let alone =
            self.index.iter().chain(&self.held).all(|k| k == &key || k.pointer.bucket != id);
        if key.sectors == BUCKET_SECTORS && alone {
            // Given back is what was not written.
            self.forget_held(key);
            self.medium.remove(&(id.device(), id.bucket().get()));
            self.set.give_back(id).unwrap();
            assert_eq!(self.set.word(id).unwrap().gen_(), key.pointer.gen_);
        }
    }

    /// The order of an index that frees a node.
    fn free_node(&mut self, which: u8) {
        let nodes: Vec<_> =
            self.index.iter().filter(|k| k.live == Live::Metadata).copied().collect();
        let Some(key) = choose(&nodes, which) else { return };
        let id = key.pointer.bucket;
        self.set.prio_block();
        if let Bump::Bumped(gen_) = self.set.bump_gen(id).unwrap() {
            assert_eq!(gen_, key.pointer.gen_.next());
            self.index.retain(|k| *k != key);
            self.set.free(id).unwrap();
        }
        self.set.prio_unblock().unwrap();
    }

    /// Only what no durable record points into.
    fn unused(&mut self, which: u8) {
        let referenced: BTreeSet<_> =
            self.index.iter().chain(&self.held).map(|k| k.pointer.bucket).collect();
        let buckets: Vec<_> =
            self.all_buckets().into_iter().filter(|b| !referenced.contains(b)).collect();
        let Some(id) = choose(&buckets, which) else { return };
        let before = self.set.word(id).unwrap();
        match self.set.unused(id).unwrap() {
            Unused::Released => {
                assert_eq!(self.set.word(id).unwrap().gen_(), before.gen_().next());
                let released = self.set.take_events();
                let discards = released.iter().filter(|e| matches!(e, Event::Discarded { .. }));
                assert_eq!(discards.count(), usize::from(self.config.discard));
            }
            Unused::Refused => assert_eq!(self.set.word(id), Some(before)),
        }
    }

    /// Shows keys to the GC that was begun. What is stale is removed from the index.
    fn visit(&mut self, n: usize) {
        let Some(mut keys) = self.to_visit.take() else { return };
        for key in keys.split_off(keys.len() - n.min(keys.len())) {
            if self.index.contains(&key) {
                let marked = self.set.gc_mark(key.pointer, key.sectors, key.live).unwrap();
                if marked == tierce_core::spec::Marked::Stale {
                    self.index.retain(|k| *k != key);
                }
            }
        }
        self.to_visit = Some(keys);
    }

    /// Power loss: memory is gone; the index and the durable tables are not.
    fn crash(&mut self) {
        if !self.config.sync {
            return;
        }
        self.set = self.set.after_crash().unwrap();
        self.held.clear();
        self.not_durable.clear();
        self.to_visit = None;
        for key in self.index.clone() {
            self.set.observe(key.pointer, key.sectors, key.live).unwrap();
        }
        let reused = self.set.start().unwrap().reused;
        // The owner's duty before the first prio write.
        self.index.retain(|k| !reused.contains(&k.pointer.bucket));
        self.set.take_events();
    }

    /// What happened on the medium, and the crash rule at the moment of release.
    fn follow_events(&mut self) {
        for event in self.set.take_events() {
            match event {
                Event::Invalidated { bucket, .. } => {
                    self.not_durable.insert(bucket);
                }
                Event::PrioImage { bucket, .. } => {
                    self.medium.remove(&(bucket.device(), bucket.bucket().get()));
                }
                Event::PrioWritten { device, .. } => {
                    self.not_durable.retain(|b| b.device() != device);
                }
                Event::Released { bucket, .. } => {
                    assert!(
                        !self.config.sync || !self.not_durable.contains(&bucket),
                        "{bucket} was released without a prio write"
                    );
                }
                _ => {}
            }
        }
    }

    fn check_moving(&self, device: DeviceIndex, chosen: &[BucketIndex]) {
        let word = |b: &BucketIndex| self.set.word(BucketId::new(device, *b)).unwrap();
        let live: u32 = chosen.iter().map(|b| u32::from(word(b).sectors())).sum();
        let room = self.set.list(device, Reserve::MovingGc).len() as u32 * BUCKET_SECTORS;
        assert!(live <= room);
        for b in chosen {
            let w = word(b);
            assert!(w.is_moving() && w.pin_count() == 0 && w.mark() != tierce_core::Mark::Metadata);
            assert!((1..BUCKET_SECTORS).contains(&u32::from(w.sectors())));
        }
    }

    fn check(&self) {
        self.set.check().unwrap();
        let limit = if self.config.shadow { 96 } else { 97 };
        for id in self.all_buckets() {
            let word = self.set.word(id).unwrap();
            assert!(word.gc_gen() <= limit, "{id} {word:?}");
            let durable = self.set.durable_gen(id).unwrap();
            assert!(!self.config.sync || word.gen_().since(durable) <= 96, "{id} {word:?}");
            let holders = self.held.iter().filter(|k| k.pointer.bucket == id).count() as u16;
            let own = match self.set.place(id).unwrap() {
                Place::Out | Place::PrioChain => 0,
                Place::SetAside => unreachable!("nobody forges pointers here"),
                Place::Open | Place::Free(_) | Place::FreeInc | Place::Ready => 1,
            };
            assert_eq!(word.pin_count(), holders + own, "{id} {:?}", self.set.place(id));
        }
        for key in self.index.iter().chain(&self.held) {
            self.check_key(key);
        }
    }

    fn check_key(&self, key: &Key) {
        let id = key.pointer.bucket;
        let valid = self.set.word(id).unwrap().gen_() == key.pointer.gen_;
        assert!(valid || key.live == Live::Clean, "lost: {key:?}");
        let ranges = self.medium.get(&(id.device(), id.bucket().get()));
        let content = ranges.and_then(|r| r.get(&key.offset)).copied();
        let same = content == Some((key.sectors, key.content));
        assert!(!valid || same, "{key:?} leads to {content:?}");
    }
}

/// The element that a number stands for.
fn choose<T: Copy>(from: &[T], which: u8) -> Option<T> {
    if from.is_empty() { None } else { Some(from[usize::from(which) % from.len()]) }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_after_every_operation(
        config in config(),
        ops in prop::collection::vec(op(), 1..300),
    ) {
        let mut world = World::new(config);
        world.check();
        for op in &ops {
            world.apply(op);
            world.check();
        }
    }
}
