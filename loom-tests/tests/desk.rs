//! Calling threads to a pass, `lockfree/src/victims/desk.rs`: whoever works on what a leader lent
//! sees what he did before, and is gone when the leader goes on (I17).
//!
//! Breaks that must turn these red: `desk_call_left`, `desk_answered_unlocked`.
#![cfg(tierce_loom)]

use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use std::sync::atomic::AtomicBool;
use tierce_lockfree::model::Desk;
use tierce_loom_tests::model;

/// What a leader lends: whether he does, and how often somebody worked on it. It outlives the
/// loan here, so that whoever comes too late is found out and does no harm.
#[derive(Default)]
struct Lent {
    lent: AtomicU64,
    worked: AtomicU64,
    /// Somebody worked on it while it was not lent. None of the model's: a panic of the helper
    /// would be kept for the leader.
    stray: AtomicBool,
}

impl Lent {
    /// A helper's work.
    fn work(&self) {
        // Relaxed: ordered by the desk.
        if self.lent.load(Ordering::Relaxed) != 1 {
            // Relaxed: looked at when all threads have ended.
            self.stray.store(true, Ordering::Relaxed);
        }
        // Relaxed: as a plain increment; nobody else does it.
        let before = self.worked.load(Ordering::Relaxed);
        self.worked.store(before + 1, Ordering::Relaxed);
    }

    /// Lends it once, and then takes it back.
    fn lend(&self, desk: &Desk, work: &(dyn Fn() + Sync)) {
        // Relaxed: ordered by the desk.
        self.lent.store(1, Ordering::Relaxed);
        desk.together(work, || ());
        // Relaxed: nobody may see it who works, or have worked unseen.
        self.lent.store(2, Ordering::Relaxed);
        let worked = self.worked.load(Ordering::Relaxed);
        self.worked.store(worked + 100, Ordering::Relaxed);
    }

    /// After it was taken back once.
    fn worked(&self) -> u64 {
        // Relaxed (both): all threads have ended.
        assert!(!self.stray.load(Ordering::Relaxed), "nobody works on what is not lent");
        let worked = self.worked.load(Ordering::Relaxed);
        assert!(worked >= 100, "the leader has seen all that was done");
        worked - 100
    }
}

/// One leader; the helper may come or not.
#[test]
fn i17_nobody_works_on_what_has_ended() {
    model(|| {
        let (desk, lent) = (Desk::default(), Arc::new(Lent::default()));
        let (at, own) = (desk.clone(), Arc::clone(&lent));
        let helper = thread::spawn(move || at.serve());
        let work = move || own.work();
        lent.lend(&desk, &work);
        desk.end();
        helper.join().expect("it did not panic");
        assert!(lent.worked() <= 1, "it was called once");
    });
}

/// Two leaders call the same helper: whoever finds him taken works alone.
#[test]
fn i17_a_helper_works_for_one_leader_at_a_time() {
    model(|| {
        let (desk, lents) = (Desk::default(), [0; 2].map(|_| Arc::new(Lent::default())));
        let at = desk.clone();
        let helper = thread::spawn(move || at.serve());
        let (other, lent) = (desk.clone(), Arc::clone(&lents[1]));
        let leader = thread::spawn(move || {
            let own = Arc::clone(&lent);
            lent.lend(&other, &move || own.work());
        });
        let own = Arc::clone(&lents[0]);
        lents[0].lend(&desk, &move || own.work());
        leader.join().expect("it did not panic");
        desk.end();
        helper.join().expect("it did not panic");
        assert!(lents.iter().all(|lent| lent.worked() <= 2), "two rings, two looks");
    });
}
