//! Requests become operations on a [`Store`], on many threads, and everything is counted.
//!
//! ## Problem
//! A cache must be driven as its users would: by several threads at once, yet every operation
//! on a key after the one before it, or the outcome would mean nothing and could not be checked.
//!
//! ## Protocol
//! 1. The calling thread takes requests from the iterator and splits them into accesses: one
//!    for the whole object, or one for each page that the request covers.
//! 2. Each access goes, in batches, to the thread that a hash of its key chooses; a full queue
//!    makes the calling thread wait.
//! 3. That thread runs it against the store and times the store's part alone.
//! 4. At the end of the requests, or after the first error, the queues are closed, the threads
//!    finish what they hold, and what they counted is added up.
//!
//! ## What an access does
//! | access | whole objects | pages |
//! |---|---|---|
//! | get | get; if it misses, insert a value of the request's size | the same, of the page's size |
//! | set | insert | look up, insert |
//! | remove | remove | remove, if the page lies in the range whole |
//!
//! The hit ratio counts what was looked up: gets, and in pages the sets too: there a write to a
//! page that is resident is a hit, and appends a new copy.
//!
//! ## What is checked
//! Values are [`Derived`](crate::value::Derived) from the key, a version and a size. With
//! [`Settings::verify`], a hit must be the latest version that the store acknowledged in this
//! run, byte for byte; without, it must be some version of its key. Keys carry
//! [`Settings::namespace`], so what an earlier run left in a cache is not met.

mod outcome;
mod watch;
mod worker;

pub use outcome::Outcome;
pub use watch::{Interval, Watch};

use crate::backend::Store;
use crate::error::Error;
use crate::measure::rss_bytes;
use crate::trace::{Op, Request};
use crate::value::mix;
use outcome::Tally;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use worker::Worker;

/// How requests are run.
///
/// ```
/// use tierce_bench::replay::Settings;
/// let mut settings = Settings::default();
/// settings.threads = 4;
/// settings.page_bytes = Some(3000);
/// let error = settings.validate().unwrap_err().to_string();
/// assert_eq!(error, "the page size is 3000, wanted a power of two from 512 to 1073741824 bytes");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Threads that run operations, 1 to 1024, besides the one that reads the requests.
    pub threads: usize,
    /// Access pages of this many bytes (a power of two, 512 B to 1 GiB) and not whole objects.
    /// Only block traces have pages.
    pub page_bytes: Option<u64>,
    /// Accept only the latest version, byte for byte. Takes memory for each key.
    pub verify: bool,
    /// Stop after this many requests.
    pub requests: Option<u64>,
    /// The first 8 bytes of all keys, to tell runs from each other.
    pub namespace: u64,
    /// The version of each thread's first insert: above all that earlier runs of the same
    /// namespace on the same cache used. Without [`verify`](Self::verify) hits may be theirs.
    pub first_version: u64,
    /// Is told what happens while it happens, if there is one.
    pub watch: Option<Arc<Watch>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: 1,
            page_bytes: None,
            verify: false,
            requests: None,
            namespace: 0,
            first_version: 0,
            watch: None,
        }
    }
}

impl Settings {
    /// Checks all settings against their ranges.
    ///
    /// # Errors
    /// [`Error::Setting`] for the first one out of range.
    pub fn validate(&self) -> Result<(), Error> {
        if !(1..=1024).contains(&self.threads) {
            return Err(Error::Setting {
                what: "the number of threads",
                found: self.threads.to_string(),
                wanted: "1 to 1024".to_owned(),
            });
        }
        match self.page_bytes {
            Some(bytes) if !bytes.is_power_of_two() || !(512..=1 << 30).contains(&bytes) => {
                Err(Error::Setting {
                    what: "the page size",
                    found: bytes.to_string(),
                    wanted: "a power of two from 512 to 1073741824 bytes".to_owned(),
                })
            }
            _ => Ok(()),
        }
    }
}

