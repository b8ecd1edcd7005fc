//! Which slot a write gets.
//!
//! 1. Only slots of its class: data that lives only on flash never shares a bucket with cached
//!    data.
//! 2. The one whose last write ended exactly where this one begins, in the same inode.
//! 3. Else the one last used by the same write point.
//! 4. Else one never used; else a closed one, the least recently used first.
//! 5. Else the least recently used one of the class: its rest goes on to the new stream.
//! 6. Else the least recently used one of the other class is closed and its slot reused.
//!
//! Of several matches the most recently used wins. A *search* of all slots follows this list
//! exactly. It costs as many cache misses as other CPUs have slots in use, so with more than
//! [`FEW`] slots and several streams the following comes before it, by which a write touches
//! nothing that other CPUs write.
//!
//! # Hints
//!
//! 2 and 3 are looked up in two tables per *place*, as many as there are CPUs (`tables.rs`): where
//! a stream ended → slot, write point → slot. What they say is verified against the slot. A write
//! whose write point is known here is not searched for elsewhere; a hint that was lost, or is
//! known at another CPU's place, costs locality.
//!
//! # Streams unknown here
//!
//! Each slot belongs to one place. A write that no hint knows is searched for while there are
//! slots never used, or while its place has a good deal less than its share of them: both end, as
//! such a search brings another slot. After that the first of these that there is:
//!
//! 1. What a search finds, if no hint names any slot for this write point. Once in 32 writes per slot
//!    on average (up to 16 times in a row): enough for streams that begin, or move from one CPU
//!    to another, at a cost of nothing.
//! 2. An *idle* slot: not used for 8 to 16 writes per slot, which the hand finds (`hand.rs`).
//! 3. The slot that the hint names, whoever has used it since: the place is *crowded*, more
//!    streams write here than it has slots.
//! 4. What the hand comes to.
//!
//! That is 4 to 6 of the list approximately. In a crowded place the list would have every other
//! write take a slot from a stream that is as busy, and in the end have data of all streams in every
//! bucket. By 3 those with one hint share a slot, and a bucket has data of as few streams as there
//! are for each slot. So while it is crowded, which is for a round of 8 writes per slot, hints are
//! followed without asking who wrote there last; after that 2 looks again.
//!
//! # Whose slots
//!
//! A search may find the slot of another place, which then changes hands: a stream that moves to
//! another CPU brings its slot with it, and hands go over what is used at their own place. A CPU
//! that works alone comes to use all slots, and gives them up to others one by one when they need
//! them: first those of a range that each place has for its own, so that in the end CPUs do not
//! write side by side, where a processor that fetches ahead takes lines from another.
//!
//! Writers of one write point on two CPUs would take its slot from each other all the time, and
//! wait for its line. So hints lead to slots of their own place only, and a search leaves a slot
//! that was used lately to its place if it went to and fro, or, unless it looks for its share, if it
//! is near to another CPU (`change.rs`). Each CPU then has a slot of its own for that write point.
//!
//! "Recently" is by ticks, of which each place has its own count, never behind what it sees in
//! the slots that it uses or searches: nothing that all CPUs write, exact for one CPU, and close
//! for several.
//!
//! What a slot remembers is several words, which a racing reader may see mixed. That too costs
//! locality only: the class, which must not be wrong, is in the slot's own word.

use super::change::PATIENCE;
use super::hand::Hand;
use super::place::{BUSY_PER_SLOT, Place};
use super::request::SectorRequest;
use super::slot::SlotWord;
use super::tables::Points;
use crate::hint;
use crate::near::Modes;
use crate::section::Section;
use crate::sync::unmodelled::{AtomicU32, AtomicU64};
use crate::sync::{AtomicU32 as SharedNumber, AtomicU64 as SharedWord, Ordering};
use crossbeam_utils::CachePadded;
use tierce_core::BucketId;

/// Up to so many slots all are looked at for every write.
const FEW: usize = 8;
/// A place has at least so many slots: more CPUs than that allows share places.
const SLOTS_PER_PLACE: usize = 4;
/// From so many times on that a slot was soon taken again its streams are those of several CPUs.
const CONTENDED: u32 = 8;

