//! The threads of long passes.
//!
//! A pass is cut into pieces (`crew.rs` says how they are shared out). The reclaimer's thread takes
//! one after the other, and so do its helpers, if it may have any: threads of our own, started
//! when the first pass long enough for it comes, who sleep at their desks (`desk.rs`) between
//! passes. Who does which piece makes no difference to what is found. If no threads can be had, if
//! they work for another reclaimer of the set, or if they come too late, the reclaimer does
//! everything by itself.

use super::crew::{Crew, Phase};

/// Buckets that are not worth waking anybody: some tens of microseconds.
#[cfg(not(any(tierce_loom, tierce_shuttle)))]
const FEW: usize = 256 << 10;

#[cfg(not(any(tierce_loom, tierce_shuttle)))]
mod imp {
    use super::{Crew, FEW, Phase};
    use crate::sync::{Arc, OnceLock, start_thread};
    use crate::victims::desk::{self, Desk};

    /// The reclaimer's own thread and its helpers.
    #[derive(Debug)]
    pub(crate) struct Threads {
        helpers: usize,
        name: String,
        /// Of those that could be started.
        desks: OnceLock<Vec<Arc<Desk>>>,
    }

    impl Threads {
        /// `threads`, the reclaimer's own included; the others are called `name` and a number.
        pub(crate) fn new(threads: u32, name: &str) -> Self {
            let helpers = (threads as usize).saturating_sub(1);
            Self { helpers, name: name.to_owned(), desks: OnceLock::new() }
        }

        fn start(&self) -> Vec<Arc<Desk>> {
            let start = |number| {
                let desk = Arc::new(Desk::default());
                let own = Arc::clone(&desk);
                let started = start_thread(format!("{}-{number}", self.name), move || own.serve());
                started.then_some(desk)
            };
            (0..self.helpers).map_while(start).collect()
        }

        /// The desks of the helpers, if this many buckets are worth their while.
        fn desks(&self, buckets: usize) -> &[Arc<Desk>] {
            if self.helpers == 0 || buckets < FEW {
                return &[];
            }
            self.desks.get_or_init(|| self.start())
        }

        /// How many threads work on a pass over so many buckets.
        pub(crate) fn count(&self, buckets: usize) -> usize {
            self.desks(buckets).len() + 1
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
            let help = |helper| crew.help(|phase, piece| work(phase, piece, helper));
            desk::together(self.desks(buckets), &help, || {
                // Helpers leave, also if the leader panics.
                let _closed = Closed(&crew);
                lead(&crew)
            })
        }

        /// How many helpers run.
        #[cfg(test)]
        pub(crate) fn running(&self) -> usize {
            self.desks.get().map_or(0, Vec::len)
        }
    }

    impl Drop for Threads {
        fn drop(&mut self) {
            self.desks.get().into_iter().flatten().for_each(|desk| desk.end());
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
