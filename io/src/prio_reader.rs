//! Reading the table of gens and prios: the chain of prio sets that the journal names.
//!
//! # Problem
//!
//! Only a set says where the next one is, so a chain is followed by one thread. But taking the
//! records of a large device out of their sets is more work than reading them: it touches all
//! memory of the allocator's table for the first time, which the system clears then.
//!
//! # Protocol
//!
//! 1. The calling thread reads: first the journal, which says where the chain begins, then the
//!    chain. It reads ahead as far as it can guess ([`read_ahead`](crate::read_ahead)), and checks
//!    each set as it is and in its chain.
//! 2. The table is filled huge page by huge page ([`GensPage`]), each by one thread. As soon as
//!    all the sets that have records of a page are there, the page is put on a list as a *job*.
//! 3. Helpers, and the calling thread while it has to wait for the device or for a buffer, do
//!    jobs. As long as there is none, which is so while the journal is being read, they have the
//!    system provide the memory of pages, from the last one on.
//! 4. When the chain has come to its end, all do jobs until nothing is left.
//!
//! Buffers bound the memory: a job keeps those of its sets, and without a free one nothing is
//! read ahead. Small devices need no helpers and get none, and where no thread can be had, the
//! calling one does it all.

use crate::error::Error;
use crate::read_ahead::{EXPECTED_MAX, Piece, ReadAhead, Span, Steps};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use tierce_core::record::{ChainWalk, PrioChain, PrioSet};
use tierce_core::{BucketIndex, Geometry};
use tierce_lockfree::{GensBuilder, GensPage};

/// Threads that work on the table, the caller's included.
const THREADS_MAX: usize = 4;
/// Pages per thread below which starting one is not worth it.
const PAGES_PER_THREAD_MIN: usize = 2;

/// Calls `read`, which reads the journal and [follows](Table::follow) the chain, while helpers
/// work on the table whose memory is `builder`. All that was read is in it then.
pub(crate) fn with_helpers<R>(builder: &mut GensBuilder, read: impl FnOnce(&Table<'_>) -> R) -> R {
    let table = &Table::new(builder.pages().collect());
    std::thread::scope(|scope| {
        let end = EndOf(table);
        for _ in 1..threads(table.lengths.len()) {
            let helper = std::thread::Builder::new().name("tierce-table".into());
            // Without it the others have more to do.
            let _ = helper.spawn_scoped(scope, || table.help());
        }
        let result = read(table);
        drop(end);
        table.help();
        result
    })
}

/// Threads that are worth having, the caller's included.
fn threads(pages: usize) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (pages / PAGES_PER_THREAD_MIN).clamp(1, cpus.min(THREADS_MAX))
}

/// A table that is being filled.
pub(crate) struct Table<'a> {
    /// Records of each page.
    lengths: Vec<usize>,
    state: Mutex<State<'a>>,
    changed: Condvar,
}

struct State<'a> {
    /// By number; `None` while somebody works on it, and when it is filled.
    pages: Vec<Option<GensPage<'a>>>,
    /// What is to be filled, in order of page.
    jobs: VecDeque<Job>,
    /// Pages of which nobody has had the memory provided, nor the records.
    untouched: Range<usize>,
    /// Nothing will be added any more.
    ended: bool,
}

/// A page whose records have been read: sets, and which of their records.
struct Job {
    page: usize,
    records: Vec<(Piece, Range<usize>)>,
}

