//! The journal as a whole: which entry is the newest, which are live, where the next one goes.
//!
//! # Problem
//!
//! Nothing on the device says where the journal ends. Its buckets are a ring, each written from
//! its start, so every one is read up to the first place where no entry begins; what lies
//! behind is left over from an earlier turn. The highest seq found is the newest entry.
//!
//! # Reading
//!
//! 1. In each journal bucket, from its start: an entry begins unless its magic is wrong, 240 +
//!    8·keys is more than 32 KiB or than the bucket has left, or its checksum is wrong. The next
//!    one is ceil((240 + 8·keys) / block) blocks further on.
//! 2. An entry that a crash tore has a wrong checksum, so the search stops before it and the one
//!    before is the newest: that is normal. An entry with a sound checksum that breaks another
//!    rule is damage, and an error.
//! 3. Live are the entries from the newest's last_seq up to it; older ones are ignored. All of
//!    them must be there, each once; a gap means that the index cannot be rebuilt, and is an
//!    error.
//! 4. The keys of live entries are applied in order of seq on top of the index, which the newest
//!    entry names along with the uuid bucket and the head of each device's prio chain.
//!
//! # Writing
//!
//! 1. An entry goes right behind the newest one, at the next block boundary; where the bucket's
//!    rest is too small, to the start of the next bucket of the ring. Its seq is one more.
//! 2. What it names must be durable before it is: a flush, then the entry with FUA (or the entry
//!    and another flush).
//! 3. A journal bucket is reused only when its highest seq is below the newest entry's last_seq.
//! 4. One bucket is kept in reserve, so that the newest entry is never in the bucket that is
//!    entered anew, and a full journal can still be replayed.

use super::jset::{Jset, MAX_BYTES};
use super::{ChainHead, Check, SetMagic, Superblock};
use crate::bucket::{BucketIndex, DeviceIndex};
use crate::error::{Error, Place, RecordKind};

/// How much of a journal bucket is read at a time, in bytes: the first read of each is this long,
/// or the bucket.
pub const WINDOW_BYTES: usize = 32 * MAX_BYTES;

/// Where an entry was found.
///
/// ```
/// use tierce_core::{BucketIndex, record::JournalEntry};
/// let e = JournalEntry { seq: 9, slot: 0, bucket: BucketIndex::new(1), byte: 512, bytes: 240 };
/// assert_eq!(e.place().to_string(), "bucket 1 byte 512");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JournalEntry {
    /// Its number.
    pub seq: u64,
    /// The place of its bucket in the ring, from 0.
    pub slot: u32,
    /// Its bucket.
    pub bucket: BucketIndex,
    /// Where it starts in the bucket, in bytes.
    pub byte: u32,
    /// Its bytes, header and keys, without the filling to whole blocks.
    pub bytes: u32,
}

impl JournalEntry {
    /// Its place, for messages.
    #[must_use]
    pub const fn place(&self) -> Place {
        Place::bucket(self.bucket, self.byte as u64)
    }
}

/// What [`Journal::search`] found.
///
/// ```
/// use tierce_core::record::{Format, Journal, Jset, Superblock, Uuid};
/// # let uuid = Uuid([1; 16]);
/// let format = Format { uuid, set_uuid: uuid, ..Format::new(64 << 20, 128, 1) };
/// let superblock = Superblock::format(&format)?.first_use(0);
/// let mut bucket = vec![0; 65536];
/// let mut end = 0;
/// for seq in 1..=3 {
///     let entry = Jset { seq, last_seq: 2.min(seq), ..Jset::default() };
///     end += entry.encode(superblock.set_magic(), 512, &mut bucket[end..])?;
/// }
/// let journal = Journal::search(&superblock, |b, byte, out: &mut [u8]| {
///     out.fill(0);
///     if b.get() == 1 {
///         out.copy_from_slice(&bucket[byte as usize..][..out.len()]);
///     }
///     Ok::<(), tierce_core::Error>(())
/// })?
/// .expect("there are entries");
/// assert_eq!((journal.newest.seq, journal.entries_found), (3, 3));
/// assert_eq!(journal.live.iter().map(|e| e.seq).collect::<Vec<_>>(), [2, 3]);
/// assert_eq!((journal.next_slot, journal.next_byte), (0, 1536));
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Journal {
    /// The newest entry.
    pub newest: Jset,
    /// Where the live entries are, in order of seq; the last is the newest.
    pub live: Vec<JournalEntry>,
    /// By place in the ring, the highest seq in that bucket.
    pub highest_seq: Vec<Option<u64>>,
    /// Valid entries found, live or not.
    pub entries_found: usize,
    /// The place in the ring of the bucket that takes the next entry, as long as it fits there.
    pub next_slot: u32,
    /// Where the next entry goes in that bucket, in bytes. At most the size of the bucket.
    pub next_byte: u32,
}

