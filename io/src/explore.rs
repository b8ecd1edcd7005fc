//! Exploring crashes: a random history on a simulated device, power cuts, and a look at what is
//! left, thousands of times.
//!
//! # What is checked
//!
//! 1. *The crash rule*: a durable pointer that is accepted after a power loss reads what its
//!    owner wrote, never what somebody else did, nor nothing.
//! 2. The table that is found is the last one that was acknowledged, or the one that was being
//!    published: whole, with its number; so the journal entry of an acknowledged table is there.
//! 3. A pointer is stale only if its bucket was invalidated; dirty data and metadata that the
//!    index held when the power went are not given up, nor is a node that was freed while prio
//!    writes were held back, until what is in its place is durable.
//! 4. The prio chain lies in the device, apart from the journal, itself and the index.
//! 5. The device can be used: a bucket can be allocated, and no allocation waits for ever.
//! 6. A device whose formatting was cut short is refused, or is a fresh one.
//! 7. A failed device is out of use, and says so.
//!
//! # How
//!
//! One run is one seed. It formats a [`Sim`], opens it, and does random operations: writes of
//! extents, whole buckets and index nodes, moves, deletes, commits of the index, collections,
//! frees, the short way of unused buckets, prio writes held back, and steps of the pipeline, which brings invalidations, prio writes and discards. The
//! power goes at a random operation of the device, and the next *life* begins with opening what
//! survived, which may be cut short as well. [`Kind`] lists what happened how often: a run of
//! many seeds in which something never happened has not explored it.
//!
//! The code under test is the production code, [`Work`](crate::Work) included. What *should* be
//! is known from `model.rs` alone: it stands for an owner of an index, whose pointers become
//! durable with one commit, after the data; it knows what was acknowledged and nothing about how
//! tables, journal or chains are written. Every sector that is written says whose it is, of which
//! version and by which write.
//!
//! A seed repeats its run exactly. With fewer operations it repeats the beginning, so a failing
//! run is made smaller by halving: [`Violation::minimised`].
//!
//! # The checker can see
//!
//! On a device that lies about flushes ([`Mode::LyingFlush`]) violations must be found.

mod ahead;
mod coverage;
mod life;
mod model;
mod open;

pub use coverage::{Coverage, Kind};

use crate::device::DiscardKind;
use crate::error::Error;
use crate::format::{FormatOptions, format_on};
use crate::sim::{CutAt, Sim, SimOptions};
use crate::volume::{Owner, Volume};
use model::Model;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tierce_core::draws::Draws;
use tierce_core::{Gen, Policy};
use tierce_lockfree::Config;

/// Operations of a run unless somebody says otherwise.
pub const OPERATIONS: u32 = 400;

/// What kind of device is explored.
///
/// ```
/// assert_eq!(tierce_io::explore::Mode::default().to_string(), "normal");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Mode {
    /// One that keeps its promises. A violation is a bug.
    #[default]
    Normal,
    /// One whose flushes make nothing durable. Violations must be found.
    LyingFlush,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "normal",
            Self::LyingFlush => "lying-flush",
        })
    }
}

/// A rule that was broken, and how to see it again.
///
/// See [`explore`] for an example.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "seed {seed}: {what}\n    again: tierce crash --seed {seed} --operations {operations} --mode {mode}"
)]
#[non_exhaustive]
pub struct Violation {
    /// The seed of the run.
    pub seed: u64,
    /// How many operations it had at most.
    pub operations: u32,
    /// On what kind of device.
    pub mode: Mode,
    /// What was found.
    pub what: String,
}

impl Violation {
    /// The same seed with fewer operations, found by halving: the last that still breaks a rule,
    /// maybe another one.
    #[must_use]
    pub fn minimised(self) -> Self {
        let (mut passes, mut fails) = (0, self);
        while passes + 1 < fails.operations {
            let middle = passes + (fails.operations - passes) / 2;
            match explore(fails.seed, middle, fails.mode) {
                Ok(_) => passes = middle,
                Err(violation) => fails = violation,
            }
        }
        fails
    }
}

/// One run of `operations` operations, all of it drawn from `seed`.
///
/// ```
/// use tierce_io::explore::{Kind, Mode, explore};
/// let coverage = explore(1, 100, Mode::Normal)?;
/// assert!(coverage.of(Kind::Write) > 0);
///
/// let seen = (0..50).find_map(|seed| explore(seed, 100, Mode::LyingFlush).err());
/// println!("{}", seen.expect("a device that lies is found out").minimised());
/// # Ok::<(), tierce_io::explore::Violation>(())
/// ```
///
/// # Errors
///
/// The rule that was broken. A panic of the code under test is one, too.
pub fn explore(seed: u64, operations: u32, mode: Mode) -> Result<Coverage, Violation> {
    let mut world = World::new(seed, operations, mode);
    let run = catch_unwind(AssertUnwindSafe(|| world.run()));
    let what = match run {
        Ok(Ok(()) | Err(Stop::Dead)) => return Ok(world.coverage),
        Ok(Err(Stop::Wrong(what))) => what,
        Err(panic) => format!("a panic: {}", panic_text(&*panic)),
    };
    Err(Violation { seed, operations, mode, what })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without words")
}

