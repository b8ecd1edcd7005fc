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
//! Each slot belongs to one place, whose clock hand decides about it. A write that no hint knows
//! is searched for while there are slots never used, or while its place has a good deal less than
//! its share of them: both end. Later it is searched for once in 32 writes per slot on average (up to 16
//! times in a row): enough for streams that begin, or move from one CPU to another, at a cost
//! of nothing. If more writes than that are unknown there are more streams than slots, and the
//! rest gets what the hand finds (`hand.rs`): it goes over the place's slots, passes over those
//! used since it came by last, and takes the first that was not. That is 4 to 6 approximately.
//!
//! A search may find the slot of another place, which then changes hands: a stream that moves to
//! another CPU brings its slot with it, and hands go over what is used at their own place. A CPU
//! that works alone comes to use all slots, and gives them up to others one by one when they need
//! them.
//!
//! "Recently" is by ticks, of which each place has its own count, never behind what it sees in
//! the slots that it uses or searches: nothing that all CPUs write, exact for one CPU, and close
//! for several.
//!
//! What a slot remembers is several words, which a racing reader may see mixed. That too costs
//! locality only: the class, which must not be wrong, is in the slot's own word.

use super::hand::Hand;
use super::request::SectorRequest;
use super::slot::SlotWord;
use super::tables::{Ends, Points};
use crate::hint;
use crate::sync::unmodelled::{AtomicU32, AtomicU64};
use crate::sync::{AtomicU64 as SharedWord, Ordering};
use crossbeam_utils::CachePadded;
use tierce_core::BucketId;

/// Up to so many slots all are looked at for every write.
const FEW: usize = 8;
/// A place has at least so many slots: more CPUs than that allows share places.
const SLOTS_PER_PLACE: usize = 4;
/// Searches come once in so many writes per slot …
const WRITES_PER_SLOT: u64 = 32;
/// … but so many may come at once.
const BURST: u64 = 16;

/// A place for an open bucket: one cache line.
#[derive(Debug)]
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
}

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
    pub(super) fn new() -> Self {
        Self {
            word: SharedWord::new(SlotWord::default().bits()),
            write_point: AtomicU64::new(0),
            inode: AtomicU64::new(0),
            next: AtomicU64::new(0),
            used: AtomicU64::new(0),
            bucket: AtomicU32::new(0),
        }
    }

    pub(super) fn tag(&self) -> Tag {
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
    fn is_of_class(&self, request: &SectorRequest) -> bool {
        // Relaxed: a hint; the class is looked at again when space is taken.
        let word = SlotWord::from_bits(self.word.load(Ordering::Relaxed));
        word.is_flash_only() == request.flash_only
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
            && self.is_of_class(request)
    }
}

/// Stores what is not there already: a store that changes nothing would still have to wait for
/// the line.
#[inline]
fn set(word: &AtomicU64, value: u64) {
    // Relaxed (both): hints, see the top of this file.
    if word.load(Ordering::Relaxed) != value {
        word.store(value, Ordering::Relaxed);
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

/// What one CPU knows.
#[derive(Debug)]
struct Place {
    /// None of either if all slots are looked at anyway.
    tables: Option<(Points, Ends)>,
    /// Counts the writes here, and never behind a slot used here.
    tick: AtomicU64,
    /// The slots that belong to it.
    hand: Hand,
    /// The tick from which on the next search is within the average.
    next_search: AtomicU64,
}

impl Place {
    fn new(slots: usize, has_tables: bool) -> Self {
        Self {
            tables: has_tables.then(|| (Points::new(slots), Ends::new(slots))),
            tick: AtomicU64::new(0),
            hand: Hand::new(slots),
            next_search: AtomicU64::new(0),
        }
    }

    /// Whether the searches so far leave room for another, which then is counted.
    fn may_search(&self, slots: usize) -> bool {
        let every = WRITES_PER_SLOT * slots as u64;
        // Relaxed (all): hints.
        let tick = self.tick.load(Ordering::Relaxed);
        let due = self.next_search.load(Ordering::Relaxed);
        let may = due <= tick + (BURST - 1) * every;
        if may {
            self.next_search.store(due.max(tick) + every, Ordering::Relaxed);
        }
        may
    }
}

/// Chooses slots.
#[derive(Debug)]
pub(super) struct Chooser {
    places: Box<[CachePadded<Place>]>,
    /// To which place each slot belongs, its number + 1; 0: never used. Rarely written.
    owners: Box<[AtomicU32]>,
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
            owners: (0..slots).map(|_| AtomicU32::new(0)).collect(),
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
            return if slots.len() == 1 { 0 } else { self.search(slots, request) };
        };
        ends.find(slots, request)
            .or_else(|| points.find(slots, request))
            .unwrap_or_else(|| self.unknown(slots, request))
    }

    /// For a write that no hint here knows.
    #[inline(never)]
    fn unknown(self, slots: &Slots, request: &SectorRequest) -> usize {
        let share = slots.len() / self.chooser.places.len();
        let owned = self.place.hand.owned();
        // Not by one or a few: places that are all busy take slots from each other all the time.
        let has_less = owned + owned / 8 + 1 < share;
        // Relaxed: a hint.
        if has_less
            || self.chooser.unused.load(Ordering::Relaxed) > 0
            || self.place.may_search(slots.len())
        {
            return self.search(slots, request);
        }
        self.advance(slots, request).unwrap_or_else(|| self.search(slots, request))
    }

    /// What the hand of this place finds, if the place has any slot: preferably one of the
    /// request's class, or closed.
    fn advance(self, slots: &Slots, request: &SectorRequest) -> Option<usize> {
        let hand = &self.place.hand;
        let mut other_class = None;
        for _ in 0..2 * hand.owned() {
            let at = hand.advance()?;
            let slot = &slots[at];
            // Relaxed: a hint.
            let word = SlotWord::from_bits(slot.word.load(Ordering::Relaxed));
            if word.bucket().is_none() || word.is_flash_only() == request.flash_only {
                return Some(at);
            }
            other_class = other_class.or(Some(at));
        }
        other_class
    }

    /// Looks at all slots.
    fn search(self, slots: &Slots, request: &SectorRequest) -> usize {
        let mut newest = 0;
        let mut rank = |slot: &Slot| {
            let tag = slot.tag();
            newest = newest.max(tag.used);
            tag.rank(request)
        };
        let ranked = slots.iter().enumerate().map(|(at, slot)| (rank(slot), at));
        let (_, at) = ranked.min().expect("there is a slot");
        // Relaxed: a hint.
        self.place.tick.fetch_max(newest, Ordering::Relaxed);
        if self.place.tables.is_some() {
            self.own(at);
        }
        at
    }

    /// The slot belongs to this place now.
    fn own(self, at: usize) {
        let owner = &self.chooser.owners[at];
        // Relaxed (all): hints; the swap keeps the counts even.
        if owner.load(Ordering::Relaxed) == self.number + 1 {
            return;
        }
        let before = owner.swap(self.number + 1, Ordering::Relaxed);
        match before.checked_sub(1) {
            Some(place) => self.chooser.places[place as usize].hand.lose(at),
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
        set(&slot.write_point, request.write_point.0);
        set(&slot.inode, request.inode);
        // Relaxed (all): hints, see the top of this file.
        slot.next.store(next, Ordering::Relaxed);
        if slot.bucket.load(Ordering::Relaxed) != bucket.pack() {
            slot.bucket.store(bucket.pack(), Ordering::Relaxed);
        }
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
