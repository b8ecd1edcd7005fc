//! Everything of tierce that touches a device: how bytes get there, what is written in which
//! order, and how the state is found again.
//!
//! # The crash rule, and what must be durable before what
//!
//! A cache reuses a bucket without looking for the pointers into it: it increments the bucket's
//! *gen*, and every pointer that carries the old one is stale. If a power loss took the increment
//! back, those pointers would be valid again and lead to somebody else's data. Therefore a bucket
//! that may have pointers into it is handed out only after its new gen is durable.
//!
//! Making one gen durable costs a flush, so it is done for a batch. Each line below waits until
//! the one above is done; no two of them may change places.
//!
//! 1. *The batch is closed.* Its buckets have their new gens in memory, and none of them is free.
//! 2. *The table is written*: prio and gen of every bucket, to the freshly allocated buckets of a
//!    new *prio chain*. Nothing on the device names that chain yet, so a power loss here loses
//!    nothing: the old chain, untouched, is the state.
//! 3. *Flush.* The chain must be durable before anything names it.
//! 4. *The journal entry that names the head of the chain*, durable by itself. This one write is
//!    the step from the old state to the new one. If it is torn its checksum is wrong, the
//!    entry before it is the newest, and the old chain is the state: hence 5.
//! 5. *Only now* the old chain's buckets may be reused, and the batch is safe: no power loss can
//!    bring the old gens back.
//! 6. *Each bucket of the batch is discarded*, if discards are on. Before 5 this would destroy
//!    data that, after a power loss, valid pointers lead to.
//! 7. *It is free.* What is written to it now belongs to the new gen.
//!
//! Owners of an index add one rule of their own: a pointer may become durable only after the
//! data that it names.
//!
//! The first use of a device has an order, too: journal entry 1 before the superblock says that
//! the device is in use. A device in use without any journal entry has therefore lost its gens,
//! and is refused; it must not pass for a fresh one, whose gens are all 0. And formatting wipes
//! everything that could be misread before it writes the superblock: a device whose formatting
//! was cut short is refused.
//!
//! # Map
//!
//! | file | read it to learn |
//! |---|---|
//! | [`device`] | the one narrow trait through which all I/O passes, and what it promises |
//! | [`buffer`], [`completion`] | who owns memory during an operation, and how one waits for it |
//! | `uring.rs`, `sync_io.rs` | the two implementations: io_uring on a thread of its own, and blocking threads where the kernel refuses it |
//! | [`sim`] | a third one, which loses power and fails as it is told, by a seed |
//! | `file.rs` | opening files and block devices exclusively |
//! | [`probe`](mod@probe), [`format`](mod@format) | what a device carries already, and making a cache of it |
//! | `superblock.rs` | why a power loss cannot tear the only copy |
//! | [`journal`] | steps 3 and 4 above, and the ring of buckets they are written to |
//! | [`prio_writer`] | step 2 |
//! | [`recovery`] | reading the state of a device |
//! | [`volume`] | an open device; ties these together |
//! | [`explore`](mod@explore) | random histories with power losses, and what must hold after each |
//! | [`pipeline`] | the thread that drives the allocator's reclaimer through steps 1 to 7 |
//!
//! # Embedding it
//!
//! ```
//! use tierce_core::{DeviceIndex, Reserve};
//! use tierce_io::{DeviceExt, FormatOptions, OpenOptions, Pipeline, Volume};
//! use tierce_lockfree::{Allocator, Config};
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("cache");
//!
//! // Once:
//! let options = FormatOptions { size: Some(64 << 20), bucket: 64 << 10, ..Default::default() };
//! tierce_io::format(&path, &options)?;
//!
//! // At every start: the table of gens as it was, and what keeps newer ones durable.
//! let volume = Volume::open(&path, &OpenOptions::default())?;
//! let device = volume.device().clone();
//! let (table, writer) = volume.into_start();
//! let startup = Allocator::start(Config::default(), vec![table])?;
//! // … here the index's owner observes its pointers …
//! let (allocator, mut reclaimers) = startup.finish();
//! let pipeline = Pipeline::start(reclaimers.remove(0), writer)?;
//!
//! // A bucket that is handed out is safe to write.
//! let bucket = allocator.alloc_until(DeviceIndex::FIRST, Reserve::None, None)?;
//! device.write_at(bucket.first_sector() * 512, &[7; 4096])?;
//! bucket.written();
//!
//! pipeline.close()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod buffer;
pub mod completion;
pub mod device;
pub mod error;
pub mod explore;
mod file;
pub mod format;
pub mod journal;
pub mod pipeline;
pub mod prio_writer;
pub mod probe;
pub mod recovery;
pub mod sim;
mod superblock;
mod sync_io;
mod uring;
pub mod volume;

pub use buffer::{Buffer, Pool};
pub use completion::{Completer, Completion, Outcome};
pub use device::{Capabilities, Device, DeviceExt, DiscardKind, Operation, Request};
pub use error::Error;
pub use file::{Access, DeviceOptions, Engine, Notice, open_device};
pub use format::{FormatOptions, format, format_on};
pub use journal::Journal;
pub use pipeline::{Evicted, Pipeline, PipelineStats, Work, Worked};
pub use prio_writer::write_prio_chain;
pub use probe::{Finding, probe};
pub use recovery::{Recovered, recover};
pub use sim::{CutAt, Fault, FaultKind, Sim, SimOptions};
pub use sync_io::SyncIo;
pub use uring::Uring;
pub use volume::{OpenOptions, Owner, StateWriter, Volume};
