//! The seam: the one narrow trait through which every byte goes to and from a device.
//!
//! # Protocol
//!
//! 1. The caller takes a [`Buffer`] (best from [`Device::buffer`], which hands out registered
//!    memory while there is some) and gives it away in a [`Request`].
//! 2. [`Device::submit`] never waits for the device. It answers with a
//!    [`Completion`], which can be waited for or awaited, or dropped.
//! 3. The outcome gives the buffer back, with all of it transferred, or an error that names
//!    device, operation, place and cause. Short transfers are continued; one that cannot be is
//!    an error.
//!
//! # Ordering
//!
//! Operations under way at the same time take effect in any order, and survive a power loss in
//! any subset. Who needs an order waits: what *completed* before a [`Request::Flush`] was
//! submitted is durable when the flush completes, and a write that is `durable` is durable
//! itself when it completes, which says nothing about writes before it.
//!
//! Implementations are peers: [`Uring`](crate::Uring), [`SyncIo`](crate::SyncIo) and, for tests,
//! [`Sim`](crate::Sim).

use crate::buffer::Buffer;
use crate::completion::{Completer, Completion, Outcome};
use crate::error::Error;
use crate::file::DeviceFile;
use std::fmt;
use std::sync::Arc;

/// What an operation does, for messages.
///
/// ```
/// assert_eq!(tierce_io::Operation::Write.to_string(), "write");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Operation {
    /// Bytes from the device.
    Read,
    /// Bytes to the device.
    Write,
    /// Makes completed writes durable.
    Flush,
    /// Tells the device that a range's content is not needed any more.
    Discard,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
        })
    }
}

/// What kind of data a write carries. A device with write streams keeps kinds apart that die at
/// different times, and so moves less of them about; for others it makes no difference.
///
/// ```
/// use tierce_io::{Buffer, Class, Request};
/// let request = Request::write(0, Buffer::new(4096)).class(Class::MovingGc);
/// # let _ = request;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Class {
    /// What users store: it lives until its bucket is reused.
    #[default]
    Data,
    /// Prio sets, journal entries, index nodes: rewritten often.
    Metadata,
    /// What garbage collection moves: it has lived for long already.
    MovingGc,
}

impl Class {
    /// Which of a device's write streams it goes to, counted from 1; 0 if the device has none.
    /// With fewer than three, the last classes share one.
    pub(crate) fn stream(self, write_streams: u8) -> u8 {
        let own = match self {
            Self::Data => 1,
            Self::Metadata => 2,
            Self::MovingGc => 3,
        };
        write_streams.min(own)
    }
}

/// What a device is asked to do. Offsets and lengths are bytes and multiples of the logical
/// block.
///
/// ```
/// use tierce_io::{Buffer, Operation, Request};
/// let request = Request::write(8192, Buffer::new(4096)).durable();
/// assert_eq!((request.operation(), request.offset(), request.bytes()),
///            (Operation::Write, 8192, 4096));
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Request {
    /// Fills the whole buffer from `offset` on.
    #[non_exhaustive]
    Read {
        /// Where.
        offset: u64,
        /// How much, and where to.
        buffer: Buffer,
    },
    /// Writes the whole buffer from `offset` on.
    #[non_exhaustive]
    Write {
        /// Where.
        offset: u64,
        /// What.
        buffer: Buffer,
        /// Completes only when these bytes are durable (FUA, or a flush after the write).
        durable: bool,
        /// What kind of data it is.
        class: Class,
    },
    /// Makes every write durable that completed before this was submitted.
    Flush,
    /// Discards a range. Reading it gives zeros, the old content, or anything until it is
    /// written again.
    #[non_exhaustive]
    Discard {
        /// Where.
        offset: u64,
        /// How much.
        bytes: u64,
    },
}

impl Request {
    /// A read of `buffer.len()` bytes.
    #[must_use]
    pub const fn read(offset: u64, buffer: Buffer) -> Self {
        Self::Read { offset, buffer }
    }

    /// A write of `buffer.len()` bytes.
    #[must_use]
    pub const fn write(offset: u64, buffer: Buffer) -> Self {
        Self::Write { offset, buffer, durable: false, class: Class::Data }
    }

    /// A discard.
    #[must_use]
    pub const fn discard(offset: u64, bytes: u64) -> Self {
        Self::Discard { offset, bytes }
    }

