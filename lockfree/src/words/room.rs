//! Room for words: filled part by part, by several threads if need be, and then a table.
//!
//! # Problem
//!
//! A device has tens of millions of words, and what is done to their memory is most of the work
//! of opening it: the system clears each huge page when it is touched for the first time, and then
//! it is filled. Both together cost half again as much as they have to
//!
//! * if two threads touch the same page first: both have it cleared, and one of them in vain;
//! * if a page is cleared and filled at different times: it has left the processor's own cache,
//!   comes back into it to be filled, and leaves it again.
//!
//! # Protocol
//!
//! A part is what lies in one huge page, so one thread touches it. Who fills it finds it in his
//! cache, where it was just cleared. A page that was [provided](Part::provide) some time before
//! is written past the caches.
//!
//! # Invariants
//!
//! 1. [`Part`] sets the flag of its part when every place of it has been written, and nothing
//!    else sets one.
//! 2. The parts together are all places in front of the padding. So if all flags are set, all of
//!    these places are written.
#![expect(unsafe_code, reason = "memory that is written before it is a value")]

use super::{LINE, Line, PADDING, Words};
use crate::huge_pages::{self, HUGE_PAGE};
use crate::sync::AtomicU64;
use crate::wide::{BLOCK, Block, end_past_caches, write_past_caches};
use core::mem::MaybeUninit;

const _: () = assert!(size_of::<Line>() == LINE * size_of::<AtomicU64>());
const _: () = assert!(align_of::<Line>() >= align_of::<AtomicU64>());

/// Words of a huge page.
const PAGE_WORDS: usize = HUGE_PAGE / size_of::<AtomicU64>();

/// Words that are not all there yet.
pub(crate) struct Room {
    /// It stays empty: what is used is its room.
    lines: Vec<Line>,
    len: usize,
    /// Of each part, whether it is filled.
    filled: Vec<bool>,
}

/// Some neighbouring words that are not there yet: those in one huge page.
pub(crate) struct Part<'a> {
    /// Those that are not filled.
    places: &'a mut [MaybeUninit<AtomicU64>],
    filled: &'a mut bool,
    /// Whether the memory was provided by itself.
    provided: bool,
}

impl Room {
    /// For `len` words.
    pub(crate) fn new(len: usize) -> Self {
        let mut lines = Vec::with_capacity(len.div_ceil(LINE));
        huge_pages::ask_for(lines.spare_capacity_mut());
        let (start, rest) = split_at_page(&mut places(&mut lines, len)[..len]);
        let parts = usize::from(!start.is_empty()) + rest.len().div_ceil(PAGE_WORDS);
        Self { lines, len, filled: vec![false; parts] }
    }

    /// The parts, in order. None of them is filled any more.
    pub(crate) fn parts(&mut self) -> impl DoubleEndedIterator<Item = Part<'_>> {
        self.filled.fill(false);
        let all = &mut places(&mut self.lines, self.len)[..self.len];
        let (start, rest) = split_at_page(all);
        let start = (!start.is_empty()).then_some(start);
        let (start_filled, rest_filled) = self.filled.split_at_mut(usize::from(start.is_some()));
        let rest = rest.chunks_mut(PAGE_WORDS).zip(rest_filled);
        let parts = start.into_iter().zip(start_filled).chain(rest);
        parts.map(|(places, filled)| Part { places, filled, provided: false })
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

/// What lies in front of the first border of two huge pages, and what lies behind it.
fn split_at_page(
    places: &mut [MaybeUninit<AtomicU64>],
) -> (&mut [MaybeUninit<AtomicU64>], &mut [MaybeUninit<AtomicU64>]) {
    let to_page = places.as_ptr().align_offset(HUGE_PAGE).min(places.len());
    places.split_at_mut(to_page)
}

impl Part<'_> {
    /// How many words it lacks.
    pub(crate) fn left(&self) -> usize {
        self.places.len()
    }

    /// Has the system provide the memory of those, by a write to each page of the smallest size.
    pub(crate) fn provide(&mut self) {
        const WORDS: usize = 4096 / size_of::<AtomicU64>();
        for place in self.places.iter_mut().step_by(WORDS) {
            place.write(AtomicU64::new(0));
        }
        self.provided = true;
    }

    /// Writes the next of them, those of `records`: as many as there are, or as it lacks. How many
    /// that is.
    #[inline(always)]
    pub(crate) fn fill_from<D: Decode>(&mut self, records: &[D::Record]) -> usize {
        let count = records.len().min(self.places.len());
        let (now, left) = core::mem::take(&mut self.places).split_at_mut(count);
        write::<D>(now, &records[..count], self.provided);
        *self.filled = left.is_empty();
        self.places = left;
        count
    }

    /// Writes all of them.
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

/// How records become words.
pub(crate) trait Decode {
    /// What a word is made of.
    type Record: Copy;

    /// The word of a record.
    fn word(record: Self::Record) -> u64;