/// One operation to run.
#[derive(Clone, Copy, Debug)]
struct Access {
    op: Op,
    key: u64,
    size: u64,
    /// The page exists as a whole or not at all, so a set looks it up first.
    is_page: bool,
}

/// Accesses travel to their threads in groups of this many, …
const BATCH_ACCESSES: usize = 128;
/// … of which this many may wait in a thread's queue.
const QUEUE_BATCHES: usize = 8;
/// How often progress is reported.
const PROGRESS_REQUESTS: u64 = 256;

/// Runs `requests` against `store` until they end, and says what happened.
///
/// `progress` is called now and then on the calling thread with the number of requests taken
/// since it was called before.
///
/// ```
/// use tierce_bench::backend::Unbounded;
/// use tierce_bench::replay::{Settings, run};
/// use tierce_bench::workload::{Zipf, ZipfSettings};
/// let mut workload = ZipfSettings::default();
/// (workload.requests, workload.keys) = (2_000, 100);
/// let mut settings = Settings::default();
/// (settings.threads, settings.verify) = (2, true);
///
/// let requests = Zipf::new(&workload).unwrap();
/// let outcome = run(&Unbounded::default(), requests, &settings, &mut |_| {}).unwrap();
/// assert_eq!((outcome.requests, outcome.wrong_data), (2_000, 0));
/// assert!(outcome.hit_ratio > 0.9);
/// ```
///
/// # Errors
/// The first of: [`Error::Setting`]; what the iterator or the store returned. Operations that
/// threads had begun by then are finished.
pub fn run<S, I>(
    store: &S,
    requests: I,
    settings: &Settings,
    progress: &mut dyn FnMut(u64),
) -> Result<Outcome, Error>
where
    S: Store,
    I: IntoIterator<Item = Result<Request, Error>>,
{
    settings.validate()?;
    let start = Instant::now();
    let (taken, tally) = std::thread::scope(|scope| {
        let (queues, workers): (Vec<_>, Vec<_>) = (0..settings.threads)
            .map(|_| {
                let (queue, accesses) = sync_channel::<Vec<Access>>(QUEUE_BATCHES);
                let worker = Worker::new(store, settings);
                (queue, scope.spawn(move || drive(worker, accesses)))
            })
            .unzip();
        let taken = Splitter::new(queues, settings).split(requests, progress);
        let mut tally = Ok(Tally::default());
        for worker in workers {
            match worker.join() {
                Ok(Ok(part)) => tally = tally.map(|all: Tally| all.merged(part)),
                Ok(Err(error)) => tally = tally.and(Err(error)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, Error>((taken?, tally?))
    })?;
    Ok(outcome(taken, tally, start.elapsed(), store, settings))
}

/// A thread's work: everything in its queue.
fn drive<S: Store>(
    mut worker: Worker<'_, S>,
    accesses: Receiver<Vec<Access>>,
) -> Result<Tally, Error> {
    for batch in accesses {
        for access in batch {
            worker.run(access)?;
        }
    }
    Ok(worker.into_tally())
}

fn outcome(
    requests: u64,
    tally: Tally,
    elapsed: Duration,
    store: &impl Store,
    settings: &Settings,
) -> Outcome {
    let mut stats = store.stats();
    stats.dropped_inserts = stats.dropped_inserts.max(tally.dropped);
    let ratio = |part: u64, all: u64| if all == 0 { 0.0 } else { part as f64 / all as f64 };
    Outcome {
        requests,
        operations: tally.operations,
        accesses: tally.accesses,
        hits: tally.hits,
        hit_ratio: ratio(tally.hits, tally.accesses),
        byte_hit_ratio: ratio(tally.hit_bytes, tally.access_bytes),
        seconds: elapsed.as_secs_f64(),
        ops_per_s: tally.operations as f64 / elapsed.as_secs_f64().max(1e-9),
        inserts: tally.insert.count(),
        inserted_bytes: tally.inserted_bytes,
        too_large: tally.too_large,
        removes: tally.removes,
        verified: settings.verify,
        wrong_data: tally.wrong_data,
        first_wrong: tally.first_wrong,
        store: stats,
        held_buckets_mean: ratio(tally.held.0, tally.held.1),
        hit_us: tally.hit.summary(),
        miss_us: tally.miss.summary(),
        insert_us: tally.insert.summary(),
        rss_bytes: rss_bytes(),
    }
}

/// The calling thread's part: requests in, batches of accesses out.
struct Splitter<'a> {
    queues: Vec<SyncSender<Vec<Access>>>,
    batches: Vec<Vec<Access>>,
    settings: &'a Settings,
}

/// The thread at the other end of a queue has ended early; its result says why.
struct Closed;

impl<'a> Splitter<'a> {
    fn new(queues: Vec<SyncSender<Vec<Access>>>, settings: &'a Settings) -> Self {
        let batches = vec![Vec::with_capacity(BATCH_ACCESSES); queues.len()];
        Self { queues, batches, settings }
    }

    /// Sends all requests on their way and returns how many there were. Ends early when a
    /// thread has ended.
    fn split<I>(mut self, requests: I, progress: &mut dyn FnMut(u64)) -> Result<u64, Error>
    where
        I: IntoIterator<Item = Result<Request, Error>>,
    {
        let limit = self.settings.requests.unwrap_or(u64::MAX);
        let (mut taken, mut reported) = (0, 0);
        let mut requests = requests.into_iter();
        while taken < limit {
            let Some(request) = requests.next().transpose()? else { break };
            taken += 1;
            if let Err(Closed) = self.split_request(&request)? {
                return Ok(taken);
            }
            if taken - reported >= PROGRESS_REQUESTS {
                progress(taken - reported);
                reported = taken;
            }
        }
        progress(taken - reported);
        // A thread that has ended says why itself.
        let _ = (0..self.queues.len()).try_for_each(|thread| self.send(thread));
        Ok(taken)
    }

    fn split_request(&mut self, request: &Request) -> Result<Result<(), Closed>, Error> {
        let Some(page_bytes) = self.settings.page_bytes else {
            let (op, key) = (request.op, request.target.key());
            return Ok(self.push(Access { op, key, size: request.size, is_page: false }));
        };
        let pages = match request.op {
            Op::Get | Op::Set => request.pages(page_bytes),
            Op::Remove => whole_pages(request, page_bytes),
        };
        let mut pages = pages.ok_or_else(|| Error::Setting {
            what: "the page mode",
            found: "on for requests that name objects".to_owned(),
            wanted: "a block trace (vscsi, msr, fio-iolog, blktrace, blkparse, arc)".to_owned(),
        })?;
        let op = request.op;
        Ok(pages.try_for_each(|key| self.push(Access { op, key, size: page_bytes, is_page: true })))
    }

    fn push(&mut self, access: Access) -> Result<(), Closed> {
        let thread = (mix(access.key) % self.queues.len() as u64) as usize;
        self.batches[thread].push(access);
        if self.batches[thread].len() < BATCH_ACCESSES { Ok(()) } else { self.send(thread) }
    }

    fn send(&mut self, thread: usize) -> Result<(), Closed> {
        let empty = Vec::with_capacity(BATCH_ACCESSES);
        let batch = std::mem::replace(&mut self.batches[thread], empty);
        self.queues[thread].send(batch).map_err(|_| Closed)
    }
}

/// The pages that lie in the request's range whole: those a discard empties.
fn whole_pages(request: &Request, page_bytes: u64) -> Option<Range<u64>> {
    let touched = request.pages(page_bytes)?;
    let crate::Target::Extent { offset, .. } = request.target else { return None };
    let cut_at_start = !offset.is_multiple_of(page_bytes);
    let cut_at_end = !(offset + request.size).is_multiple_of(page_bytes);
    let start = touched.start + u64::from(cut_at_start);
    let end = touched.end.saturating_sub(u64::from(cut_at_end));
    Some(start..end.max(start))
}

#[cfg(test)]
mod tests;
