//! Writing one table of gens and prios: a chain of prio sets.
//!
//! # Protocol
//!
//! Where each set goes is known beforehand, so each can name its successor whatever is written
//! first, and sets are encoded while others are being written. Sets that follow each other in
//! the chain and lie side by side on the device, in whichever direction, are a *part* and written
//! together: kernel and device do the same for each write, however large it is, and where
//! the device is a file that is much. A thread takes the last part that nobody has taken, encodes
//! its sets, submits their write, and goes on with the next part while the device writes. At
//! most [`SETS_IN_FLIGHT_MAX`] sets are in memory at a time, among all threads; a thread that has
//! its share of them under way waits for one of them. Who writes many sets has a ring of
//! his own for the time ([`Queue`]): nothing is handed to a further thread. There is no flush.
//!
//! Nothing refers to the chain yet. It becomes the state of the device by the
//! [journal](crate::journal) entry that names its head, and by the flush before that entry it is
//! durable first. Until then it does not matter what was written in which order.
//!
//! When this returns, with or without an error, nothing of it is under way any more: the chain's
//! buckets are not written behind the back of whoever gets them next. After an error no further
//! part is encoded.

use crate::buffer::Buffer;
use crate::completion::Outcome;
use crate::device::{Class, Device, Request};
use crate::error::Error;
use crate::queue::Queue;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tierce_core::record::prio_set::PrioRecords;
use tierce_core::record::{PrioSet, SetMagic};
use tierce_core::{BucketIndex, Geometry};

/// Sets that are encoded or under way at a time, each of at most 4 MiB.
pub const SETS_IN_FLIGHT_MAX: usize = 8;

/// What devices write at their best speed, at several writes at a time.
const WRITE_BYTES: u32 = 256 << 10;
/// Threads that encode, the caller's included. One outruns most devices.
const THREADS_MAX: usize = 2;
/// Sets below which neither a thread nor a ring is worth starting.
const SETS_PER_THREAD_MIN: usize = 16;

/// Writes the chain `chain`, head first, with the number `seq`. `sets` are the records of each
/// set, in order of bucket, the head's first; set i is about the buckets from
/// `i · prios_per_bucket` on.
///
/// Nothing is flushed.
///
/// ```
/// use tierce_core::{BucketIndex, Gen, Prio};
/// use tierce_io::{FormatOptions, write_prio_chain};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("cache");
/// let options = FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
/// let superblock = tierce_io::format(&path, &options)?;
/// let device = tierce_io::open_device(&path, &options.device)?;
/// let (geometry, set) = (superblock.geometry(), superblock.set_magic());
/// let chain = [BucketIndex::new(40)];
/// let records = (0..1024).map(|_| (Prio::FRESH, Gen::new(1)));
/// write_prio_chain(&device, geometry, set, 1, &chain, vec![records])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Whatever the device reports for the first set that fails.
///
/// # Panics
///
/// If `chain` or `sets` has another length than [`Geometry::prio_buckets`], or `chain` names a
/// bucket outside the device: it comes from the allocator, which would be broken.
pub fn write_prio_chain<S>(
    device: &Arc<dyn Device>,
    geometry: &Geometry,
    set: SetMagic,
    seq: u64,
    chain: &[BucketIndex],
    sets: Vec<S>,
) -> Result<(), Error>
where
    S: PrioRecords + Send,
{
    assert_eq!(chain.len(), geometry.prio_buckets() as usize, "a chain has a bucket per set");
    assert_eq!(sets.len(), chain.len(), "a set has a bucket of the chain");
    assert!(chain.iter().all(|&b| geometry.contains(b)), "a chain lies in the device: {chain:?}");
    // One CPU is the kernel's, which has to do with every write.
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get().max(2) - 1);
    let threads = (sets.len() / SETS_PER_THREAD_MIN).clamp(1, cpus.min(THREADS_MAX));
    let share = SETS_IN_FLIGHT_MAX / threads;
    let most = most_in_part(geometry, share);
    let parts = Part::all(chain, most);
    // Where few sets are neighbours, more writes of one set each are under way.
    let (parts, most) = match parts.len() * 2 {
        twice if twice <= chain.len() + most => (parts, most),
        _ => (Part::all(chain, 1), 1),
    };
    let write = ChainWrite {
        device,
        geometry,
        set,
        seq,
        chain,
        most,
        depth: (share / most) as u32,
        own_rings: sets.len() >= SETS_PER_THREAD_MIN,
        state: Mutex::new(State { parts, sets, error: None }),
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // Without help the calling thread does it all, with less of it in flight.
            let helper = std::thread::Builder::new().name("tierce-encode".into());
            let _ = helper.spawn_scoped(scope, || write.work());
        }
        write.work();
    });
    write.state.into_inner().unwrap_or_else(PoisonError::into_inner).error.map_or(Ok(()), Err)
}

/// How many sets are worth writing together, if a thread may have `share` of them in memory:
/// others are encoded while these are written.
fn most_in_part(geometry: &Geometry, share: usize) -> usize {
    if geometry.meta_bytes() < geometry.bucket_bytes() {
        return 1;
    }
    let enough = WRITE_BYTES / geometry.meta_bytes();
    (enough as usize).clamp(1, (share / 2).max(1))
}

/// Sets that follow each other in the chain and lie side by side on the device, in whichever
/// direction: they are written together.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Part(Range<usize>);

