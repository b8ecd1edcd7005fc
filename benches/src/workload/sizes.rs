//! How large generated values are.
//!
//! Sizes of web objects are close to log-normal (A. Downey: Lognormal and Pareto distributions
//! in the Internet, Computer Communications 28, 2005). The default parameters are those of the
//! 36 815 objects in the web trace that the AdaptSize authors published: ln(size in bytes) has
//! mean 7.77 and standard deviation 1.64, that is a median of 2.4 kB, 16 % below 0.45 kB, 16 %
//! above 12 kB. What falls outside 64 B to 100 KiB (1 % each) is moved to the nearer end,
//! which leaves a mean of about 7.9 kB.

use crate::error::Error;
use rand_distr::{Distribution, LogNormal};
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::SeedableRng;

/// A log-normal distribution of value sizes between two limits; each key has one size for ever.
///
/// ```
/// use tierce_bench::workload::ValueSizes;
/// let sizes = ValueSizes::web(100 * 1024).unwrap();
/// assert_eq!(sizes.of_key(42), sizes.of_key(42));
/// assert!((64..=100 * 1024).contains(&sizes.of_key(42)));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ValueSizes {
    distribution: LogNormal<f64>,
    min: u64,
    max: u64,
}

impl ValueSizes {
    /// The mean of ln(size in bytes) of the web trace.
    pub const WEB_LN_MEAN: f64 = 7.77;
    /// The standard deviation of ln(size in bytes) of the web trace.
    pub const WEB_LN_DEVIATION: f64 = 1.64;

    /// The sizes of web objects, from 64 bytes to `max` bytes.
    ///
    /// # Errors
    /// [`Error::Setting`] if `max` is below 64.
    pub fn web(max: u64) -> Result<Self, Error> {
        Self::log_normal(Self::WEB_LN_MEAN, Self::WEB_LN_DEVIATION, 64, max)
    }

    /// Sizes whose natural logarithm has this mean and standard deviation, `min` to `max` bytes.
    ///
    /// # Errors
    /// [`Error::Setting`] if `min > max` or a parameter is not a finite number, or the
    /// deviation is negative.
    pub fn log_normal(mean: f64, deviation: f64, min: u64, max: u64) -> Result<Self, Error> {
        if min > max {
            return Err(Error::Setting {
                what: "the largest value size",
                found: format!("{max} bytes"),
                wanted: format!("at least {min} bytes"),
            });
        }
        let valid = mean.is_finite() && deviation.is_finite() && deviation >= 0.0;
        match LogNormal::new(mean, deviation) {
            Ok(distribution) if valid => Ok(Self { distribution, min, max }),
            _ => Err(Error::Setting {
                what: "the mean and deviation of ln(size)",
                found: format!("{mean} and {deviation}"),
                wanted: "finite numbers, the deviation not negative".to_owned(),
            }),
        }
    }

    /// The size of this key's values, in bytes.
    #[must_use]
    pub fn of_key(&self, key: u64) -> u64 {
        let drawn = self.distribution.sample(&mut SplitMix64::seed_from_u64(key));
        // A float beyond the integers' range becomes the largest one, which is cut to `max`.
        (drawn.round() as u64).clamp(self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Over 100 000 keys the quantiles are those of the log-normal, to 3 %.
    #[test]
    fn quantiles_are_those_of_the_distribution() {
        let sizes = ValueSizes::web(u64::MAX).unwrap();
        let mut drawn: Vec<_> = (0..100_000).map(|key| sizes.of_key(key) as f64).collect();
        drawn.sort_by(f64::total_cmp);
        for (rank, deviations) in [(15_866, -1.0), (50_000, 0.0), (84_134, 1.0)] {
            let wanted =
                (ValueSizes::WEB_LN_MEAN + deviations * ValueSizes::WEB_LN_DEVIATION).exp();
            let ratio = drawn[rank] / wanted;
            assert!((0.97..1.03).contains(&ratio), "quantile {rank}: {ratio}");
        }
    }

    #[test]
    fn limits_hold_and_the_mean_is_as_documented() {
        let sizes = ValueSizes::web(100 * 1024).unwrap();
        let drawn = (0..100_000).map(|key| sizes.of_key(key));
        let (mut sum, mut low, mut high) = (0, 0, 0);
        for size in drawn {
            assert!((64..=100 * 1024).contains(&size));
            sum += size;
            low += u32::from(size == 64);
            high += u32::from(size == 100 * 1024);
        }
        assert!((7_600..8_200).contains(&(sum / 100_000)), "mean {}", sum / 100_000);
        assert!((1_000..2_000).contains(&low) && (700..1_500).contains(&high), "{low} {high}");
    }

    #[test]
    fn parameters_are_checked() {
        assert!(ValueSizes::web(63).is_err());
        assert!(ValueSizes::log_normal(f64::NAN, 1.0, 1, 2).is_err());
        assert!(ValueSizes::log_normal(1.0, -1.0, 1, 2).is_err());
    }
}
