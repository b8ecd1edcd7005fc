//! Reinsertion: what was hit is written anew before its bucket goes.
//!
//! # Problem
//!
//! A bucket is reused as a whole, also if some of its entries are needed all the time. And a scan
//! writes many buckets that nobody reads again, which drive out what is read.
//!
//! # Protocol
//!
//! An entry of the index counts its key's hits, gets and overwrites, up to 3. Before the new gens
//! of buckets become durable ([`Engine::evict`] is called next), for each of them in which anything
//! was hit at all, which is noted in memory ([`Lives`](crate::life::Lives)), so that a scan costs no reads:
//!
//! 1. Its footer and summary are read, mostly with one operation ([`crate::summary`]), and each
//!    record asked of the index: is it where its key leads to, with as many hits as
//!    [`Config::reinsert_after`](crate::Config::reinsert_after) says?
//! 2. Those are read, several with one operation where they lie close together.
//! 3. Each becomes a new record of the same key with a higher version, in the survivors' stream,
//!    and the index leads there instead, for one hit of those that it has: if it still leads to the
//!    old place, which is looked up under the lock of the key's shard.
//!
//! Summaries of the next buckets and the next pieces of data are on their way meanwhile ([`Ahead`]):
//! whoever inserts may be waiting for the end. They are few and short, so that gets need not wait
//! long behind them.
//!
//! # Why that is safe
//!
//! *Nothing old takes the place of something newer*: whoever overwrote or removed the key did it
//! under the same lock, and then the index leads elsewhere. *Nothing comes back*: for the lineage it
//! is an overwrite like any other. *Nothing is promised*: a power loss may take the new record
//! before it is durable; the bucket that held the old one was being reused, so it could go.
//!
//! The bucket has a new gen in memory already. Its bytes stay until that is durable, which nobody but
//! the calling thread makes it, and can be read as long ([`crate::going`]).
//!
//! # Progress
//!
//! This is the thread that makes buckets free, so it waits for none: without a free bucket, of its
//! own reserve or another, it gives up the rest of this batch. It has memory of its own, bounded by
//! what is on its way, and waits for the device alone. What is written anew is at most half of what
//! goes.

use crate::block::block_on;
use crate::engine::{Engine, Reads};
use crate::error::Error;
use crate::fetch::Lost;
use crate::index::{KeyHash, Location};
use crate::layout::{Entry, Kind, Record, decode_footer};
use crate::summary;
use std::collections::VecDeque;
use std::ops::Range;
use tierce_core::{BucketId, BucketIndex, DeviceIndex};
use tierce_io::{Buffer, Completion, Outcome, Request};

/// Records that lie closer together than this are read with one operation: to read so much more
/// takes about as long as another operation.
const GAP_BYTES: u32 = 16 << 10;

/// What is read with one operation, at most, unless a record is longer.
const PIECE_BYTES: u32 = 128 << 10;

/// So many summaries are on their way at a time, …
const SUMMARIES_AHEAD: usize = 8;

/// … and so many pieces of data.
const PIECES_AHEAD: usize = 4;

/// A bucket that is about to go, and the number of its life.
#[derive(Clone, Copy, Debug)]
struct Going {
    id: BucketId,
    life: u64,
}

/// A record that is worth it.
#[derive(Clone, Copy, Debug)]
struct Worth {
    hash: KeyHash,
    location: Location,
    entry: Entry,
}

/// Records that are read with one operation, which begins so many bytes from the start of their
/// bucket.
#[derive(Debug)]
struct Piece {
    going: Going,
    start: u32,
    records: Vec<Worth>,
}

/// Reads under way, in their order, and what each is of.
#[derive(Debug)]
struct Ahead<T> {
    depth: usize,
    reads: VecDeque<(T, Completion)>,
}

impl<T> Ahead<T> {
    fn new(depth: usize) -> Self {
        Self { depth, reads: VecDeque::with_capacity(depth) }
    }

    /// The first, if there is no room for another; waits for it.
    fn make_room(&mut self) -> Option<(T, Outcome)> {
        if self.reads.len() < self.depth { None } else { self.next() }
    }

