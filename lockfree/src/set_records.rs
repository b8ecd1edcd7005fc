//! The records of one prio set, on their way from the table to the device.
//!
//! # Problem
//!
//! A prio write encodes every word of the table: 16 bits of its stamp as the prio that they mean
//! now, and its gen. On a large device that is most of what it costs. But some buckets need more
//! than that: those that are never allocated have zeros, and of those of the batch it has to be
//! noted which gen was encoded.
//!
//! # Protocol
//!
//! The words between two such buckets, a *run*, lie side by side. They are read and encoded
//! [`TOGETHER`], in loops without a branch, of which compilers make vector instructions, and the
//! memory a page further on is asked for meanwhile. At the end of a run the epoch is read anew.

use crate::device::Device;
use crate::sync::AtomicU64;
use crate::table::Table;
use crate::wide::{Wide, prefetch_behind, wide};
use crate::words::LINE;
use core::ops::Range;
use tierce_core::record::prio_set::{PrioRecords, RECORD_BYTES, Record, record, records_of_eight};
use tierce_core::{AgeEpoch, BucketIndex, Gen, broken};

/// Words that are read and encoded together.
const TOGETHER: usize = 64;

/// A bucket that is followed, and its gen when that was encoded.
type Followed = (BucketIndex, Option<Gen>);

/// The records of one set, in order of bucket, taken from the table as it is when each is
/// written. A set whose records were written is encoded.
///
/// See [`PrioWrite::sets`](crate::PrioWrite::sets) for an example.
#[derive(Debug)]
pub struct SetRecords<'a> {
    device: &'a Device,
    /// Buckets that are left.
    left: Range<u32>,
    /// The bucket of the batch, or one that is ahead, that comes next.
    next_followed: Option<&'a mut Followed>,
    followed: core::slice::IterMut<'a, Followed>,
    encoded: &'a mut bool,
}

impl<'a> SetRecords<'a> {
    pub(crate) fn new(
        device: &'a Device,
        buckets: Range<u32>,
        mut followed: core::slice::IterMut<'a, Followed>,
        encoded: &'a mut bool,
    ) -> Self {
        let next_followed = followed.next();
        Self { device, left: buckets, next_followed, followed, encoded }
    }

    /// The record of the next bucket, which may be any.
    #[inline(never)]
    fn next(&mut self) -> Option<Record> {
        let bucket = BucketIndex::new(self.left.next()?);
        if bucket < self.device.geometry().first_bucket() {
            return Some([0; RECORD_BYTES]);
        }
        let word = self.device.table().read_for_prios(bucket);
        let is_followed = self.next_followed.as_ref().is_some_and(|next| next.0 == bucket);
        let gen_ = if is_followed { self.follow(word.gen_()) } else { word.gen_() };
        Some(record(self.device.table().epoch().prio_of(word.stamp()), gen_))
    }

    /// The words up to the next bucket that needs more than reading.
    fn next_run(&mut self) -> &'a [AtomicU64] {
        let Range { start, end } = self.left;
        if start < self.device.geometry().first_bucket().get() {
            return &[];
        }
        let followed = self.next_followed.as_ref().map_or(end, |next| next.0.get());
        self.left.start = followed.clamp(start, end);
        let device: &'a Device = self.device;
        &device.table().words().atomics()[start as usize..self.left.start as usize]
    }

    /// Notes the gen of a followed bucket, and gives what is encoded of it.
    fn follow(&mut self, gen_: Gen) -> Gen {
        if let Some((_, noted)) = self.next_followed.take() {
            *noted = Some(gen_);
        }
        self.next_followed = self.followed.next();
        if broken!("encode_before_drain") {
            // What the word was before this bucket was invalidated.
            return Gen::new(gen_.get().wrapping_sub(1));
        }
        gen_
    }
}

impl PrioRecords for SetRecords<'_> {
    fn places(&self) -> usize {
        self.left.len()
    }

    /// # Panics
    ///
    /// If there are fewer places.
    fn write(mut self, mut places: &mut [Record]) {
        while let Some((place, behind)) = places.split_first_mut() {
            let Some(record) = self.next() else { break };
            *place = record;
            let run = self.next_run();
            let (now, behind) = behind.split_at_mut(run.len());
            let epoch = self.device.table().epoch();
            wide(Run { words: run, epoch, places: now });
            places = behind;
        }
        assert!(self.left.is_empty(), "a place for every record");
        *self.encoded = true;
    }
}

/// Neighbouring words, and where their records go.
struct Run<'a> {
    words: &'a [AtomicU64],
    epoch: AgeEpoch,
    places: &'a mut [Record],
}

impl Wide for Run<'_> {
    #[inline(always)]
    fn work(self) {
        let (together, rest) = self.words.as_chunks::<TOGETHER>();
        let (places_together, rest_places) = self.places.as_chunks_mut::<TOGETHER>();
        for (words, places) in together.iter().zip(places_together) {
            words.iter().step_by(LINE).for_each(prefetch_behind);
            let mut low_halves = [0; TOGETHER];
            for (low_half, word) in low_halves.iter_mut().zip(words) {
                *low_half = Table::read_word_for_prios(word).bits() as u32;
            }
            self.epoch.reveal_low_halves(&mut low_halves);
            let (eights, _) = low_halves.as_chunks();
            let (places_of_eight, _) = places.as_flattened_mut().as_chunks_mut();
            for (places, low_halves) in places_of_eight.iter_mut().zip(eights) {
                *places = records_of_eight(low_halves);
            }
        }
        for (place, word) in rest_places.iter_mut().zip(rest) {
            let word = Table::read_word_for_prios(word);
            *place = record(self.epoch.prio_of(word.stamp()), word.gen_());
        }
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use crate::{Allocator, Config, DeviceTable, Gens, Step};
    use tierce_core::record::prio_set::records_of;
    use tierce_core::{AgeEpoch, BucketIndex, DeviceIndex, Gen, Geometry, Prio};

    /// Runs of every length, sets that begin anywhere in a line, buckets that are never
    /// allocated, and buckets of the batch in between.
    #[test]
    fn what_is_written_is_what_the_table_says() {
        let geometry = Geometry::new(5000, 3, 8, 1).expect("a legal shape");
        let draw = |bucket: u32| bucket.wrapping_mul(0x9e37_79b9) >> 7;
        let records = (0..5000).map(|b| (Prio::new((draw(b) % 32769) as u16), Gen::new(b as u8)));
        let table = DeviceTable::of(geometry, records.collect::<Gens>());
        let startup = Allocator::start(Config::default(), vec![table]).expect("a sound table");
        let (allocator, mut reclaimers) = startup.finish();
        let Step::PrioWrite(mut write) = reclaimers[0].step() else { panic!("the first batch") };
        assert!(!write.batch().is_empty());
        let (mut bucket, epoch) = (0, AgeEpoch::FIRST);
        for set in 0..write.chain().len() {
            write.encode(set, |prio, gen_| {
                let index = BucketIndex::new(bucket);
                let word = allocator.devices()[DeviceIndex::FIRST.as_usize()].table().peek(index);
                let wanted = match bucket {
                    0..3 => (Prio::default(), Gen::default()),
                    _ => (epoch.prio_of(word.stamp()), word.gen_()),
                };
                assert_eq!((prio, gen_), wanted, "bucket {bucket}");
                bucket += 1;
            });
        }
        assert_eq!(bucket, 5000);
        assert!(write.confirm());
        let zero = records_of(&[[0; 3]]).next();
        assert_eq!(zero, Some((Prio::default(), Gen::default())));
        reclaimers[0].prio_durable(write);
    }
}
