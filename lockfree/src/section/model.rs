//! Restartable sections as the model checker sees them.
//!
//! Every thread runs on a CPU of its own. A section is made while a lock of its CPU is held, and
//! a barrier takes each of these locks once: so a section is over before it or begins after it.
//! That is all that the kernel promises; what the sections of different CPUs see of each other is
//! left to the orderings of their accesses, which are those of the instructions.

use crate::sync::{AtomicU64, Mutex, Ordering, execution_static};

/// A model has at most 5 threads.
const CPUS: usize = 5;

execution_static!(RUNNING: [Mutex<()>; CPUS] = core::array::from_fn(|_| Mutex::new(())));

/// There are sections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section(());

impl Section {
    /// For whoever models them: everybody else uses exchanges, or there would be too many orders
    /// to look at.
    pub(crate) fn find(_rows: usize) -> Option<Self> {
        None
    }

    pub(crate) fn modelled() -> Self {
        Self(())
    }

    pub(crate) fn cpu(self) -> usize {
        crate::hint::place(CPUS)
    }

    pub(crate) fn is_registered(self) -> bool {
        true
    }

    pub(crate) fn store(
        self,
        modes: &AtomicU64,
        mode: u64,
        cpu: usize,
        cell: &AtomicU64,
        old: u64,
        new: u64,
    ) -> bool {
        self.store_if(modes, |now| now & mode != 0, cpu, cell, old, new)
    }

    pub(crate) fn store_in_turn(
        self,
        modes: &AtomicU64,
        seen: u64,
        cpu: usize,
        cell: &AtomicU64,
        old: u64,
        new: u64,
    ) -> bool {
        self.store_if(modes, |now| now == seen, cpu, cell, old, new)
    }

    fn store_if(
        self,
        modes: &AtomicU64,
        is_right: impl Fn(u64) -> bool,
        cpu: usize,
        cell: &AtomicU64,
        old: u64,
        new: u64,
    ) -> bool {
        let _running = RUNNING[self.cpu()].lock();
        // Acquire, Relaxed: as x86 loads, or weaker: the caller has loaded the cell Acquire.
        let may = cpu == self.cpu()
            && is_right(modes.load(Ordering::Acquire))
            && cell.load(Ordering::Relaxed) == old;
        if may {
            // Release: as x86 stores.
            cell.store(new, Ordering::Release);
        }
        may
    }

    pub(crate) fn exchange(
        self,
        modes: &AtomicU64,
        mode: u64,
        cell: &AtomicU64,
        old: u64,
        new: u64,
    ) -> bool {
        let _running = RUNNING[self.cpu()].lock();
        // Acquire: as x86 loads.
        if modes.load(Ordering::Acquire) & mode == 0 {
            return false;
        }
        // SeqCst, Relaxed (failure): as a locked exchange, or weaker.
        cell.compare_exchange(old, new, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    pub(crate) fn barrier(self) {
        RUNNING.iter().for_each(|running| drop(running.lock()));
    }
}
