//! What a figure is too short to say: distributions, and what happened when.

use crate::measure::Latency;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A distribution of latencies.
///
/// ```
/// use tierce_bench::{bars::Curve, measure::Latency};
/// let mut latency = Latency::default();
/// latency.record_nanos(7);
/// assert_eq!(Curve::of("pair", "1 thread", "lockfree", &latency).points, [(0.0, 7)]);
/// ```
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Curve {
    /// What took so long; curves of the same name and setting belong into one picture.
    pub name: Cow<'static, str>,
    /// Device, threads and so on.
    pub setting: String,
    /// Whose.
    pub subject: Cow<'static, str>,
    /// Operations counted.
    pub count: u64,
    /// Quantile, and the nanoseconds that this share of operations took at most.
    pub points: Vec<(f64, u64)>,
}

impl Curve {
    /// Of what was recorded.
    pub fn of(
        name: &'static str,
        setting: impl Into<String>,
        subject: &'static str,
        latency: &Latency,
    ) -> Self {
        Self {
            name: name.into(),
            setting: setting.into(),
            subject: subject.into(),
            count: latency.count(),
            points: latency.curve(),
        }
    }
}

/// A pass that ran meanwhile.
///
/// ```
/// let pass = tierce_bench::bars::Pass { kind: "LRU".into(), from_us: 10.0, to_us: 12.0 };
/// assert_eq!(pass.to_us - pass.from_us, 2.0);
/// ```
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct Pass {
    /// LRU, rescale or collection.
    pub kind: Cow<'static, str>,
    /// When it began, in microseconds from the start.
    pub from_us: f64,
    /// When it was over.
    pub to_us: f64,
}

/// Response times under a set rate, instant by instant, and the passes that ran.
///
/// ```
/// use tierce_bench::bars::{Plan, Section, run};
/// let plan = Plan { sections: vec![Section::Tail], buckets: vec![4096], ..Plan::smoke() };
/// let line = &run(&plan, &|_progress| {}).timelines[0];
/// assert!(line.slowest_ns.iter().any(|&nanos| nanos > 0));
/// ```
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Timeline {
    /// Device, rate and so on.
    pub setting: String,
    /// Whose.
    pub subject: Cow<'static, str>,
    /// How long an instant is, in microseconds.
    pub instant_us: f64,
    /// The slowest response of each instant in nanoseconds; 0 if there was none.
    pub slowest_ns: Vec<u64>,
    /// The passes.
    pub passes: Vec<Pass>,
}
