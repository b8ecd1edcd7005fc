//! Latencies: one histogram per thread and kind of operation, merged at the end.

use hdrhistogram::Histogram;
use std::time::Duration;

/// How long operations took: a histogram from 1 ns to 1 h at three significant digits.
///
/// ```
/// use std::time::Duration;
/// use tierce_bench::measure::Latency;
/// let mut all = Latency::default();
/// let mut mine = Latency::default();
/// (1..=1000).for_each(|us| mine.record(Duration::from_micros(us)));
/// all.merge(&mine);
/// let summary = all.summary();
/// assert_eq!(all.count(), 1000);
/// assert!((summary.p50 - 500.0).abs() < 1.0 && (summary.max - 1000.0).abs() < 1.0);
/// ```
#[derive(Clone, Debug)]
pub struct Latency {
    nanos: Histogram<u64>,
}

/// One hour, in nanoseconds; longer counts as this.
const NANOS_MAX: u64 = 3_600_000_000_000;

impl Default for Latency {
    fn default() -> Self {
        let nanos = Histogram::new_with_max(NANOS_MAX, 3);
        Self { nanos: nanos.expect("the bounds are constants in the histogram's range") }
    }
}

impl Latency {
    /// Counts one operation.
    pub fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(NANOS_MAX);
        self.nanos.saturating_record(nanos);
    }

    /// Counts all that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        self.nanos.add(&other.nanos).expect("all latencies have the same bounds");
    }

    /// How many operations were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.nanos.len()
    }

    /// Counts one operation that took so many nanoseconds.
    pub fn record_nanos(&mut self, nanos: u64) {
        self.nanos.saturating_record(nanos);
    }

    /// What a share `quantile` (0 to 1) of the operations took at most, in nanoseconds.
    #[must_use]
    pub fn nanos_at(&self, quantile: f64) -> u64 {
        self.nanos.value_at_quantile(quantile).min(self.nanos.max())
    }

    /// The distribution as a line: ever higher quantiles, as far as there are operations to tell
    /// them apart, each with its nanoseconds. The last is the maximum.
    ///
    /// ```
    /// let mut latency = tierce_bench::measure::Latency::default();
    /// (1..=1000).for_each(|nanos| latency.record_nanos(nanos));
    /// let curve = latency.curve();
    /// assert_eq!(curve.first(), Some(&(0.0, 1)));
    /// let (quantile, nanos) = curve[curve.len() - 1];
    /// assert!((quantile - 0.999).abs() < 1e-9 && nanos == 1000);
    /// ```
    #[must_use]
    pub fn curve(&self) -> Vec<(f64, u64)> {
        // Four steps per factor of ten in the share that is slower: 1, 0.56, 0.32, 0.18, 0.1 …
        let slower = (0..).map(|step| 10f64.powf(-f64::from(step) / 4.0));
        let told_apart = slower.take_while(|slower| slower * self.count() as f64 >= 0.999);
        let points = told_apart.map(|slower| (1.0 - slower, self.nanos_at(1.0 - slower)));
        let mut points: Vec<_> = points.collect();
        if let Some(last) = points.last_mut() {
            last.1 = self.nanos.max();
        }
        points
    }

    /// The figures people look at.
    #[must_use]
    pub fn summary(&self) -> LatencySummary {
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        let quantile = |q| micros(self.nanos.value_at_quantile(q).min(self.nanos.max()));
        LatencySummary {
            p50: quantile(0.5),
            p99: quantile(0.99),
            p999: quantile(0.999),
            max: micros(self.nanos.max()),
        }
    }
}

/// Quantiles in microseconds; 0 if nothing was counted.
///
/// ```
/// use tierce_bench::measure::{Latency, LatencySummary};
/// assert_eq!(Latency::default().summary(), LatencySummary::default());
/// ```
#[derive(Clone, Copy, PartialEq, Default, Debug, serde::Serialize, serde::Deserialize)]
pub struct LatencySummary {
    /// Half of the operations took at most this.
    pub p50: f64,
    /// 99 % took at most this.
    pub p99: f64,
    /// 99.9 % took at most this.
    pub p999: f64,
    /// The slowest one.
    pub max: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_are_kept_in_range() {
        let mut latency = Latency::default();
        latency.record(Duration::ZERO);
        latency.record(Duration::from_secs(100_000));
        assert_eq!(latency.count(), 2);
        let hour = 3.6e9;
        assert!((latency.summary().max - hour).abs() / hour < 0.002);
    }
}
