//! Opening a file or a block device: exclusively, directly, and never through a link that
//! somebody else may have planted.
//!
//! * A block device is opened with `O_EXCL`: the kernel refuses while it is mounted, part of an
//!   array, or open by another tierce.
//! * A file is locked (`flock`, exclusive, not waiting). It is not reached through a symbolic
//!   link. A block device may be: names like `/dev/disk/by-id/…` are links; the link is resolved
//!   first and the result opened with `O_NOFOLLOW`.
//! * Who finds it in use tries again for half a second: io_uring lets go of files asynchronously,
//!   so a device is busy for a moment after its user was killed.
//! * `O_DIRECT` where the file system has it, else through the page cache.

use crate::buffer::Pool;
use crate::device::{Capabilities, Device, DiscardKind};
use crate::error::Error;
use crate::notice::{Notice, log_once};
use crate::sync_io::SyncIo;
use crate::uring::{Setup, Uring};
use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags, SeekFrom, StatxFlags};
use rustix::io::Errno;
use rustix::ioctl;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// By what means a device's operations are performed.
///
/// ```
/// assert_eq!(tierce_io::Engine::default(), tierce_io::Engine::Auto);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Engine {
    /// io_uring, or blocking threads where the kernel refuses it.
    #[default]
    Auto,
    /// io_uring or an error.
    Uring,
    /// Blocking threads.
    Sync,
}

/// Whether a device is opened to be changed.
///
/// ```
/// assert_eq!(tierce_io::Access::default(), tierce_io::Access::Exclusive);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Access {
    /// For reading and writing; nobody else may.
    #[default]
    Exclusive,
    /// For looking at it, whoever uses it meanwhile.
    ReadOnly,
}

/// How discards are done.
///
/// ```
/// use tierce_io::{DeviceOptions, DiscardBy};
/// let options = DeviceOptions::default().discards(DiscardBy::Off);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum DiscardBy {
    /// On a block device by the command of io_uring (Linux 6.12), or where that is refused by
    /// `BLKDISCARD` on a thread of its own; in a file by punching a hole; not at all where the
    /// device does not discard.
    #[default]
    Auto,
    /// As [`Auto`](Self::Auto), but without io_uring's command.
    Blocking,
    /// Not at all.
    Off,
}

/// How to open a device.
///
/// ```
/// use tierce_io::{DeviceOptions, Engine};
/// let options = DeviceOptions::default().engine(Engine::Sync).queue_depth(32);
/// # let _ = options;
/// ```
#[derive(Clone)]
pub struct DeviceOptions {
    pub(crate) engine: Engine,
    pub(crate) access: Access,
    pub(crate) queue_depth: u32,
    pub(crate) buffer_bytes: usize,
    pub(crate) buffers: u32,
    pub(crate) threads: u32,
    pub(crate) rings: u32,
    sqpoll_idle: Option<Duration>,
    discards: DiscardBy,
    pub(crate) thread_name: Arc<str>,
    notice: Arc<dyn Fn(&Notice) + Send + Sync>,
}

impl DeviceOptions {
    /// By what means operations are performed; [`Engine::Auto`] unless told.
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// Whether it is opened to be changed; [`Access::Exclusive`] unless told.
    #[must_use]
    pub fn access(mut self, access: Access) -> Self {
        self.access = access;
        self
    }

    /// How many operations the kernel has at a time, at least 1; 128 unless told. Further ones
    /// queue in front of it.
    #[must_use]
    pub fn queue_depth(mut self, operations: u32) -> Self {
        self.queue_depth = operations.max(1);
        self
    }

    /// How many buffers of how many bytes are kept and registered, at most 64 GiB in all; 64 of
    /// 64 KiB unless told. Others come from the heap.
    #[must_use]
    pub fn buffers(mut self, buffers: u32, buffer_bytes: usize) -> Self {
        (self.buffers, self.buffer_bytes) = (buffers, buffer_bytes);
        self
    }

    /// How many threads perform operations where io_uring does not, at least 1; 4 unless told.
    #[must_use]
    pub fn threads(mut self, threads: u32) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// How many rings there are, each with a thread, at least 1; 1 unless told. One is enough
    /// for a device of some 100 000 operations a second; more share the work of many submitting
    /// threads. A thread per core does better with a [`Queue`](crate::Queue) of its own.
    #[must_use]
    pub fn rings(mut self, rings: u32) -> Self {
        self.rings = rings.max(1);
        self
    }

