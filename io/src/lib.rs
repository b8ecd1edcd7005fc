//! The io_uring pipeline, devices, journal and recovery of tierce.

pub mod buffer;
pub mod completion;
pub mod device;
pub mod error;
mod file;
pub mod format;
pub mod journal;
pub mod pipeline;
pub mod prio_writer;
pub mod probe;
pub mod recovery;
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
pub use pipeline::{Pipeline, PipelineStats};
pub use prio_writer::write_prio_chain;
pub use probe::{Finding, probe};
pub use recovery::{Recovered, recover};
pub use sync_io::SyncIo;
pub use uring::Uring;
pub use volume::{OpenOptions, Owner, StateWriter, Volume};
