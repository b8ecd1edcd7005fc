//! The state of every bucket after start-up, against the kernel's memory.
//!
//! The kernel's table was taken some moments after it had registered a copy of the image. What
//! it had done in between is known in part, and each bucket is compared as far as that allows:
//!
//! * buckets that it invalidated (the list is known): gen, counting the invalidations, and
//!   last_gc. Such a bucket may since have been an index node and freed: gen + 1 more;
//! * buckets of the prio chain on the image: another chain has replaced them, so they may be
//!   unmarked;
//! * index nodes: the kernel writes some anew, then the old one is unmarked and empty, and its
//!   gen is one more (that of a root is not);
//! * all others: gen, last_gc, mark and sectors exactly.

use crate::image::{Image, KernelBucket};
use crate::report::Report;
use std::collections::HashSet;
use tierce_core::record::walk::{self, PointerKind};
use tierce_core::record::{Journal, PrioChain, Superblock, UuidEntry, startup};
use tierce_core::spec::{Event, Set};
use tierce_core::stats::PriorityStats;
use tierce_core::{
    BucketIndex, DeviceIndex, Error, Gen, Mark, Policy, Prio, Reserve, Sizes, Snapshot,
};

const DEVICE: DeviceIndex = DeviceIndex::FIRST;

/// An image after start-up.
struct Started {
    superblock: Superblock,
    set: Set,
    fill: Vec<BucketIndex>,
    chain: PrioChain,
    nodes: HashSet<BucketIndex>,
}

pub(crate) fn check(image: &Image, report: &mut Report) {
    let mut started = match start(image, report) {
        Ok(started) => started,
        Err(error) => return report.result("start-up", Err(error.to_string())),
    };
    table(image, &started, report);
    invalidated_first(image, &mut started, report);
    priority_stats(image, &started.superblock, report);
}

fn start(image: &Image, report: &mut Report) -> Result<Started, Error> {
    let superblock = image.superblock();
    let (geometry, magic) = (*superblock.geometry(), superblock.set_magic());
    let read = |bucket, byte, out: &mut [u8]| image.read(&superblock, bucket, byte, out);
    let journal = Journal::search(&superblock, read)?.expect("the image has a journal");
    let mut records = Vec::new();
    let head = journal.prio_head(superblock.nr_this_dev);
    let read_set = |bucket, out: &mut [u8]| read(bucket, 0, out);
    let chain = PrioChain::follow(&geometry, magic, head, read_set, |set| {
        records.extend(set.records().map(|(_, prio, generation)| (prio, generation)));
    })?;
    let (mut set, counts) = startup::observe(&superblock, &journal, &chain, records, read)?;
    assert!(set.start()?.reused.is_empty());
    let fill = set.take_events().into_iter().filter_map(|event| match event {
        Event::Released { bucket, .. } => Some(bucket.bucket()),
        _ => None,
    });
    let fill = fill.collect();
    let known = &image.json["btree"];
    report.equal("nodes", Some(counts.nodes), known["nodes"].as_u64());
    report.equal("nodes", Some(counts.bsets), known["bsets"].as_u64());

    // Once more, to know which buckets are nodes.
    let mut nodes = HashSet::new();
    let mut uuid_bucket = None;
    let newest = (&journal.newest, journal.newest_entry().place());
    let read_node = |at: tierce_core::BucketId, out: &mut [u8]| read(at.bucket(), 0, out);
    walk::index(&[geometry], magic, newest, read_node, |met| {
        match met.kind {
            PointerKind::Node => drop(nodes.insert(met.bucket.bucket())),
            PointerKind::UuidBucket => uuid_bucket = Some(met.bucket.bucket()),
            _ => (),
        }
        let word = set.words(DEVICE)[met.bucket.bucket().as_usize()];
        !met.pointer.gen_().is_stale(word.gen_())
    })?;
    uuids(image, uuid_bucket.expect("the entry names it"), report);
    Ok(Started { superblock, set, fill, chain, nodes })
}

fn uuids(image: &Image, bucket: BucketIndex, report: &mut Report) {
    let superblock = image.superblock();
    let mut bytes = vec![0; superblock.geometry().meta_bytes() as usize];
    image.read(&superblock, bucket, 0, &mut bytes).unwrap();
    let found: Vec<_> = UuidEntry::decode_all(&bytes)
        .map(|(slot, entry)| {
            let at = slot as usize * 128;
            report.equal("uuids", &entry.encode()[..], &bytes[at..at + 128]);
            serde_json::json!({
                "slot": slot, "uuid": entry.uuid.to_string(), "label": "",
                "first_reg": entry.first_reg, "last_reg": entry.last_reg,
                "invalidated": entry.invalidated, "flags": entry.flags,
                "sectors": entry.sectors,
            })
        })
        .collect();
    report.equal("uuids", serde_json::Value::from(found), image.json["uuids"].clone());
}

