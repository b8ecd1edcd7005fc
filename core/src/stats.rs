//! The view of a device's buckets that bcache calls `priority_stats`.
//!
//! Over the buckets from first_bucket on: how many percent of all buckets are unused (nothing
//! live), clean, dirty and metadata; and how old the rest is. A bucket's age is 32768 − prio.
//! Of the prios, in descending order, trailing zeros (never used) and leading 65535 (metadata)
//! are dropped; n remain. The average is that of their ages, quantile i (0 to 30) is the age at
//! place n·(i + 1)/32, and a quantile stands for n·bucket_sectors/32 sectors. All divisions
//! round down; the percentages overlap, for a bucket with a mark can be unused. Where n is 0,
//! average and quantiles are 0.
//!
//! The text, tabs between name and value:
//!
//! ```text
//! Unused:         12%
//! Clean:          80%
//! Dirty:          3%
//! Metadata:       4%
//! Average:        211
//! Sectors per Q:  2048
//! Quantiles:      [0 1 1 … 400]
//! ```
//!
//! (Two tabs behind the first three names, one behind the others.)

use crate::bucket::{Mark, Prio};
use crate::geometry::Geometry;
use crate::word::Snapshot;
use core::fmt;

/// How many quantiles there are.
pub const QUANTILES: usize = 31;

/// The figures; [`Display`](fmt::Display) gives the text that Linux prints.
///
/// ```
/// use tierce_core::{Geometry, Mark, Prio, Snapshot, stats::PriorityStats};
/// let geometry = Geometry::new(100, 1, 128, 1)?;
/// let used = Snapshot::default().with_mark(Mark::Reclaimable).with_sectors(9);
/// let words = [Snapshot::default(), used.with_prio(Prio::new(32668))];
/// let stats = PriorityStats::new(&geometry, words);
/// assert_eq!((stats.unused, stats.clean, stats.average), (1, 1, 100));
/// assert!(stats.to_string().starts_with("Unused:\t\t1%\nClean:\t\t1%\nDirty:\t\t0%\n"));
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct PriorityStats {
    /// Percent of buckets without live sectors.
    pub unused: u32,
    /// Percent of buckets marked reclaimable.
    pub clean: u32,
    /// Percent of buckets marked dirty.
    pub dirty: u32,
    /// Percent of buckets marked metadata.
    pub metadata: u32,
    /// The average age.
    pub average: i64,
    /// Sectors that one quantile stands for.
    pub sectors_per_quantile: u64,
    /// The ages at 1/32, 2/32, … 31/32 of the buckets, youngest first.
    pub quantiles: [i32; QUANTILES],
}

impl PriorityStats {
    /// The figures of a device of this shape, whose buckets from first_bucket on have `words`.
    pub fn new(geometry: &Geometry, words: impl IntoIterator<Item = Snapshot>) -> Self {
        let mut unused = 0u64;
        let mut by_mark = [0u64; 4];
        let mut by_prio = vec![0u32; 1 << 16];
        for word in words {
            unused += u64::from(word.sectors() == 0);
            by_mark[usize::from(word.mark().to_bits())] += 1;
            by_prio[usize::from(word.prio().get())] += 1;
        }
        let percent = |count: u64| (count * 100 / u64::from(geometry.nbuckets())) as u32;
        let marked = |mark: Mark| percent(by_mark[usize::from(mark.to_bits())]);
        by_prio[usize::from(Prio::OLDEST.get())] = 0;
        by_prio[usize::from(Prio::METADATA.get())] = 0;
        let count: u64 = by_prio.iter().map(|&n| u64::from(n)).sum();
        let age = |prio: usize| i64::from(Prio::FRESH.get()) - prio as i64;
        let total: i64 = by_prio.iter().zip(0..).map(|(&n, prio)| i64::from(n) * age(prio)).sum();
        Self {
            unused: percent(unused),
            clean: marked(Mark::Reclaimable),
            dirty: marked(Mark::Dirty),
            metadata: marked(Mark::Metadata),
            average: total.checked_div(count as i64).unwrap_or(0),
            sectors_per_quantile: count * u64::from(geometry.bucket_sectors()) / 32,
            quantiles: quantiles(&by_prio, count),
        }
    }
}

/// The ages at n·(i + 1)/32 of the `count` prios, of which `by_prio` has the numbers.
fn quantiles(by_prio: &[u32], count: u64) -> [i32; QUANTILES] {
    let mut ages = [0; QUANTILES];
    let mut wanted = ages.iter_mut().zip(1u64..).peekable();
    let mut passed = 0;
    for (prio, &number) in by_prio.iter().enumerate().rev() {
        passed += u64::from(number);
        while let Some((age, _)) = wanted.next_if(|(_, i)| count * i / 32 < passed) {
            *age = i32::from(Prio::FRESH.get()) - prio as i32;
        }
    }
    ages
}

impl fmt::Display for PriorityStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unused, clean, dirty, metadata, .. } = self;
        writeln!(f, "Unused:\t\t{unused}%\nClean:\t\t{clean}%\nDirty:\t\t{dirty}%")?;
        writeln!(f, "Metadata:\t{metadata}%\nAverage:\t{}", self.average)?;
        write!(f, "Sectors per Q:\t{}\nQuantiles:\t[", self.sectors_per_quantile)?;
        for (i, age) in self.quantiles.iter().enumerate() {
            let space = if i == 0 { "" } else { " " };
            write!(f, "{space}{age}")?;
        }
        writeln!(f, "]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The counting against sorting, as the definition says it.
        #[test]
        fn equals_the_definition(prios: Vec<u16>, few in prop::collection::vec(0u16..4, 0..50)) {
            let mut prios = prios;
            prios.extend(few.iter().map(|p| p.wrapping_sub(1)));
            let geometry = Geometry::new(4096, 1, 128, 1).unwrap();
            let words = prios.iter().map(|&p| Snapshot::default().with_prio(Prio::new(p)));
            let stats = PriorityStats::new(&geometry, words);

            prios.sort_unstable_by(|a, b| b.cmp(a));
            prios.retain(|&p| p != 0 && p != 65535);
            let n = prios.len();
            let age = |p: u16| 32768 - i64::from(p);
            let sum: i64 = prios.iter().map(|&p| age(p)).sum();
            prop_assert_eq!(stats.average, if n == 0 { 0 } else { sum / n as i64 });
            prop_assert_eq!(stats.sectors_per_quantile, n as u64 * 128 / 32);
            for (i, &found) in stats.quantiles.iter().enumerate() {
                let wanted = if n == 0 { 0 } else { age(prios[n * (i + 1) / 32]) };
                prop_assert_eq!(i64::from(found), wanted);
            }
        }
    }

    #[test]
    fn no_buckets_no_ages() {
        let geometry = Geometry::new(4096, 1, 128, 1).unwrap();
        let text = PriorityStats::new(&geometry, []).to_string();
        let zeros = ["0"; QUANTILES].join(" ");
        let wanted = format!(
            "Unused:\t\t0%\nClean:\t\t0%\nDirty:\t\t0%\nMetadata:\t0%\nAverage:\t0\n\
             Sectors per Q:\t0\nQuantiles:\t[{zeros}]\n"
        );
        assert_eq!(text, wanted);
    }
}
