//! The state of a bucket in one 64-bit word, and every legal change of it.
//!
//! # Problem
//!
//! Invalidation must see pin, mark and gen together and change gen, prio and pin together,
//! while other threads pin, unpin, touch and mark. One word makes each of these one
//! compare-and-swap, so no lock is needed and no thread ever sees half a change.
//!
//! # State
//!
//! ```text
//!  63          48 47         35 34 33 32 31          16 15      8 7       0
//! ┌──────────────┬─────────────┬──┬─────┬──────────────┬─────────┬─────────┐
//! │     pin      │   sectors   │mv│mark │     prio     │ last_gc │   gen   │
//! └──────────────┴─────────────┴──┴─────┴──────────────┴─────────┴─────────┘
//! ```
//!
//! | field | bits | meaning |
//! |---|---|---|
//! | gen | 8 | generation; a pointer is valid while it carries this one |
//! | last_gc | 8 | the oldest gen of any pointer into the bucket that the last GC saw |
//! | prio | 16 | age: 65535 metadata, 32768 fresh, down to 0 |
//! | mark | 2 | [`Mark`]: none, reclaimable, dirty, metadata |
//! | moving | 1 | garbage collection wants the live data moved out |
//! | sectors | 13 | live sectors, saturating at [`SECTORS_MAX`] |
//! | pin | 16 | while above 0 the bucket is not invalidated |
//!
//! In the concurrent table the prio field holds a [`Stamp`] from which the prio is worked out, so
//! that ageing needs not write every word: [`crate::age`] explains it, and
//! [`AgeEpoch::reveal`](crate::AgeEpoch::reveal) makes the one of the other. The transitions
//! below speak of prios.
//!
//! Pin is on top so that its carry and borrow leave the word instead of entering a neighbour.
//!
//! # Transitions
//!
//! Each is a pure function from a snapshot to the next, `None` when its guard does not hold.
//! What orders them between threads is said where they become atomic, in
//! `tierce_lockfree::table`.
//!
//! | transition | guard | effect |
//! |---|---|---|
//! | [`invalidate`](Snapshot::invalidate) | pin 0 ∧ mark ∈ {none, reclaimable} ∧ gen − last_gc < 96 | gen + 1, prio fresh, pin 1 |
//! | [`pin`](Snapshot::pin) | gen equal ∧ pin < [`PIN_LIMIT`] | pin + 1 |
//! | [`unpin`](Snapshot::unpin) | pin ≥ n | pin − n |
//! | [`allocate`](Snapshot::allocate) | pin 1 | mark, sectors, prio set; moving cleared |
//! | [`dirty`](Snapshot::dirty) | mark ≠ metadata | mark dirty |
//! | [`touch`](Snapshot::touch) | gen equal ∧ prio ∉ {fresh, metadata} | prio fresh |
//! | [`rescale`](Snapshot::rescale) | pin 0 ∧ prio ∉ {0, metadata} | prio − 1 |
//! | [`gc_publish`](Snapshot::gc_publish) | – | last_gc; mark and sectors unless pinned or reused since |
//! | [`give_back`](Snapshot::give_back) | owner | none if the mark is reclaimable; else mark none, sectors 0, prio fresh |
//! | [`free`](Snapshot::free) | – | mark none, sectors 0 |
//! | [`unused`](Snapshot::unused) | as invalidate ∧ gen = durable gen | as invalidate, mark none |
//! | [`bump_gen`](Snapshot::bump_gen) | both lags < 96 | gen + 1 |

mod transitions;

use crate::age::Stamp;
use crate::bucket::{Gen, Mark, Prio};
use core::fmt;

/// The most live sectors a word counts. Buckets of more are counted in larger units
/// ([`Geometry::sector_shift`](crate::Geometry::sector_shift)).
pub const SECTORS_MAX: u16 = (1 << SECTORS_BITS) - 1;

/// From this pin count on, [`Snapshot::pin`] refuses. What is above it is room for pins taken
/// in advance, one per block of an open bucket.
pub const PIN_LIMIT: u16 = 0xC000;