fn invalidations(image: &Image) -> Vec<BucketIndex> {
    let list = image.json["invalidate_order_during_reload"].as_array().unwrap();
    list.iter().map(|n| BucketIndex::new(n.as_u64().unwrap() as u32)).collect()
}

fn table(image: &Image, started: &Started, report: &mut Report) {
    let invalidated = invalidations(image);
    let kernel = image.kernel_buckets("kbuckets_after_reload.bin.gz");
    let words = started.set.words(DEVICE);
    let (mut exact, mut rewritten, mut unchained, mut reused) = (0, 0, 0, 0);
    for bucket in started.superblock.geometry().buckets() {
        let (word, found) = (words[bucket.as_usize()], kernel[bucket.as_usize()]);
        let times = |list: &[BucketIndex]| list.iter().filter(|&&b| b == bucket).count();
        // What the initial fill invalidated is invalidated in our table, too.
        let since = times(&invalidated) - times(&started.fill);
        let wanted = kernel_bucket(word, since as u8);
        let is_node = started.nodes.contains(&bucket);
        let unmarked = (found.mark, found.sectors) == (0, 0);
        let gen_ahead = found.generation.wrapping_sub(wanted.generation);
        let same_state = (found.mark, found.sectors) == (wanted.mark, wanted.sectors);
        let class = match (gen_ahead, found.last_gc == wanted.last_gc) {
            (0 | 1, true) if times(&invalidated) > 0 => &mut reused,
            (0, true) if same_state => &mut exact,
            (0, true) if unmarked && started.chain.buckets.contains(&bucket) => &mut unchained,
            (0 | 1, true) if unmarked && is_node => &mut rewritten,
            _ => {
                let message = format!("bucket {bucket}: found {found:?}, wanted {wanted:?}");
                return report.result("start-up", Err(message));
            }
        };
        *class += 1;
    }
    let differ = rewritten + unchained;
    println!(
        "{}: {exact} buckets as in the kernel, {reused} invalidated since; of the others \
         {differ} differ: {unchained} were the prio chain, {rewritten} were nodes",
        image.json["image"]
    );
    report.result("start-up", Ok(format!("{differ} differ")));
}

/// The word as the kernel would hold it after `times` invalidations.
fn kernel_bucket(word: Snapshot, times: u8) -> KernelBucket {
    KernelBucket {
        pin: 0,
        prio: word.prio().get(),
        generation: word.gen_().get().wrapping_add(times),
        last_gc: word.last_gc().get(),
        mark: word.mark().to_bits(),
        sectors: word.sectors(),
    }
}

/// The initial fill, and the first pass where its order is no accident.
fn invalidated_first(image: &Image, started: &mut Started, report: &mut Report) {
    let superblock = &started.superblock;
    let sizes = Sizes::bcache(superblock.geometry(), superblock.njournal.into());
    let known = invalidations(image);
    let fill = &started.fill;
    report.equal("fill", &fill[..], &known[..fill.len()]);
    report.equal("fill", fill.len() as u32, sizes.prio + sizes.btree);
    let list = |reserve| started.set.list(DEVICE, reserve).len() as u32;
    report.equal("fill", (list(Reserve::Prio), list(Reserve::Btree)), (sizes.prio, sizes.btree));
    if superblock.policy == Policy::Fifo {
        started.set.step(DEVICE);
        let events = started.set.take_events().into_iter();
        let pass = events.map_while(|event| match event {
            Event::Invalidated { bucket, .. } => Some(bucket.bucket()),
            _ => None,
        });
        let pass: Vec<_> = pass.collect();
        report.equal("fifo pass", &pass[..], &known[fill.len()..][..pass.len()]);
        report.equal("fifo pass", pass.len(), sizes.free_inc as usize);
    }
}

/// The kernel's own text from its own table, before it stopped and after the reload.
fn priority_stats(image: &Image, superblock: &Superblock, report: &mut Report) {
    let geometry = superblock.geometry();
    for (memory, suffix) in [
        ("kernel_memory_before_clean_stop", "kbuckets_before_stop.bin.gz"),
        ("kernel_memory_after_reregistering_a_copy", "kbuckets_after_reload.bin.gz"),
    ] {
        let kernel = image.kernel_buckets(suffix);
        let first = geometry.first_bucket().as_usize();
        let words = kernel[first..].iter().map(|k| {
            Snapshot::default()
                .with_prio(Prio::new(k.prio))
                .with_gen(Gen::new(k.generation))
                .with_mark(Mark::from_bits(k.mark))
                .with_sectors(k.sectors.into())
        });
        let text = PriorityStats::new(geometry, words).to_string();
        let known = image.json[memory]["priority_stats"].as_str().unwrap_or_default();
        report.equal("prio stats", text.as_str(), known);
    }
}
