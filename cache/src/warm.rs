//! While the cache comes back: what is known of it by now, and who waits for the rest.
//!
//! # State
//!
//! One word: how many steps the recovery ([`crate::recover`]) has made, or that it is over, or that
//! it failed. A step makes more keys *known*: where the newest record of each of them is, and that
//! no bucket which has not been read yet can hold a newer one. Known keys are in the index, or
//! there is nothing to be found of them; then that is noted here, if any record of them was met.
//!
//! # Who may do what
//!
//! | | recovering | over | failed |
//! |---|---|---|---|
//! | get of a known key | as always | as always | as always |
//! | get of any other | a miss, counted by itself, or waits for the next step | – | a miss, counted by itself |
//! | insert, remove, flush | waits, or [`Error::Recovering`] | as always | the error |
//!
//! A get looks at the word *before* it looks the key up: found over by then, a key that is not in
//! the index is not there. The other way round the key could become known in between.
//!
//! # Progress
//!
//! Whoever waits is woken by every step and at the end, whatever the end is; also if the recovery
//! panics. It waits for no request.

use crate::config::Recover;
use crate::error::Error;
use crate::index::{Index, KeyHash};
use crate::memory::Hashed;
use crate::wakers::{Place, Wakers};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use tierce_core::BucketId;

const OVER: u64 = u64::MAX;
const FAILED: u64 = u64::MAX - 1;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far a recovery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// So many steps were made.
    Step(u64),
    /// All is known.
    Over,
    /// No more will be known.
    Failed,
}

/// The oldest record that was met of a key, as far as another one must know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Met {
    bucket: u32,
    /// The newest is a tombstone, or dead: nothing is to be found of the key.
    pub(crate) gone: bool,
}

impl Met {
    pub(crate) fn new(bucket: BucketId, gone: bool) -> Self {
        Self { bucket: bucket.pack(), gone }
    }

    pub(crate) fn bucket(self) -> BucketId {
        BucketId::unpack(self.bucket)
    }
}

/// Keys of a shard of the index of which more is known than the index can say.
#[derive(Debug, Default)]
pub(crate) struct Chains(HashMap<u64, Met, BuildHasherDefault<Hashed>>);

impl Chains {
    /// Keys of a shard have the upper bits of their hashes in common, and a table wants these to
    /// differ.
    const fn key(hash: KeyHash) -> u64 {
        hash.0.rotate_left(32)
    }

    pub(crate) fn get(&self, hash: KeyHash) -> Option<Met> {
        self.0.get(&Self::key(hash)).copied()
    }

