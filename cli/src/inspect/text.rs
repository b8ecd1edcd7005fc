//! A survey as text for people.

use super::survey::{PrioTable, Started, Survey, root_pointer, uuid_pointer};
use std::collections::BTreeMap;
use std::fmt::{self, Display, Write};
use tierce_core::record::{Journal, Superblock};
use tierce_core::stats::PriorityStats;
use tierce_core::{BucketIndex, Mark, Prio, Snapshot};

/// Buckets of a list that are shown before it is cut short.
const SHOWN: usize = 16;

/// All devices, one after the other.
pub(super) fn render(surveys: &[Survey]) -> String {
    let mut text = String::new();
    for (i, survey) in surveys.iter().enumerate() {
        if i > 0 {
            text.push('\n');
        }
        // Writing to a string does not fail.
        let _ = device(&mut text, survey);
    }
    text
}

fn device(out: &mut String, survey: &Survey) -> fmt::Result {
    writeln!(out, "{}", survey.path.display())?;
    row(out, "size", bytes(survey.device_bytes))?;
    let Some(superblock) = &survey.superblock else { return Ok(()) };
    superblock_rows(out, superblock)?;
    if let Some(journal) = &survey.journal {
        journal_rows(out, superblock, journal)?;
    }
    if let Some(prio) = &survey.prio {
        prio_rows(out, superblock, prio, survey.started.is_none())?;
    }
    if let Some(started) = &survey.started {
        startup_rows(out, superblock, started)?;
    }
    Ok(())
}

fn row(out: &mut String, name: &str, value: impl Display) -> fmt::Result {
    writeln!(out, "  {name:16} {value}")
}

fn superblock_rows(out: &mut String, s: &Superblock) -> fmt::Result {
    let g = s.geometry();
    let state = match s.version {
        0 => "formatted, never used",
        3 => "in use",
        _ if s.has_tierce_index() => "in use by tierce's cache engine",
        _ if s.is_unused() => "formatted, never used",
        _ => "in use, with feature words",
    };
    writeln!(out, "superblock")?;
    row(out, "version", format_args!("{} ({state})", s.version))?;
    row(out, "uuid", s.uuid)?;
    row(out, "set", format_args!("{}, device {} of {}", s.set_uuid, s.nr_this_dev, s.nr_in_set))?;
    row(out, "label", format_args!("{:?}", s.label_text()))?;
    row(out, "seq", s.seq)?;
    row(out, "last opened", format_args!("{} s since 1970", s.last_mount))?;
    row(out, "buckets", format_args!("{} of {}", g.nbuckets(), bytes(g.bucket_bytes().into())))?;
    row(out, "first bucket", g.first_bucket())?;
    row(out, "block", bytes(g.block_bytes().into()))?;
    row(out, "policy", s.policy)?;
    row(out, "sync", s.sync)?;
    row(out, "discard", s.discard)?;
    row(out, "journal buckets", s.njournal)?;
    row(out, "features", format_args!("{:#x}", s.feature_incompat))
}

fn journal_rows(out: &mut String, s: &Superblock, journal: &Journal) -> fmt::Result {
    let (newest, entry) = (&journal.newest, journal.newest_entry());
    writeln!(out, "journal")?;
    row(out, "newest entry", format_args!("seq {} in {}", newest.seq, entry.place()))?;
    row(out, "live", format_args!("{} to {}", newest.last_seq, newest.seq))?;
    row(out, "entries found", journal.entries_found)?;
    row(out, "key words", newest.keys.len())?;
    row(out, "prio chain", format_args!("bucket {}", newest.prio_head(s.nr_this_dev)))?;
    let pointer = |pointer: anyhow::Result<Option<tierce_core::record::Pointer>>| match pointer {
        Ok(Some(p)) => match p.bucket(s.geometry()) {
            Some(bucket) => format!("bucket {bucket} gen {}", p.gen_()),
            None => format!("device {} sector {}: outside this device", p.device(), p.sector()),
        },
        Ok(None) => "none".into(),
        Err(error) => format!("{error:#}"),
    };
    let root = pointer(root_pointer(journal));
    row(out, "index root", format_args!("{root}, level {}", newest.btree_level))?;
    row(out, "uuid bucket", pointer(uuid_pointer(journal)))
}