    /// Lets a thread of the kernel take submissions from each ring (`IORING_SETUP_SQPOLL`). It
    /// polls, at the cost of a CPU, until it has found none for so long; off unless told.
    #[must_use]
    pub fn sqpoll(mut self, idle: Duration) -> Self {
        self.sqpoll_idle = Some(idle);
        self
    }

    /// How discards are done; [`DiscardBy::Auto`] unless told.
    #[must_use]
    pub fn discards(mut self, by: DiscardBy) -> Self {
        self.discards = by;
        self
    }

    /// How a ring is set up.
    pub(crate) fn ring_setup(&self) -> Setup {
        Setup { depth: self.queue_depth, sqpoll_idle: self.sqpoll_idle }
    }

    /// What its threads are called, for `ps` and debuggers; `tierce-io` unless told. Linux shows
    /// the first 15 bytes.
    #[must_use]
    pub fn thread_name(mut self, name: &str) -> Self {
        self.thread_name = name.into();
        self
    }

    /// Who is told of [`Notice`]s. Unless told, each kind is logged as one warning, once per
    /// process, by the [`log`] crate: whoever has set a logger sees it.
    #[must_use]
    pub fn on_notice(mut self, notice: impl Fn(&Notice) + Send + Sync + 'static) -> Self {
        self.notice = Arc::new(notice);
        self
    }

    pub(crate) fn notify(&self, notice: &Notice) {
        (self.notice)(notice);
    }
}

impl Default for DeviceOptions {
    fn default() -> Self {
        Self {
            engine: Engine::Auto,
            access: Access::Exclusive,
            queue_depth: 128,
            buffer_bytes: 64 << 10,
            buffers: 64,
            threads: 4,
            rings: 1,
            sqpoll_idle: None,
            discards: DiscardBy::Auto,
            thread_name: "tierce-io".into(),
            notice: Arc::new(log_once),
        }
    }
}

impl fmt::Debug for DeviceOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceOptions")
            .field("engine", &self.engine)
            .field("access", &self.access)
            .field("queue_depth", &self.queue_depth)
            .field("buffers", &(self.buffers, self.buffer_bytes))
            .field("threads", &self.threads)
            .field("rings", &self.rings)
            .field("sqpoll_idle", &self.sqpoll_idle)
            .field("discards", &self.discards)
            .finish_non_exhaustive()
    }
}

/// Opens a file or block device and starts what performs its operations.
///
/// Nothing on the device is changed, and what it carries is not looked at.
///
/// ```
/// use tierce_io::{DeviceOptions, Error};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("cache");
/// std::fs::write(&path, vec![0; 1 << 20])?;
/// let device = tierce_io::open_device(&path, &DeviceOptions::default())?;
/// assert_eq!(device.capabilities().bytes, 1 << 20);
///
/// let again = tierce_io::open_device(&path, &DeviceOptions::default());
/// assert!(matches!(again, Err(Error::InUse { .. })));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// [`Error::Open`], [`Error::NotADevice`], [`Error::InUse`], [`Error::ReadOnly`], and
/// [`Error::Setup`] if the ring or the threads cannot be set up.
pub fn open_device(
    path: impl AsRef<Path>,
    options: &DeviceOptions,
) -> Result<Arc<dyn Device>, Error> {
    start(DeviceFile::open(path.as_ref(), options.access)?, options)
}