const LAST_GC: u32 = 8;
const PRIO: u32 = 16;
const MARK: u32 = 32;
const MOVING: u32 = 34;
const SECTORS: u32 = 35;
const SECTORS_BITS: u32 = 13;
const PIN: u32 = 48;

const _: () = assert!(SECTORS + SECTORS_BITS == PIN && PIN + 16 == u64::BITS);

/// One pin, as a summand of the whole word.
pub const ONE_PIN: u64 = 1 << PIN;

/// The bits that forbid invalidation whatever the gens say: any pin, or mark dirty or metadata.
///
/// ```
/// use tierce_core::{Mark, Snapshot, word::BUSY};
/// let w = Snapshot::default();
/// assert_eq!(w.bits() & BUSY, 0);
/// assert_ne!(w.with_mark(Mark::Dirty).bits() & BUSY, 0);
/// assert_ne!(w.with_pin(1).bits() & BUSY, 0);
/// ```
pub const BUSY: u64 = (u16::MAX as u64) << PIN | 0b10 << MARK;

/// The state of a bucket at one instant.
///
/// ```
/// use tierce_core::{Gen, Prio, Snapshot};
/// let full = Snapshot::default();
/// let taken = full.invalidate().expect("nothing forbids it");
/// assert_eq!((taken.gen_(), taken.prio(), taken.pin_count()), (Gen::new(1), Prio::FRESH, 1));
/// assert_eq!(taken.invalidate(), None, "it is pinned now");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Snapshot(u64);

/// The mark with which a bucket leaves a free list, and the prio that goes with it.
///
/// ```
/// use tierce_core::{Mark, Prio, word::Purpose};
/// assert_eq!(Purpose::Data.mark(), Mark::Reclaimable);
/// assert_eq!(Purpose::Metadata.prio(), Prio::METADATA);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Cached data: reclaimable and fresh.
    Data,
    /// Index nodes and prio sets: metadata, never ages.
    Metadata,
}

impl Purpose {
    /// The mark given at allocation.
    #[must_use]
    pub const fn mark(self) -> Mark {
        match self {
            Self::Data => Mark::Reclaimable,
            Self::Metadata => Mark::Metadata,
        }
    }

    /// The prio given at allocation.
    #[must_use]
    pub const fn prio(self) -> Prio {
        match self {
            Self::Data => Prio::FRESH,
            Self::Metadata => Prio::METADATA,
        }
    }
}

/// Reading and replacing single fields.
impl Snapshot {
    /// The snapshot with these bits. Every bit pattern is a legal state.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The generation. (`gen` alone is a keyword.)
    #[must_use]
    pub const fn gen_(self) -> Gen {
        Gen::new(self.0 as u8)
    }

    /// The oldest gen of any pointer into the bucket that the last GC saw.
    #[must_use]
    pub const fn last_gc(self) -> Gen {
        Gen::new((self.0 >> LAST_GC) as u8)
    }

    /// The age.
    #[must_use]
    pub const fn prio(self) -> Prio {
        Prio::new((self.0 >> PRIO) as u16)
    }

    /// The age as the concurrent table has it: in the place of the prio.
    #[must_use]
    pub const fn stamp(self) -> Stamp {
        Stamp::from_bits((self.0 >> PRIO) as u16)
    }

    /// What GC found, or what allocation promised.
    #[must_use]
    pub const fn mark(self) -> Mark {
        Mark::from_bits((self.0 >> MARK) as u8)
    }

    /// Whether GC wants the live data moved out.
    #[must_use]
    pub const fn is_moving(self) -> bool {
        self.0 >> MOVING & 1 != 0
    }

    /// Live sectors (or larger units, see [`SECTORS_MAX`]), at most [`SECTORS_MAX`].
    #[must_use]
    pub const fn sectors(self) -> u16 {
        (self.0 >> SECTORS) as u16 & SECTORS_MAX
    }

    /// How many pins are held, including those an open bucket took in advance.
    #[must_use]
    pub const fn pin_count(self) -> u16 {
        (self.0 >> PIN) as u16
    }

