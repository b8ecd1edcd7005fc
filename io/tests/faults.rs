//! The table of faults, `FAULTS.md`, row by row: what it says is what happens.
//!
//! Checked besides: every operation has a row and every fault a column; nothing hangs; an error
//! names its device; a device that failed leaves the other one of its set alone.

use std::sync::{Arc, mpsc};
use std::time::Duration;
use tierce_core::record::superblock;
use tierce_core::{DeviceIndex, Reserve};
use tierce_io::{
    Device, DeviceExt, Error, Fault, FaultKind, FormatOptions, Operation, Owner, Pipeline,
    PipelineStats, Sim, SimOptions, Volume, format_on, recover,
};
use tierce_lockfree::{Allocator, Config};

const NBUCKETS: u64 = 1500;
const BUCKET: u64 = 4096;
const OPERATIONS: [&str; 11] = [
    "superblock read",
    "superblock write",
    "journal read",
    "journal write",
    "prio read",
    "prio write",
    "flush",
    "discard",
    "data read",
    "data write",
    "format",
];
const FAULTS: [&str; 6] = ["EIO", "ENOSPC", "short", "stall", "corruption", "lying flush"];
/// A bucket that nobody uses.
const DATA: u64 = 1490 * BUCKET;

fn format_options() -> FormatOptions {
    FormatOptions::default().bucket(BUCKET as u32).block(512).force(true)
}

fn new_sim(seed: u64, lying_flush: bool) -> Arc<Sim> {
    let bytes = NBUCKETS * BUCKET;
    Sim::new(&SimOptions::default().seed(seed).bytes(bytes).lying_flush(lying_flush))
}

/// A device that was formatted and has published some tables.
fn used(seed: u64, lying_flush: bool) -> Arc<Sim> {
    let sim = new_sim(seed, lying_flush);
    format_on(&*sim, &format_options()).expect("a sound device");
    let set = Set::start(std::slice::from_ref(&sim), false);
    set.work(DeviceIndex::FIRST, 200).expect("a sound device");
    set.close();
    sim
}

/// An allocator and its pipelines, and a thread that collects garbage and finds nothing alive.
struct Set {
    allocator: Arc<Allocator>,
    pipelines: Vec<Pipeline>,
    collector: std::thread::JoinHandle<()>,
}

impl Set {
    fn start(sims: &[Arc<Sim>], discard: bool) -> Self {
        let open = |sim: &Arc<Sim>| {
            Volume::open_on(sim.clone(), Owner::Allocator).expect("a sound device").into_start()
        };
        let (tables, writers): (Vec<_>, Vec<_>) = sims.iter().map(open).unzip();
        let config = Config::default().discard(discard);
        let started = Allocator::start(config, tables).expect("legal settings");
        let (allocator, reclaimers) = started.finish();
        let pairs = reclaimers.into_iter().zip(writers);
        let start = |(reclaimer, writer)| Pipeline::start(reclaimer, writer).expect("a thread");
        let pipelines = pairs.map(start).collect();
        let collecting = allocator.clone();
        let collector = std::thread::spawn(move || {
            while collecting.wait_gc_due(None) {
                collecting.begin_gc().expect("the only collector").finish();
            }
        });
        Self { allocator, pipelines, collector }
    }

    /// Allocates so many buckets of a device, waiting for each.
    fn work(&self, device: DeviceIndex, buckets: u32) -> Result<(), String> {
        for _ in 0..buckets {
            let bucket = self.allocator.alloc_until(device, Reserve::None, None);
            bucket.map_err(|error| error.to_string())?.written();
        }
        Ok(())
    }

    fn close(self) -> (Vec<Result<(), Error>>, Vec<PipelineStats>) {
        let stats = self.pipelines.iter().map(Pipeline::stats).collect();
        let ended = self.pipelines.into_iter().map(Pipeline::close).collect();
        self.collector.join().expect("no panic");
        (ended, stats)
    }
}

