//! The parts of tierce that need neither threads nor devices: what a bucket is, which changes
//! of it are legal, how large things are, and what the bytes on a device mean.
//!
//! | file | read it to learn |
//! |---|---|
//! | [`bucket`] | the life of a bucket; [`BucketIndex`], [`Gen`], [`Prio`], [`Mark`] |
//! | [`word`] | the 64-bit state of a bucket and every legal transition of it |
//! | [`age`] | how a bucket's age is kept as a stamp, so that ageing writes hardly any word |
//! | [`geometry`] | every limit and derived constant |
//! | [`reserve`] | the four free lists and how large they are |
//! | [`policy`] | which bucket is reused next, and the LRU key |
//! | [`record`] | the bytes on a device: superblock, journal, prio sets, keys |
//! | [`stats`] | how full and how old a device's buckets are |
//! | [`spec`] | the sequential allocator everything concurrent is checked against |
//!
//! No atomics, no I/O, no unsafe. (`broken` has hooks for `cargo xtask mutants`, of which nothing
//! is left otherwise.)
#![forbid(unsafe_code)]

pub mod age;
#[doc(hidden)]
pub mod broken;
pub mod bucket;
pub mod draws;
pub mod error;
pub mod geometry;
pub mod policy;
pub mod record;
pub mod reserve;
mod setters;
pub mod spec;
pub mod stats;
pub mod word;

pub use age::AgeEpoch;
pub use bucket::{BucketId, BucketIndex, DeviceIndex, Gen, Mark, Prio};
pub use error::Error;
pub use geometry::Geometry;
pub use policy::Policy;
pub use reserve::{Reserve, Sizes};
pub use word::Snapshot;
