//! Counting what the random sequences met: a comparison of nothing must not pass.

use crate::operation::{Config, Op};
use std::collections::BTreeMap;
use tierce_core::Policy;

/// From so many sequences on a kind of operation that was not met is a mistake.
const ENOUGH: u64 = 200;

/// What was met, by what it is called.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) sequences: u64,
    /// Operations that did something, by kind: with findings in shadows, with marks in place.
    pub(crate) operations: [[u64; 2]; Op::KINDS.len()],
    /// Sequences by what they were set to.
    settings: BTreeMap<String, u64>,
}

impl Default for Counts {
    fn default() -> Self {
        let named = |what: &'static str, range: core::ops::RangeInclusive<u32>| {
            range.map(move |n| (format!("{what} {n}"), 0))
        };
        let policies = [Policy::Lru, Policy::Fifo, Policy::Random];
        let policies = policies.map(|policy| (format!("policy {policy:?}"), 0));
        let modes = ["shadows", "marks in place"].map(|mode| (mode.to_owned(), 0));
        let settings = named("devices", 1..=3).chain(named("free_inc", 2..=8));
        let settings = settings.chain(policies).chain(modes).collect();
        Self { sequences: 0, operations: [[0; 2]; Op::KINDS.len()], settings }
    }
}

impl Counts {
    pub(crate) fn sequence(&mut self, config: &Config) {
        self.sequences += 1;
        let mode = if config.shadow { "shadows" } else { "marks in place" };
        let of = [
            format!("devices {}", config.devices),
            format!("free_inc {}", config.sizes.3),
            format!("policy {:?}", config.policy),
            mode.to_owned(),
        ];
        of.into_iter().for_each(|what| *self.settings.entry(what).or_default() += 1);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.sequences += other.sequences;
        for (sum, more) in self.operations.iter_mut().flatten().zip(other.operations.as_flattened())
        {
            *sum += more;
        }
        for (what, more) in &other.settings {
            *self.settings.entry(what.clone()).or_default() += more;
        }
    }

    /// Prints everything; fails if anything was never met, unless too few sequences were asked for
    /// to expect that.
    pub(crate) fn report(&self) {
        println!("{:<14}{:>10}{:>16}", "operation", "shadows", "marks in place");
        for (kind, [shadows, in_place]) in Op::KINDS.iter().zip(self.operations) {
            println!("{kind:<14}{shadows:>10}{in_place:>16}");
        }
        let settings = self.settings.iter().map(|(what, n)| format!("{what}: {n}"));
        println!("{}", settings.collect::<Vec<_>>().join(", "));
        let total: u64 = self.operations.as_flattened().iter().sum();
        println!("{} sequences, {total} operations that did something", self.sequences);
        if self.sequences < ENOUGH {
            println!("too few sequences to meet everything: {ENOUGH} would be enough");
            return;
        }
        for (kind, counts) in Op::KINDS.iter().zip(self.operations) {
            assert!(!counts.contains(&0), "{kind} was never met in one of the modes: {counts:?}");
        }
        for (what, &count) in &self.settings {
            assert!(count > 0, "no sequence had {what}");
        }
    }
}