/// What opening, formatting, or the owner of a bucket does.
fn act(operation: &str, sim: &Arc<Sim>) -> Result<(), Error> {
    match operation {
        "format" => format_on(&**sim, &format_options()).map(drop),
        "data read" => sim.read_at(DATA, 4096).map(drop),
        "data write" => sim.write_at(DATA, &[0xdd; 4096]),
        _ => Volume::open_on(sim.clone(), Owner::Allocator).map(drop),
    }
}

/// The fault, once, where it hits this operation only.
fn fault(kind: FaultKind, operation: &str, sim: &Arc<Sim>) -> Fault {
    let superblock = superblock::OFFSET..superblock::OFFSET + superblock::BYTES as u64;
    let found = recover(sim.clone()).ok();
    let journal = found.as_ref().map_or(0..0, |found| {
        let first = u64::from(found.superblock.geometry().first_bucket().get());
        first * BUCKET..(first + u64::from(found.superblock.njournal)) * BUCKET
    });
    let head = found.as_ref().and_then(|found| found.chain.as_ref()).map_or(0..0, |chain| {
        let head = u64::from(chain.buckets[0].get());
        head * BUCKET..(head + 1) * BUCKET
    });
    let (of, place) = match operation {
        "superblock read" => (Operation::Read, superblock),
        "superblock write" | "format" => (Operation::Write, superblock),
        "journal read" => (Operation::Read, journal),
        "journal write" => (Operation::Write, journal),
        "prio read" => (Operation::Read, head),
        "prio write" => (Operation::Write, journal.end..NBUCKETS * BUCKET),
        "flush" => return Fault::new(kind, Operation::Flush, 0),
        "discard" => return Fault::new(kind, Operation::Discard, 0),
        "data read" => (Operation::Read, DATA..DATA + BUCKET),
        "data write" => (Operation::Write, DATA..DATA + BUCKET),
        other => panic!("{other} has no row"),
    };
    // What formatting writes there first, twice, are zeros.
    let after = if operation == "format" && kind == FaultKind::Corrupt { 2 } else { 0 };
    Fault::new(kind, of, after).within(place)
}

fn is_of_the_pipeline(operation: &str) -> bool {
    ["journal write", "prio write", "flush", "discard"].contains(&operation)
}

fn kind(fault: &str) -> FaultKind {
    match fault {
        "EIO" => FaultKind::Io,
        "ENOSPC" => FaultKind::NoSpace,
        "short" => FaultKind::Short,
        "stall" => FaultKind::Stall,
        "corruption" => FaultKind::Corrupt,
        other => panic!("{other} has no column"),
    }
}

/// What comes of it, in the word of the table.
fn outcome(operation: &'static str, fault: &'static str) -> &'static str {
    let transfers = !["flush", "discard"].contains(&operation);
    let depends_on_flushes = !operation.ends_with("read") && operation != "discard";
    match fault {
        "short" | "corruption" if !transfers => "–",
        "lying flush" if !depends_on_flushes => "–",
        "lying flush" => lie(operation),
        "stall" => stall(operation),
        "corruption" => corrupt(operation),
        _ if is_of_the_pipeline(operation) => fail_pipeline(operation, kind(fault)),
        _ => fail(operation, kind(fault)),
    }
}

fn prepared(operation: &str, seed: u64, lying: bool) -> Arc<Sim> {
    if operation == "format" { new_sim(seed, lying) } else { used(seed, lying) }
}