/// Why an operation did not go on.
#[derive(Debug)]
enum Stop {
    /// The power is off, or the device has failed as it was told to: the next life begins.
    Dead,
    /// A rule is broken.
    Wrong(String),
}

/// One run.
#[derive(Debug)]
struct World {
    draws: Draws,
    sim: Arc<Sim>,
    format: FormatOptions,
    config: Config,
    model: Model,
    coverage: Coverage,
    /// Operations that are left.
    left: u32,
    /// Whether faults were injected into this life's device.
    faulty: bool,
    /// Whether the life before ended with a power cut before it could do anything.
    cut_at_open: bool,
}

impl World {
    fn new(seed: u64, operations: u32, mode: Mode) -> Self {
        let mut draws = Draws::new(seed ^ 0x7469_6572_6365);
        let large_blocks = draws.below(4) == 0;
        let (bucket, block) = if large_blocks { (8192, 4096) } else { (4096, 512) };
        // The second needs a chain of two sets.
        let nbuckets = match draws.below(3) {
            0 if !large_blocks => 1360 + draws.below(200),
            _ => 520 + draws.below(200),
        };
        let discard = match draws.below(8) {
            0 => DiscardKind::None,
            _ => DiscardKind::Command,
        };
        let options = SimOptions::default()
            .seed(draws.below(u32::MAX).into())
            .bytes(u64::from(nbuckets) * u64::from(bucket))
            .logical_block(block)
            .discard(discard)
            .lying_flush(mode == Mode::LyingFlush);
        let sim = Sim::new(&options);
        let policy = match draws.below(4) {
            0 => Policy::Lru,
            1 => Policy::Fifo,
            _ => Policy::Random,
        };
        // At most one CPU: which cell a thread takes must not depend on the thread.
        let config = Config::default()
            .policy(policy)
            .cpus(draws.below(2))
            .discard(draws.below(4) > 0)
            .recycle_prio_chain(draws.below(2) == 0)
            .seed(draws.below(u32::MAX).into());
        Self {
            draws,
            sim,
            format: FormatOptions::default().bucket(bucket).block(block),
            config,
            model: Model::new(nbuckets as usize),
            coverage: Coverage::default(),
            left: operations,
            faulty: false,
            cut_at_open: false,
        }
    }

    /// Lives, each ended by a power loss, and a last look.
    fn run(&mut self) -> Result<(), Stop> {
        self.format()?;
        while self.left > 0 {
            match self.live() {
                Ok(()) | Err(Stop::Dead) => {}
                wrong => return wrong,
            }
            self.lose_power();
        }
        let mut life = self.open()?;
        life.prove_usable()
    }

    fn lose_power(&mut self) {
        self.sim = self.sim.power_loss();
        self.faulty = false;
        self.coverage.add(Kind::PowerLoss);
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.draws.below(n) == 0
    }

    /// Formats, sometimes not at the first attempt.
    fn format(&mut self) -> Result<(), Stop> {
        while self.one_in(4) {
            let after = self.draws.below(16).into();
            self.sim.cut_power(CutAt::Any, after);
            if self.format_now().is_ok() {
                break;
            }
            self.coverage.add(Kind::FormatCut);
            self.lose_power();
            if let Ok(volume) = Volume::open_on(self.sim.clone(), Owner::Allocator) {
                let fresh = volume.prio_seq() == 0
                    && volume.table().iter().all(|(_, generation)| generation == Gen::new(0));
                if !fresh {
                    return Err(Stop::Wrong("a half-formatted device has a history".into()));
                }
            }
            self.format.force = true;
        }
        self.sim.keep_power();
        self.format_now().map_err(|error| Stop::Wrong(format!("cannot be formatted: {error}")))
    }

    fn format_now(&mut self) -> Result<(), Error> {
        let formatted = format_on(&*self.sim, &self.format).map(drop);
        self.format.force = true;
        formatted
    }

    /// What an error means: the end of this life if it was made to happen.
    fn stop(&self, what: &str, error: &dyn fmt::Display) -> Stop {
        if self.faulty || self.sim.cut_hit().is_some() {
            Stop::Dead
        } else {
            Stop::Wrong(format!("{what}: {error}"))
        }
    }
}
