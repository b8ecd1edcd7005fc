//! Figures, goals and verdicts.

use crate::measure::{Spread, number, numbers};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// Which of two values is better.
///
/// ```
/// assert_ne!(tierce_bench::bars::Better::Less, tierce_bench::bars::Better::More);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
pub enum Better {
    /// As of costs.
    Less,
    /// As of throughput.
    More,
}

impl Better {
    /// How many times better `value` is than `peer`.
    ///
    /// ```
    /// use tierce_bench::bars::Better;
    /// assert_eq!((Better::Less.times(2.0, 6.0), Better::More.times(2.0, 6.0)), (3.0, 2.0 / 6.0));
    /// ```
    #[must_use]
    pub fn times(self, value: f64, peer: f64) -> f64 {
        match self {
            Self::Less => peer / value,
            Self::More => value / peer,
        }
    }
}

/// What is to be reached.
///
/// ```
/// use tierce_bench::bars::Goal;
/// assert_eq!(Goal::AtMost(15.0).to_string(), "≤ 15");
/// assert_eq!(Goal::Times(2.5).to_string(), "≥ 2.5 ×");
/// ```
#[derive(Clone, Copy, PartialEq, Debug)]
#[non_exhaustive]
pub enum Goal {
    /// Nothing: the figure is shown beside others.
    Shown,
    /// A value of at most this.
    AtMost(f64),
    /// A value of at least this.
    AtLeast(f64),
    /// So many times better than the baseline.
    Times(f64),
}

impl Goal {
    /// Whether value and ratio reach it; `None` if nothing was to be reached, or there is no
    /// baseline in this run.
    ///
    /// ```
    /// use tierce_bench::bars::Goal;
    /// assert_eq!(Goal::AtMost(15.0).is_reached(14.0, None), Some(true));
    /// assert_eq!(Goal::Times(4.0).is_reached(14.0, Some(3.9)), Some(false));
    /// ```
    #[must_use]
    pub fn is_reached(self, value: f64, ratio: Option<f64>) -> Option<bool> {
        match self {
            Self::Shown => None,
            Self::AtMost(most) => Some(value <= most),
            Self::AtLeast(least) => Some(value >= least),
            Self::Times(times) => ratio.map(|ratio| ratio >= times),
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shown => Ok(()),
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::Times(times) => write!(f, "≥ {times} ×"),
        }
    }
}

/// Something that is measured.
///
/// ```
/// use tierce_bench::bars::{Better, Figure};
/// let figure = Figure::new("P1", "pair", "64 Ki buckets", "ns", Better::Less);
/// assert_eq!(figure.against, "original");
/// ```
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Figure {
    /// The bar's number.
    pub bar: &'static str,
    /// What it is.
    pub name: String,
    /// Device, threads and so on.
    pub setting: String,
    /// Of the value.
    pub unit: &'static str,
    /// Which way is better.
    pub better: Better,
    /// What has to be reached.
    pub must: Goal,
    /// What we want.
    pub want: Goal,
    /// The backend that ratios of the goals are against.
    pub against: &'static str,
}

impl Figure {
    /// A figure that is only shown; ratios are against `original`.
    pub fn new(
        bar: &'static str,
        name: impl Into<String>,
        setting: impl Into<String>,
        unit: &'static str,
        better: Better,
    ) -> Self {
        let (must, want) = (Goal::Shown, Goal::Shown);
        let (name, setting) = (name.into(), setting.into());
        Self { bar, name, setting, unit, better, must, want, against: "original" }
    }

    /// With what must and should be reached.
    #[must_use]
    pub fn goals(self, must: Goal, want: Goal) -> Self {
        Self { must, want, ..self }
    }

    /// With ratios against this backend.
    #[must_use]
    pub fn against(self, against: &'static str) -> Self {
        Self { against, ..self }
    }
}

/// Whether a bar is reached.
///
/// ```
/// assert_eq!(tierce_bench::bars::Verdict::NotApplicable.to_string(), "n/a");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Verdict {
    /// The must is reached.
    #[serde(rename = "ok")]
    Ok,
    /// It is not.
    #[serde(rename = "short")]
    Short,
    /// There is no must in this row.
    #[serde(rename = "n/a")]
    NotApplicable,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Short => "short",
            Self::NotApplicable => "n/a",
        })
    }
}

