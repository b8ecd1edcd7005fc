//! The threads of long passes.
//!
//! A pass is cut into pieces (`crew.rs` says how they are shared out). The reclaimer's thread takes
//! one after the other, and so do its helpers, if it may have any: the threads of a pool of our
//! own, made when the first pass long enough for it comes. Who does which piece makes no
//! difference to what is found. If the threads cannot be had, the reclaimer does everything by
//! itself.

use super::crew::{Crew, Phase};

/// Buckets that are not worth waking anybody: some tens of microseconds.
#[cfg(not(any(tierce_loom, tierce_shuttle)))]
const FEW: usize = 256 << 10;

#[cfg(not(any(tierce_loom, tierce_shuttle)))]
mod imp {
    use super::{Crew, FEW, Phase};
    use crate::sync::OnceLock;
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

        /// The helpers, if there are any and this many buckets are worth their while.
        fn helpers(&self, buckets: usize) -> Option<&ThreadPool> {
            if self.helpers == 0 || buckets < FEW {
                return None;
            }
            self.pool.get_or_init(|| self.start()).as_ref()
        }

        /// How many threads work on a pass over so many buckets.
        pub(crate) fn count(&self, buckets: usize) -> usize {
            self.helpers(buckets).map_or(1, |_| self.helpers + 1)
        }

        /// Runs `lead`, which opens phases. Helpers for a pass over so many buckets do theirs by
        /// `work`, which is told phase, piece and the number of the thread, the first being 1.
        pub(crate) fn together<R>(
            &self,
            buckets: usize,
            work: impl Fn(Phase, usize, usize) + Sync,
            lead: impl FnOnce(&Crew) -> R,
        ) -> R {
            let crew = Crew::new();
            let Some(pool) = self.helpers(buckets) else { return lead(&crew) };
            let (crew, work) = (&crew, &work);
            pool.in_place_scope(|scope| {
                // The scope ends when all helpers have left, also if the leader panics.
                let _closed = Closed(crew);
                for helper in 1..=self.helpers {
                    let work = move |phase, piece| work(phase, piece, helper);
                    scope.spawn(move |_| crew.help(work));
                }
                lead(crew)
            })
        }

        /// How many helpers run.
        #[cfg(test)]
        pub(crate) fn running(&self) -> usize {
            self.pool
                .get()
                .map_or(0, |pool| pool.as_ref().map_or(0, ThreadPool::current_num_threads))
        }
    }

    /// Closes the crew when it is dropped.
    struct Closed<'a>(&'a Crew);

    impl Drop for Closed<'_> {
        fn drop(&mut self) {
            self.0.close();
        }
    }
}

#[cfg(any(tierce_loom, tierce_shuttle))]
mod imp {
    use super::{Crew, Phase};

    /// The checker does not see into a pool, so models make passes by one thread; a crew of
    /// several has a model of its own.
    #[derive(Debug)]
    pub(crate) struct Threads;

    impl Threads {
        pub(crate) fn new(_threads: u32, _name: &str) -> Self {
            Self
        }

        pub(crate) fn count(&self, _buckets: usize) -> usize {
            1
        }

        pub(crate) fn together<R>(
            &self,
            _buckets: usize,
            _work: impl Fn(Phase, usize, usize) + Sync,
            lead: impl FnOnce(&Crew) -> R,
        ) -> R {
            lead(&Crew::new())
        }
    }
}

pub(crate) use imp::Threads;
