//! Room for words: filled part by part, by several threads if need be, and then a table.
//!
//! # Problem
//!
//! A device has tens of millions of words. Their memory is not to be touched twice before they
//! are a table, not even to clear it; and the parts that it is filled in, one for the records of
//! each prio set, begin and end anywhere in a line.
//!
//! # Invariants
//!
//! 1. [`Part::fill`] sets the flag of its part when it has written every place of the part, and
//!    nothing else sets one.
//! 2. The parts together are all places in front of the padding. So if all flags are set, all of
//!    these places are written.
#![expect(unsafe_code, reason = "memory that is written before it is a value")]

use super::{LINE, Line, PADDING, Words};
use crate::huge_pages::{self, HUGE_PAGE};
use crate::sync::AtomicU64;
use core::mem::MaybeUninit;

const _: () = assert!(size_of::<Line>() == LINE * size_of::<AtomicU64>());
const _: () = assert!(align_of::<Line>() >= align_of::<AtomicU64>());

/// Words that are not all there yet.
pub(crate) struct Room {
    /// It stays empty: what is used is its room.
    lines: Vec<Line>,
    len: usize,
    /// Words of each part but the last, which may have fewer.
    per_part: usize,
    filled: Vec<bool>,
}

/// Some neighbouring words that are not there yet.
pub(crate) struct Part<'a> {
    places: &'a mut [MaybeUninit<AtomicU64>],
    filled: &'a mut bool,
}

/// Some of the memory, which the system may not have provided yet.
pub(crate) struct Page<'a>(&'a mut [MaybeUninit<AtomicU64>]);

impl Page<'_> {
    /// Has the system do so, by a write to each page of the smallest size.
    pub(crate) fn provide(self) {
        const WORDS: usize = 4096 / size_of::<AtomicU64>();
        for place in self.0.iter_mut().step_by(WORDS) {
            place.write(AtomicU64::new(0));
        }
    }
}

impl Room {
    /// For `len` words in parts of `per_part`, which is not 0.
    pub(crate) fn new(len: usize, per_part: usize) -> Self {
        let mut lines = Vec::with_capacity(len.div_ceil(LINE));
        huge_pages::ask_for(lines.spare_capacity_mut());
        Self { lines, len, per_part, filled: vec![false; len.div_ceil(per_part)] }
    }

    /// The parts, in order.
    pub(crate) fn parts(&mut self) -> impl ExactSizeIterator<Item = Part<'_>> {
        let places = &mut places(&mut self.lines, self.len)[..self.len];
        let parts = places.chunks_mut(self.per_part).zip(&mut self.filled);
        parts.map(|(places, filled)| Part { places, filled })
    }

    /// Its memory in pieces of a huge page each, but for some of it at either end. No part is
    /// filled any more.
    pub(crate) fn pages(
        &mut self,
    ) -> impl ExactSizeIterator<Item = Page<'_>> + DoubleEndedIterator {
        const WORDS: usize = HUGE_PAGE / size_of::<AtomicU64>();
        self.filled.fill(false);
        let places = places(&mut self.lines, self.len);
        let to_page = places.as_ptr().align_offset(HUGE_PAGE).min(places.len());
        places[to_page..].chunks_exact_mut(WORDS).map(Page)
    }

    /// The words.
    ///
    /// # Panics
    ///
    /// If a part was not filled.
    pub(crate) fn finish(mut self) -> Words {
        assert!(self.filled.iter().all(|&filled| filled), "a part was not filled");
        for place in &mut places(&mut self.lines, self.len)[self.len..] {
            place.write(AtomicU64::new(PADDING));
        }
        // SAFETY: there is room for them, and all words of these lines are written: those of the
        // parts by Invariant 2, the padding just now.
        unsafe { self.lines.set_len(self.len.div_ceil(LINE)) }
        Words { lines: self.lines.into_boxed_slice(), len: self.len }
    }
}

/// The words of the lines for `len` of them, those of the padding included.
fn places(lines: &mut Vec<Line>, len: usize) -> &mut [MaybeUninit<AtomicU64>] {
    let lines = &mut lines.spare_capacity_mut()[..len.div_ceil(LINE)];
    let words = lines.len() * LINE;
    let start = lines.as_mut_ptr().cast();
    // SAFETY: a `Line` is `LINE` words side by side and nothing else (asserted above), and these
    // lines are borrowed for as long as the result is. What is `MaybeUninit` needs no value.
    unsafe { core::slice::from_raw_parts_mut(start, words) }
}

