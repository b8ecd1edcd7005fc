//! Streams: each fills one bucket at a time, record by record.
//!
//! # Protocol
//!
//! [`Streams::room`] answers with a place for one record, the stream locked. If there is none it
//! says what is needed, unlocked: memory for the next segment, or the next bucket. Whoever needs it
//! waits for it, holding nothing, and tries again; if somebody else was faster, what he brought is
//! given back. So no lock is held while anybody waits, for memory, for space, or for the device.
//!
//! A record lies in one segment, so it is written with one operation. A segment that is full is
//! submitted at once, and so is one that is longer than others because its record is: the memory of
//! all streams but for that is bounded, so whoever waits for memory waits for writes only.
//!
//! # Space
//!
//! Behind the records of a bucket there is always room for their summary, which is written when the
//! next record does not fit.
//!
//! # Who writes where
//!
//! Writers that name a write point share its stream; others are spread over the streams by thread,
//! so that threads rarely meet. One more is for what is written anew ([`crate::reinsert`]).

use crate::index::{KeyHash, Location};
use crate::layout::{BucketHeader, Entry, Kind, Layout, Record, encode_summary, record_bytes};
use crate::life::{Life, Submitted};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is missing for a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A bucket.
    Bucket,
    /// So many bytes of memory for a segment.
    Memory(usize),
}

/// The streams of a cache.
#[derive(Debug)]
pub(crate) struct Streams {
    streams: Box<[Mutex<Option<Open>>]>,
    segment_bytes: u32,
    /// Records begin at multiples of it.
    grain: u32,
}

/// A bucket that is being filled.
#[derive(Debug)]
pub(crate) struct Open {
    life: Arc<Life>,
    header: BucketHeader,
    entries: Vec<Entry>,
    /// Where the next record begins.
    cursor: u32,
    /// Where the segment that is being filled ends, at most; `cursor` is in it. `None`: there is
    /// no such segment.
    segment_end: Option<u32>,
    /// That one is longer than others, for one record.
    is_long: bool,
}

/// A place for a record. Its stream is locked meanwhile.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    open: MutexGuard<'a, Option<Open>>,
    grain: u32,
}

impl Streams {
    /// `streams` of them and one for survivors, which write `segment_bytes` at a time.
    pub(crate) fn new(streams: usize, segment_bytes: u32, grain: u32) -> Self {
        let streams = (0..=streams.max(1)).map(|_| Mutex::default()).collect();
        Self { streams, segment_bytes, grain }
    }

    /// The stream of whoever has that number.
    pub(crate) fn choose(&self, number: u64) -> usize {
        (number % self.survivors() as u64) as usize
    }

    /// The stream of what outlives its bucket.
    pub(crate) fn survivors(&self) -> usize {
        self.streams.len() - 1
    }

