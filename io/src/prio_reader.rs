//! Reading the table of gens and prios: the chain of prio sets that the journal names.
//!
//! # Problem
//!
//! Only a set says where the next one is, so a chain is followed by one thread. But taking the
//! records of a large device out of their sets is more work than reading them: it touches all
//! memory of the allocator's table for the first time.
//!
//! # Protocol
//!
//! 0. While the journal is being read, nobody knows yet where the chain begins. Helpers, and the
//!    calling thread while it has to wait, have the system provide the memory of the table
//!    meanwhile, from its end on: clearing it takes longer than filling it. What is not provided
//!    when the journal has been read is left to step 2 ([`while_providing`]).
//! 1. The calling thread follows the chain. It reads ahead as far as it can guess
//!    ([`read_ahead`](crate::read_ahead)), checks each set as it is and in its chain, and puts
//!    those that passed on a list, a few together: the records of each such *part* fill a large
//!    page of the table, or more. (Two threads that touch the same page for the first time would
//!    both have it cleared.)
//! 2. Helpers take parts from the list and write their records to their places in the table. So
//!    does the calling thread, while it has to wait for the device.
//! 3. When the chain has come to its end, all do this until nothing is left.
//!
//! Buffers bound the memory: a set on the list keeps that of its read, and without a free one
//! nothing is read ahead. Small devices need no helpers and get none, and where no thread can be
//! had, the calling one does it all.

use crate::error::Error;
use crate::read_ahead::{EXPECTED_MAX, Piece, ReadAhead, Span, Steps};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use tierce_core::record::{ChainWalk, PrioChain, PrioSet};
use tierce_core::{BucketIndex, Geometry};
use tierce_lockfree::{Gens, GensBuilder, GensPage, SetGens};

/// Threads that take sets apart, the caller's included.
const THREADS_MAX: usize = 4;
/// Parts per thread below which starting one is not worth it.
const PARTS_PER_THREAD_MIN: usize = 2;
/// Records of a part, if a set has not more: those of a large page.
const PART_RECORDS: u32 = (2 << 20) / 8;

/// Threads that are worth having, the caller's included.
fn threads(geometry: &Geometry) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let parts = geometry.nbuckets().div_ceil(PART_RECORDS) as usize;
    (parts / PARTS_PER_THREAD_MIN).clamp(1, cpus.min(THREADS_MAX))
}

/// Does `work` while helpers have the memory of the table provided: step 0. `work` does some of
/// that as well, by what it is given, whenever it has to wait; `false` if there is none left.
pub(crate) fn while_providing<R>(
    builder: &mut GensBuilder,
    geometry: &Geometry,
    work: impl FnOnce(&mut dyn FnMut() -> bool) -> R,
) -> R {
    let pages = Mutex::new(Some(builder.pages().rev()));
    // No code that can panic runs under the lock.
    let lock = || pages.lock().unwrap_or_else(PoisonError::into_inner);
    let provide_one = || {
        let page = lock().as_mut().and_then(Iterator::next);
        page.map(GensPage::provide).is_some()
    };
    std::thread::scope(|scope| {
        for _ in 1..threads(geometry) {
            let helper = std::thread::Builder::new().name("tierce-table".into());
            // Without it more is left.
            let _ = helper.spawn_scoped(scope, || while provide_one() {});
        }
        let result = work(&mut || provide_one());
        *lock() = None;
        result
    })
}

/// Follows `walk` to the end of its chain: the chain and the table that it holds, in the memory
/// of `builder`.
pub(crate) fn read_prio_chain(
    reads: &mut ReadAhead,
    geometry: &Geometry,
    walk: ChainWalk,
    mut builder: GensBuilder,
) -> Result<(PrioChain, Gens), Error> {
    let list = List::default();
    let chain = std::thread::scope(|scope| {
        let end = EndOf(&list);
        for _ in 1..threads(geometry) {
            let helper = std::thread::Builder::new().name("tierce-table".into());
            // Without it the others have more to do.
            let _ = helper.spawn_scoped(scope, || list.help());
        }
        let chain = follow(reads, geometry, walk, builder.sets(), &list)?;
        drop(end);
        list.help();
        Ok::<_, Error>(chain)
    })?;
    Ok((chain, builder.build()))
}

/// Step 1.
fn follow<'a>(
    reads: &mut ReadAhead,
    geometry: &Geometry,
    mut walk: ChainWalk,
    places: impl Iterator<Item = SetGens<'a>>,
    list: &List<'a>,
) -> Result<PrioChain, Error> {
    let span = |bucket: u32| {
        let offset = u64::from(bucket) * u64::from(geometry.bucket_bytes());
        Span { offset, bytes: geometry.meta_bytes().into() }
    };
    let (mut steps, mut part) = (Steps::default(), Part::default());
    let per_part = (PART_RECORDS / geometry.prios_per_bucket()).max(1) as usize;
    for place in places {
        let Some(bucket) = walk.next_bucket()? else {
            unreachable!("a table has as many sets as its chain");
        };
        let left = EXPECTED_MAX.min(walk.sets_left() as usize - 1);
        let guesses = steps.after(bucket.get()).take(left);
        let possible = guesses.filter(|&guess| geometry.contains(BucketIndex::new(guess)));
        let set = reads.read(span(bucket.get()), possible.map(span), || list.do_one())?;
        walk.accept(bucket, &set)?;
        part.0.push((place, set));
        if part.0.len() == per_part || walk.sets_left() == 0 {
            list.add(std::mem::take(&mut part));
        }
    }
    Ok(walk.finish())
}

/// Sets whose records are to be written to their places.
#[derive(Default)]
struct Part<'a>(Vec<(SetGens<'a>, Piece)>);

impl Part<'_> {
    fn write(self) {
        for (place, set) in self.0 {
            place.fill(PrioSet::records_in(&set));
        }
    }
}

/// What there is to do.
#[derive(Default)]
struct List<'a> {
    state: Mutex<State<'a>>,
    changed: Condvar,
}

#[derive(Default)]
struct State<'a> {
    parts: VecDeque<Part<'a>>,
    /// Nothing will be added any more.
    ended: bool,
}

impl<'a> List<'a> {
    /// No code that can panic runs under the lock.
    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, part: Part<'a>) {
        self.state().parts.push_back(part);
        self.changed.notify_one();
    }

    /// Writes one part, if there is one.
    fn do_one(&self) -> bool {
        let part = self.state().parts.pop_front();
        part.map(Part::write).is_some()
    }

    /// Writes parts until no more will come.
    fn help(&self) {
        let wait = |state| self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut state = self.state();
            while state.parts.is_empty() && !state.ended {
                state = wait(state);
            }
            let Some(part) = state.parts.pop_front() else { return };
            drop(state);
            part.write();
        }
    }
}

/// Nothing is added to the list after this, whatever happens: helpers end.
struct EndOf<'a, 'b>(&'a List<'b>);

impl Drop for EndOf<'_, '_> {
    fn drop(&mut self) {
        self.0.state().ended = true;
        self.0.changed.notify_all();
    }
}
