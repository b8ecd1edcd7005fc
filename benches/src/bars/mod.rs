//! What the allocator is measured for: a *bar* is a figure that it must reach.
//!
//! | file | bars |
//! |---|---|
//! | `pairs.rs` | P1, P2: allocating and giving back |
//! | `tail.rs` | P3: allocating while passes run all the time |
//! | `timeline.rs` | the same as response times under a set rate, instant by instant |
//! | `steady.rs` | P4: allocating what is reclaimed meanwhile |
//! | `passes.rs` | P5, P6: what a pass costs |
//! | `sectors.rs` | P7: sectors of open buckets |
//! | `reads.rs` | P8: read hits |
//! | `devices.rs` | P9, P10: a prio write and an open, beside fio |
//! | `memory.rs` | P11: bytes per bucket |
//! | `background.rs` | P14, P15: idleness, and own writes |
//! | `fairness.rs` | P16: who waits is woken soon, and in turn |
//! | `cache.rs`, `fio.rs` | P12, P13: the cache beside the disk, and beside another cache |
//! | `entries.rs` | "entries": what those of the cache take, and how soon they come back |
//! | `usable.rs` | P17: how much of a device holds user data |
//! | `row.rs`, `table.rs` | figures, goals, verdicts, and how they are shown |
//! | `plan.rs` | how long, how often, and what |
//!
//! To add one, write a function that calls `Bench::measure`, and enter it in `of_space` below if
//! it works with any [`Space`], else in `of_product`.
//!
//! # Method
//!
//! Backends take turns in one process, one round of warm-up and then at least five that count.
//! A figure is the median of the rounds, shown with the smallest and largest; a ratio is taken
//! in each round and is the median of those. Costs of one thread are CPU time, so that being
//! preempted is not counted; throughput of several threads is by the wall clock. What others on
//! the machine used meanwhile stands in every row; a row during which it was more than
//! [`DISTURBED`] CPUs says so.

mod background;
mod cache;
mod device_file;
mod devices;
mod entries;
mod fairness;
mod fio;
mod memory;
mod pairs;
mod passes;
mod plan;
mod reads;
mod row;
mod sectors;
mod shape;
mod steady;
mod table;
mod tail;
mod timeline;
mod usable;

pub use plan::{Plan, Section};
pub use row::{Better, Figure, Goal, Row, Verdict};
pub use shape::{Curve, Pass, Timeline};
pub use table::{disturbed, markdown, terminal};

use crate::backend::{Lockfree, Space};
use crate::measure::{Load, Subject, Turns, take_turns};

/// CPUs kept busy by others above which a row counts as disturbed.
pub const DISTURBED: f64 = 0.15;

/// The bars, by name.
///
/// ```
/// assert!(tierce_bench::bars::NAMES.contains(&"P1"));
/// ```
pub const NAMES: &[&str] = &[
    "P1", "P2", "P3", "P4", "P5", "P6", "P7", "P8", "P9", "P10", "P11", "P12", "P13", "entries",
    "P14", "P15", "P16", "P17",
];

/// What was measured.
///
/// ```
/// assert!(tierce_bench::bars::Results::default().rows.is_empty());
/// ```
#[derive(Clone, Default, Debug)]
#[non_exhaustive]
pub struct Results {
    /// Figures beside their baselines.
    pub rows: Vec<Row>,
    /// Distributions of latencies.
    pub curves: Vec<Curve>,
    /// What happened instant by instant.
    pub timelines: Vec<Timeline>,
    /// What was left out, and why, and what else the reader should know.
    pub notes: Vec<String>,
}

/// How far a run is.
///
/// ```
/// use tierce_bench::bars::Progress;
/// let last = Progress { done: 9, of: 10, what: "P8 read hit" };
/// assert!(last.done < last.of);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_structs, reason = "other programs that measure report it too")]
pub struct Progress<'a> {
    /// Bars that are finished.
    pub done: usize,
    /// Bars in all.
    pub of: usize,
    /// The figure that has been measured, or the bar that is begun.
    pub what: &'a str,
}

/// One run: measures, and collects rows.
struct Bench<'a> {
    plan: &'a Plan,
    results: Results,
    done: usize,
    of: usize,
    progress: &'a dyn Fn(Progress<'_>),
}

