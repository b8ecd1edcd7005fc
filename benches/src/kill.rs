//! Kills a cache in mid-run, again and again, and checks what it serves afterwards.
//!
//! ## Problem
//! Whatever a process was doing when it died, the cache it leaves behind must never serve
//! anything but what was written: not the value of another key, not a torn one, not one older
//! than what a completed flush had made durable, not one that was removed before such a flush.
//! To have lost the value is allowed: it is a cache.
//!
//! ## Protocol
//! 1. A *worker*, a process of its own, opens the cache and inserts, removes and gets at random
//!    on several threads, each with keys of its own. Before an operation starts, and after it
//!    was acknowledged, it writes a [record](log) into a pipe; likewise around each flush.
//! 2. The *parent* reads the pipe and keeps the [`History`] of every key. After a random number
//!    of acknowledgements it sends SIGKILL. The kernel keeps what was written to the pipe, so
//!    the history lacks nothing: every record precedes what it announces, or follows what it
//!    confirms.
//! 3. The parent opens the cache itself and gets every key. A value must be one of those
//!    allowed, byte for byte: any from the last one flushed to the last one started.
//! 4. What was seen becomes part of the history, and the next worker goes on with the same file.
//!
//! ## What this does not prove
//! The kernel survives, and with it everything that was handed to it. A power loss is another
//! matter.

mod cache_file;
pub mod history;
pub mod log;
pub mod worker;

pub use cache_file::CacheFile;
pub use history::{Checked, History};

use crate::backend::Store;
use crate::error::Error;
use log::Record;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::io::Read;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;
use worker::Load;

/// A worker that says nothing for this long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What is killed and opened again.
pub trait Subject {
    /// The cache.
    type Store: Store;

    /// The command that starts a worker, which must run [`worker::run`] with this load on the
    /// cache, and log to its standard output.
    fn worker(&self, load: &Load) -> Command;

    /// Opens the cache, in this process, after a worker was killed.
    ///
    /// # Errors
    /// Why it cannot be opened: that fails the test.
    fn open(&self) -> Result<Self::Store, Error>;

    /// Closes it, with everything in it durable.
    ///
    /// # Errors
    /// Why that failed: that fails the test.
    fn close(&self, store: Self::Store) -> Result<(), Error>;
}

/// How a kill test runs.
///
/// ```
/// use tierce_bench::kill::Settings;
/// let mut settings = Settings::default();
/// settings.rounds = 20;
/// assert!(settings.acknowledged.start() < settings.acknowledged.end());
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// How many times to kill.
    pub rounds: u32,
    /// After how many acknowledged inserts and removes to kill; drawn anew in each round.
    pub acknowledged: std::ops::RangeInclusive<u64>,
    /// What the worker does; its first version and seed are set for each round.
    pub load: Load,
}

impl Default for Settings {
    fn default() -> Self {
        Self { rounds: 5, acknowledged: 2_000..=20_000, load: Load::default() }
    }
}

/// What happened in one round.
///
/// ```
/// use tierce_bench::kill::Round;
/// let round = Round { number: 1, acknowledged: 2_345, flushes: 3, ..Round::default() };
/// assert!(round.to_string().starts_with("round 1: killed after 2345 acknowledged writes, 3 fl"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// From 1.
    pub number: u32,
    /// Inserts and removes that the worker saw acknowledged.
    pub acknowledged: u64,
    /// Flushes that it saw completed.
    pub flushes: u64,
    /// What the cache served afterwards; what the worker found wrong itself is included.
    pub checked: Checked,
}

impl std::fmt::Display for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { number, acknowledged, flushes, checked } = self;
        write!(
            f,
            "round {number}: killed after {acknowledged} acknowledged writes, {flushes} flushes; \
             {checked}"
        )
    }
}

