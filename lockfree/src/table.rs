//! The words of a device's buckets, and their transitions as atomic updates.
//!
//! # State
//!
//! One `AtomicU64` per bucket, packed as `tierce_core::word` draws it. After construction a
//! word changes **only by read-modify-write**: fields that belong to others survive, and every
//! RMW continues the release sequence of those before it, so that whoever acquires the word
//! synchronises with *all* earlier unpinners. A plain store in, say, `touch` would lose unpins.
//!
//! In the place of the prio stands a *stamp*: at which age epoch the bucket was last fresh
//! (`tierce_core::age`). [`Table::peek`] and [`Table::read`] return words as they are, for
//! those who care for other fields; whoever wants the prio takes [`Table::snapshot`], or decodes
//! stamps with one [`Table::epoch`]. What comes from outside is stamped on its way in.
//!
//! # Memory ordering
//!
//! | transition | success | pairs with |
//! |---|---|---|
//! | invalidate | AcqRel | Acquire ← the Release of every unpin: what holders of pins did to the bucket happened before its reuse. Release → the free lists and the re-check of readers |
//! | pin | Acquire | what follows the pin stays below it; the gen it saw stays frozen |
//! | prepay | Relaxed | the caller holds a pin already |
//! | unpin | Release | the Acquire of invalidate and of GC's snapshot |
//! | allocate | AcqRel | the caller popped the bucket: the list ordered it. Release → readers that acquire the word. Nothing is written if the word is already as it should be: then Acquire |
//! | dirty | Relaxed | published by the later unpin |
//! | touch | Relaxed | nothing: a hint. The word is loaded before the epoch, see [`crate::ageing`] |
//! | rescale (`rescale.rs`) | Relaxed | nothing: see [`crate::ageing`] |
//! | gc_publish | AcqRel | Acquire ← unpin; Release → invalidate, which relies on the mark |
//! | free | AcqRel | as unpin and invalidate |
//! | give_back | AcqRel, or nothing is written | the list, to which the bucket goes next, orders it |
//! | unused, bump_gen | AcqRel | as invalidate |
//! | gc_clear, gc_mark, renew_metadata | AcqRel | as gc_publish; invalidation has stopped meanwhile |
//! | set_moving | Relaxed | nothing: a hint |
//!
//! # Progress
//!
//! Every update is a compare-and-swap loop that repeats only when another thread changed the
//! same word: lock-free. `touch` tries once, `unpin` and `prepay` are one fetch-and-add:
//! wait-free.

use crate::ageing::AgeClock;
use crate::sync::{Arc, AtomicU64, Ordering};
use crate::victims::Taken;
use crate::victims::uses::Uses;
use crate::words::Words;
use tierce_core::word::{ONE_PIN, PIN_LIMIT, Purpose};
use tierce_core::{AgeEpoch, BucketIndex, Gen, Mark, Prio, Snapshot, broken};

/// What [`Table::invalidate`] took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Invalidated {
    pub(crate) bucket: BucketIndex,
    /// The word after it, with its stamp.
    pub(crate) after: Snapshot,
}

/// One word per bucket of a device.
pub(crate) struct Table {
    words: Words,
    /// The set's.
    clock: Arc<AgeClock>,
    /// When some of the buckets are used, if anybody wants to know.
    uses: Uses,
}

impl core::fmt::Debug for Table {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Table").field("buckets", &self.words.len()).finish_non_exhaustive()
    }
}

impl Table {
    /// A table with these words, which have prios.
    #[cfg(any(tierce_loom, all(test, not(tierce_shuttle))))]
    pub(crate) fn new(
        words: impl ExactSizeIterator<Item = Snapshot>,
        clock: Arc<AgeClock>,
    ) -> Self {
        let epoch = clock.now();
        Self::of(Words::new(words.map(|word| epoch.stamped(word))), clock)
    }