impl Journal {
    /// Searches the journal buckets of `superblock`'s device for the newest entry. `read` fills
    /// its buffer with the bytes of a bucket from a byte on; it is never asked for bytes beyond
    /// a journal bucket, and always from a block boundary on, for whole blocks.
    ///
    /// `None` if there is no entry at all: the device was never used, or a crash came before
    /// its first entry was whole.
    ///
    /// # Errors
    ///
    /// What `read` returns; [`Error::Record`] for an entry that is whole but breaks a rule, for
    /// a live entry that is missing, or two of one seq.
    pub fn search<E: From<Error>>(
        superblock: &Superblock,
        mut read: impl FnMut(BucketIndex, u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Option<Self>, E> {
        let set = superblock.set_magic();
        let mut scan = Scan::new(superblock);
        let mut newest: Option<Jset> = None;
        let mut found = Vec::new();
        let mut highest_seq = Vec::new();
        for (slot, bucket) in superblock.journal_buckets().enumerate() {
            let mut highest = None;
            scan.start(bucket);
            while let Some((byte, jset)) = scan.next(set, &mut read)? {
                highest = highest.max(Some(jset.seq));
                found.push(JournalEntry {
                    seq: jset.seq,
                    slot: slot as u32,
                    bucket,
                    byte: byte as u32,
                    bytes: jset.bytes() as u32,
                });
                if newest.as_ref().is_none_or(|newest| newest.seq < jset.seq) {
                    newest = Some(jset);
                }
            }
            highest_seq.push(highest);
        }
        let Some(newest) = newest else { return Ok(None) };
        let entries_found = found.len();
        let live = live_entries(&newest, found)?;
        let last = live[live.len() - 1];
        let block_bytes = superblock.geometry().block_bytes();
        Ok(Some(Self {
            live,
            highest_seq,
            entries_found,
            next_slot: last.slot,
            next_byte: last.byte + newest.bytes_on_device(block_bytes) as u32,
            newest,
        }))
    }

    /// Where the newest entry was found.
    #[must_use]
    pub fn newest_entry(&self) -> &JournalEntry {
        &self.live[self.live.len() - 1]
    }

    /// Where the chain of `device`'s prio sets begins.
    #[must_use]
    pub fn prio_head(&self, device: DeviceIndex) -> ChainHead {
        let named_at = self.newest_entry().place();
        ChainHead { bucket: self.newest.prio_head(device), named_at }
    }

    /// Reads a live entry again.
    ///
    /// # Errors
    ///
    /// What `read` returns; [`Error::Record`] if the entry is no longer what it was.
    pub fn read_entry<E: From<Error>>(
        superblock: &Superblock,
        entry: &JournalEntry,
        mut read: impl FnMut(BucketIndex, u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Jset, E> {
        let block_bytes = superblock.geometry().block_bytes();
        let mut bytes = vec![0; entry.bytes.next_multiple_of(block_bytes) as usize];
        read(entry.bucket, u64::from(entry.byte), &mut bytes)?;
        let jset = Jset::decode(&bytes, superblock.set_magic(), entry.place())?;
        let check = Check::new(RecordKind::Jset, entry.place());
        check.that(jset.seq == entry.seq, "seq", jset.seq, entry.seq)?;
        Ok(jset)
    }
}

/// The entries from `newest.last_seq` to `newest.seq`, each exactly once.
fn live_entries(newest: &Jset, mut found: Vec<JournalEntry>) -> Result<Vec<JournalEntry>, Error> {
    found.retain(|entry| entry.seq >= newest.last_seq);
    found.sort_by_key(|entry| entry.seq);
    // The header of a device's first entries may say 0; there is no entry 0.
    let mut wanted = newest.last_seq.max(1);
    for entry in &found {
        let check = Check::new(RecordKind::Jset, entry.place());
        let rule = format_args!("{wanted}, of the live {} to {}", newest.last_seq, newest.seq);
        check.that(entry.seq == wanted, "seq", entry.seq, rule)?;
        // The last has the highest seq of all, which may be the highest there is.
        wanted = wanted.wrapping_add(1);
    }
    Ok(found)
}

/// Steps from entry to entry through one journal bucket at a time, reading it in windows.
struct Scan {
    bucket: BucketIndex,
    bucket_bytes: usize,
    block_bytes: u32,
    /// Where the next entry is expected in the bucket.
    at: usize,
    /// Where the window starts, and its bytes; empty before the first read.
    window_start: usize,
    window: Vec<u8>,
}

impl Scan {
    fn new(superblock: &Superblock) -> Self {
        let geometry = superblock.geometry();
        Self {
            bucket: BucketIndex::new(0),
            bucket_bytes: geometry.bucket_bytes() as usize,
            block_bytes: geometry.block_bytes(),
            at: 0,
            window_start: 0,
            window: Vec::new(),
        }
    }

    fn start(&mut self, bucket: BucketIndex) {
        self.bucket = bucket;
        self.at = 0;
        self.window.clear();
    }

    /// The next entry and where it starts, `None` where none begins.
    fn next<E: From<Error>>(
        &mut self,
        set: SetMagic,
        read: &mut impl FnMut(BucketIndex, u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<Option<(usize, Jset)>, E> {
        if self.at >= self.bucket_bytes {
            return Ok(None);
        }
        let needed = (self.at + MAX_BYTES).min(self.bucket_bytes);
        if self.window_start + self.window.len() < needed || self.window.is_empty() {
            self.window_start = self.at;
            self.window.resize(WINDOW_BYTES.min(self.bucket_bytes - self.at), 0);
            read(self.bucket, self.at as u64, &mut self.window)?;
        }
        let bytes = &self.window[self.at - self.window_start..];
        let place = Place::bucket(self.bucket, self.at as u64);
        match Jset::decode(bytes, set, place) {
            Ok(jset) => {
                let start = self.at;
                self.at += jset.bytes_on_device(self.block_bytes);
                Ok(Some((start, jset)))
            }
            Err(error) if Jset::is_no_entry(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
