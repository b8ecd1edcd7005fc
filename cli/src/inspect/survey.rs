//! Gathers what a device holds, as far as damage allows.

use super::device::Device;
use anyhow::Context;
use std::path::{Path, PathBuf};
use tierce_core::record::{
    ChainSet, Journal, Pointer, PrioChain, StartUp, Superblock, UuidEntry, WalkCounts, superblock,
    walk,
};
use tierce_core::stats::PriorityStats;
use tierce_core::{BucketIndex, Gen, Prio, Sizes};

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
    /// The words before anything is invalidated.
    pub(super) table: StartUp,
    pub(super) counts: WalkCounts,
    pub(super) uuids: Vec<(u32, UuidEntry)>,
    pub(super) stats: PriorityStats,
    pub(super) sizes: Sizes,
    /// The buckets that the initial fill takes.
    pub(super) fill: Vec<BucketIndex>,
    /// Those that the first pass takes; `None` for the random policy.
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
    if superblock.nr_in_set > 1 {
        anyhow::bail!(
            "start-up is not shown: the index lies on all {} devices of the set",
            superblock.nr_in_set
        );
    }
    if superblock.has_tierce_index() {
        anyhow::bail!(
            "start-up is not shown: the buckets hold tierce's own index, whose pointers only the cache engine knows"
        );
    }
    let geometry = *superblock.geometry();
    let read = |bucket, byte, out: &mut [u8]| device.read_bucket(&geometry, bucket, byte, out);
    let mut table = StartUp::new(geometry);
    table.load(prio.records.iter().copied());
    let newest = (&journal.newest, journal.newest_entry().place());
    let set = superblock.set_magic();
    let read_node = |at: tierce_core::BucketId, out: &mut [u8]| read(at.bucket(), 0, out);
    let counts = walk::index(&[geometry], set, newest, read_node, |met| table.observe(met))?;
    for entry in &journal.live {
        let jset = Journal::read_entry(superblock, entry, read)?;
        walk::journal_keys(&[geometry], &jset, entry.place(), |met| table.observe(met))?;
    }
    table.finish(superblock, chain);
    let mut uuids = Vec::new();
    if let Some(bucket) = uuid_pointer(journal)?.and_then(|pointer| pointer.bucket(&geometry)) {
        let mut bytes = vec![0; geometry.meta_bytes() as usize];
        read(bucket, 0, &mut bytes)?;
        uuids = UuidEntry::decode_all(&bytes).collect();
    }
    let sizes = Sizes::bcache(&geometry, superblock.njournal.into());
    let mut after_fill = table.clone();
    let fill = after_fill.fill(&sizes);
    Ok(Started {
        stats: PriorityStats::new(&geometry, table.usable().map(|(_, word)| word)),
        first_pass: after_fill.first_pass(superblock.policy, &sizes),
        table,
        counts,
        uuids,
        sizes,
        fill,
    })
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
