//! The four free lists of a device, so that no user of space can starve another.
//!
//! | reserve | for whom |
//! |---|---|
//! | [`Btree`](Reserve::Btree) | index nodes |
//! | [`Prio`](Reserve::Prio) | the prio write itself |
//! | [`MovingGc`](Reserve::MovingGc) | moving live data out of nearly empty buckets |
//! | [`None`](Reserve::None) | everything else |
//!
//! A bucket that became ready fills `prio` first, then btree, prio, moving_gc, none
//! ([`REFILL_ORDER`]). Whoever allocates takes from `none` first, then from his own reserve. If
//! all lists are full, a ready bucket is kept and offered again when one drains. If both lists of
//! a caller are empty, he fails at once or waits, as he asks; who waits is woken when there is a
//! bucket for him, at his deadline, or, with an error, when the device fails or the set is closed.
//!
//! A free bucket has pin 1. One that has more when its turn comes was pinned through a forged or
//! corrupt pointer; it is *set aside* until that pin is gone.
//!
//! # Sizes
//!
//! With `free` = next power of two of nbuckets, / 1024:
//!
//! | | [`Sizes::bcache`] | [`Sizes::tierce`] |
//! |---|---|---|
//! | btree | journal buckets, or 8 | the same |
//! | prio | [`prio_buckets`](Geometry::prio_buckets) | the same |
//! | moving_gc | free | max(free, 8) |
//! | none | free | max(free, 64), at most nbuckets / 32 |
//! | free_inc | 4 · free | max(4 · free, 64, 125 · bytes of a prio write / bytes of a bucket), at most nbuckets / 16 |
//! | candidates of an lru pass | 8 · free | max(8 · free, 2 · free_inc) |
//! | a size s above 4, prio and candidates excepted | next power of two of s, − 1 | s |

use crate::error::Error;
use crate::geometry::Geometry;
use core::fmt;

/// A free list, named for whom it is kept.
///
/// ```
/// use tierce_core::Reserve;
/// assert_eq!(Reserve::MovingGc.to_string(), "moving_gc");
/// assert_eq!(Reserve::ALL[Reserve::Prio.as_usize()], Reserve::Prio);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Reserve {
    /// Index nodes.
    Btree = 0,
    /// The prio write.
    Prio = 1,
    /// Moving garbage collection.
    MovingGc = 2,
    /// Everything else.
    None = 3,
}

impl Reserve {
    /// How many there are.
    pub const COUNT: usize = 4;
    /// All, in the order in which they are listed everywhere.
    pub const ALL: [Self; Self::COUNT] = [Self::Btree, Self::Prio, Self::MovingGc, Self::None];

    /// Its place in [`ALL`](Self::ALL).
    #[must_use]
    pub const fn as_usize(self) -> usize {
        self as usize
    }

    /// What a bucket taken for this reserve's users becomes.
    #[must_use]
    pub const fn purpose(self) -> crate::word::Purpose {
        match self {
            Self::Btree | Self::Prio => crate::word::Purpose::Metadata,
            Self::MovingGc | Self::None => crate::word::Purpose::Data,
        }
    }
}

impl fmt::Display for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Btree => "btree",
            Self::Prio => "prio",
            Self::MovingGc => "moving_gc",
            Self::None => "none",
        })
    }
}

/// The order in which a bucket that became ready is offered to the reserves. The prio write
/// comes first, or nothing else could ever become ready.
pub const REFILL_ORDER: [Reserve; 4] =
    [Reserve::Prio, Reserve::Btree, Reserve::MovingGc, Reserve::None];

/// A batch holds at least so many times the bytes of its prio write: 0.8 % of own writes.
const PRIO_WRITE_SHARE: u64 = 125;

/// How many buckets the free lists of one device, `free_inc` and the candidate heap hold.
///
/// ```
/// use tierce_core::{Geometry, Sizes};
/// let g = Geometry::new(65536, 1, 1024, 8)?;
/// let s = Sizes::tierce(&g, 256);
/// assert_eq!((s.none, s.moving_gc, s.free_inc, s.prio), (64, 64, 256, 1));
/// s.validate(&g)?;
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Sizes {
    /// The reserve of index nodes.
    pub btree: u32,
    /// The reserve of the prio write: at least `prio_buckets`.
    pub prio: u32,
    /// The reserve of moving GC.
    pub moving_gc: u32,
    /// What everybody takes from.
    pub none: u32,
    /// How many invalidated buckets one prio write makes reusable.
    pub free_inc: u32,
    /// How many candidates an LRU pass selects.
    pub candidates: u32,
}