    /// A table with these words, which have stamps of the epoch that it is by `clock`.
    pub(crate) fn of(words: Words, clock: Arc<AgeClock>) -> Self {
        Self { words, clock, uses: Uses::none() }
    }

    /// The same, which counts when some of its buckets are used.
    pub(crate) fn counting(self, uses: Uses) -> Self {
        Self { uses, ..self }
    }

    /// What it counts.
    pub(crate) fn uses(&self) -> &Uses {
        &self.uses
    }

    /// The age epoch of the set, by which stamps are decoded.
    #[inline]
    pub(crate) fn epoch(&self) -> AgeEpoch {
        self.clock.now()
    }

    /// The word at an instant, with its prio; what [`read`](Self::read) orders. During a rescale
    /// the prio of a pinned bucket may be one step off.
    pub(crate) fn snapshot(&self, bucket: BucketIndex) -> Snapshot {
        let word = self.read(bucket);
        self.epoch().reveal(word)
    }

    /// A word that has a prio, as the table keeps it.
    #[inline]
    fn stamped(&self, word: Snapshot) -> Snapshot {
        self.epoch().stamped(word)
    }

    /// How many buckets it has.
    pub(crate) fn len(&self) -> usize {
        self.words.len()
    }

    #[inline]
    fn word(&self, bucket: BucketIndex) -> &AtomicU64 {
        self.words.of(bucket)
    }

    /// The words, for whoever reads them all: by relaxed loads only.
    pub(crate) fn words(&self) -> &Words {
        &self.words
    }

    /// The word with its stamp, for whoever decides nothing by it, or holds a pin.
    #[inline]
    pub(crate) fn peek(&self, bucket: BucketIndex) -> Snapshot {
        // Relaxed: a hint; what it leads to is decided by a CAS.
        Snapshot::from_bits(self.word(bucket).load(Ordering::Relaxed))
    }

    /// The word with its stamp, and everything that those who unpinned it did before.
    #[inline]
    pub(crate) fn read(&self, bucket: BucketIndex) -> Snapshot {
        Self::read_word(self.word(bucket))
    }

    /// Where the word of `bucket` is, for whoever reads it several times.
    #[inline]
    pub(crate) fn find(&self, bucket: BucketIndex) -> Option<&AtomicU64> {
        self.words.get(bucket)
    }

    /// As [`read`](Self::read), of a word that was found before.
    #[inline]
    pub(crate) fn read_word(word: &AtomicU64) -> Snapshot {
        // Acquire: pairs with the Release in `unpin` and `invalidate`.
        Snapshot::from_bits(word.load(Ordering::Acquire))
    }

    /// Whether a touch of a bucket with this word would change nothing.
    #[inline]
    pub(crate) fn is_fresh(&self, word: Snapshot) -> bool {
        word.stamp() == self.epoch().stamp()
    }

    /// The word as a prio write encodes it.
    pub(crate) fn read_for_prios(&self, bucket: BucketIndex) -> Snapshot {
        Self::read_word_for_prios(self.word(bucket))
    }

    /// As [`read_for_prios`](Self::read_for_prios), of a word that was found before.
    #[inline]
    pub(crate) fn read_word_for_prios(word: &AtomicU64) -> Snapshot {
        if broken!("prio_block_no_writer_fence") {
            // Relaxed: what this break is about.
            return Snapshot::from_bits(word.load(Ordering::Relaxed));
        }
        Self::read_word(word)
    }

    /// The one update loop: replaces the word by `next(word)` until nobody interferes.
    /// `Err` with the word for which `next` had no successor.
    #[inline]
    pub(crate) fn update(
        &self,
        bucket: BucketIndex,
        success: Ordering,
        next: impl Fn(Snapshot) -> Option<Snapshot>,
    ) -> Result<Update, Snapshot> {
        let word = self.word(bucket);
        // Relaxed: the CAS below decides, with the ordering its caller names.
        let mut before = Snapshot::from_bits(word.load(Ordering::Relaxed));
        loop {
            let after = next(before).ok_or(before)?;
            let (old, new) = (before.bits(), after.bits());
            // Relaxed (failure): only to try again.
            match word.compare_exchange_weak(old, new, success, Ordering::Relaxed) {
                Ok(_) => return Ok(Update { before, after }),
                Err(now) => before = Snapshot::from_bits(now),
            }
        }
    }

