//! How long to measure, how often, and what.

use std::time::Duration;

/// Bars that belong together, as the command line names them.
///
/// ```
/// use clap::ValueEnum;
/// use tierce_bench::bars::Section;
/// assert_eq!(Section::from_str("tail", false), Ok(Section::Tail));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
#[non_exhaustive]
pub enum Section {
    /// P1, P2: allocating and giving back.
    Alloc,
    /// P3: how long it takes at worst while passes run.
    Tail,
    /// P4, P16: allocating what is reclaimed meanwhile, and waiting for it.
    Steady,
    /// P5, P6: what a pass costs.
    Passes,
    /// P7: sectors of open buckets.
    Sectors,
    /// P8: read hits.
    Hit,
    /// P9, P15: prio writes.
    Prio,
    /// P10: opening a device.
    Open,
    /// P11, P17: memory, and what of a device holds user data.
    Memory,
    /// P12, P13: the cache, beside the disk and another cache; and its entries.
    Cache,
    /// P14: what it costs to do nothing.
    Idle,
}

/// How long and how often to measure, and what.
///
/// ```
/// use tierce_bench::bars::Plan;
/// assert!(Plan::full().rounds >= 5 && Plan::quick().rounds >= 5);
/// ```
#[derive(Clone, PartialEq, Debug, serde::Serialize)]
#[expect(clippy::exhaustive_structs, reason = "built with struct update syntax")]
pub struct Plan {
    /// Rounds that count.
    pub rounds: usize,
    /// How long one sample takes, about.
    pub sample: Duration,
    /// Whether large devices and many threads are left out.
    pub quick: bool,
    /// Numbers of threads instead of each bar's own; its own if there are none.
    pub threads: Vec<usize>,
    /// Numbers of buckets instead of each bar's own, likewise.
    pub buckets: Vec<u32>,
    /// The sections to measure. All, if neither a section nor a bar is named.
    #[serde(skip)]
    pub sections: Vec<Section>,
    /// Bars to measure besides, as "P4".
    pub only: Vec<String>,
}

impl Plan {
    /// Everything.
    #[must_use]
    pub const fn full() -> Self {
        Self::of(7, 400, false)
    }

    /// About three minutes on two cores.
    #[must_use]
    pub const fn quick() -> Self {
        Self::of(5, 40, true)
    }

    /// Proves that everything runs; its figures say nothing.
    #[must_use]
    pub const fn smoke() -> Self {
        Self::of(1, 2, true)
    }

    const fn of(rounds: usize, sample_ms: u64, quick: bool) -> Self {
        Self {
            rounds,
            sample: Duration::from_millis(sample_ms),
            quick,
            threads: Vec::new(),
            buckets: Vec::new(),
            sections: Vec::new(),
            only: Vec::new(),
        }
    }

    /// What stands beside figures, so that others can measure the same.
    #[must_use]
    pub fn describe(&self) -> String {
        let quick = if self.quick { ", quick" } else { "" };
        let millis = self.sample.as_millis();
        format!("{} rounds after one of warm-up, samples of {millis} ms{quick}", self.rounds)
    }

    pub(super) fn covers(&self, bar: &str, section: Section) -> bool {
        let everything = self.only.is_empty() && self.sections.is_empty();
        let is_named = self.only.iter().any(|only| only.eq_ignore_ascii_case(bar));
        everything || is_named || self.sections.contains(&section)
    }
}
