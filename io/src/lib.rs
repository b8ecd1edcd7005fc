//! The io_uring pipeline, devices, journal and recovery of tierce.

pub mod buffer;
pub mod completion;
pub mod device;
pub mod error;
mod file;
mod sync_io;
mod uring;

pub use buffer::{Buffer, Pool};
pub use completion::{Completer, Completion, Outcome};
pub use device::{Capabilities, Device, DeviceExt, DiscardKind, Operation, Request};
pub use error::Error;
pub use file::{Access, DeviceOptions, Engine, Notice, open_device};
pub use sync_io::SyncIo;
pub use uring::Uring;