/// What one thread does next.
enum Work<'a> {
    Fill(GensPage<'a>, Job),
    Provide(GensPage<'a>, usize),
}

impl<'a> Table<'a> {
    fn new(pages: Vec<GensPage<'a>>) -> Self {
        let lengths = pages.iter().map(GensPage::left).collect();
        let untouched = 0..pages.len();
        let pages = pages.into_iter().map(Some).collect();
        let state = State { pages, jobs: VecDeque::new(), untouched, ended: false };
        Self { lengths, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// No code that can panic runs under the lock.
    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows `walk` to the end of its chain: step 1. Its records are in the table when
    /// [`with_helpers`] is through.
    pub(crate) fn follow(
        &self,
        reads: &mut ReadAhead,
        geometry: &Geometry,
        mut walk: ChainWalk,
    ) -> Result<PrioChain, Error> {
        let span = |bucket: u32| {
            let offset = u64::from(bucket) * u64::from(geometry.bucket_bytes());
            Span { offset, bytes: geometry.meta_bytes().into() }
        };
        let mut steps = Steps::default();
        let mut sorter = Sorter { table: self, job: Job { page: 0, records: vec![] }, taken: 0 };
        let mut left = geometry.nbuckets() as usize;
        while let Some(bucket) = walk.next_bucket()? {
            let most = EXPECTED_MAX.min(walk.sets_left() as usize - 1);
            let guesses = steps.after(bucket.get()).take(most);
            let possible = guesses.filter(|&guess| geometry.contains(BucketIndex::new(guess)));
            let set = reads.read(span(bucket.get()), possible.map(span), || self.work())?;
            walk.accept(bucket, &set)?;
            let count = left.min(geometry.prios_per_bucket() as usize);
            left -= count;
            sorter.add(&set, count);
        }
        Ok(walk.finish())
    }

    fn add(&self, job: Job) {
        let mut state = self.state();
        state.untouched.start = state.untouched.start.max(job.page + 1);
        state.jobs.push_back(job);
        drop(state);
        self.changed.notify_one();
    }

    /// Does something for the table: a job, or else providing a page. `false` if there is nothing
    /// to do at the moment.
    pub(crate) fn work(&self) -> bool {
        let work = self.state().next();
        work.map(|work| self.perform(work)).is_some()
    }

    fn perform(&self, work: Work<'a>) {
        match work {
            Work::Fill(mut page, job) => {
                for (set, records) in job.records {
                    page.fill(&PrioSet::records_in(&set)[records]);
                }
            }
            Work::Provide(mut page, number) => {
                page.provide();
                self.state().pages[number] = Some(page);
                self.changed.notify_all();
            }
        }
    }

    /// Works until there is nothing to do any more.
    fn help(&self) {
        let wait = |state| self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        loop {
            if let Some(work) = state.next() {
                drop(state);
                self.perform(work);
                state = self.state();
            } else if state.ended && state.jobs.is_empty() {
                return;
            } else {
                state = wait(state);
            }
        }
    }
}

impl<'a> State<'a> {
    fn next(&mut self) -> Option<Work<'a>> {
        // Whose page is being provided waits for that.
        let possible = self.jobs.iter().position(|job| self.pages[job.page].is_some());
        if let Some(job) = possible.and_then(|at| self.jobs.remove(at)) {
            return self.pages[job.page].take().map(|page| Work::Fill(page, job));
        }
        if self.ended {
            return None;
        }
        let last = self.untouched.next_back()?;
        self.pages[last].take().map(|page| Work::Provide(page, last))
    }
}

/// Sorts the records of sets by page.
struct Sorter<'a, 'b> {
    table: &'b Table<'a>,
    /// What is to be filled next.
    job: Job,
    /// Records that it has.
    taken: usize,
}

impl Sorter<'_, '_> {
    /// Takes the first `count` records of the next set.
    fn add(&mut self, set: &Piece, count: usize) {
        let mut records = 0..count;
        while !records.is_empty() {
            let page = self.job.page;
            let some = records.len().min(self.table.lengths[page] - self.taken);
            let end = records.start + some;
            self.job.records.push((set.clone(), records.start..end));
            records.start = end;
            self.taken += some;
            if self.taken == self.table.lengths[page] {
                let next = Job { page: page + 1, records: Vec::new() };
                self.table.add(std::mem::replace(&mut self.job, next));
                self.taken = 0;
            }
        }
    }
}

/// Nothing is added after this, whatever happens: helpers end.
struct EndOf<'a, 'b>(&'b Table<'a>);

impl Drop for EndOf<'_, '_> {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.changed.notify_all();
    }
}
