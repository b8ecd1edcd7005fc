//! A survey as JSON.

use super::survey::{PrioTable, Started, Survey, root_pointer, uuid_pointer};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use tierce_core::record::{Journal, Superblock, superblock};
use tierce_core::{BucketIndex, Geometry, Mark};

/// One object, or a list if there are several devices.
pub(super) fn render(surveys: &[Survey]) -> String {
    let value = match surveys {
        [one] => device(one),
        _ => surveys.iter().map(device).collect(),
    };
    format!("{value:#}\n")
}

fn device(survey: &Survey) -> Value {
    let mut found = Map::new();
    let mut add = |key: &str, value: Value| drop(found.insert(key.to_owned(), value));
    add("path", survey.path.to_string_lossy().into());
    add("device_bytes", survey.device_bytes.into());
    if let Some(superblock) = &survey.superblock {
        add("superblock", superblock_value(superblock, survey.superblock_csum));
        let geometry = superblock.geometry();
        if let Some(journal) = &survey.journal {
            add("journal", journal_value(geometry, journal));
        }
        if let Some(prio) = &survey.prio {
            add("prio", prio_value(geometry, prio));
        }
        if let Some(started) = &survey.started {
            add("startup", startup_value(started, geometry));
            add("uuids", uuids_value(started));
        }
    }
    add("problems", survey.problems.clone().into());
    found.into()
}

fn superblock_value(s: &Superblock, csum: u64) -> Value {
    let geometry = s.geometry();
    let journal: Vec<_> = s.journal_buckets().map(BucketIndex::get).collect();
    let ends: Vec<_> = journal.first().into_iter().chain(journal.last()).collect();
    let magic: String = superblock::MAGIC.iter().map(|byte| format!("{byte:02x}")).collect();
    json!({
        "csum": format!("{csum:#x}"),
        "csum_ok": true,
        "offset": superblock::OFFSET / 512,
        "version": s.version,
        "magic": magic,
        "uuid": s.uuid.to_string(),
        "set_uuid": s.set_uuid.to_string(),
        "set_magic": format!("{:#x}", s.set_magic().0),
        "label": s.label_text(),
        "flags": s.flags(),
        "sync": u8::from(s.sync),
        "discard": u8::from(s.discard),
        "replacement": s.policy.number(),
        "seq": s.seq,
        "feature_compat": s.feature_compat,
        "feature_incompat": s.feature_incompat,
        "feature_ro_compat": 0,
        "nbuckets": geometry.nbuckets(),
        "block_size": geometry.block_sectors(),
        "bucket_size": geometry.bucket_sectors(),
        "bucket_size_raw": s.bucket_size_raw().0,
        "nr_in_set": s.nr_in_set,
        "nr_this_dev": s.nr_this_dev.get(),
        "last_mount": s.last_mount,
        "first_bucket": geometry.first_bucket().get(),
        "njournal_buckets": s.njournal,
        "journal_buckets_d": ends,
    })
}

fn journal_value(geometry: &Geometry, journal: &Journal) -> Value {
    let (newest, entry) = (&journal.newest, journal.newest_entry());
    // A damaged key is among the problems; here it is null.
    let root = root_pointer(journal).ok().flatten();
    let uuids = uuid_pointer(journal).ok().flatten();
    let bucket = |pointer: tierce_core::record::Pointer| pointer.bucket(geometry);
    json!({
        "valid_jsets_found": journal.entries_found,
        "newest_seq": newest.seq,
        "newest_last_seq": newest.last_seq,
        "newest_keys_u64s": newest.keys.len(),
        "newest_journal_bucket_index": entry.slot,
        "newest_bucket": entry.bucket.get(),
        "newest_byte_offset_in_bucket": entry.byte,
        "prio_bucket": newest.prio_bucket,
        "btree_level": newest.btree_level,
        "btree_root_bucket": root.and_then(bucket).map(BucketIndex::get),
        "btree_root_ptr_gen": root.map(|pointer| pointer.gen_().get()),
        "uuid_bucket": uuids.and_then(bucket).map(BucketIndex::get),
        "live_seqs": journal.live.iter().map(|entry| entry.seq).collect::<Vec<_>>(),
    })
}

fn prio_value(geometry: &Geometry, prio: &PrioTable) -> Value {
    let sets: Vec<_> = prio
        .sets
        .iter()
        .map(|set| {
            json!({
                "bucket": set.bucket.get(), "seq": set.seq, "version": 0, "pad": 0,
                "next_bucket": set.next_bucket, "csum": set.csum,
            })
        })
        .collect();
    let digest = prio.complete.then(|| {
        let mut hash = Sha256::new();
        for (prio, generation) in &prio.records {
            hash.update(prio.get().to_le_bytes());
            hash.update([generation.get()]);
        }
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    });
    json!({
        "prio_buckets": geometry.prio_buckets(),
        "prios_per_bucket": geometry.prios_per_bucket(),
        "chain": prio.sets.iter().map(|set| set.bucket.get()).collect::<Vec<_>>(),
        "next_bucket_of_last_set": prio.sets.last().map(|set| set.next_bucket),
        "sets": sets,
        "gen_hist": histogram(prio.records.iter().map(|(_, generation)| generation.get().into())),
        "prio_hist": histogram(prio.records.iter().map(|(prio, _)| prio.get())),
        "sha256_prio_le16_gen8": digest,
    })
}

fn startup_value(started: &Started, geometry: &Geometry) -> Value {
    let list = |buckets: &Vec<BucketIndex>| -> Value {
        buckets.iter().map(|bucket| bucket.get()).collect()
    };
    let reserves = started.reserves.iter().map(|(name, buckets)| (name.to_string(), list(buckets)));
    json!({
        "nodes": started.counts.nodes,
        "bsets": started.counts.bsets,
        "leaf_keys": started.counts.leaf_keys,
        "stale_pointers": started.stale,
        "marks": {
            "none": started.marked(geometry, Mark::None),
            "reclaimable": started.marked(geometry, Mark::Reclaimable),
            "dirty": started.marked(geometry, Mark::Dirty),
            "metadata": started.marked(geometry, Mark::Metadata),
        },
        "reserves": Value::Object(reserves.collect()),
        "reused": list(&started.reused),
        "first_pass": started.first_pass.as_ref().map(list),
        "priority_stats": started.stats.to_string(),
    })
}

fn uuids_value(started: &Started) -> Value {
    let entries = started.uuids.iter().map(|(slot, entry)| {
        let label = entry.label.split(|&byte| byte == 0).next().unwrap_or_default();
        json!({
            "slot": slot,
            "uuid": entry.uuid.to_string(),
            "label": String::from_utf8_lossy(label),
            "first_reg": entry.first_reg,
            "last_reg": entry.last_reg,
            "invalidated": entry.invalidated,
            "flags": entry.flags,
            "sectors": entry.sectors,
        })
    });
    entries.collect()
}

/// How often each value occurs, by value.
fn histogram(values: impl Iterator<Item = u16>) -> Value {
    let mut counts = BTreeMap::<u16, u32>::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    let named = counts.into_iter().map(|(value, count)| (value.to_string(), count.into()));
    Value::Object(named.collect())
}