    fn push(&mut self, what: T, read: Completion) {
        self.reads.push_back((what, read));
    }

    /// The first; waits for it.
    fn next(&mut self) -> Option<(T, Outcome)> {
        let (what, read) = self.reads.pop_front()?;
        Some((what, read.wait()))
    }
}

/// Half of what goes, which may be written anew, and what is being read of it.
#[derive(Debug)]
struct Moving {
    bytes_left: u64,
    pieces: Ahead<Piece>,
}

impl Engine {
    /// Writes anew what was hit in `buckets` of `device`, whose content is about to go.
    pub(crate) fn reinsert(&self, device: DeviceIndex, buckets: &[BucketIndex]) {
        if self.reinsert_after == 0 {
            return;
        }
        let going = buckets.iter().filter_map(|&bucket| {
            let id = BucketId::new(device, bucket);
            let life = self.lives.get(id).number;
            // A bucket that was named before, or never written, has none.
            (life != 0 && self.lives.was_hit(id)).then_some(Going { id, life })
        });
        let bytes_left = buckets.len() as u64 * u64::from(self.layout.bucket_bytes) / 2;
        if self.move_all(going, bytes_left).is_err() {
            self.counters.reinsertions_given_up.add_one();
        }
    }

    /// An error: there is no room for more.
    fn move_all(&self, all: impl Iterator<Item = Going>, bytes_left: u64) -> Result<(), Error> {
        let mut moving = Moving { bytes_left, pieces: Ahead::new(PIECES_AHEAD) };
        let mut summaries = Ahead::new(SUMMARIES_AHEAD);
        for going in all {
            if let Some((before, bytes)) = summaries.make_room() {
                self.read_worth(before, bytes, &mut moving)?;
            }
            summaries.push(going, self.begin_reading(going.id, summary::with_footer(&self.layout)));
        }
        while let Some((going, bytes)) = summaries.next() {
            self.read_worth(going, bytes, &mut moving)?;
        }
        while let Some((piece, bytes)) = moving.pieces.next() {
            self.move_piece(&piece, bytes, &mut moving.bytes_left)?;
        }
        Ok(())
    }

    fn begin_reading(&self, id: BucketId, place: Range<u32>) -> Completion {
        let device = &self.devices[id.device().as_usize()].device;
        let from = self.layout.start(id.bucket()) + u64::from(place.start);
        device.submit(Request::read(from, device.buffer(place.len())))
    }

    /// Begins to read what is worth it in a bucket, whose footer and what is before it was read. So
    /// that there is room, what was read before is moved.
    fn read_worth(&self, going: Going, read: Outcome, moving: &mut Moving) -> Result<(), Error> {
        let Ok(worth) = read.and_then(|bytes| self.worth(going, &bytes)) else {
            self.counters.reinsertion_read_errors.add_one();
            return Ok(());
        };
        let mut rest = &worth[..];
        while !rest.is_empty() {
            let (records, place) = first_piece(rest, self.layout.block);
            rest = &rest[records.len()..];
            if let Some((piece, bytes)) = moving.pieces.make_room() {
                self.move_piece(&piece, bytes, &mut moving.bytes_left)?;
            }
            let piece = Piece { going, start: place.start, records: records.to_vec() };
            moving.pieces.push(piece, self.begin_reading(going.id, place));
        }
        Ok(())
    }

    /// The records of a bucket that were hit often enough, in its order; none if it has no summary.
    /// `tail` is its footer and what is before it.
    fn worth(&self, going: Going, tail: &[u8]) -> Result<Vec<Worth>, tierce_io::Error> {
        let (layout, Going { id, life }) = (&self.layout, going);
        let (before, footer) = tail.split_at(tail.len() - layout.block as usize);
        let Some(footer) = decode_footer(layout, life, footer) else { return Ok(Vec::new()) };
        let device = &*self.devices[id.device().as_usize()].device;
        let entries = summary::entries(device, layout, (id.bucket(), life), &footer, before)?;
        let worth = |entry: Entry| {
            let hash = KeyHash(entry.hash);
            let (location, hits) = self.index.shard(hash).get_counted(hash)?;
            let is_here = location.bucket.id() == id && location.offset == entry.offset;
            let wanted = is_here && hits >= self.reinsert_after;
            (wanted && self.lives.may_come_back(location.bucket)).then_some(Worth {
                hash,
                location,
                entry,
            })
        };
        let entries = entries.unwrap_or_default().into_iter();
        Ok(entries.filter(|entry| entry.kind != Kind::Part).filter_map(worth).collect())
    }

