//! Rescales while others are at work, `lockfree/src/ageing.rs`: the numbered promises there.
//!
//! The age epoch begins at its last but one, so that it comes round where a model has two
//! rescales; the first one looks at words in groups, the second one is thorough.
//!
//! Breaks that must turn these red: `rescales_overlap`, `rescale_turn_relaxed`,
//! `rescale_request_stranded`, `rescale_past_the_epoch`, `rescales_follow_by_one`,
//! `touch_by_an_old_epoch`.
#![cfg(tierce_loom)]

use loom::sync::Arc;
use loom::thread::{self, JoinHandle};
use tierce_core::{AgeEpoch, BucketIndex, Gen, Prio, Snapshot};
use tierce_lockfree::model::Table;
use tierce_loom_tests::model;

const B: BucketIndex = BucketIndex::new(0);
const PINNED: BucketIndex = BucketIndex::new(1);
const GEN: Gen = Gen::new(0);
const USED: Prio = Prio::new(7);
const AGED: Prio = Prio::new(6);
/// Fresh, and then one rescale.
const FRESH_ONCE: Prio = Prio::new(32767);

/// Two buckets used some time ago, the second one pinned. With two of metadata they are as many
/// as are looked at together.
fn table() -> Arc<Table> {
    let used = Snapshot::default().with_prio(USED);
    let epoch = AgeEpoch::from_bits(65533).expect("the last but one");
    let metadata = used.with_prio(Prio::METADATA);
    Arc::new(Table::at(epoch, &[used, used.with_pin(1), metadata, metadata]))
}

fn spawn<T: 'static>(table: &Arc<Table>, work: fn(&Table) -> T) -> JoinHandle<T> {
    let table = Arc::clone(table);
    thread::spawn(move || work(&table))
}

fn rescale(table: &Table) -> u32 {
    table.request_rescale();
    table.rescale_due()
}

fn prio(table: &Table, bucket: BucketIndex) -> Prio {
    table.read(bucket).prio()
}

/// Promise 3: the hit is not lost to the rescale, and counts from an instant within it.
#[test]
fn a_hit_counts_from_an_instant_within_it() {
    model(|| {
        let table = table();
        let reader = spawn(&table, |table| table.touch(B, GEN));
        assert_eq!(rescale(&table), 1);
        reader.join().unwrap();
        let now = prio(&table, B);
        assert!(now == Prio::FRESH || now == FRESH_ONCE, "a hit must not be lost, {now:?}");
        rescale(&table);
        assert_eq!(prio(&table, B).get(), now.get() - 1, "it must age by exactly one");
    });
}

/// Promise 3: who still holds an epoch that is over must not take a hit back.
#[test]
fn a_hit_makes_nothing_older() {
    model(|| {
        let table = table();
        let late = spawn(&table, |table| table.touch(B, GEN));
        let before = table.epoch();
        rescale(&table);
        table.touch(B, GEN);
        let mine = prio(&table, B);
        assert!(mine == Prio::FRESH || mine == FRESH_ONCE, "{mine:?}");
        late.join().unwrap();
        assert!(prio(&table, B) >= mine, "a hit must not make a bucket older");
        let (seen, now) = (table.read_at(before, B).prio(), table.read(B).prio());
        assert_eq!(seen, Prio::FRESH, "used since the epoch before: fresh, it is {now:?} now");
    });
}

/// Promises 2 and 5: what is pinned throughout does not age, whatever happens to it, and what
/// is fresh is not taken for fresher.
#[test]
fn what_is_pinned_does_not_age() {
    model(|| {
        let table = table();
        let reader = spawn(&table, |table| table.touch(PINNED, GEN));
        rescale(&table);
        reader.join().unwrap();
        let now = prio(&table, PINNED);
        let hit = now == Prio::FRESH || now == FRESH_ONCE;
        assert!(hit || now == USED, "a pinned bucket must not age, {now:?}");
        rescale(&table);
        assert_eq!(prio(&table, PINNED), now, "nor be the older for its hit");
        table.unpin(PINNED);
        rescale(&table);
        assert_eq!(prio(&table, PINNED).get(), now.get() - 1, "no stamp may be past the epoch");
    });
}

/// Two that are due are made at once, and it is as if they were made one after the other.
#[test]
fn several_at_once_mean_the_same() {
    model(|| {
        let table = table();
        let holder = spawn(&table, |table| {
            assert!(table.pin(B, GEN), "the gen does not move");
            table.unpin(B);
        });
        (0..2).for_each(|_| table.request_rescale());
        assert_eq!(table.rescale_due(), 2);
        holder.join().unwrap();
        let now = prio(&table, B).get();
        assert!(now == USED.get() || now == USED.get() - 2, "as it was when looked at, {now}");
        assert_eq!(prio(&table, PINNED), USED, "a pinned bucket must not age");
    });
}

/// Promise 2: pinned and unpinned meanwhile, the bucket ages if it was found unpinned, and then
/// counts for `min_prio`.
#[test]
fn a_pin_meanwhile_counts_when_it_is_looked_at() {
    model(|| {
        let table = table();
        let holder = spawn(&table, |table| {
            assert!(table.pin(B, GEN), "the gen does not move");
            table.unpin(B);
        });
        let other = spawn(&table, |table| table.unpin(PINNED));
        rescale(&table);
        holder.join().unwrap();
        other.join().unwrap();
        for bucket in [B, PINNED] {
            assert_eq!(table.read(bucket).pin_count(), 0, "pins must come out even");
        }
        let now = [prio(&table, B), prio(&table, PINNED)];
        assert!(now.iter().all(|&prio| prio == USED || prio == AGED), "{now:?}");
        let min = if now.contains(&AGED) { AGED } else { Prio::OLDEST };
        assert_eq!(table.min_prio(), min, "the smallest result, or as it was: {now:?}");
    });
}

/// Promise 4: what is invalidated meanwhile is fresh, or was a moment before; then it is pinned.
#[test]
fn what_is_invalidated_meanwhile_is_fresh() {
    model(|| {
        let table = table();
        let reclaimer = spawn(&table, |table| table.invalidate(B).is_some());
        rescale(&table);
        assert!(reclaimer.join().unwrap(), "a rescale must not forbid it");
        let word = table.read(B);
        let now = word.prio();
        assert!(now == Prio::FRESH || now == FRESH_ONCE, "{now:?}");
        assert_eq!((word.gen_(), word.pin_count()), (GEN.next(), 1));
        rescale(&table);
        assert_eq!(prio(&table, B), now, "a free bucket must not age");
    });
}

/// Two reclaimers: each request is made, by one or the other, and no two at a time. (If they
/// overlapped, an epoch would be lost, or a pinned bucket would age.)
#[test]
fn rescales_never_overlap() {
    model(|| {
        let table = table();
        table.request_rescale();
        let other = spawn(&table, rescale);
        let mine = table.rescale_due();
        assert_eq!(mine + other.join().unwrap(), 2, "no request may be stranded");
        assert_eq!(prio(&table, B).get(), USED.get() - 2, "each rescale must age by one");
        assert_eq!(prio(&table, PINNED), USED, "a pinned bucket must not age");
    });
}
