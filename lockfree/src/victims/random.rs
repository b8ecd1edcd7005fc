//! Uniformly at random: at most `nbuckets / 2` draws a pass.

use super::Pass;
use crate::table::Invalidated;
use tierce_core::BucketIndex;

/// A small generator of random numbers (SplitMix64): good enough to spread victims, and the
/// same everywhere for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// A number below `n`, by multiplication: the bias is below n / 2^32.
    fn below(&mut self, n: u32) -> u32 {
        (((self.next() >> 32) * u64::from(n)) >> 32) as u32
    }
}

/// Runs a pass.
pub(crate) fn pass<F>(pass: &mut Pass<'_, F>, rng: &mut Rng)
where
    F: FnMut(BucketIndex, Invalidated),
{
    let first = pass.geometry.first_bucket().get();
    let usable = pass.geometry.nbuckets() - first;
    let mut draws = pass.geometry.nbuckets() / 2;
    while pass.wanted > 0 && draws > 0 {
        pass.take(BucketIndex::new(first + rng.below(usable)));
        draws -= 1;
    }
}
