//! Two runs side by side: what differs by more than their noise.
//!
//! A figure differs if no sample of one run lies among those of the other. If nothing has
//! changed, n and m samples are apart like that in 2 of (n + m choose n) cases: 1 of 126 for 5
//! and 5, 1 of 1716 for 7 and 7. So of a hundred rows of a quick run one is expected to be
//! called different for nothing.
//!
//! That alone would also report another machine, or another hour on this one. So a figure with
//! a baseline counts as better or worse only if its ratio to the baseline of the same run,
//! round by round, is apart too and in the same direction; where only the figure is, it was
//! the machine.

use super::Document;
use crate::bars::{Better, Row};
use crate::measure::Spread;
use std::fmt;

/// What became of a figure.
///
/// ```
/// assert_eq!(tierce_bench::report::Change::Machine.to_string(), "machine");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Change {
    /// It is better by more than the noise.
    Better,
    /// It is worse by more than the noise.
    Worse,
    /// It differs, and so does its baseline: the machine was another, or in another state.
    Machine,
    /// It does not differ by more than the noise.
    Same,
    /// Too few samples to say.
    Unknown,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Machine => "machine",
            Self::Same => "same",
            Self::Unknown => "unknown",
        })
    }
}

/// A figure that both runs have.
///
/// ```
/// # use tierce_bench::{bars::{Plan, Results}, measure::Environment, report::{Document, compare}};
/// # let document = Document::new(Environment::read(), &Plan::smoke(), Results::default());
/// assert!(compare(&document, &document).is_empty());
/// ```
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Difference {
    /// Bar, figure and setting.
    pub what: String,
    /// Of both values.
    pub unit: String,
    /// In the first run.
    pub before: Spread,
    /// In the second.
    pub after: Spread,
    /// How many times better the second is.
    pub times: f64,
    /// Whether it means anything.
    pub change: Change,
}

/// All figures of `after` that `before` has too.
#[must_use]
pub fn compare(before: &Document, after: &Document) -> Vec<Difference> {
    let key = |row: &Row| (row.bar.clone(), row.name.clone(), row.setting.clone());
    let mut seen = Vec::new();
    let mut differences = Vec::new();
    for row in &after.rows {
        if seen.contains(&key(row)) {
            continue; // the same figure beside another baseline
        }
        seen.push(key(row));
        let same = |other: &&Row| key(other) == key(row) && other.baseline == row.baseline;
        let other = before.rows.iter().find(same);
        let other = other.or_else(|| before.rows.iter().find(|other| key(other) == key(row)));
        differences.extend(other.map(|other| difference(other, row)));
    }
    differences
}

fn difference(before: &Row, after: &Row) -> Difference {
    let value = apart(after.better, &before.samples, &after.samples);
    let ratios = (before.ratios(), after.ratios());
    let change = match value {
        None => Change::Unknown,
        Some(0) => Change::Same,
        Some(_) if ratios.0.is_empty() || before.baseline != after.baseline => named(value),
        // A ratio says how many times better than the baseline: more is better.
        Some(_) if apart(Better::More, &ratios.0, &ratios.1) == value => named(value),
        Some(_) => Change::Machine,
    };
    Difference {
        what: format!("{} {} ({})", after.bar, after.name, after.setting),
        unit: after.unit.to_string(),
        before: before.spread,
        after: after.spread,
        times: after.better.times(after.spread.median, before.spread.median),
        change,
    }
}

fn named(direction: Option<i8>) -> Change {
    if direction == Some(1) { Change::Better } else { Change::Worse }
}

/// 1 if all samples after are better than all before, -1 if worse, 0 if they overlap, `None` if
/// there are too few of them to be apart by anything but chance.
fn apart(better: Better, before: &[f64], after: &[f64]) -> Option<i8> {
    if before.len() < 3 || after.len() < 3 || before.iter().chain(after).any(|v| v.is_nan()) {
        return None;
    }
    let (old, new) = (Spread::of(before), Spread::of(after));
    let direction = match better {
        Better::More => 1,
        Better::Less => -1,
    };
    Some(match () {
        () if new.min > old.max => direction,
        () if new.max < old.min => -direction,
        () => 0,
    })
}

/// For people who look at a terminal: first what differs, then how much does not.
///
/// ```
/// assert!(tierce_bench::report::comparison_table(&[]).contains("0 figures in both runs"));
/// ```
#[must_use]
pub fn comparison_table(differences: &[Difference]) -> String {
    let mut text = String::new();
    let is_same = |difference: &&Difference| difference.change == Change::Same;
    for difference in differences.iter().filter(|difference| !is_same(difference)) {
        let Difference { what, unit, before, after, times, change } = difference;
        text += &format!(
            "{:8} {times:6.2} ×  {what}: {:.4} → {:.4} {unit}\n",
            change.to_string(),
            before.median,
            after.median
        );
    }
    let same = differences.iter().filter(is_same).count();
    text + &format!(
        "{} figures in both runs, {same} of them the same within the noise\n",
        differences.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bars::Figure;

    fn row(better: Better, own: [f64; 5], peer: [f64; 5]) -> Row {
        let figure = Figure::new("P1", "pair", "1 thread", "ns", better);
        let peer = ("original", peer.to_vec());
        Row::of(&figure, ("lockfree", own.to_vec()), &[peer], 0.0).remove(0)
    }

    const FIVE: [f64; 5] = [10.0, 10.2, 10.1, 9.9, 10.3];
    const PEER: [f64; 5] = [50.0, 51.0, 52.0, 50.5, 51.5];

    #[test]
    fn only_what_is_apart_differs() {
        let before = row(Better::Less, FIVE, PEER);
        let change = |after: &Row| difference(&before, after).change;
        assert_eq!(change(&before), Change::Same);
        assert_eq!(change(&row(Better::Less, FIVE.map(|v| v * 0.97), PEER)), Change::Same);
        assert_eq!(change(&row(Better::Less, FIVE.map(|v| v * 0.8), PEER)), Change::Better);
        assert_eq!(change(&row(Better::Less, FIVE.map(|v| v * 1.2), PEER)), Change::Worse);
    }

    #[test]
    fn a_slower_machine_is_no_change() {
        let before = row(Better::More, FIVE, PEER);
        let after = row(Better::More, FIVE.map(|v| v / 2.0), PEER.map(|v| v / 2.0));
        assert_eq!(difference(&before, &after).change, Change::Machine);
        let after = row(Better::More, FIVE.map(|v| v / 4.0), PEER.map(|v| v / 2.0));
        assert_eq!(difference(&before, &after).change, Change::Worse);
        assert_eq!(difference(&before, &after).times, 0.25);
    }

    #[test]
    fn two_samples_say_nothing() {
        assert_eq!(apart(Better::Less, &[1.0, 1.0], &[9.0, 9.0]), None);
        assert_eq!(apart(Better::Less, &[1.0; 3], &[f64::NAN; 3]), None);
    }
}
