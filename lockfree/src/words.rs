//! The words of a table as memory: in whole cache lines.
//!
//! A pass over a device reads every word of it. It does so line by line, which is why the words
//! begin at a line and end with one: those behind the last bucket are [`PADDING`], which no pass
//! takes for a bucket that could be reused. Neighbouring buckets share a line, 8 of them. Large
//! tables lie in huge pages where there are any (`huge_pages.rs`).

mod room;

pub(crate) use room::{Decode, Part, Room};

use crate::sync::{AtomicU64, Ordering};
use tierce_core::{BucketIndex, Snapshot};

/// What stands behind the last bucket: a word of every pin there can be.
const PADDING: u64 = u64::MAX;

/// Words that one cache line holds. (A checker pays for every atomic, so there it is one.)
pub(crate) const LINE: usize = if cfg!(any(tierce_loom, tierce_shuttle)) { 1 } else { 8 };

/// One cache line.
#[cfg_attr(not(any(tierce_loom, tierce_shuttle)), repr(C, align(64)))]
#[cfg_attr(any(tierce_loom, tierce_shuttle), repr(transparent))]
pub(crate) struct Line([AtomicU64; LINE]);

#[cfg(not(any(tierce_loom, tierce_shuttle)))]
const _: () = assert!(size_of::<Line>() == 64 && align_of::<Line>() == 64);

impl Line {
    /// Its words at about one instant: each is right by itself.
    #[inline(always)]
    pub(crate) fn words(&self) -> impl Iterator<Item = u64> {
        // Relaxed: hints; what they lead to is decided by a CAS.
        self.0.iter().map(|word| word.load(Ordering::Relaxed))
    }
}

/// A word at some instant.
fn peek(word: &AtomicU64) -> Snapshot {
    // Relaxed: a hint; what it leads to is decided by a CAS.
    Snapshot::from_bits(word.load(Ordering::Relaxed))
}

/// One word per bucket.
pub(crate) struct Words {
    lines: Box<[Line]>,
    len: usize,
}

impl Words {
    /// These words.
    pub(crate) fn new(words: impl ExactSizeIterator<Item = Snapshot>) -> Self {
        let mut room = Room::new(words.len());
        let mut words = words.map(Snapshot::bits);
        room.parts().for_each(|part| part.fill(&mut words));
        room.finish()
    }

    /// How many words there are, without the padding.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The lines, padded.
    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// The words themselves, without the padding.
    pub(crate) fn atomics(&self) -> &[AtomicU64] {
        &room::words_of(&self.lines)[..self.len]
    }

    /// The word of a bucket, if there is such a bucket, for whoever decides nothing by it.
    pub(crate) fn peek(&self, bucket: BucketIndex) -> Option<Snapshot> {
        self.get(bucket).map(peek)
    }

    /// All words, each at some instant.
    pub(crate) fn peek_all(&self) -> impl ExactSizeIterator<Item = Snapshot> {
        self.atomics().iter().map(peek)
    }

    /// The line that a bucket's word is in.
    pub(crate) fn line(&self, bucket: BucketIndex) -> &Line {
        &self.lines[bucket.as_usize() / LINE]
    }

    /// The word of a bucket.
    #[inline]
    pub(crate) fn of(&self, bucket: BucketIndex) -> &AtomicU64 {
        let at = bucket.as_usize();
        debug_assert!(at < self.len, "{bucket} of {}", self.len);
        &self.lines[at / LINE].0[at.rem_euclid(LINE)]
    }

    /// The word of a bucket, if there is such a bucket.
    #[inline]
    pub(crate) fn get(&self, bucket: BucketIndex) -> Option<&AtomicU64> {
        (bucket.as_usize() < self.len).then(|| self.of(bucket))
    }

    /// Replaces the word of a bucket before anybody else can see it.
    pub(crate) fn set_exclusive(&mut self, bucket: BucketIndex, word: Snapshot) {
        let at = bucket.as_usize();
        self.lines[at / LINE].0[at.rem_euclid(LINE)] = AtomicU64::new(word.bits());
    }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn what_is_behind_the_last_bucket_cannot_be_reused() {
        assert!(!Snapshot::from_bits(PADDING).can_invalidate());
        for len in [1u16, 7, 8, 9, 64, 65] {
            let words = Words::new((0..len).map(|n| Snapshot::default().with_sectors(n.into())));
            assert_eq!(words.len(), usize::from(len));
            assert_eq!(words.lines().len(), usize::from(len).div_ceil(LINE));
            let all: Vec<u64> = words.lines().iter().flat_map(Line::words).collect();
            assert!(all[usize::from(len)..].iter().all(|&word| word == PADDING));
            for n in 0..len {
                let word = words.of(BucketIndex::new(n.into()));
                // Relaxed: nobody else is there.
                let word = Snapshot::from_bits(word.load(Ordering::Relaxed));
                assert_eq!(word.sectors(), n);
            }
        }
    }
}
