//! What is measured around the cache: how long operations take, how much memory is used.

mod latency;
mod memory;

pub use latency::{Latency, LatencySummary};
pub use memory::rss_bytes;
