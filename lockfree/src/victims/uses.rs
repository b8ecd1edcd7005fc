//! How likely buckets are to be used again, by the time since their last use.
//!
//! # Problem
//!
//! The least recently used bucket is the best to reuse if what was used lately is used again. Of a
//! loop that is longer than the cache the opposite holds: what was used last comes last. Which of
//! the two it is, and from what age on, is seen by looking when buckets are used.
//!
//! # What is counted
//!
//! Every eighth bucket, of a large device fewer, is *observed*: it is reused at random, whatever
//! its age, so that those of all ages are among them, however the others are chosen. A *life* of a
//! bucket begins with a use and ends with the next one or with its reuse. Of those observed it is
//! counted at which age lives ended, and how: 64 ages, each a sixteenth of the I/O that fills the
//! cache. What gives way to something newer was wanted, too: it counts as a use at that age, but
//! does not make the bucket any younger, since nobody will look for it there.
//!
//! # What follows
//!
//! The *density* of an age is the number of uses that are to be expected of a bucket that has come
//! to it, by the time for which it takes up its space: of all lives that lasted at least as long
//! the number that ended with a use, by the time from that age on that they lasted (the hit density
//! of Beckmann, Chen and Cidon, "LHD", 2018, for buckets). Whoever has the smallest, for as much
//! live data, goes first. It is computed anew whenever half of the buckets were reused; what was
//! counted before then counts three quarters each time.
//!
//! # Memory ordering
//!
//! Relaxed: counters by which nothing else is told. A count that is missed goes into the next sum.

use crate::sync::{AtomicU32, Ordering};
use tierce_core::{BucketIndex, Prio, Snapshot, broken};

/// Ages that are told apart; the last one is everything older.
const AGES: usize = 64;

/// Rescales ([`crate::ageing`]) of one age: there are 1024 to the I/O that fills the cache.
const AGE_RESCALES: usize = 64;

/// One of so many buckets is observed at least, …
const OBSERVED_SHARE: u32 = 8;
/// … but no more than this of a large device.
const OBSERVED_MOST: u32 = 1024;

/// What the largest density is scaled to.
const SCALE: f64 = 65535.0;

/// Which age it is of a bucket whose prio is known.
fn age(word: Snapshot) -> usize {
    let rescales = Prio::FRESH.get().saturating_sub(word.prio().get());
    (usize::from(rescales) / AGE_RESCALES).min(AGES - 1)
}

/// The uses of observed buckets, counted by whoever makes them.
#[derive(Debug)]
pub(crate) struct Uses {
    /// Buckets whose number has none of these bits are observed.
    mask: u32,
    /// By age, since they were taken away. Written on uses of observed buckets.
    counts: Box<[AtomicU32]>,
}

impl Uses {
    /// Nothing is observed.
    pub(crate) fn none() -> Self {
        Self { mask: u32::MAX, counts: Box::default() }
    }

    /// For a device of so many buckets.
    pub(crate) fn of(nbuckets: u32) -> Self {
        let share = (nbuckets / OBSERVED_MOST).max(OBSERVED_SHARE).next_power_of_two();
        Self { mask: share - 1, counts: (0..AGES).map(|_| AtomicU32::new(0)).collect() }
    }

    #[inline]
    pub(crate) fn observes(&self, bucket: BucketIndex) -> bool {
        bucket.get() & self.mask == 0
    }

