//! The allocator as an engine of `tierce_core`'s language of operations.
//!
//! [`Scripted`] answers the operations that the executable specification answers, so that both
//! can run the same script, or the same random sequence, and be compared line by line. What
//! answers is the allocator itself: its lists, its words, its reclaimer's steps, its sectors. The
//! only additions are what a script needs and a program does not:
//!
//! * a *disk* that makes each prio write durable at once and remembers it for `crash`;
//! * pins and buckets that are held by number instead of by guard;
//! * direct stores, for setting up a state.
//!
//! It runs with one counter cell and without per-CPU cells ([`Config::cpus`] 0), so that every
//! figure is exact, and without batches on demand, so that nothing happens outside `step`.
//!
//! # Where it differs from the specification
//!
//! * `available` is clamped to 0..=nbuckets per device, not per set.
//! * One policy, `sync` and `discard` for the set; the devices' seeds follow each other.
//! * A bucket with a foreign pin is set aside when it is about to be handed out; the
//!   specification looks at the fronts of the lists when it ranks devices already, and at whole
//!   lists before a prio write.
//! * No prio between fresh and metadata can be stored (`tierce_core::age`).
//! * During start-up nothing but `observe` and `start` can be done.

mod engine;
mod places;

use crate::config::{Config, DeviceTable};
use crate::gc::{self, Suspended};
use crate::prio_write::PrioWrite;
use crate::reclaimer::Reclaimer;
use crate::start::{Startup, first_fill};
use crate::sync::Arc;
use crate::{Allocator, Error};
use std::collections::BTreeMap;
use tierce_core::spec::{DeviceOptions, Event, Options, Started, Table};
use tierce_core::{BucketId, BucketIndex, DeviceIndex, Gen, Mark, Reserve, Snapshot};

/// A whole set in the hands of a script: the allocator, its reclaimers, and a disk.
///
/// ```
/// use tierce_core::spec::{Set, sim};
/// use tierce_lockfree::sim::Scripted;
/// let script = "
///     new nbuckets=64 bucket_sectors=64 r_btree=1 r_movinggc=1 r_none=2 r_inc=4
///     start
///     step
///     alloc n=1
/// ";
/// let limits = sim::Limits::default();
/// assert_eq!(sim::run::<Scripted>(script, limits)?, sim::run::<Set>(script, limits)?);
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Scripted {
    options: Options,
    devices: Vec<DeviceOptions>,
    state: State,
    disks: Vec<Disk>,
    events: Vec<Event>,
}

/// Before and after `start`.
#[derive(Debug)]
enum State {
    Starting(Box<Startup>),
    Running(Running),
    /// Between the two.
    Gone,
}

#[derive(Debug)]
struct Running {
    allocator: Arc<Allocator>,
    reclaimers: Vec<Reclaimer>,
    gc: Option<Suspended>,
    /// The list that each bucket came from when it was last handed out.
    homes: BTreeMap<BucketId, Reserve>,
}

/// What a power loss leaves.
#[derive(Clone, Debug)]
struct Disk {
    gens: Vec<Gen>,
    chain: Vec<BucketIndex>,
    seq: u64,
}

/// Errors of a script are those of `tierce_core`.
type Result<T> = core::result::Result<T, tierce_core::Error>;

/// The state does not allow it.
fn refused(
    what: impl Into<String>,
    found: impl core::fmt::Display,
    wanted: &'static str,
) -> tierce_core::Error {
    tierce_core::Error::State { what: what.into(), found: found.to_string(), wanted }
}

/// What the allocator said, for a script.
fn told(what: &'static str) -> impl Fn(Error) -> tierce_core::Error {
    move |error| match error {
        Error::Config(error) => error,
        other => refused(what, other, "settings that the allocator has"),
    }
}

impl Scripted {
    /// On devices of which these tables are known; it waits for pointers to be observed.
    fn open(options: Options, devices: Vec<DeviceOptions>, tables: Vec<Table>) -> Result<Self> {
        let config = config(&options, &devices)?;
        let disks = tables.iter().map(|table| Disk {
            gens: table.records.iter().map(|&(_, gen_)| gen_).collect(),
            chain: table.chain.clone(),
            seq: table.seq,
        });
        let disks = disks.collect();
        let tables = devices.iter().zip(tables).map(|(device, table)| {
            DeviceTable::empty(device.geometry)
                .with_journal(device.journal_buckets)
                .with_sizes(device.sizes)
                .with_prios(table.records, table.chain, table.seq)
        });
        let startup = Startup::with_any_sizes(config, tables.collect()).map_err(told("new"))?;
        let state = State::Starting(Box::new(startup));
        Ok(Self { options, devices, state, disks, events: Vec::new() })
    }

    /// On empty devices: nothing is marked, nothing is on a list, nothing was counted.
    fn fresh(options: Options, devices: Vec<DeviceOptions>) -> Result<Self> {
        let nothing = |device: &DeviceOptions| {
            Table::new(vec![Default::default(); device.geometry.nbuckets() as usize])
        };
        let tables = devices.iter().map(nothing).collect();
        let mut this = Self::open(options, devices, tables)?;
        if let State::Starting(startup) = core::mem::replace(&mut this.state, State::Gone) {
            let (allocator, reclaimers) = startup.run();
            for device in allocator.devices() {
                let unmarked = |bucket| device.table().store(bucket, Snapshot::default());
                device.geometry().buckets().for_each(unmarked);
            }
            this.run(allocator, reclaimers);
        }
        Ok(this)
    }

