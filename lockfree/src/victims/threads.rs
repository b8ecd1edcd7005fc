//! The threads of long passes.
//!
//! A pass is cut into pieces. The reclaimer's thread takes one after the other, and so do its
//! helpers, if it may have any: the threads of a pool of our own, made when the first pass long
//! enough for it comes. Who scans which piece makes no difference to what is found. If the
//! threads cannot be had, the reclaimer does everything by itself.

use super::rank::Rank;

/// Pieces that are not worth waking anybody: some tens of microseconds.
#[cfg(not(any(tierce_loom, tierce_shuttle)))]
const FEW: usize = 16;

#[cfg(not(any(tierce_loom, tierce_shuttle)))]
mod imp {
    use super::{FEW, Rank};
    use crate::sync::{AtomicUsize, OnceLock, Ordering};
    use rayon_core::{ThreadPool, ThreadPoolBuilder};

    /// The reclaimer's own thread and its helpers.
    #[derive(Debug)]
    pub(crate) struct Threads {
        helpers: usize,
        name: String,
        /// Nothing if the helpers could not be started.
        pool: OnceLock<Option<ThreadPool>>,
    }

    impl Threads {
        /// `threads`, the reclaimer's own included; the others are called `name` and a number.
        pub(crate) fn new(threads: u32, name: &str) -> Self {
            let helpers = (threads as usize).saturating_sub(1);
            Self { helpers, name: name.to_owned(), pool: OnceLock::new() }
        }

        fn start(&self) -> Option<ThreadPool> {
            let name = self.name.clone();
            let pool = ThreadPoolBuilder::new().num_threads(self.helpers);
            pool.thread_name(move |number| format!("{name}-{number}")).build().ok()
        }

        /// What `scan` finds in pieces 0 to `pieces` − 1, in any order.
        pub(crate) fn collect(
            &self,
            pieces: usize,
            found: &mut Vec<Rank>,
            scan: impl Fn(usize, &mut Vec<Rank>) + Sync,
        ) {
            let pool = if self.helpers == 0 || pieces < FEW {
                &None
            } else {
                self.pool.get_or_init(|| self.start())
            };
            let Some(pool) = pool else {
                (0..pieces).for_each(|piece| scan(piece, found));
                return;
            };
            let next = AtomicUsize::new(0);
            let work = |found: &mut Vec<Rank>| {
                loop {
                    // Relaxed: each number is taken once, nothing is published with it.
                    let piece = next.fetch_add(1, Ordering::Relaxed);
                    if piece >= pieces {
                        break;
                    }
                    scan(piece, found);
                }
            };
            let mut parts = vec![Vec::new(); self.helpers];
            pool.in_place_scope(|scope| {
                for part in &mut parts {
                    scope.spawn(|_| work(part));
                }
                work(found);
            });
            parts.iter().for_each(|part| found.extend_from_slice(part));
        }

        /// How many helpers run.
        #[cfg(test)]
        pub(crate) fn running(&self) -> usize {
            self.pool
                .get()
                .map_or(0, |pool| pool.as_ref().map_or(0, ThreadPool::current_num_threads))
        }
    }
}

#[cfg(any(tierce_loom, tierce_shuttle))]
mod imp {
    use super::Rank;

    /// The checker does not see into a pool, so models scan by one thread.
    #[derive(Debug)]
    pub(crate) struct Threads;

    impl Threads {
        pub(crate) fn new(_threads: u32, _name: &str) -> Self {
            Self
        }

        pub(crate) fn collect(
            &self,
            pieces: usize,
            found: &mut Vec<Rank>,
            scan: impl Fn(usize, &mut Vec<Rank>) + Sync,
        ) {
            (0..pieces).for_each(|piece| scan(piece, found));
        }
    }
}

pub(crate) use imp::Threads;
