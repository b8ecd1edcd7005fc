//! Reading the state of a device: superblock, newest journal entry, prio chain, table.
//!
//! Reads overlap with looking at what was read before, see `read_ahead.rs`.
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
use crate::huge::room_for;
use crate::read_ahead::{InOrder, ReadAhead, Span, Steps};
use crate::superblock;
use tierce_core::record::journal::WINDOW_BYTES;
use tierce_core::record::{Journal, PrioChain, Superblock};
use tierce_core::{BucketIndex, Gen, Prio};

/// The highest number of a journal entry or prio write with which a device is opened: at a
/// million writes a second the rest lasts 290 000 years.
const NUMBER_MAX: u64 = u64::MAX >> 1;

/// The state of a device as it was found.
///
/// ```
/// use tierce_io::{FormatOptions, recover};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("cache");
/// let options = FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
/// tierce_io::format(&path, &options)?;
/// let device = tierce_io::open_device(&path, &options.device)?;
/// let found = recover(&*device)?;
/// assert!(found.superblock.is_unused() && found.chain.is_none());
/// assert_eq!(found.table.len(), 1024);
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
    pub table: Vec<(Prio, Gen)>,
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
pub fn recover(device: &dyn Device) -> Result<Recovered, Error> {
    recover_by(device, superblock::read(device)?)
}

/// As [`recover`], with the superblock that was read.
pub(crate) fn recover_by(device: &dyn Device, superblock: Superblock) -> Result<Recovered, Error> {
    let nbuckets = superblock.geometry().nbuckets() as usize;
    if superblock.is_unused() {
        let table = vec![(Prio::default(), Gen::default()); nbuckets];
        return Ok(Recovered { superblock, journal: None, chain: None, table });
    }
    if !superblock.sync && !cfg!(tierce_mutant = "scratch_as_durable") {
        return Err(Error::Scratch { device: device.name().clone() });
    }
    // Its pages are fetched while the journal is read.
    let mut table = room_for(nbuckets);
    let journal = read_journal(device, &superblock)?;
    let head = journal.prio_head(superblock.nr_this_dev);
    if head.bucket == 0 {
        let journal = Some(journal);
        table.resize(nbuckets, Default::default());
        return Ok(Recovered { superblock, journal, chain: None, table });
    }
    let (geometry, set) = (*superblock.geometry(), superblock.set_magic());
    let (mut reads, mut steps) = (ReadAhead::new(device), Steps::default());
    let mut sets_left = geometry.prio_buckets() as usize;
    let place = |bucket| u64::from(bucket) * u64::from(geometry.bucket_bytes());
    let chain = PrioChain::follow(
        &geometry,
        set,
        head,
        |bucket, out| {
            sets_left -= 1;
            let guesses = steps.after(bucket.get()).take(sets_left);
            let possible = guesses.filter(|&guess| geometry.contains(BucketIndex::new(guess)));
            let bytes = out.len() as u64;
            let next = possible.map(|guess| Span { offset: place(guess), bytes });
            reads.read(place(bucket.get()), out, next)
        },
        |set| table.extend(set.records().map(|(_, prio, generation)| (prio, generation))),
    )
    .map_err(|error| error.on(device.name()))?;
    check_number(device, "prio set", chain.seq)?;
    assert_eq!(table.len(), nbuckets, "a whole chain holds every bucket");
    Ok(Recovered { superblock, journal: Some(journal), chain: Some(chain), table })
}

fn read_journal(device: &dyn Device, superblock: &Superblock) -> Result<Journal, Error> {
    let geometry = *superblock.geometry();
    let place = |bucket: BucketIndex| u64::from(bucket.get()) * u64::from(geometry.bucket_bytes());
    let bytes = WINDOW_BYTES.min(geometry.bucket_bytes() as usize) as u64;
    let starts = superblock.journal_buckets().map(|b| Span { offset: place(b), bytes });
    let (mut reads, starts) = (ReadAhead::new(device), InOrder::new(starts));
    let read = |bucket, byte, out: &mut [u8]| {
        let offset = place(bucket) + byte;
        reads.read(offset, out, starts.after(offset))
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
fn check_number(device: &dyn Device, what: &'static str, seq: u64) -> Result<(), Error> {
    if seq <= NUMBER_MAX {
        return Ok(());
    }
    let (device, wanted) = (device.name().clone(), NUMBER_MAX);
    Err(Error::NumbersRunOut { device, what, seq, wanted })
}