fn fail(operation: &'static str, kind: FaultKind) -> &'static str {
    let sim = prepared(operation, 1, false);
    sim.inject(fault(kind, operation, &sim));
    let error = act(operation, &sim).expect_err("it was injected");
    assert!(error.to_string().contains("sim-1"), "{error}");
    act(operation, &sim).expect("the fault is gone");
    if operation.starts_with("data") { "told" } else { "refused" }
}

fn fail_pipeline(operation: &'static str, kind: FaultKind) -> &'static str {
    let sims = [used(1, false), used(2, false)];
    let before = recover(sims[0].clone()).expect("sound").chain.expect("published").seq;
    let set = Set::start(&sims, operation == "discard");
    sims[0].inject(fault(kind, operation, &sims[0]));
    let worked = set.work(DeviceIndex::FIRST, 400);
    set.work(DeviceIndex::new(1), 400).expect("the other device goes on");
    let again = set.allocator.try_alloc_on(DeviceIndex::FIRST, Reserve::None);
    let is_in_use = again.is_ok();
    drop(again);
    let (ended, stats) = set.close();
    if worked.is_ok() {
        assert!(is_in_use && ended[0].is_ok() && stats[0].discard_errors_total == 1, "{stats:?}");
        return "counted";
    }
    let told = worked.expect_err("see above");
    assert!(told.contains("sim-1") && !is_in_use, "{told}");
    assert!(matches!(ended[0], Err(Error::Failed { .. })) && ended[1].is_ok(), "{ended:?}");
    let found = recover(sims[0].clone()).expect("it opens again").chain.expect("published").seq;
    assert!((before..=before + stats[0].prio_write_total + 1).contains(&found));
    "failed"
}

fn stall(operation: &'static str) -> &'static str {
    let sims = [prepared(operation, 1, false), used(2, false)];
    let injected = fault(FaultKind::Stall, operation, &sims[0]);
    let other = Set::start(&sims[1..], false);
    let pipeline = is_of_the_pipeline(operation);
    let own = pipeline.then(|| Set::start(&sims[..1], operation == "discard"));
    sims[0].inject(injected);
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| match &own {
            Some(set) => set.work(DeviceIndex::FIRST, 400),
            None => act(operation, &sims[0]).map_err(|error| error.to_string()),
        });
        while sims[0].stalled() == 0 {
            std::thread::yield_now();
        }
        other.work(DeviceIndex::FIRST, 400).expect("another device goes on");
        if operation == "discard" {
            // Only that one bucket waits.
            waits.join().expect("no panic").expect("the device is sound");
            sims[0].resume();
        } else {
            assert!(!waits.is_finished(), "it cannot be done");
            sims[0].resume();
            waits.join().expect("no panic").expect("the device is sound");
        }
    });
    if let Some(set) = own {
        while set.pipelines[0].stats().discards_under_way > 0 {
            std::thread::yield_now();
        }
        assert!(set.close().0[0].is_ok());
    }
    assert!(other.close().0[0].is_ok());
    "waits"
}

