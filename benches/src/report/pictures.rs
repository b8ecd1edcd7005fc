//! Which pictures a page has, and where their points come from.

use super::Document;
use super::chart::{Axis, Chart, Draw, Scale, Series, Strip, number};
use crate::bars::{Curve, Row, Timeline};
use std::collections::BTreeMap;

/// The pictures that belong under one heading.
pub(super) struct Group {
    pub(super) heading: &'static str,
    pub(super) charts: Vec<Chart>,
}

/// All headings; those that the run has no figures for are there without pictures.
pub(super) fn groups(document: &Document) -> Vec<Group> {
    let rows = &document.rows;
    let mut threads = over_threads(rows, "P2", "M/s", "million pairs per second");
    threads.extend(over_threads(rows, "P4", "k/s", "thousand buckets per second"));
    let mut passes = over_buckets(rows, "P5", "random");
    passes.extend(over_buckets(rows, "P6", ""));
    vec![
        Group { heading: "Throughput over threads", charts: threads },
        Group { heading: "How long operations take", charts: distributions(&document.curves) },
        Group {
            heading: "Instant by instant, with passes",
            charts: timelines(&document.timelines),
        },
        Group { heading: "What a pass costs", charts: passes },
        Group { heading: "The cache", charts: cache(rows) },
    ]
}

/// `"64 Ki buckets, 2 threads, ageing"` → the parts, and the number before this word.
fn split(setting: &str, word: &str) -> Option<(f64, String)> {
    let parts: Vec<_> = setting.split(", ").collect();
    let is_it = |part: &&str| part.trim_end_matches('s').ends_with(word);
    let place = parts.iter().position(is_it)?;
    let digits: String = parts[place].chars().take_while(char::is_ascii_digit).collect();
    let factor = match parts[place].split(' ').nth(1) {
        Some("Ki") => 1024.0,
        Some("Mi") => 1024.0 * 1024.0,
        _ => 1.0,
    };
    let value = digits.parse::<f64>().ok()? * factor;
    let others = parts.iter().enumerate().filter(|(n, _)| *n != place).map(|(_, part)| *part);
    Some((value, others.collect::<Vec<_>>().join(", ")))
}

/// A bucket count as people write it.
fn buckets(count: f64) -> String {
    match count {
        n if n >= 1024.0 * 1024.0 => format!("{} Mi", number(n / 1024.0 / 1024.0)),
        n if n >= 1024.0 => format!("{} Ki", number(n / 1024.0)),
        n => number(n),
    }
}

/// The series of these rows: subject and baselines, by what `x` finds in the setting, and by
/// what is left of the setting.
fn by_setting(
    rows: &[Row],
    bar: &str,
    unit: &str,
    word: &str,
) -> BTreeMap<(String, String), Vec<Series>> {
    let mut found: BTreeMap<(String, String), Vec<Series>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.bar == bar && row.unit == unit) {
        let Some((x, rest)) = split(&row.setting, word) else { continue };
        let series = found.entry((row.name.clone(), rest)).or_default();
        let baseline = row.baseline.as_deref().zip(row.baseline_value);
        let mut points = vec![(&*row.subject, row.value)];
        points.extend(baseline.map(|(name, spread)| (name, spread.median)));
        for (name, value) in points {
            add(series, name, (x, value));
        }
    }
    for series in found.values_mut().flatten() {
        series.points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    found
}

/// A subject stands in one row per baseline, with the same value.
fn add(all: &mut Vec<Series>, name: &str, point: (f64, f64)) {
    let place = all.iter().position(|series| series.name == name).unwrap_or_else(|| {
        all.push(Series { name: name.to_owned(), points: Vec::new(), draw: Draw::Marked });
        all.len() - 1
    });
    if !all[place].points.contains(&point) {
        all[place].points.push(point);
    }
}

fn over_threads(rows: &[Row], bar: &str, unit: &str, y: &str) -> Vec<Chart> {
    let all = by_setting(rows, bar, unit, "thread");
    let charts = all.into_iter().map(|((name, rest), series)| {
        let ticks = ticks(&series, number);
        let rest = if rest.is_empty() { String::new() } else { format!(", {rest}") };
        Chart {
            title: format!("{bar}: {name}{rest}"),
            note: "Medians of the rounds. More threads than the machine has cores take turns on \
                   them."
                .into(),
            x: Axis::new("threads (number)", Scale::Log).ticks(ticks),
            y: Axis::new(y, Scale::Log),
            series,
            strips: Vec::new(),
        }
    });
    charts.collect()
}

/// A label at each value that has a point.
fn ticks(series: &[Series], text: fn(f64) -> String) -> Vec<(f64, String)> {
    let mut values: Vec<f64> =
        series.iter().flat_map(|series| series.points.iter().map(|point| point.0)).collect();
    values.sort_by(f64::total_cmp);
    values.dedup();
    values.into_iter().map(|value| (value, text(value))).collect()
}

/// Of these rows, those with this order of keys, or any.
fn over_buckets(rows: &[Row], bar: &str, order: &str) -> Vec<Chart> {
    let all = by_setting(rows, bar, "CPU ns/bucket", "bucket");
    let charts =
        all.into_iter().filter(|((_, rest), _)| rest == order).map(|((name, _), series)| {
            let ticks = ticks(&series, buckets);
            Chart {
                title: format!("{bar}: {name}"),
                note:
                    "CPU time of one pass over the whole device, divided by its buckets. Flat is \
                   linear; what rises with size is memory."
                        .into(),
                x: Axis::new("buckets of the device (number)", Scale::Log).ticks(ticks),
                y: Axis::new("CPU ns per bucket", Scale::Log),
                series,
                strips: Vec::new(),
            }
        });
    charts.collect()
}