/// Starts the engine on an open file.
pub(crate) fn start(
    mut file: DeviceFile,
    options: &DeviceOptions,
) -> Result<Arc<dyn Device>, Error> {
    if Pool::sizes(options.buffer_bytes, options.buffers).is_none() {
        let cause = std::io::Error::new(std::io::ErrorKind::InvalidInput, "wanted at most 64 GiB");
        let (device, what) = (file.name.clone(), "a pool of buffers");
        return Err(Error::Setup { device, what, cause });
    }
    let found = file.capabilities.discard;
    file.capabilities.discard = match (options.discards, found) {
        (DiscardBy::Off, _) => DiscardKind::None,
        (DiscardBy::Blocking, DiscardKind::Command) => DiscardKind::Blocking,
        (_, found) => found,
    };
    let file = Arc::new(file);
    if options.engine == Engine::Sync {
        return Ok(Arc::new(SyncIo::start(file, options)?));
    }
    match Uring::start(file.clone(), options) {
        Ok(uring) => Ok(Arc::new(uring)),
        Err(Error::Setup { cause, .. }) if options.engine == Engine::Auto => {
            let cause = cause.to_string().into();
            options.notify(&Notice::FallBack { device: file.name.clone(), cause });
            Ok(Arc::new(SyncIo::start(file, options)?))
        }
        Err(error) => Err(error),
    }
}

/// How long opening waits for a device that is in use: the kernel releases what a ring held some
/// time after the ring, or the process that was killed, is gone.
const RELEASE_PATIENCE: Duration = Duration::from_millis(500);
/// The first pause between two attempts; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// Attempts until it is no longer [`Error::InUse`] or `patience` is over.
fn patiently<T>(
    patience: Duration,
    mut attempt: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let mut pause = FIRST_PAUSE;
    let mut waited = Duration::ZERO;
    loop {
        match attempt() {
            Err(Error::InUse { .. }) if waited < patience => {
                std::thread::sleep(pause);
                waited += pause;
                pause *= 2;
            }
            settled => return settled,
        }
    }
}

/// An open file or block device, without anything that performs operations.
#[derive(Debug)]
pub(crate) struct DeviceFile {
    fd: OwnedFd,
    pub(crate) name: Arc<str>,
    pub(crate) capabilities: Capabilities,
    pub(crate) is_block_device: bool,
}

impl AsFd for DeviceFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for DeviceFile {
    /// Unlocks a file. Closing it is not enough: a lock lasts as long as anything refers to the
    /// open file, and a worker of io_uring may for a moment after the last completion.
    fn drop(&mut self) {
        if !self.is_block_device {
            // An error here means that there is no lock.
            let _ = fs::flock(&self.fd, FlockOperation::Unlock);
        }
    }
}

impl DeviceFile {
    /// Opens what exists at `path`. If somebody has it, waits up to [`RELEASE_PATIENCE`] for him
    /// to let go.
    pub(crate) fn open(path: &Path, access: Access) -> Result<Self, Error> {
        patiently(RELEASE_PATIENCE, || Self::open_now(path, access))
    }

    fn open_now(path: &Path, access: Access) -> Result<Self, Error> {
        let name: Arc<str> = path.display().to_string().into();
        let (path, kind) = resolve(path, &name)?;
        let mut flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
        flags |= match (access, kind) {
            (Access::ReadOnly, _) => OFlags::RDONLY,
            (Access::Exclusive, FileType::BlockDevice) => OFlags::RDWR | OFlags::EXCL,
            (Access::Exclusive, _) => OFlags::RDWR,
        };
        let opened = open_direct(&path, flags, Mode::empty());
        let (fd, direct) = opened.map_err(|errno| open_error(&name, errno, access))?;
        Self::adopt(fd, name, direct, access, kind)
    }

    /// Creates a file of `bytes` bytes at `path`, mode 0600, for us alone.
    pub(crate) fn create(path: &Path, bytes: u64) -> Result<Self, Error> {
        let name: Arc<str> = path.display().to_string().into();
        let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::RDWR;
        let flags = flags | OFlags::CREATE | OFlags::EXCL;
        let opened = open_direct(path, flags, Mode::RUSR | Mode::WUSR);
        let (fd, direct) = opened.map_err(|errno| open_error(&name, errno, Access::Exclusive))?;
        let made = extend(&fd, &name, bytes)
            .and_then(|()| Self::adopt(fd, name, direct, Access::Exclusive, FileType::RegularFile));
        if made.is_err() {
            // We created it a moment ago, and it is of no use to anybody.
            let _ = fs::unlink(path);
        }
        made
    }