/// Runs all rounds, and calls `on_round` after each. Returns what all of them found; the test
/// has passed if [`Checked::wrong`] is 0.
///
/// # Errors
/// [`Error::Worker`] if a worker ended by itself, hung, or had nothing acknowledged when it was
/// killed; what the subject returned.
pub fn run<S: Subject>(
    subject: &S,
    settings: &Settings,
    on_round: &mut dyn FnMut(&Round),
) -> Result<Checked, Error> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(settings.load.seed);
    let mut history = History::new(&settings.load);
    let mut total = Checked::default();
    for number in 1..=settings.rounds {
        let (least, most) = (*settings.acknowledged.start(), *settings.acknowledged.end());
        let target = least + random.next_u64() % (most.saturating_sub(least) + 1);
        let load = Load {
            seed: random.next_u64(),
            first_version: history.next_version(),
            ..settings.load.clone()
        };
        let mut round = Round { number, ..Round::default() };
        run_worker(subject.worker(&load), target, &mut history, &mut round)?;
        let store = subject.open()?;
        round.checked = round.checked.merged(history.check(&store)?);
        subject.close(store)?;
        on_round(&round);
        total = total.merged(round.checked);
    }
    Ok(total)
}

/// A process that does not outlive this value.
struct Worker {
    process: Child,
    records: Receiver<std::io::Result<Record>>,
}

impl Worker {
    fn start(mut command: Command, round: u32) -> Result<Self, Error> {
        let process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut process = process.map_err(|error| {
            let program = command.get_program().display();
            worker_error(round, format!("cannot start {program}: {error}"), "a worker")
        })?;
        let (sender, records) = channel();
        let pipe = process.stdout.take();
        std::thread::spawn(move || {
            for record in pipe.into_iter().flat_map(Records) {
                if sender.send(record).is_err() {
                    return;
                }
            }
        });
        Ok(Self { process, records })
    }

    /// The next record; `None` at the end of the log.
    fn next(&mut self, round: u32) -> Result<Option<Record>, Error> {
        match self.records.recv_timeout(SILENCE_MAX) {
            Ok(Ok(record)) => Ok(Some(record)),
            Ok(Err(error)) => Err(worker_error(round, error.to_string(), "a log of records")),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                let found = format!("a worker silent for {} s", SILENCE_MAX.as_secs());
                Err(worker_error(round, found, "one that works"))
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail only if it is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The records in a pipe.
struct Records(ChildStdout);

impl Iterator for Records {
    type Item = std::io::Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut bytes = [0; Record::BYTES];
        let mut first = [0; 1];
        match self.0.read(&mut first) {
            Ok(0) => return None,
            Ok(_) => bytes[0] = first[0],
            Err(error) => return Some(Err(error)),
        }
        Some(self.0.read_exact(&mut bytes[1..]).and_then(|()| Record::decode(&bytes)))
    }
}

fn worker_error(round: u32, found: impl Into<String>, wanted: &str) -> Error {
    Error::Worker { round, found: found.into(), wanted: wanted.to_owned() }
}

/// Lets a worker run until `target` writes were acknowledged, kills it, and takes everything it
/// logged into the history.
fn run_worker(
    command: Command,
    target: u64,
    history: &mut History,
    round: &mut Round,
) -> Result<(), Error> {
    let number = round.number;
    let mut worker = Worker::start(command, number)?;
    let mut killed = false;
    while let Some(record) = worker.next(number)? {
        history.take(record).map_err(|found| worker_error(number, found, "an orderly log"))?;
        match record {
            Record::Acknowledged { .. } => round.acknowledged += 1,
            Record::FlushEnded => round.flushes += 1,
            Record::Wrong { key, version } => {
                round.checked.count_wrong(|| {
                    format!("key {key}: the worker got something other than version {version}")
                });
            }
            Record::Started { .. } | Record::FlushStarted => {}
        }
        if round.acknowledged >= target && !killed {
            killed = true;
            let result = worker.process.kill();
            result
                .map_err(|error| worker_error(number, error.to_string(), "to kill the worker"))?;
        }
    }
    let status = worker.process.wait();
    let status = status.map_err(|e| worker_error(number, e.to_string(), "the worker's end"))?;
    if !killed {
        let found = format!("a worker that ended by itself ({status})");
        return Err(worker_error(number, found, "one that runs until it is killed"));
    }
    if round.acknowledged == 0 {
        return Err(worker_error(number, "no acknowledged write", "at least one"));
    }
    Ok(())
}
