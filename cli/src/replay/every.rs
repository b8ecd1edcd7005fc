//! `tierce replay --every`: what the cache does, a line every so many seconds.

use crate::stdout::print;
use bytesize::ByteSize;
use indicatif::HumanCount;
use std::str::FromStr;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use tierce_bench::backend::Tierce;
use tierce_bench::measure::rss_bytes;
use tierce_bench::replay::{Interval, Watch};
use tierce_cache::Stats;

/// Lines between two headings.
const PAGE: u64 = 20;

/// How often.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Every(Duration);

impl FromStr for Every {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<f64>() {
            Ok(seconds) if (0.01..=3600.0).contains(&seconds) => {
                Ok(Self(Duration::from_secs_f64(seconds)))
            }
            _ => Err("wanted 0.01 to 3600 seconds"),
        }
    }
}

/// Does `work`, and meanwhile prints what `store` and the run that is watched do: `every` so often,
/// and once more when it ends.
pub(super) fn told<T>(every: Every, store: &Tierce, watch: &Watch, work: impl FnOnce() -> T) -> T {
    let (ended, end) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut table = Table::begin(store.cache().stats());
            let mut goes_on = true;
            while goes_on {
                goes_on = end.recv_timeout(every.0) == Err(RecvTimeoutError::Timeout);
                let line = table.line(store.cache().stats(), &watch.take(), rss_bytes());
                // The run goes on, and what it comes to is printed as well: that tells.
                let _ = print(&line);
            }
        });
        // Dropped also if it panics, so the other thread ends.
        let _ended = ended;
        work()
    })
}

/// Headings, wide enough for what stands below.
const COLUMNS: [&str; 14] = [
    "  time s",
    "   gets/s",
    " hits %",
    "inserts/s",
    "write MB/s",
    "get p99 µs",
    "insert p99 µs",
    "free none",
    "moving",
    "prio",
    "reused/s",
    "waits/s",
    "      index",
    "    process",
];

/// The lines so far.
struct Table {
    began: Instant,
    at: Instant,
    before: Stats,
    lines: u64,
}

impl Table {
    fn begin(stats: Stats) -> Self {
        let now = Instant::now();
        Self { began: now, at: now, before: stats, lines: 0 }
    }

    /// What happened since the line before.
    fn line(&mut self, now: Stats, interval: &Interval, process: Option<u64>) -> String {
        let at = Instant::now();
        let seconds = at.duration_since(self.at).as_secs_f64().max(1e-9);
        let since = at.duration_since(self.began).as_secs_f64();
        let cells = cells(since, seconds, &self.before, &now, interval, process);
        let mut text = String::new();
        if self.lines.is_multiple_of(PAGE) {
            text += &COLUMNS.join("  ");
            text += "\n";
        }
        let width = |column: &str| column.chars().count();
        let cells: Vec<_> = cells
            .iter()
            .zip(COLUMNS)
            .map(|(cell, column)| format!("{cell:>width$}", width = width(column)))
            .collect();
        text += &cells.join("  ");
        text += "\n";
        (self.at, self.before, self.lines) = (at, now, self.lines + 1);
        text
    }
}

fn cells(
    since: f64,
    seconds: f64,
    before: &Stats,
    now: &Stats,
    interval: &Interval,
    process: Option<u64>,
) -> [String; COLUMNS.len()] {
    let rate = |count: u64| HumanCount((count as f64 / seconds) as u64).to_string();
    let more = |of: fn(&Stats) -> u64| of(now).saturating_sub(of(before));
    let micros = |latency: &tierce_bench::measure::Latency| match latency.count() {
        0 => "-".to_owned(),
        _ => format!("{:.1}", latency.nanos_at(0.99) as f64 / 1e3),
    };
    let free = |of: fn(&tierce_cache::DeviceStats) -> u64| {
        HumanCount(now.devices.iter().map(of).sum()).to_string()
    };
    let hits = match interval.accesses {
        0 => "-".to_owned(),
        all => format!("{:.2}", interval.hits as f64 * 100.0 / all as f64),
    };
    [
        format!("{since:.1}"),
        rate(interval.accesses),
        hits,
        rate(more(|stats| stats.inserts)),
        format!("{:.1}", more(|stats| stats.device_bytes_written) as f64 / seconds / 1e6),
        micros(&interval.get),
        micros(&interval.insert),
        free(|device| device.free_none),
        free(|device| device.free_moving_gc),
        free(|device| device.free_prio),
        rate(more(|stats| stats.invalidated)),
        rate(more(|stats| stats.space_waits + stats.memory_waits)),
        ByteSize(now.index_bytes).to_string(),
        process.map_or_else(|| "-".to_owned(), |bytes| ByteSize(bytes).to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_happened_since_the_one_before() {
        let mut now = Stats::default();
        (now.inserts, now.device_bytes_written, now.invalidated) = (3000, 5_000_000, 30);
        (now.space_waits, now.memory_waits, now.index_bytes) = (4, 6, 1 << 20);
        let mut before = Stats::default();
        (before.inserts, before.invalidated) = (1000, 10);
        let mut interval = Interval::default();
        (interval.accesses, interval.hits) = (10_000, 2500);
        interval.get.record(Duration::from_micros(50));
        let cells = cells(7.0, 2.0, &before, &now, &interval, Some(1 << 30));
        let wanted = [
            "7.0", "5,000", "25.00", "1,000", "2.5", "50.0", "-", "0", "0", "0", "10", "5",
            "1.0 MiB", "1.0 GiB",
        ];
        assert!(cells[5].starts_with("50.0") || cells[5].starts_with("49.9"), "{cells:?}");
        for (number, (cell, wanted)) in cells.iter().zip(wanted).enumerate() {
            assert!(number == 5 || cell == wanted, "{} is {cell}", COLUMNS[number]);
        }
    }

    #[test]
    fn headings_stand_above_their_cells() {
        let mut table = Table::begin(Stats::default());
        let text = table.line(Stats::default(), &Interval::default(), None);
        let widths: Vec<_> = text.lines().map(|line| line.chars().count()).collect();
        assert_eq!(widths.len(), 2, "{text}");
        assert_eq!(widths[0], widths[1], "{text}");
        assert_eq!(table.line(Stats::default(), &Interval::default(), None).lines().count(), 1);
    }

    #[test]
    fn seconds_have_a_range() {
        assert_eq!("1".parse(), Ok(Every(Duration::from_secs(1))));
        assert_eq!("0.5".parse(), Ok(Every(Duration::from_millis(500))));
        for bad in ["0", "-1", "NaN", "3601", "", "1s"] {
            assert!(bad.parse::<Every>().is_err(), "{bad}");
        }
    }
}