impl Part {
    /// Those of a chain, of at most `most` sets each.
    fn all(chain: &[BucketIndex], most: usize) -> Vec<Self> {
        let number = |at: usize| i64::from(chain[at].get());
        let (mut parts, mut start) = (Vec::new(), 0);
        while start < chain.len() {
            let end = (start + most).min(chain.len());
            let step = |at| number(at) - number(at - 1);
            let is_neighbour = |&at: &usize| step(at).abs() == 1 && step(at) == step(start + 1);
            let end = start + 1 + (start + 1..end).take_while(is_neighbour).count();
            parts.push(Self(start..end));
            start = end;
        }
        parts
    }

    /// The bucket of its sets that lies in front of the others.
    fn lowest(&self, chain: &[BucketIndex]) -> BucketIndex {
        chain[self.0.start].min(chain[self.0.end - 1])
    }
}

/// What the threads share.
struct ChainWrite<'a, S> {
    device: &'a Arc<dyn Device>,
    geometry: &'a Geometry,
    set: SetMagic,
    seq: u64,
    chain: &'a [BucketIndex],
    /// Sets that are written together at most.
    most: usize,
    /// Parts that each thread may have in memory.
    depth: u32,
    /// Whether each thread makes a ring of its own for its part.
    own_rings: bool,
    state: Mutex<State<S>>,
}

struct State<S> {
    /// Those that nobody has taken; the last goes first.
    parts: Vec<Part>,
    /// Of these parts.
    sets: Vec<S>,
    /// The first one.
    error: Option<Error>,
}

impl<S: PrioRecords> ChainWrite<'_, S> {
    /// No code that can panic runs under the lock.
    fn state(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A part that nobody else encodes, and the records of its sets; `None` if there is none,
    /// or it would be in vain.
    fn take(&self) -> Option<(Part, Vec<S>)> {
        let mut state = self.state();
        if state.error.is_some() {
            return None;
        }
        let part = state.parts.pop()?;
        let sets = state.sets.split_off(part.0.start);
        Some((part, sets))
    }

    fn work(&self) {
        let set_bytes = self.geometry.meta_bytes() as usize;
        let mut queue = if self.own_rings {
            Queue::with_buffers(self.device.clone(), self.depth, self.most * set_bytes)
        } else {
            Queue::through_device(self.device.clone(), self.depth)
        };
        while let Some((part, sets)) = self.take() {
            let number = part.0.start as u64;
            let buffer = queue.buffer(sets.len() * set_bytes);
            let write = self.encode(part, sets, buffer);
            queue.submit(write, number).expect("there is room for it");
            self.note(queue.poll());
            while queue.under_way() == self.depth as usize {
                self.note(queue.wait());
            }
        }
        while queue.under_way() > 0 {
            self.note(queue.wait());
        }
    }

    /// The write of a part.
    fn encode(&self, part: Part, sets: Vec<S>, mut buffer: Buffer) -> Request {
        let (lowest, set_bytes) = (part.lowest(self.chain), self.geometry.meta_bytes() as usize);
        for (index, records) in part.0.zip(sets) {
            // The last set names nothing.
            let next = self.chain.get(index + 1).map_or(0, |bucket| bucket.get().into());
            let from = (self.chain[index].get() - lowest.get()) as usize * set_bytes;
            let place = &mut buffer[from..from + set_bytes];
            PrioSet::encode_all(place, self.set, self.seq, next, records);
        }
        let offset = u64::from(lowest.get()) * u64::from(self.geometry.bucket_bytes());
        Request::write(offset, buffer).class(Class::Metadata)
    }

    /// Keeps the first error.
    fn note(&self, done: Option<(u64, Outcome)>) {
        if let Some((_, Err(error))) = done {
            self.state().error.get_or_insert(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(chain: &[u32], most: usize) -> Vec<Range<usize>> {
        let chain: Vec<_> = chain.iter().copied().map(BucketIndex::new).collect();
        let parts = Part::all(&chain, most);
        for part in &parts {
            let mut buckets: Vec<_> = chain[part.0.clone()].iter().map(|b| b.get()).collect();
            buckets.sort_unstable();
            let lowest = part.lowest(&chain).get();
            assert!((lowest..).zip(buckets).all(|(wanted, found)| wanted == found), "{part:?}");
        }
        parts.into_iter().map(|part| part.0).collect()
    }

    #[test]
    fn parts_are_neighbours_in_either_direction() {
        assert_eq!(parts(&[5, 6, 7, 8, 9], 4), [0..4, 4..5]);
        assert_eq!(parts(&[9, 8, 7, 3, 4, 9], 4), [0..3, 3..5, 5..6]);
        assert_eq!(parts(&[5, 6, 5, 4], 4), [0..2, 2..4], "they turn");
        assert_eq!(parts(&[5, 7, 9], 4), [0..1, 1..2, 2..3]);
        assert_eq!(parts(&[5, 6], 1), [0..1, 1..2]);
        assert_eq!(parts(&[5, 9], 4), [0..1, 1..2], "they are far apart");
    }

    #[test]
    fn what_is_in_memory_is_bounded() {
        for (bucket_sectors, meta_bytes) in [(8, 4 << 10), (128, 64 << 10), (1024, 512 << 10)] {
            let geometry = Geometry::new(2000, 1, bucket_sectors, 8).expect("a legal shape");
            assert_eq!(geometry.meta_bytes(), meta_bytes);
            for share in [8, 4] {
                let most = most_in_part(&geometry, share);
                assert!(most >= 1 && share / most >= 2, "one is encoded while one is written");
                assert!(most == 1 || most as u32 * meta_bytes <= WRITE_BYTES);
            }
        }
        let large = Geometry::new(2000, 1, 16384, 8).expect("a legal shape");
        assert_eq!(most_in_part(&large, 8), 1, "between these sets lies something else");
    }
}
