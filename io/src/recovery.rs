//! Reading the state of a device: superblock, newest journal entry, prio chain, table.
//!
//! Reads overlap with looking at what was read before, see `read_ahead.rs`, and with getting and
//! filling the memory of the table, see `prio_reader.rs`.
//!
//! This only reads. A crash in the middle of it is a crash before it.
//!
//! | superblock | journal | result |
//! |---|---|---|
//! | never used | not looked at | all gens 0 |
//! | in use without "sync" | not looked at | refused: it was used as scratch |
//! | in use | an entry without prio chain | all gens 0 |
//! | in use | an entry with a prio chain | that table |
//! | in use | no entry | refused: at the first use entry 1 is durable before the superblock says "in use", so the journal was destroyed, and with it the gens |
//! | in use | an entry of Linux (an index root, keys, or entries before it that it needs) | refused: its pointers would be lost |
//!
//! Every refusal names the device, and the bucket and field where there is one.

use crate::device::Device;
use crate::error::Error;
use crate::prio_reader::{Table, with_helpers};
use crate::read_ahead::{InOrder, ReadAhead, Span};
use crate::superblock;
use std::sync::Arc;
use tierce_core::record::journal::WINDOW_BYTES;
use tierce_core::record::{ChainWalk, Journal, PrioChain, Superblock};
use tierce_core::{BucketIndex, broken};
use tierce_lockfree::{Gens, GensBuilder};

/// The highest number of a journal entry or prio write with which a device is opened: at a
/// million writes a second the rest lasts 290 000 years.
const NUMBER_MAX: u64 = u64::MAX >> 1;

/// Pieces from which on it is worth having a ring to read them by.
const OWN_RING_PIECES: u32 = 32;

/// The state of a device as it was found.
///
/// ```
/// use tierce_io::{FormatOptions, recover};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("cache");
/// let options = FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
/// tierce_io::format(&path, &options)?;
/// let device = tierce_io::open_device(&path, &options.device)?;
/// let found = recover(device)?;
/// assert!(found.superblock.is_unused() && found.chain.is_none());
/// assert_eq!(found.table.nbuckets(), 1024);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Recovered {
    /// As it is on the device.
    pub superblock: Superblock,
    /// The journal; `None` if the device was never used.
    pub journal: Option<Journal>,
    /// The prio chain; `None` if none was ever written.
    pub chain: Option<PrioChain>,
    /// Prio and gen of every bucket, from bucket 0 on.
    pub table: Gens,
}

/// Reads the state of a device.
///
/// See [`Recovered`] for an example.
///
/// # Errors
///
/// [`Error::NotFormatted`], [`Error::Foreign`], [`Error::Truncated`], [`Error::TooSmall`],
/// [`Error::BlockTooSmall`], [`Error::Corrupt`], [`Error::NoJournalEntry`],
/// [`Error::LinuxCache`], [`Error::NumbersRunOut`], [`Error::Scratch`], or whatever the device reports.
pub fn recover(device: Arc<dyn Device>) -> Result<Recovered, Error> {
    let superblock = superblock::read(&*device)?;
    recover_by(&device, superblock)
}

/// As [`recover`], with the superblock that was read.
pub(crate) fn recover_by(
    device: &Arc<dyn Device>,
    superblock: Superblock,
) -> Result<Recovered, Error> {
    let geometry = *superblock.geometry();
    if superblock.is_unused() {
        let table = Gens::zeroed(geometry.nbuckets());
        return Ok(Recovered { superblock, journal: None, chain: None, table });
    }
    if !superblock.sync && !broken!("scratch_as_durable") {
        return Err(Error::Scratch { device: device.name().clone() });
    }
    let mut builder = GensBuilder::new(geometry.nbuckets());
    let read = |table: &Table<'_>| {
        let mut reads = reads_of(device, &superblock);
        let journal = read_journal(device, &mut reads, &superblock, || table.work())?;
        let head = journal.prio_head(superblock.nr_this_dev);
        if head.bucket == 0 {
            return Ok::<_, Error>((journal, None));
        }
        let walk = ChainWalk::new(&geometry, superblock.set_magic(), head);
        let chain = table.follow(&mut reads, &geometry, walk);
        Ok((journal, Some(chain.map_err(|error| error.on(device.name()))?)))
    };
    let (journal, chain) = with_helpers(&mut builder, read)?;
    let table = match &chain {
        Some(chain) => {
            check_number(device, "prio set", chain.seq)?;
            builder.build()
        }
        None => {
            drop(builder); // before there is another table
            Gens::zeroed(geometry.nbuckets())
        }
    };
    Ok(Recovered { superblock, journal: Some(journal), chain, table })
}

fn bucket_bytes(superblock: &Superblock) -> u64 {
    superblock.geometry().bucket_bytes().into()
}

/// For the journal and the prio sets.
fn reads_of(device: &Arc<dyn Device>, superblock: &Superblock) -> ReadAhead {
    let (geometry, bucket_bytes) = (superblock.geometry(), bucket_bytes(superblock));
    let bytes = bucket_bytes.min((WINDOW_BYTES as u64).max(geometry.meta_bytes().into()));
    let pieces = geometry.prio_buckets() + u32::from(superblock.njournal);
    ReadAhead::new(device, bytes, bucket_bytes, pieces >= OWN_RING_PIECES)
}

fn read_journal(
    device: &Arc<dyn Device>,
    reads: &mut ReadAhead,
    superblock: &Superblock,
    mut meanwhile: impl FnMut() -> bool,
) -> Result<Journal, Error> {
    let geometry = *superblock.geometry();
    let place = |bucket: BucketIndex| u64::from(bucket.get()) * bucket_bytes(superblock);
    let bytes = (WINDOW_BYTES as u64).min(bucket_bytes(superblock));
    let starts = superblock.journal_buckets().map(|b| Span { offset: place(b), bytes });
    let starts = InOrder::new(starts);
    let read = |bucket, byte, out: &mut [u8]| {
        let span = Span { offset: place(bucket) + byte, bytes: out.len() as u64 };
        let piece = reads.read(span, starts.after(span.offset), &mut meanwhile)?;
        out.copy_from_slice(&piece);
        Ok::<_, Error>(())
    };
    let found = Journal::search(superblock, read).map_err(|error| error.on(device.name()))?;
    let Some(journal) = found else {
        let first = geometry.first_bucket();
        let last = BucketIndex::new(first.get() + u32::from(superblock.njournal) - 1);
        return Err(Error::NoJournalEntry { device: device.name().clone(), first, last });
    };
    let newest = &journal.newest;
    let is_ours = newest.btree_root.is_zero()
        && newest.uuid_bucket.is_zero()
        && newest.keys.is_empty()
        && newest.last_seq == newest.seq;
    if !is_ours {
        return Err(Error::LinuxCache { device: device.name().clone(), seq: newest.seq });
    }
    check_number(device, "journal entry", newest.seq)?;
    Ok(journal)
}

/// The numbers go on from here, so they must have room to.
fn check_number(device: &Arc<dyn Device>, what: &'static str, seq: u64) -> Result<(), Error> {
    if seq <= NUMBER_MAX {
        return Ok(());
    }
    let (device, wanted) = (device.name().clone(), NUMBER_MAX);
    Err(Error::NumbersRunOut { device, what, seq, wanted })
}