/// A place for an open bucket: two cache lines. What every write and every search look at is in
/// the first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Slot {
    pub(super) word: SharedWord,
    /// The write point that used it last.
    write_point: AtomicU64,
    /// Whose data the last write was.
    inode: AtomicU64,
    /// Where it ended.
    next: AtomicU64,
    /// The tick of its last use; 0: never used.
    used: AtomicU64,
    /// The bucket of its last use, packed: for tools, which show closed ones too.
    bucket: AtomicU32,
    /// To which place it belongs, its number + 1; 0: never used. Rarely written.
    owner: AtomicU32,
    /// How often another place took it, each time soon after the time before.
    taken: AtomicU32,
    /// The CPU that changes it by stores while the slot is near.
    pub(super) cpu: SharedNumber,
    /// How the word is changed, see `change.rs`.
    pub(super) modes: Modes,
    /// How often one CPU used it in a row while it was shared.
    pub(super) uses: AtomicU64,
    /// Which.
    pub(super) last: AtomicU32,
    /// The tick at which another place took it the last time.
    taken_at: AtomicU64,
}

#[cfg(not(any(tierce_loom, tierce_shuttle)))]
const _: () = assert!(core::mem::offset_of!(Slot, modes) == 56);

/// All slots of a set.
pub(super) type Slots = [CachePadded<Slot>];

/// What a slot remembers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tag {
    pub(crate) word: SlotWord,
    pub(crate) write_point: u64,
    pub(crate) inode: u64,
    pub(crate) next: u64,
    pub(crate) used: u64,
    pub(crate) bucket: BucketId,
}

impl Slot {
    /// Never used. With a section it can be near.
    pub(crate) fn new(section: Option<Section>) -> Self {
        Self {
            word: SharedWord::new(SlotWord::default().bits()),
            write_point: AtomicU64::new(0),
            inode: AtomicU64::new(0),
            next: AtomicU64::new(0),
            used: AtomicU64::new(0),
            bucket: AtomicU32::new(0),
            owner: AtomicU32::new(0),
            taken: AtomicU32::new(0),
            cpu: SharedNumber::new(0),
            modes: Modes::with_patience(section, &PATIENCE),
            uses: AtomicU64::new(0),
            last: AtomicU32::new(0),
            taken_at: AtomicU64::new(0),
        }
    }

    /// The word, for who is going to change it.
    #[inline]
    pub(crate) fn read(&self) -> SlotWord {
        // Acquire: pairs with the Release that published the bucket: its pins are taken.
        SlotWord::from_bits(self.word.load(Ordering::Acquire))
    }

    pub(crate) fn tag(&self) -> Tag {
        // Relaxed (all): hints, see the top of this file.
        Tag {
            word: SlotWord::from_bits(self.word.load(Ordering::Relaxed)),
            write_point: self.write_point.load(Ordering::Relaxed),
            inode: self.inode.load(Ordering::Relaxed),
            next: self.next.load(Ordering::Relaxed),
            used: self.used.load(Ordering::Relaxed),
            bucket: BucketId::unpack(self.bucket.load(Ordering::Relaxed)),
        }
    }

    /// Whether a slot that was used is of the request's class.
    #[inline]
    pub(super) fn is_of_class(&self, request: &SectorRequest) -> bool {
        // Relaxed: a hint; the class is looked at again when space is taken.
        let word = SlotWord::from_bits(self.word.load(Ordering::Relaxed));
        word.is_flash_only() == request.flash_only
    }

    /// Whether it belongs to the place with this number.
    #[inline]
    pub(super) fn is_of(&self, place: u32) -> bool {
        // Relaxed: a hint.
        self.owner.load(Ordering::Relaxed) == place + 1
    }

    /// Whether two places want it all the time.
    fn is_contended(&self) -> bool {
        // Relaxed: a hint.
        self.taken.load(Ordering::Relaxed) >= CONTENDED
    }

    #[inline]
    pub(super) fn follows(&self, request: &SectorRequest) -> bool {
        // Relaxed (both): hints.
        self.next.load(Ordering::Relaxed) == request.offset
            && self.inode.load(Ordering::Relaxed) == request.inode
            && self.is_of_class(request)
    }

    #[inline]
    pub(super) fn is_writer(&self, request: &SectorRequest) -> bool {
        // Relaxed: a hint.
        self.write_point.load(Ordering::Relaxed) == request.write_point.0
    }
}

