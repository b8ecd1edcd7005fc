//! An open device: what was recovered from it, and what keeps its state durable from here on.
//!
//! # Opening
//!
//! [`Volume::open`] opens exclusively, reads the state ([`recover`](mod@crate::recovery)) and
//! then says on the device that it is in use:
//!
//! * first use: journal entry 1, durable, then the superblock with its journal buckets, as
//!   version 3 with seq 1. A power loss in between leaves a device that was never used.
//! * later: the superblock with seq + 1 and the time.
//!
//! Somebody whose own index will point into the buckets opens as [`Owner::Engine`]: before he
//! can write anything the superblock is durable with the feature bit by which Linux, and whoever
//! does not know the index, refuses the device.
//!
//! A scratch device ([`Owner::Scratch`]) has neither journal nor prio chain. Its superblock lacks
//! the bit "sync", and who would rely on gens that nobody keeps is refused.
//!
//! # Publishing
//!
//! [`StateWriter::publish`] is steps 2 to 4 of the crash rule: the table to its chain, a flush,
//! the journal entry. When it returns, the gens of that table are durable. The first error makes
//! the device fail for good: what is on it is the last state that was published, and nothing is
//! handed out on the strength of a newer one.

use crate::device::{Device, DeviceExt};
use crate::error::Error;
use crate::file::{DeviceOptions, open_device};
use crate::journal::Journal;
use crate::prio_writer::write_prio_chain;
use crate::recovery::{Recovered, recover_by};
use crate::superblock;
use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tierce_core::record::Superblock;
use tierce_core::record::prio_set::PrioRecords;
use tierce_core::{BucketIndex, Geometry};
use tierce_lockfree::{DeviceTable, Gens};

/// Who opens a device.
///
/// ```
/// assert_eq!(tierce_io::Owner::default(), tierce_io::Owner::Allocator);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Owner {
    /// Somebody who keeps no pointers on the device.
    #[default]
    Allocator,
    /// tierce's cache engine, which keeps its index in buckets.
    Engine,
    /// Somebody who wants nothing back: the device starts empty every time. No gen becomes
    /// durable, nothing is flushed, and a crash loses everything. The device says so, and from
    /// then on is refused to everybody else; one that holds something durable is refused here.
    Scratch,
}

/// How to open a volume.
///
/// ```
/// use tierce_io::{DeviceOptions, OpenOptions, Owner};
/// let options = OpenOptions::default().owner(Owner::Engine);
/// # let _ = options;
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Who opens it.
    pub owner: Owner,
    /// By what means it is read and written.
    pub device: DeviceOptions,
}

tierce_core::setters!(OpenOptions { owner: Owner, device: DeviceOptions });

/// An open device and its state.
///
/// ```
/// use tierce_core::{BucketIndex, Gen, Prio};
/// use tierce_io::{FormatOptions, OpenOptions, Volume};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("cache");
/// let options = FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
/// tierce_io::format(&path, &options)?;
///
/// let volume = Volume::open(&path, &OpenOptions::default())?;
/// assert_eq!(volume.superblock().version, 3);
/// let (table, mut writer) = volume.into_parts();
/// assert!(table.iter().all(|(_, generation)| generation == Gen::new(0)));
/// let records = (0..1024).map(|_| (Prio::FRESH, Gen::new(1)));
/// writer.publish(&[BucketIndex::new(40)], vec![records])?;
/// drop(writer);
///
/// let volume = Volume::open(&path, &OpenOptions::default())?;
/// let found = volume.table().get(BucketIndex::new(77));
/// assert_eq!(found, Some((Prio::FRESH, Gen::new(1))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Volume {
    table: Gens,
    writer: StateWriter,
}

impl Volume {
    /// Opens the formatted file or block device at `path`, for us alone.
    ///
    /// # Errors
    ///
    /// Whatever [`open_device`] and [`recover`](crate::recover()) refuse, and
    /// [`Error::EngineIndex`]; then nothing on the device was changed.
    pub fn open(path: impl AsRef<Path>, options: &OpenOptions) -> Result<Self, Error> {
        Self::open_on(open_device(path, &options.device)?, options.owner)
    }

