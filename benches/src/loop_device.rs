//! Loop devices over temporary files, which leave nothing behind.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A loop device over a sparse file.
///
/// The file's name goes as soon as the device is there, and the device is told to go with its
/// last user, of which this value is one. So the kernel cleans up, also if this process is killed.
///
/// ```no_run
/// use tierce_bench::LoopDevice;
/// let device = LoopDevice::new("sparse".as_ref(), 1 << 30, &["--sector-size", "4096"])?;
/// assert!(device.path().starts_with("/dev"));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    _in_use: File,
}

impl LoopDevice {
    /// A device of `bytes` over a new file at `file`; `options` are `losetup`'s.
    ///
    /// # Errors
    /// Why the file cannot be made, or what `losetup` said: it takes privileges.
    pub fn new(file: &Path, bytes: u64, options: &[&str]) -> io::Result<Self> {
        File::create_new(file)?.set_len(bytes)?;
        let device = attach(file, options);
        std::fs::remove_file(file)?;
        device
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn attach(file: &Path, options: &[&str]) -> io::Result<LoopDevice> {
    let attached = losetup(Command::new("losetup").args(["--find", "--show"]).args(options), file)?;
    let path = PathBuf::from(String::from_utf8_lossy(&attached.stdout).trim());
    let in_use = File::open(&path);
    // As it is in use, this happens when it is not any more.
    losetup(Command::new("losetup").arg("--detach"), &path)?;
    Ok(LoopDevice { path, _in_use: in_use? })
}

fn losetup(command: &mut Command, of: &Path) -> io::Result<Output> {
    let output = command.arg(of).output()?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("losetup: {}", said.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_loop_device_works_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        let device = match LoopDevice::new(&file, 1 << 20, &[]) {
            Ok(device) => device,
            Err(error) => return eprintln!("skipped: no loop device: {error}"),
        };
        assert!(!file.exists());
        let open = File::options().write(true).open(device.path()).expect("it is there");
        open.write_all_at(&[1; 4096], 0).expect("it takes what is written");
        drop(open);
        let name = device.path().file_name().expect("a device has a name").to_owned();
        drop(device);
        let backing = Path::new("/sys/block").join(name).join("loop/backing_file");
        let gone = (0..1000).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            // Somebody else may have it by now.
            std::fs::read_to_string(&backing).map_or(true, |of| !of.contains("/file"))
        });
        assert!(gone, "{} is still attached", backing.display());
    }

    #[test]
    fn a_file_that_is_there_is_left_alone() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(LoopDevice::new(file.path(), 1 << 20, &[]).is_err());
        assert!(file.path().exists());
    }
}
