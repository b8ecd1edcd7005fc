//! What cache coherence alone makes of each path on many cores: a discrete simulation, the model
//! behind `benches/SCALING.md`. `cargo run --release --example coherence [LOCAL_NS REMOTE_NS]`
//!
//! Cores run operations one after the other. An operation is private work and writes to cache
//! lines. A write costs `LOCAL_NS` if the core wrote the line last, else `REMOTE_NS`, and begins
//! when the line has come to whoever wanted it before: a line moves to one core at a time. A lock
//! keeps its line until its section ends. Nothing else of a machine is in it: no prefetching, no
//! sockets, no limits of memory. Deterministic.

/// What a core does: lines are named by (what, which).
enum Step {
    /// Writes a line that only this core uses.
    Private,
    /// Writes the one line of that number that all cores use.
    Shared(usize),
    /// Writes one of so many lines, each time another.
    OneOf(usize),
    /// Takes the lock, does these private steps, so many ns and shared lines inside, lets go.
    Locked { work: f64, lines: usize },
    /// Once in so many operations.
    Every(u64, Box<Step>),
}
use Step::{Every, Locked, OneOf, Private, Shared};

struct Path {
    name: &'static str,
    /// Work that writes nothing others see, in ns.
    work: f64,
    steps: Vec<Step>,
}

struct Line {
    owner: usize,
    free_at: f64,
}

struct Machine {
    local: f64,
    remote: f64,
    lines: Vec<Line>,
}

/// Shared lines that are always the same come first, then those of which one is chosen.
const FIXED: usize = 64;

impl Machine {
    fn write(&mut self, core: usize, now: f64, line: usize, hold: f64) -> f64 {
        if self.lines.len() <= line {
            self.lines.resize_with(line + 1, || Line { owner: usize::MAX, free_at: 0.0 });
        }
        let line = &mut self.lines[line];
        let cost = if line.owner == core { self.local } else { self.remote };
        let start = if line.owner == core { now } else { now.max(line.free_at) };
        line.owner = core;
        line.free_at = start + cost + hold;
        line.free_at
    }

    fn step(&mut self, step: &Step, core: usize, now: f64, turn: u64) -> f64 {
        match step {
            Private => now + self.local,
            Shared(line) => self.write(core, now, *line, 0.0),
            OneOf(count) => {
                let mixed = (turn + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
                let which = mixed.wrapping_add(core as u64 * 0xD1B5_4A32_D192_ED03) >> 16;
                self.write(core, now, FIXED + which as usize % count, 0.0)
            }
            Locked { work, lines } => {
                // What the section writes was written by whoever had the lock before.
                let inside = if self.lines.first().is_some_and(|lock| lock.owner == core) {
                    self.local
                } else {
                    self.remote
                };
                self.write(core, now, 0, work + inside * *lines as f64 + self.local)
            }
            Every(turns, step) if turn.is_multiple_of(*turns) => self.step(step, core, now, turn),
            Every(..) => now,
        }
    }
}

/// Operations per microsecond of all cores together.
fn throughput(path: &Path, cores: usize, (local, remote): (f64, f64)) -> f64 {
    const EACH: u64 = 2000;
    let mut machine = Machine { local, remote, lines: Vec::new() };
    let (mut clocks, mut turns) = (vec![0.0f64; cores], vec![0u64; cores]);
    let mut done = 0;
    while done < EACH * cores as u64 {
        // Whoever is first in time.
        let first = |a: &usize, b: &usize| clocks[*a].total_cmp(&clocks[*b]);
        let core = (0..cores).min_by(first).expect("there is a core");
        let begun = clocks[core] + path.work;
        let turn = turns[core];
        let end = path.steps.iter().fold(begun, |now, s| machine.step(s, core, now, turn));
        (clocks[core], turns[core], done) = (end, turn + 1, done + 1);
    }
    let took = clocks.iter().fold(0.0f64, |most, &clock| most.max(clock));
    done as f64 / took * 1e3
}

fn paths() -> Vec<Path> {
    let step = |every, step| Every(every, Box::new(step));
    vec![
        Path {
            name: "pair, own cells",
            work: 12.0,
            steps: vec![Private, Private, Private, Private],
        },
        Path {
            name: "pair, words of neighbours elsewhere",
            work: 12.0,
            steps: vec![Private, OneOf(256), OneOf(256), Private],
        },
        Path {
            name: "alloc → written, refilled 8 at a time",
            work: 12.0,
            steps: vec![Private, Private, Private, step(8, Shared(1)), step(8, Shared(2))],
        },
        Path {
            name: "8 sectors, own slot",
            work: 18.0,
            steps: vec![Private, step(128, Shared(1))],
        },
        Path { name: "8 sectors, all on one slot", work: 8.0, steps: vec![Shared(1), Shared(2)] },
        Path { name: "read hit", work: 3.0, steps: Vec::new() },
        Path {
            name: "bare queue, pop + push",
            work: 4.0,
            steps: vec![Shared(1), OneOf(4096), Shared(2), OneOf(4096)],
        },
        Path {
            name: "one lock, pair",
            work: 5.0,
            steps: vec![Locked { work: 15.0, lines: 2 }, Locked { work: 15.0, lines: 2 }],
        },
    ]
}

fn main() {
    let given: Vec<f64> = std::env::args().skip(1).filter_map(|n| n.parse().ok()).collect();
    let (local, remote) = match given[..] {
        [local, remote] => (local, remote),
        _ => (6.3, 80.0),
    };
    let counts = [1, 2, 4, 16, 64, 128];
    println!("million operations per second; write {local} ns, from another core {remote} ns");
    println!("| path | {} |", counts.map(|n| n.to_string()).join(" | "));
    println!("|---|{}", "---:|".repeat(counts.len()));
    for path in paths() {
        let cells = counts.map(|n| format!("{:.1}", throughput(&path, n, (local, remote))));
        println!("| {} | {} |", path.name, cells.join(" | "));
    }
}
