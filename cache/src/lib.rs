//! A key-value cache on a flash device: what a user of the tierce allocator builds.
//!
//! ```
//! use tierce_cache::{Cache, Config};
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("cache");
//! let options = tierce_io::FormatOptions {
//!     size: Some(64 << 20),
//!     bucket: 64 << 10,
//!     ..Default::default()
//! };
//! tierce_io::format(&path, &options)?;
//!
//! let cache = Cache::open(Config::new(&path))?;
//! cache.insert(b"key", b"value")?;
//! let mut value = Vec::new();
//! assert!(cache.get(b"key", &mut value)?);
//! assert_eq!(value, b"value");
//! assert!(cache.remove(b"key")?);
//! assert!(!cache.get(b"key", &mut value)?);
//! cache.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it works
//!
//! * **insert** (`cache.rs`): takes sectors of an open bucket, writes header, key and value there
//!   (`entry.rs`), *then* enters the key into the index, *then* drops the extent's pin. Garbage
//!   collection relies on this order.
//! * **get**: begins a read, looks the key up, reads, and accepts only if the bucket was not
//!   reused meanwhile, the checksum holds and the whole key is equal. Everything else is a miss,
//!   and counted by reason.
//! * **The index** (`index.rs`) is a sharded table in memory: hash of the key → bucket, gen,
//!   place. No lock of it is held across I/O or while waiting for space.
//! * **Space**: buckets are reused by the allocator's policy. A bucket that is reused makes all
//!   pointers into it stale at once; they are removed when they are met, at the latest by the
//!   garbage collection (`collector.rs`), a thread that sleeps until one is due.
//!
//! # After a crash, or any restart
//!
//! The index lives in memory only, so a cache opens empty. It never serves data of an earlier
//! run: no pointer to it exists any more. What survives is the state of the buckets.
//!
//! # What it does not do yet
//!
//! One device, values up to a bucket less a block, blocking calls.
#![forbid(unsafe_code)]

pub mod cache;
pub mod config;
pub mod error;
pub mod stats;

mod collector;
mod entry;
mod index;

pub use cache::Cache;
pub use config::Config;
pub use error::Error;
pub use stats::Stats;
