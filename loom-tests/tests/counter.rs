//! Counts without read-modify-writes, `lockfree/src/counter.rs` and `owner.rs`.
//!
//! Breaks that must turn these red: `owner_take_relaxed`, `count_shared_plain`.
#![cfg(tierce_loom)]

use loom::sync::Arc;
use loom::thread;
use tierce_lockfree::model::Count;
use tierce_loom_tests::model;

/// Adds in two threads, and returns the total.
fn twice(add: impl Fn(&Count) + Clone + Send + 'static) -> u64 {
    let count = Arc::new(Count::default());
    let (other, add_there) = (Arc::clone(&count), add.clone());
    let thread = thread::spawn(move || add_there(&other));
    add(&count);
    thread.join().expect("no panic");
    count.total()
}

/// One after the other with the same number, or at once with two.
#[test]
fn nothing_is_lost_when_a_number_changes_hands() {
    model(|| assert_eq!(twice(Count::add_and_end), 2));
}

#[test]
fn nothing_is_lost_among_threads_without_a_number() {
    model(|| assert_eq!(twice(Count::add_without_number), 2));
}
