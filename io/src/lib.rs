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
//! | [`queue`] | a thread's own ring, without hand-off |
//! | [`sim`] | a third one, which loses power and fails as it is told, by a seed |
//! | `file.rs` | opening files and block devices exclusively |
//! | `ending.rs` | waiting until a thread of ours has ended, and when not to |
//! | [`probe`](mod@probe), [`format`](mod@format) | what a device carries already, and making a cache of it |
//! | `superblock.rs` | why a power loss cannot tear the only copy |
//! | [`journal`] | steps 3 and 4 above, and the ring of buckets they are written to |
//! | [`prio_writer`] | step 2 |
//! | [`recovery`] | reading the state of a device |
//! | `prio_reader.rs`, `read_ahead.rs` | how opening a large device keeps the device busy |
//! | [`volume`] | an open device; ties these together |
//! | [`explore`](mod@explore) | random histories with power losses, and what must hold after each |
//! | [`discard`] | how many discards are under way, and how fast |
//! | [`pipeline`] | the thread that drives the allocator's reclaimer through steps 1 to 7 |
//!
//! # When the device fails
//!
#![doc = include_str!("../FAULTS.md")]
//!
//! # Embedding it
//!
//! `examples/embed.rs` is the smallest whole cache: an index and I/O of its own, and space from
//! here. What it does, step by step:
//!
//! 1. *Format* the file or device, once: [`format`](format()). Buckets are the unit in which
//!    space is reused; values are packed into them.
//! 2. *Open* it: [`Volume::open`]. [`Volume::into_start`] gives the table of gens as it was found
//!    and what makes newer ones durable. An index that lives in memory only starts empty, so the
//!    example opens as [`Owner::Scratch`], with `sync: false`: nothing is flushed. Whoever finds
//!    his index again after a crash opens as [`Owner::Allocator`] and keeps `sync`.
//! 3. *Start* the allocator (`tierce_lockfree::Allocator::start`), with that table. Here the
//!    owner of a durable index tells every pointer it holds to `Startup::observe`. `finish` gives
//!    the allocator and one reclaimer per device; [`Pipeline::start`] gives that a thread.
//! 4. *Write*: take an extent (`alloc_sectors_until`, or `alloc_until` for a whole bucket), write
//!    to where it lies, insert its pointer into the index, *then* drop it: as long as it lives
//!    its bucket is not reused. An extent can be shorter than asked, at the end of a bucket. If
//!    the index is durable, the data must be before the pointer is. `account_io` lets buckets
//!    age.
//! 5. *Read*: `begin_read` before the look at the index, `open` the pointer, read, and `validate`:
//!    only then the bytes are what the pointer led to. Otherwise it is a miss.
//! 6. *Collect* when `wait_gc_due` says so: tell every pointer of the index to `Gc::mark`, remove
//!    those that are stale, and `finish`. Without it no bucket can be reused for long.
//! 7. *Close*: everybody who waits is told, and the pipeline ends.
//!
//! ```no_run
#![doc = include_str!("../examples/embed.rs")]
//! ```

pub mod buffer;
pub mod completion;
pub mod device;
pub mod discard;
mod ending;
pub mod error;
pub mod explore;
mod file;
pub mod format;
pub mod journal;
mod notice;
pub mod pipeline;
mod prio_reader;
pub mod prio_writer;
pub mod probe;
pub mod queue;
mod read_ahead;
pub mod recovery;
pub mod sim;
mod superblock;
mod sync_io;
mod uring;
pub mod volume;

pub use buffer::{Buffer, Pool};
pub use completion::{Completer, Completion, Outcome};
pub use device::{
    Capabilities, Class, Device, DeviceExt, DiscardKind, Operation, Request, RingFile,
};
pub use discard::DiscardPace;
pub use error::Error;
pub use file::{Access, DeviceOptions, DiscardBy, Engine, open_device};
pub use format::{FormatOptions, format, format_on};
pub use journal::Journal;
pub use notice::Notice;
pub use pipeline::{Evicted, Pipeline, PipelineStats, Work, Worked};
pub use prio_writer::write_prio_chain;
pub use probe::{Finding, probe};
pub use queue::Queue;
pub use recovery::{Recovered, recover};
pub use sim::{CutAt, Fault, FaultKind, Sim, SimOptions};
pub use superblock::read as read_superblock;
pub use sync_io::SyncIo;
pub use uring::Uring;
pub use volume::{OpenOptions, Owner, StateWriter, Volume};