    pub(crate) fn insert(&mut self, hash: KeyHash, met: Met) {
        self.0.insert(Self::key(hash), met);
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Warm {
    /// What gets do of which nothing is known.
    gets: Recover,
    word: AtomicU64,
    /// The cache ends: the recovery gives up.
    stopped: AtomicBool,
    /// Buckets that may hold something.
    buckets: AtomicU64,
    /// As many of them are read, or hold nothing.
    known: AtomicU64,
    chains: Box<[Mutex<Chains>]>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    wakers: Wakers,
    error: Option<Error>,
}

impl Warm {
    pub(crate) fn new(gets: Recover, buckets: u64) -> Self {
        Self {
            gets,
            word: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            buckets: AtomicU64::new(buckets),
            known: AtomicU64::new(0),
            chains: (0..Index::shards()).map(|_| Mutex::default()).collect(),
            waiting: Mutex::default(),
        }
    }

    // ---- requests

    pub(crate) fn progress(&self) -> Progress {
        // Acquire: what the steps so far have made known is seen; pairs with `advance`'s Release.
        match self.word.load(Ordering::Acquire) {
            OVER => Progress::Over,
            FAILED => Progress::Failed,
            step => Progress::Step(step),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.progress() == Progress::Over
    }

    /// Whether it is known of a key that is not in the index that there is nothing to be found.
    pub(crate) fn is_gone(&self, hash: KeyHash) -> bool {
        self.chains(hash.shard()).get(hash).is_some_and(|met| met.gone)
    }

    /// Whether a get of a key that is not known waits for it.
    pub(crate) fn gets_wait(&self) -> bool {
        self.gets == Recover::WaitMeanwhile
    }

    /// Waits for the next step after `step`, or the end.
    pub(crate) async fn after(&self, step: u64) {
        self.wait(move |progress, _| (progress != Progress::Step(step)).then_some(())).await;
    }

    /// Waits until all is known.
    pub(crate) async fn over(&self) -> Result<(), Error> {
        self.wait(|progress, error| match progress {
            Progress::Step(_) => None,
            Progress::Over => Some(Ok(())),
            Progress::Failed => Some(Err(error.clone().expect("it says why"))),
        })
        .await
    }

    fn wait<T>(
        &self,
        done: impl Fn(Progress, &Option<Error>) -> Option<T>,
    ) -> impl Future<Output = T> {
        let mut place = Place::new(|own| lock(&self.waiting).wakers.leave(own));
        poll_fn(move |context| {
            // Under the lock: a step that comes later finds the waker.
            let mut waiting = lock(&self.waiting);
            if let Some(output) = done(self.progress(), &waiting.error) {
                return Poll::Ready(output);
            }
            let old = place.enter(&mut waiting.wakers, context.waker());
            drop(waiting);
            drop(old); // not before: see `Wakers`
            Poll::Pending
        })
    }

    /// Buckets of which all is known, and all.
    pub(crate) fn known(&self) -> (u64, u64) {
        // Relaxed: statistics, both.
        (self.known.load(Ordering::Relaxed), self.buckets.load(Ordering::Relaxed))
    }

    pub(crate) fn recovering(&self) -> Error {
        let (known, buckets) = self.known();
        Error::Recovering { known, buckets }
    }

    // ---- the recovery

    /// So many buckets are known by now, and whatever became known with them.
    pub(crate) fn step(&self, known: u64) {
        // Relaxed: a statistic.
        self.known.store(known, Ordering::Relaxed);
        if let Progress::Step(step) = self.progress() {
            self.advance(step + 1, None);
        }
    }

    /// All is known: nothing is noted here any more.
    pub(crate) fn finish(&self) {
        // Relaxed: statistics, both.
        self.known.store(self.buckets.load(Ordering::Relaxed), Ordering::Relaxed);
        self.advance(OVER, None);
        self.chains.iter().for_each(|chains| drop(std::mem::take(&mut *lock(chains))));
    }

    /// It ended with `error`, unless it has ended.
    pub(crate) fn fail(&self, error: Error) {
        if let Progress::Step(_) = self.progress() {
            self.advance(FAILED, Some(error));
        }
    }

    fn advance(&self, word: u64, error: Option<Error>) {
        let wakers = {
            let mut waiting = lock(&self.waiting);
            waiting.error = error;
            // Release: see `progress`. Swapped by the recovery alone.
            self.word.swap(word, Ordering::Release);
            waiting.wakers.take()
        };
        wakers.for_each(Waker::wake);
    }

    /// Locked: what is noted of the keys of a shard.
    pub(crate) fn chains(&self, shard: usize) -> MutexGuard<'_, Chains> {
        lock(&self.chains[shard])
    }

    /// The recovery gives up as soon as it can.
    pub(crate) fn stop(&self) {
        // Relaxed: a flag, nothing is published with it.
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        // Relaxed: as above.
        self.stopped.load(Ordering::Relaxed)
    }

    /// Fails when it is dropped before the recovery has ended, which panicked then.
    pub(crate) fn guard(&self) -> impl Drop + '_ {
        struct Guard<'a>(&'a Warm);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                let cause = Arc::new(std::io::Error::other("it panicked"));
                self.0.fail(Error::Thread { thread: "tierce-recover", cause });
            }
        }
        Guard(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::block_on;
    use crate::testing::Task;
    use std::pin::pin;
    use std::task::Context;

    #[test]
    fn who_waits_goes_on_whatever_the_end() {
        let context = &mut Context::from_waker(Waker::noop());
        let warm = Warm::new(Recover::WaitMeanwhile, 10);
        let (mut step, mut over) = (pin!(warm.after(0)), pin!(warm.over()));
        assert!(
            step.as_mut().poll(context).is_pending() && over.as_mut().poll(context).is_pending()
        );
        warm.step(5);
        assert!(step.as_mut().poll(context).is_ready() && over.as_mut().poll(context).is_pending());
        assert_eq!((warm.known(), warm.progress()), ((5, 10), Progress::Step(1)));
        drop(warm.guard());
        assert!(matches!(over.as_mut().poll(context), Poll::Ready(Err(Error::Thread { .. }))));
        assert!(block_on(warm.over()).is_err(), "also who comes later");

        let warm = Warm::new(Recover::First, 10);
        let mut over = pin!(warm.over());
        assert!(over.as_mut().poll(context).is_pending());
        warm.chains(0).insert(KeyHash(7), Met::new(BucketId::unpack(9), true));
        assert!(warm.is_gone(KeyHash(7)) && !warm.is_gone(KeyHash(8)));
        warm.finish();
        warm.fail(Error::EmptyKey);
        assert!(matches!(over.as_mut().poll(context), Poll::Ready(Ok(()))));
        assert!(!warm.is_gone(KeyHash(7)), "nothing is noted any more");
        assert_eq!(warm.known(), (10, 10));
    }

    #[test]
    fn who_waits_leaves_one_waker_at_most() {
        let task = Arc::new(Task);
        let warm = Warm::new(Recover::WaitMeanwhile, 10);
        let (mut step, mut over) = (Box::pin(warm.after(0)), Box::pin(warm.over()));
        for _ in 0..10 {
            let waker = Waker::from(Arc::clone(&task));
            let context = &mut Context::from_waker(&waker);
            assert!(step.as_mut().poll(context).is_pending());
            assert!(over.as_mut().poll(context).is_pending());
        }
        assert_eq!(Arc::strong_count(&task), 3, "two wait");
        // Who has another one by now.
        assert!(over.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(Arc::strong_count(&task), 2);
        drop(step);
        assert_eq!(Arc::strong_count(&task), 1, "nobody waits with it");
    }
}
