//! P14 and P15: what tierce does for itself: the CPU time of an idle volume, and the bytes it
//! writes for each byte of its users.

use super::Bench;
use super::row::{Better, Figure, Goal};
use crate::measure::Subject;
use std::time::Duration;
use tierce_core::Reserve;
use tierce_io::{
    FormatOptions, OpenOptions, Owner, Pipeline, Sim, SimOptions, Volume, Work, Worked, format,
    format_on,
};
use tierce_lockfree::{Allocator, Config, WaitFor};

/// How many buckets are written between two looks of the pipeline: it keeps up.
const BUCKETS_BETWEEN: u32 = 16;

/// P14: a ring (or blocking threads), a pipeline and an allocator for 10 s.
pub(super) fn idle(bench: &mut Bench<'_>) {
    let time = if bench.plan.rounds == 1 { Duration::from_millis(50) } else { IDLE };
    let path = std::env::temp_dir().join(format!("tierce-idle-{}", std::process::id()));
    let options = FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
    format(&path, &options).expect("there is room for 64 MiB");
    let volume = Volume::open(&path, &OpenOptions::default()).expect("formatted");
    let (table, writer) = volume.into_start();
    let startup = Allocator::start(Config::default(), vec![table]).expect("a valid table");
    let (allocator, mut reclaimers) = startup.finish();
    let pipeline = Pipeline::start(reclaimers.remove(0), writer).expect("a thread");
    // Until what can be done ahead is done.
    let mut before = None;
    while before.replace(pipeline.stats()) != Some(pipeline.stats()) {
        std::thread::sleep(Duration::from_millis(300));
    }
    let own = Subject::new("tierce", || {
        let before = Threads::read();
        std::thread::sleep(time);
        let after = Threads::read();
        vec![
            (after.cpu_nanos - before.cpu_nanos) as f64 / 1e6,
            (after.switches - before.switches) as f64,
        ]
    });
    let setting = format!("{} s", time.as_secs());
    let figure = |name, unit| Figure::new("P14", name, setting.clone(), unit, Better::Less);
    let goals = |must| (Goal::AtMost(must), Goal::AtMost(0.0));
    let (cpu, switches) = (goals(1.0), goals(10.0));
    let figures = [
        figure("idle, CPU", "ms").goals(cpu.0, cpu.1),
        figure("idle, context switches", "").goals(switches.0, switches.1),
    ];
    // Doing nothing does not vary: one round after the warm-up.
    bench.measure_rounds(1, &figures, vec![own]);
    drop(allocator);
    pipeline.close().expect("the device works");
    if let Err(error) = std::fs::remove_file(&path) {
        eprintln!("{} is not removed: {error}", path.display());
    }
}

const IDLE: Duration = Duration::from_secs(10);

/// What the threads of tierce in this process used so far.
struct Threads {
    cpu_nanos: u64,
    switches: u64,
}

impl Threads {
    fn read() -> Self {
        let mut sum = Self { cpu_nanos: 0, switches: 0 };
        let mut found = 0;
        for task in std::fs::read_dir("/proc/self/task").expect("procfs").flatten() {
            let file = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            if !file("comm").starts_with("tierce-") {
                continue;
            }
            found += 1;
            let number = |text: Option<&str>| text.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
            sum.cpu_nanos += number(file("schedstat").split_whitespace().next());
            let status = file("status");
            let switches = status.lines().filter(|line| line.contains("ctxt_switches"));
            sum.switches +=
                switches.map(|line| number(line.split_whitespace().nth(1))).sum::<u64>();
        }
        assert!(found > 0, "the ring's thread and the reclaiming thread are there");
        sum
    }
}

/// P15: every bucket of a device is reused a few times, by LRU, with nothing alive in it.
pub(super) fn write_amplification(bench: &mut Bench<'_>) {
    let devices: &[(u32, u32)] = match bench.plan.quick {
        true if bench.plan.rounds == 1 => &[(2048, 64)],
        true => &[(2048, 64), (64 << 10, 64), (64 << 10, 512), (64 << 10, 2048)],
        false => &[
            (2048, 64),
            (2048, 512),
            (2048, 2048),
            (64 << 10, 64),
            (64 << 10, 512),
            (64 << 10, 2048),
            (256 << 10, 64),
        ],
    };
    for &(nbuckets, kib) in devices {
        let most = if nbuckets < 64 << 10 { 3.0 } else { 1.0 };
        let setting = format!("{nbuckets} buckets of {kib} KiB");
        let name = "own writes per user's byte";
        let figure = Figure::new("P15", name, setting, "%", Better::Less);
        let figure = figure.goals(Goal::AtMost(most), Goal::AtMost(most / 2.0));
        // Counted, not measured: it is the same in every round.
        let percent = 100.0 * amplification(nbuckets, kib << 10);
        let own = Subject::new("tierce", move || vec![percent]);
        bench.measure_rounds(1, &[figure], vec![own]);
    }
}

fn amplification(nbuckets: u32, bucket: u32) -> f64 {
    let bytes = u64::from(nbuckets) * u64::from(bucket);
    let device = Sim::new(&SimOptions::default().bytes(bytes));
    let options = FormatOptions::default().bucket(bucket).force(true);
    format_on(&*device, &options).expect("a device of zeros");
    let volume = Volume::open_on(device, Owner::Allocator).expect("formatted");
    let block = u64::from(volume.geometry().block_bytes());
    let (table, writer) = volume.into_start();
    let startup = Allocator::start(Config::default(), vec![table]).expect("a valid table");
    let (allocator, mut reclaimers) = startup.finish();
    let mut work = Work::new(reclaimers.remove(0), writer);
    let mut keep_up = || loop {
        match work.step().expect("the device works") {
            Worked::Wait(WaitFor::Gc) => allocator.begin_gc().expect("the only one").finish(),
            Worked::Wait(_) => return work.stats(),
            _ => {}
        }
    };
    let before = keep_up();
    let users = nbuckets * 3;
    for written in 0..users {
        let bucket = allocator.try_alloc(Reserve::None).expect("in use");
        bucket.expect("the pipeline keeps up").written();
        if written % BUCKETS_BETWEEN == 0 {
            keep_up();
        }
    }
    let after = keep_up();
    let prios = after.prio_write_bytes - before.prio_write_bytes;
    let entries = (after.prio_write_total - before.prio_write_total) * block;
    (prios + entries) as f64 / (u64::from(users) * u64::from(bucket)) as f64
}
