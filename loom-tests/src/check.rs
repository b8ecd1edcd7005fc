//! Running one model and saying how far it went.

use loom::model::Builder;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many preemptions are explored if `LOOM_MAX_PREEMPTIONS` does not say.
const DEFAULT_BOUND: usize = 3;

/// How many operations one execution may have: more than any that ends.
const MAX_BRANCHES: usize = 20_000;

/// Runs `body` once for every distinguishable order of its atomic operations.
///
/// Prints `model NAME: N iterations`, with the name of the test it runs in.
///
/// # Panics
///
/// If `body` panics or deadlocks in any order; and if there was only one order, for then no two
/// threads met in anything the model checker sees, and the model proves nothing.
pub fn model(body: impl Fn() + Send + Sync + 'static) {
    model_within(usize::MAX, body);
}

/// As [`model`], with at most `bound` preemptions: for what is too large for more.
///
/// # Panics
///
/// As [`model`].
pub fn model_within(bound: usize, body: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new(); // it has read LOOM_MAX_PREEMPTIONS
    let wanted = builder.preemption_bound.unwrap_or(DEFAULT_BOUND);
    builder.preemption_bound = Some(wanted.min(bound));
    builder.max_branches = MAX_BRANCHES;
    let iterations = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&iterations);
    builder.check(move || {
        // Relaxed: a counter outside the model, touched by one thread at a time.
        counter.fetch_add(1, Ordering::Relaxed);
        body();
    });
    // Relaxed: the search is over.
    let count = iterations.load(Ordering::Relaxed);
    let thread = std::thread::current();
    println!("model {}: {count} iterations", thread.name().unwrap_or("without a name"));
    assert!(count > 1, "one order only: no two threads met in anything loom sees");
}