/// One wrong bit, drawn by each seed: what the worst of them does.
fn corrupt(operation: &'static str) -> &'static str {
    let outcomes: Vec<_> = (0..20).map(|seed| corrupt_by(operation, seed)).collect();
    let worst = ["unseen", "older", "found"].into_iter().find(|worst| outcomes.contains(worst));
    worst.expect("some bit counts")
}

fn corrupt_by(operation: &'static str, seed: u64) -> &'static str {
    let sim = prepared(operation, seed, false);
    if operation.starts_with("data") {
        sim.write_at(DATA, &[0xdd; 4096]).expect("a sound device");
        sim.inject(fault(FaultKind::Corrupt, operation, &sim));
        act("data write", &sim).expect("nobody notices");
        let read = sim.read_at(DATA, 4096).expect("nobody notices");
        assert!(read.iter().any(|&byte| byte != 0xdd), "a bit is wrong");
        return "unseen";
    }
    let mut before =
        recover(sim.clone()).ok().and_then(|found| found.chain).map_or(0, |chain| chain.seq);
    let injected = fault(FaultKind::Corrupt, operation, &sim);
    // Each of them, or the next good one would take the place of a bad one.
    sim.inject(if is_of_the_pipeline(operation) { injected.for_good() } else { injected });
    if is_of_the_pipeline(operation) {
        let set = Set::start(std::slice::from_ref(&sim), false);
        set.work(DeviceIndex::FIRST, 400).expect("nobody notices");
        before += set.close().1[0].prio_write_total;
        sim.clear_faults();
    } else if operation.ends_with("write") || operation == "format" {
        act(operation, &sim).expect("nobody notices");
    }
    match Volume::open_on(sim, Owner::Allocator) {
        Err(error) => {
            let found = error.to_string();
            assert!(found.contains(&format!("sim-{seed}")), "{found}");
            "found"
        }
        Ok(volume) if volume.prio_seq() < before => "older",
        Ok(_) => "harmless",
    }
}

/// On a device that lies, until a seed loses something that was acknowledged.
fn lie(operation: &'static str) -> &'static str {
    for seed in 0..50 {
        let sim = prepared(operation, seed, true);
        if is_of_the_pipeline(operation) {
            let set = Set::start(std::slice::from_ref(&sim), false);
            set.work(DeviceIndex::FIRST, 400).expect("it says that all is well");
            set.close();
        } else {
            act(operation, &sim).expect("it says that all is well");
            sim.flush().expect("it says that all is well");
        }
        let acknowledged = recover(sim.clone()).expect("before the power loss");
        let after = sim.power_loss();
        if operation == "data write" {
            let read = after.read_at(DATA, 4096).expect("it has power again");
            assert!(read.iter().all(|&byte| byte == 0xdd || byte == 0), "only what was there");
            if read.contains(&0) {
                return "lost";
            }
            continue;
        }
        match recover(after.clone()) {
            Err(error) => {
                assert!(error.to_string().contains(&**sim.name()), "{error}");
                return "lost";
            }
            Ok(found) => {
                let seqs = |found: &tierce_io::Recovered| {
                    (found.superblock.seq, found.chain.as_ref().map_or(0, |chain| chain.seq))
                };
                let (found, wanted) = (seqs(&found), seqs(&acknowledged));
                assert!(found <= wanted, "{found:?} is newer than {wanted:?}");
                if found < wanted {
                    return "lost";
                }
            }
        }
    }
    "kept"
}

/// The same, but not for ever.
fn outcome_in_time(operation: &'static str, fault: &'static str) -> String {
    let (report, reported) = mpsc::channel();
    let run = std::thread::spawn(move || report.send(outcome(operation, fault)));
    match reported.recv_timeout(Duration::from_secs(100)) {
        Ok(outcome) => outcome.to_owned(),
        Err(mpsc::RecvTimeoutError::Timeout) => format!("{operation}, {fault}: hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let panic = run.join().expect_err("it sent nothing");
            let text = panic.downcast_ref::<String>().cloned();
            format!("{operation}, {fault}: {}", text.unwrap_or_else(|| "a panic".to_owned()))
        }
    }
}

/// The cells of the table, head and rows.
fn table() -> Vec<Vec<String>> {
    let text = include_str!("../FAULTS.md");
    let rows = text.lines().filter(|line| line.starts_with("| "));
    rows.map(|row| {
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.trim().to_owned()).collect()
    })
    .collect()
}

#[test]
fn what_the_table_says_is_what_happens() {
    let table = table();
    assert_eq!(table[0][0], "operation");
    assert_eq!(table[0][1..], FAULTS, "a column for each fault");
    let rows: Vec<_> = table[1..].iter().map(|row| &*row[0]).collect();
    assert_eq!(rows, OPERATIONS, "a row for each operation");
    let mut wrong = Vec::new();
    for (operation, row) in OPERATIONS.into_iter().zip(&table[1..]) {
        for (fault, wanted) in FAULTS.into_iter().zip(&row[1..]) {
            let found = outcome_in_time(operation, fault);
            if found != *wanted {
                wrong.push(format!("{operation}, {fault}: the table says {wanted}, but: {found}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
