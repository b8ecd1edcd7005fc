//! What can be set.

use crate::error::Error;
use crate::gens::Gens;
use crate::hint::CpuHint;
use tierce_core::{Geometry, Policy, Sizes};

/// How an [`Allocator`](crate::Allocator) behaves.
///
/// ```
/// use tierce_core::Policy;
/// use tierce_lockfree::Config;
/// let config = Config::default().policy(Policy::Fifo).open_buckets(16);
/// config.validate()?;
/// # Ok::<(), tierce_lockfree::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Which bucket is reused next.
    pub policy: Policy,
    /// The lru policy takes, of so many buckets at random, at most 1024, the one that is least
    /// likely to be used again soon, as far as that is known: it is learned from when buckets are
    /// used after how much time, and until then the least recently used one goes. Some buckets, one
    /// of eight or 1024 of a large device, are taken at random for that, and their uses counted. 0:
    /// the least recently used of all.
    pub lru_sample: u32,
    /// For how many CPUs there are cells, counters and hints; 0: one of each, and no cells.
    pub cpus: u32,
    /// Threads change the cells of their own CPU, and open buckets that one CPU writes to, by
    /// restartable sequences, without locked instructions, where that is possible: x86-64 Linux from
    /// 5.10 on, glibc from 2.35 on, [`cpus`](Self::cpus) more than 0, and for the cells at least as
    /// many as the machine could have. Elsewhere, and without it, by atomic exchanges; what they find
    /// is the same. A process that will forbid itself the system call `membarrier` must switch it
    /// off.
    pub restartable: bool,
    /// How many buckets may be open for writing at once, 1 to 4096.
    pub open_buckets: u32,
    /// Garbage collection keeps its findings in shadows and publishes them at its end, and
    /// invalidation goes on meanwhile. Without it the marks are cleared in place, and nothing is
    /// invalidated until the collection has finished: it needs no memory of its own, but the
    /// free lists are not refilled for as long as it takes, see [`crate::gc`].
    pub invalidate_during_gc: bool,
    /// The old prio chain refills the prio reserve directly.
    pub recycle_prio_chain: bool,
    /// A batch that is not full is written when somebody found nothing free.
    pub batch_on_demand: bool,
    /// Whoever finds the free lists low takes to them what is durable and had no room there,
    /// without waiting for the reclaimer. Not with [`discard`](Self::discard).
    pub refill_on_demand: bool,
    /// Each bucket is discarded before it becomes free again.
    pub discard: bool,
    /// Gens are made durable before buckets are reused. Without it the cache starts empty
    /// every time.
    pub sync: bool,
    /// GC is due when some bucket's gen is this far ahead of its oldest pointer, 1 to 95.
    pub gc_gen_trigger: u8,
    /// GC is due when 1/n of the set's sectors were opened for writing since the last.
    pub gc_written_share: u32,
    /// Where the random policy's draws begin: the same seed, the same draws.
    pub seed: u64,
    /// Threads that look for the least recently used buckets of a large device, 1 to 256, with
    /// the reclaimer's own; the others are started by the first pass that is worth it and serve
    /// all devices of the set. They find the same as one. If they cannot be started, the
    /// reclaimer works alone.
    pub pass_threads: u32,
    /// What the others are called, followed by a number.
    pub pass_thread_name: String,
    /// Passes use vector instructions where the processor has them, and find the same without.
    pub pass_vectors: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            policy: Policy::Lru,
            lru_sample: 0,
            cpus: u32::try_from(crate::sync::cpus()).unwrap_or(1),
            restartable: true,
            open_buckets: 128,
            invalidate_during_gc: true,
            recycle_prio_chain: true,
            batch_on_demand: true,
            refill_on_demand: true,
            discard: false,
            sync: true,
            gc_gen_trigger: 64,
            gc_written_share: 16,
            seed: 0,
            // At most half of the CPUs: the others work for those who allocate.
            pass_threads: u32::try_from(crate::sync::cpus() / 2).unwrap_or(1).clamp(1, 4),
            pass_thread_name: "tierce-pass".to_owned(),
            pass_vectors: true,
        }
    }
}

tierce_core::setters!(Config {
    policy: Policy,
    lru_sample: u32,
    cpus: u32,
    restartable: bool,
    open_buckets: u32,
    invalidate_during_gc: bool,
    recycle_prio_chain: bool,
    batch_on_demand: bool,
    refill_on_demand: bool,
    discard: bool,
    sync: bool,
    gc_gen_trigger: u8,
    gc_written_share: u32,
    seed: u64,
    pass_threads: u32,
    pass_thread_name: String,
    pass_vectors: bool,
});

