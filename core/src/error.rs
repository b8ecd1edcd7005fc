//! What can be wrong with a value given to, or found by, this crate.

use crate::bucket::BucketIndex;
use core::fmt;

/// Why a configuration or a record was refused.
///
/// Every variant names what was looked at, what was found and what was wanted, so that the
/// message can be acted on without a debugger. The device is not known here: whoever reads it
/// adds its name.
///
/// ```
/// use tierce_core::Geometry;
/// let e = Geometry::new(0, 1, 128, 1).unwrap_err();
/// assert_eq!(e.to_string(), "nbuckets is 0, wanted 8 to 33554432");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is outside its range.
    #[error("{what} is {found}, wanted {wanted}")]
    Limit {
        /// The setting, by its public name.
        what: &'static str,
        /// The value that was given.
        found: u64,
        /// The range or rule it breaks.
        wanted: String,
    },
    /// A record on a device is damaged, or breaks a rule of the format.
    #[error("{record} at {place}: {field} is {found}, wanted {wanted}")]
    Record {
        /// What kind of record.
        record: RecordKind,
        /// Where it lies.
        place: Place,
        /// The field, by its name in the layout.
        field: &'static str,
        /// What the field holds.
        found: String,
        /// The value or rule it breaks.
        wanted: String,
    },
    /// The device carries no superblock of this format: it was never formatted, or belongs to
    /// something else.
    #[error("no cache superblock at byte 4096: magic is {found}, wanted {wanted}")]
    NotFormatted {
        /// The 16 bytes found where the magic should be, in hexadecimal.
        found: String,
        /// The magic, in hexadecimal.
        wanted: String,
    },
    /// The device is one that is cached, not one that caches.
    #[error("superblock version is {version}: a backing device, wanted a cache device (0, 3, 5)")]
    BackingDevice {
        /// The version found: 1, 2, 4 or 6.
        version: u64,
    },
    /// The device uses features that this version does not know.
    #[error("superblock {word} has the unknown bits {bits:#x}: written by something newer")]
    UnknownFeature {
        /// Which of the feature words.
        word: &'static str,
        /// The bits of it that are not known.
        bits: u64,
    },
    /// Something was asked of a bucket or a set whose state does not allow it.
    #[error("{what}: found {found}, wanted {wanted}")]
    State {
        /// What was asked, and of what.
        what: String,
        /// The state it is in.
        found: String,
        /// The state it would have to be in.
        wanted: &'static str,
    },
    /// A line of a script cannot be understood or carried out.
    #[error("line {line}: {what}: found {found}, wanted {wanted}")]
    Script {
        /// The line, counted from 1.
        line: usize,
        /// The operation and argument.
        what: String,
        /// What stands there.
        found: String,
        /// What could stand there.
        wanted: String,
    },
}

impl Error {
    /// A [`Error::Limit`] for `what`.
    pub(crate) fn limit(what: &'static str, found: impl Into<u64>, wanted: String) -> Self {
        Self::Limit { what, found: found.into(), wanted }
    }

    /// A [`Error::State`].
    pub(crate) fn state(
        what: impl Into<String>,
        found: impl core::fmt::Display,
        wanted: &'static str,
    ) -> Self {
        Self::State { what: what.into(), found: found.to_string(), wanted }
    }
}

/// A kind of record on a device.
///
/// ```
/// use tierce_core::error::RecordKind;
/// assert_eq!(RecordKind::PrioSet.to_string(), "prio set");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RecordKind {
    /// What the device is: its shape and to which set it belongs.
    Superblock,
    /// A journal entry.
    Jset,
    /// Gens and prios of a range of buckets.
    PrioSet,
    /// A key with its pointers.
    Key,
    /// A node of the index.
    Node,
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Superblock => "superblock",
            Self::Jset => "journal entry",
            Self::PrioSet => "prio set",
            Self::Key => "key",
            Self::Node => "index node",
        })
    }
}

/// Where on a device a record lies.
///
/// ```
/// use tierce_core::{BucketIndex, error::Place};
/// assert_eq!(Place::device(4096).to_string(), "byte 4096");
/// assert_eq!(Place::bucket(BucketIndex::new(7), 512).to_string(), "bucket 7 byte 512");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// The bucket, or `None` for places counted from the start of the device.
    pub bucket: Option<BucketIndex>,
    /// Bytes from the start of the bucket, or of the device.
    pub byte: u64,
}

impl Place {
    /// `byte` bytes from the start of the device.
    #[must_use]
    pub const fn device(byte: u64) -> Self {
        Self { bucket: None, byte }
    }

    /// `byte` bytes from the start of `bucket`.
    #[must_use]
    pub const fn bucket(bucket: BucketIndex, byte: u64) -> Self {
        Self { bucket: Some(bucket), byte }
    }

    /// `bytes` bytes further on.
    #[must_use]
    pub const fn plus(self, bytes: u64) -> Self {
        Self { bucket: self.bucket, byte: self.byte.saturating_add(bytes) }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bucket {
            Some(bucket) => write!(f, "bucket {bucket} byte {}", self.byte),
            None => write!(f, "byte {}", self.byte),
        }
    }
}
