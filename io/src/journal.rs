//! Writing the journal: a ring of buckets, the newest entry of which is the state of the device.
//!
//! # Problem
//!
//! Each entry names the head of the prio chain, so that one small write moves the device from
//! one table of gens to the next. It must be whole or absent after a power loss, and must not be
//! durable before what it names.
//!
//! # State
//!
//! `slot` and `byte`: where the next entry goes. `highest_seq[slot]`: the newest entry in each
//! bucket of the ring. `newest`: the newest durable entry.
//!
//! # Protocol
//!
//! An append
//!
//! 1. finds its place: behind the newest entry, or, where the bucket's rest is too small, at the
//!    start of the next bucket of the ring, if that may be reused;
//! 2. flushes: everything completed so far is durable, whatever the entry will name included;
//! 3. writes the entry, durably (FUA, or a flush behind the write).
//!
//! An error in 2 or 3 leaves unknown whether the entry is there, so the journal takes no other
//! one: a second entry of the same seq could contradict the first.
//!
//! # Invariants
//!
//! 1. A bucket is reused only when its highest seq is below the newest durable entry's
//!    `last_seq`. Our entries need no other one: `last_seq = seq`, so only the bucket of the
//!    newest entry is held.
//! 2. One bucket stays in reserve: the ring has at least two buckets, and the newest durable
//!    entry never lies in the one that is being entered. A torn first entry of a new turn leaves
//!    the entry before it, in another bucket.
//! 3. seq grows by 1 per entry and the search for the newest takes the highest, so what is left
//!    of earlier turns behind a bucket's last entry does no harm.

use crate::device::{Class, Device, DeviceExt, Request};
use crate::error::Error;
use crate::format::wipe_journal;
use std::sync::Arc;
use tierce_core::record::{self, Jset, Superblock};
use tierce_core::{BucketIndex, Geometry, broken};

/// The journal of an open device.
///
/// ```
/// use tierce_core::BucketIndex;
/// use tierce_io::{FormatOptions, Journal};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("cache");
/// let options = FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
/// let superblock = tierce_io::format(&path, &options)?.first_use(0);
/// let device = tierce_io::open_device(&path, &options.device)?;
/// let mut journal = Journal::create(device, &superblock)?;
/// assert_eq!(journal.newest().seq, 1);
/// journal.append(BucketIndex::new(99))?;
/// assert_eq!((journal.newest().seq, journal.newest().prio_bucket[0]), (2, 99));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Journal {
    device: Arc<dyn Device>,
    superblock: Superblock,
    newest: Jset,
    slot: usize,
    byte: u32,
    highest_seq: Vec<Option<u64>>,
    failed: Option<Arc<Error>>,
}

impl Journal {
    /// The journal of a device at its first use: wipes the journal buckets of `superblock`,
    /// which need not be on the device yet, and writes entry 1, which names no prio chain.
    ///
    /// # Errors
    ///
    /// Whatever the device reports.
    pub fn create(device: Arc<dyn Device>, superblock: &Superblock) -> Result<Self, Error> {
        wipe_journal(&*device, superblock)?;
        let mut journal = Self {
            device,
            superblock: superblock.clone(),
            newest: Jset::default(),
            slot: 0,
            byte: 0,
            highest_seq: vec![None; superblock.njournal.into()],
            failed: None,
        };
        let first = Jset { seq: 1, last_seq: 1, ..Jset::default() };
        journal.write(first).map_err(|cause| journal.failure(cause))?;
        Ok(journal)
    }

    /// The journal as it was found at open.
    #[must_use]
    pub fn resume(
        device: Arc<dyn Device>,
        superblock: &Superblock,
        found: record::Journal,
    ) -> Self {
        Self {
            device,
            superblock: superblock.clone(),
            slot: found.next_slot as usize,
            byte: found.next_byte,
            highest_seq: found.highest_seq,
            newest: found.newest,
            failed: None,
        }
    }

    /// The newest durable entry.
    #[must_use]
    pub const fn newest(&self) -> &Jset {
        &self.newest
    }

    /// Makes everything durable that was completed so far, then an entry that names `prio_head`
    /// as this device's prio chain.
    ///
    /// # Errors
    ///
    /// Whatever the device reports, and from then on always [`Error::Failed`]: whether the entry
    /// is on the device is unknown. [`Error::JournalFull`] cannot happen to entries that need no
    /// other one; it is checked all the same.
    pub fn append(&mut self, prio_head: BucketIndex) -> Result<(), Error> {
        if let Some(cause) = &self.failed {
            let (device, cause) = (self.device.name().clone(), cause.clone());
            return Err(Error::Failed { device, cause });
        }
        let seq = self.newest.seq + 1;
        let mut next = Jset { seq, last_seq: seq, ..self.newest.clone() };
        next.prio_bucket[self.superblock.nr_this_dev.as_usize()] = prio_head.get().into();
        self.write(next).map_err(|cause| self.failure(cause))
    }

    fn geometry(&self) -> &Geometry {
        self.superblock.geometry()
    }

    fn bucket(&self, slot: usize) -> BucketIndex {
        BucketIndex::new(self.geometry().first_bucket().get() + slot as u32)
    }

    fn write(&mut self, entry: Jset) -> Result<(), Error> {
        let block_bytes = self.geometry().block_bytes();
        let bytes = entry.bytes_on_device(block_bytes);
        let (slot, byte) = self.place(bytes as u32)?;
        let mut buffer = self.device.buffer(bytes);
        entry.encode(self.superblock.set_magic(), block_bytes, &mut buffer)?;
        let bucket_start = self.bucket(slot).get() as u64 * self.geometry().bucket_bytes() as u64;
        if !broken!("journal_before_flush") {
            self.device.flush()?;
        }
        let write = Request::write(bucket_start + u64::from(byte), buffer).durable();
        let write = write.class(Class::Metadata);
        self.device.perform(write)?;
        self.slot = slot;
        self.byte = byte + bytes as u32;
        self.highest_seq[slot] = Some(entry.seq);
        self.newest = entry;
        Ok(())
    }

    /// Where an entry of `bytes` bytes goes.
    fn place(&self, bytes: u32) -> Result<(usize, u32), Error> {
        if self.byte + bytes <= self.geometry().bucket_bytes() {
            return Ok((self.slot, self.byte));
        }
        let next = (self.slot + 1) % self.highest_seq.len();
        match self.highest_seq[next] {
            Some(seq) if seq >= self.newest.last_seq => {
                let (device, bucket) = (self.device.name().clone(), self.bucket(next));
                Err(Error::JournalFull { device, bucket, seq })
            }
            _ => Ok((next, 0)),
        }
    }

    /// Notes the failure, and gives the error as it was.
    fn failure(&mut self, cause: Error) -> Error {
        let cause = Arc::new(cause);
        self.failed = Some(cause.clone());
        Error::Failed { device: self.device.name().clone(), cause }
    }
}