    /// Makes an empty file `bytes` long.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), Error> {
        extend(&self.fd, &self.name, bytes)?;
        self.capabilities.bytes = whole_blocks(bytes, self.capabilities.logical_block);
        Ok(())
    }

    fn adopt(
        fd: OwnedFd,
        name: Arc<str>,
        direct: bool,
        access: Access,
        expected: FileType,
    ) -> Result<Self, Error> {
        let failed = |errno: Errno| Error::Open { device: name.clone(), cause: errno.into() };
        let mode = fs::fstat(&fd).map_err(failed)?.st_mode;
        if FileType::from_raw_mode(mode) != expected {
            let found = "not what it was a moment ago";
            return Err(Error::NotADevice { device: name.clone(), found });
        }
        let is_block_device = expected == FileType::BlockDevice;
        if access == Access::Exclusive && !is_block_device {
            match fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Err(Error::InUse { device: name.clone() }),
                Err(errno) => return Err(failed(errno)),
            }
        }
        if access == Access::Exclusive && is_block_device && is_read_only(&fd).map_err(failed)? {
            return Err(Error::ReadOnly { device: name.clone(), cause: Errno::ROFS.into() });
        }
        let bytes = fs::seek(&fd, SeekFrom::End(0)).map_err(failed)?;
        let logical_block = if is_block_device {
            fs::ioctl_blksszget(&fd).map_err(failed)?
        } else {
            file_block(&fd, direct)
        };
        if !logical_block.is_power_of_two() || !(512..=4096).contains(&logical_block) {
            let found = "a device with logical blocks that are not 512 to 4096 bytes";
            return Err(Error::NotADevice { device: name.clone(), found });
        }
        let bytes = whole_blocks(bytes, logical_block);
        let mut capabilities = Capabilities::new(logical_block, bytes)
            .with_discard(discard_kind(&fd, is_block_device));
        capabilities.direct = direct;
        capabilities.write_streams = write_streams(&fd, is_block_device);
        Ok(Self { fd, name, capabilities, is_block_device })
    }
}

/// As much of `bytes` as can be read and written.
pub(crate) fn whole_blocks(bytes: u64, logical_block: u32) -> u64 {
    bytes - bytes % u64::from(logical_block)
}

/// What to open, and what it is. Only block devices are reached through symbolic links.
fn resolve(path: &Path, name: &Arc<str>) -> Result<(PathBuf, FileType), Error> {
    let failed = |cause| Error::Open { device: name.clone(), cause };
    let here = std::fs::symlink_metadata(path).map_err(failed)?;
    let (path, metadata, linked) = if here.is_symlink() {
        let target = path.canonicalize().map_err(failed)?;
        let metadata = std::fs::symlink_metadata(&target).map_err(failed)?;
        (target, metadata, true)
    } else {
        (path.to_path_buf(), here, false)
    };
    let kind = FileType::from_raw_mode(std::os::unix::fs::MetadataExt::mode(&metadata));
    let found = match kind {
        FileType::BlockDevice => return Ok((path, kind)),
        FileType::RegularFile if !linked => return Ok((path, kind)),
        FileType::RegularFile => "a symbolic link to a file (name the file itself)",
        FileType::Directory => "a directory",
        FileType::CharacterDevice => "a character device",
        FileType::Fifo => "a pipe",
        FileType::Socket => "a socket",
        _ => "something else",
    };
    Err(Error::NotADevice { device: name.clone(), found })
}

/// With `O_DIRECT` if possible; says whether. It is set afterwards, because an open that is
/// refused for it would leave the file that it created.
fn open_direct(path: &Path, flags: OFlags, mode: Mode) -> Result<(OwnedFd, bool), Errno> {
    let fd = fs::open(path, flags, mode)?;
    let direct =
        fs::fcntl_getfl(&fd).and_then(|flags| fs::fcntl_setfl(&fd, flags | OFlags::DIRECT)).is_ok();
    Ok((fd, direct))
}

fn open_error(name: &Arc<str>, errno: Errno, access: Access) -> Error {
    let device = name.clone();
    match errno {
        Errno::BUSY => Error::InUse { device },
        Errno::ROFS | Errno::ACCESS | Errno::PERM if access == Access::Exclusive => {
            Error::ReadOnly { device, cause: errno.into() }
        }
        _ => Error::Open { device, cause: errno.into() },
    }
}

