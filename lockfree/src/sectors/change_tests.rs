//! Slots changed by sections as the kernel makes them: by threads that move from CPU to CPU, and
//! make the slot near to wherever they are, again and again.
//!
//! Checked: of every bucket opened each unit is taken once; a visitor (who closes the bucket before
//! it is full) is not overlooked; and that it was stores that did most of this.

use super::super::slot::Take;
use super::*;
use crate::bucket_ref::BucketRef;
use crate::hint::affinity::{Trial, allowed_cpus, apart, run_on};
use std::thread;
use tierce_core::{BucketId, BucketIndex, DeviceIndex, Gen};

const UNITS: u32 = 1000;
const TIME: Duration = Duration::from_millis(500);

/// What a thread has taken: of which opening, and which unit.
type Taken = Vec<(u32, u32)>;

/// The bucket of the opening with this number: what tells openings apart, here and in the word.
fn bucket(opening: u32) -> BucketRef {
    let index = BucketIndex::new(1 + opening % (1 << 20));
    BucketRef::new(BucketId::new(DeviceIndex::FIRST, index), Gen::new(0))
}

/// Takes units, and opens the next bucket when there is none. How often the slot was near.
fn churn(slot: &Slot, section: Section, way: usize, trial: Trial) -> (Taken, usize) {
    let (cpus, mut taken, mut near) = (allowed_cpus(), Vec::new(), 0);
    let mut opened = 0;
    for turn in way.. {
        if turn.is_multiple_of(256) {
            run_on(cpus[(turn / 256) % cpus.len()]);
            slot.bring_near();
            if trial.is_over(near > 30 && slot.modes.turns() > 10) {
                break;
            }
        }
        near += usize::from(slot.modes.mode() == NEAR);
        let word = slot.read();
        match word.take(1, UNITS, 1) {
            Take::Units { bucket, off, next, .. } => {
                // Now and then closed by hand, by whoever comes.
                let closes = turn % 9973 == 1;
                let next = if closes { word.closed() } else { next };
                if slot.replace(Some(section), word, next) && !closes {
                    taken.push((bucket.pack(), off));
                }
            }
            Take::NoBucket => {
                // Each thread opens buckets of its own: none twice.
                let number = opened * 8 + way as u32;
                if slot.replace(Some(section), word, word.opened(bucket(number), false)) {
                    opened += 1;
                }
            }
        }
    }
    (taken, near)
}

#[test]
fn each_unit_is_taken_once() {
    apart(|| {
        let Some(section) = Section::find(usize::MAX) else {
            eprintln!("skipped: this system has no restartable sequences");
            return;
        };
        let slot = Slot::new(Some(section));
        let trial = Trial::new(TIME);
        let done: Vec<_> = thread::scope(|scope| {
            let slot = &slot;
            let threads = (0..4).map(|way| scope.spawn(move || churn(slot, section, way, trial)));
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        let near: usize = done.iter().map(|(_, near)| near).sum();
        let mut taken: Vec<_> = done.into_iter().flat_map(|(taken, _)| taken).collect();
        let all = taken.len();
        taken.sort_unstable();
        for pair in taken.windows(2) {
            let ((opening, off), (next_opening, next_off)) = (pair[0], pair[1]);
            let follows = if opening == next_opening { off + 1 } else { 0 };
            assert_eq!(next_off, follows, "of {next_opening:#x}, after {opening:#x}");
        }
        let turns = slot.modes.turns();
        println!("{all} units, {near} looks at a slot that was near, {turns} turns");
        assert!(turns > 10 && near > 100, "{turns} turns, near at {near} looks");
    });
}
