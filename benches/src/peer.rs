//! Caches that are measured from a process of their own.
//!
//! ## Problem
//! Other caches bring runtimes and builds of C that nobody who uses tierce should have to build.
//! So each is a program of its own, built by whoever wants the comparison, and driven through
//! its standard input and output. What runs in it is this crate's [`replay`]: both sides do the
//! same work and count it in the same way.
//!
//! ## Protocol
//! One JSON object per line.
//! ```text
//!   harness                              peer
//!   {"open": Place}            ─▶
//!                              ◀─        {"ready": "its name and settings, for the reader"}
//!   {"run": Job}               ─▶
//!                              ◀─        {"ran": Outcome}         again and again
//!   end of input               ─▶        it closes and ends
//!                              ◀─        {"failed": "why"}        instead of any answer
//! ```
//! Between answers a peer is stopped (SIGSTOP), so that what its threads do when they are idle
//! is not charged to whoever has his turn.

use crate::backend::Store;
use crate::error::Error;
use crate::replay::{self, Outcome};
use crate::workload::{ValueSizes, Zipf, ZipfSettings};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

/// Where a peer keeps its data, and how much.
///
/// ```
/// use tierce_bench::peer::Place;
/// let place = Place { directory: "peer".into(), bytes: 1 << 30, memory_bytes: 16 << 20,
///     engine: "psync".into() };
/// assert!(place.bytes > place.memory_bytes);
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a message of the protocol")]
pub struct Place {
    /// An empty directory of its own.
    pub directory: PathBuf,
    /// How much of the disk it may use.
    pub bytes: u64,
    /// How much memory for values.
    pub memory_bytes: u64,
    /// Which of its ways to do I/O, by its own name.
    pub engine: String,
}

/// A piece of the Zipf workload.
///
/// ```
/// use tierce_bench::{backend::Unbounded, peer::Job};
/// let job = Job { keys: 100, requests: 1000, round: 0, threads: 2 };
/// let outcome = job.run(&Unbounded::default())?;
/// assert_eq!((outcome.requests, outcome.wrong_data), (1000, 0));
/// # Ok::<(), tierce_bench::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(clippy::exhaustive_structs, reason = "a message of the protocol")]
pub struct Job {
    /// Different keys; values as web objects.
    pub keys: u64,
    /// Requests in all.
    pub requests: u64,
    /// The same round gives the same requests. Rounds on one cache go up, from 0 to 65 535.
    pub round: u64,
    /// Threads that run them.
    pub threads: usize,
}

