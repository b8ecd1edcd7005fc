//! What can go wrong.

use crate::codec::BadCode;
use std::sync::Arc;

/// Why an operation of the cache was refused or failed. Messages name device and place.
///
/// ```
/// use tierce_cache::Error;
/// let e = Error::TooLarge { bytes: 70_000, largest: 65_024 };
/// assert_eq!(e.to_string(), "key and value are 70000 bytes, at most 65024 can be stored");
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing was written; an older value of the key is still there.
    #[error("key and value are {bytes} bytes, at most {largest} can be stored")]
    TooLarge {
        /// Of key and value together.
        bytes: u64,
        /// That could be stored.
        largest: u64,
    },
    /// A key has at least one byte.
    #[error("the key is empty")]
    EmptyKey,
    /// There is no memory or no bucket just now, and the cache was told not to wait. An older value
    /// of the key is still there.
    #[error("no room for another entry just now")]
    Full,
    /// No memory or bucket became free in time. An older value of the key is still there.
    #[error("no room for another entry within {waited_ms} ms")]
    TimedOut {
        /// How long the insert waited.
        waited_ms: u128,
    },
    /// The cache was opened to [recover meanwhile](crate::Recover), it is not known yet what is on
    /// its devices, and it was told not to wait, or that took too long. Nothing was changed.
    #[error("the cache is still recovering: {known} of {buckets} buckets are known")]
    Recovering {
        /// Buckets of which it is known what they hold.
        known: u64,
        /// Buckets that may hold something.
        buckets: u64,
    },
    /// What fills a key asked for the same key, with [`get_with`](crate::Cache::get_with): it would
    /// wait for itself.
    #[error("a fill asks for the key that it fills")]
    FillsItself,
    /// The device has failed, or the cache was closed.
    #[error(transparent)]
    Space(#[from] tierce_lockfree::Error),
    /// The device, or what is on it.
    #[error(transparent)]
    Io(Arc<tierce_io::Error>),
    /// Some of what was acknowledged could not be written.
    #[error("{device}: some entries could not be written")]
    Lost {
        /// The device.
        device: String,
    },
    /// The devices are not alike.
    #[error("{device}: buckets of {found:?} bytes and blocks, wanted {wanted:?} as on the first")]
    Geometry {
        /// The device.
        device: String,
        /// Bytes of its buckets and blocks.
        found: (u32, u32),
        /// Bytes of those of the first device.
        wanted: (u32, u32),
    },
    /// Buckets have no room for records.
    #[error("{device}: buckets of {bucket_bytes} bytes are too small for a cache")]
    SmallBuckets {
        /// The device.
        device: String,
        /// Bytes of a bucket.
        bucket_bytes: u32,
    },
    /// What is on the device may be newer than what is found, and there is no place on buckets below
    /// 16 KiB to note that none of it counts any more. With larger ones the cache starts empty
    /// instead. Format the device anew.
    #[error("{why}: format the device anew")]
    Unknown {
        /// What it is, and where.
        why: String,
    },
    /// A device and a copy of it.
    #[error("{device}: has the same uuid as {other}: one is a copy, or named twice")]
    Twice {
        /// The device.
        device: String,
        /// The other one.
        other: String,
    },
    /// A stored key or value is not of the type that was asked for.
    #[error("a stored entry is of another type: {0}")]
    Code(#[from] BadCode),
    /// A thread could not be started.
    #[error("cannot start the {thread} thread: {cause}")]
    Thread {
        /// Which.
        thread: &'static str,
        /// What the system said.
        cause: Arc<std::io::Error>,
    },
}

impl From<tierce_io::Error> for Error {
    fn from(error: tierce_io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}
