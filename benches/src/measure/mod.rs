//! What is measured around the cache and the allocator, and how: time of operations, memory,
//! rounds in which subject and peers take turns, and the machine.

mod clock;
mod environment;
mod latency;
mod memory;
mod number;
mod priority;
mod rounds;
mod threads;

pub(crate) use clock::process_cpu;
pub use clock::{Stopwatch, Took, rmw_nanos, timer_nanos};
pub use environment::{Environment, Load};
pub use latency::{Latency, LatencySummary};
pub use memory::rss_bytes;
pub(crate) use number::{number, numbers};
pub use priority::{NormalPriority, Priority};
pub use rounds::{Spread, Subject, Turns, take_turns};
pub use threads::{Run, private_counters, run_for};
