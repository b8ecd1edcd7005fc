//! Workloads, traces and measurement for tierce, and for any other cache one wants to compare
//! it with.
//!
//! ```text
//!   trace::Trace ─────┐                               ┌── backend::Tierce (the cache crate)
//!   workload::Zipf ───┤ Request ─► replay ─► Store ───┼── backend::Unbounded (never evicts)
//!   anything else ────┘               │               └── yours: implement `Store`
//!                                     ▼
//!                             measure, value  ─►  replay::Outcome
//! ```
//!
//! | module | read it to learn |
//! |---|---|
//! | [`trace`] | how recorded requests are read, one file per format |
//! | [`workload`] | the generated workload and its value sizes |
//! | [`backend`] | what a cache, or an allocator, must offer to be driven from here |
//! | [`replay`] | how requests become operations, and what is counted |
//! | [`peer`] | how another cache is measured from a process of its own |
//! | [`value`] | how a value proves which key and version it belongs to |
//! | [`measure`] | latency histograms, memory, CPU time, rounds, the machine |
//! | [`report`] | what a run leaves behind: JSON, a page, the comparison of two |
//! | [`bars`] | what the allocator is measured for, and what it must reach |
//! | [`kernels`] | the smallest pieces, each alone, to be timed and counted |
//! | [`kill`] | the test that kills a cache in mid-run and checks what it serves afterwards |
#![deny(unsafe_code)]

pub mod backend;
pub mod bars;
pub mod error;
pub mod kernels;
pub mod kill;
pub mod loop_device;
pub mod measure;
pub mod peer;
pub mod replay;
pub mod report;
pub mod trace;
pub mod value;
pub mod workload;

pub use backend::{Insertion, Store, StoreStats};
pub use error::{Error, Place};
pub use loop_device::LoopDevice;
pub use trace::{Format, Op, Request, Target, Trace};
