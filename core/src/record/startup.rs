//! From the records of a device to its allocator: what start-up finds.
//!
//! # Why
//!
//! Gens on the device can lag behind pointers: a bucket that nothing durable pointed into may
//! be reused without waiting for its gen to become durable, and a bucket may have been handed
//! out under a journal entry that did not survive. So before the first allocation every pointer
//! of the index is observed, and one that is *ahead* of its bucket raises the bucket's gen.
//!
//! # Protocol
//!
//! 1. every word from the prio sets: gen, prio, last_gc = gen, nothing marked;
//! 2. every pointer that [`walk::index`] and [`walk::journal_keys`] meet is observed;
//! 3. the buckets of the journal and of the prio chain are marked metadata, and the reserves
//!    are filled: [`Set::start`], which is left to the caller.
//!
//! The allocator is the executable specification, with the sizes and the habits of Linux: this
//! shows what is on a device. An engine that runs on one does the same with its own.

use super::walk::{self, Met, PointerKind, WalkCounts};
use super::{Journal, PrioChain, Superblock};
use crate::bucket::{BucketId, BucketIndex, Gen, Prio};
use crate::error::Error;
use crate::reserve::Sizes;
use crate::spec::{DeviceOptions, Live, Marked, Options, Pointer, Set, Table};

/// The allocator of the device that `superblock` describes, every pointer of its index observed
/// and not yet [started](Set::start); and how much index there was. `records` are the prio and
/// gen of every bucket, as the sets of `chain` give them; `read` is as in [`Journal::search`].
///
/// # Errors
///
/// What `read` returns; [`Error::Record`] for a damaged index; [`Error::Limit`] for a device
/// that is not a set of its own, whose index therefore lies on other devices too, or that is
/// too small to have reserves.
///
/// ```
/// use tierce_core::record::{Format, Journal, Jset, PrioChain, PrioSet, Superblock, Uuid};
/// use tierce_core::{BucketIndex, DeviceIndex, Error, Gen, Mark, Prio, record::startup};
/// # let uuid = Uuid([1; 16]);
/// # let format = Format { uuid, set_uuid: uuid, ..Format::new(600 << 12, 8, 1) };
/// let superblock = Superblock::format(&format)?.first_use(0);
/// let (geometry, set) = (*superblock.geometry(), superblock.set_magic());
/// let mut device = vec![0; 600 << 12];
/// let entry = Jset { seq: 1, prio_bucket: [9, 0, 0, 0, 0, 0, 0, 0], ..Jset::default() };
/// entry.encode(set, 512, &mut device[3 << 12..])?;
/// let records = vec![(Prio::FRESH, Gen::new(5)); 600];
/// PrioSet::encode(&mut device[9 << 12..10 << 12], set, 1, 0, records.iter().copied());
///
/// let read = |bucket: BucketIndex, byte, out: &mut [u8]| {
///     let start = (bucket.as_usize() << 12) + byte as usize;
///     Ok::<(), Error>(out.copy_from_slice(&device[start..][..out.len()]))
/// };
/// let journal = Journal::search(&superblock, read)?.expect("there is an entry");
/// let head = journal.prio_head(superblock.nr_this_dev);
/// let chain = PrioChain::follow(&geometry, set, head, |b, out| read(b, 0, out), |_| ())?;
/// let (mut set, counts) = startup::observe(&superblock, &journal, &chain, records, read)?;
/// let _ = set.start()?;
/// assert_eq!(counts.nodes, 0, "nothing is cached yet");
/// let words = set.words(DeviceIndex::FIRST);
/// assert_eq!((words[3].mark(), words[9].mark()), (Mark::Metadata, Mark::Metadata));
/// # Ok::<(), tierce_core::Error>(())
/// ```
pub fn observe<E: From<Error>>(
    superblock: &Superblock,
    journal: &Journal,
    chain: &PrioChain,
    records: Vec<(Prio, Gen)>,
    mut read: impl FnMut(BucketIndex, u64, &mut [u8]) -> Result<(), E>,
) -> Result<(Set, WalkCounts), E> {
    if superblock.nr_in_set != 1 {
        let wanted = "1: the index of a larger set lies on all its devices".into();
        return Err(Error::limit("nr_in_set", superblock.nr_in_set, wanted).into());
    }
    let geometry = *superblock.geometry();
    let mut set = open(superblock, chain, records)?;
    // What the specification refuses cannot come from a pointer that the walk has checked.
    let mut refused = None;
    let mut observe = |met: &Met| match show(&mut set, met) {
        Ok(marked) => marked == Marked::Counted,
        Err(error) => {
            refused.get_or_insert(error);
            false
        }
    };
    let newest = (&journal.newest, journal.newest_entry().place());
    let read_node = |at: BucketId, out: &mut [u8]| read(at.bucket(), 0, out);
    let magic = superblock.set_magic();
    let counts = walk::index(&[geometry], magic, newest, read_node, &mut observe)?;
    for entry in &journal.live {
        let jset = Journal::read_entry(superblock, entry, &mut read)?;
        walk::journal_keys(&[geometry], &jset, entry.place(), &mut observe)?;
    }
    match refused {
        Some(error) => Err(error.into()),
        None => Ok((set, counts)),
    }
}

/// The allocator before anything was observed.
fn open(
    superblock: &Superblock,
    chain: &PrioChain,
    records: Vec<(Prio, Gen)>,
) -> Result<Set, Error> {
    let geometry = *superblock.geometry();
    let journal_buckets = u32::from(superblock.njournal);
    let mut options = DeviceOptions::new(geometry, Sizes::bcache(&geometry, journal_buckets));
    options.policy = superblock.policy;
    options.sync = superblock.sync;
    options.discard = superblock.discard;
    options.journal_buckets = journal_buckets;
    let mut table = Table::new(records);
    table.chain.clone_from(&chain.buckets);
    table.seq = chain.seq;
    Set::open(Options::bcache(), vec![(options, table)])
}

fn show(set: &mut Set, met: &Met) -> Result<Marked, Error> {
    let pointer = Pointer::new(met.bucket, met.pointer.gen_());
    match met.kind {
        PointerKind::UuidBucket => set.observe_uuids(pointer),
        PointerKind::Node => set.observe(pointer, met.sectors, Live::Metadata),
        PointerKind::Dirty => set.observe(pointer, met.sectors, Live::Dirty),
        PointerKind::Clean => set.observe(pointer, met.sectors, Live::Clean),
    }
}

#[cfg(test)]
#[path = "startup_tests.rs"]
mod tests;
