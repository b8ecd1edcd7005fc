//! Running a script line by line.

use super::super::{DeviceOptions, Options};
use super::engine::Engine;
use super::parse::{Line, Names};
use crate::bucket::DeviceIndex;
use crate::error::Error;
use crate::geometry::{Geometry, MAX_BUCKETS, MAX_DEVICES, MIN_BUCKETS};
use crate::reserve::Sizes;
use std::collections::BTreeMap;

/// How much a script may ask for. Beyond it a line is an error.
///
/// ```
/// use tierce_core::spec::{Set, sim};
/// let e = sim::run::<Set>("new nbuckets=1024 bucket_sectors=64", sim::Limits::SMALL);
/// assert!(e.unwrap_err().to_string().contains("wanted at most 512"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Buckets of all devices of a set.
    pub buckets: u64,
    /// Slots for open buckets.
    pub slots: u16,
}

impl Default for Limits {
    /// What a device can have, 32 Mi buckets: about a third of a gigabyte of memory.
    fn default() -> Self {
        Self { buckets: u64::from(MAX_BUCKETS), slots: super::super::MAX_OPEN_BUCKETS }
    }
}

impl Limits {
    /// For scripts that nobody wrote: any line is done in milliseconds.
    pub const SMALL: Self = Self { buckets: 512, slots: 256 };
}

/// Runs a script and returns what it prints.
///
/// # Errors
///
/// [`Error::Script`] naming the first line that cannot be understood or carried out, what stands
/// there and what was expected. [`Runner`] gives the output up to there.
///
/// ```
/// use tierce_core::spec::{Set, sim};
/// assert_eq!(sim::run::<Set>("echo a  b # c", sim::Limits::default())?, "echo a b\n");
/// # Ok::<(), tierce_core::Error>(())
/// ```
pub fn run<E: Engine>(script: &str, limits: Limits) -> Result<String, Error> {
    let mut runner = Runner::<E>::new(limits);
    let mut out = String::new();
    for line in script.lines() {
        runner.line(line, &mut out)?;
    }
    Ok(out)
}

/// A script that is being run.
///
/// ```
/// use tierce_core::spec::{Set, sim};
/// let mut runner = sim::Runner::<Set>::new(sim::Limits::default());
/// let mut out = String::new();
/// runner.line("echo a", &mut out)?;
/// assert!(runner.line("step", &mut out).is_err(), "`new` comes first");
/// assert_eq!(out, "echo a\n");
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Runner<E> {
    limits: Limits,
    lines: usize,
    pub(super) state: Option<State<E>>,
}

/// The set a script works on.
#[derive(Debug)]
pub(super) struct State<E> {
    pub(super) engine: E,
    pub(super) names: Names,
    pub(super) geometry: Geometry,
    /// Which inodes' data lives only on flash.
    pub(super) flash_only: BTreeMap<u64, bool>,
    check: bool,
}