    /// How many times the bucket was reused since GC last looked: gen − last_gc modulo 256.
    #[must_use]
    pub const fn gc_gen(self) -> u8 {
        self.gen_().since(self.last_gc())
    }

    const fn replace(self, shift: u32, width: u32, value: u64) -> Self {
        let mask = ((1 << width) - 1) << shift;
        Self(self.0 & !mask | value << shift & mask)
    }

    /// With this gen.
    #[must_use]
    pub const fn with_gen(self, value: Gen) -> Self {
        self.replace(0, 8, value.get() as u64)
    }

    /// With this `last_gc`.
    #[must_use]
    pub const fn with_last_gc(self, value: Gen) -> Self {
        self.replace(LAST_GC, 8, value.get() as u64)
    }

    /// With this prio.
    #[must_use]
    pub const fn with_prio(self, value: Prio) -> Self {
        self.replace(PRIO, 16, value.get() as u64)
    }

    /// With this stamp in the place of the prio.
    #[must_use]
    pub const fn with_stamp(self, value: Stamp) -> Self {
        self.replace(PRIO, 16, value.bits() as u64)
    }

    /// With this mark.
    #[must_use]
    pub const fn with_mark(self, value: Mark) -> Self {
        self.replace(MARK, 2, value.to_bits() as u64)
    }

    /// With the moving flag set or cleared.
    #[must_use]
    pub const fn with_moving(self, value: bool) -> Self {
        self.replace(MOVING, 1, value as u64)
    }

    /// With this many live sectors, saturating at [`SECTORS_MAX`].
    #[must_use]
    pub const fn with_sectors(self, value: u32) -> Self {
        let value = if value > SECTORS_MAX as u32 { SECTORS_MAX as u32 } else { value };
        self.replace(SECTORS, SECTORS_BITS, value as u64)
    }

