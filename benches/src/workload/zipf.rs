//! The built-in workload: few keys wanted often, many wanted rarely.
//!
//! The k-th most popular of n keys is wanted with a probability proportional to k^−exponent
//! (Zipf's law). A rank is turned into a key by a bijection, so that neighbours in popularity
//! are not neighbours in the key space. Most requests read; some write, some remove. The same
//! seed gives the same requests.

use super::ValueSizes;
use crate::error::Error;
use crate::trace::{Op, Request, Target};
use crate::value::mix;
use rand_distr::Distribution;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::time::Duration;

/// What the Zipf workload looks like.
///
/// ```
/// use tierce_bench::workload::ZipfSettings;
/// let mut settings = ZipfSettings::default();
/// settings.keys = 1000;
/// assert!(settings.validate().is_ok());
/// settings.write_share = 2.0;
/// let error = settings.validate().unwrap_err().to_string();
/// assert_eq!(error, "the write share plus the remove share is 2.01, wanted 0 to 1");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ZipfSettings {
    /// How many keys there are. 1 to 2³².
    pub keys: u64,
    /// How uneven their popularity is: 0 for all the same, to 10. Measured caches are at 0.6
    /// to 1.2.
    pub exponent: f64,
    /// How many requests are made.
    pub requests: u64,
    /// Which share of them writes, 0 to 1.
    pub write_share: f64,
    /// Which share of them removes, 0 to 1.
    pub remove_share: f64,
    /// How large values are.
    pub sizes: ValueSizes,
    /// What the random numbers start from.
    pub seed: u64,
}

impl Default for ZipfSettings {
    /// 600 000 requests for 500 000 keys (about 3.9 GB of values) at exponent 0.9, of which
    /// 5 % write and 1 % remove, values as web objects up to 100 KiB.
    fn default() -> Self {
        Self {
            keys: 500_000,
            exponent: 0.9,
            requests: 600_000,
            write_share: 0.05,
            remove_share: 0.01,
            sizes: ValueSizes::web(100 * 1024).expect("100 KiB is above the least size"),
            seed: 0,
        }
    }
}

impl ZipfSettings {
    /// Checks all settings against their ranges.
    ///
    /// # Errors
    /// [`Error::Setting`] for the first one out of range.
    pub fn validate(&self) -> Result<(), Error> {
        let setting = |what, found: String, wanted: &str| {
            Err(Error::Setting { what, found, wanted: wanted.to_owned() })
        };
        let shares = self.write_share + self.remove_share;
        if !(1..=1 << 32).contains(&self.keys) {
            setting("the number of keys", self.keys.to_string(), "1 to 2^32")
        } else if !(0.0..=10.0).contains(&self.exponent) {
            setting("the exponent", self.exponent.to_string(), "0 to 10")
        } else if self.write_share < 0.0 || self.remove_share < 0.0 {
            let found = self.write_share.min(self.remove_share).to_string();
            setting("the lesser of the write and remove shares", found, "0 to 1")
        } else if !(0.0..=1.0).contains(&shares) {
            setting("the write share plus the remove share", shares.to_string(), "0 to 1")
        } else {
            Ok(())
        }
    }
}

/// The requests of a Zipf workload: an iterator, as a trace is.
///
/// ```
/// use tierce_bench::workload::{Zipf, ZipfSettings};
/// let mut settings = ZipfSettings::default();
/// settings.requests = 10;
/// let requests: Vec<_> = Zipf::new(&settings).unwrap().map(Result::unwrap).collect();
/// assert_eq!(requests.len(), 10);
/// let again: Vec<_> = Zipf::new(&settings).unwrap().map(Result::unwrap).collect();
/// assert_eq!(requests, again);
/// ```
#[derive(Clone, Debug)]
pub struct Zipf {
    ranks: rand_distr::Zipf<f64>,
    random: Xoshiro256PlusPlus,
    sizes: ValueSizes,
    /// A draw of 53 bits below this writes, …
    write_below: f64,
    /// … one below this removes, any other reads.
    remove_below: f64,
    left: u64,
}

impl Zipf {
    /// Prepares the workload.
    ///
    /// # Errors
    /// [`Error::Setting`] if a setting is out of range.
    pub fn new(settings: &ZipfSettings) -> Result<Self, Error> {
        settings.validate()?;
        let ranks = rand_distr::Zipf::new(settings.keys as f64, settings.exponent);
        Ok(Self {
            ranks: ranks.expect("the settings are in range"),
            random: Xoshiro256PlusPlus::seed_from_u64(settings.seed),
            sizes: settings.sizes,
            write_below: settings.write_share,
            remove_below: settings.write_share + settings.remove_share,
            left: settings.requests,
        })
    }

    fn draw(&mut self) -> Request {
        let rank = self.ranks.sample(&mut self.random) as u64;
        let key = mix(rank);
        let share = (self.random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let op = if share < self.write_below {
            Op::Set
        } else if share < self.remove_below {
            Op::Remove
        } else {
            Op::Get
        };
        let size = self.sizes.of_key(key);
        Request { time: Duration::ZERO, op, target: Target::Object(key), size }
    }
}

impl Iterator for Zipf {
    type Item = Result<Request, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some(Ok(self.draw()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.left).ok();
        (left.unwrap_or(usize::MAX), left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn counts(settings: &ZipfSettings) -> HashMap<u64, u32> {
        let mut counts = HashMap::new();
        for request in Zipf::new(settings).unwrap() {
            *counts.entry(request.unwrap().target.key()).or_default() += 1;
        }
        counts
    }

    /// The frequency of the k-th key is k^-s / H, within four standard deviations.
    #[test]
    fn frequencies_follow_the_law() {
        let settings = ZipfSettings { keys: 1000, requests: 200_000, ..Default::default() };
        let harmonic: f64 = (1..=1000).map(|k| f64::from(k).powf(-0.9)).sum();
        let counts = counts(&settings);
        for rank in [1u32, 2, 10, 100, 1000] {
            let wanted = 200_000.0 * f64::from(rank).powf(-0.9) / harmonic;
            let found = f64::from(counts[&mix(u64::from(rank))]);
            let deviations = (found - wanted).abs() / wanted.sqrt();
            assert!(deviations < 4.0, "rank {rank}: found {found}, wanted {wanted}");
        }
        assert!(counts.len() <= 1000);
    }

    #[test]
    fn shares_are_as_set_and_seeds_differ() {
        let settings = ZipfSettings { requests: 100_000, ..Default::default() };
        let ops = |op| Zipf::new(&settings).unwrap().filter(move |r| r.as_ref().unwrap().op == op);
        assert!((4_700..5_300).contains(&ops(Op::Set).count()));
        assert!((870..1_130).contains(&ops(Op::Remove).count()));
        assert_ne!(counts(&settings), counts(&ZipfSettings { seed: 1, ..settings.clone() }));
    }

    #[test]
    fn settings_are_checked() {
        let bad = |change: fn(&mut ZipfSettings)| {
            let mut settings = ZipfSettings::default();
            change(&mut settings);
            Zipf::new(&settings).unwrap_err().to_string()
        };
        assert!(bad(|s| s.keys = 0).starts_with("the number of keys is 0"));
        assert!(bad(|s| s.exponent = f64::NAN).starts_with("the exponent is NaN"));
        assert!(bad(|s| s.remove_share = -0.5).starts_with("the lesser of the write and"));
        assert!(bad(|s| s.write_share = f64::NAN).contains("wanted 0 to 1"));
    }
}