    /// Opens a device that is open already. [`open`](Self::open) opens it; who brings a device
    /// of his own starts here.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_on(device: Arc<dyn Device>, owner: Owner) -> Result<Self, Error> {
        if owner == Owner::Scratch {
            return Self::open_scratch(device);
        }
        let old = superblock::read(&*device)?;
        let Recovered { superblock: old, journal, chain, table } = recover_by(&device, old)?;
        if old.has_tierce_index() && owner != Owner::Engine {
            return Err(Error::EngineIndex { device: device.name().clone() });
        }
        let now = seconds_now();
        let (journal, mut new) = match journal {
            Some(found) => {
                let new = old.later_use(now);
                (Journal::resume(device.clone(), &new, found), new)
            }
            None => {
                let new = old.first_use(now);
                (Journal::create(device.clone(), &new)?, new)
            }
        };
        if owner == Owner::Engine && !new.has_tierce_index() {
            new = new.engine_use();
        }
        superblock::replace(&*device, &old, &new)?;
        let (seq, chain) = chain.map_or((0, Vec::new()), |chain| (chain.seq, chain.buckets));
        let journal = Some(journal);
        let writer = StateWriter { device, superblock: new, journal, seq, chain, failed: None };
        Ok(Self { table, writer })
    }

    /// Nothing is read but the superblock, and nothing is flushed.
    fn open_scratch(device: Arc<dyn Device>) -> Result<Self, Error> {
        let old = superblock::read(&*device)?;
        if !old.is_unused() && old.sync {
            return Err(Error::Durable { device: device.name().clone() });
        }
        let now = seconds_now();
        let mut new = if old.is_unused() { old.first_use(now) } else { old.later_use(now) };
        new.sync = false;
        device.write_at(superblock::OFFSET, &new.encode())?;
        let table = Gens::zeroed(new.geometry().nbuckets());
        let (chain, failed) = (Vec::new(), None);
        let writer = StateWriter { device, superblock: new, journal: None, seq: 0, chain, failed };
        Ok(Self { table, writer })
    }

    /// Whether it keeps nothing: then its allocator must run without
    /// [`sync`](tierce_lockfree::Config).
    #[must_use]
    pub const fn is_scratch(&self) -> bool {
        self.writer.is_scratch()
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> &Arc<dyn Device> {
        &self.writer.device
    }

    /// The superblock as it is on the device now.
    #[must_use]
    pub const fn superblock(&self) -> &Superblock {
        &self.writer.superblock
    }

    /// How the device is divided.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        self.writer.superblock.geometry()
    }

    /// Prio and gen of every bucket, from bucket 0 on, as they were recovered.
    #[must_use]
    pub const fn table(&self) -> &Gens {
        &self.table
    }

    /// The prio chain that holds this table, head first; empty if none was ever written.
    #[must_use]
    pub fn prio_chain(&self) -> &[BucketIndex] {
        self.writer.prio_chain()
    }

    /// The number of the last prio write; 0 if there was none.
    #[must_use]
    pub const fn prio_seq(&self) -> u64 {
        self.writer.prio_seq()
    }

    /// The table, and what makes newer ones durable.
    #[must_use]
    pub fn into_parts(self) -> (Gens, StateWriter) {
        (self.table, self.writer)
    }

    /// What an allocator starts with, with the default sizes of its free lists, and what makes
    /// newer tables durable.
    #[must_use]
    pub fn into_start(self) -> (DeviceTable, StateWriter) {
        let Self { table, writer } = self;
        let superblock = &writer.superblock;
        let mut start =
            DeviceTable::of(*superblock.geometry(), table).with_journal(superblock.njournal.into());
        (start.chain, start.prio_seq) = (writer.chain.clone(), writer.seq);
        (start, writer)
    }
}

impl fmt::Debug for Volume {
    /// Without the table, which has an entry per bucket.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume").field("writer", &self.writer).finish_non_exhaustive()
    }
}