    fn run(&mut self, allocator: Arc<Allocator>, mut reclaimers: Vec<Reclaimer>) {
        reclaimers.iter_mut().for_each(Reclaimer::record_events);
        let homes = BTreeMap::new();
        self.state = State::Running(Running { allocator, reclaimers, gc: None, homes });
    }

    fn running(&self) -> Option<&Running> {
        match &self.state {
            State::Running(running) => Some(running),
            State::Starting(_) | State::Gone => None,
        }
    }

    fn running_mut(&mut self, what: &str) -> Result<&mut Running> {
        match &mut self.state {
            State::Running(running) => Ok(running),
            State::Starting(_) | State::Gone => {
                Err(refused(what, "a start-up under way", "`start` first"))
            }
        }
    }

    fn allocator(&self) -> &Allocator {
        match &self.state {
            State::Running(running) => &running.allocator,
            State::Starting(startup) => startup.allocator(),
            State::Gone => unreachable!("only while it is being replaced"),
        }
    }

    /// Counters and gauges of the allocator.
    #[must_use]
    pub fn stats(&self) -> crate::Stats {
        self.allocator().stats()
    }

    fn device(&self, device: DeviceIndex) -> &crate::device::Device {
        &self.allocator().devices()[device.as_usize()]
    }

    fn begin(&mut self) -> Result<Started> {
        if let State::Starting(_) = &self.state {
            let State::Starting(startup) = core::mem::replace(&mut self.state, State::Gone) else {
                unreachable!("it was one just now")
            };
            let (allocator, reclaimers) = startup.publish();
            self.run(allocator, reclaimers);
        } else if self.running().is_some_and(|running| running.gc.is_some()) {
            tierce_core::spec::sim::Engine::gc_finish(self)?;
        } else if !self.allocator().gc_state().marks_valid() {
            return Err(refused("start", "marks invalid", "marks of a complete walk"));
        } else {
            let allocator = self.allocator();
            let need_gc = allocator.devices().iter().map(gc::recount).max();
            allocator.gc_state().set_need_gc(need_gc.unwrap_or(0));
            allocator.counters().gc_runs.add(1);
        }
        let mut started = Started::default();
        let mut events = Vec::new();
        for device in self.allocator().devices() {
            for (bucket, reserve) in first_fill(self.allocator(), device) {
                let bucket = BucketId::new(device.index(), bucket);
                let word = self.allocator().snapshot(bucket).unwrap_or_default();
                if word.mark() != Mark::None {
                    started.reused.push(bucket);
                }
                events.push(Event::Released { bucket, reserve });
            }
        }
        self.events.append(&mut events);
        Ok(started)
    }

    /// Carries a prio write out: on this disk everything is durable at once.
    fn write(&mut self, device: DeviceIndex, mut write: PrioWrite) -> u64 {
        let at = device.as_usize();
        self.drain_events(device);
        let (chain, seq) = (write.chain().to_vec(), write.seq());
        let mut sets = vec![Vec::new(); chain.len()];
        loop {
            for (index, &bucket) in chain.iter().enumerate().rev() {
                sets[index].clear();
                write.encode(index, |_, gen_| sets[index].push(gen_));
                let bucket = BucketId::new(device, bucket);
                self.events.push(Event::PrioImage { index: index as u32, bucket });
            }
            if write.confirm() || !write.wait_unblocked() {
                break;
            }
        }
        self.disks[at] = Disk { gens: sets.concat(), chain, seq };
        let running = self.running_mut("prio write").expect("the reclaimer asked for it");
        running.reclaimers[at].prio_durable(write);
        self.drain_events(device);
        seq
    }

    fn drain_events(&mut self, device: DeviceIndex) {
        if let State::Running(running) = &mut self.state {
            self.events.append(&mut running.reclaimers[device.as_usize()].take_events());
        }
    }
}

/// The settings of a set of such devices.
fn config(options: &Options, devices: &[DeviceOptions]) -> Result<Config> {
    let Some(first) = devices.first() else {
        return Err(refused("new", "0 devices", "1 to 8 devices"));
    };
    for (at, device) in (0..).zip(devices) {
        device.validate()?;
        let of = |d: &DeviceOptions| (d.policy, d.sync, d.discard);
        if of(device) != of(first) || device.seed != first.seed.wrapping_add(at) {
            let wanted = "the same policy, sync and discard on each, seeds that follow each other";
            return Err(refused("new", "devices that differ", wanted));
        }
    }
    Ok(Config::default()
        .policy(first.policy)
        .cpus(0)
        .open_buckets(options.open_buckets.into())
        .invalidate_during_gc(options.invalidate_during_gc)
        .recycle_prio_chain(options.recycle_prio_chain)
        .batch_on_demand(false)
        .refill_on_demand(false)
        .discard(first.discard)
        .sync(first.sync)
        .gc_gen_trigger(options.gc_due_gen)
        .seed(first.seed))
}
