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
//! * A hit is the newest value that was acknowledged for its key, byte for byte (after a restart:
//!   on media without damage, see below). Whatever is damaged, torn, reused or of another key is a
//!   miss, counted by reason in [`Stats`].
//! * Nothing is dropped silently: an insert that cannot be stored waits, or says so.
//! * After [`flush`](Cache::flush), [`close`](Cache::close), `insert_durable` or `remove_durable`,
//!   what was acknowledged before survives a power loss, for as long as its bucket is not reused.
//!   A removed key stays removed, an overwritten value stays overwritten.
//! * What was not flushed may, after a power loss, be there, be gone, or be an *older* value of the
//!   same key; never anything else. (After a kill of the process what was written by then is there.)
//! * A device that fails takes its share of the entries with it: they become misses. The others
//!   go on.
//! * Damaged bytes are never served. As long as the cache is open nothing else takes their place: a
//!   get that meets them is a miss, counted as [`Stats::corrupt`]. A restart knows of a record only
//!   from its bucket, so damage there can hide the newest record of a key, also one that says that
//!   the key was removed; then an *older* value is found that is still in another bucket. It has to
//!   be damage of a bucket's header, which hides all of the bucket, of its list of dead records, or
//!   of a record in a bucket without a summary (it was not full before a crash, or that is damaged
//!   as well), which may also hide those behind it. None of this is counted: to a restart it looks
//!   as a bucket that was never written, or the end of what was. Who cannot bear it keeps a version
//!   in the value and compares that.
//!
//! # Coming back
//!
//! [`Cache::open`] returns when it is known what is on the devices: seconds for ten million entries.
//! With [`Config::recover`] it returns at once, and gets are answered as far as the answer is known:
//!
//! ```
//! use tierce_cache::{Cache, Config, Recover};
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("cache");
//! # let options = tierce_io::FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
//! # tierce_io::format(&path, &options)?;
//! let cache = Cache::open(Config::new(&path).recover(Recover::MissMeanwhile))?;
//! assert_eq!(cache.get(b"key")?, None); // at once: not there, or not known yet
//! cache.insert(b"key", b"value")?; // waits until all is known
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Faults
//!
//! What happens when something is not as it should be. Whatever the cause, a miss is counted by its
//! reason in [`Stats`]; "cold" says that nothing that was on the devices counts any more, now and
//! later, of which the `log` facade is warned.
//!
//! | what | then |
//! |---|---|
//! | an empty key | [`Error::EmptyKey`], of every operation |
//! | an empty value | is a value |
//! | a key or value that is too large | [`Error::TooLarge`], nothing is written, an older value stays; [`Cache::value_bytes_max`] says how large. A get or remove of such a key finds nothing |
//! | a key or value of another type than was stored | [`Error::Code`] |
//! | inserts and removes of a key at the same time | one after the other, in some order; every get that begins later, and every restart, finds the same end |
//! | no memory or no bucket | the insert waits, at most [`Config::space_timeout`]: [`Error::TimedOut`]; or it is told at once ([`WhenFull::Fail`]): [`Error::Full`]. An older value stays |
//! | a fill ([`Cache::get_with`]) that asks for the key that it fills | [`Error::FillsItself`] |
//! | a future that is dropped | its insert or remove took place or not; nothing is left behind |
//! | a device that fails a write or flush | it is out of use. A flush says once that something was lost, so do all that were under way, and every `insert_durable` and `remove_durable`. Its entries are misses or can still be read, inserts go to the others; without others they return [`Error::Space`] with the cause |
//! | a device that fails a read | a miss |
//! | damaged bytes | a miss; met by a restart they may also bring back an older value, as told above |
//! | a device that failed, at the next start | nothing of it counts if the others went on without it |
//! | a bucket that cannot be read at open | cold: it may have held what is newer than anything else |
//! | a device that can be neither read nor written at open | the open fails; while [recovering](Recover) every insert, remove and flush does, and gets miss |
//! | opened twice | the second one is refused: [`Error::Io`], in use |
//! | a device named twice, or with a copy of itself | [`Error::Twice`] |
//! | devices of other bucket or block sizes than the first | [`Error::Geometry`]; nothing is changed, as whenever an open fails |
//! | buckets with no room for records, or several devices with buckets below 16 KiB | [`Error::SmallBuckets`] |
//! | a device that became shorter, is not formatted, or holds somebody else's data | [`Error::Io`] says what was found and wanted |
//! | a device that was formatted anew | is empty |
//! | a device is missing | cold: it may have held what is newer |
//! | a device that is new, of another cache, or was left out meanwhile | it is used, nothing of what is on it counts |
//! | an old copy of a device in its stead | cold |
//! | the devices in another order | as before, but values in parts (larger than fits the rest of a bucket) are misses |
//! | another version of the cache's format, older or newer, or flags that are not known | cold |
//! | a version of the superblock that is not known | [`Error::Io`] |
//! | the [clock](Clock) jumps forwards | entries with a time to live expire earlier |
//! | it jumps backwards, also across a restart | they expire later; what had expired and is still stored is there again, unless it was overwritten or removed |
//! | a device that does not answer | what needs it waits; closing a cache that is [recovering](Recover) gives up after [`Config::space_timeout`] |
//! | a power loss or kill, at any time, also while recovering | as promised above |
//!
//! # How it works
//!
//! | file | read it to learn |
//! |---|---|
//! | `engine.rs` | every operation, once, as a future: what comes before what |
//! | `flush.rs` | what is durable when, and who is told of what is lost |
//! | `stream.rs` | buckets are filled record by record, and who waits for what |
//! | `life.rs` | a bucket between memory and device |
//! | `layout.rs` | the bytes in a bucket |
//! | `index.rs`, `table.rs`, `packed.rs` | where each key's value is: 12 bytes, and few beside them |
//! | `fetch.rs` | reading a record: from memory, a write buffer, or the device |
//! | `memory.rs` | copies in memory, and why nothing old is served from them |
//! | `admission.rs` | which records are copied into memory at all |
//! | `recover.rs`, `scan.rs`, `summary.rs`, `open.rs` | coming back warm |
//! | `warm.rs` | requests while it comes back |
//! | `lineage.rs`, `evict.rs` | why what was removed or overwritten never comes back |
//! | `reinsert.rs`, `going.rs` | what was hit outlives its bucket; what is about to go is read |
//! | `void.rs`, `members.rs` | what a device that failed, or was not there, may not bring back |
//! | `spread.rs` | values that do not fit what is left of a bucket, or a bucket |
//! | `budget.rs`, `flights.rs`, `block.rs`, `wakers.rs` | waiting: for memory, for who fetches the same key, without a runtime |
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
//! What was hit is written anew before its bucket goes ([`Config::reinsert_after`]), and the bucket
//! that goes is the one of a few at random that is least likely to be used again soon, as learned
//! from when buckets are used ([`Config::lru_sample`]): both together withstand scans and loops that
//! are longer than the cache, for more writes (`benches/results/traces.md` of the repository has
//! figures). Both can be switched off.
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
pub mod clock;
pub mod codec;
pub mod config;
pub mod error;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod stats;

mod admission;
mod block;
mod budget;
mod collector;
mod engine;
mod events;
mod evict;
mod fetch;
mod flights;
mod flush;
mod going;
mod index;
mod layout;
mod life;
mod lineage;
mod members;
mod memory;
mod open;
mod packed;
mod recover;
mod reinsert;
mod scan;
mod spread;
mod stream;
mod summary;
mod table;
#[cfg(test)]
mod testing;
mod void;
mod wakers;
mod warm;

pub use cache::Cache;
pub use clock::Clock;
pub use codec::{BadCode, Code};
pub use config::{Config, Put, Recover, WhenFull};
pub use error::Error;
#[cfg(feature = "metrics")]
pub use metrics::Metrics;
pub use stats::{DeviceStats, Stats};
