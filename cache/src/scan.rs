//! Reading what buckets say of themselves.
//!
//! Two passes. The *survey* reads header, footer and dead records of every bucket that may hold
//! something: little, and enough to know in which life each is, and how new its newest record is.
//! The *summaries* are read later, in an order that this allows ([`crate::recover`]). A bucket
//! without a footer was being filled: its records are read one after the other, as far as they are
//! whole, by the survey already.
//!
//! A bucket counts if its header is of this device, this bucket and the gen that the table has.
//!
//! What is damaged looks like what was never written, so it is passed over: a header with its bucket;
//! a record that begins a block with all that follow, any other up to the next block. Records that
//! were newer than others of their keys are missed then, see the crate's documentation.

use crate::index::KeyHash;
use crate::layout::{
    BucketHeader, Dead, Entry, Footer, Header, Layout, Record, decode_footer, newest_of,
};
use crate::members::{Members, Uuid};
use crate::summary;
use crate::void::Void;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ScopedJoinHandle;
use tierce_core::{BucketId, BucketIndex, DeviceIndex, Gen};
use tierce_io::{Device, DeviceExt};
use tierce_lockfree::BucketRef;

/// Buckets that are read at a time, over all devices.
const READERS: usize = 16;

/// A device as it is read.
pub(crate) struct Source {
    pub(crate) index: DeviceIndex,
    pub(crate) device: Arc<dyn Device>,
    pub(crate) uuid: Uuid,
    /// What it says of the cache's devices.
    pub(crate) members: Members,
    /// The superblock's seq in this run.
    pub(crate) seq: u64,
    /// Gens by bucket.
    pub(crate) gens: Vec<Gen>,
    /// Buckets that may hold data.
    pub(crate) buckets: Vec<BucketIndex>,
}

/// What one bucket says.
pub(crate) struct Surveyed {
    pub(crate) bucket: BucketRef,
    pub(crate) header: BucketHeader,
    pub(crate) dead: Dead,
    /// No record in it has a higher version.
    pub(crate) newest: u64,
    records: Records,
}

/// What is known of a bucket's records.
enum Records {
    /// Its footer.
    Summarised(Footer),
    /// All of them.
    Known(Vec<Entry>),
}

impl Surveyed {
    /// How many records it has.
    pub(crate) fn records(&self) -> usize {
        match &self.records {
            Records::Summarised(footer) => footer.records,
            Records::Known(entries) => entries.len(),
        }
    }
}

/// Why not all is read.
#[derive(Debug)]
pub(crate) enum Cold {
    /// Nobody wants it any more.
    Stopped,
    /// A bucket may hold the newest record of any key, and this code cannot know.
    Unknown(Unknown),
}

/// See [`Cold::Unknown`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unknown {
    #[error(transparent)]
    Read(#[from] tierce_io::Error),
    #[error(
        "{device}: bucket {bucket} is of version {version} of the cache's format with flags \
         {incompat:#x}, wanted {} without flags",
        crate::layout::VERSION
    )]
    Version { device: String, bucket: u32, version: u32, incompat: u32 },
    #[error("{device}: was last used together with the device {uuid}, which is not here")]
    Missing { device: String, uuid: tierce_core::record::Uuid },
    #[error("{device}: was not there when the other devices were used last, or is an old copy")]
    Behind { device: String },
}

impl From<tierce_io::Error> for Cold {
    fn from(error: tierce_io::Error) -> Self {
        Self::Unknown(error.into())
    }
}