    /// Those of many, `#[inline(always)]`.
    fn words(records: &[Self::Record; BLOCK]) -> [u64; BLOCK];
}

/// Writes the words of `records` to as many `places`: past the caches, if the memory is in
/// nobody's cache.
#[inline(always)]
fn write<D: Decode>(
    places: &mut [MaybeUninit<AtomicU64>],
    records: &[D::Record],
    past_caches: bool,
) {
    assert_eq!(places.len(), records.len(), "one word each");
    let to_line = places.as_ptr().align_offset(align_of::<Block>()).min(places.len());
    let (first, places) = places.split_at_mut(to_line);
    let (first_records, records) = records.split_at(to_line);
    let (blocks, last) = places.as_chunks_mut::<BLOCK>();
    let (block_records, last_records) = records.as_chunks::<BLOCK>();
    for (places, records) in blocks.iter_mut().zip(block_records) {
        let block = Block(D::words(records));
        if past_caches {
            write_past_caches(places, &block);
        } else {
            let words = places.iter_mut().zip(&block.0);
            words.for_each(|(place, &word)| _ = place.write(AtomicU64::new(word)));
        }
    }
    if past_caches {
        end_past_caches();
    }
    let ends = first.iter_mut().zip(first_records).chain(last.iter_mut().zip(last_records));
    ends.for_each(|(place, &record)| _ = place.write(AtomicU64::new(D::word(record))));
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

    const PAGE: usize = PAGE_WORDS;

    /// Words that say what their records do.
    struct Same;

    impl Decode for Same {
        type Record = u32;

        fn word(record: u32) -> u64 {
            u64::from(record) << 20
        }

        fn words(records: &[u32; BLOCK]) -> [u64; BLOCK] {
            records.map(Self::word)
        }
    }

    fn all(words: &Words) -> impl Iterator<Item = u64> {
        // Relaxed: nobody else is there.
        words_of(words.lines()).iter().map(|word| word.load(Ordering::Relaxed))
    }

    #[test]
    fn parts_are_those_of_huge_pages_and_make_the_whole() {
        for len in [1, 8, 9, 64, 1 << 12, PAGE - 1, PAGE, 2 * PAGE + 5, 4 * PAGE + 3] {
            let mut room = Room::new(len);
            let mut next = 0;
            for (number, part) in room.parts().enumerate() {
                let is_aligned = part.places.as_ptr().addr().is_multiple_of(HUGE_PAGE);
                assert!(number == 0 || is_aligned, "it begins a page");
                let end = next + part.left() as u64;
                part.fill(next..end + 5);
                next = end;
            }
            let words = room.finish();
            let padding = words.lines().len() * LINE - len;
            let wanted = (0..len as u64).chain(core::iter::repeat_n(PADDING, padding));
            assert!(all(&words).eq(wanted), "{len}");
        }
    }

    /// Records come a few at a time, to parts that were provided or not, in any order.
    #[test]
    fn records_fill_parts_bit_by_bit() {
        let len = 3 * PAGE + 77;
        let records: Vec<_> = (0..len as u32).collect();
        for (step, provided) in [(1001, 0), (1001, 1), (21_832, 2), (PAGE, 3), (len, 7)] {
            let mut room = Room::new(len);
            let mut left = &records[..];
            let parts = room.parts().enumerate().map(|(number, mut part)| {
                if provided >> number & 1 == 1 {
                    part.provide();
                }
                let of_part = left.split_off(..part.left()).expect("one for each word");
                (part, of_part)
            });
            let parts: Vec<_> = parts.collect();
            std::thread::scope(|threads| {
                for (mut part, mut records) in parts.into_iter().rev() {
                    threads.spawn(move || {
                        while part.left() > 0 {
                            let some = &records[..step.min(records.len())];
                            let taken = part.fill_from::<Same>(some);
                            records = &records[taken..];
                        }
                        assert_eq!(part.fill_from::<Same>(&[1, 2, 3]), 0, "it lacks nothing");
                    });
                }
            });
            let words = room.finish();
            let wanted = records.iter().map(|&record| Same::word(record));
            assert!(all(&words).take(len).eq(wanted), "{step} at a time, {provided:b} provided");
        }
    }

    /// What is provided is cleared, so it has to be filled again.
    #[test]
    #[should_panic(expected = "a part was not filled")]
    fn parts_are_filled_anew() {
        let mut room = Room::new(100);
        room.parts().for_each(|part| part.fill(0..100));
        room.parts().for_each(|mut part| part.provide());
        room.finish();
    }

    #[test]
    #[should_panic(expected = "a part was not filled")]
    fn a_word_that_is_missing_is_noticed() {
        let mut room = Room::new(100);
        room.parts().for_each(|mut part| assert_eq!(part.fill_from::<Same>(&[7; 99]), 99));
        room.finish();
    }

    #[test]
    #[should_panic(expected = "a part was not filled")]
    fn a_part_that_is_missing_is_noticed() {
        let mut room = Room::new(2 * PAGE);
        room.parts().skip(1).for_each(|part| part.fill(core::iter::repeat(0)));
        room.finish();
    }

    #[test]
    #[should_panic(expected = "every word of the part")]
    fn a_part_takes_as_many_as_it_has() {
        Room::new(100).parts().for_each(|part| part.fill(0..99));
    }
}