    /// With this pin count.
    #[must_use]
    pub const fn with_pin(self, value: u16) -> Self {
        self.replace(PIN, 16, value as u64)
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("gen", &self.gen_().get())
            .field("last_gc", &self.last_gc().get())
            .field("prio", &self.prio().get())
            .field("mark", &self.mark())
            .field("moving", &self.is_moving())
            .field("sectors", &self.sectors())
            .field("pin", &self.pin_count())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::GC_GEN_LIMIT;
    use proptest::prelude::*;

    /// Everything but the named fields is as before.
    fn unchanged_but(before: Snapshot, after: Snapshot, fields: &[&str]) {
        let same = |name: &str, same: bool| assert!(fields.contains(&name) || same, "{name}");
        same("gen", before.gen_() == after.gen_());
        same("last_gc", before.last_gc() == after.last_gc());
        same("prio", before.prio() == after.prio());
        same("mark", before.mark() == after.mark());
        same("moving", before.is_moving() == after.is_moving());
        same("sectors", before.sectors() == after.sectors());
        same("pin", before.pin_count() == after.pin_count());
    }

    #[test]
    fn invalidation_guard_is_exact() {
        for gc_gen in 0..=u8::MAX {
            for mark in 0..4 {
                for pin in [0, 1, 2, PIN_LIMIT, u16::MAX] {
                    let w = Snapshot::default()
                        .with_last_gc(Gen::new(200))
                        .with_gen(Gen::new(200u8.wrapping_add(gc_gen)))
                        .with_mark(Mark::from_bits(mark))
                        .with_sectors(77)
                        .with_pin(pin);
                    let may = pin == 0 && mark < 2 && gc_gen < 96;
                    assert_eq!(w.can_invalidate(), may, "{w:?}");
                    let Some(next) = w.invalidate() else {
                        assert!(!may);
                        continue;
                    };
                    assert_eq!(next.gen_(), w.gen_().next());
                    assert_eq!((next.prio(), next.pin_count()), (Prio::FRESH, 1));
                    unchanged_but(w, next, &["gen", "prio", "pin"]);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn fields_do_not_touch_each_other(
            bits: u64, g: u8, last: u8, prio: u16, mark in 0u8..4, moving: bool,
            sectors in 0u32..20_000, pin: u16,
        ) {
            let w = Snapshot::from_bits(bits);
            unchanged_but(w, w.with_gen(Gen::new(g)), &["gen"]);
            unchanged_but(w, w.with_last_gc(Gen::new(last)), &["last_gc"]);
            unchanged_but(w, w.with_prio(Prio::new(prio)), &["prio"]);
            unchanged_but(w, w.with_mark(Mark::from_bits(mark)), &["mark"]);
            unchanged_but(w, w.with_moving(moving), &["moving"]);
            unchanged_but(w, w.with_sectors(sectors), &["sectors"]);
            unchanged_but(w, w.with_pin(pin), &["pin"]);
            prop_assert_eq!(w.with_gen(Gen::new(g)).gen_().get(), g);
            prop_assert_eq!(w.with_last_gc(Gen::new(last)).last_gc().get(), last);
            prop_assert_eq!(w.with_prio(Prio::new(prio)).prio().get(), prio);
            prop_assert_eq!(w.with_mark(Mark::from_bits(mark)).mark().to_bits(), mark);
            prop_assert_eq!(w.with_moving(moving).is_moving(), moving);
            prop_assert_eq!(u32::from(w.with_sectors(sectors).sectors()), sectors.min(8191));
            prop_assert_eq!(w.with_pin(pin).pin_count(), pin);
        }

        /// From any state, each transition changes only what the table at the top says.
        #[test]
        fn transitions_change_only_their_fields(
            bits: u64, g: u8, n in 0u16..9, sectors in 0u32..20_000, other: u64, mark in 0u8..4,
        ) {
            let w = Snapshot::from_bits(bits);
            let pointer = if n == 0 { w.gen_() } else { Gen::new(g) };
            if let Some(next) = w.pin(pointer) {
                prop_assert!(w.gen_() == pointer && w.pin_count() < PIN_LIMIT);
                prop_assert_eq!(next.pin_count(), w.pin_count() + 1);
                unchanged_but(w, next, &["pin"]);
            }
            match w.unpin(n) {
                Some(next) => unchanged_but(w, next, &["pin"]),
                None => prop_assert!(w.pin_count() < n),
            }
            if let Some(next) = w.allocate(Purpose::Data, sectors) {
                unchanged_but(w, next, &["mark", "prio", "sectors", "moving"]);
                prop_assert!(w.pin_count() == 1 && !next.is_moving());
            }
            if let Some(next) = w.dirty() {
                unchanged_but(w, next, &["mark"]);
                prop_assert!(w.mark().is_reclaimable());
            }
            if let Some(next) = w.touch(pointer) {
                unchanged_but(w, next, &["prio"]);
                prop_assert_eq!(w.gen_(), pointer);
            }
            if let Some(next) = w.rescale() {
                unchanged_but(w, next, &["prio"]);
                prop_assert_eq!(next.prio().get() + 1, w.prio().get());
            }
            unchanged_but(w, w.free(), &["mark", "sectors"]);
            unchanged_but(w, w.give_back(), &["mark", "sectors", "prio"]);
            prop_assert!(w.give_back().mark().is_reclaimable());
            if let Some(next) = w.unused(pointer) {
                unchanged_but(w, next, &["gen", "prio", "pin", "mark"]);
                prop_assert_eq!(next.mark(), Mark::None);
            }
            if let Some(next) = w.bump_gen(pointer) {
                unchanged_but(w, next, &["gen"]);
            }
            let start = Snapshot::from_bits(other);
            let published = w.gc_publish(start, Mark::from_bits(mark), sectors, Gen::new(g));
            prop_assert_eq!(published.last_gc(), Gen::new(g));
            unchanged_but(w, published, &["last_gc", "mark", "sectors"]);
        }
    }

    /// Ageing at the ends of the scale, and while somebody holds the bucket.
    #[test]
    fn what_ages() {
        for (prio, pin, aged) in [
            (65535, 0, None),
            (65534, 0, Some(65533)),
            (32768, 0, Some(32767)),
            (1, 0, Some(0)),
            (0, 0, None),
            (32768, 1, None),
            (32768, u16::MAX, None),
        ] {
            let w = Snapshot::default().with_prio(Prio::new(prio)).with_pin(pin);
            let wanted = aged.map(|prio| w.with_prio(Prio::new(prio)));
            assert_eq!(w.rescale(), wanted, "{w:?}");
        }
    }

    /// More pins than are held cannot be returned, and what is left does not change.
    #[test]
    fn pins_are_never_borrowed() {
        let w = Snapshot::from_bits(u64::MAX).with_pin(3);
        assert_eq!(w.unpin(3), Some(w.with_pin(0)));
        assert_eq!((w.unpin(4), w.unpin(u16::MAX)), (None, None));
    }

    /// The short ways of a gen: both end where it would run too far ahead.
    #[test]
    fn gens_advance_without_a_prio_write_only_so_far() {
        for lag in 0..=u8::MAX {
            let w = Snapshot::default().with_gen(Gen::new(lag));
            let next = w.with_gen(Gen::new(lag).next());
            let wanted = (lag < GC_GEN_LIMIT).then_some(next);
            assert_eq!(w.bump_gen(w.gen_()), wanted, "behind the last collection by {lag}");
            let collected = w.with_last_gc(w.gen_());
            let wanted = wanted.map(|next| next.with_last_gc(w.gen_()));
            assert_eq!(collected.bump_gen(Gen::new(0)), wanted, "{lag} ahead of the durable gen");
            assert_eq!(collected.unused(Gen::new(0)).is_some(), lag == 0, "once, not at {lag}");
        }
    }

    /// Taking for data, giving back and taking again leaves the word alone from the second time.
    #[test]
    fn a_data_bucket_given_back_is_as_the_next_allocation_wants_it() {
        let invalidated = Snapshot::default().with_sectors(5).invalidate().unwrap();
        let taken = invalidated.allocate(Purpose::Data, 128).unwrap();
        assert_ne!(taken, invalidated);
        assert_eq!(taken.give_back().allocate(Purpose::Data, 128), Some(taken));
        for held in [taken.dirty().unwrap(), taken.allocate(Purpose::Metadata, 128).unwrap()] {
            let back = held.give_back();
            assert_eq!((back.mark(), back.sectors(), back.prio()), (Mark::None, 0, Prio::FRESH));
        }
    }

    /// The diagram at the top of this file, field by field.
    #[test]
    fn bits_lie_where_the_diagram_says() {
        let none = Snapshot::default();
        for (word, bits, text) in [
            (none.with_gen(Gen::new(255)), 0xff, "gen: 255"),
            (none.with_last_gc(Gen::new(255)), 0xff << 8, "last_gc: 255"),
            (none.with_prio(Prio::METADATA), 0xffff << 16, "prio: 65535"),
            (none.with_mark(Mark::Metadata), 3 << 32, "mark: Metadata"),
            (none.with_moving(true), 1 << 34, "moving: true"),
            (none.with_sectors(u32::MAX), 0x1fff << 35, "sectors: 8191"),
            (none.with_pin(u16::MAX), 0xffff << 48, "pin: 65535"),
        ] {
            assert_eq!(word.bits(), bits, "{word:?}");
            assert_eq!(Snapshot::from_bits(bits), word);
            assert!(format!("{word:?}").contains(text), "{word:?}");
        }
    }

    #[test]
    fn gc_never_marks_what_was_pinned_or_reused() {
        let live = Snapshot::default().with_mark(Mark::Dirty).with_sectors(9);
        let quiet = live.gc_publish(live, Mark::None, 0, Gen::new(0));
        assert_eq!((quiet.mark(), quiet.sectors()), (Mark::None, 0));
        let pinned_at_start = live.with_pin(1);
        assert_eq!(live.gc_publish(pinned_at_start, Mark::None, 0, Gen::new(0)), live);
        let reused = live.with_gen(Gen::new(1));
        assert_eq!(reused.gc_publish(live, Mark::None, 0, Gen::new(0)), reused);
    }
}