/// The picture with the most threads of each kind.
fn distributions(curves: &[Curve]) -> Vec<Chart> {
    let mut kinds: Vec<(&str, &str)> = Vec::new();
    for curve in curves {
        let kind = (&*curve.name, curve.setting.as_str());
        match kinds.iter_mut().find(|known| known.0 == kind.0) {
            Some(known) => *known = kind,
            None => kinds.push(kind),
        }
    }
    let of = |kind: &(&str, &str)| {
        let same = curves.iter().filter(|curve| (&*curve.name, curve.setting.as_str()) == *kind);
        let series = same.map(|curve| Series {
            name: curve.subject.to_string(),
            points: curve
                .points
                .iter()
                .map(|&(q, nanos)| (1.0 / (1.0 - q), nanos as f64))
                .collect(),
            draw: Draw::Plain,
        });
        Chart {
            title: format!("{}, {}", kind.0, kind.1),
            note: "So many operations took at most so long; all rounds together. The right end \
                   of a line is the slowest operation."
                .into(),
            x: Axis::new("share of operations (%)", Scale::Log).ticks(quantile_ticks()),
            y: Axis::new("time (ns)", Scale::Log),
            series: series.collect(),
            strips: Vec::new(),
        }
    };
    kinds.iter().map(of).collect()
}

fn quantile_ticks() -> Vec<(f64, String)> {
    let texts = ["0", "90", "99", "99.9", "99.99", "", "99.9999", "", "99.999999"];
    (0i32..).zip(texts).map(|(power, text)| (10f64.powi(power), text.to_owned())).collect()
}

/// All with the same height, so that they can be compared by looking.
fn timelines(timelines: &[Timeline]) -> Vec<Chart> {
    let slowest = timelines.iter().flat_map(|line| line.slowest_ns.iter().copied()).max();
    let highest = slowest.unwrap_or(0) as f64 / 1e3;
    let of = |line: &Timeline| {
        let place = |n: usize| (n as f64 + 0.5) * line.instant_us / 1e3;
        let points = line.slowest_ns.iter().enumerate();
        Chart {
            title: format!("{}: slowest response, {}", line.subject, line.setting),
            note: format!(
                "Each point is the slowest of the requests of {} µs, counted from when it should \
                 have begun.",
                number(line.instant_us)
            ),
            x: Axis::new("time since the start (ms)", Scale::Linear).include(0.0),
            y: Axis::new("response (µs)", Scale::Log).include(highest).include(0.05),
            series: vec![Series {
                name: line.subject.to_string(),
                points: points.map(|(n, &nanos)| (place(n), nanos as f64 / 1e3)).collect(),
                draw: Draw::Plain,
            }],
            strips: line
                .passes
                .iter()
                .map(|pass| Strip {
                    name: pass.kind.to_string(),
                    from: pass.from_us / 1e3,
                    to: pass.to_us / 1e3,
                })
                .collect(),
        }
    };
    timelines.iter().map(of).collect()
}

/// Who, and his value.
type Values = Vec<(String, f64)>;

/// Bars side by side: one picture per figure of the cache, one bar per cache.
fn cache(rows: &[Row]) -> Vec<Chart> {
    let mut figures: BTreeMap<[&str; 3], Values> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.bar == "P12" || row.bar == "P13") {
        let values = figures.entry([&row.name, &row.setting, &row.unit]).or_default();
        let baseline = row.baseline.as_deref().zip(row.baseline_value);
        let pairs = [(&*row.subject, row.value)].into_iter();
        for (name, value) in pairs.chain(baseline.map(|(name, spread)| (name, spread.median))) {
            if !values.iter().any(|known| known.0 == name) {
                values.push((name.to_owned(), value));
            }
        }
    }
    let of = |([name, setting, unit], values): ([&str; 3], Values)| {
        let place = (1i32..).map(f64::from);
        let ticks = place.clone().zip(values.iter().map(|value| value.0.clone())).collect();
        let series = place.zip(&values).map(|(x, (name, value))| Series {
            name: name.clone(),
            points: vec![(x, *value)],
            draw: Draw::Bars,
        });
        Chart {
            title: format!("{name}, {setting}"),
            note: "Medians of the rounds.".into(),
            x: Axis::new("cache (name)", Scale::Linear)
                .ticks(ticks)
                .include(0.5)
                .include(values.len() as f64 + 0.5),
            y: Axis::new(format!("{name} ({unit})"), Scale::Linear).include(0.0),
            series: series.collect(),
            strips: Vec::new(),
        }
    };
    figures.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_in_settings() {
        let setting = "64 Ki buckets, 32 threads, ageing";
        assert_eq!(split(setting, "thread"), Some((32.0, "64 Ki buckets, ageing".into())));
        assert_eq!(split(setting, "bucket"), Some((65536.0, "32 threads, ageing".into())));
        assert_eq!(split("1 thread", "thread"), Some((1.0, String::new())));
        assert_eq!(split("sequential", "thread"), None);
        assert_eq!(buckets(1048576.0 * 16.0), "16 Mi");
    }
}
