//! What can go wrong.

use std::sync::Arc;

/// Why an operation of the cache was refused or failed. Messages name device and place.
///
/// ```
/// use tierce_cache::Error;
/// let e = Error::TooLarge { bytes: 70_000, largest: 65_024 };
/// assert_eq!(e.to_string(), "key and value are 70000 bytes, at most 65024 fit a bucket");
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Key and value do not fit a bucket. Nothing was written; an older value of the key is
    /// still there.
    #[error("key and value are {bytes} bytes, at most {largest} fit a bucket")]
    TooLarge {
        /// Of key and value together.
        bytes: u64,
        /// That would fit.
        largest: u64,
    },
    /// A key has at least one byte.
    #[error("the key is empty")]
    EmptyKey,
    /// No space became free in time, or the device has failed, or the cache was closed.
    #[error(transparent)]
    Space(#[from] tierce_lockfree::Error),
    /// The device, or what is on it.
    #[error(transparent)]
    Io(Arc<tierce_io::Error>),
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