impl Sizes {
    /// The original's sizes, with `free = next_power_of_two(nbuckets) / 1024`: btree as many as
    /// there are journal buckets (8 if none), moving_gc and none `free`, free_inc 4·free,
    /// candidates 8·free; a size above 4 becomes next_power_of_two − 1, except prio
    /// (`prio_buckets` exactly) and candidates.
    #[must_use]
    pub fn bcache(geometry: &Geometry, journal_buckets: u32) -> Self {
        let free = geometry.nbuckets().next_power_of_two() / 1024;
        Self {
            btree: Self::fifo_size(if journal_buckets == 0 { 8 } else { journal_buckets }),
            prio: geometry.prio_buckets(),
            moving_gc: Self::fifo_size(free),
            none: Self::fifo_size(free),
            free_inc: Self::fifo_size(4 * free),
            candidates: 8 * free,
        }
    }

    /// What a requested size becomes in the original's ring buffers.
    fn fifo_size(requested: u32) -> u32 {
        if requested > 4 { requested.next_power_of_two() - 1 } else { requested }
    }

    /// The default. As [`bcache`](Self::bcache) without the rounding, but small devices get
    /// more, or they would flush for every few buckets: none at least 64 (at most
    /// nbuckets / 32), moving_gc at least 8, free_inc at least 64 and so many that the prio write
    /// of a batch is no more than 1/125 of what the batch holds (at most nbuckets / 16).
    #[must_use]
    pub fn tierce(geometry: &Geometry, journal_buckets: u32) -> Self {
        let nbuckets = geometry.nbuckets();
        let free = nbuckets.next_power_of_two() / 1024;
        let prio_write = u64::from(geometry.prio_buckets()) * u64::from(geometry.meta_bytes());
        let worth_it = prio_write * PRIO_WRITE_SHARE / u64::from(geometry.bucket_bytes());
        let worth_it = u32::try_from(worth_it).unwrap_or(u32::MAX);
        let free_inc = (4 * free).max(64).max(worth_it).min(nbuckets / 16).max(1);
        Self {
            btree: if journal_buckets == 0 { 8 } else { journal_buckets },
            prio: geometry.prio_buckets(),
            moving_gc: free.max(8),
            none: free.max(64).min(nbuckets / 32).max(1),
            free_inc,
            candidates: (8 * free).max(2 * free_inc),
        }
    }

    /// The size of one reserve.
    #[must_use]
    pub const fn of(&self, reserve: Reserve) -> u32 {
        match reserve {
            Reserve::Btree => self.btree,
            Reserve::Prio => self.prio,
            Reserve::MovingGc => self.moving_gc,
            Reserve::None => self.none,
        }
    }

    /// How many of `none`'s places each of `cpus` CPUs keeps in cells of its own:
    /// min(16, none / (2·cpus)), possibly 0. They count against `none`.
    #[must_use]
    pub fn cells_per_cpu(&self, cpus: u32) -> u32 {
        (self.none / (2 * cpus.max(1))).min(16)
    }

    /// Checks the sizes against each other and against the device.
    ///
    /// # Errors
    ///
    /// As [`validate_each`](Self::validate_each) for a device that keeps its contents, and
    /// [`Error::Limit`] if the lists together hold more than the device has: then a pass could
    /// not fill `free_inc` while they are full.
    pub fn validate(&self, geometry: &Geometry) -> Result<(), Error> {
        self.validate_each(geometry, true)?;
        let usable = geometry.buckets().len() as u64;
        let sum = [self.btree, self.prio, self.moving_gc, self.none, self.free_inc]
            .iter()
            .map(|&size| u64::from(size))
            .sum::<u64>();
        if sum > usable {
            let wanted = format!("at most the {usable} buckets of the device");
            return Err(Error::limit("the sum of sizes", sum, wanted));
        }
        Ok(())
    }

