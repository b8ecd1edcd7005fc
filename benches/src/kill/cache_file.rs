//! tierce's own cache, in a file or on a device, as the [`Subject`] of a kill test.

use super::Subject;
use super::worker::Load;
use crate::backend::Tierce;
use crate::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tierce_cache::Config;

/// The kernel ends the I/O of a killed process in the background and holds its files until
/// then; longer than this would be a fault.
const RELEASE_MAX: Duration = Duration::from_secs(10);

/// A formatted cache, and the program whose `worker` command runs a load on it.
///
/// ```
/// use tierce_bench::kill::{CacheFile, Subject, worker::Load};
/// let subject = CacheFile::new("target/release/tierce-kill-test", "cache.img");
/// let command = subject.worker(&Load::default());
/// assert_eq!(command.get_args().next().unwrap(), "worker");
/// ```
#[derive(Clone, Debug)]
pub struct CacheFile {
    program: PathBuf,
    path: PathBuf,
}

impl CacheFile {
    /// `program worker …` is to work on the cache at `path`, which must have been formatted.
    pub fn new(program: impl AsRef<Path>, path: impl AsRef<Path>) -> Self {
        Self { program: program.as_ref().to_owned(), path: path.as_ref().to_owned() }
    }
}

fn is_in_use(error: &tierce_cache::Error) -> bool {
    matches!(error, tierce_cache::Error::Io(io) if matches!(**io, tierce_io::Error::InUse { .. }))
}

impl Subject for CacheFile {
    type Store = Tierce;

    fn worker(&self, load: &Load) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("worker").arg(&self.path);
        for (name, value) in [
            ("--keys", load.keys),
            ("--threads", load.threads),
            ("--value-bytes-max", load.value_bytes_max as u64),
            ("--first-version", load.first_version),
            ("--seed", load.seed),
        ] {
            command.arg(name).arg(value.to_string());
        }
        command
    }

    fn open(&self) -> Result<Tierce, Error> {
        let deadline = Instant::now() + RELEASE_MAX;
        loop {
            match Tierce::open(Config::new(&self.path)) {
                Err(error) if is_in_use(&error) && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                result => return result.map_err(Error::store("open the cache after a crash")),
            }
        }
    }

    fn close(&self, store: Tierce) -> Result<(), Error> {
        store.close().map_err(Error::store("close the cache"))
    }
}