    /// An observed bucket was used. `before` is its word with its prio until then.
    #[cold]
    pub(crate) fn count(&self, before: Snapshot) {
        if let Some(count) = self.counts.get(age(before)) {
            // Relaxed: a statistic.
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn take(&self, age: usize) -> f64 {
        // Relaxed: a statistic.
        self.counts.get(age).map_or(0.0, |count| count.swap(0, Ordering::Relaxed).into())
    }
}

/// What a device's reclaimer makes of them.
#[derive(Debug)]
pub(crate) struct Density {
    /// Lives of observed buckets that ended with a use, by age.
    used: [f64; AGES],
    /// And that ended with the bucket's reuse.
    reused: [f64; AGES],
    /// By age, scaled.
    density: [u32; AGES],
    /// How many were reused since it was computed, observed or not.
    since: u32,
}

impl Default for Density {
    /// As LRU would have it, until something is known.
    fn default() -> Self {
        let density = core::array::from_fn(|age| (AGES - age) as u32);
        Self { used: [0.0; AGES], reused: [0.0; AGES], density, since: 0 }
    }
}

impl Density {
    /// Whoever has the smallest goes first: the density, for as much of the bucket as is live.
    pub(crate) fn key(&self, word: Snapshot) -> u32 {
        self.density[age(word)] * u32::from(word.sectors())
    }

    /// A bucket was reused, whose word with its prio was this until then.
    pub(crate) fn reused(&mut self, before: Snapshot, is_observed: bool) {
        self.since += 1;
        if is_observed {
            self.reused[age(before)] += 1.0;
        }
    }

    /// Computes it, if it is time, of a device of so many buckets.
    pub(crate) fn learn(&mut self, uses: &Uses, nbuckets: u32) {
        if self.since < nbuckets / 2 {
            return;
        }
        self.since = 0;
        for (age, used) in self.used.iter_mut().enumerate() {
            *used += uses.take(age);
        }
        let (mut used, mut lives, mut time) = (0.0, 0.0, 0.0);
        let mut density = [None; AGES];
        for age in (0..AGES).rev() {
            used += self.used[age];
            lives += self.used[age] + self.reused[age];
            // All of these last for the time of this age.
            time += lives;
            density[age] = (time > 0.0).then(|| used / time);
        }
        let largest = density.iter().flatten().fold(0.0, |a: f64, &b| a.max(b));
        if largest > 0.0 && !broken!("density_not_learned") {
            let scaled = |density: Option<f64>| density.map(|d| (d / largest * SCALE) as u32);
            let mut before = SCALE as u32;
            self.density = density.map(|density| {
                // Ages that nobody came to are as the last one that somebody did.
                before = scaled(density).unwrap_or(before);
                before
            });
        }
        self.used.iter_mut().chain(&mut self.reused).for_each(|count| *count *= 0.75);
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;
    use crate::ageing::AgeClock;
    use crate::sync::Arc;
    use crate::table::Table;
    use tierce_core::{Gen, Mark};

    fn word(age: usize) -> Snapshot {
        let prio = Prio::new(Prio::FRESH.get() - (age * AGE_RESCALES) as u16);
        Snapshot::default().with_prio(prio).with_sectors(100)
    }

    /// What `uses` says of 100 lives of each of 16 ages: how many of them end with a use.
    fn learned(uses: impl Fn(usize) -> usize) -> Density {
        let (observed, mut density) = (Uses::of(64), Density::default());
        for age in 0..16 {
            (0..uses(age)).for_each(|_| observed.count(word(age)));
            (uses(age)..100).for_each(|_| density.reused(word(age), true));
        }
        density.learn(&observed, 64);
        density
    }

    fn is_ascending(keys: impl Iterator<Item = u32>) -> bool {
        keys.is_sorted_by(|a, b| a < b)
    }

    #[test]
    fn until_something_is_known_the_oldest_go_first() {
        let density = Density::default();
        assert!(is_ascending((0..AGES).rev().map(|age| density.key(word(age)))));
    }

    #[test]
    fn what_is_used_soon_or_never_goes_by_age() {
        let density = learned(|age| if age < 4 { 80 - 20 * age } else { 0 });
        assert!(is_ascending((0..4).rev().map(|age| density.key(word(age)))));
        assert_eq!(density.key(word(4)), 0, "no use is to be expected");
    }

    /// A loop: nobody is used again before he is 12 ages old.
    #[test]
    fn of_a_loop_the_youngest_go_first() {
        let density = learned(|age| if age < 12 { 0 } else { 100 });
        assert!(is_ascending((0..12).map(|age| density.key(word(age)))));
    }

    #[test]
    fn of_the_same_age_the_emptier_goes_first() {
        let density = learned(|_| 50);
        assert!(density.key(word(3).with_sectors(99)) < density.key(word(3)));
    }

    /// Uses are counted at the age that the bucket had, of observed buckets and once per rescale.
    #[test]
    fn a_use_is_counted_at_the_age_that_it_ends() {
        let clock = Arc::new(AgeClock::default());
        let words = (0..16).map(|_| word(0).with_mark(Mark::Reclaimable));
        let table = Table::new(words, Arc::clone(&clock)).counting(Uses::of(16));
        let touch = |bucket| table.touch(BucketIndex::new(bucket), Gen::new(0));
        let counted = || (0..AGES).map(|age| table.uses().take(age)).collect::<Vec<_>>();
        touch(8);
        assert_eq!(counted(), [0.0; AGES], "it was fresh");
        for age in [0, 3, AGES - 1, AGES + 5] {
            clock.advance((age * AGE_RESCALES + 1) as u16);
            (0..16).for_each(touch);
            (0..16).for_each(touch);
            let mut wanted = [0.0; AGES];
            wanted[age.min(AGES - 1)] = 2.0;
            assert_eq!(counted(), wanted, "0 and 8 are observed");
        }
        clock.advance(3 * AGE_RESCALES as u16);
        (0..16).for_each(|bucket| table.replaced(BucketIndex::new(bucket), Gen::new(0)));
        assert_eq!(counted()[3], 2.0, "to be replaced is a use");
        (0..16).for_each(touch);
        assert_eq!(counted()[3], 2.0, "which leaves the age as it was");
    }

    #[test]
    fn an_eighth_is_observed_of_a_small_device_and_1024_of_a_large_one() {
        for (nbuckets, wanted) in [(512, 64), (1024, 128), (1 << 20, 1024)] {
            let uses = Uses::of(nbuckets);
            let observed = (0..nbuckets).filter(|&n| uses.observes(BucketIndex::new(n)));
            assert_eq!(observed.count(), wanted, "of {nbuckets}");
        }
    }
}
