//! What can go wrong between tierce and a device.
//!
//! Every message is one line that names the device, the place and the cause, and where there
//! is one, the way out.

use crate::device::Operation;
use std::io;
use std::sync::Arc;
use tierce_core::BucketIndex;

/// Why a device could not be formatted, opened, read or written.
///
/// ```
/// use tierce_io::{DeviceOptions, Error};
/// let e = tierce_io::open_device("/nowhere/cache", &DeviceOptions::default()).unwrap_err();
/// assert!(matches!(e, Error::Open { .. }));
/// assert!(e.to_string().starts_with("/nowhere/cache: cannot be opened: "));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel reported an error for an operation.
    #[error("{device}: {operation} of {bytes} bytes at byte {offset} failed: {cause}")]
    Io {
        /// The device, as it was named at open.
        device: Arc<str>,
        /// What was being done.
        operation: Operation,
        /// Where, in bytes from the start of the device.
        offset: u64,
        /// How much was asked for.
        bytes: u64,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The device ended in the middle of a transfer.
    #[error(
        "{device}: {operation} of {bytes} bytes at byte {offset} stopped after {done}: \
         the device is shorter than it was at open"
    )]
    Short {
        /// The device.
        device: Arc<str>,
        /// What was being done.
        operation: Operation,
        /// Where, in bytes.
        offset: u64,
        /// How much was asked for.
        bytes: u64,
        /// How much was transferred.
        done: u64,
    },
    /// A request that does not lie within the device. Nothing was transferred.
    #[error("{device}: {operation} of {bytes} bytes at byte {offset} exceeds its {device_bytes}")]
    Range {
        /// The device.
        device: Arc<str>,
        /// What was asked.
        operation: Operation,
        /// Where, in bytes.
        offset: u64,
        /// How much.
        bytes: u64,
        /// The size of the device in bytes.
        device_bytes: u64,
    },
    /// A request that is not a whole number of logical blocks. Nothing was transferred.
    #[error(
        "{device}: {operation} of {bytes} bytes at byte {offset} is not a multiple of its \
         logical block, {block} bytes"
    )]
    Misaligned {
        /// The device.
        device: Arc<str>,
        /// What was asked.
        operation: Operation,
        /// Where, in bytes.
        offset: u64,
        /// How much.
        bytes: u64,
        /// The logical block in bytes.
        block: u32,
    },
    /// The device does not do this.
    #[error("{device}: {operation} is not supported here")]
    Unsupported {
        /// The device.
        device: Arc<str>,
        /// What was asked.
        operation: Operation,
    },
    /// The device was closed, or its I/O thread ended, before the operation was done. Whether
    /// a write took place is unknown.
    #[error("{device}: closed before the operation was done")]
    Closed {
        /// The device.
        device: Arc<str>,
    },
    /// The device failed earlier and is used no more.
    #[error("{device}: failed earlier and is out of use: {cause}")]
    Failed {
        /// The device.
        device: Arc<str>,
        /// The error that it failed with.
        cause: Arc<Error>,
    },
    /// The I/O thread or ring could not be set up.
    #[error("{device}: {what} cannot be set up: {cause}")]
    Setup {
        /// The device.
        device: Arc<str>,
        /// What could not be set up.
        what: &'static str,
        /// Why.
        cause: io::Error,
    },

    /// The path cannot be opened.
    #[error("{device}: cannot be opened: {cause}")]
    Open {
        /// The path.
        device: Arc<str>,
        /// Why.
        cause: io::Error,
    },
    /// The path names neither a file nor a block device.
    #[error("{device}: is {found}, wanted a file or a block device")]
    NotADevice {
        /// The path.
        device: Arc<str>,
        /// What it is.
        found: &'static str,
    },
    /// Somebody else has the device open.
    #[error("{device}: in use by another process: stop it (or unmount the device) first")]
    InUse {
        /// The path.
        device: Arc<str>,
    },
    /// The device cannot be written.
    #[error("{device}: cannot be written ({cause}): make it writable, or name another device")]
    ReadOnly {
        /// The path.
        device: Arc<str>,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The device has too little room for a cache.
    #[error(
        "{device}: too small: {bytes} bytes make {nbuckets} buckets of {bucket_bytes}, wanted at \
         least {wanted}: make it larger or the buckets smaller"
    )]
    TooSmall {
        /// The path.
        device: Arc<str>,
        /// Its size in bytes.
        bytes: u64,
        /// Whole buckets in it.
        nbuckets: u64,
        /// Bytes of a bucket.
        bucket_bytes: u64,
        /// Buckets of a usable device.
        wanted: u32,
    },
    /// There are more buckets than a device can have.
    #[error(
        "{device}: too large: {bytes} bytes make {nbuckets} buckets of {bucket_bytes}, wanted at \
         most {wanted}: make the buckets larger"
    )]
    TooLarge {
        /// The path.
        device: Arc<str>,
        /// Its size in bytes.
        bytes: u64,
        /// Whole buckets in it.
        nbuckets: u64,
        /// Bytes of a bucket.
        bucket_bytes: u64,
        /// Buckets of a usable device.
        wanted: u32,
    },
    /// A size was given for a file that exists with another one.
    #[error(
        "{device}: exists with {found} bytes, {wanted} were asked for: leave the size out or \
         remove the file"
    )]
    SizeDiffers {
        /// The path.
        device: Arc<str>,
        /// Its size in bytes.
        found: u64,
        /// The size asked for in bytes.
        wanted: u64,
    },
    /// A file is to be created, but nobody said how large.
    #[error("{device}: does not exist: give a size to create it as a file")]
    SizeMissing {
        /// The path.
        device: Arc<str>,
    },
    /// The device carries no superblock of ours and nothing else that is known.
    #[error("{device}: not formatted: run `tierce format {device}`")]
    NotFormatted {
        /// The path.
        device: Arc<str>,
    },
    /// The device carries something else.
    #[error(
        "{device}: carries {found}: name another device, or overwrite it with `tierce format --force`"
    )]
    Foreign {
        /// The path.
        device: Arc<str>,
        /// What was found, and where.
        found: String,
    },
    /// The device holds a cache of Linux bcache, maybe with dirty data.
    #[error(
        "{device}: holds a cache of Linux bcache (index root in journal entry {seq}): detach it \
         there first, or overwrite it with `tierce format --force`"
    )]
    LinuxCache {
        /// The path.
        device: Arc<str>,
        /// The journal entry that names the root.
        seq: u64,
    },
    /// The device carries a tierce cache with an index, and was opened by somebody who would
    /// not keep that index.
    #[error(
        "{device}: carries the index of a tierce cache: open it as that, or overwrite it with \
         `tierce format --force`"
    )]
    EngineIndex {
        /// The path.
        device: Arc<str>,
    },
    /// The device was used as scratch: it holds no gens that could be relied on.
    #[error(
        "{device}: was used as scratch and keeps nothing: open it as scratch, or format it again \
         with --force"
    )]
    Scratch {
        /// The path.
        device: Arc<str>,
    },
    /// The device keeps its gens, and was opened as scratch: that would make them useless.
    #[error(
        "{device}: keeps its gens and what they protect: open it as durable, or give that up with \
         `tierce format --force`"
    )]
    Durable {
        /// The path.
        device: Arc<str>,
    },
    /// An allocator that makes its gens durable works on a scratch device, or one that does not
    /// on a durable one.
    #[error(
        "{device}: the allocator has sync = {found}, wanted {wanted}, as the device was opened"
    )]
    SyncDiffers {
        /// The device.
        device: Arc<str>,
        /// What the allocator was started with.
        found: bool,
        /// What the device is for.
        wanted: bool,
    },
    /// The device is smaller than it was when it was formatted.
    #[error(
        "{device}: truncated: the superblock says {wanted} bytes, the device has {found}: restore \
         its size or format it again with --force"
    )]
    Truncated {
        /// The path.
        device: Arc<str>,
        /// Its size in bytes.
        found: u64,
        /// nbuckets · bucket size.
        wanted: u64,
    },
    /// Blocks smaller than what the device can write.
    #[error(
        "{device}: blocks of {found} bytes are smaller than its logical block, {wanted}: format it \
         with --block {wanted} (and --force if it is formatted already)"
    )]
    BlockTooSmall {
        /// The path.
        device: Arc<str>,
        /// The block size in bytes, from the superblock or the options of format.
        found: u32,
        /// The device's logical block in bytes.
        wanted: u32,
    },
    /// A record on the device is not what it must be.
    #[error("{device}: {cause}")]
    Corrupt {
        /// The device.
        device: Arc<str>,
        /// Record, bucket, field, found and wanted.
        cause: tierce_core::Error,
    },
    /// The superblock says that the device is in use, but its journal holds no entry.
    #[error(
        "{device}: no valid journal entry in buckets {first} to {last}: the gens are lost; format \
         it again with --force"
    )]
    NoJournalEntry {
        /// The device.
        device: Arc<str>,
        /// The first journal bucket.
        first: BucketIndex,
        /// The last one.
        last: BucketIndex,
    },
    /// The numbers of journal entries or prio writes are about to run out. No device lives that
    /// long; somebody wrote them.
    #[error("{device}: the newest {what} has the number {seq}, wanted at most {wanted}")]
    NumbersRunOut {
        /// The device.
        device: Arc<str>,
        /// Journal entry or prio set.
        what: &'static str,
        /// Its number.
        seq: u64,
        /// The last number with which a device is opened.
        wanted: u64,
    },
    /// The journal has no bucket that may be overwritten.
    #[error("{device}: journal full: bucket {bucket} holds entry {seq}, which is still needed")]
    JournalFull {
        /// The device.
        device: Arc<str>,
        /// The bucket that would be next.
        bucket: BucketIndex,
        /// Its newest entry.
        seq: u64,
    },
    /// A geometry, a size or a label that core refuses.
    #[error(transparent)]
    Core(#[from] tierce_core::Error),
}

impl Error {
    /// As the cause of a device's failure: the device and the first error.
    pub(crate) fn into_failure(self, name: &Arc<str>) -> (Arc<str>, Arc<Self>) {
        match self {
            Self::Failed { device, cause } => (device, cause),
            other => (name.clone(), Arc::new(other)),
        }
    }

    /// What core says of bytes on `device`, with the device's name.
    pub(crate) fn on(self, device: &Arc<str>) -> Self {
        match self {
            Self::Core(cause) => Self::Corrupt { device: device.clone(), cause },
            other => other,
        }
    }
}