/// Whether a block device is set read-only. Opening it for writing may succeed all the same.
fn is_read_only(fd: &OwnedFd) -> Result<bool, Errno> {
    /// `_IO(0x12, 94)`, from the kernel's `linux/fs.h`.
    const BLKROGET: ioctl::Opcode = ioctl::opcode::none(0x12, 94);
    // SAFETY: BLKROGET writes an int to where its argument points.
    let flag = unsafe { ioctl::Getter::<BLKROGET, i32>::new() };
    // SAFETY: the opcode belongs to the argument, see above.
    let flag = unsafe { ioctl::ioctl(fd, flag) }?;
    Ok(flag != 0)
}

/// Reserves the space, so that the cache does not meet a full file system later.
fn extend(fd: &OwnedFd, name: &Arc<str>, bytes: u64) -> Result<(), Error> {
    match fs::fallocate(fd, fs::FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => fs::ftruncate(fd, bytes),
        other => other,
    }
    .map_err(|errno| Error::Open { device: name.clone(), cause: errno.into() })
}

/// The unit of direct I/O on a file. File systems that do not tell take sectors.
fn file_block(fd: &OwnedFd, direct: bool) -> u32 {
    if !direct {
        return 512;
    }
    match fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) {
        Ok(x) if x.stx_mask & StatxFlags::DIOALIGN.bits() != 0 => x.stx_dio_offset_align.max(512),
        _ => 512,
    }
}

/// Whether the kernel would pass on a discard: for a block device, sysfs says so.
fn discard_kind(fd: &OwnedFd, is_block_device: bool) -> DiscardKind {
    if !is_block_device {
        return DiscardKind::Punch;
    }
    match queue_limit(fd, "discard_max_bytes") {
        Some(1..) => DiscardKind::Command,
        _ => DiscardKind::None,
    }
}

/// How many write streams a block device has, from Linux 6.16 on. On files there is only
/// `F_SET_RW_HINT`, one hint for the whole inode: of no use where one file holds every class.
fn write_streams(fd: &OwnedFd, is_block_device: bool) -> u8 {
    let streams = is_block_device.then(|| queue_limit(fd, "max_write_streams")).flatten();
    u8::try_from(streams.unwrap_or(0)).unwrap_or(u8::MAX)
}

/// A number from the block device's queue directory in sysfs.
fn queue_limit(fd: &OwnedFd, name: &str) -> Option<u64> {
    let stat = fs::fstat(fd).ok()?;
    let (major, minor) = (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
    let device = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    // A partition has no queue of its own, the disk above it has.
    ["queue", "../queue"]
        .iter()
        .find_map(|queue| std::fs::read_to_string(device.join(queue).join(name)).ok())
        .and_then(|limit| limit.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a ring's worker may do: it still has the open file when we are through with it.
    #[test]
    fn a_file_is_free_when_its_owner_is_through() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(1 << 20).expect("a sparse file");
        let first = DeviceFile::open_now(file.path(), Access::Exclusive).expect("opens");
        let second = DeviceFile::open_now(file.path(), Access::Exclusive);
        assert!(matches!(second, Err(Error::InUse { .. })), "{second:?}");
        let worker = first.fd.try_clone().expect("the same open file");
        drop(first);
        DeviceFile::open_now(file.path(), Access::Exclusive).expect("nobody uses it");
        drop(worker);
    }

    #[test]
    fn who_finds_it_in_use_tries_again() {
        let in_use = || Error::InUse { device: "dev".into() };
        let mut attempts = 0;
        let opened = patiently(RELEASE_PATIENCE, || {
            attempts += 1;
            if attempts < 4 { Err(in_use()) } else { Ok(attempts) }
        });
        assert!(matches!(opened, Ok(4)), "{opened:?}");

        let refused = patiently(Duration::from_millis(2), || Err::<(), _>(in_use()));
        assert!(matches!(refused, Err(Error::InUse { .. })), "{refused:?}");

        let mut attempts = 0;
        let other = patiently(RELEASE_PATIENCE, || {
            attempts += 1;
            Err::<(), _>(Error::NotADevice { device: "dev".into(), found: "a pipe" })
        });
        assert!(other.is_err());
        assert_eq!(attempts, 1, "patience does not help against {other:?}");
    }
}