impl Part<'_> {
    /// How many words it has.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// Writes them.
    ///
    /// # Panics
    ///
    /// If there are fewer than that in `words`.
    #[inline(always)]
    pub(crate) fn fill(self, words: impl Iterator<Item = u64>) {
        let mut written = 0;
        for (place, word) in self.places.iter_mut().zip(words) {
            place.write(AtomicU64::new(word));
            written += 1;
        }
        assert_eq!(written, self.places.len(), "every word of the part has to be written");
        *self.filled = true;
    }
}

/// The words of `lines`, one behind the other.
pub(super) fn words_of(lines: &[Line]) -> &[AtomicU64] {
    // SAFETY: a `Line` is `LINE` words side by side and nothing else (asserted above), and the
    // lines are borrowed for as long as the result is.
    unsafe { core::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * LINE) }
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;
    use crate::sync::Ordering;

    fn filled(len: usize, per_part: usize) -> Words {
        let mut room = Room::new(len, per_part);
        let mut next = 0;
        for part in room.parts() {
            let end = next + part.len() as u64;
            part.fill(next..end + 5);
            next = end;
        }
        room.finish()
    }

    #[test]
    fn parts_of_any_size_make_the_whole() {
        for (len, per_part) in [(1, 1), (8, 3), (9, 9), (64, 7), (65, 100), (1 << 19, 2717)] {
            let words = filled(len, per_part);
            assert_eq!(words.len(), len);
            // Relaxed: nobody else is there.
            let all = words_of(words.lines()).iter().map(|word| word.load(Ordering::Relaxed));
            let padding = words.lines().len() * LINE - len;
            let wanted = (0..len as u64).chain(core::iter::repeat_n(PADDING, padding));
            assert!(all.eq(wanted), "{len} in parts of {per_part}");
        }
    }

    #[test]
    fn threads_fill_their_parts() {
        let mut room = Room::new(1000, 21);
        std::thread::scope(|threads| {
            for (number, part) in (0..).zip(room.parts()) {
                threads.spawn(move || part.fill(core::iter::repeat(number)));
            }
        });
        let words = room.finish();
        let all = words_of(words.lines())[..1000].iter();
        // Relaxed: nobody else is there.
        assert!(all.enumerate().all(|(at, word)| word.load(Ordering::Relaxed) == at as u64 / 21));
    }

    #[test]
    fn pages_are_whole_ones_and_may_be_provided_or_not() {
        const WORDS: usize = HUGE_PAGE / size_of::<AtomicU64>();
        for len in [1, WORDS - 1, 2 * WORDS, 4 * WORDS + 3] {
            let mut room = Room::new(len, 1000);
            let pages = room.pages();
            assert!((len / WORDS).saturating_sub(1) <= pages.len() && pages.len() <= len / WORDS);
            for (number, page) in pages.enumerate() {
                assert!(page.0.as_ptr().addr().is_multiple_of(HUGE_PAGE));
                assert_eq!(page.0.len(), WORDS);
                if number % 2 == 0 {
                    page.provide();
                }
            }
            let mut next = 0..len as u64;
            room.parts().for_each(|part| part.fill(&mut next));
            let words = room.finish();
            // Relaxed: nobody else is there.
            let all = words_of(words.lines()).iter().map(|word| word.load(Ordering::Relaxed));
            assert!(all.take(len).eq(0..len as u64));
        }
    }

    /// What is provided is cleared, so it has to be filled again.
    #[test]
    #[should_panic(expected = "a part was not filled")]
    fn pages_after_parts_are_noticed() {
        let mut room = Room::new(100, 100);
        room.parts().for_each(|part| part.fill(0..100));
        assert_eq!(room.pages().len(), 0, "too small for one");
        room.finish();
    }

    #[test]
    #[should_panic(expected = "a part was not filled")]
    fn a_part_that_is_missing_is_noticed() {
        let mut room = Room::new(100, 40);
        room.parts().skip(1).for_each(|part| part.fill(core::iter::repeat(0)));
        room.finish();
    }

    #[test]
    #[should_panic(expected = "every word of the part")]
    fn a_word_that_is_missing_is_noticed() {
        let mut room = Room::new(100, 40);
        room.parts().for_each(|part| part.fill(0..39));
    }
}
