//! What can go wrong when space is asked for.

use std::sync::Arc;
use tierce_core::DeviceIndex;

/// Why the allocator refused.
///
/// "Nothing is free" is not an error of [`try_alloc`](crate::Allocator::try_alloc), which
/// returns `None` for it.
///
/// ```
/// use tierce_lockfree::Error;
/// assert_eq!(Error::TimedOut.to_string(), "no bucket became free before the deadline");
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A size, a limit or a geometry is out of range.
    #[error(transparent)]
    Config(#[from] tierce_core::Error),
    /// A set has 1 to 8 devices.
    #[error("the set has {found} devices, wanted 1 to 8")]
    Devices {
        /// How many were given.
        found: usize,
    },
    /// Copies on more devices were asked for than there are that work.
    #[error("{working} devices of the set work, {wanted} are wanted")]
    TooFewDevices {
        /// Devices that have not failed.
        working: usize,
        /// Devices asked for.
        wanted: usize,
    },
    /// Nothing became free before the deadline.
    #[error("no bucket became free before the deadline")]
    TimedOut,
    /// The allocator was closed.
    #[error("the allocator is closed")]
    Closed,
    /// The device failed; nothing more is handed out of it.
    #[error("device {device} has failed: {cause}")]
    DeviceFailed {
        /// Which device of the set.
        device: DeviceIndex,
        /// What it said.
        cause: Cause,
    },
    /// A garbage collection is running already.
    #[error("a garbage collection is running already")]
    GcRunning,
}

/// Why a device failed, as told by whoever does its I/O.
///
/// ```
/// use std::sync::Arc;
/// let cause: tierce_lockfree::Cause = Arc::new(std::io::Error::other("a dead cell"));
/// assert_eq!(cause.to_string(), "a dead cell");
/// ```
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;