impl Tag {
    /// The smallest is chosen, see the list at the top of this file.
    fn rank(&self, request: &SectorRequest) -> (u8, u64) {
        if self.follows(request) {
            (2, u64::MAX - self.used)
        } else if self.is_writer(request) {
            (3, u64::MAX - self.used)
        } else if self.word.bucket().is_none() {
            (4, self.used)
        } else if self.is_of_class(request) {
            (5, self.used)
        } else {
            (6, self.used)
        }
    }

    fn is_of_class(&self, request: &SectorRequest) -> bool {
        self.used != 0 && self.word.is_flash_only() == request.flash_only
    }

    fn follows(&self, request: &SectorRequest) -> bool {
        self.is_of_class(request) && (self.inode, self.next) == (request.inode, request.offset)
    }

    fn is_writer(&self, request: &SectorRequest) -> bool {
        self.is_of_class(request) && self.write_point == request.write_point.0
    }
}

/// Chooses slots.
#[derive(Debug)]
pub(super) struct Chooser {
    places: Box<[CachePadded<Place>]>,
    /// Slots never used.
    unused: AtomicU32,
}

/// A thread's view: its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here<'a> {
    chooser: &'a Chooser,
    place: &'a Place,
    number: u32,
}

impl Chooser {
    /// For so many slots and CPUs. Without CPUs every choice is a search.
    pub(super) fn new(slots: usize, cpus: usize) -> Self {
        let has_tables = slots > FEW && cpus > 0;
        let most = if has_tables { slots / SLOTS_PER_PLACE } else { usize::MAX };
        let places = 0..cpus.clamp(1, most);
        Self {
            places: places.map(|_| CachePadded::new(Place::new(slots, has_tables))).collect(),
            unused: AtomicU32::new(slots as u32),
        }
    }

    #[inline]
    pub(super) fn here(&self) -> Here<'_> {
        let number = hint::place(self.places.len());
        Here { chooser: self, place: &self.places[number], number: number as u32 }
    }
}