    /// Moves records that were read. An error: there is no room for more.
    fn move_piece(&self, piece: &Piece, read: Outcome, left: &mut u64) -> Result<(), Error> {
        let Ok(bytes) = read else {
            self.counters.reinsertion_read_errors.add_one();
            return Ok(());
        };
        piece.records.iter().try_for_each(|worth| self.move_record(piece, &bytes, worth, left))
    }

    fn note_unread(&self, lost: Lost) {
        if lost == Lost::Unreadable {
            self.counters.reinsertion_read_errors.add_one();
        }
    }

    fn move_record(
        &self,
        piece: &Piece,
        bytes: &Buffer,
        &Worth { hash, location, entry }: &Worth,
        left: &mut u64,
    ) -> Result<(), Error> {
        let record =
            Record::decode(piece.going.life, &bytes[(entry.offset - piece.start) as usize..]);
        let Some(record) = record.filter(|record| !self.clock.is_past(record.expires)) else {
            return Ok(());
        };
        let mut whole = Vec::new();
        let value = match record.kind {
            Kind::Spread => match block_on(self.gather(record.value, &mut whole, Reads::Here)) {
                Ok(()) => &whole,
                Err(lost) => {
                    self.note_unread(lost);
                    return Ok(());
                }
            },
            Kind::Value => record.value,
            _ => return Ok(()),
        };
        let moved = Record { kind: Kind::Value, value, ..record };
        let bytes = (record.key.len() + value.len()) as u64;
        *left = left.checked_sub(bytes).ok_or(Error::Full)?;
        // It never waits for a bucket, so this ends.
        block_on(self.store_record(self.streams.survivors(), hash, moved, Some(location)))
    }
}

/// The first of `records`, which are not empty, as many as are read with one operation, and where
/// they are, in whole blocks.
fn first_piece(records: &[Worth], block: u32) -> (&[Worth], Range<u32>) {
    let start = records[0].entry.offset / block * block;
    let is_close = |pair: &[Worth]| {
        let (before, next) = (&pair[0].entry, &pair[1].entry);
        next.offset < end(before) + GAP_BYTES && end(next) <= start + PIECE_BYTES
    };
    let count = 1 + records.windows(2).take_while(|pair| is_close(pair)).count();
    let piece = &records[..count];
    (piece, start..end(&piece[count - 1].entry).next_multiple_of(block))
}

