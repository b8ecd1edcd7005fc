//! The composed allocator under random schedules: the real code of tierce-lockfree on shuttle's
//! atomics, locks and threads, far more of it at once than a model could hold.
//!
//! A schedule is one execution of a scenario in which shuttle decides before every access to
//! shared state which thread goes on. Every access is sequentially consistent here: what this
//! finds is mistakes of logic (a wake-up that is lost, a check that is missing, a bucket with
//! two owners), never a wrong memory ordering; those are what `loom-tests` and Miri are for.
//! Threads that all wait are a failure, so no scenario polls: that would heal lost wake-ups.
//!
//! Scenarios lie in `tests/`, `world.rs` is what most of them work on. They exist only under
//! `--cfg tierce_shuttle`; `cargo xtask shuttle` builds and runs them so.
//!
//! # A schedule that fails
//!
//! is printed, and its name with it. To see it again, with whatever prints were added:
//!
//! ```text
//! cargo xtask shuttle --filter NAME --replay SCHEDULE
//! ```

#[cfg(all(tierce_shuttle, not(debug_assertions)))]
compile_error!("schedules check invariants by debug assertions: build with debug-assertions on");

#[cfg(tierce_shuttle)]
mod check;
#[cfg(tierce_shuttle)]
pub use check::check;
#[cfg(tierce_shuttle)]
pub mod world;