impl Config {
    /// By what threads find their copy of per-CPU data: chosen once per process, not a setting.
    #[must_use]
    pub fn cpu_hint(&self) -> CpuHint {
        CpuHint::chosen()
    }

    /// Checks every value.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] names the one that is out of range.
    pub fn validate(&self) -> Result<(), Error> {
        let limit = |what, found: u32, max: u32| {
            let wanted = format!("1 to {max}");
            Error::Config(tierce_core::Error::Limit { what, found: found.into(), wanted })
        };
        if !(1..=4096).contains(&self.open_buckets) {
            return Err(limit("open_buckets", self.open_buckets, 4096));
        }
        if !(1..=95).contains(&self.gc_gen_trigger) {
            return Err(limit("gc_gen_trigger", self.gc_gen_trigger.into(), 95));
        }
        if self.lru_sample > 1024 {
            let (what, found) = ("lru_sample", self.lru_sample.into());
            let wanted = "0 to 1024".to_owned();
            return Err(Error::Config(tierce_core::Error::Limit { what, found, wanted }));
        }
        if self.gc_written_share == 0 {
            return Err(limit("gc_written_share", 0, u32::MAX));
        }
        if !(1..=256).contains(&self.pass_threads) {
            return Err(limit("pass_threads", self.pass_threads, 256));
        }
        if self.cpus > 4096 {
            return Err(limit("cpus", self.cpus, 4096));
        }
        Ok(())
    }
}

/// One device of a set as it was when it was opened.
///
/// ```
/// use tierce_core::Geometry;
/// use tierce_lockfree::DeviceTable;
/// let table = DeviceTable::empty(Geometry::new(1024, 1, 128, 1)?);
/// assert_eq!(table.gens.nbuckets(), 1024);
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeviceTable {
    /// Its shape.
    pub geometry: Geometry,
    /// The sizes of its free lists.
    pub sizes: Sizes,
    /// Prio and gen of every bucket, from bucket 0 on.
    pub gens: Gens,
    /// How many buckets from `first_bucket` on are the journal.
    pub journal_buckets: u32,
    /// The buckets of the newest prio chain, head first.
    pub chain: Vec<tierce_core::BucketIndex>,
    /// The seq of the newest prio write.
    pub prio_seq: u64,
}

impl DeviceTable {
    /// A device on which nothing was ever written.
    #[must_use]
    pub fn empty(geometry: Geometry) -> Self {
        Self::of(geometry, Gens::zeroed(geometry.nbuckets()))
    }

    /// A device with the prio and gen of every bucket, from bucket 0 on.
    #[must_use]
    pub fn of(geometry: Geometry, gens: impl Into<Gens>) -> Self {
        Self {
            geometry,
            sizes: Sizes::tierce(&geometry, 0),
            gens: gens.into(),
            journal_buckets: 0,
            chain: Vec::new(),
            prio_seq: 0,
        }
    }

    /// With `buckets` journal buckets behind `first_bucket`, and reserves sized for them.
    #[must_use]
    pub fn with_journal(mut self, buckets: u32) -> Self {
        self.journal_buckets = buckets;
        self.sizes = Sizes::tierce(&self.geometry, buckets);
        self
    }

    /// With the gens and prios, the chain and the seq of the newest prio write.
    #[must_use]
    pub fn with_prios(
        mut self,
        gens: impl Into<Gens>,
        chain: Vec<tierce_core::BucketIndex>,
        seq: u64,
    ) -> Self {
        (self.gens, self.chain, self.prio_seq) = (gens.into(), chain, seq);
        self
    }

    /// With these sizes of the free lists.
    #[must_use]
    pub fn with_sizes(mut self, sizes: Sizes) -> Self {
        self.sizes = sizes;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        let refuse = |what, found: u64, wanted: String| {
            Err(Error::Config(tierce_core::Error::Limit { what, found, wanted }))
        };
        let nbuckets = self.geometry.nbuckets();
        if self.gens.nbuckets() != nbuckets {
            let wanted = format!("nbuckets, {nbuckets}");
            return refuse("the number of gens", self.gens.nbuckets().into(), wanted);
        }
        let usable = self.geometry.buckets().len() as u64;
        if u64::from(self.journal_buckets) > usable {
            let wanted = format!("at most {usable}");
            return refuse("journal_buckets", self.journal_buckets.into(), wanted);
        }
        match self.chain.iter().find(|&&bucket| !self.geometry.contains(bucket)) {
            None => Ok(()),
            Some(bucket) => {
                let wanted = format!("{} to {}", self.geometry.first_bucket(), nbuckets - 1);
                refuse("a bucket of the prio chain", bucket.get().into(), wanted)
            }
        }
    }
}