    /// The same write, durable when it completes. Nothing else is changed by this.
    #[must_use]
    pub fn durable(mut self) -> Self {
        if let Self::Write { durable, .. } = &mut self {
            *durable = true;
        }
        self
    }

    /// The same write of another class than [`Class::Data`]. Nothing else is changed by this.
    #[must_use]
    pub fn class(mut self, of: Class) -> Self {
        if let Self::Write { class, .. } = &mut self {
            *class = of;
        }
        self
    }

    /// What it does.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        match self {
            Self::Read { .. } => Operation::Read,
            Self::Write { .. } => Operation::Write,
            Self::Flush => Operation::Flush,
            Self::Discard { .. } => Operation::Discard,
        }
    }

    /// Where it starts; 0 for a flush.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        match self {
            Self::Read { offset, .. }
            | Self::Write { offset, .. }
            | Self::Discard { offset, .. } => *offset,
            Self::Flush => 0,
        }
    }

    /// How many bytes it is about; 0 for a flush.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Read { buffer, .. } | Self::Write { buffer, .. } => buffer.len() as u64,
            Self::Discard { bytes, .. } => *bytes,
            Self::Flush => 0,
        }
    }

    /// Its buffer back, or an empty one.
    #[must_use]
    pub fn into_buffer(self) -> Buffer {
        match self {
            Self::Read { buffer, .. } | Self::Write { buffer, .. } => buffer,
            Self::Flush | Self::Discard { .. } => Buffer::empty(),
        }
    }

    /// Checks it against a device. Every implementation does this before anything else.
    ///
    /// # Errors
    ///
    /// [`Error::Misaligned`], [`Error::Range`], or [`Error::Unsupported`] for a discard where
    /// there is none.
    pub fn check(&self, device: &Arc<str>, capabilities: &Capabilities) -> Result<(), Error> {
        let (operation, offset, bytes) = (self.operation(), self.offset(), self.bytes());
        let device = || device.clone();
        let block = u64::from(capabilities.logical_block);
        if !offset.is_multiple_of(block) || !bytes.is_multiple_of(block) {
            let block = capabilities.logical_block;
            return Err(Error::Misaligned { device: device(), operation, offset, bytes, block });
        }
        let device_bytes = capabilities.bytes;
        if offset.checked_add(bytes).is_none_or(|end| end > device_bytes) {
            return Err(Error::Range { device: device(), operation, offset, bytes, device_bytes });
        }
        if operation == Operation::Discard && capabilities.discard == DiscardKind::None {
            return Err(Error::Unsupported { device: device(), operation });
        }
        Ok(())
    }
}

/// How a device discards.
///
/// ```
/// use tierce_io::DiscardKind;
/// assert_eq!(DiscardKind::default(), DiscardKind::None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum DiscardKind {
    /// Not at all.
    #[default]
    None,
    /// A block device's discard command.
    Command,
    /// A block device's discard by an ioctl, which blocks a thread of its own.
    Blocking,
    /// A hole punched into a file.
    Punch,
}

/// What a device can do and how large it is.
///
/// ```
/// use tierce_io::{Capabilities, DiscardKind};
/// let c = Capabilities::new(512, 1 << 30).with_discard(DiscardKind::Punch);
/// assert_eq!((c.logical_block, c.bytes), (512, 1 << 30));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Capabilities {
    /// The unit of every offset and length, in bytes: a power of two, 512 to 4096.
    pub logical_block: u32,
    /// The size in bytes.
    pub bytes: u64,
    /// Whether and how it discards.
    pub discard: DiscardKind,
    /// Whether transfers bypass the page cache.
    pub direct: bool,
    /// How many write streams it has, for [`Class`]es of data; 0 if none.
    pub write_streams: u8,
}

impl Capabilities {
    /// A device of `bytes` bytes that neither discards nor bypasses a cache.
    ///
    /// # Panics
    ///
    /// If `logical_block` is no power of two from 512 to 4096.
    #[must_use]
    pub const fn new(logical_block: u32, bytes: u64) -> Self {
        assert!(logical_block.is_power_of_two() && 512 <= logical_block && logical_block <= 4096);
        let (discard, direct, write_streams) = (DiscardKind::None, false, 0);
        Self { logical_block, bytes, discard, direct, write_streams }
    }

    /// The same with this kind of discard.
    #[must_use]
    pub const fn with_discard(mut self, discard: DiscardKind) -> Self {
        self.discard = discard;
        self
    }
}

