//! Superblock, journal and prio sets against what is known of an image, and back to bytes.

use crate::image::Image;
use crate::report::Report;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tierce_core::record::{ChainSet, Journal, Jset, PrioChain, PrioSet, Superblock};
use tierce_core::{Gen, Prio};

pub(crate) fn check(image: &Image, report: &mut Report) {
    let superblock = image.superblock();
    report.equal(
        "superblock",
        superblock_json(image, &superblock),
        image.json["superblock"].clone(),
    );
    report.equal("sb bytes", &superblock.encode()[..], image.superblock_bytes());
    let journal = Journal::search(&superblock, |bucket, byte, out| {
        image.read(&superblock, bucket, byte, out)
    });
    match (journal, image.json.get("journal")) {
        (Ok(None), None) => report.equal("journal", 0, 0),
        (Ok(Some(journal)), Some(known)) => {
            report.equal("journal", journal_json(&superblock, &journal), known.clone());
            journal_bytes(image, &superblock, &journal, report);
            prio(image, &superblock, &journal, report);
        }
        (found, _) => report.result("journal", Err(format!("{found:?}"))),
    }
}

fn superblock_json(image: &Image, s: &Superblock) -> Value {
    let g = s.geometry();
    let journal: Vec<_> = s.journal_buckets().map(|b| b.get()).collect();
    let ends: Vec<_> = journal.first().into_iter().chain(journal.last()).collect();
    let csum = u64::from_le_bytes(image.superblock_bytes()[..8].try_into().unwrap());
    json!({
        "csum": format!("{csum:#x}"), "csum_ok": true, "offset": 8,
        "version": s.version, "magic": "c68573f64e1a45ca8265f57f48ba6d81",
        "uuid": s.uuid.to_string(), "set_uuid": s.set_uuid.to_string(),
        "label": s.label_text(), "flags": s.flags(), "seq": s.seq,
        "feature_compat": s.feature_compat, "feature_incompat": s.feature_incompat,
        "feature_ro_compat": 0,
        "nbuckets": g.nbuckets(), "block_size": g.block_sectors(),
        "bucket_size_raw": s.bucket_size_raw().0, "bucket_size": g.bucket_sectors(),
        "nr_in_set": s.nr_in_set, "nr_this_dev": s.nr_this_dev.get(),
        "last_mount": s.last_mount, "first_bucket": g.first_bucket().get(),
        "njournal_buckets": s.njournal, "sync": u8::from(s.sync),
        "discard": u8::from(s.discard), "replacement": s.policy.number(),
        "set_magic": format!("{:#x}", s.set_magic().0), "journal_buckets_d": ends,
    })
}

fn journal_json(superblock: &Superblock, journal: &Journal) -> Value {
    let (newest, entry) = (&journal.newest, journal.newest_entry());
    let bucket_of = |key: tierce_core::record::PaddedKey| {
        let key = key.key(entry.place()).unwrap().unwrap();
        let pointer = key.pointers()[0];
        (pointer.bucket(superblock.geometry()).unwrap().get(), pointer.gen_().get())
    };
    json!({
        "valid_jsets_found": journal.entries_found,
        "newest_seq": newest.seq, "newest_last_seq": newest.last_seq,
        "newest_keys_u64s": newest.keys.len(),
        "newest_journal_bucket_index": entry.slot, "newest_bucket": entry.bucket.get(),
        "newest_byte_offset_in_bucket": entry.byte,
        "prio_bucket": newest.prio_bucket, "btree_level": newest.btree_level,
        "btree_root_bucket": bucket_of(newest.btree_root).0,
        "btree_root_ptr_gen": bucket_of(newest.btree_root).1,
        "uuid_bucket": bucket_of(newest.uuid_bucket).0,
        "live_seqs": journal.live.iter().map(|e| e.seq).collect::<Vec<_>>(),
    })
}

/// Every live entry gives the bytes that it was read from.
fn journal_bytes(image: &Image, superblock: &Superblock, journal: &Journal, report: &mut Report) {
    let set = superblock.set_magic();
    for entry in &journal.live {
        let mut bytes = vec![0; entry.bytes as usize];
        image.read(superblock, entry.bucket, entry.byte.into(), &mut bytes).unwrap();
        let jset = Jset::decode(&bytes, set, entry.place()).unwrap();
        assert!(jset.decoded_keys(entry.place()).all(|key| key.is_ok()));
        let mut again = vec![0; bytes.len() + 4096];
        jset.encode(set, superblock.geometry().block_bytes(), &mut again).unwrap();
        report.equal("jset bytes", &again[..bytes.len()], &bytes[..]);
    }
}

fn prio(image: &Image, superblock: &Superblock, journal: &Journal, report: &mut Report) {
    let (geometry, set) = (superblock.geometry(), superblock.set_magic());
    let mut table: Vec<(Prio, Gen)> = Vec::new();
    let mut sets = Vec::new();
    let mut last = 0;
    let chain = PrioChain::follow(
        geometry,
        set,
        journal.prio_head(superblock.nr_this_dev),
        |bucket, out| image.read(superblock, bucket, 0, out),
        |found: &ChainSet<'_>| {
            table.extend(found.records().map(|(_, prio, generation)| (prio, generation)));
            let PrioSet { seq, next_bucket, csum, .. } = found.set;
            last = next_bucket;
            let bucket = found.bucket.get();
            sets.push(json!({
                "bucket": bucket, "seq": seq, "version": 0, "pad": 0,
                "next_bucket": next_bucket, "csum": csum,
            }));
            // All room of a set, slack too, is under the checksum and must come out again.
            let mut bytes = vec![0; geometry.meta_bytes() as usize];
            image.read(superblock, found.bucket, 0, &mut bytes).unwrap();
            let mut again = vec![0; bytes.len()];
            PrioSet::encode(&mut again, set, seq, next_bucket, found.set.records());
            report.equal("prio bytes", again, bytes);
        },
    );
    let chain = match chain {
        Ok(chain) => chain,
        Err(error) => return report.result("prio chain", Err(error.to_string())),
    };
    let known = &image.json["prio"];
    let found = json!({
        "prio_buckets": geometry.prio_buckets(), "prios_per_bucket": geometry.prios_per_bucket(),
        "chain": chain.buckets.iter().map(|b| b.get()).collect::<Vec<_>>(),
        "next_bucket_of_last_set": last, "sets": sets,
        "gen_hist": histogram(table.iter().map(|(_, generation)| generation.get().into())),
        "prio_hist": histogram(table.iter().map(|(prio, _)| prio.get())),
        // The table itself is compared instead of its digest.
        "sha256_prio_le16_gen8": known["sha256_prio_le16_gen8"],
    });
    report.equal("prio chain", found, known.clone());
    let bytes: Vec<u8> = table
        .iter()
        .flat_map(|(prio, generation)| {
            let [low, high] = prio.get().to_le_bytes();
            [low, high, generation.get()]
        })
        .collect();
    report.equal("prio table", bytes, image.table("priogen.bin.gz"));
}

fn histogram(values: impl Iterator<Item = u16>) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for value in values {
        *counts.entry(value.to_string()).or_default() += 1;
    }
    counts
}