fn prio_rows(out: &mut String, s: &Superblock, prio: &PrioTable, with_ages: bool) -> fmt::Result {
    writeln!(out, "prio sets")?;
    let chain: Vec<_> = prio.sets.iter().map(|set| set.bucket).collect();
    row(out, "chain", format_args!("buckets {}", list(&chain)))?;
    if let Some(set) = prio.sets.first() {
        row(out, "seq", set.seq)?;
    }
    if !prio.complete {
        return row(out, "incomplete", format_args!("{} buckets are known", prio.records.len()));
    }
    let mut gens = BTreeMap::<u8, u32>::new();
    for (_, generation) in &prio.records {
        *gens.entry(generation.get()).or_default() += 1;
    }
    let gens: Vec<_> = gens.iter().map(|(value, count)| format!("{value}×{count}")).collect();
    row(out, "gens", gens.join(" "))?;
    let first = s.geometry().first_bucket().as_usize();
    let usable = prio.records.get(first..).unwrap_or_default();
    let count = |wanted: Prio| usable.iter().filter(|(prio, _)| *prio == wanted).count();
    let named =
        [("never used", Prio::OLDEST), ("fresh", Prio::FRESH), ("metadata", Prio::METADATA)];
    for (name, wanted) in named {
        row(out, name, format_args!("{} (prio {})", count(wanted), wanted.get()))?;
    }
    if !with_ages {
        return Ok(());
    }
    let words = usable.iter().map(|(prio, _)| Snapshot::default().with_prio(*prio));
    let stats = PriorityStats::new(s.geometry(), words);
    row(out, "average age", stats.average)?;
    let ages: Vec<_> = stats.quantiles.iter().map(ToString::to_string).collect();
    row(out, "age quantiles", ages.join(" "))
}

fn startup_rows(out: &mut String, s: &Superblock, started: &Started) -> fmt::Result {
    writeln!(out, "start-up")?;
    let counts = &started.counts;
    row(out, "index nodes", format_args!("{} with {} bsets", counts.nodes, counts.bsets))?;
    row(out, "leaf keys", counts.leaf_keys)?;
    row(out, "stale pointers", started.stale)?;
    for (name, mark) in [
        ("unmarked", Mark::None),
        ("reclaimable", Mark::Reclaimable),
        ("dirty", Mark::Dirty),
        ("metadata", Mark::Metadata),
    ] {
        row(out, name, started.marked(s.geometry(), mark))?;
    }
    for (reserve, buckets) in &started.reserves {
        row(out, &format!("free {reserve}"), list(buckets))?;
    }
    if !started.reused.is_empty() {
        row(out, "thrown away", list(&started.reused))?;
    }
    match &started.first_pass {
        Some(buckets) => row(out, "reused first", list(buckets))?,
        None => row(out, "reused first", "at random")?,
    }
    for (slot, entry) in &started.uuids {
        row(out, &format!("backing {slot}"), entry.uuid)?;
    }
    writeln!(out, "priority_stats")?;
    write!(out, "{}", started.stats)
}

/// Buckets, the first of them if there are many.
fn list(buckets: &[BucketIndex]) -> String {
    if buckets.is_empty() {
        return "none".into();
    }
    let shown: Vec<_> = buckets.iter().take(SHOWN).map(ToString::to_string).collect();
    match buckets.len().checked_sub(SHOWN) {
        None | Some(0) => shown.join(" "),
        Some(more) => format!("{} and {more} more", shown.join(" ")),
    }
}

/// A size with the largest unit that divides it.
fn bytes(count: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if count >= 1 << shift && count.trailing_zeros() >= shift {
            return format!("{} {unit}", count >> shift);
        }
    }
    format!("{count} B")
}