impl Job {
    /// Runs it.
    ///
    /// # Errors
    ///
    /// Those of [`replay::run`].
    pub fn run<S: Store>(&self, store: &S) -> Result<Outcome, Error> {
        let workload = ZipfSettings {
            keys: self.keys,
            requests: self.requests,
            seed: self.round,
            sizes: ValueSizes::web(100 << 10)?,
            ..ZipfSettings::default()
        };
        let settings = replay::Settings {
            threads: self.threads,
            first_version: self.round << 32,
            ..replay::Settings::default()
        };
        replay::run(store, Zipf::new(&workload)?, &settings, &mut |_| {})
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Order {
    Open(Place),
    Run(Job),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Ready(String),
    Ran(Box<Outcome>),
    Failed(String),
}

/// The main function of a peer: opens what it is told to, and runs what it is given. `open`
/// returns the store, and its settings in words.
///
/// ```no_run
/// use tierce_bench::{backend::Unbounded, peer};
/// peer::serve(|_place| Ok((Unbounded::default(), "keeps everything in memory".to_owned())));
/// ```
pub fn serve<S: Store>(open: impl Fn(&Place) -> Result<(S, String), String>) -> ExitCode {
    let said = serve_on(std::io::stdin().lock(), std::io::stdout().lock(), open);
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve_on<S: Store>(
    orders: impl BufRead,
    mut answers: impl Write,
    open: impl Fn(&Place) -> Result<(S, String), String>,
) -> Result<(), String> {
    let mut store = None;
    for line in orders.lines() {
        let line = line.map_err(|error| error.to_string())?;
        let answer = match (serde_json::from_str(&line), &store) {
            (Ok(Order::Open(place)), None) => match open(&place) {
                Ok((opened, settings)) => {
                    store = Some(opened);
                    Answer::Ready(settings)
                }
                Err(why) => Answer::Failed(why),
            },
            (Ok(Order::Run(job)), Some(store)) => match job.run(store) {
                Ok(outcome) => Answer::Ran(Box::new(outcome)),
                Err(error) => Answer::Failed(error.to_string()),
            },
            (Ok(Order::Open(_)), Some(_)) => Answer::Failed("it is open already".to_owned()),
            (Ok(Order::Run(_)), None) => Answer::Failed("it is not open yet".to_owned()),
            (Err(error), _) => Answer::Failed(format!("found {line:?}: {error}")),
        };
        let text = serde_json::to_string(&answer).map_err(|error| error.to_string())?;
        writeln!(answers, "{text}").map_err(|error| error.to_string())?;
        answers.flush().map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A running peer. Dropping it ends the process.
///
/// ```
/// use tierce_bench::peer::{Peer, Place};
/// let place = Place { directory: "/tmp".into(), bytes: 0, memory_bytes: 0, engine: "".into() };
/// let error = Peer::start("no/such/peer".as_ref(), &place).unwrap_err();
/// assert!(error.to_string().starts_with("peer no/such/peer: "));
/// ```
#[derive(Debug)]
pub struct Peer {
    program: PathBuf,
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    settings: String,
}

impl Peer {
    /// Starts the program and opens it there.
    ///
    /// # Errors
    ///
    /// [`Error::Peer`] if it cannot be started or does not answer as it should.
    pub fn start(program: &Path, place: &Place) -> Result<Self, Error> {
        let failed = |found: String| Error::Peer { program: program.to_owned(), found };
        let mut command = Command::new(program);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("it was asked for"));
        let settings = String::new();
        let mut peer = Self { program: program.to_owned(), child, orders, answers, settings };
        match peer.ask(&Order::Open(place.clone()))? {
            Answer::Ready(settings) => peer.settings = settings,
            other => return Err(peer.failed(format!("{other:?}"))),
        }
        peer.signal(Signal::STOP);
        Ok(peer)
    }

    /// Its name and settings, for the reader.
    #[must_use]
    pub fn settings(&self) -> &str {
        &self.settings
    }

    /// Lets it run this.
    ///
    /// # Errors
    ///
    /// [`Error::Peer`] with what it says instead.
    pub fn run(&mut self, job: &Job) -> Result<Outcome, Error> {
        self.signal(Signal::CONT);
        let answer = self.ask(&Order::Run(*job))?;
        self.signal(Signal::STOP);
        match answer {
            Answer::Ran(outcome) => Ok(*outcome),
            other => Err(self.failed(format!("{other:?}"))),
        }
    }

    fn ask(&mut self, order: &Order) -> Result<Answer, Error> {
        let text = serde_json::to_string(order).map_err(|error| self.failed(error.to_string()))?;
        let orders = self.orders.as_mut().expect("it is open until the peer is dropped");
        let sent = writeln!(orders, "{text}").and_then(|()| orders.flush());
        sent.map_err(|error| self.failed(error.to_string()))?;
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        read.map_err(|error| self.failed(error.to_string()))?;
        match serde_json::from_str(&line) {
            Ok(Answer::Failed(why)) => Err(self.failed(why)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(self.failed(format!("{line:?} ({error})"))),
        }
    }

    fn failed(&self, found: String) -> Error {
        Error::Peer { program: self.program.clone(), found }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        // A peer that is gone says so when it is asked.
        let _ = kill_process(pid, signal);
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // What it keeps is thrown away with its directory: nothing has to be closed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Unbounded;

    fn told(orders: &str) -> Vec<Answer> {
        let mut answers = Vec::new();
        let open = |place: &Place| match place.engine.as_str() {
            "good" => Ok((Unbounded::default(), "in memory".to_owned())),
            other => Err(format!("no engine {other}")),
        };
        serve_on(orders.as_bytes(), &mut answers, open).expect("writing to memory");
        let text = String::from_utf8(answers).expect("JSON");
        text.lines().map(|line| serde_json::from_str(line).expect("an answer")).collect()
    }

    fn order(order: &Order) -> String {
        serde_json::to_string(order).expect("JSON") + "\n"
    }

    fn open(engine: &str) -> String {
        let directory = PathBuf::from("/nowhere");
        let engine = engine.to_owned();
        order(&Order::Open(Place { directory, bytes: 1, memory_bytes: 1, engine }))
    }

    #[test]
    fn it_opens_runs_and_answers() {
        let job = Job { keys: 50, requests: 500, round: 7, threads: 1 };
        let answers = told(&(open("good") + &order(&Order::Run(job)) + &order(&Order::Run(job))));
        assert!(matches!(&answers[0], Answer::Ready(settings) if settings == "in memory"));
        let [_, Answer::Ran(first), Answer::Ran(second)] = &answers[..] else {
            panic!("{answers:?}");
        };
        assert_eq!((first.requests, second.requests), (500, 500));
        // The second time every key that was read is there.
        assert!(second.hit_ratio > first.hit_ratio);
    }

    /// What an earlier round wrote is a hit, not wrong data.
    #[test]
    fn rounds_follow_each_other_on_one_store() {
        let store = Unbounded::default();
        for round in [0, 1, 2] {
            let job = Job { keys: 300, requests: 600, round, threads: 2 };
            let outcome = job.run(&store).expect("it runs");
            assert_eq!((outcome.wrong_data, outcome.first_wrong), (0, None));
        }
    }

    #[test]
    fn it_says_what_it_cannot_do() {
        let job = Job { keys: 50, requests: 5, round: 7, threads: 0 };
        let run = order(&Order::Run(job));
        let orders =
            run.clone() + "nonsense\n" + &open("bad") + &open("good") + &open("good") + &run;
        let why: Vec<_> = told(&orders)
            .into_iter()
            .map(|answer| match answer {
                Answer::Failed(why) => why,
                other => format!("{other:?}"),
            })
            .collect();
        let wanted = ["not open yet", "nonsense", "no engine bad", "Ready", "already", "threads"];
        assert_eq!(why.len(), wanted.len());
        for (why, wanted) in why.iter().zip(wanted) {
            assert!(why.contains(wanted), "{why}: {wanted}");
        }
    }
}
