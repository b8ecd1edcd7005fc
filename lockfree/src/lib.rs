//! The concurrent bucket allocator: which bucket of a flash cache is written next and which is
//! thrown away, for many threads at once. No lock stands on any path that allocates, pins, reads
//! or writes without waiting. No I/O happens here: [`Reclaimer::step`] says what has to be
//! written, `tierce-io` writes it.
//!
//! # The algorithm on one page
//!
//! * **One word per bucket** (`table.rs`; its memory: `words.rs`, `huge_pages.rs`; as it is
//!   read from a device: `gens.rs`) holds gen, prio, mark and pin.
//!   Every change is one compare-and-swap, so invalidating a bucket and pinning it cannot both
//!   succeed.
//! * **Free buckets** are in per-CPU cells (`cells.rs`) before the queues of four reserves
//!   (`reserves.rs`, `ring.rs`), none of which waits for a stopped thread. Failing is exact: cells
//!   and queues count what is inserted, which tells whether something was while one looked.
//!   Where Linux restarts a thread that it interrupts (`section.rs`), cells that only their own CPU
//!   uses are changed by plain stores (`near.rs`).
//! * **Who finds nothing free waits** in line (`wait.rs`) as a thread or a future (`future.rs`), of
//!   one device or of all (`anywhere.rs`), and wakes up with his bucket in hand. One word (`attention.rs`) tells everybody else that he
//!   does. Counts of what happened (`counter.rs`) need no atomic read-modify-write while threads
//!   own a number (`owner.rs`).
//! * **Who must not wait later** waits before until enough is free (`watch.rs`), and is caught
//!   when he waits nevertheless (`no_wait.rs`).
//! * **Writers take sectors** of open buckets (`sectors/`): one CAS on the word of a slot, pins
//!   taken in advance, so that nothing is ever in flight unpinned.
//! * **Readers do not pin** (`readers.rs`): they check gen and GC epoch before and after.
//! * **Garbage collection** (`gc.rs`) collects its findings in shadows and publishes them with
//!   one CAS per bucket, while invalidation goes on.
//! * **The reclaimer** (`reclaimer.rs`) ages buckets (`ageing.rs`, `rescale.rs`), chooses victims
//!   (`victims/`: by LRU in one pass over all words, with vector instructions, or of a few at
//!   random), has the gens written (`prio_write.rs`, `set_records.rs`) and releases what has
//!   become safe.
//! * **Some gens advance without waiting**: unused buckets (`unused.rs`), freed index nodes,
//!   whose owner holds prio writes back (`prio_block.rs`); `ahead.rs` keeps what is durable for
//!   them. `moving.rs` chooses what is worth moving out of nearly empty buckets.
//! * **Scripts** can drive it one operation at a time (`sim/`), for comparing it with the
//!   executable specification.
//! * **What happens** can be counted (`stats.rs`, `latency.rs`) and listened to (`events.rs`).
//! * **Copies** on several devices are allocated all or nothing (`set.rs`).
//! * **A batch is more than the lists hold**: the rest is kept in stock (`device/stock.rs`), from
//!   where whoever allocates fetches it.
//! * `device.rs` is one device's share of all that, `allocator.rs` what users see, `start.rs`
//!   how it begins. `sync.rs` is the only file that names atomics, so that the models of
//!   `loom-tests` run this very code.
//!
//! # Progress
//!
//! | operation | progress |
//! |---|---|
//! | pin, begin_read, open, validate, mark_dirty, dropping a guard | lock-free or better |
//! | sectors of an open bucket | lock-free |
//! | try_alloc from this CPU's cells | wait-free |
//! | try_alloc from the shared queues | lock-free; fetching from stock tries a lock and waits for nobody |
//! | alloc_until, alloc_on, alloc_any | waits for a bucket; woken by release, failure, close, deadline |
//! | allocating, releasing, giving back while somebody waits in line | a short lock |
//! | wait_for | waits for buckets, and for who waits so for the same reserve since before |
//! | close, fail, stats, finishing a collection | short locks, and as long as their loops are |
//!
//! What says nothing of its progress only looks at what it was given, and is wait-free.
// The files that need it say why: `hint/cpu.rs`, `huge_pages.rs`, `pile.rs`, `section/x86.rs`,
// `wide.rs`, `wide/shuffle.rs`, `victims/x86.rs`, `words/room.rs`.
#![cfg_attr(not(tierce_loom), deny(unsafe_code))]

pub mod allocation;
pub mod allocator;
pub mod anywhere;
#[doc(hidden)]
pub mod bare;
pub mod bell;
pub mod bucket_ref;
pub mod config;
pub mod error;
pub mod future;
pub mod gc;
pub mod gens;
pub mod huge_pages;
pub mod latency;
#[cfg(tierce_loom)]
#[doc(hidden)]
pub mod model;
pub mod moving;
pub mod no_wait;
pub mod prio_block;
pub mod prio_write;
pub mod readers;
pub mod reclaimer;
pub mod reserves;
pub mod sectors;
pub mod set;
pub mod sim;
pub mod start;
pub mod stats;
pub mod unused;
pub mod watch;

mod ageing;
mod ahead;
mod attention;
mod cells;
mod counter;
mod device;
mod events;
mod hint;
mod near;
mod owner;
mod pile;
mod rescale;
mod ring;
mod section;
mod set_records;
mod sync;
mod table;
mod victims;
mod wait;
mod wide;
mod words;

pub use allocation::{Allocation, OwnedAllocation, PinGuard};
pub use allocator::Allocator;
pub use anywhere::AnyFuture;
pub use bell::Bell;
pub use bucket_ref::BucketRef;
pub use config::{Config, DeviceTable};
pub use error::{Cause, Error};
pub use future::AllocFuture;
pub use gc::{Gc, Marked};
pub use gens::{Gens, GensBuilder, GensPage};
pub use hint::CpuHint;
pub use latency::Latencies;
pub use no_wait::NoWait;
pub use prio_block::{Bump, PrioBlock};
pub use prio_write::PrioWrite;
pub use readers::{OpenRead, Read};
pub use reclaimer::{Reclaimer, Step, WaitFor};
pub use sectors::{Extent, SectorRequest, WritePoint};
pub use set_records::SetRecords;
pub use start::Startup;
pub use stats::{CellUse, DeviceStats, Stats};
pub use unused::Unused;
pub use watch::FreeFuture;
