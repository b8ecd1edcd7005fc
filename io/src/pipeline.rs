//! The thread that makes buckets free again: it does for a [`Reclaimer`] what needs the device.
//!
//! # Problem
//!
//! A bucket may be handed out again only after its new gen is durable. The reclaimer chooses the
//! buckets and knows the rules; it does no I/O.
//!
//! # Protocol
//!
//! The thread steps the reclaimer and does what it is told:
//!
//! | step | what the thread does |
//! |---|---|
//! | `Wait` | parks until somebody needs something; a timer only while buckets wait for the pace of discards |
//! | `PrioWrite` | encodes and writes the sets, a few at a time, and again if a `PrioBlock` came in between; flushes; writes the journal entry that names the head, durably; says `prio_durable` |
//! | `Discard` | begins to discard a bucket, if the [pace](crate::DiscardPace) allows; says `discarded` when that is over, also after an error, which is counted |
//! | `Ended` | ends |
//!
//! What must come before what, each by waiting for the one before:
//! *buckets are invalidated and drained into the batch* → *words are encoded* → *sets are
//! written* → *flush* → *journal entry durable* → *`prio_durable`: the old chain and the batch
//! are released* → *each is discarded, or was not claimed for that when free space got short* →
//! *it is free*.
//!
//! # Failure
//!
//! The first write or flush that fails takes the device out of use, with its cause: nothing of
//! the batch is released, everybody who waits is told, other devices of the set go on. A panic
//! of the thread does the same. A discard that fails costs nothing but the discard.
//!
//! # Progress
//!
//! The thread blocks on the device and in [`Reclaimer::park`], on nothing else. Nobody blocks
//! on the thread but those who wait for a bucket, and they are woken when it ends.

use crate::completion::Completion;
use crate::device::Request;
use crate::discard::{DiscardPace, Discards};
use crate::ending::join;
use crate::error::Error;
use crate::volume::StateWriter;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::Instant;
use tierce_core::{BucketIndex, DeviceIndex, broken};
use tierce_lockfree::{Allocator, PrioWrite, Reclaimer, Step, WaitFor};

/// What a pipeline did so far.
///
/// ```
/// assert_eq!(tierce_io::PipelineStats::default().prio_write_bytes, 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct PipelineStats {
    /// Prio writes that became durable.
    pub prio_write_total: u64,
    /// Bytes of prio sets that were written for them.
    pub prio_write_bytes: u64,
    /// Discards that the device did.
    pub discard_total: u64,
    /// Discards that it refused or failed.
    pub discard_errors_total: u64,
    /// Discards that are under way.
    pub discards_under_way: u64,
    /// Buckets that became free without their discard, because free space was short.
    pub discard_skipped_total: u64,
}

