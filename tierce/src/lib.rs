#![doc = include_str!("../README.md")]
//!
//! # Modules
//!
//! This crate only gives the others one name: [`core`], [`lockfree`], [`io`] and [`cache`].

/// What needs neither threads nor devices: buckets, words, geometry, on-disk records and the
/// executable specification.
pub use tierce_core as core;

/// The concurrent bucket allocator.
pub use tierce_lockfree as lockfree;

/// Devices, journal, prio writes and recovery.
pub use tierce_io as io;

/// A key-value flash cache on the allocator.
pub use tierce_cache as cache;