impl<E: Engine> Runner<E> {
    /// Before the first line.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, lines: 0, state: None }
    }

    /// Carries out one line and appends what it prints to `out`; a line that fails prints
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Script`] as for [`run`].
    pub fn line(&mut self, text: &str, out: &mut String) -> Result<(), Error> {
        self.lines += 1;
        let Some(line) = Line::parse(self.lines, text) else { return Ok(()) };
        match line.op {
            "echo" => {
                let rest = text.split('#').next().unwrap_or("").split_whitespace();
                out.push_str(&rest.collect::<Vec<_>>().join(" "));
                out.push('\n');
            }
            "new" => {
                let (state, text) = self.create(&line).map_err(|e| line.wrap(e))?;
                self.state = Some(state);
                out.push_str(&text);
            }
            _ => {
                let Some(state) = &mut self.state else {
                    return Err(line.error("", "no set", "`new` before it"));
                };
                let result = state.run(&line).map_err(|e| line.wrap(e))?;
                if state.check {
                    state.engine.check().map_err(|e| line.wrap(e))?;
                }
                out.push_str(&result);
            }
        }
        Ok(())
    }

    fn create(&self, line: &Line<'_>) -> Result<(State<E>, String), Error> {
        line.only(&[
            "nbuckets",
            "first_bucket",
            "bucket_sectors",
            "block_sectors",
            "policy",
            "sync",
            "discard",
            "ndev",
            "r_btree",
            "r_prio",
            "r_movinggc",
            "r_none",
            "r_inc",
            "heap",
            "seed",
            "check",
            "gc",
            "recycle",
            "slots",
            "njournal",
        ])?;
        let ndev = line.small("ndev", 1..=u32::from(MAX_DEVICES))?.unwrap_or(1);
        let device = self.device(line, u64::from(ndev))?;
        let (geometry, sizes) = (device.geometry, device.sizes);
        let nbuckets = geometry.nbuckets();
        let devices = (0..u64::from(ndev)).map(|d| {
            let mut device = device.clone();
            device.seed = device.seed.wrapping_add(d);
            device
        });
        let engine = E::create(self.options(line)?, devices.collect())?;
        let text = format!(
            "new nbuckets={} ndev={ndev} prio_buckets={} r_btree={} r_prio={} r_movinggc={} \
             r_none={} r_inc={} heap={}\n",
            u64::from(nbuckets) * u64::from(ndev),
            geometry.prio_buckets(),
            sizes.btree,
            sizes.prio,
            sizes.moving_gc,
            sizes.none,
            sizes.free_inc,
            sizes.candidates,
        );
        let state = State {
            engine,
            names: Names { nbuckets: vec![nbuckets; ndev as usize] },
            geometry,
            flash_only: BTreeMap::new(),
            check: line.flag("check")?.unwrap_or(true),
        };
        Ok((state, text))
    }

    fn options(&self, line: &Line<'_>) -> Result<Options, Error> {
        let mut options = Options::bcache();
        options.invalidate_during_gc = match line.text("gc").unwrap_or("in_place") {
            "in_place" => false,
            "shadow" => true,
            other => return Err(line.error("gc", other, "in_place or shadow")),
        };
        options.recycle_prio_chain = line.flag("recycle")?.unwrap_or(false);
        let slots = line.small("slots", 1..=u32::from(self.limits.slots))?;
        options.open_buckets = slots.map_or(options.open_buckets, |n| n as u16);
        Ok(options)
    }

    fn device(&self, line: &Line<'_>, ndev: u64) -> Result<DeviceOptions, Error> {
        let range = u64::from(MIN_BUCKETS)..=u64::from(MAX_BUCKETS);
        let nbuckets = line.required("nbuckets", range)?;
        if nbuckets * ndev > self.limits.buckets {
            let wanted = format!("at most {} in all", self.limits.buckets);
            return Err(line.error("nbuckets", nbuckets * ndev, wanted));
        }
        let geometry = Geometry::new(
            nbuckets as u32,
            line.small("first_bucket", 0..=u32::MAX)?.unwrap_or(1),
            line.required("bucket_sectors", 0..=u64::from(u32::MAX))? as u32,
            line.small("block_sectors", 0..=u32::MAX)?.unwrap_or(8),
        )?;
        let mut device = DeviceOptions::new(geometry, sizes(line, &geometry)?);
        if let Some(policy) = line.text("policy") {
            device.policy =
                policy.parse().map_err(|_| line.error("policy", policy, "lru, fifo or random"))?;
        }
        device.sync = line.flag("sync")?.unwrap_or(true);
        device.discard = line.flag("discard")?.unwrap_or(false);
        device.journal_buckets = line.small("njournal", 0..=u32::MAX)?.unwrap_or(0);
        device.seed = line.number("seed", 0..=u64::MAX)?.unwrap_or(0);
        Ok(device)
    }
}

/// The sizes that a line gives, the rest as the original derives them.
fn sizes(line: &Line<'_>, geometry: &Geometry) -> Result<Sizes, Error> {
    let mut sizes = Sizes::bcache(geometry, 0);
    let given = |key| line.small(key, 0..=u32::MAX);
    sizes.btree = given("r_btree")?.unwrap_or(sizes.btree);
    sizes.prio = given("r_prio")?.unwrap_or(sizes.prio);
    sizes.moving_gc = given("r_movinggc")?.unwrap_or(sizes.moving_gc);
    sizes.none = given("r_none")?.unwrap_or(sizes.none);
    if let Some(inc) = given("r_inc")? {
        sizes.free_inc = inc;
        sizes.candidates = inc.saturating_mul(2);
    }
    sizes.candidates = given("heap")?.unwrap_or(sizes.candidates);
    Ok(sizes)
}

impl<E> State<E> {
    pub(super) fn devices(&self) -> Vec<DeviceIndex> {
        (0..self.names.nbuckets.len() as u8).map(DeviceIndex::new).collect()
    }
}
