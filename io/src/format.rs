//! Making a cache device of a file or a block device.
//!
//! # Protocol
//!
//! A power loss at any step must leave what was there before, or a device that is refused.
//!
//! 1. Look: every refusal happens before the first write.
//! 2. Wipe the superblock's place; flush. From here on there is no cache on the device.
//! 3. Wipe both edges of the device, where every known signature lies, and the start of every
//!    bucket that will be a journal bucket, so that no entry of an earlier life is found; flush.
//! 4. Write the superblock, durably. From here on the device is formatted.
//!
//! Journal entries of an earlier life could not pass for ours anyway: their magic is derived
//! from the set's uuid, and that is drawn anew. Step 3 does not rely on it.

use crate::device::{Device, DeviceExt};
use crate::error::Error;
use crate::file::{Access, DeviceFile, DeviceOptions, start, whole_blocks};
use crate::probe::{EDGE_BYTES, Edges};
use crate::superblock;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tierce_core::Policy;
use tierce_core::geometry::{
    MAX_BLOCK_SECTORS, MAX_BUCKET_SECTORS, MAX_BUCKETS, MIN_BUCKET_SECTORS, MIN_DEVICE_BUCKETS,
    SECTOR_BYTES,
};
use tierce_core::record::superblock::{BYTES, OFFSET};
use tierce_core::record::{Format, Superblock, Uuid};

/// Bytes wiped at the start of each future journal bucket: the largest block.
const WIPE_BYTES: usize = 4096;

/// How to format.
///
/// ```
/// use tierce_io::FormatOptions;
/// let options = FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("cache");
/// let superblock = tierce_io::format(&path, &options)?;
/// assert_eq!(superblock.geometry().nbuckets(), 1024);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FormatOptions {
    /// Bytes of a bucket: a power of two, 4 KiB to 128 MiB.
    pub bucket: u32,
    /// Bytes of a block, the smallest write: a power of two, the device's logical block to
    /// 4 KiB.
    pub block: u32,
    /// Bytes of the file, if one is to be created.
    pub size: Option<u64>,
    /// Which bucket is reused next.
    pub policy: Policy,
    /// Discard buckets before they are reused.
    pub discard: bool,
    /// A name for people, at most 32 bytes.
    pub label: String,
    /// Overwrite what the device carries.
    pub force: bool,
    /// By what means to write. The access is exclusive whatever this says.
    pub device: DeviceOptions,
}

impl Default for FormatOptions {
    /// Buckets of 512 KiB, blocks of 4 KiB, lru; nothing is created or overwritten.
    fn default() -> Self {
        Self {
            bucket: 512 << 10,
            block: 4 << 10,
            size: None,
            policy: Policy::default(),
            discard: false,
            label: String::new(),
            force: false,
            device: DeviceOptions::default(),
        }
    }
}

tierce_core::setters!(FormatOptions {
    bucket: u32,
    block: u32,
    size: Option<u64>,
    policy: Policy,
    discard: bool,
    label: String,
    force: bool,
    device: DeviceOptions,
});

/// Formats what is at `path`, or a new file there, and gives the superblock that was written.
///
/// A file that is created is readable and writable by its owner only. When formatting fails it
/// is removed again.
///
/// See [`FormatOptions`] for an example.
///
/// # Errors
///
/// Whatever [`open_device`](crate::open_device) refuses; [`Error::SizeMissing`] and
/// [`Error::SizeDiffers`]; [`Error::Foreign`] without [`force`](FormatOptions::force), also of a
/// file that begins or ends with anything but zeros; [`Error::TooSmall`], [`Error::TooLarge`], and
/// [`Error::Core`] for other sizes out of range. Then nothing on the device was changed. Or an
/// error of the device, and then it carries a cache no more.
pub fn format(path: impl AsRef<Path>, options: &FormatOptions) -> Result<Superblock, Error> {
    let path = path.as_ref();
    let (file, created) = open_or_create(path, options)?;
    // Of a block device nobody expects that it was wiped; but who names a wrong file loses it.
    let must_be_empty = !file.is_block_device;
    let formatted = start(file, &options.device)
        .and_then(|device| format_what_is_open(&*device, options, must_be_empty));
    if formatted.is_err() && created {
        // We created it a moment ago, and it is of no use to anybody.
        let _ = std::fs::remove_file(path);
    }
    formatted
}