/// Where a record ends, at most.
const fn end(entry: &Entry) -> u32 {
    entry.offset + entry.bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::formatted;
    use crate::{Cache, Config};
    use std::time::{Duration, Instant};
    use tierce_core::{Gen, Policy};
    use tierce_io::{Fault, FaultKind, Operation};
    use tierce_lockfree::BucketRef;

    #[test]
    fn pieces_are_short_and_without_wide_gaps() {
        let bucket =
            BucketRef::new(BucketId::new(DeviceIndex::FIRST, BucketIndex::new(9)), Gen::new(1));
        let worth = |(offset, bytes): (u32, u32)| {
            let location = Location { bucket, offset, bytes };
            let entry = Entry { hash: 1, version: 1, offset, bytes, kind: Kind::Value };
            Worth { hash: KeyHash(1), location, entry }
        };
        let close = [(4100, 2000), (6400, 9000), (15_400 + GAP_BYTES - 1, 100)];
        let far = [(15_499 + 2 * GAP_BYTES, 100), (200_000, 90_000), (290_000, 60_000)];
        let longer = [(360_000, PIECE_BYTES + 1)];
        let all: Vec<_> = [&close[..], &far, &longer].concat().into_iter().map(worth).collect();
        let (mut rest, mut pieces) = (&all[..], Vec::new());
        while !rest.is_empty() {
            let (piece, place) = first_piece(rest, 4096);
            rest = &rest[piece.len()..];
            assert!(place.start <= piece[0].entry.offset);
            assert!(piece.iter().all(|worth| end(&worth.entry) <= place.end));
            pieces.push((piece.len(), place.start / 4096..place.end / 4096));
        }
        let single = pieces[1].1.clone();
        assert_eq!(single.len(), 1);
        let wanted = [(3, 1..8), (1, single), (1, 48..71), (1, 70..86), (1, 87..120)];
        assert_eq!(pieces, wanted);
    }

    /// While none of them comes back the next ones are on their way.
    #[test]
    fn buckets_that_go_are_read_many_at_a_time() {
        const BUCKETS: u32 = 2 * SUMMARIES_AHEAD as u32;
        let sim = formatted(0, 640, 16 << 10);
        let config = Config::new("sim").policy(Policy::Fifo).reinsert_after(1).streams(1);
        let cache = Cache::open_on(&config, vec![sim.clone()]).expect("opens");
        // Two fill a bucket.
        for n in 0..2 * BUCKETS + 1 {
            cache.insert(&n.to_le_bytes(), &[n as u8; 7000]).expect("room");
        }
        cache.flush().expect("it has power");
        let engine = cache.engine();
        let mut going: Vec<_> = (0..BUCKETS)
            .map(|n| {
                let key = (2 * n).to_le_bytes();
                assert!(cache.get(&key).expect("readable").is_some());
                let hash = engine.hash(&key).expect("a key");
                engine.index.get(hash).expect("it is there").bucket.bucket()
            })
            .collect();
        going.dedup();
        assert_eq!(going.len(), BUCKETS as usize);

        sim.inject(Fault::new(FaultKind::Stall, Operation::Read, 0).for_good());
        let under_way = std::thread::scope(|scope| {
            let reader = scope.spawn(|| engine.reinsert(DeviceIndex::FIRST, &going));
            let end = Instant::now() + Duration::from_secs(60);
            while sim.stalled() < SUMMARIES_AHEAD && Instant::now() < end {
                std::thread::yield_now();
            }
            let under_way = sim.stalled();
            sim.clear_faults();
            sim.resume();
            reader.join().expect("no assertion failed");
            under_way
        });
        assert_eq!(under_way, SUMMARIES_AHEAD);
        let stats = cache.stats();
        assert_eq!((stats.reinserted, stats.reinsertion_read_errors), (BUCKETS.into(), 0));
        for n in 0..2 * BUCKETS {
            let found = cache.get(&n.to_le_bytes()).expect("readable");
            assert_eq!(found, Some(vec![n as u8; 7000]));
        }
        cache.close().expect("closes");
    }

    /// A device that cannot be read tells whether anybody reads.
    #[test]
    fn a_scan_costs_no_reads_and_what_was_hit_does() {
        let sim = formatted(0, 640, 16 << 10);
        let config = Config::new("sim").policy(Policy::Fifo).reinsert_after(1);
        let cache = Cache::open_on(&config, vec![sim.clone()]).expect("opens");
        let mut keys = 0_u32..;
        let mut scan = || {
            sim.inject(Fault::new(FaultKind::Io, Operation::Read, 0).for_good());
            for n in keys.by_ref().take(1000) {
                cache.insert(&n.to_le_bytes(), &[1; 14_000]).expect("room");
            }
            sim.clear_faults();
            let stats = cache.stats();
            assert_eq!(stats.read_errors, 0, "no get missed");
            (keys.start, stats.invalidated > 0, stats.reinsertion_read_errors)
        };
        assert_eq!(scan(), (1000, true, 0));
        let hit = cache.get(&990_u32.to_le_bytes()).expect("a get never fails");
        assert!(hit.is_some(), "it was inserted just now");
        let (.., read_errors) = scan();
        assert!(read_errors > 0, "what was hit is read before it goes");
        cache.close().expect("closes");
    }
}
