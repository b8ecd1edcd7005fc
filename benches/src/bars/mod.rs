//! What the allocator is measured for: a *bar* is a figure that it must reach.
//!
//! | file | bars |
//! |---|---|
//! | `pairs.rs` | P1, P2: allocating and giving back |
//! | `tail.rs` | P3: allocating while passes run all the time |
//! | `steady.rs` | P4: allocating what is reclaimed meanwhile |
//! | `passes.rs` | P5, P6: what a pass costs |
//! | `sectors.rs` | P7: sectors of open buckets |
//! | `reads.rs` | P8: read hits |
//! | `memory.rs` | P11: bytes per bucket |
//! | `fairness.rs` | P16: who waits is woken soon, and in turn |
//! | `row.rs`, `table.rs` | figures, goals, verdicts, and how they are shown |
//!
//! # Method
//!
//! Backends take turns in one process, one round of warm-up and then at least five that count.
//! A figure is the median of the rounds, shown with the smallest and largest; a ratio is taken
//! in each round and is the median of those. Costs of one thread are CPU time, so that being
//! preempted is not counted; throughput of several threads is by the wall clock. What others on
//! the machine used meanwhile stands in every row; a row during which it was more than
//! [`DISTURBED`] CPUs says so.

mod fairness;
mod memory;
mod pairs;
mod passes;
mod reads;
mod row;
mod sectors;
mod steady;
mod table;
mod tail;

pub use row::{Better, Figure, Goal, Row, Verdict};
pub use table::{markdown, terminal};

use crate::measure::{Load, Subject, Turns, take_turns};
use std::time::Duration;

/// CPUs kept busy by others above which a row counts as disturbed.
pub const DISTURBED: f64 = 0.15;

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
    /// The bars to measure, as "P4"; all if there are none.
    pub only: Vec<String>,
}

impl Plan {
    /// Everything.
    #[must_use]
    pub const fn full() -> Self {
        Self { rounds: 7, sample: Duration::from_millis(400), quick: false, only: Vec::new() }
    }

    /// About two minutes.
    #[must_use]
    pub const fn quick() -> Self {
        Self { rounds: 5, sample: Duration::from_millis(150), quick: true, only: Vec::new() }
    }

    /// Proves that everything runs; its figures say nothing.
    #[must_use]
    pub const fn smoke() -> Self {
        Self { rounds: 1, sample: Duration::from_millis(2), quick: true, only: Vec::new() }
    }

    fn covers(&self, bar: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only.eq_ignore_ascii_case(bar))
    }
}

/// One run: measures, and collects rows.
struct Bench<'a> {
    plan: &'a Plan,
    rows: Vec<Row>,
    progress: &'a dyn Fn(&str),
}

impl Bench<'_> {
    /// Lets the subjects take turns and makes rows of their figures. The first subject is
    /// measured, the others are its peers.
    fn measure(&mut self, figures: &[Figure], subjects: Vec<Subject<'_>>) {
        let load = Load::begin();
        let turns = take_turns(self.plan.rounds, subjects);
        self.add(figures, &turns, load.of_others());
    }

    fn add(&mut self, figures: &[Figure], turns: &[Turns], others: f64) {
        let Some((subject, peers)) = turns.split_first() else { return };
        for (number, figure) in figures.iter().enumerate() {
            (self.progress)(&format!("{} {} ({})", figure.bar, figure.name, figure.setting));
            let samples = |turns: &Turns| (turns.name, turns.figures[number].clone());
            let peers: Vec<_> = peers.iter().map(samples).collect();
            self.rows.extend(Row::of(figure, samples(subject), &peers, others));
        }
    }
}

/// Measures what the plan says. `progress` is told every figure that is done.
///
/// ```
/// use tierce_bench::bars::{Plan, run};
/// let plan = Plan { only: vec!["P1".to_owned()], ..Plan::smoke() };
/// let rows = run(&plan, &|_done| {});
/// assert_eq!(rows[0].baseline, Some("original"));
/// ```
#[must_use]
pub fn run(plan: &Plan, progress: &dyn Fn(&str)) -> Vec<Row> {
    let mut bench = Bench { plan, rows: Vec::new(), progress };
    type Measure = fn(&mut Bench<'_>);
    // Memory first: what other bars have freed would count as free memory.
    let bars: [(&str, Measure); 10] = [
        ("P11", memory::memory),
        ("P1", pairs::alone),
        ("P2", pairs::crowded),
        ("P3", tail::tail),
        ("P4", steady::steady),
        ("P5", passes::lru),
        ("P6", passes::rescale),
        ("P7", sectors::sectors),
        ("P8", reads::reads),
        ("P16", fairness::fairness),
    ];
    for (_, measure) in bars.iter().filter(|(bar, _)| plan.covers(bar)) {
        measure(&mut bench);
    }
    bench.rows
}

/// How settings name a number of threads.
fn threads_name(threads: usize) -> String {
    if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") }
}
