//! Where a helper is called to.
//!
//! # Problem
//!
//! Who makes a pass wants other threads to do pieces of it, and has borrowed what it works on. A
//! thread that is called comes 50 µs later, or, if others have all CPUs, when the pass is long
//! over. Then nobody should wait for it; a pool of threads with scopes does.
//!
//! # Protocol
//!
//! 1. A *leader* puts his call on the desk, unless there is one of another leader, and rings.
//! 2. The *helper*, woken, locks the desk and answers the call that he finds, if there still is
//!    one. Until he is ready the desk is locked.
//! 3. Before what he borrowed ends, the leader takes his call away. While it is being answered
//!    he waits, looking; if it was not heard yet, he does not.
//!
//! A ring is for whatever the desk has on it when the helper comes: nothing any more, or the call
//! of the next leader, which he then answers twice, the second time in vain.
//!
//! # Invariants
//!
//! 1. A call is on the desk only while [`together`], to which it was lent, runs: whoever puts
//!    it there has made what takes it away when it is dropped, after a panic, too.
//! 2. Whoever runs it holds the lock, in which it lies, from before he looks until after it ended.
//!
//! # Memory ordering
//!
//! The lock's: who answers a call sees what its leader did before it, and who has taken his
//! call away sees what was done for it.
//!
//! # Progress
//!
//! A helper waits for nobody but his bell. A leader waits for a helper who answers him,
//! and nobody for one who was called.
#![expect(unsafe_code, reason = "a thread that exists already works on what others lend to it")]

use crate::bell::Bell;
use crate::sync::{Arc, Mutex, look_again};
use core::fmt;
use core::mem::take;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use tierce_core::broken;

/// What is called for: work, done by whoever has this number.
type Work<'a> = dyn Fn(usize) + Sync + 'a;

/// Why it panicked.
type Payload = Box<dyn Any + Send>;

/// The desk of one helper.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    bell: Bell,
    top: Mutex<Top>,
}

/// What is on it.
#[derive(Default)]
enum Top {
    #[default]
    Nothing,
    /// To be answered.
    Call(&'static Work<'static>, usize),
    /// It was answered, which ended by a panic.
    Failed(Payload),
    /// Nobody calls any more.
    Ended,
}

impl fmt::Debug for Top {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Call(..) => "Call",
            Self::Failed(_) => "Failed",
            Self::Ended => "Ended",
        })
    }
}

impl Desk {
    /// Answers calls until nobody calls any more: what a helper does.
    pub(crate) fn serve(&self) {
        loop {
            self.bell.wait(None);
            if !self.answer() {
                break;
            }
        }
    }

    /// Answers the call that is there, if there is one. `false` if nobody calls any more.
    fn answer(&self) -> bool {
        let mut top = self.top.lock();
        if broken!("desk_answered_unlocked")
            && let Top::Call(work, number) = *top
        {
            drop(top);
            work(number);
            return true;
        }
        if let Top::Call(work, number) = *top
            && let Err(payload) = catch_unwind(AssertUnwindSafe(|| work(number)))
        {
            *top = Top::Failed(payload);
        }
        !matches!(*top, Top::Ended)
    }

    /// Nobody calls any more.
    pub(crate) fn end(&self) {
        *self.top.lock() = Top::Ended;
        self.bell.ring();
    }

    /// Puts a call there, unless somebody else called this helper.
    fn call(&self, work: &'static Work<'static>, number: usize) -> Option<Called<'_>> {
        let mut top = self.top.try_lock()?;
        if !matches!(*top, Top::Nothing) {
            return None;
        }
        *top = Top::Call(work, number);
        drop(top);
        let called = Called(Some(self));
        self.bell.ring();
        Some(called)
    }
}

/// A call that is on a desk: until this is dropped.
struct Called<'a>(Option<&'a Desk>);