/// A device's reclaiming thread.
///
/// ```
/// use tierce_core::{DeviceIndex, Reserve};
/// use tierce_io::{FormatOptions, OpenOptions, Pipeline, Volume};
/// use tierce_lockfree::{Allocator, Config};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("cache");
/// let options = FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
/// tierce_io::format(&path, &options)?;
///
/// let (table, writer) = Volume::open(&path, &OpenOptions::default())?.into_start();
/// let (allocator, reclaimers) = Allocator::start(Config::default(), vec![table])?.finish();
/// let reclaimer = reclaimers.into_iter().next().expect("one per device");
/// let pipeline = Pipeline::start(reclaimer, writer)?;
///
/// let bucket = allocator.alloc_until(DeviceIndex::FIRST, Reserve::None, None)?;
/// assert_eq!(bucket.bucket_ref().gen_().get(), 1, "and that is durable");
/// drop(bucket);
/// pipeline.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Pipeline {
    allocator: Arc<Allocator>,
    device: DeviceIndex,
    stats: Arc<Mutex<PipelineStats>>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Pipeline {
    /// Starts the thread for `reclaimer`, whose device `writer` writes. It ends when the
    /// allocator is closed or the device fails.
    ///
    /// # Errors
    ///
    /// [`Error::Setup`] if no thread can be had, [`Error::SyncDiffers`] if the allocator keeps
    /// gens durable and the device does not, or the other way round. Then the device is out of
    /// use in the allocator.
    pub fn start(reclaimer: Reclaimer, writer: StateWriter) -> Result<Self, Error> {
        Self::start_work(Work::new(reclaimer, writer).pace(DiscardPace::default()))
    }

    /// Starts the thread for `work`, which may have gone some steps already.
    ///
    /// ```
    /// use tierce_io::{DiscardPace, Pipeline, Work};
    /// # use tierce_io::{FormatOptions, Owner, Sim, SimOptions, Volume, format_on};
    /// # use tierce_lockfree::{Allocator, Config};
    /// # let device = Sim::new(&SimOptions::default());
    /// # format_on(&*device, &FormatOptions::default().bucket(64 << 10))?;
    /// # let (table, writer) = Volume::open_on(device, Owner::Allocator)?.into_start();
    /// # let config = Config::default().discard(true);
    /// # let (_allocator, mut reclaimers) = Allocator::start(config, vec![table])?.finish();
    /// let pace = DiscardPace::unbounded(2).per_second(Some(100));
    /// let work = Work::new(reclaimers.remove(0), writer).pace(pace);
    /// let pipeline = Pipeline::start_work(work)?;
    /// pipeline.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_work(work: Work) -> Result<Self, Error> {
        let reclaimer = &work.reclaimer;
        let (allocator, device) = (reclaimer.allocator().clone(), reclaimer.device());
        let name = work.writer.device().name().clone();
        let (found, wanted) = (allocator.config().sync, !work.writer.is_scratch());
        if found != wanted {
            let told = Error::SyncDiffers { device: name.clone(), found, wanted };
            allocator.fail(device, Arc::new(told));
            return Err(Error::SyncDiffers { device: name, found, wanted });
        }
        let stats = Arc::clone(&work.stats);
        let thread = std::thread::Builder::new()
            .name("tierce-reclaim".into())
            .spawn(move || work.run())
            .map_err(|cause| {
                allocator.fail(device, Arc::new(Error::Closed { device: name.clone() }));
                Error::Setup { device: name, what: "the reclaiming thread", cause }
            })?;
        Ok(Self { allocator, device, stats, thread: Some(thread) })
    }

    /// The device of the set that it works for.
    #[must_use]
    pub const fn device(&self) -> DeviceIndex {
        self.device
    }

    /// What it did so far.
    #[must_use]
    pub fn stats(&self) -> PipelineStats {
        stats_now(&self.stats, &self.allocator, self.device)
    }

    /// Closes the allocator and waits for the thread to end. What was handed out stays as it
    /// is; a prio write under way is finished.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the device failed meanwhile.
    pub fn close(self) -> Result<(), Error> {
        self.allocator.close();
        self.join()
    }

    /// Waits for the thread to end, as it does when the allocator is closed or the device fails.
    /// On the thread itself, in a waker that it calls, it does not wait but closes the allocator:
    /// the thread ends when the waker has returned.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`] if the device failed.
    pub fn join(mut self) -> Result<(), Error> {
        match self.thread.take().and_then(join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Pipeline {
    /// As [`close`](Self::close); an error was told to everybody who waited.
    fn drop(&mut self) {
        self.allocator.close();
        let _ = self.thread.take().and_then(join);
    }
}

/// No code that can panic runs under the lock.
fn lock(stats: &Mutex<PipelineStats>) -> MutexGuard<'_, PipelineStats> {
    stats.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pipeline's work, one step at a time: for who drives a device on a thread of his own
/// instead of starting a [`Pipeline`].
///
/// ```
/// use tierce_core::Reserve;
/// use tierce_io::{FormatOptions, Owner, Sim, SimOptions, Volume, Work, Worked, format_on};
/// use tierce_lockfree::{Allocator, Config};
/// let device = Sim::new(&SimOptions::default());
/// format_on(&*device, &FormatOptions::default().bucket(64 << 10))?;
///
/// let (table, writer) = Volume::open_on(device, Owner::Allocator)?.into_start();
/// let (allocator, mut reclaimers) = Allocator::start(Config::default(), vec![table])?.finish();
/// let mut work = Work::new(reclaimers.remove(0), writer);
/// while !matches!(work.step()?, Worked::Wait(_)) {}
/// assert!(work.stats().prio_write_total > 0);
/// assert!(allocator.try_alloc(Reserve::None)?.is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Work {
    reclaimer: Reclaimer,
    writer: StateWriter,
    stats: Arc<Mutex<PipelineStats>>,
    discards: Discards,
    /// Rings the reclaimer's bell.
    waker: Waker,
    owner: Option<Box<dyn Evicted>>,
}

/// Who has something in buckets, and wants to know when it goes.
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use tierce_core::BucketIndex;
/// use tierce_io::{Error, Evicted};
///
/// #[derive(Debug)]
/// struct Log(Arc<Mutex<Vec<BucketIndex>>>);
///
/// impl Evicted for Log {
///     fn before_durable(&mut self, _buckets: &[BucketIndex]) -> Result<(), Error> {
///         Ok(())
///     }
///     fn after_durable(&mut self, buckets: &[BucketIndex]) {
///         self.0.lock().unwrap().extend_from_slice(buckets);
///     }
/// }
/// ```
pub trait Evicted: Send + fmt::Debug {
    /// The content of `buckets` is about to go for good: their new gens become durable next,
    /// unless this returns an error, which fails the device. What was written to this device and
    /// is complete when it returns is durable no later than they are. A bucket that is not reused
    /// before the next table is written may be named again.
    ///
    /// # Errors
    ///
    /// The owner's own.
    fn before_durable(&mut self, buckets: &[BucketIndex]) -> Result<(), Error>;

    /// It is gone for good, whatever happens. None of them is free yet.
    fn after_durable(&mut self, buckets: &[BucketIndex]);
}

/// What a step of [`Work`] did.
///
/// ```
/// use tierce_io::Worked;
/// assert_ne!(Worked::Wrote, Worked::Discarded);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "it says whether there is more to do"]
#[non_exhaustive]
pub enum Worked {
    /// Nothing: that has to happen first.
    Wait(WaitFor),
    /// A table of gens became durable.
    Wrote,
    /// A discard was begun, and may be over already.
    Discarded,
    /// Nothing any more: the set was closed or the device has failed.
    Ended,
}

impl Work {
    /// The work of `reclaimer`, whose device `writer` writes.
    ///
    /// Discards are done [as fast as the device does them](DiscardPace::unbounded), 4 at a time,
    /// so that what happens depends on no clock.
    #[must_use]
    pub fn new(reclaimer: Reclaimer, writer: StateWriter) -> Self {
        let (waker, stats) = (reclaimer.waker(), Arc::default());
        let discards = Discards::new(DiscardPace::unbounded(4));
        Self { reclaimer, writer, stats, discards, waker, owner: None }
    }

    /// The same work with its discards at this pace. To be called before the first step.
    #[must_use]
    pub fn pace(mut self, pace: DiscardPace) -> Self {
        self.discards = Discards::new(pace);
        self
    }

    /// Tells `owner` which buckets lose their content.
    #[must_use]
    pub fn with_owner(mut self, owner: impl Evicted + 'static) -> Self {
        self.owner = Some(Box::new(owner));
        self
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> PipelineStats {
        stats_now(&self.stats, self.reclaimer.allocator(), self.reclaimer.device())
    }

    /// Sleeps until there may be something to do: for whoever drives it on a thread of his own,
    /// after [`Worked::Wait`].
    pub fn park(&self) {
        let paced = self.reclaimer.wants_discards();
        self.reclaimer.park(self.discards.next_at().filter(|_| paced));
    }

    /// Does what is to be done next, waiting for the device and for nobody else.
    ///
    /// # Errors
    ///
    /// [`Error::Failed`], once, if the device fails: then everybody who waits for it has been
    /// told, and the next step is [`Worked::Ended`].
    pub fn step(&mut self) -> Result<Worked, Error> {
        self.finish_discards();
        self.reclaimer.allow_discards(self.discards.allowed(Instant::now()));
        let step = self.reclaimer.step();
        self.perform(step)
    }

    fn perform(&mut self, step: Step) -> Result<Worked, Error> {
        Ok(match step {
            Step::Wait(reason) => Worked::Wait(reason),
            Step::PrioWrite(write) => {
                self.prio_write(write)?;
                Worked::Wrote
            }
            Step::Discard(bucket) => {
                self.begin_discard(bucket);
                Worked::Discarded
            }
            Step::Ended => Worked::Ended,
        })
    }

    /// Writes the table of gens and prios at once, without waiting for a full batch: before an
    /// orderly stop, so that the next start finds the ages as they are.
    ///
    /// # Errors
    ///
    /// As [`step`](Self::step).
    ///
    /// # Panics
    ///
    /// If the set has no prio writes ([`Config::sync`](tierce_lockfree::Config)).
    pub fn write_now(&mut self) -> Result<Worked, Error> {
        let step = self.reclaimer.write_now();
        self.perform(step)
    }

    fn run(mut self) -> Result<(), Error> {
        let _guard = FailOnPanic {
            allocator: self.reclaimer.allocator().clone(),
            device: self.reclaimer.device(),
            name: self.writer.device().name().clone(),
        };
        let mut result = Ok(());
        loop {
            match self.step() {
                Ok(Worked::Wait(_)) => self.park(),
                Ok(Worked::Wrote | Worked::Discarded) => {}
                Ok(Worked::Ended) => return result,
                // The next step ends, and so do we.
                Err(error) => result = result.and(Err(error)),
            }
        }
    }

    fn prio_write(&mut self, mut write: PrioWrite) -> Result<(), Error> {
        assert_eq!(write.seq(), self.writer.prio_seq() + 1, "prio writes are numbered in order");
        let chain = write.chain().to_vec();
        if broken!("discard_before_durable") {
            // What comes of it does not matter here.
            write.batch().iter().for_each(|&bucket| drop(self.submit_discard(bucket).wait()));
        }
        loop {
            if let Err(error) = self.writer.write(&chain, write.sets()) {
                return Err(self.failed(write, error));
            }
            if write.confirm() {
                break;
            }
            // Somebody freed an index node whose replacement is not durable yet.
            if !write.wait_unblocked() {
                return Ok(());
            }
        }
        if let Some(owner) = &mut self.owner
            && let Err(error) = owner.before_durable(write.going())
        {
            return Err(self.failed(write, error));
        }
        if let Err(error) = self.writer.commit(&chain) {
            return Err(self.failed(write, error));
        }
        if let Some(owner) = &mut self.owner {
            owner.after_durable(write.going());
        }
        self.reclaimer.prio_durable(write);
        let meta_bytes = self.writer.superblock().geometry().meta_bytes();
        let mut stats = lock(&self.stats);
        stats.prio_write_total += 1;
        stats.prio_write_bytes += chain.len() as u64 * u64::from(meta_bytes);
        Ok(())
    }

    /// The device is out of use: nothing of the batch is released.
    fn failed(&mut self, write: PrioWrite, error: Error) -> Error {
        let (device, cause) = error.into_failure(self.writer.device().name());
        let told = Error::Failed { device: device.clone(), cause: cause.clone() };
        self.reclaimer.prio_failed(write, Arc::new(told));
        Error::Failed { device, cause }
    }

    fn submit_discard(&self, bucket: BucketIndex) -> Completion {
        let bytes = u64::from(self.writer.superblock().geometry().bucket_bytes());
        self.writer.device().submit(Request::discard(u64::from(bucket.get()) * bytes, bytes))
    }

    fn begin_discard(&mut self, bucket: BucketIndex) {
        let discard = self.submit_discard(bucket);
        self.discards.begin(bucket, discard, Instant::now());
        lock(&self.stats).discards_under_way = self.discards.len() as u64;
        self.finish_discards();
    }

    /// Buckets whose discard is over go on, whatever came of it.
    fn finish_discards(&mut self) {
        while let Some((bucket, outcome)) = self.discards.take_done(&self.waker) {
            let mut stats = lock(&self.stats);
            match outcome {
                Ok(_) => stats.discard_total += 1,
                Err(_) => stats.discard_errors_total += 1,
            }
            stats.discards_under_way = self.discards.len() as u64;
            drop(stats);
            self.reclaimer.discarded(bucket);
        }
    }
}

/// With what the allocator counts.
fn stats_now(
    stats: &Mutex<PipelineStats>,
    allocator: &Allocator,
    device: DeviceIndex,
) -> PipelineStats {
    let discard_skipped_total = allocator.stats().devices[device.as_usize()].discard_skipped_total;
    PipelineStats { discard_skipped_total, ..*lock(stats) }
}

/// A thread that is gone releases nothing, so nobody may wait for it.
struct FailOnPanic {
    allocator: Arc<Allocator>,
    device: DeviceIndex,
    name: Arc<str>,
}

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let cause = Error::Closed { device: self.name.clone() };
            self.allocator.fail(self.device, Arc::new(cause));
        }
    }
}