    fn lock(&self, stream: usize) -> MutexGuard<'_, Option<Open>> {
        self.streams[stream].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in `stream` for a record of `bytes` bytes, which fit a bucket.
    pub(crate) fn room(&self, stream: usize, bytes: u32) -> Result<Room<'_>, Need> {
        let mut submitted = Submitted::default(); // dropped after the guard
        let mut guard = self.lock(stream);
        let Some(open) = guard.as_mut() else { return Err(Need::Bucket) };
        if open.life.has_failed() {
            // What is in memory is acknowledged: a flush tells what becomes of it. And others wait
            // for that memory.
            open.submit(&mut submitted);
            *guard = None;
            return Err(Need::Bucket);
        }
        if bytes > open.left() {
            if let Some(full) = guard.take() {
                full.seal(&mut submitted);
            }
            return Err(Need::Bucket);
        }
        match open.segment_end {
            Some(end) if open.cursor + bytes <= end => Ok(Room { open: guard, grain: self.grain }),
            _ => {
                open.submit(&mut submitted);
                Err(Need::Memory(open.next_segment(bytes, self.segment_bytes) as usize))
            }
        }
    }

    /// Bytes of the longest record that would fit the bucket that `stream` fills; 0 if none.
    pub(crate) fn left(&self, stream: usize) -> u32 {
        let guard = self.lock(stream);
        guard.as_ref().filter(|open| !open.life.has_failed()).map_or(0, Open::left)
    }

    /// Gives `stream` a bucket to fill. If it has one already, this one is given back.
    pub(crate) fn install(&self, stream: usize, life: &Arc<Life>, header: BucketHeader) -> bool {
        let mut guard = self.lock(stream);
        if guard.is_some() {
            return false;
        }
        let cursor = life.layout.first_record();
        let (life, entries) = (Arc::clone(life), Vec::new());
        *guard = Some(Open { life, header, entries, cursor, segment_end: None, is_long: false });
        true
    }

    /// Gives `stream` memory for a segment, for a record of `bytes` bytes. If it has one, or needs
    /// another bucket or more memory by now, the memory is given back.
    pub(crate) fn fill(&self, stream: usize, bytes: u32, permit: crate::budget::Permit) {
        let mut guard = self.lock(stream);
        let Some(open) = guard.as_mut() else { return };
        if open.segment_end.is_none() && bytes <= open.left() {
            let capacity = open.next_segment(bytes, self.segment_bytes);
            if permit.is_for(capacity as usize) {
                open.begin(capacity, self.segment_bytes, permit);
            }
        }
    }

    /// Forgets the buckets that are being filled: the cache ends.
    pub(crate) fn clear(&self) {
        for stream in 0..self.streams.len() {
            *self.lock(stream) = None;
        }
    }

    /// Sends everything that is in memory to the device. Does not wait.
    pub(crate) fn submit(&self) {
        for stream in 0..self.streams.len() {
            let mut submitted = Submitted::default(); // dropped after the guard
            let mut guard = self.lock(stream);
            if let Some(open) = guard.as_mut() {
                open.submit(&mut submitted);
            }
        }
    }
}

impl Open {
    fn layout(&self) -> &Layout {
        &self.life.layout
    }

    /// Bytes of the longest record that fits behind the last one, with the summary of all.
    fn left(&self) -> u32 {
        self.layout().summary(self.entries.len() + 1).saturating_sub(self.cursor)
    }

    /// Bytes of a segment that begins here and can take a record of `bytes` bytes.
    fn next_segment(&self, bytes: u32, segment_bytes: u32) -> u32 {
        let start = self.segment_start();
        let wanted = (self.cursor - start + bytes).max(segment_bytes);
        wanted.min(self.layout().footer - start).next_multiple_of(self.layout().block)
    }

    /// The first segment contains the header.
    fn segment_start(&self) -> u32 {
        if self.cursor == self.layout().first_record() { 0 } else { self.cursor }
    }

    fn begin(&mut self, capacity: u32, segment_bytes: u32, permit: crate::budget::Permit) {
        let start = self.segment_start();
        self.life.begin(start, capacity as usize, Some(permit));
        if start == 0 {
            let (header, block) = (self.header, self.layout().block as usize);
            self.life.append(|out| {
                out.resize(block, 0);
                header.encode(out);
            });
        }
        self.segment_end = Some(start + capacity);
        self.is_long = capacity > segment_bytes;
    }

    /// The next record begins at a block, in a new segment.
    fn submit(&mut self, submitted: &mut Submitted) {
        if self.segment_end.take().is_some() {
            self.life.submit(submitted);
            self.cursor = self.cursor.next_multiple_of(self.layout().block);
        }
    }

    /// Writes the summary. The bucket is let go when everything is on the device.
    fn seal(mut self, submitted: &mut Submitted) {
        self.submit(submitted);
        let summary = encode_summary(self.layout(), self.life.number, &self.entries);
        // Small, and without it nobody can go on: it is not counted as memory for writes.
        self.life.begin(self.layout().summary(self.entries.len()), summary.len(), None);
        self.life.append(|out| out.extend_from_slice(&summary));
        self.life.seal(submitted);
    }
}