impl Here<'_> {
    /// The slot for `request`: its number in `slots`.
    #[inline(always)]
    pub(super) fn choose(self, slots: &Slots, request: &SectorRequest) -> usize {
        let Some((points, ends)) = &self.place.tables else {
            return if slots.len() == 1 { 0 } else { self.search(slots, request, false) };
        };
        let is_crowded = self.place.is_crowded();
        ends.find(slots, request, self.number)
            .or_else(|| points.find(slots, request, self.number, is_crowded))
            .unwrap_or_else(|| self.unknown(slots, request, points))
    }

    /// For a write that no hint here knows.
    #[inline(never)]
    fn unknown(self, slots: &Slots, request: &SectorRequest, points: &Points) -> usize {
        let owned = self.place.hand.owned();
        // Not by one or a few: places that are all busy take slots from each other all the time.
        let has_less = owned + owned / 8 + 1 < self.share(slots).len();
        // Relaxed: a hint.
        if has_less || self.chooser.unused.load(Ordering::Relaxed) > 0 {
            return self.search(slots, request, has_less);
        }
        let shared = points.find(slots, request, self.number, true);
        if shared.is_none() && self.place.may_search(slots.len()) {
            return self.search(slots, request, false);
        }
        self.place.turn_round();
        if let Some(idle) = self.by_hand(Hand::next_idle, slots, request) {
            return idle;
        }
        self.place.note_crowd();
        shared
            .or_else(|| self.by_hand(Hand::next_unused, slots, request))
            .or_else(|| self.by_hand(Hand::next, slots, request))
            .or_else(|| self.place.hand.next())
            .unwrap_or_else(|| self.search(slots, request, false))
    }

    /// The slots that this place takes first.
    fn share(self, slots: &Slots) -> core::ops::Range<usize> {
        let (places, number) = (self.chooser.places.len(), self.number as usize);
        slots.len() * number / places..slots.len() * (number + 1) / places
    }

    /// The first slot that the hand finds by `next` and that suits.
    fn by_hand(
        self,
        next: fn(&Hand) -> Option<usize>,
        slots: &Slots,
        request: &SectorRequest,
    ) -> Option<usize> {
        let hand = &self.place.hand;
        let mut found = (0..hand.owned()).map_while(|_| next(hand));
        found.find(|&at| self.suits(at, slots, request))
    }

    /// Whether the slot is this place's, and of the request's class or closed.
    fn suits(self, at: usize, slots: &Slots, request: &SectorRequest) -> bool {
        let slot = &slots[at];
        if !slot.is_of(self.number) {
            // Taken by another place before this one had noted that it came here.
            self.place.hand.lose(at);
            return false;
        }
        // Relaxed: a hint.
        let word = SlotWord::from_bits(slot.word.load(Ordering::Relaxed));
        word.bucket().is_none() || word.is_flash_only() == request.flash_only
    }

    /// Looks at all slots. Who `has_less` than his share takes another one; who has not leaves
    /// alone with what another CPU is busy.
    fn search(self, slots: &Slots, request: &SectorRequest, has_less: bool) -> usize {
        // Relaxed (both): hints.
        let used = |slot: &CachePadded<Slot>| slot.used.load(Ordering::Relaxed);
        let newest = slots.iter().map(used).max().expect("there is a slot");
        let newest = self.place.tick.fetch_max(newest, Ordering::Relaxed).max(newest);
        let busy_since = newest.saturating_sub(BUSY_PER_SLOT * slots.len() as u64);
        let share = self.share(slots);
        let rank = |at: usize, slot: &Slot| {
            let tag = slot.tag();
            // Without tables no slot is anybody's.
            let is_mine = self.place.tables.is_none() || slot.is_of(self.number);
            let is_busy = slot.is_contended() || !has_less && slot.is_near_to_another();
            if is_busy && tag.used > busy_since && !is_mine {
                return (7, 0, tag.used);
            }
            let (rank, order) = tag.rank(request);
            let detour = match rank {
                4.. if has_less && is_mine => 2,
                4.. if has_less || tag.used == 0 => u8::from(!is_mine && !share.contains(&at)),
                _ => 0,
            };
            (rank, detour, order)
        };
        let ranked = slots.iter().enumerate().map(|(at, slot)| (rank(at, slot), at));
        let (_, at) = ranked.min().expect("there is a slot");
        if self.place.tables.is_some() {
            self.own(&slots[at], at, busy_since);
        }
        at
    }

    /// The slot belongs to this place now.
    fn own(self, slot: &Slot, at: usize, busy_since: u64) {
        if slot.is_of(self.number) {
            return;
        }
        // Relaxed (all): hints; the swap keeps the counts even.
        let before = slot.owner.swap(self.number + 1, Ordering::Relaxed);
        match before.checked_sub(1) {
            Some(place) => {
                self.chooser.places[place as usize].hand.lose(at);
                let soon = slot.taken_at.load(Ordering::Relaxed) > busy_since;
                let taken = if soon { slot.taken.load(Ordering::Relaxed) + 1 } else { 0 };
                slot.taken.store(taken, Ordering::Relaxed);
                slot.taken_at.store(self.place.tick.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            None => {
                self.chooser.unused.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.place.hand.gain(at);
    }

    /// `request` has got `sectors` sectors of `bucket` from slot `at`.
    #[inline(always)]
    pub(super) fn used(
        self,
        slot: &Slot,
        at: usize,
        request: &SectorRequest,
        bucket: BucketId,
        sectors: u32,
    ) {
        let next = request.offset.wrapping_add(sectors.into());
        // Relaxed (all): hints, see the top of this file. Stored in any case: the line is written
        // anyway, and nobody could predict what changes.
        slot.write_point.store(request.write_point.0, Ordering::Relaxed);
        slot.inode.store(request.inode, Ordering::Relaxed);
        slot.next.store(next, Ordering::Relaxed);
        slot.bucket.store(bucket.pack(), Ordering::Relaxed);
        let tick = &self.place.tick;
        let now = tick.load(Ordering::Relaxed).max(slot.used.load(Ordering::Relaxed)) + 1;
        tick.store(now, Ordering::Relaxed);
        slot.used.store(now, Ordering::Relaxed);
        if let Some((points, ends)) = &self.place.tables {
            self.place.hand.used(at);
            points.remember(request.write_point, at);
            ends.remember(request.inode, next, at);
        }
    }
}
