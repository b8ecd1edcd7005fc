//! What is worth knowing but no error, and where it goes.

use std::fmt;
use std::sync::{Arc, Once};

/// Something worth knowing that is no error.
///
/// ```
/// use tierce_io::{DeviceOptions, Notice};
/// let options = DeviceOptions::default().on_notice(|notice: &Notice| println!("{notice}"));
/// # let _ = options;
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Notice {
    /// io_uring is refused; blocking threads do the work.
    #[non_exhaustive]
    FallBack {
        /// The device.
        device: Arc<str>,
        /// Why.
        cause: Arc<str>,
    },
    /// Fewer buffers than wanted are registered with the ring.
    #[non_exhaustive]
    FewerBuffers {
        /// The device.
        device: Arc<str>,
        /// Bytes that are registered, maybe 0.
        registered: usize,
        /// Bytes that were wanted.
        wanted: usize,
        /// Why.
        cause: Arc<str>,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FallBack { device, cause } => {
                write!(f, "{device}: io_uring is refused ({cause}): using blocking threads")
            }
            Self::FewerBuffers { device, registered, wanted, cause } => write!(
                f,
                "{device}: {registered} of {wanted} bytes of buffers registered ({cause}): \
                 raise RLIMIT_MEMLOCK for more"
            ),
        }
    }
}

/// One warning per kind of notice and process.
pub(crate) fn log_once(notice: &Notice) {
    static FALL_BACK: Once = Once::new();
    static FEWER_BUFFERS: Once = Once::new();
    let once = match notice {
        Notice::FallBack { .. } => &FALL_BACK,
        Notice::FewerBuffers { .. } => &FEWER_BUFFERS,
    };
    once.call_once(|| log::warn!("{notice}"));
}