impl Room<'_> {
    fn open(&mut self) -> &mut Open {
        self.open.as_mut().expect("a room is in an open bucket")
    }

    /// Where the record will be.
    pub(crate) fn location(&self, bytes: u32) -> Location {
        let open = self.open.as_ref().expect("a room is in an open bucket");
        Location { bucket: open.life.bucket, offset: open.cursor, bytes }
    }

    /// The number of the life that the record will be in.
    pub(crate) fn life(&self) -> u64 {
        self.open.as_ref().expect("a room is in an open bucket").life.number
    }

    /// Puts the record there.
    pub(crate) fn push(mut self, hash: KeyHash, record: &Record<'_>) {
        self.append(hash, record);
        self.finish();
    }

    /// Puts the record there, once. From now on it can be read. Waits for nothing and submits
    /// nothing: [`finish`](Self::finish) does.
    pub(crate) fn append(&mut self, hash: KeyHash, record: &Record<'_>) {
        let grain = self.grain;
        let open = self.open();
        let life = open.life.number;
        let bytes = record.bytes();
        open.life.append(|out| {
            record.encode(life, out);
            // The next one begins at a grain.
            out.resize(out.len().next_multiple_of(grain as usize), 0);
        });
        let (offset, version, kind) = (open.cursor, record.version, record.kind);
        open.entries.push(Entry { hash: hash.0, version, offset, bytes, kind });
        open.cursor = (open.cursor + bytes).next_multiple_of(grain);
    }

    /// Submits the segment if nothing fits behind the record any more: it need not wait for the
    /// next one. Also if hardly anything does, and it has more memory than every stream may keep.
    pub(crate) fn finish(self) {
        let mut submitted = Submitted::default(); // dropped after the guard
        let mut room = self;
        let open = room.open();
        let end = open.segment_end.unwrap_or(0);
        if open.is_long || open.cursor + record_bytes(1, 0) as u32 > end {
            open.submit(&mut submitted);
        }
    }
}

/// Bytes that a record of such a key and value takes, at most, with what aligns the next one.
pub(crate) fn space(key: usize, value: usize, grain: u32) -> u64 {
    record_bytes(key, value).next_multiple_of(grain.into())
}

/// Bytes of the longest value of a record with such a key in `left` bytes.
pub(crate) fn longest_value(left: u32, key: usize, grain: u32) -> usize {
    ((left / grain * grain) as usize).saturating_sub(crate::layout::RECORD_BYTES + key)
}

/// A record that names no key of its own.
pub(crate) const fn part(version: u64, value: &[u8]) -> Record<'_> {
    Record { kind: Kind::Part, version, expires: 0, key: &[], value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::formatted;
    use crate::{Cache, Config};

    /// Who waited for memory may find that the stream needs more by now.
    #[test]
    fn a_segment_takes_no_more_than_its_permit() {
        let sim = formatted(0, 640, 16 << 10);
        let config = Config::new("sim").streams(1);
        let cache = Cache::open_on(&config, vec![sim]).expect("opens");
        cache.insert(b"key", b"value").expect("room");
        cache.flush().expect("written"); // a bucket, without a segment
        let engine = cache.engine();
        let (streams, before) = (&engine.streams, engine.budget.used());
        let Err(Need::Memory(wanted)) = streams.room(0, 1000) else { panic!("no segment") };
        assert!(wanted > 1024);
        for bytes in [1024, wanted - 1] {
            streams.fill(0, 1000, engine.budget.try_take(bytes).expect("it is free"));
            assert_eq!(engine.budget.used(), before, "it was too little");
            assert_eq!(streams.room(0, 1000).map(drop), Err(Need::Memory(wanted)));
        }
        streams.fill(0, 1000, engine.budget.try_take(wanted).expect("it is free"));
        assert!(streams.room(0, 1000).is_ok());
        assert_eq!(engine.budget.used(), before + wanted);
        drop(cache);
    }
}
