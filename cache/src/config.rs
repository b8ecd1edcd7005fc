//! What can be set.

use std::path::{Path, PathBuf};
use std::time::Duration;
use tierce_core::Policy;
use tierce_io::DeviceOptions;

/// How to open a cache.
///
/// ```
/// use tierce_cache::Config;
/// use tierce_core::Policy;
/// let config = Config::new("/dev/nvme0n1").policy(Policy::Fifo).cpus(4);
/// assert_eq!(config.path().to_str(), Some("/dev/nvme0n1"));
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) path: PathBuf,
    pub(crate) policy: Option<Policy>,
    pub(crate) cpus: Option<u32>,
    pub(crate) device: DeviceOptions,
    pub(crate) space_timeout: Duration,
}

impl Config {
    /// The formatted file or block device at `path`.
    #[must_use]
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self {
            path: path.as_ref().to_owned(),
            policy: None,
            cpus: None,
            device: DeviceOptions::default(),
            space_timeout: Duration::from_secs(30),
        }
    }

    /// Which bucket is reused next; otherwise what the superblock says.
    #[must_use]
    pub fn policy(self, policy: Policy) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// For how many CPUs to keep per-CPU places; otherwise as many as there are.
    #[must_use]
    pub fn cpus(self, cpus: u32) -> Self {
        Self { cpus: Some(cpus), ..self }
    }

    /// By what means the device is read and written.
    #[must_use]
    pub fn device(self, device: DeviceOptions) -> Self {
        Self { device, ..self }
    }

    /// How long an insert waits for space before it fails; otherwise 30 s.
    #[must_use]
    pub fn space_timeout(self, space_timeout: Duration) -> Self {
        Self { space_timeout, ..self }
    }

    /// Where the cache is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}
