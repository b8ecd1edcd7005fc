//! Gathers what a device holds, as far as damage allows.

use super::device::Device;
use anyhow::Context;
use std::path::{Path, PathBuf};
use tierce_core::record::{
    ChainSet, Journal, Pointer, PrioChain, Superblock, UuidEntry, WalkCounts, startup, superblock,
};
use tierce_core::spec::{Event, Set};
use tierce_core::stats::PriorityStats;
use tierce_core::{BucketIndex, DeviceIndex, Gen, Geometry, Mark, Policy, Prio, Reserve, Snapshot};

/// The only device of the sets that are started here.
const DEVICE: DeviceIndex = DeviceIndex::FIRST;

/// What one device holds. What is `None` is not there or could not be read; then `problems`
/// says why.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) path: PathBuf,
    pub(super) device_bytes: u64,
    pub(super) superblock: Option<Superblock>,
    pub(super) superblock_csum: u64,
    pub(super) journal: Option<Journal>,
    pub(super) prio: Option<PrioTable>,
    pub(super) started: Option<Started>,
    pub(super) problems: Vec<String>,
}

/// The prio chain and what it says of every bucket, from bucket 0 on.
#[derive(Debug, Default)]
pub(super) struct PrioTable {
    pub(super) sets: Vec<SetHeader>,
    pub(super) records: Vec<(Prio, Gen)>,
    /// Whether the chain was followed to its end.
    pub(super) complete: bool,
}

/// What the header of a prio set says.
#[derive(Debug)]
pub(super) struct SetHeader {
    pub(super) bucket: BucketIndex,
    pub(super) seq: u64,
    pub(super) next_bucket: u64,
    pub(super) csum: u64,
}

/// What start-up would make of the device.
#[derive(Debug)]
pub(super) struct Started {
    /// The words of all buckets with the reserves filled, before the first pass.
    pub(super) words: Vec<Snapshot>,
    pub(super) counts: WalkCounts,
    pub(super) stale: u64,
    pub(super) uuids: Vec<(u32, UuidEntry)>,
    pub(super) stats: PriorityStats,
    /// By reserve, the buckets that start-up puts there.
    pub(super) reserves: Vec<(Reserve, Vec<BucketIndex>)>,
    /// Those among them whose data is thrown away for it, as nothing is free.
    pub(super) reused: Vec<BucketIndex>,
    /// Those that the first pass invalidates; `None` for the random policy.
    pub(super) first_pass: Option<Vec<BucketIndex>>,
}

impl Survey {
    /// Surveys the device at `path`, with start-up if `walk` is set.
    pub(super) fn new(path: &Path, walk: bool) -> Self {
        let mut survey = Self {
            path: path.into(),
            device_bytes: 0,
            superblock: None,
            superblock_csum: 0,
            journal: None,
            prio: None,
            started: None,
            problems: Vec::new(),
        };
        if let Err(error) = survey.fill_in(walk) {
            survey.problems.push(format!("{error:#}"));
        }
        survey
    }

    /// Each step needs the one before; the first that fails ends the survey.
    fn fill_in(&mut self, walk: bool) -> anyhow::Result<()> {
        let device = Device::open(&self.path)?;
        self.device_bytes = device.bytes;
        let mut bytes = [0; superblock::BYTES];
        device.read(superblock::OFFSET, &mut bytes).context("superblock")?;
        let superblock = Superblock::decode(&bytes, Some(device.bytes))?;
        let [a, b, c, d, e, f, g, h, ..] = bytes;
        self.superblock_csum = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let superblock = &*self.superblock.insert(superblock);
        let geometry = *superblock.geometry();
        let read = |bucket, byte, out: &mut [u8]| device.read_bucket(&geometry, bucket, byte, out);
        let Some(journal) = Journal::search(superblock, read)? else {
            if !superblock.is_unused() {
                anyhow::bail!(
                    "no journal entry is whole; a crash came before the first, or the \
                    journal is lost"
                );
            }
            return Ok(());
        };
        let journal = &*self.journal.insert(journal);
        let prio = self.prio.insert(PrioTable::default());
        let chain = PrioChain::follow(
            &geometry,
            superblock.set_magic(),
            journal.prio_head(superblock.nr_this_dev),
            |bucket, out| device.read_bucket(&geometry, bucket, 0, out),
            |set| prio.take(set),
        )?;
        prio.complete = true;
        if walk {
            self.started = Some(start(&device, superblock, journal, prio, &chain)?);
        }
        Ok(())
    }
}