impl Bench<'_> {
    /// Lets the subjects take turns and makes rows of their figures. The first subject is
    /// measured, the others are its peers.
    fn measure(&mut self, figures: &[Figure], subjects: Vec<Subject<'_>>) {
        self.measure_rounds(self.plan.rounds, figures, subjects);
    }

    /// As [`measure`](Self::measure), where it is known how many rounds it takes.
    fn measure_rounds(&mut self, rounds: usize, figures: &[Figure], subjects: Vec<Subject<'_>>) {
        let load = Load::begin();
        let turns = take_turns(rounds, subjects);
        self.add(figures, &turns, load.of_others());
    }

    fn add(&mut self, figures: &[Figure], turns: &[Turns], others: f64) {
        let Some((subject, peers)) = turns.split_first() else { return };
        for (number, figure) in figures.iter().enumerate() {
            self.tell(&format!("{} {} ({})", figure.bar, figure.name, figure.setting));
            let samples = |turns: &Turns| (turns.name, turns.figures[number].clone());
            let peers: Vec<_> = peers.iter().map(samples).collect();
            self.results.rows.extend(Row::of(figure, samples(subject), &peers, others));
        }
    }

    fn tell(&self, what: &str) {
        (self.progress)(Progress { done: self.done, of: self.of, what });
    }

    /// Numbers of threads to measure with: those asked for, else by how long there is.
    fn threads(&self, quick: &[usize], full: &[usize]) -> Vec<usize> {
        match (&self.plan.threads[..], self.plan.quick) {
            ([], true) => quick.to_vec(),
            ([], false) => full.to_vec(),
            (asked, _) => asked.to_vec(),
        }
    }

    /// Numbers of buckets to measure with, likewise.
    fn buckets(&self, quick: &[u32], full: &[u32]) -> Vec<u32> {
        match (&self.plan.buckets[..], self.plan.quick) {
            ([], true) => quick.to_vec(),
            ([], false) => full.to_vec(),
            (asked, _) => asked.to_vec(),
        }
    }
}

