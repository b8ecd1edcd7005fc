//! The bytes on a device: one record per file, each with its layout, encode, decode and checks.
//!
//! | file | record |
//! |---|---|
//! | [`crc`] | the checksum that all records carry |
//! | [`identity`] | uuids, and the magics derived from them |
//! | [`mod@format`] | what formatting a device is told |
//! | [`superblock`] | what the device is: shape, set, use |
//! | [`jset`] | a journal entry: where everything else is |
//! | [`journal`] | the search for the newest entry, and what is live |
//! | [`prio_set`] | gens and prios of a range of buckets |
//! | [`chain`] | the prio sets of a device, in order |
//! | [`key`] | keys and pointers |
//! | [`uuids`] | the backing devices that a cache has known |
//! | [`node`] | index nodes: bsets, and what they say together |
//! | [`walk`] | every pointer of an index, in order |
//! | [`startup`] | from the records of a device to its allocator |
//!
//! The format is that of Linux bcache's cache devices, so that its tools and ours understand
//! each other's devices. All numbers are little-endian; a sector is 512 bytes.
//!
//! # How the records hang together
//!
//! ```text
//!  byte 4096        journal buckets               prio sets, one per prios_per_bucket buckets
//! ┌────────────┐   ┌──────┬──────┬─────┐  prio   ┌─────────┐ next  ┌─────────┐      ┌────────┐
//! │ superblock ├──▶│ jset │ jset │ … ──┼────────▶│ set 0   ├──────▶│ set 1   ├─ … ─▶│ set n−1│
//! └────────────┘   └──────┴──────┴──┬──┘ bucket  └─────────┘       └─────────┘      └────────┘
//!   first_bucket,     newest = highest seq
//!   njournal                        │ btree root, uuid bucket
//!                                   └──────────────────────▶ index nodes ──▶ data buckets
//! ```
//!
//! Nothing but the superblock has a fixed place. A crash can leave the newest journal entry
//! torn: its checksum fails, and the one before it, with the prio sets and index nodes that it
//! names, is the state of the device.
//!
//! Decoders take any bytes: they return a value or an [`Error`], never panic, and use time and
//! memory linear in their input. Searches take the bytes from a reader that the caller passes,
//! so that this crate does no I/O.

pub mod chain;
pub mod crc;
pub mod format;
pub mod identity;
pub mod journal;
pub mod jset;
pub mod key;
pub mod node;
pub mod prio_set;
pub mod startup;
pub mod superblock;
pub mod uuids;
pub mod walk;

pub use chain::{ChainHead, ChainSet, ChainWalk, PrioChain};
pub use format::Format;
pub use identity::{SetMagic, Uuid};
pub use journal::{Journal, JournalEntry};
pub use jset::{Jset, PaddedKey};
pub use key::{Key, Keys, Pointer};
pub use node::Node;
pub use prio_set::PrioSet;
pub use superblock::Superblock;
pub use uuids::UuidEntry;
pub use walk::{Met, PointerKind, WalkCounts};

use crate::error::{Error, Place, RecordKind};
use core::fmt;

/// Names the record under examination in every error about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    record: RecordKind,
    place: Place,
}

impl Check {
    pub(crate) const fn new(record: RecordKind, place: Place) -> Self {
        Self { record, place }
    }

    /// The error "`field` is `found`, wanted `wanted`".
    #[cold]
    pub(crate) fn error(
        &self,
        field: &'static str,
        found: impl fmt::Display,
        wanted: impl fmt::Display,
    ) -> Error {
        Error::Record {
            record: self.record,
            place: self.place,
            field,
            found: found.to_string(),
            wanted: wanted.to_string(),
        }
    }

    /// That error unless `holds`.
    pub(crate) fn that(
        &self,
        holds: bool,
        field: &'static str,
        found: impl fmt::Display,
        wanted: impl fmt::Display,
    ) -> Result<(), Error> {
        if holds { Ok(()) } else { Err(self.error(field, found, wanted)) }
    }

    /// An error unless both numbers, shown in hexadecimal, are equal.
    pub(crate) fn same_bits(
        &self,
        field: &'static str,
        found: u64,
        wanted: u64,
    ) -> Result<(), Error> {
        self.that(
            found == wanted,
            field,
            format_args!("{found:#018x}"),
            format_args!("{wanted:#018x}"),
        )
    }
}
