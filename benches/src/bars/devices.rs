//! P9 and P10: a prio write, and opening a device, beside fio on the same file.
//!
//! The device has 16 Mi buckets of 64 KiB: a sparse file of 1 TiB, of which only what is written
//! exists. Its journal, the buckets of the prio chains and the range that fio works on are
//! written once before: the first write to a hole costs the file system more.
//!
//! What is compared: a prio write takes from its beginning until its journal entry is durable,
//! and counts the bytes of its sets only; fio writes as many bytes with the same block size and
//! depth and one flush at the end. Opening takes from the path until the allocator's table is
//! built, the durable write of the superblock included, and counts every byte that the kernel says
//! it read from the device, also those that were read in vain; fio reads as many in blocks of
//! 1 MiB at depth 8.

use super::Bench;
use super::device_file::DeviceFile;
use super::fio::{self, Job};
use super::row::{Better, Figure, Goal};
use crate::measure::{Stopwatch, Subject, process_cpu};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use tierce_core::record::crc::checksum;
use tierce_core::{Geometry, Reserve};
use tierce_io::prio_writer::SETS_IN_FLIGHT_MAX;
use tierce_io::{FormatOptions, OpenOptions, StateWriter, Volume, Work, Worked};
use tierce_lockfree::{Allocator, Config, Startup, huge_pages};

const BUCKET: u32 = 64 << 10;
/// At the end of the device, where the allocator does not come in the time: fio's.
const FIO_BYTES: u64 = 256 << 20;
const READ_BLOCK: u64 = 1 << 20;
/// Times as many rounds as other bars have: a turn takes a hundredth of a second, and a host that
/// does something else for that long is not what is measured.
const ROUNDS: usize = 3;

pub(super) fn prio_write(bench: &mut Bench<'_>) {
    on_devices(bench, prio_write_on);
    crc(bench);
}

pub(super) fn open(bench: &mut Bench<'_>) {
    on_devices(bench, open_on);
}

/// Measures on a sparse file and on a loop device in memory.
fn on_devices(bench: &mut Bench<'_>, measure: fn(&mut Bench<'_>, &DeviceFile, &str)) {
    let nbuckets: u32 = if bench.plan.rounds == 1 { 32 << 10 } else { 16 << 20 };
    let size = if bench.plan.rounds == 1 { "32 Ki" } else { "16 Mi" };
    if !fio::is_installed() {
        let note = "fio is not installed: P9 and P10 have no peer, and no verdict";
        bench.results.notes.push(note.to_owned());
    }
    let bytes = u64::from(nbuckets) * u64::from(BUCKET);
    let (on_disk, in_memory) = (DeviceFile::on_disk(bytes), DeviceFile::in_memory(bytes));
    for file in [on_disk, in_memory] {
        match file.and_then(|file| prepare(file.path(), bytes).map(|()| file)) {
            Ok(file) => measure(bench, &file, &format!("{size} buckets, {}", file.name)),
            Err(error) => {
                let note = format!("left out: a device of {bytes} bytes cannot be had: {error}");
                bench.results.notes.push(note);
            }
        }
    }
}

/// Formats, and writes journal and fio's range once.
fn prepare(path: &Path, bytes: u64) -> std::io::Result<()> {
    let options = FormatOptions::default().bucket(BUCKET).force(true);
    let superblock = tierce_io::format(path, &options).expect("the device can be formatted");
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    for bucket in superblock.first_use(0).journal_buckets() {
        let offset = u64::from(bucket.get()) * u64::from(BUCKET);
        file.write_all_at(&[0; BUCKET as usize], offset)?;
    }
    let block = vec![0xa5; READ_BLOCK as usize];
    for offset in (bytes - FIO_BYTES..bytes).step_by(block.len()) {
        file.write_all_at(&block, offset)?;
    }
    file.sync_all()
}

/// An allocator that does nothing but prio writes, to two chains in turns.
fn writer(path: &Path) -> (Arc<Allocator>, Work) {
    let volume = Volume::open(path, &OpenOptions::default()).expect("formatted");
    let (table, writer) = volume.into_start();
    let startup = Allocator::start(Config::default(), vec![table]).expect("a valid table");
    let (allocator, mut reclaimers) = startup.finish();
    let mut work = Work::new(reclaimers.remove(0), writer);
    while !matches!(work.step().expect("the device works"), Worked::Wait(_)) {}
    // Chains come from `none` first, which would be new ones each time: leave one chain there.
    let mut held: Vec<_> =
        std::iter::from_fn(|| allocator.try_alloc(Reserve::None).expect("in use")).collect();
    let sets = allocator.geometry(tierce_core::DeviceIndex::FIRST).prio_buckets() as usize;
    held.drain(..sets);
    // The rest stays allocated for good.
    std::mem::forget(held);
    for _ in 0..3 {
        assert_eq!(work.write_now().expect("the device works"), Worked::Wrote);
    }
    (allocator, work)
}

