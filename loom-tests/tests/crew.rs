//! Threads that make a pass together, `lockfree/src/victims/crew.rs`: every piece of every phase
//! is done once (I17), by somebody who sees what the phase works on, and the leader goes on when
//! all is done and sees what was done.
//!
//! Breaks that must turn these red: `crew_opens_relaxed`, `crew_done_relaxed`,
//! `crew_takes_by_store`.
#![cfg(tierce_loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use tierce_lockfree::model::Crew;
use tierce_loom_tests::model;

/// A leader and a helper go through phases of so many pieces. What a phase works on the leader
/// writes before it, by an access that orders nothing, and so does whoever does a piece.
fn together(phases: &'static [usize]) {
    model(move || {
        let shared = Arc::new((Crew::new(), given(), pieces()));
        let other = Arc::clone(&shared);
        let helper = thread::spawn(move || {
            let (crew, given, pieces) = &*other;
            crew.help(|piece| done(given, &pieces[piece]));
        });
        let (crew, given, pieces) = &*shared;
        for (number, &phase) in (1..).zip(phases) {
            // Relaxed: published by opening the phase.
            given.store(number, Ordering::Relaxed);
            crew.lead(phase, |piece| done(given, &pieces[piece]));
            for piece in &pieces[..phase] {
                // Relaxed: published by counting the piece.
                let done = piece.load(Ordering::Relaxed);
                assert_eq!(done, number, "done once per phase, with what it was given, and seen");
            }
        }
        crew.close();
        helper.join().expect("it did not panic");
    });
}

fn given() -> AtomicU64 {
    AtomicU64::new(0)
}

/// How often each piece was done.
fn pieces() -> [AtomicU64; 2] {
    [0, 0].map(AtomicU64::new)
}

/// Each phase has every piece, so before the third a piece was done twice.
fn done(given: &AtomicU64, piece: &AtomicU64) {
    // Relaxed: whoever takes a piece sees what its phase was given.
    let given = given.load(Ordering::Relaxed);
    // Relaxed: as a plain increment; nobody else does this piece.
    let before = piece.load(Ordering::Relaxed);
    assert_eq!(before + 1, given, "whoever does a piece sees what was done before its phase");
    piece.store(before + 1, Ordering::Relaxed);
}

/// Both pieces of one phase.
#[test]
fn i17_every_piece_is_done_once() {
    together(&[2]);
}

/// The second phase has the same name and size: a CAS prepared in the first may succeed in it.
#[test]
fn i17_phases_follow_each_other() {
    together(&[1, 1]);
}