    /// Checks what no device works without. `sync` says whether it keeps its contents, so that
    /// gens have to be made durable by prio writes.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if `prio` is less than a prio write needs, `none`, `free_inc` or
    /// `candidates` is 0, or any size is more than the device has buckets (candidates: eight
    /// times that). With `sync` also if `free_inc` is not more than a prio write needs: it would
    /// use up all that it releases.
    pub fn validate_each(&self, geometry: &Geometry, sync: bool) -> Result<(), Error> {
        let (nbuckets, prio_buckets) = (geometry.nbuckets(), geometry.prio_buckets());
        let least_inc = if sync { prio_buckets + 1 } else { 1 };
        for (what, size, least, most) in [
            ("sizes.btree", self.btree, 0, nbuckets),
            ("sizes.prio", self.prio, prio_buckets, nbuckets),
            ("sizes.moving_gc", self.moving_gc, 0, nbuckets),
            ("sizes.none", self.none, 1, nbuckets),
            ("sizes.free_inc", self.free_inc, least_inc, nbuckets),
            ("sizes.candidates", self.candidates, 1, nbuckets.saturating_mul(8)),
        ] {
            if !(least..=most).contains(&size) {
                return Err(Error::limit(what, size, format!("{least} to {most}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::MIN_DEVICE_BUCKETS;

    #[test]
    fn sizes_of_the_original() {
        let g = Geometry::new(1024, 1, 128, 1).unwrap();
        let s = Sizes::bcache(&g, 8);
        assert_eq!((s.btree, s.prio, s.moving_gc, s.none), (7, 1, 1, 1));
        assert_eq!((s.free_inc, s.candidates), (4, 8));
        let g = Geometry::new(16384, 2, 16, 8).unwrap();
        let s = Sizes::bcache(&g, 128);
        assert_eq!((s.btree, s.prio, s.moving_gc, s.none), (127, 7, 15, 15));
        assert_eq!((s.free_inc, s.candidates), (63, 128));
    }

    /// A journal that is not on the device leaves the index its 8.
    #[test]
    fn index_nodes_have_a_reserve_without_a_journal() {
        let g = Geometry::new(1024, 1, 128, 1).unwrap();
        assert_eq!((Sizes::bcache(&g, 0).btree, Sizes::tierce(&g, 0).btree), (7, 8));
        assert_eq!((Sizes::bcache(&g, 4).btree, Sizes::tierce(&g, 4).btree), (4, 4));
        assert_eq!((Sizes::bcache(&g, 100).btree, Sizes::tierce(&g, 100).btree), (127, 100));
    }

    #[test]
    fn lists_go_by_their_names() {
        let names = ["btree", "prio", "moving_gc", "none"];
        assert_eq!(Reserve::ALL.map(|reserve| reserve.to_string()), names);
    }

    #[test]
    fn cells_count_against_none() {
        let g = Geometry::new(1 << 20, 1, 128, 1).unwrap();
        for (none, cpus, cells) in
            [(1024, 1, 16), (1024, 32, 16), (1024, 64, 8), (64, 3, 10), (64, 64, 0), (7, 0, 3)]
        {
            let s = Sizes { none, ..Sizes::tierce(&g, 8) };
            assert_eq!(s.cells_per_cpu(cpus), cells, "{none} for {cpus} CPUs");
            assert!(s.cells_per_cpu(cpus) * cpus <= none / 2);
        }
    }

    #[test]
    fn sizes_that_cannot_work() {
        let g = Geometry::new(1024, 1, 8, 1).unwrap();
        let good = Sizes::tierce(&g, 8);
        let reserved = good.btree + good.prio + good.moving_gc + good.none;
        good.validate(&g).unwrap();
        Sizes { free_inc: 1023 - reserved, ..good }.validate(&g).unwrap();
        for (sizes, wanted) in [
            (Sizes { prio: 0, ..good }, "sizes.prio is 0, wanted 1 to 1024"),
            (Sizes { none: 0, ..good }, "sizes.none is 0, wanted 1 to 1024"),
            (Sizes { free_inc: 0, ..good }, "sizes.free_inc is 0, wanted 2 to 1024"),
            (Sizes { candidates: 0, ..good }, "sizes.candidates is 0, wanted 1 to 8192"),
            (
                Sizes { free_inc: 1024 - reserved, ..good },
                "the sum of sizes is 1024, wanted at most the 1023 buckets of the device",
            ),
            (
                Sizes { free_inc: u32::MAX, none: u32::MAX, ..good },
                "sizes.none is 4294967295, wanted 1 to 1024",
            ),
        ] {
            assert_eq!(sizes.validate(&g).unwrap_err().to_string(), wanted);
        }
    }

    /// Whatever a device's size, its default sizes fit it.
    #[test]
    fn default_sizes_fit_every_device() {
        for nbuckets in (MIN_DEVICE_BUCKETS..5000).chain([1 << 16, 1 << 20, 1 << 25]) {
            for bucket_sectors in [8, 16, 128, 1024, 4096] {
                let g = Geometry::new(nbuckets, 3, bucket_sectors, 8).unwrap();
                let journal = (nbuckets >> 7).clamp(2, 256);
                let s = Sizes::tierce(&g, journal);
                s.validate(&g).unwrap();
                assert!(s.candidates > s.free_inc, "{s:?}");
            }
        }
    }

    /// A prio write must release more than it uses up, or the lists could never fill.
    #[test]
    fn a_batch_is_more_than_a_prio_write_needs() {
        let g = Geometry::new(4096, 1, 8, 8).unwrap();
        let mut s = Sizes::bcache(&g, 8);
        assert_eq!(g.prio_buckets(), 4);
        for (free_inc, sync, fits) in [(4, true, false), (5, true, true), (4, false, true)] {
            s.free_inc = free_inc;
            assert_eq!(s.validate_each(&g, sync).is_ok(), fits, "{free_inc}, sync {sync}");
        }
        s.free_inc = 4;
        let e = s.validate(&g).unwrap_err().to_string();
        assert!(e.starts_with("sizes.free_inc is 4, wanted 5 to 4096"), "{e}");
    }
}