/// The time for the superblock, which has 32 bits for it.
fn seconds_now() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}

/// What makes the table of gens and prios durable.
///
/// See [`Volume`] for an example.
pub struct StateWriter {
    device: Arc<dyn Device>,
    superblock: Superblock,
    /// `None` on a scratch device.
    journal: Option<Journal>,
    seq: u64,
    chain: Vec<BucketIndex>,
    failed: Option<Arc<Error>>,
}

impl fmt::Debug for StateWriter {
    /// Without the chain, which may be long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateWriter")
            .field("device", self.device.name())
            .field("prio_seq", &self.seq)
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}

impl StateWriter {
    /// Makes a table durable, written to `chain` (head first). `sets` are the records of each
    /// set, as for [`write_prio_chain`].
    ///
    /// When it returns `Ok`, that table is the state of the device and the chain before it is
    /// free. Otherwise the device has failed: its state is this table or the one before, and
    /// neither chain may be reused.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] with the first error that this device ever reported to it, then and
    /// from then on.
    ///
    /// # Panics
    ///
    /// If `chain` is not one for this device, or shares a bucket with the chain that is the
    /// state of the device: a power loss would leave neither.
    pub fn publish<S>(&mut self, chain: &[BucketIndex], sets: Vec<S>) -> Result<(), Error>
    where
        S: PrioRecords + Send,
    {
        self.write(chain, sets)?;
        self.commit(chain)
    }

    /// The first half of [`publish`](Self::publish): writes the sets, which nothing names yet.
    /// It may be repeated, on the same chain, if the table turns out to be of no use.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Panics
    ///
    /// As [`publish`](Self::publish).
    pub fn write<S>(&mut self, chain: &[BucketIndex], sets: Vec<S>) -> Result<(), Error>
    where
        S: PrioRecords + Send,
    {
        self.check()?;
        let live: HashSet<_> = self.chain.iter().map(|bucket| bucket.get()).collect();
        let overwritten = chain.iter().find(|bucket| live.contains(&bucket.get()));
        assert_eq!(overwritten, None, "overwrites the chain that is the state of the device");
        let (geometry, set) = (self.superblock.geometry(), self.superblock.set_magic());
        let seq = self.seq + 1;
        write_prio_chain(&self.device, geometry, set, seq, chain, sets)
            .map_err(|cause| self.fail(cause))
    }

    /// The second half: makes the sets that were written to `chain` the state of the device.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish).
    ///
    /// # Panics
    ///
    /// If `chain` is empty.
    pub fn commit(&mut self, chain: &[BucketIndex]) -> Result<(), Error> {
        self.check()?;
        let appended = self.journal.as_mut().map_or(Ok(()), |journal| journal.append(chain[0]));
        appended.map_err(|cause| self.fail(cause))?;
        self.seq += 1;
        self.chain = chain.to_vec();
        Ok(())
    }

    /// Whether the device keeps nothing, see [`Owner::Scratch`]: then there is nothing to publish.
    #[must_use]
    pub const fn is_scratch(&self) -> bool {
        self.journal.is_none()
    }

    /// The device.
    #[must_use]
    pub const fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// The superblock as it is on the device.
    #[must_use]
    pub const fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// The chain that is the state of the device, head first.
    #[must_use]
    pub fn prio_chain(&self) -> &[BucketIndex] {
        &self.chain
    }

    /// The number of the last prio write.
    #[must_use]
    pub const fn prio_seq(&self) -> u64 {
        self.seq
    }

    fn check(&self) -> Result<(), Error> {
        if self.is_scratch() {
            return Err(Error::Scratch { device: self.device.name().clone() });
        }
        match &self.failed {
            None => Ok(()),
            Some(cause) => {
                let (device, cause) = (self.device.name().clone(), cause.clone());
                Err(Error::Failed { device, cause })
            }
        }
    }

    /// Notes the first failure and reports it.
    fn fail(&mut self, cause: Error) -> Error {
        let (device, cause) = cause.into_failure(self.device.name());
        self.failed = Some(cause.clone());
        Error::Failed { device, cause }
    }
}