/// A device: the one way to its bytes.
///
/// See the [module](self) for who owns buffers when, and for what is ordered.
///
/// ```
/// use tierce_io::{Device, DeviceExt, DeviceOptions, Request};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("cache");
/// std::fs::write(&path, vec![0; 1 << 20])?;
/// let device = tierce_io::open_device(&path, &DeviceOptions::default())?;
///
/// let mut buffer = device.buffer(4096);
/// buffer.fill(7);
/// device.submit(Request::write(8192, buffer)).wait()?;
/// device.flush()?;
/// assert_eq!(device.read_at(8192, 4096)?[..3], [7, 7, 7]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Device: Send + Sync + fmt::Debug {
    /// How messages call it: the path it was opened by.
    fn name(&self) -> &Arc<str>;

    /// What it can do. Constant while it is open.
    fn capabilities(&self) -> &Capabilities;

    /// A buffer of `bytes` bytes for a request to this device, registered if one is free. What
    /// it holds is unspecified.
    fn buffer(&self, bytes: usize) -> Buffer;

    /// Starts an operation. Does not wait for the device; a refused request is completed at
    /// once, with the error.
    fn submit(&self, request: Request) -> Completion;

    /// Does an operation and waits for it: on the calling thread, where the device can, which
    /// saves two wake-ups.
    ///
    /// # Errors
    ///
    /// Whatever the operation ended with.
    fn perform(&self, request: Request) -> Outcome {
        self.submit(request).wait()
    }

    /// What a [`Queue`](crate::Queue) makes a ring of its own for; `None`, unless said
    /// otherwise, if this device has no use for one: then queues submit to it.
    fn ring_file(&self) -> Option<RingFile> {
        None
    }
}

/// An open file that rings can be made for, see [`Device::ring_file`].
///
/// ```
/// use tierce_io::{Device, Sim, SimOptions};
/// assert!(Sim::new(&SimOptions::default()).ring_file().is_none());
/// ```
#[derive(Clone, Debug)]
pub struct RingFile {
    pub(crate) file: Arc<DeviceFile>,
}

/// One operation at a time, waiting for it: for set-up and tests.
///
/// ```
/// use tierce_io::{DeviceExt, DeviceOptions};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("cache");
/// std::fs::write(&path, vec![0; 1 << 20])?;
/// let device = tierce_io::open_device(&path, &DeviceOptions::default())?;
/// device.write_at(0, &[1; 4096])?;
/// device.flush()?;
/// assert_eq!(device.read_at(0, 4096)?[..], [1; 4096]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait DeviceExt: Device {
    /// Reads `bytes` bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// Whatever the device reports.
    fn read_at(&self, offset: u64, bytes: usize) -> Outcome {
        self.perform(Request::read(offset, self.buffer(bytes)))
    }

    /// Writes `data` at `offset`, not durably.
    ///
    /// # Errors
    ///
    /// Whatever the device reports.
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        let mut buffer = self.buffer(data.len());
        buffer.copy_from_slice(data);
        self.perform(Request::write(offset, buffer)).map(drop)
    }

    /// Makes every completed write durable.
    ///
    /// # Errors
    ///
    /// Whatever the device reports; then nothing is known about what is durable.
    fn flush(&self) -> Result<(), Error> {
        self.perform(Request::Flush).map(drop)
    }

    /// Discards a range.
    ///
    /// # Errors
    ///
    /// Whatever the device reports.
    fn discard(&self, offset: u64, bytes: u64) -> Result<(), Error> {
        self.perform(Request::discard(offset, bytes)).map(drop)
    }
}

impl<D: Device + ?Sized> DeviceExt for D {}

/// A completion that is refused with `error` at once.
pub(crate) fn refused(device: &Arc<str>, error: Error) -> Completion {
    let (completer, completion) = Completer::new(device.clone());
    completer.complete(Err(error));
    completion
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_streams_of_their_own_where_there_are_enough() {
        let streams = |n| [Class::Data, Class::Metadata, Class::MovingGc].map(|c| c.stream(n));
        assert_eq!(streams(0), [0, 0, 0], "no stream is named");
        assert_eq!(streams(1), [1, 1, 1]);
        assert_eq!(streams(2), [1, 2, 2]);
        assert_eq!(streams(8), [1, 2, 3]);
    }
}
