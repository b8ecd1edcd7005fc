//! Values that prove what they are: every byte is derived from a key, a version and a size, so
//! that whoever reads a value can tell whether it is exactly the one that was written.
//!
//! ```text
//!   word 0      mix(key) ^ version         names the version, whatever else is damaged
//!   word i ≥ 1  mix(word 0 + i · odd)      64 bits each, little-endian
//!   the last word is cut to the size
//! ```
//! [`mix`] is a bijection of 64-bit words, so a value of another key, version or place within
//! the value differs in every word but for chance of 2⁻⁶⁴. Values under 8 bytes carry only the
//! low bytes of the version. Filling and checking run at memory speed.

/// A value that is fully described by its key, version and size.
///
/// ```
/// use tierce_bench::value::{Derived, Mismatch};
/// let value = Derived { key: 7, version: 3, size: 100 };
/// let mut bytes = Vec::new();
/// value.fill(&mut bytes);
/// assert_eq!(value.check(&bytes), Ok(()));
/// assert_eq!(Derived::version_of(7, &bytes), Some(3));
///
/// bytes[50] ^= 1;
/// assert_eq!(value.check(&bytes), Err(Mismatch::Bytes { offset: 48 }));
/// let newer = Derived { version: 4, ..value };
/// assert_eq!(newer.check(&bytes), Err(Mismatch::Version { found: 3 }));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Derived {
    /// Whose value.
    pub key: u64,
    /// Which one, below [`Derived::VERSION_END`].
    pub version: u64,
    /// In bytes.
    pub size: usize,
}

/// How a value differs from the one that was expected.
///
/// ```
/// use tierce_bench::value::Mismatch;
/// assert_eq!(Mismatch::Bytes { offset: 48 }.to_string(), "other bytes from byte 48 on");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Mismatch {
    /// It has another length.
    Size {
        /// The length found, in bytes.
        found: usize,
    },
    /// It is another version of the same key.
    Version {
        /// The version found.
        found: u64,
    },
    /// It is another key's, or was never a value.
    Key,
    /// It starts right and goes on wrong.
    Bytes {
        /// Of the first wrong 8-byte word, in bytes.
        offset: usize,
    },
}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Size { found } => write!(f, "{found} bytes"),
            Self::Version { found } => write!(f, "version {found}"),
            Self::Key => write!(f, "bytes that are no value of this key"),
            Self::Bytes { offset } => write!(f, "other bytes from byte {offset} on"),
        }
    }
}

impl Derived {
    /// Versions are below 2⁴⁸, which tells them from another key's bytes.
    pub const VERSION_END: u64 = 1 << 48;

    /// The 64-bit word at `index`.
    fn word(self, index: usize) -> [u8; 8] {
        let first = mix(self.key) ^ self.version;
        let word = match index as u64 {
            0 => first,
            i => mix(first.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
        };
        word.to_le_bytes()
    }

    /// Makes `bytes` this value.
    pub fn fill(self, bytes: &mut Vec<u8>) {
        assert!(self.version < Self::VERSION_END, "version {} is too large", self.version);
        bytes.clear();
        bytes.resize(self.size, 0);
        let (words, rest) = bytes.as_chunks_mut();
        words.iter_mut().enumerate().for_each(|(index, word)| *word = self.word(index));
        rest.copy_from_slice(&self.word(words.len())[..rest.len()]);
    }

    /// Whether `bytes` are exactly this value.
    ///
    /// # Errors
    /// How they differ.
    pub fn check(self, bytes: &[u8]) -> Result<(), Mismatch> {
        let (words, rest) = bytes.as_chunks();
        let wrong = words.iter().enumerate().position(|(index, word)| *word != self.word(index));
        let wrong = wrong.or_else(|| {
            let last = self.word(words.len());
            (*rest != last[..rest.len()]).then_some(words.len())
        });
        match wrong.map(|word| word * 8) {
            Some(0) => Err(match Self::version_of(self.key, bytes) {
                Some(found) if bytes.len() >= 8 => Mismatch::Version { found },
                _ => Mismatch::Key,
            }),
            _ if bytes.len() != self.size => Err(Mismatch::Size { found: bytes.len() }),
            Some(offset) => Err(Mismatch::Bytes { offset }),
            None => Ok(()),
        }
    }

    /// The version that `bytes` claim to be, if they claim to be `key`'s value; of values under
    /// 8 bytes the low bits only.
    #[must_use]
    pub fn version_of(key: u64, bytes: &[u8]) -> Option<u64> {
        let mut first = [0; 8];
        let stored = bytes.len().min(8);
        first[..stored].copy_from_slice(&bytes[..stored]);
        let kept = if stored == 8 { u64::MAX } else { (1 << (8 * stored)) - 1 };
        let version = (u64::from_le_bytes(first) ^ mix(key)) & kept;
        (version < Self::VERSION_END).then_some(version)
    }
}

/// A bijection of 64-bit words whose every output bit depends on every input bit.
///
/// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number
/// Generators, OOPSLA 2014).
///
/// ```
/// use tierce_bench::value::mix;
/// assert_ne!(mix(1), mix(2));
/// ```
#[must_use]
pub const fn mix(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(value: Derived) -> Vec<u8> {
        let mut bytes = vec![0xaa; 3];
        value.fill(&mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn a_value_is_itself_and_nothing_else(
            key: u64, version in 0..Derived::VERSION_END, size in 8usize..3000, flip: u64
        ) {
            let value = Derived { key, version, size };
            let bytes = bytes_of(value);
            prop_assert_eq!(bytes.len(), size);
            prop_assert_eq!(value.check(&bytes), Ok(()));
            prop_assert_eq!(Derived::version_of(key, &bytes), Some(version));

            let older = Derived { version: version ^ 1, ..value };
            prop_assert_eq!(older.check(&bytes), Err(Mismatch::Version { found: version }));
            let other = Derived { key: key ^ 1, ..value };
            prop_assert!(other.check(&bytes).is_err());
            let longer = Derived { size: size + 1, ..value };
            prop_assert_eq!(longer.check(&bytes), Err(Mismatch::Size { found: size }));

            let mut damaged = bytes;
            let at = flip as usize % size;
            damaged[at] ^= 1 << (flip >> 61);
            prop_assert!(value.check(&damaged).is_err(), "flipped a bit of byte {}", at);
        }
    }

    #[test]
    fn torn_values_are_told_from_whole_ones() {
        let (old, new) = (
            Derived { key: 1, version: 1, size: 4096 },
            Derived { key: 1, version: 2, size: 4096 },
        );
        let mut torn = bytes_of(new);
        torn[2048..].copy_from_slice(&bytes_of(old)[2048..]);
        assert_eq!(new.check(&torn), Err(Mismatch::Bytes { offset: 2048 }));
        assert_eq!(old.check(&torn), Err(Mismatch::Version { found: 2 }));
    }

    #[test]
    fn short_values_are_checked_as_far_as_they_go() {
        let value = Derived { key: 5, version: 0x1234, size: 1 };
        assert_eq!(value.check(&bytes_of(value)), Ok(()));
        let next = Derived { version: 0x1235, ..value };
        assert_eq!(next.check(&bytes_of(value)), Err(Mismatch::Key));
        assert_eq!(value.check(&[]), Err(Mismatch::Size { found: 0 }));
    }
}