fn prio_write_on(bench: &mut Bench<'_>, file: &DeviceFile, setting: &str) {
    let path = file.path();
    let (allocator, mut work) = writer(path);
    let geometry: Geometry = *allocator.geometry(tierce_core::DeviceIndex::FIRST);
    let bytes = u64::from(geometry.prio_buckets()) * u64::from(geometry.meta_bytes());
    let device_bytes = u64::from(geometry.nbuckets()) * u64::from(BUCKET);
    let own = Subject::new("tierce", move || {
        let (watch, cpu) = (Stopwatch::start(), process_cpu());
        assert_eq!(work.write_now().expect("the device works"), Worked::Wrote);
        let took = watch.took().wall.as_secs_f64();
        let cpu = process_cpu().saturating_sub(cpu).as_secs_f64();
        vec![bytes as f64 / took / 1e9, cpu * 1e3 / (bytes as f64 / 1e9)]
    });
    let job = Job {
        path,
        write: true,
        offset: device_bytes - FIO_BYTES,
        bytes,
        block: geometry.meta_bytes().into(),
        depth: SETS_IN_FLIGHT_MAX as u32,
    };
    let peer =
        fio::is_installed().then(|| Subject::new("fio", move || vec![job.run() / 1e9, f64::NAN]));
    let figures = [
        goals(Figure::new("P9", "prio write", setting, "GB/s", Better::More), file),
        Figure::new("P9", "prio write, CPU", setting, "ms/GB", Better::Less).against("fio"),
    ];
    measure_often(bench, &figures, std::iter::once(own).chain(peer).collect());
}

fn measure_often(bench: &mut Bench<'_>, figures: &[Figure], subjects: Vec<Subject<'_>>) {
    let rounds = bench.plan.rounds;
    let rounds = if rounds == 1 { rounds } else { ROUNDS * rounds };
    bench.measure_rounds(rounds, figures, subjects);
}

/// The bars are for a file; a loop device shows what software costs.
fn goals(figure: Figure, file: &DeviceFile) -> Figure {
    let figure = figure.against("fio");
    match file.name {
        "file" => figure.goals(Goal::Times(0.8), Goal::Times(0.95)),
        _ => figure,
    }
}

fn open_on(bench: &mut Bench<'_>, file: &DeviceFile, setting: &str) {
    let path = file.path();
    let geometry = {
        // One prio write at least, also if P9 is not measured.
        let (allocator, _work) = writer(path);
        *allocator.geometry(tierce_core::DeviceIndex::FIRST)
    };
    let Some(before) = bytes_read() else {
        let note = "P10 is left out: this kernel does not count what a process reads";
        bench.results.notes.push(note.to_owned());
        return;
    };
    drop(open_once(path));
    let bytes = bytes_read().expect("as before") - before;
    let own = Subject::new("tierce", move || {
        have_memory_ready(geometry.nbuckets());
        let before = bytes_read().expect("as before");
        let (watch, cpu) = (Stopwatch::start(), process_cpu());
        let opened = open_once(path);
        let took = watch.took().wall.as_secs_f64();
        let cpu = process_cpu().saturating_sub(cpu).as_secs_f64();
        let read = bytes_read().expect("as before") - before;
        drop(opened);
        vec![read as f64 / took / 1e9, cpu * 1e3 / (read as f64 / 1e9)]
    });
    let device_bytes = u64::from(geometry.nbuckets()) * u64::from(BUCKET);
    let job = Job {
        path,
        write: false,
        offset: device_bytes - FIO_BYTES,
        bytes: bytes / READ_BLOCK * READ_BLOCK,
        block: READ_BLOCK,
        depth: 8,
    };
    let peer = || {
        Subject::new("fio", move || {
            have_memory_ready(geometry.nbuckets());
            vec![job.run() / 1e9, f64::NAN]
        })
    };
    let peer = fio::is_installed().then(peer);
    let figures = [
        goals(Figure::new("P10", "open", setting, "GB/s", Better::More), file),
        Figure::new("P10", "open, CPU", setting, "ms/GB", Better::Less).against("fio"),
    ];
    measure_often(bench, &figures, std::iter::once(own).chain(peer).collect());
}

/// Uses as much memory as a table of so many buckets and half as much again, and frees it: the
/// warm-up of a turn, whosever it is. The host of a virtual machine may take away what its guests
/// do not use, within seconds, and some need milliseconds for each large page to give it back.
/// That would be most of what is measured, and would hit who needs more memory. What the guest's
/// system does, clearing the pages, is left to whoever gets them.
fn have_memory_ready(nbuckets: u32) {
    const PAGE: usize = 4096 / size_of::<u64>();
    let mut memory: Vec<u64> = Vec::with_capacity(nbuckets as usize / 2 * 3);
    huge_pages::ask_for(memory.spare_capacity_mut());
    for place in memory.spare_capacity_mut().iter_mut().step_by(PAGE) {
        std::hint::black_box(place).write(0);
    }
}

/// From the path to the table.
fn open_once(path: &Path) -> (Startup, StateWriter) {
    let volume = Volume::open(path, &OpenOptions::default()).expect("a sound device");
    let (table, writer) = volume.into_start();
    (Allocator::start(Config::default(), vec![table]).expect("a valid table"), writer)
}

/// What this process has fetched from devices so far, as the kernel counts it; what came from a
/// page cache is not in it.
fn bytes_read() -> Option<u64> {
    let counts = std::fs::read_to_string("/proc/self/io").ok()?;
    counts.lines().find_map(|line| line.strip_prefix("read_bytes: ")?.parse().ok())
}

/// The checksum of a prio set, alone.
fn crc(bench: &mut Bench<'_>) {
    let set = vec![0x5a; BUCKET as usize];
    let times = (bench.plan.sample.as_micros() as u64 / 10).max(1);
    let own = Subject::new("tierce", || {
        let watch = Stopwatch::start();
        for _ in 0..times {
            std::hint::black_box(checksum(std::hint::black_box(&set)));
        }
        vec![(times * set.len() as u64) as f64 / watch.took().cpu.as_nanos() as f64]
    });
    let figure = Figure::new("P9", "CRC of a set", "64 KiB, 1 thread", "GB/s", Better::More);
    bench.measure(&[figure.goals(Goal::AtLeast(5.0), Goal::AtLeast(25.0))], vec![own]);
}