/// What `read` returns for each number below `count`, in any order, many at a time. The first error
/// ends it, and so does `stopped`.
fn read_all<T: Send>(
    count: usize,
    stopped: impl Fn() -> bool + Sync,
    read: impl Fn(usize) -> Result<Option<T>, Cold> + Sync,
) -> Result<Vec<T>, Cold> {
    let (next, all) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let read_some = || {
        loop {
            // Relaxed: each number is drawn once, whatever the order.
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            if stopped() {
                return Err(Cold::Stopped);
            }
            match read(number) {
                Ok(Some(found)) => {
                    all.lock().unwrap_or_else(PoisonError::into_inner).push(found);
                }
                Ok(None) => {}
                Err(error) => {
                    // Relaxed: as above; the others end as well.
                    next.store(count, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    };
    let ended: Vec<_> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS.min(count)).map(|_| scope.spawn(read_some)).collect();
        let join = |reader: ScopedJoinHandle<'_, _>| {
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        readers.into_iter().map(join).collect()
    });
    ended.into_iter().collect::<Result<(), _>>()?;
    Ok(all.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// What the buckets of all devices say, but for those whose lives are void.
pub(crate) fn survey(
    sources: &[Source],
    layout: &Layout,
    void: &Void,
    stopped: impl Fn() -> bool + Sync,
) -> Result<Vec<Surveyed>, Cold> {
    let work: Vec<_> =
        sources.iter().flat_map(|s| s.buckets.iter().map(move |&bucket| (s, bucket))).collect();
    read_all(work.len(), stopped, |number| {
        let (source, bucket) = work[number];
        source.survey(layout, void, bucket)
    })
}

/// What `each` makes of the records of those of `buckets` whose numbers are in `range`, on the
/// threads that read them.
pub(crate) fn records<T: Send>(
    sources: &[Source],
    layout: &Layout,
    buckets: &[Surveyed],
    range: Range<usize>,
    stopped: impl Fn() -> bool + Sync,
    each: impl Fn(usize, Vec<Entry>) -> T + Sync,
) -> Result<Vec<T>, Cold> {
    read_all(range.len(), stopped, |number| {
        let number = range.start + number;
        let bucket = &buckets[number];
        let source = &sources[bucket.bucket.device().as_usize()];
        Ok(Some(each(number, source.records(layout, bucket)?)))
    })
}

impl Source {
    fn read(
        &self,
        layout: &Layout,
        bucket: BucketIndex,
        bytes: Range<u32>,
    ) -> Result<tierce_io::Buffer, tierce_io::Error> {
        let start = layout.start(bucket) + u64::from(bytes.start);
        self.device.read_at(start, bytes.len())
    }

    /// What a bucket says; `None` if it is cold.
    fn survey(
        &self,
        layout: &Layout,
        void: &Void,
        bucket: BucketIndex,
    ) -> Result<Option<Surveyed>, Cold> {
        let gen_ = self.gens[bucket.as_usize()];
        let counts = |header: &BucketHeader| {
            header.uuid == self.uuid
                && header.bucket == bucket.get()
                && header.gen_ == gen_.get()
                && !void.contains(header.uuid, header.life)
        };
        let header = match BucketHeader::decode(&self.read(layout, bucket, 0..layout.block)?) {
            Header::Known(header) if counts(&header) => header,
            Header::Unknown { header, version, incompat } if counts(&header) => {
                let (device, bucket) = (self.device.name().to_string(), bucket.get());
                let unknown = Unknown::Version { device, bucket, version, incompat };
                return Err(Cold::Unknown(unknown));
            }
            _ => return Ok(None),
        };
        let life = header.life;
        let tail = self.read(layout, bucket, layout.footer..layout.bucket_bytes)?;
        let (footer, dead) = tail.split_at(layout.block as usize);
        let dead = Dead::decode(life, dead);
        let (newest, records) = match decode_footer(layout, life, footer) {
            Some(footer) => (footer.newest, Records::Summarised(footer)),
            None => {
                let entries = self.follow(layout, bucket, header)?;
                (newest_of(&entries), Records::Known(entries))
            }
        };
        let bucket = BucketRef::new(BucketId::new(self.index, bucket), gen_);
        Ok(Some(Surveyed { bucket, header, dead, newest, records }))
    }

    /// The records of a bucket, in its order.
    fn records(
        &self,
        layout: &Layout,
        surveyed: &Surveyed,
    ) -> Result<Vec<Entry>, tierce_io::Error> {
        let (bucket, header) = (surveyed.bucket.bucket(), surveyed.header);
        let footer = match &surveyed.records {
            Records::Summarised(footer) => footer,
            Records::Known(entries) => return Ok(entries.clone()),
        };
        let life = (bucket, header.life);
        match summary::entries(&*self.device, layout, life, footer, &[])? {
            Some(entries) => Ok(entries),
            None => self.follow(layout, bucket, header),
        }
    }

    /// The records of a bucket that has no summary.
    fn follow(
        &self,
        layout: &Layout,
        bucket: BucketIndex,
        header: BucketHeader,
    ) -> Result<Vec<Entry>, tierce_io::Error> {
        let bytes = self.read(layout, bucket, 0..layout.footer)?;
        let mut entries = Vec::new();
        let mut at = layout.first_record() as usize;
        while at < bytes.len() {
            let Some(record) = Record::decode(header.life, &bytes[at..]) else {
                // A write ended here, or all of them.
                let next_block = (at + 1).next_multiple_of(layout.block as usize);
                if at.is_multiple_of(layout.block as usize) || next_block >= bytes.len() {
                    break;
                }
                at = next_block;
                continue;
            };
            let length = record.bytes();
            entries.push(entry(header, &record, at as u32));
            at = (at + length as usize).next_multiple_of(layout.grain as usize);
        }
        Ok(entries)
    }
}

/// What a summary says of a record.
fn entry(header: BucketHeader, record: &Record<'_>, offset: u32) -> Entry {
    let hash = match record.kind {
        crate::layout::Kind::Part => 0,
        _ => KeyHash::of(header.hash_seed, record.key).0,
    };
    let (version, kind, bytes) = (record.version, record.kind, record.bytes());
    Entry { hash, version, offset, bytes, kind }
}
