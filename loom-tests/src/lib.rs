//! Model checks of tierce-lockfree: the real code, run through every order of its atomic
//! operations that a few threads and a few preemptions allow.
//!
//! Models lie in `tests/`, one file per protocol, named as the file of tierce-lockfree that it
//! checks. They exist only under `--cfg tierce_loom`, which also turns that crate's atomics into
//! loom's; `cargo xtask loom` builds and runs them so. A model is a test of this form:
//!
//! ```
//! # #[cfg(not(tierce_loom))]
//! # fn main() {}
//! # #[cfg(tierce_loom)]
//! # fn main() {
//! use loom::sync::Arc;
//! use loom::sync::atomic::{AtomicU32, Ordering};
//!
//! tierce_loom_tests::model(|| {
//!     let count = Arc::new(AtomicU32::new(0));
//!     let other = Arc::clone(&count);
//!     // Relaxed: the join below orders the result.
//!     let thread = loom::thread::spawn(move || other.fetch_add(1, Ordering::Relaxed));
//!     // Relaxed: as above.
//!     count.fetch_add(1, Ordering::Relaxed);
//!     thread.join().unwrap();
//!     // Relaxed: both threads have ended.
//!     assert_eq!(count.load(Ordering::Relaxed), 2, "an increment must not be lost");
//! });
//! # }
//! ```
//!
//! What bounds a model: at most 5 threads, the main one included, and at most
//! `LOOM_MAX_PREEMPTIONS` preemptions (3 if it is not set). Within the bound the search is
//! complete.

#[cfg(all(tierce_loom, not(debug_assertions)))]
compile_error!("models check invariants by debug assertions: build them with debug-assertions on");

#[cfg(tierce_loom)]
mod check;
#[cfg(tierce_loom)]
pub use check::{model, model_within};
#[cfg(tierce_loom)]
pub mod tiny;
