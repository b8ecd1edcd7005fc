//! Who a device is, and by what its records are known.

use core::fmt;

/// A universally unique identifier.
///
/// ```
/// use tierce_core::record::Uuid;
/// assert_eq!(Uuid([0x11; 16]).to_string(), "11111111-1111-1111-1111-111111111111");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// What the magics of all records of a set are derived from: the first 8 bytes of its uuid.
///
/// ```
/// use tierce_core::record::SetMagic;
/// assert_eq!(SetMagic(0).jset(), 0x2452_35C1_A362_5032);
/// assert_ne!(SetMagic(1).prio_set(), SetMagic(2).prio_set());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SetMagic(pub u64);

impl SetMagic {
    /// The magic of journal entries.
    #[must_use]
    pub const fn jset(self) -> u64 {
        self.0 ^ 0x2452_35C1_A362_5032
    }

    /// The magic of prio sets.
    #[must_use]
    pub const fn prio_set(self) -> u64 {
        self.0 ^ 0x6750_E15F_8733_7F91
    }

    /// The magic of index nodes.
    #[must_use]
    pub const fn node(self) -> u64 {
        self.0 ^ 0x9013_5C78_B99E_07F5
    }
}