    /// Takes the bucket for reuse, if nothing forbids it.
    pub(crate) fn invalidate(&self, bucket: BucketIndex) -> Option<Invalidated> {
        if broken!("invalidate_by_store") {
            let after = self.read(bucket).invalidate()?;
            // AcqRel: the deliberate break, whatever the word has become meanwhile.
            self.word(bucket).swap(after.bits(), Ordering::AcqRel);
            return Some(Invalidated { bucket, after });
        }
        // AcqRel: Acquire pairs with the Release in `unpin`; Release with the Acquire of the
        // lists' consumers and of readers that check the gen again.
        let order = if broken!("invalidate_relaxed") {
            Ordering::Relaxed
        } else if broken!("invalidate_unreleased") {
            Ordering::Acquire
        } else {
            Ordering::AcqRel
        };
        let next = |w: Snapshot| w.invalidate().map(|w| self.stamped(w));
        let update = self.update(bucket, order, next).ok()?;
        Some(Invalidated { bucket, after: update.after })
    }

    /// Invalidates the first `most` of `buckets` that can be, and tells of them a few at a time: a
    /// locked instruction waits for every store before it, and to write down what it did is to
    /// store in memory that is far away.
    pub(crate) fn invalidate_some(
        &self,
        mut buckets: impl Iterator<Item = BucketIndex>,
        most: usize,
        mut told: impl FnMut(Taken<'_>),
    ) {
        const FEW: usize = 32;
        let mut left = most;
        while left > 0 {
            let (mut few, mut words) = ([BucketIndex::new(0); FEW], [Snapshot::default(); FEW]);
            let (mut taken, mut gc_gen) = (0, 0);
            while taken < left.min(FEW)
                && let Some(bucket) = buckets.next()
            {
                if let Some(Invalidated { bucket, after }) = self.invalidate(bucket) {
                    (few[taken], words[taken]) = (bucket, after);
                    gc_gen = after.gc_gen().max(gc_gen);
                    taken += 1;
                }
            }
            if taken == 0 {
                return;
            }
            told(Taken { buckets: &few[..taken], words: &words[..taken], gc_gen });
            left -= taken;
        }
    }

    /// One more pin, if the gen is still `pointer`.
    pub(crate) fn pin(&self, bucket: BucketIndex, pointer: Gen) -> Option<Snapshot> {
        if broken!("pin_blind") {
            // Acquire: the deliberate break, a pin before the gen is known.
            let before = self.word(bucket).fetch_add(ONE_PIN, Ordering::Acquire);
            let before = Snapshot::from_bits(before);
            if before.gen_() == pointer {
                return before.pin(pointer);
            }
            self.unpin(bucket, 1);
            return None;
        }
        let order = if broken!("pin_relaxed") {
            Ordering::Relaxed
        } else {
            // Acquire: keeps the accesses that the pin protects below it.
            Ordering::Acquire
        };
        self.update(bucket, order, |w| w.pin(pointer)).ok().map(|u| u.after)
    }

    /// `n` more pins for somebody who holds one.
    pub(crate) fn prepay(&self, bucket: BucketIndex, n: u16) {
        // Relaxed: the pin that the caller holds orders everything.
        let before = self.word(bucket).fetch_add(u64::from(n) * ONE_PIN, Ordering::Relaxed);
        let held = Snapshot::from_bits(before).pin_count();
        assert!(held > 0 && held.checked_add(n).is_some(), "prepay without a pin, or too many");
    }

    /// One more pin for somebody who holds one, unless there are [`PIN_LIMIT`] already. That is
    /// looked at before: as many more as there are threads can get in, of which there is room for
    /// 16 384.
    pub(crate) fn clone_pin(&self, bucket: BucketIndex) -> bool {
        let room = self.peek(bucket).pin_count() < PIN_LIMIT;
        if room {
            self.prepay(bucket, 1);
        }
        room
    }

    /// `n` pins fewer. Returns the word after it.
    #[inline]
    pub(crate) fn unpin(&self, bucket: BucketIndex, n: u16) -> Snapshot {
        // Release: publishes what the holder wrote; pairs with the Acquire in `invalidate` and
        // in GC's snapshot.
        let order = if broken!("unpin_relaxed") { Ordering::Relaxed } else { Ordering::Release };
        let before = self.word(bucket).fetch_sub(u64::from(n) * ONE_PIN, order);
        Snapshot::from_bits(before).unpin(n).expect("a pin is returned once")
    }

    /// The bucket leaves a free list. `Err` with its word if a foreign pin is on it.
    ///
    /// A bucket that was given back, or reused for the same, often is as it should be; then its
    /// word is only read. A foreign pin that comes after that read comes after the allocation, as
    /// it could in any case.
    #[inline]
    pub(crate) fn allocate(
        &self,
        bucket: BucketIndex,
        purpose: Purpose,
        sectors: u32,
    ) -> Result<Snapshot, Snapshot> {
        let unordered = broken!("allocate_relaxed");
        let before = if unordered { self.peek(bucket) } else { self.read(bucket) };
        let next = |w: Snapshot| w.allocate(purpose, sectors).map(|w| self.stamped(w));
        if next(before) == Some(before) {
            return Ok(before);
        }
        let order = if unordered {
            Ordering::Relaxed
        } else {
            // AcqRel: Acquire, so that nothing of the new life moves above it; Release, so that
            // GC and readers who see the new mark see the list's history too.
            Ordering::AcqRel
        };
        self.update(bucket, order, next).map(|u| u.after)
    }

    /// The bucket holds the only copy of something from now on. The caller holds a pin.
    pub(crate) fn mark_dirty(&self, bucket: BucketIndex) {
        // Relaxed: published by the Release of the caller's unpin.
        let _ = self.update(bucket, Ordering::Relaxed, Snapshot::dirty);
    }

    /// A read hit; tried once, a lost race costs one refresh. No store if it was fresh already.
    pub(crate) fn touch(&self, bucket: BucketIndex, pointer: Gen) {
        let word = self.word(bucket);
        // Acquire: the epoch is loaded after the word, so that the CAS, if it succeeds, dates
        // the bucket to an instant since.
        let now = word.load(Ordering::Acquire);
        let epoch = self.epoch();
        let stamped = Snapshot::from_bits(now);
        if stamped.stamp() == epoch.stamp() {
            return;
        }
        let known = if broken!("touch_by_an_old_epoch") {
            stamped.with_prio(Prio::OLDEST)
        } else {
            epoch.reveal(stamped)
        };
        let Some(touched) = known.touch(pointer) else { return };
        let next = epoch.stamped(touched);
        if broken!("touch_plain_store") {
            // Relaxed: the deliberate break, no RMW.
            word.store(next.bits(), Ordering::Relaxed);
            return;
        }
        // Relaxed (both): prio is a hint; the CAS keeps the other fields.
        let fresh =
            word.compare_exchange(now, next.bits(), Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let counts = self.uses.observes(bucket) || broken!("uses_of_all_counted");
        if counts && fresh {
            self.uses.count(known);
        }
    }

    /// Something in the bucket gave way to something newer elsewhere: a use of what it held, by
    /// which it does not become fresh.
    pub(crate) fn replaced(&self, bucket: BucketIndex, pointer: Gen) {
        if self.uses.observes(bucket) {
            let word = self.snapshot(bucket);
            if word.gen_() == pointer && word.prio() < Prio::FRESH {
                self.uses.count(word);
            }
        }
    }

    /// GC's result for a bucket, see [`Snapshot::gc_publish`]. Returns the word after it.
    pub(crate) fn gc_publish(
        &self,
        bucket: BucketIndex,
        start: Snapshot,
        mark: Mark,
        sectors: u32,
        oldest: Gen,
    ) -> Snapshot {
        let next = |w: Snapshot| {
            let raised = broken!("gc_raises_last_gc");
            Some(w.gc_publish(start, mark, sectors, if raised { w.gen_() } else { oldest }))
        };
        let order = if broken!("gc_publish_relaxed") {
            Ordering::Relaxed
        } else {
            // AcqRel: Acquire pairs with the Release in `unpin`; Release with `invalidate`, and
            // with readers: whoever sees a gen that this made possible sees the epoch.
            Ordering::AcqRel
        };
        match self.update(bucket, order, next) {
            Ok(update) => update.after,
            Err(word) => word,
        }
    }

    /// The bucket was taken in vain and goes back to a free list.
    #[inline]
    pub(crate) fn give_back(&self, bucket: BucketIndex) {
        // As long as the age epoch has not moved, a data bucket is as the next allocation wants it.
        let next = |w: Snapshot| match w.mark() {
            Mark::Reclaimable => w,
            _ => self.stamped(w.give_back()),
        };
        // Only its owner and the list's next taker care for what this changes.
        let before = self.peek(bucket);
        if next(before) != before {
            // AcqRel: as `free`.
            let _ = self.update(bucket, Ordering::AcqRel, |w| Some(next(w)));
        }
    }

    /// A dead bucket is about to go to a free list without an invalidation.
    pub(crate) fn refresh(&self, bucket: BucketIndex) {
        let next = |w: Snapshot| Some(self.stamped(w.with_prio(Prio::FRESH)));
        // AcqRel: as `free`.
        let _ = self.update(bucket, Ordering::AcqRel, next);
    }

    /// The short way of a bucket of gen `pointer` into which nothing durable points, see
    /// [`Snapshot::unused`]. Returns the word after it.
    pub(crate) fn unused(
        &self,
        bucket: BucketIndex,
        pointer: Gen,
        durable: Gen,
    ) -> Option<Snapshot> {
        let next = |w: Snapshot| {
            let next = w.unused(durable).filter(|_| w.gen_() == pointer);
            next.map(|w| self.stamped(w))
        };
        let order = if broken!("unused_relaxed") {
            Ordering::Relaxed
        } else {
            // AcqRel: as `invalidate`.
            Ordering::AcqRel
        };
        self.update(bucket, order, next).ok().map(|u| u.after)
    }

    /// The gen of a metadata bucket that is being freed advances, see [`Snapshot::bump_gen`].
    /// `Err` with the word if it may not.
    pub(crate) fn bump_gen(
        &self,
        bucket: BucketIndex,
        pointer: Gen,
        durable: Gen,
    ) -> Result<Snapshot, Snapshot> {
        let next = |w: Snapshot| w.bump_gen(durable).filter(|_| w.gen_() == pointer);
        let alone = broken!("bump_gen_relaxed");
        let order = if alone || broken!("prio_block_no_owner_fence") {
            Ordering::Relaxed
        } else {
            // AcqRel: as `invalidate`.
            Ordering::AcqRel
        };
        self.update(bucket, order, next).map(|u| u.after)
    }

    /// The beginning of a collection in place: whatever is marked has to be found again. Pinned
    /// buckets keep their marks.
    pub(crate) fn gc_clear(&self, bucket: BucketIndex) {
        let next = |w: Snapshot| {
            let w = w.with_last_gc(w.gen_());
            Some(if w.pin_count() == 0 { w.free() } else { w })
        };
        // AcqRel: Acquire pairs with the Release in `unpin`; Release as `gc_publish`.
        let _ = self.update(bucket, Ordering::AcqRel, next);
    }

    /// A key found by a collection in place. `false` if it is stale.
    pub(crate) fn gc_mark(
        &self,
        bucket: BucketIndex,
        pointer: Gen,
        units: u32,
        kind: Mark,
    ) -> bool {
        let next = |w: Snapshot| {
            let older = w.last_gc().is_after(pointer);
            let held = w.with_last_gc(if older { pointer } else { w.last_gc() });
            if pointer.is_stale(w.gen_()) {
                return Some(held);
            }
            let sectors = u32::from(w.sectors()).saturating_add(units);
            Some(held.with_mark(w.mark().max(kind)).with_sectors(sectors))
        };
        // AcqRel: as `gc_publish`.
        match self.update(bucket, Ordering::AcqRel, next) {
            Ok(update) => !pointer.is_stale(update.after.gen_()),
            Err(_) => unreachable!("marking has no guard"),
        }
    }

    /// The journal's and the prio chain's buckets are metadata though no key points at them.
    pub(crate) fn renew_metadata(&self, bucket: BucketIndex) {
        // AcqRel: as `gc_publish`.
        let _ = self.update(bucket, Ordering::AcqRel, |w| Some(w.with_mark(Mark::Metadata)));
    }

    /// Whether moving GC wants the live data moved out.
    pub(crate) fn set_moving(&self, bucket: BucketIndex, moving: bool) {
        let next = |w: Snapshot| (w.is_moving() != moving).then(|| w.with_moving(moving));
        // Relaxed: a hint to the owner of the index.
        let _ = self.update(bucket, Ordering::Relaxed, next);
    }

    /// Replaces the whole word by this one, which has a prio: for tools that bring a table into a
    /// state by hand.
    pub(crate) fn store(&self, bucket: BucketIndex, word: Snapshot) {
        // AcqRel: as `free`; an RMW like every change, see above.
        self.word(bucket).swap(self.stamped(word).bits(), Ordering::AcqRel);
    }

    /// What the bucket of gen `pointer` holds is dead; it may be invalidated. `false` if it is
    /// somebody else's by now: gen and mark are one word, or what he marked dirty would be lost.
    pub(crate) fn free(&self, bucket: BucketIndex, pointer: Gen) -> bool {
        let unchecked = broken!("free_looks_first");
        if unchecked && self.peek(bucket).gen_() != pointer {
            return false;
        }
        let order = if broken!("free_relaxed") {
            Ordering::Relaxed
        } else {
            // AcqRel: Release publishes the owner's last accesses to `invalidate`.
            Ordering::AcqRel
        };
        let next = |w: Snapshot| (unchecked || w.gen_() == pointer).then(|| w.free());
        self.update(bucket, order, next).is_ok()
    }

    /// See [`crate::model::lives`].
    #[cfg(tierce_loom)]
    pub(crate) fn lives(&self, bucket: BucketIndex, n: u32) -> u32 {
        let word = self.word(bucket);
        // Relaxed: the CAS decides.
        let mut before = Snapshot::from_bits(word.load(Ordering::Relaxed));
        loop {
            let (mut after, mut lived) = (before, 0);
            while lived < n
                && let Some(next) = after.invalidate()
            {
                (after, lived) = (self.stamped(next).with_pin(0), lived + 1);
            }
            // AcqRel: as `invalidate` and `unpin`. Relaxed (failure): only to try again.
            let order = (Ordering::AcqRel, Ordering::Relaxed);
            match word.compare_exchange(before.bits(), after.bits(), order.0, order.1) {
                Ok(_) => return lived,
                Err(now) => before = Snapshot::from_bits(now),
            }
        }
    }

    /// Replaces the word by this one, which has a prio, before anybody else can see it.
    pub(crate) fn set_exclusive(&mut self, bucket: BucketIndex, word: Snapshot) {
        let word = self.stamped(word);
        self.words.set_exclusive(bucket, word);
    }
}

/// A word before and after an update.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Update {
    #[expect(dead_code, reason = "shown by Debug in failing tests")]
    before: Snapshot,
    after: Snapshot,
}