impl Started {
    /// How many buckets that can be allocated have this mark.
    pub(super) fn marked(&self, geometry: &Geometry, mark: Mark) -> usize {
        let words = geometry.buckets().filter_map(|bucket| self.words.get(bucket.as_usize()));
        words.filter(|word| word.mark() == mark).count()
    }
}

impl PrioTable {
    fn take(&mut self, found: &ChainSet<'_>) {
        self.sets.push(SetHeader {
            bucket: found.bucket,
            seq: found.set.seq,
            next_bucket: found.set.next_bucket,
            csum: found.set.csum,
        });
        self.records.extend(found.records().map(|(_, prio, generation)| (prio, generation)));
    }
}

/// Walks the index of a device that is its own set.
fn start(
    device: &Device,
    superblock: &Superblock,
    journal: &Journal,
    prio: &PrioTable,
    chain: &PrioChain,
) -> anyhow::Result<Started> {
    if superblock.has_tierce_index() {
        anyhow::bail!(
            "start-up is not shown: the buckets hold tierce's own index, whose pointers only the cache engine knows"
        );
    }
    let geometry = *superblock.geometry();
    let read = |bucket, byte, out: &mut [u8]| device.read_bucket(&geometry, bucket, byte, out);
    let records = prio.records.clone();
    let (mut set, counts) = startup::observe(superblock, journal, chain, records, read)?;
    let mut uuids = Vec::new();
    if let Some(bucket) = uuid_pointer(journal)?.and_then(|pointer| pointer.bucket(&geometry)) {
        let mut bytes = vec![0; geometry.meta_bytes() as usize];
        read(bucket, 0, &mut bytes)?;
        uuids = UuidEntry::decode_all(&bytes).collect();
    }
    let reused = set.start()?.reused.iter().map(|id| id.bucket()).collect();
    let words = set.words(DEVICE).to_vec();
    let list = |reserve| (reserve, set.list(DEVICE, reserve).collect());
    let usable = words.get(geometry.first_bucket().as_usize()..).unwrap_or_default();
    Ok(Started {
        stats: PriorityStats::new(&geometry, usable.iter().copied()),
        reserves: Reserve::ALL.into_iter().map(list).collect(),
        stale: set.counters().gc_stale_total,
        first_pass: (superblock.policy != Policy::Random).then(|| first_pass(&mut set)),
        words,
        counts,
        uuids,
        reused,
    })
}

/// What is invalidated before anything else happens.
fn first_pass(set: &mut Set) -> Vec<BucketIndex> {
    set.take_events();
    set.step(DEVICE);
    let events = set.take_events().into_iter();
    let invalidated = events.map_while(|event| match event {
        Event::Invalidated { bucket, .. } => Some(bucket.bucket()),
        _ => None,
    });
    invalidated.collect()
}

/// Where the newest entry says the uuids are.
pub(super) fn uuid_pointer(journal: &Journal) -> anyhow::Result<Option<Pointer>> {
    let key = journal.newest.uuid_bucket.key(journal.newest_entry().place())?;
    Ok(key.and_then(|key| key.pointers().first().copied()))
}

/// Where the newest entry says the root of the index is.
pub(super) fn root_pointer(journal: &Journal) -> anyhow::Result<Option<Pointer>> {
    let key = journal.newest.btree_root.key(journal.newest_entry().place())?;
    Ok(key.and_then(|key| key.pointers().first().copied()))
}