type Measure = fn(&mut Bench<'_>);

/// Bars of any backend.
fn of_space<S: Space>() -> Vec<(&'static str, Section, Measure)> {
    let mut bars: Vec<(&str, Section, Measure)> = vec![
        ("P1", Section::Alloc, pairs::alone::<S>),
        ("P2", Section::Alloc, pairs::crowded::<S>),
        ("P4", Section::Steady, steady::steady::<S>),
    ];
    if S::PASSES {
        bars.push(("P3", Section::Tail, tail::tail::<S>));
        bars.push(("P3", Section::Tail, timeline::timeline::<S>));
        bars.push(("P5", Section::Passes, passes::lru::<S>));
        bars.push(("P6", Section::Passes, passes::rescale::<S>));
    }
    if S::SECTORS {
        bars.push(("P7", Section::Sectors, sectors::sectors::<S>));
    }
    if S::READS {
        bars.push(("P8", Section::Hit, reads::reads::<S>));
    }
    bars
}

/// Bars that only the product has.
fn of_product() -> Vec<(&'static str, Section, Measure)> {
    vec![
        // First: what other bars have freed would count as free memory.
        ("P11", Section::Memory, memory::memory),
        ("P12", Section::Cache, cache::writes),
        ("P13", Section::Cache, cache::beside_foyer),
        ("entries", Section::Cache, entries::entries_come_back),
        ("P16", Section::Steady, fairness::fairness),
        ("P17", Section::Memory, usable::usable),
        ("P9", Section::Prio, devices::prio_write),
        ("P10", Section::Open, devices::open),
        ("P14", Section::Idle, background::idle),
        ("P15", Section::Prio, background::write_amplification),
    ]
}

/// Measures what the plan says of the product. `progress` is told every figure that is done.
///
/// ```
/// use tierce_bench::bars::{Plan, run};
/// let plan = Plan { only: vec!["P1".to_owned()], ..Plan::smoke() };
/// let results = run(&plan, &|_progress| {});
/// assert_eq!(results.rows[0].baseline.as_deref(), Some("original"));
/// ```
#[must_use]
pub fn run(plan: &Plan, progress: &dyn Fn(Progress<'_>)) -> Results {
    let mut bars = of_product();
    bars.extend(of_space::<Lockfree>());
    run_bars(bars, plan, progress)
}

/// Measures any backend in the product's place, beside the same baselines.
///
/// ```
/// use tierce_bench::backend::FifoQueue;
/// use tierce_bench::bars::{Plan, run_of};
/// let plan = Plan { only: vec!["P1".to_owned()], ..Plan::smoke() };
/// assert_eq!(run_of::<FifoQueue>(&plan, &|_progress| {}).rows[0].subject, "fifo-queue");
/// ```
#[must_use]
pub fn run_of<S: Space>(plan: &Plan, progress: &dyn Fn(Progress<'_>)) -> Results {
    run_bars(of_space::<S>(), plan, progress)
}

fn run_bars(
    mut bars: Vec<(&'static str, Section, Measure)>,
    plan: &Plan,
    progress: &dyn Fn(Progress<'_>),
) -> Results {
    bars.retain(|(bar, section, _)| plan.covers(bar, *section));
    let of = bars.len();
    let mut bench = Bench { plan, results: Results::default(), done: 0, of, progress };
    for (bar, _, measure) in bars {
        bench.tell(bar);
        measure(&mut bench);
        bench.done += 1;
    }
    bench.tell("done");
    bench.results
}

/// How settings name a number of threads; the page finds the number in it again.
fn threads_name(threads: usize) -> String {
    if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") }
}

/// How settings name a number of buckets, likewise.
fn buckets_name(nbuckets: u32) -> String {
    match nbuckets {
        n if n >= 1 << 20 && n.is_multiple_of(1 << 20) => format!("{} Mi", n >> 20),
        n if n >= 1 << 10 && n.is_multiple_of(1 << 10) => format!("{} Ki", n >> 10),
        n => n.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::collections::BTreeSet;

    /// The machine slows down to a quarter while the measurement runs. Turns are taken in the
    /// same state of it, so ratios are right; one subject after the other would be told apart.
    #[test]
    fn a_machine_that_slows_down_changes_no_ratio() {
        let clock = Cell::new(0.0);
        let subject = |name, cost: f64| {
            let clock = &clock;
            Subject::new(name, move || {
                let slowness = 1.0 + clock.get() / 100.0;
                clock.set(clock.get() + cost * slowness);
                vec![cost * slowness]
            })
        };
        let subjects = vec![subject("a", 1.0), subject("b", 3.0), subject("copy", 1.0)];
        let turns = take_turns(20, subjects);
        let figure = Figure::new("P1", "pair", "", "ns", Better::Less);
        let samples = |n: usize| (turns[n].name, turns[n].figures[0].clone());
        let rows = Row::of(&figure, samples(0), &[samples(1), samples(2)], 0.0);
        let spread = rows[0].spread;
        assert!(spread.max > 2.0 * spread.min, "the machine did slow down: {spread:?}");
        for (row, wanted) in rows.iter().zip([3.0, 1.0]) {
            let ratio = row.ratio.expect("there is a baseline");
            // What is left is the way from one turn to the next: less than 5 %.
            assert!((ratio.median / wanted - 1.0).abs() < 0.05, "{wanted}: {ratio:?}");
            assert!(ratio.max / ratio.min < 1.02, "{wanted}: {ratio:?}");
        }
    }

    #[test]
    fn every_bar_has_its_name() {
        let all = of_product().into_iter().chain(of_space::<Lockfree>());
        let all: BTreeSet<_> = all.map(|(name, ..)| name).collect();
        assert_eq!(all, NAMES.iter().copied().collect());
    }

    #[test]
    fn plans_choose_bars_threads_and_buckets() {
        let plan = Plan { sections: vec![Section::Passes], ..Plan::quick() };
        assert!(plan.covers("P5", Section::Passes) && !plan.covers("P1", Section::Alloc));
        let plan = Plan { only: vec!["p1".to_owned()], threads: vec![3], ..Plan::quick() };
        assert!(plan.covers("P1", Section::Alloc) && !plan.covers("P2", Section::Alloc));
        let both = Plan { sections: vec![Section::Passes], ..plan.clone() };
        assert!(both.covers("P5", Section::Passes) && both.covers("P1", Section::Alloc));
        let results = Results::default();
        let bench = Bench { plan: &plan, results, done: 0, of: 0, progress: &|_| {} };
        assert_eq!(bench.threads(&[1, 2], &[4]), [3]);
        assert_eq!(bench.buckets(&[1024], &[2048]), [1024]);
    }
}
