//! Writing one table of gens and prios: a chain of prio sets.
//!
//! # Protocol
//!
//! Where each set goes is known beforehand, so each can name its successor whatever is written
//! first, and sets are encoded by several threads at once. A thread takes the last set that
//! nobody has taken, encodes it, submits its write, and goes on with the next set while the
//! device writes: encoding, checksums and writing overlap. At most [`SETS_IN_FLIGHT_MAX`] sets
//! are in memory at a time, among all threads; a thread that has its share of them under way
//! waits for one of them. Where several threads encode, each has a ring of its own for the time
//! ([`Queue`]): nothing is handed to a further thread. There is no flush.
//!
//! Nothing refers to the chain yet. It becomes the state of the device by the
//! [journal](crate::journal) entry that names its head, and by the flush before that entry it is
//! durable first.
//!
//! When this returns, with or without an error, nothing of it is under way any more: the chain's
//! buckets are not written behind the back of whoever gets them next. After an error no further
//! set is encoded.

use crate::completion::Outcome;
use crate::device::{Class, Device, Request};
use crate::error::Error;
use crate::queue::Queue;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tierce_core::record::{PrioSet, SetMagic};
use tierce_core::{BucketIndex, Gen, Geometry, Prio};

/// Sets that are encoded or under way at a time, each of at most 4 MiB.
pub const SETS_IN_FLIGHT_MAX: usize = 8;

/// Threads that encode, the caller's included: two of them outrun any device by far.
const THREADS_MAX: usize = 4;
/// Sets per thread below which starting one is not worth it.
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
    S: IntoIterator<Item = (Prio, Gen), IntoIter: ExactSizeIterator> + Send,
{
    assert_eq!(chain.len(), geometry.prio_buckets() as usize, "a chain has a bucket per set");
    assert_eq!(sets.len(), chain.len(), "a set has a bucket of the chain");
    assert!(chain.iter().all(|&b| geometry.contains(b)), "a chain lies in the device: {chain:?}");
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = (sets.len() / SETS_PER_THREAD_MIN).clamp(1, cpus.min(THREADS_MAX));
    let write = ChainWrite {
        device,
        geometry,
        set,
        seq,
        chain,
        share: SETS_IN_FLIGHT_MAX / threads,
        own_rings: threads > 1,
        state: Mutex::new(State { sets, error: None }),
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

/// What the threads share.
struct ChainWrite<'a, S> {
    device: &'a Arc<dyn Device>,
    geometry: &'a Geometry,
    set: SetMagic,
    seq: u64,
    chain: &'a [BucketIndex],
    /// Sets that each thread may have in memory.
    share: usize,
    /// Whether each thread makes a ring of its own for its part.
    own_rings: bool,
    state: Mutex<State<S>>,
}

struct State<S> {
    /// Those that nobody has taken; the last goes first.
    sets: Vec<S>,
    /// The first one.
    error: Option<Error>,
}

impl<S: IntoIterator<Item = (Prio, Gen), IntoIter: ExactSizeIterator>> ChainWrite<'_, S> {
    /// No code that can panic runs under the lock.
    fn state(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number and the records of a set that nobody else encodes; `None` if there is none,
    /// or it would be in vain.
    fn take(&self) -> Option<(usize, S)> {
        let mut state = self.state();
        if state.error.is_some() {
            return None;
        }
        let records = state.sets.pop()?;
        Some((state.sets.len(), records))
    }

    fn work(&self) {
        let (bytes, share) = (self.geometry.meta_bytes() as usize, self.share as u32);
        let mut queue = if self.own_rings {
            Queue::with_buffers(self.device.clone(), share, bytes)
        } else {
            Queue::through_device(self.device.clone(), share)
        };
        while let Some((index, records)) = self.take() {
            let mut buffer = queue.buffer(bytes);
            // The last set names nothing.
            let next = self.chain.get(index + 1).map_or(0, |bucket| bucket.get().into());
            PrioSet::encode_all(&mut buffer, self.set, self.seq, next, records.into_iter());
            let bucket_bytes = u64::from(self.geometry.bucket_bytes());
            let offset = u64::from(self.chain[index].get()) * bucket_bytes;
            let write = Request::write(offset, buffer).class(Class::Metadata);
            queue.submit(write, index as u64).expect("there is room for it");
            self.note(queue.poll());
            while queue.under_way() == self.share {
                self.note(queue.wait());
            }
        }
        while queue.under_way() > 0 {
            self.note(queue.wait());
        }
    }

    /// Keeps the first error.
    fn note(&self, done: Option<(u64, Outcome)>) {
        if let Some((_, Err(error))) = done {
            self.state().error.get_or_insert(error);
        }
    }
}
