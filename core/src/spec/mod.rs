//! The executable specification: what the allocator does, one step after the other.
//!
//! Everything concurrent in tierce is compared with [`Set`]: unit, property, model and fuzz tests
//! run both and look for a difference. It is therefore written to be read. It has no atomics, no
//! locks and no I/O: where the real thing writes a table and waits for the device, this one notes
//! an [`Event`] and goes on as if the device had answered.
//!
//! # What it manages
//!
//! A set is 1 to 8 devices; a device is a table of buckets. Some buckets are free and wait on
//! four lists; the rest hold data or metadata. What happens to a bucket:
//!
//! ```text
//!            alloc.rs                 hold.rs                  reclaim.rs
//!   free ──────────────▶ held/open ────────────▶ full ──────────────────────▶ in free_inc
//!    ▲      sectors.rs    pinned     unpin       GC marks it     invalidate   gen advanced
//!    │                                           gc.rs                            │
//!    │                         run.rs                            prio.rs          │
//!    └────── discard ◀────────────────── durable ◀────────────────────────────────┘
//!                                                 prio write: all gens become durable
//! ```
//!
//! The *crash rule* shapes all of it: a bucket that may have pointers into it is handed out only
//! after its incremented gen is durable on the device. [`crate::bucket`] says why.
//!
//! # Where to read what
//!
//! | file | read it to learn |
//! |---|---|
//! | `set.rs` | what the devices share: [`Set`], its figures |
//! | `options.rs` | what can be configured: [`Options`], [`DeviceOptions`] |
//! | `device.rs` | the state of one device, and where a bucket can be: [`Place`] |
//! | `alloc.rs` | how buckets are handed out, one by one and over several devices, and taken back |
//! | `sectors.rs` | how writers get sectors of open buckets: [`Write`], [`Extent`] |
//! | `hold.rs` | pins, read hits, dirty marks, frees, gens of index nodes, reads without a pin |
//! | `ageing.rs` | how what is not read becomes old |
//! | `gc.rs` | how garbage collection marks, in both modes, and what moving GC moves |
//! | `reclaim.rs` | which bucket is reused next: lru, fifo, random |
//! | `run.rs` | the background run that turns full buckets into free ones: [`Set::step`] |
//! | `prio.rs` | how gens become durable |
//! | `startup.rs` | how a set starts, from nothing or after a crash |
//! | `events.rs` | what happened, in order |
//! | `check.rs` | the invariants |
//! | `sim/` | a small language of operations, and its runner: `tierce sim` |
//!
//! # The order in which things happen
//!
//! 1. [`Set::new`], or [`Set::open`] and [`Set::observe`] for what a device holds already.
//! 2. [`Set::start`] fills the two reserves without which nothing moves.
//! 3. [`Set::step`], again and again: it keeps the free lists full.
//! 4. [`Set::alloc`], [`Set::alloc_set`] or [`Set::alloc_sectors`]; write; put the pointer into
//!    the index; [`Set::unpin`].
//! 5. [`Set::account_io`] for each read and write, [`Set::touch`] for each hit.
//! 6. [`Set::gc_begin`], [`Set::gc_mark`] …, [`Set::gc_finish`] when [`Set::gc_is_due`].
//!
//! ```
//! use tierce_core::spec::{DeviceOptions, Live, Options, Set, Wait};
//! use tierce_core::{DeviceIndex, Geometry, Mark, Reserve, Sizes};
//! let g = Geometry::new(1024, 1, 128, 8)?;
//! let mut set = Set::new(Options::default(), vec![DeviceOptions::new(g, Sizes::tierce(&g, 8))])?;
//! set.start()?;
//! assert_eq!(set.step(DeviceIndex::FIRST), Wait::Push, "all free lists are full");
//!
//! let p = set.alloc(Reserve::None).ready().expect("so there is one");
//! set.unpin(p.bucket)?; // written, and in the index
//! set.gc_begin()?;
//! set.gc_mark(p, 100, Live::Dirty)?; // the index says: 100 sectors live in it
//! set.gc_finish()?;
//! let word = set.word(p.bucket).expect("it exists");
//! assert_eq!((word.mark(), word.sectors()), (Mark::Dirty, 100));
//! # Ok::<(), tierce_core::Error>(())
//! ```
//!
//! # Cost
//!
//! Allocating, freeing and pinning take constant time, so that the same code, behind a mutex,
//! serves as the baseline that the concurrent allocator is measured against. A pass, a rescale, a
//! garbage collection and a prio write look at every bucket.

mod ageing;
mod alloc;
mod check;
mod device;
mod events;
mod gc;
mod hold;
mod options;
mod prio;
mod reclaim;
mod run;
mod sectors;
mod set;
pub mod sim;
mod startup;

pub use alloc::{Allocation, Unused};
pub use device::Place;
pub use events::Event;
pub use gc::{Live, Marked};
pub use hold::{Bump, Read};
pub use options::{DeviceOptions, MAX_OPEN_BUCKETS, Options};
pub use prio::PrioWrite;
pub use reclaim::Pass;
pub use run::Wait;
pub use sectors::{Extent, Slot, Write};
pub use set::{Counters, Figure, Gauges, Pointer, Set};
pub use startup::{Started, Table};