/// One figure beside one baseline.
///
/// ```
/// use tierce_bench::bars::{Better, Figure, Goal, Row, Verdict};
/// let figure = Figure::new("P1", "pair", "", "ns", Better::Less);
/// let figure = figure.goals(Goal::Times(2.0), Goal::Times(9.0));
/// let peer = ("original", vec![30.0, 32.0]);
/// let rows = Row::of(&figure, ("lockfree", vec![10.0, 8.0]), &[peer], 0.0);
/// assert_eq!((rows[0].ratio.unwrap().median, rows[0].verdict), (3.5, Verdict::Ok));
/// ```
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Row {
    /// The bar's number.
    pub bar: Cow<'static, str>,
    /// What was measured.
    pub name: String,
    /// Device, threads and so on.
    pub setting: String,
    /// Of values and samples.
    pub unit: Cow<'static, str>,
    /// Which way is better.
    pub better: Better,
    /// Whose value it is.
    pub subject: Cow<'static, str>,
    /// The median.
    #[serde(deserialize_with = "number")]
    pub value: f64,
    /// The value's spread.
    pub spread: Spread,
    /// The peer, if there is one.
    pub baseline: Option<Cow<'static, str>>,
    /// The peer's value.
    pub baseline_value: Option<Spread>,
    /// How many times better than the peer.
    pub ratio: Option<Spread>,
    /// What must be reached; empty if that stands in another row.
    pub must: String,
    /// What we want.
    pub want: String,
    /// Whether the must is reached.
    pub verdict: Verdict,
    /// CPUs that others used meanwhile.
    #[serde(deserialize_with = "number")]
    pub others: f64,
    /// One sample per round.
    #[serde(deserialize_with = "numbers")]
    pub samples: Vec<f64>,
    /// The peer's samples.
    #[serde(deserialize_with = "numbers")]
    pub baseline_samples: Vec<f64>,
}

type Samples = (&'static str, Vec<f64>);

impl Row {
    /// One row per peer, or a single one. The goals stand in the row of the baseline that they
    /// are against, or, if they need none, in the first row if that baseline is absent.
    #[must_use]
    pub fn of(figure: &Figure, subject: Samples, peers: &[Samples], others: f64) -> Vec<Self> {
        let spread = Spread::of(&subject.1);
        let base = Self {
            bar: figure.bar.into(),
            name: figure.name.clone(),
            setting: figure.setting.clone(),
            unit: figure.unit.into(),
            better: figure.better,
            subject: subject.0.into(),
            value: spread.median,
            spread,
            baseline: None,
            baseline_value: None,
            ratio: None,
            must: String::new(),
            want: String::new(),
            verdict: Verdict::NotApplicable,
            others,
            samples: subject.1,
            baseline_samples: Vec::new(),
        };
        let mut rows: Vec<_> = peers.iter().map(|peer| base.beside(peer)).collect();
        if rows.is_empty() {
            rows.push(base);
        }
        let judged = rows
            .iter()
            .position(|row| row.baseline.as_deref() == Some(figure.against))
            .unwrap_or(0);
        rows[judged].judge(figure);
        rows
    }

    fn beside(&self, (name, samples): &Samples) -> Self {
        let mut row = Self {
            baseline: Some((*name).into()),
            baseline_value: Some(Spread::of(samples)),
            baseline_samples: samples.clone(),
            ..self.clone()
        };
        row.ratio = Some(Spread::of(&row.ratios()));
        row
    }

    /// How many times better than the baseline, round by round; empty if there is none.
    #[must_use]
    pub fn ratios(&self) -> Vec<f64> {
        let pairs = self.samples.iter().zip(&self.baseline_samples);
        pairs.map(|(&own, &peer)| self.better.times(own, peer)).collect()
    }

    /// By these goals, whatever baseline it stands beside.
    pub(super) fn judge(&mut self, figure: &Figure) {
        (self.must, self.want) = (figure.must.to_string(), figure.want.to_string());
        let ratio = self.ratio.map(|ratio| ratio.median);
        self.verdict = match figure.must.is_reached(self.value, ratio) {
            Some(true) => Verdict::Ok,
            Some(false) => Verdict::Short,
            None => Verdict::NotApplicable,
        };
    }

    /// Whether others used so much of the machine that the row says little.
    #[must_use]
    pub fn is_disturbed(&self) -> bool {
        self.others > super::DISTURBED
    }
}
