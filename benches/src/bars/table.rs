//! How rows are shown.

use super::row::Row;
use crate::measure::{Environment, Spread};

const HEAD: [&str; 11] = [
    "bar",
    "figure",
    "setting",
    "unit",
    "value",
    "baseline",
    "its value",
    "ratio",
    "must",
    "want",
    "verdict",
];

/// A number with three digits that count, as people write it.
fn short(value: f64) -> String {
    match value.abs() {
        v if v.is_nan() => "–".to_owned(),
        v if v >= 100.0 || v == 0.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn spread(spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    if median.is_nan() {
        return short(median);
    }
    format!("{} ({}–{})", short(median), short(min), short(max))
}

fn times(ratio: Spread) -> String {
    if ratio.median.is_nan() { short(ratio.median) } else { spread(ratio) + " ×" }
}

fn cells(row: &Row) -> [String; 11] {
    let disturbed = if row.is_disturbed() { " *" } else { "" };
    [
        row.bar.to_string(),
        row.name.clone(),
        row.setting.clone(),
        row.unit.to_string(),
        spread(row.spread),
        row.baseline.as_deref().unwrap_or_default().to_owned(),
        row.baseline_value.map(spread).unwrap_or_default(),
        row.ratio.map(times).unwrap_or_default(),
        row.must.clone(),
        row.want.clone(),
        format!("{}{disturbed}", row.verdict),
    ]
}

fn environment_lines(environment: &Environment) -> String {
    let Environment { cpu, cores, kernel, governor, commit, load, settings, .. } = environment;
    let Environment { timer_nanos, rmw_nanos, others, .. } = environment;
    format!(
        "{cpu}, {cores} cores, {kernel}, governor {governor}\n\
         commit {commit}, load {load:.2} at the start, others used {others:.2} CPUs meanwhile\n\
         one look at the clock {timer_nanos:.1} ns, one uncontended RMW {rmw_nanos:.1} ns\n\
         {settings}\n"
    )
}

const FOOT: &str = "Median (smallest–largest) of the rounds. Ratio: how many times better. \
    * others used the machine meanwhile, see `others` in the JSON.";

/// What to say of a run that others disturbed; `None` if it was quiet.
///
/// ```
/// assert_eq!(tierce_bench::bars::disturbed(&[]), None);
/// ```
#[must_use]
pub fn disturbed(rows: &[Row]) -> Option<String> {
    let disturbed = rows.iter().filter(|row| row.is_disturbed());
    let (count, worst) = disturbed.fold((0, 0f64), |(n, most), row| (n + 1, most.max(row.others)));
    let limit = super::DISTURBED;
    let of = rows.len();
    (count > 0).then(|| {
        format!(
            "disturbed by other load: during {count} of {of} rows others used more than {limit} \
             CPUs (at most {worst:.1}); repeat on a quiet machine"
        )
    })
}

/// For people who look at a terminal.
///
/// ```
/// use tierce_bench::{bars::terminal, measure::Environment};
/// assert!(terminal(&Environment::read(), &[]).contains("verdict"));
/// ```
#[must_use]
pub fn terminal(environment: &Environment, rows: &[Row]) -> String {
    let table: Vec<_> = rows.iter().map(cells).collect();
    let head = HEAD.map(str::to_owned);
    let all = || std::iter::once(&head).chain(&table);
    let width = |n: usize| all().map(|cells| cells[n].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..HEAD.len()).map(width).collect();
    let mut text = environment_lines(environment);
    for cells in all() {
        let padded = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        text += &format!("\n{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    }
    text + "\n\n" + FOOT + "\n"
}

/// For files that people keep.
///
/// ```
/// use tierce_bench::{bars::markdown, measure::Environment};
/// assert!(markdown(&Environment::read(), &[]).contains("| verdict |"));
/// ```
#[must_use]
pub fn markdown(environment: &Environment, rows: &[Row]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = environment_lines(environment) + "\n";
    text += &line(&HEAD.map(str::to_owned));
    text += &line(&HEAD.map(|_| "---".to_owned()));
    rows.iter().for_each(|row| text += &line(&cells(row)));
    text + "\n" + FOOT + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bars::{Better, Figure, Goal};

    #[test]
    fn a_row_is_one_line_in_both_tables() {
        let figure = Figure::new("P1", "pair", "alone", "ns", Better::Less);
        let figure = figure.goals(Goal::AtMost(15.0), Goal::AtMost(9.0));
        let rows = Row::of(&figure, ("lockfree", vec![20.0]), &[("original", vec![50.0])], 0.5);
        let environment = Environment::read();
        let wanted = "20.0 (20.0–20.0)";
        for table in [terminal(&environment, &rows), markdown(&environment, &rows)] {
            let line = table.lines().find(|line| line.contains(wanted)).expect("the row");
            assert!(line.contains("2.50") && line.contains("short *"), "{line}");
        }
    }
}
