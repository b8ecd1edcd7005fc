//! A key-value cache on flash devices: what a user of the tierce allocator builds.
//!
//! ```
//! use tierce_cache::{Cache, Config};
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("cache");
//! let options = tierce_io::FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
//! tierce_io::format(&path, &options)?;
//!
//! let cache = Cache::open(Config::new(&path))?;
//! cache.insert(b"key", b"value")?;
//! assert_eq!(cache.get(b"key")?.as_deref(), Some(&b"value"[..]));
//! cache.close()?;
//!
//! let cache = Cache::open(Config::new(&path))?; // as it was
//! assert_eq!(cache.get(b"key")?.as_deref(), Some(&b"value"[..]));
//! assert!(cache.remove(b"key")?);
//! assert_eq!(cache.get(b"key")?, None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it promises
//!
//! * A hit is the newest value that was acknowledged for its key, byte for byte. Whatever is
//!   damaged, torn, reused or of another key is a miss, counted by reason in [`Stats`].
//! * Nothing is dropped silently: an insert that cannot be stored waits, or says so.
//! * After [`flush`](Cache::flush), [`close`](Cache::close), `insert_durable` or `remove_durable`,
//!   what was acknowledged before survives a power loss, for as long as its bucket is not reused.
//!   A removed key stays removed, an overwritten value stays overwritten.
//! * What was not flushed may, after a power loss, be there, be gone, or be an *older* value of the
//!   same key; never anything else. (After a kill of the process what was written by then is there.)
//! * A device that fails takes its share of the entries with it: they become misses. The others
//!   go on.
//!
//! # How it works
//!
//! | file | read it to learn |
//! |---|---|
//! | `engine.rs` | every operation, once, as a future: what comes before what |
//! | `stream.rs` | buckets are filled record by record, and who waits for what |
//! | `life.rs` | a bucket between memory and device |
//! | `layout.rs` | the bytes in a bucket |
//! | `index.rs`, `table.rs`, `packed.rs` | where each key's value is: 12 bytes, and few beside them |
//! | `fetch.rs` | reading a record: from memory, a write buffer, or the device |
//! | `memory.rs` | copies in memory, and why nothing old is served from them |
//! | `recover.rs`, `open.rs` | coming back warm |
//! | `lineage.rs`, `evict.rs` | why what was removed or overwritten never comes back |
//! | `reinsert.rs`, `going.rs` | what was hit outlives its bucket; what is about to go is read |
//! | `void.rs` | what a device that failed may not bring back |
//! | `spread.rs` | values that do not fit what is left of a bucket, or a bucket |
//! | `budget.rs`, `flights.rs`, `block.rs` | waiting: for memory, for who fetches the same key, without a runtime |
//! | `collector.rs` | garbage collection: a thread that sleeps until it is due |
//! | `stats.rs`, `metrics.rs`, `events.rs` | what is counted, and what can be listened to |
//!
//! Buckets are reused by the allocator's policy. A bucket that is reused makes all pointers into
//! it stale at once; they are removed when they are met, at the latest by the garbage collection.
//!
//! # Memory
//!
//! Up to [`Config::write_buffer_bytes`] for values on their way to the device, kept when it is not
//! needed; up to [`Config::memory_bytes`] (none unless told) for copies of what is read or was
//! inserted lately; and about 16 bytes per entry for the index. A copy saves the read of the device,
//! nothing else: what is in the cache does not depend on it. [`Stats`] says how much of each is in
//! use.
//!
//! With [`Config::reinsert_after`] what was hit is written anew before its bucket goes, and with
//! [`Config::lru_sample`] the bucket that goes is the least recently used of a few at random: both
//! together withstand scans and loops that are longer than the cache, for more writes
//! (`benches/results/traces.md` of the repository has figures).
//!
//! # What can be seen
//!
//! [`Cache::stats`] has everything that is counted, of the cache and of each device; with the feature
//! `serde` it can be serialised, and with the feature `metrics` a `Metrics` hands it to whichever
//! recorder of the crate `metrics` is installed, under documented names. Nothing is counted for it
//! twice: a get costs the same with the feature and without. With the feature `tracing` requests,
//! flushes, garbage collections, the recovery and failures are spans and events of that crate.
//!
//! # Threads
//!
//! One per device that makes buckets free again, one for garbage collection, and what performs the
//! devices' operations. All sleep while there is nothing to do.
#![forbid(unsafe_code)]

pub mod cache;
pub mod codec;
pub mod config;
pub mod error;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod stats;

mod block;
mod budget;
mod collector;
mod engine;
mod events;
mod evict;
mod fetch;
mod flights;
mod going;
mod index;
mod layout;
mod life;
mod lineage;
mod memory;
mod open;
mod packed;
mod recover;
mod reinsert;
mod spread;
mod stream;
mod table;
#[cfg(test)]
mod testing;
mod void;

pub use cache::Cache;
pub use codec::{BadCode, Code};
pub use config::{Config, Put, WhenFull};
pub use error::Error;
#[cfg(feature = "metrics")]
pub use metrics::Metrics;
pub use stats::{DeviceStats, Stats};
