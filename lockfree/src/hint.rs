//! Which of the per-CPU places a thread should try first.
//!
//! Cells, counters and hint tables come in as many copies as there are CPUs. The number given
//! here is a *hint*: any thread may use any copy, a thread that moves to another CPU or shares
//! its number with another is slower, never wrong. Nobody owns a copy, so nothing is stranded
//! when a thread ends or a CPU goes away.
//!
//! The hint is a number that a thread draws on first use and keeps: one thread-local load, on
//! every platform and under every checker.

use crate::sync::{AtomicUsize, Ordering, thread_local};

#[cfg(not(tierce_loom))]
static NEXT: AtomicUsize = AtomicUsize::new(0);

#[cfg(tierce_loom)]
loom::lazy_static! {
    static ref NEXT: AtomicUsize = AtomicUsize::new(0);
}

thread_local! {
    // Relaxed: the numbers need to differ, nothing is published with them.
    static SLOT: usize = NEXT.fetch_add(1, Ordering::Relaxed);
}

/// This thread's place among `copies` copies.
#[inline]
pub(crate) fn place(copies: usize) -> usize {
    // A thread that is being torn down has lost its number: any place will do.
    let slot = SLOT.try_with(|slot| *slot).unwrap_or(0);
    if copies.is_power_of_two() { slot & (copies - 1) } else { slot % copies }
}

#[cfg(all(test, not(tierce_loom)))]
mod tests {
    #[test]
    fn a_thread_keeps_its_place() {
        let here = super::place(usize::MAX);
        assert_eq!(here, super::place(usize::MAX));
        let there = std::thread::spawn(|| super::place(usize::MAX)).join().unwrap();
        assert_ne!(here, there);
        assert!(super::place(3) < 3 && super::place(4) < 4);
    }
}