/// The file or device, and whether it did not exist before.
fn open_or_create(path: &Path, options: &FormatOptions) -> Result<(DeviceFile, bool), Error> {
    let name: Arc<str> = path.display().to_string().into();
    let is_new = matches!(std::fs::symlink_metadata(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound);
    if is_new {
        let Some(bytes) = options.size else { return Err(Error::SizeMissing { device: name }) };
        superblock_for(&name, bytes, SECTOR_BYTES, options)?;
        return Ok((DeviceFile::create(path, bytes)?, true));
    }
    let mut file = DeviceFile::open(path, Access::Exclusive)?;
    let (found, logical_block) = (file.capabilities.bytes, file.capabilities.logical_block);
    match options.size {
        Some(wanted) if found == 0 && !file.is_block_device => {
            superblock_for(&name, wanted, logical_block, options)?;
            file.grow(wanted)?;
        }
        Some(wanted) if whole_blocks(wanted, logical_block) != found => {
            return Err(Error::SizeDiffers { device: name, found, wanted });
        }
        _ => {}
    }
    Ok((file, false))
}

/// Formats an open device. [`format`](format()) opens it; who brings a device of his own starts
/// here.
///
/// ```
/// use tierce_io::{DeviceOptions, FormatOptions};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("cache");
/// std::fs::File::create(&path)?.set_len(64 << 20)?;
/// let device = tierce_io::open_device(&path, &DeviceOptions::default())?;
/// let options = FormatOptions::default().bucket(64 << 10);
/// let superblock = tierce_io::format_on(&*device, &options)?;
/// assert_eq!((superblock.version, superblock.seq), (0, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`format`](format()).
pub fn format_on(device: &dyn Device, options: &FormatOptions) -> Result<Superblock, Error> {
    format_what_is_open(device, options, false)
}

fn format_what_is_open(
    device: &dyn Device,
    options: &FormatOptions,
    must_be_empty: bool,
) -> Result<Superblock, Error> {
    let (name, capabilities) = (device.name(), device.capabilities());
    let (bytes, logical_block) = (capabilities.bytes, capabilities.logical_block);
    let superblock = superblock_for(name, bytes, logical_block, options)?;
    if !options.force {
        let edges = Edges::read(device)?;
        let unknown = || edges.first_byte().filter(|_| must_be_empty);
        if let Some(found) = edges.known().or_else(unknown) {
            return Err(Error::Foreign { device: name.clone(), found: found.to_string() });
        }
    }
    device.write_at(OFFSET, &[0; BYTES])?;
    device.flush()?;
    wipe(device, &superblock)?;
    superblock::write(device, &superblock.encode())?;
    Ok(superblock)
}

/// Both edges of the device, and the starts of the buckets that will be journal buckets.
fn wipe(device: &dyn Device, superblock: &Superblock) -> Result<(), Error> {
    let bytes = device.capabilities().bytes;
    let edge = vec![0; EDGE_BYTES.min(bytes) as usize];
    device.write_at(0, &edge)?;
    device.write_at(bytes - edge.len() as u64, &edge)?;
    wipe_journal(device, &superblock.first_use(0))
}

/// The starts of all journal buckets, so that no entry is found there; flushed.
pub(crate) fn wipe_journal(device: &dyn Device, superblock: &Superblock) -> Result<(), Error> {
    let bucket_bytes = u64::from(superblock.geometry().bucket_bytes());
    for bucket in superblock.journal_buckets() {
        device.write_at(u64::from(bucket.get()) * bucket_bytes, &[0; WIPE_BYTES])?;
    }
    device.flush()
}

/// The superblock of a device of `bytes` bytes, with a new identity.
fn superblock_for(
    name: &Arc<str>,
    bytes: u64,
    logical_block: u32,
    options: &FormatOptions,
) -> Result<Superblock, Error> {
    let power_of_two = |what, bytes: u32, least: u32, most: u32| {
        if bytes.is_power_of_two() && (least..=most).contains(&bytes) {
            return Ok(bytes / SECTOR_BYTES);
        }
        let wanted = format!("a power of two, {least} to {most} bytes");
        Err(tierce_core::Error::Limit { what, found: bytes.into(), wanted })
    };
    let (least, most) = (MIN_BUCKET_SECTORS * SECTOR_BYTES, MAX_BUCKET_SECTORS * SECTOR_BYTES);
    let bucket = power_of_two("the bucket", options.bucket, least, most)?;
    let nbuckets = bytes / u64::from(options.bucket);
    if nbuckets < u64::from(MIN_DEVICE_BUCKETS) {
        let (device, bucket_bytes) = (name.clone(), options.bucket.into());
        let wanted = MIN_DEVICE_BUCKETS;
        return Err(Error::TooSmall { device, bytes, nbuckets, bucket_bytes, wanted });
    }
    if nbuckets > u64::from(MAX_BUCKETS) {
        let (device, bucket_bytes) = (name.clone(), options.bucket.into());
        let wanted = MAX_BUCKETS;
        return Err(Error::TooLarge { device, bytes, nbuckets, bucket_bytes, wanted });
    }
    if options.block < logical_block {
        let (device, found) = (name.clone(), options.block);
        return Err(Error::BlockTooSmall { device, found, wanted: logical_block });
    }
    let most = MAX_BLOCK_SECTORS * SECTOR_BYTES;
    let block = power_of_two("the block", options.block, SECTOR_BYTES, most)?;
    let format = Format {
        uuid: random_uuid(name)?,
        set_uuid: random_uuid(name)?,
        label: options.label.clone(),
        policy: options.policy,
        discard: options.discard,
        ..Format::new(bytes, bucket, block)
    };
    Ok(Superblock::format(&format)?)
}

/// A random uuid (version 4).
fn random_uuid(name: &Arc<str>) -> Result<Uuid, Error> {
    let mut bytes = [0; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        match rustix::rand::getrandom(&mut bytes[filled..], flags) {
            Ok(more) => filled += more,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => {
                let (device, what) = (name.clone(), "a random identity");
                return Err(Error::Setup { device, what, cause: errno.into() });
            }
        }
    }
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    Ok(Uuid(bytes))
}