impl Called<'_> {
    /// Takes the call away. Returns why it panicked, if it did.
    fn end(&mut self) -> Option<Payload> {
        let desk = self.0.take()?;
        if broken!("desk_call_left") {
            return None;
        }
        let mut looks = 0;
        let mut top = loop {
            match desk.top.try_lock() {
                Some(top) => break top,
                None => look_again(&mut looks),
            }
        };
        match take(&mut *top) {
            Top::Failed(payload) => Some(payload),
            _ => None,
        }
    }
}

impl Drop for Called<'_> {
    fn drop(&mut self) {
        drop(self.end());
    }
}

/// Runs `lead`, and lets those who serve at `desks` run `work`, if they come before it ends: they
/// are told their number, the first being 1. When this returns nobody runs it any more, so `lead`
/// sees to it that `work` ends. Panics as it does.
pub(crate) fn together<R>(desks: &[Arc<Desk>], work: &Work<'_>, lead: impl FnOnce() -> R) -> R {
    // SAFETY: the types differ in lifetimes only. `work` goes nowhere but on desks, from which
    // it is taken away before this function, which borrows it, ends (by Invariant 1), and is run
    // only while it is there (by Invariant 2).
    let work = unsafe { core::mem::transmute::<&Work<'_>, &'static Work<'static>>(work) };
    let called = (1..).zip(desks).filter_map(|(number, desk)| desk.call(work, number));
    let mut called: Vec<_> = called.collect();
    let result = lead();
    if let Some(payload) = called.iter_mut().filter_map(Called::end).next() {
        // The others' end here.
        drop(called);
        resume_unwind(payload);
    }
    result
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    /// Runs `test` while somebody serves at a desk.
    fn served(test: impl FnOnce(&[Arc<Desk>])) {
        let desk = Arc::new(Desk::default());
        thread::scope(|scope| {
            scope.spawn(|| desk.serve());
            let _end = End(&desk);
            test(core::slice::from_ref(&desk));
        });
    }

    /// Or a failing test would never end.
    struct End<'a>(&'a Desk);

    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.end();
        }
    }

    /// Runs as leader until the helper has come.
    fn until_helped(desks: &[Arc<Desk>], then: impl Fn() + Sync) {
        let came = AtomicBool::new(false);
        let work = |_| {
            // Relaxed: nothing is published with it.
            came.store(true, Ordering::Relaxed);
            then();
        };
        together(desks, &work, || {
            // Relaxed: as above.
            while !came.load(Ordering::Relaxed) {
                thread::yield_now();
            }
        });
    }

    #[test]
    fn a_helper_comes_as_often_as_he_is_called() {
        served(|desks| (0..3).for_each(|_| until_helped(desks, || ())));
    }

    #[test]
    fn nobody_waits_for_a_helper_who_does_not_come() {
        let desks = [Arc::new(Desk::default())];
        for turn in 0..2 {
            assert_eq!(together(&desks, &|_| unreachable!("nobody serves"), || turn), turn);
        }
    }

    /// Who has called nobody, since another leader did, works alone.
    #[test]
    fn a_desk_has_one_call_at_a_time() {
        let desks = [Arc::new(Desk::default())];
        together(&desks, &|_| (), || {
            assert!(together(&desks, &|_| unreachable!("nobody serves"), || true));
            assert!(
                matches!(*desks[0].top.lock(), Top::Call(..)),
                "the first one's is still there"
            );
        });
        assert!(matches!(*desks[0].top.lock(), Top::Nothing));
    }

    #[test]
    fn a_panic_of_a_helper_is_the_leaders() {
        served(|desks| {
            let panicked = catch_unwind(|| until_helped(desks, || panic!("on purpose")));
            let payload = panicked.expect_err("the helper panicked");
            assert_eq!(payload.downcast_ref(), Some(&"on purpose"));
            until_helped(desks, || ());
        });
    }

    #[test]
    fn a_leader_who_panics_takes_his_call_away() {
        let desks = [Arc::new(Desk::default())];
        let lead = || together(&desks, &|_| unreachable!("nobody serves"), || panic!("on purpose"));
        assert!(catch_unwind(AssertUnwindSafe(lead)).is_err());
        assert!(matches!(*desks[0].top.lock(), Top::Nothing));
    }
}
