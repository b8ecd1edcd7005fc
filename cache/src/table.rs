//! One shard of the index: entries in lines of the processor's cache, in memory that grows by an
//! eighth and is the system's again when it is not needed.
//!
//! # Problem
//!
//! A hash table that doubles is half empty afterwards. What it had before is a hole in the heap of
//! malloc, and of the heap of the thread that happened to insert: tables of a cache that was closed
//! took as much memory as those of the one that was opened next.
//!
//! # State
//!
//! A row of lines of 64 bytes, each with five places for entries and a count. The first so many
//! lines are *homes*: an entry's is the one that its tag names as a fraction of all tags,
//! `tag · homes / 2^35`. It is there or, if that was full, in one further right; the last ones go on
//! behind the homes.
//!
//! # Protocol
//!
//! * *Search*: from home to the right, up to a line that nothing has passed.
//! * *Insert*: into the first line from home that has a place; those on the way count that it passed.
//!   If there is none in the row, it becomes longer; homes stay as they are.
//! * *Remove*: the line's last entry takes the place, and those on the way from home count one less.
//! * *Grow*, when seven of eight places at home are taken: all are entered into a row that is longer
//!   by an eighth, nearly all of which are homes, and the old one is given back. Who knows how many
//!   will come has it grow once ([`Table::expect`]); if they were fewer, it shrinks ([`Table::fit`]).
//!
//! # Invariants
//!
//! 1. A line's entries are its first places.
//! 2. A line's count is the number of entries whose home is there or further left and which are
//!    further right.
//!
//! # Cost
//!
//! About 15.5 bytes per entry. A search that finds looks at 1.4 lines on average, which lie side by
//! side. Growing enters eight entries for each new key.

use crate::packed::{Packed, TAG_BITS};
use memmap2::MmapMut;
use std::ops::{Deref, DerefMut};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Entries of a line.
const PLACES: usize = 5;
/// Lines of the smallest row.
const LINES_MIN: usize = 16;
/// Lines behind the homes when the table grows. Hardly any row needs more.
const TAIL: usize = 4;
/// From so many bytes on a row is mapped: malloc would keep it when it is freed.
const MAPPED_BYTES_MIN: usize = 32 << 10;
/// What is mapped is a multiple of this, as it is for the kernel anyway.
const PAGE_BYTES: usize = 4096;

/// All zeros are an empty line.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
struct Line {
    entries: [Packed; PLACES],
    passed: u32,
}

const _: () = assert!(size_of::<Line>() == 64 && PAGE_BYTES.is_multiple_of(64));

impl Line {
    /// The place of the entry with this tag; with that of [`Packed::EMPTY`], of the first that has
    /// none.
    ///
    /// All are compared: nobody could predict at which one a loop ends, and a branch that was
    /// predicted wrong costs more than five comparisons.
    fn find(&self, tag: u64) -> Option<usize> {
        let found = (0..)
            .zip(&self.entries)
            .fold(0, |found, (place, entry)| found | u32::from(entry.tag() == tag) << place);
        (found != 0).then(|| found.trailing_zeros() as usize)
    }

    fn gap(&self) -> Option<usize> {
        self.find(Packed::EMPTY.tag())
    }

    fn take(&mut self, place: usize) {
        let last = self.gap().unwrap_or(PLACES) - 1;
        self.entries[place] = self.entries[last];
        self.entries[last] = Packed::EMPTY;
    }
}

/// Lines.
enum Row {
    Heap(Box<[Line]>),
    Mapped(MmapMut),
}

impl Row {
    /// Empty lines, at least so many.
    fn new(lines: usize) -> Self {
        let bytes = (lines * size_of::<Line>()).next_multiple_of(PAGE_BYTES);
        if bytes >= MAPPED_BYTES_MIN
            && let Ok(mapped) = MmapMut::map_anon(bytes)
        {
            return Self::Mapped(mapped);
        }
        Self::Heap(vec![Line::new_zeroed(); lines].into())
    }
}

impl Default for Row {
    fn default() -> Self {
        Self::Heap(Box::default())
    }
}

/// Whole lines are mapped, from the beginning of a page on.
const WHOLE: &str = "a mapping is of whole lines";

impl Deref for Row {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        match self {
            Self::Heap(lines) => lines,
            Self::Mapped(bytes) => <[Line]>::ref_from_bytes(bytes).expect(WHOLE),
        }
    }
}

impl DerefMut for Row {
    fn deref_mut(&mut self) -> &mut [Line] {
        match self {
            Self::Heap(lines) => lines,
            Self::Mapped(bytes) => <[Line]>::mut_from_bytes(bytes).expect(WHOLE),
        }
    }
}

/// The home of a tag.
const fn home(tag: u64, homes: usize) -> usize {
    ((tag as u128 * homes as u128) >> TAG_BITS) as usize
}

/// How many entries a table with so many homes has before it grows.
const fn full(homes: usize) -> usize {
    homes * PLACES / 8 * 7
}

/// See the [module](self).
#[derive(Default)]
pub(crate) struct Table {
    row: Row,
    homes: usize,
    len: usize,
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory that it takes, without itself.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.row)
    }

    /// Line and place of the entry with this tag.
    fn search(&self, tag: u64) -> Option<(usize, usize)> {
        let home = home(tag, self.homes);
        for (at, line) in (home..).zip(self.row.get(home..)?) {
            if let Some(place) = line.find(tag) {
                return Some((at, place));
            }
            // (by Invariant 2)
            if line.passed == 0 {
                return None;
            }
        }
        None
    }

    pub(crate) fn find(&self, tag: u64) -> Option<Packed> {
        self.search(tag).map(|(line, place)| self.row[line].entries[place])
    }

    /// Its tag must not be changed.
    pub(crate) fn find_mut(&mut self, tag: u64) -> Option<&mut Packed> {
        let (line, place) = self.search(tag)?;
        Some(&mut self.row[line].entries[place])
    }

    /// Enters what `new` makes of the entry with this tag, if there is one, in place of that, which
    /// is returned. It has the same tag.
    pub(crate) fn insert(
        &mut self,
        tag: u64,
        new: impl FnOnce(Option<Packed>) -> Packed,
    ) -> Option<Packed> {
        if let Some(place) = self.find_mut(tag) {
            let old = *place;
            *place = new(Some(old));
            return Some(old);
        }
        if self.len == full(self.homes) {
            self.rebuild(longer(self.row.len()));
        }
        self.enter(new(None));
        None
    }

    /// Enters what is not there.
    fn enter(&mut self, entry: Packed) {
        self.len += 1;
        let home = home(entry.tag(), self.homes);
        for line in &mut self.row[home..] {
            if let Some(place) = line.gap() {
                line.entries[place] = entry;
                return;
            }
            line.passed += 1;
        }
        let end = self.row.len();
        self.lengthen();
        self.row[end].entries[0] = entry;
    }

    /// More lines behind the homes.
    #[cold]
    fn lengthen(&mut self) {
        let mut row = Row::new(longer(self.row.len()));
        row[..self.row.len()].copy_from_slice(&self.row);
        self.row = row;
    }

    pub(crate) fn remove(&mut self, tag: u64) -> Option<Packed> {
        let (line, place) = self.search(tag)?;
        let removed = self.row[line].entries[place];
        self.take(line, place);
        Some(removed)
    }

    fn take(&mut self, line: usize, place: usize) {
        self.len -= 1;
        let home = home(self.row[line].entries[place].tag(), self.homes);
        let (passed, rest) = self.row[home..].split_at_mut(line - home);
        passed.iter_mut().for_each(|line| line.passed -= 1);
        rest[0].take(place);
    }

    /// Visits every entry and keeps those for which `keep` says so.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(Packed) -> bool) {
        for line in 0..self.row.len() {
            // The last one comes in place of one that is taken: it was visited before.
            for place in (0..PLACES).rev() {
                let entry = self.row[line].entries[place];
                if !entry.is_empty() && !keep(entry) {
                    self.take(line, place);
                }
            }
        }
    }

    /// Makes room for `len` entries in all.
    pub(crate) fn expect(&mut self, len: usize) {
        if len > full(self.homes) {
            self.rebuild(wanted(len));
        }
    }

    /// Gives back the room of more entries than it would have after growing next.
    pub(crate) fn fit(&mut self) {
        let lines = wanted(self.len);
        if self.row.len() > longer(lines) {
            self.rebuild(lines);
        }
    }

    /// Enters all into a row of so many lines.
    #[cold]
    fn rebuild(&mut self, lines: usize) {
        let row = Row::new(lines);
        let old = std::mem::replace(self, Self { homes: row.len() - TAIL, row, len: 0 });
        let entries = old.row.iter().flat_map(|line| &line.entries);
        entries.filter(|entry| !entry.is_empty()).for_each(|entry| self.enter(*entry));
    }
}

/// The fewest lines with so many entries before they grow.
const fn wanted(len: usize) -> usize {
    let homes = (len.div_ceil(7) * 8).div_ceil(PLACES);
    if homes + TAIL < LINES_MIN { LINES_MIN } else { homes + TAIL }
}

/// How many lines come after so many.
const fn longer(lines: usize) -> usize {
    if lines < LINES_MIN { LINES_MIN } else { lines + lines / 8 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packed::{Location, Scale};
    use std::collections::BTreeMap;
    use tierce_core::{BucketId, Gen};
    use tierce_lockfree::BucketRef;

    const SCALE: Scale = Scale { grain: 32 };

    fn entry(tag: u64, bucket: u32) -> Packed {
        let bucket = BucketRef::new(BucketId::unpack(bucket), Gen::new(1));
        Packed::new(tag, Location { bucket, offset: 0, bytes: 32 }, SCALE)
    }

    impl Table {
        /// The invariants, and that it counts right.
        fn check(&self) {
            let mut passed = vec![0; self.row.len()];
            let mut len = 0;
            for (at, line) in self.row.iter().enumerate() {
                assert!(line.entries.is_sorted_by_key(|entry| entry.is_empty()), "1: no gaps");
                for entry in line.entries.iter().filter(|entry| !entry.is_empty()) {
                    let way = &mut passed[home(entry.tag(), self.homes)..at];
                    way.iter_mut().for_each(|line| *line += 1);
                    len += 1;
                }
            }
            assert!(self.row.iter().zip(passed).all(|(line, passed)| line.passed == passed), "2");
            assert_eq!(len, self.len);
        }
    }

    /// Random operations, on a few keys and on many, on tags that are spread and on tags that crowd
    /// at either end, beside a map that is certainly right.
    #[test]
    fn it_does_what_a_map_does() {
        let spread = |n: u64| (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - TAG_BITS);
        let low = |n: u64| n + 1;
        let high = |n: u64| (1 << TAG_BITS) - 1 - n;
        for (name, tag_of) in [("spread", spread as fn(u64) -> u64), ("low", low), ("high", high)] {
            for keys in [40_u64, 3000] {
                let (mut table, mut map) = (Table::default(), BTreeMap::new());
                let mut random = 0x2545_F491_4F6C_DD1D_u64;
                for step in 0..keys * 12 {
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    let tag = tag_of(random % keys);
                    let new = entry(tag, 1 + (random >> 40) as u32);
                    // It fills up, then empties.
                    let inserts = if step < keys * 6 { 12 } else { 4 };
                    if random >> 60 < inserts {
                        assert_eq!(
                            table.insert(tag, |_| new),
                            map.insert(tag, new),
                            "{name} {step}"
                        );
                    } else {
                        assert_eq!(table.remove(tag), map.remove(&tag), "{name} {step}");
                    }
                    let other = tag_of((random >> 20) % keys);
                    assert_eq!(table.find(other), map.get(&other).copied(), "{name} {step}");
                    assert_eq!(table.len(), map.len());
                    if step % (keys / 2) == 0 {
                        table.check();
                    }
                }
                let keep = |entry: &Packed| entry.tag().is_multiple_of(3);
                table.retain(|entry| keep(&entry));
                map.retain(|_, entry| keep(entry));
                table.check();
                let mut left = Vec::new();
                table.retain(|entry| {
                    left.push(entry);
                    true
                });
                left.sort_unstable_by_key(|entry| entry.tag());
                assert!(left.iter().eq(map.values()) && table.len() == left.len(), "{name}");
            }
        }
    }

    #[test]
    fn room_for_those_expected_is_enough_and_what_is_too_much_is_given_back() {
        let mut table = Table::default();
        let enter = |table: &mut Table, range: std::ops::Range<u64>| {
            for n in range {
                let tag = (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - TAG_BITS);
                table.insert(tag, |_| entry(tag, 1));
            }
            table.check();
        };
        enter(&mut table, 0..100);
        table.expect(10_000);
        let bytes = table.bytes();
        assert!(bytes <= 10_000 * 64 / PLACES * 8 / 7 + 2 * PAGE_BYTES, "{bytes}");
        enter(&mut table, 0..10_000);
        assert_eq!(table.bytes(), bytes, "enough");
        table.expect(9000);
        table.fit();
        assert_eq!(table.bytes(), bytes, "not too much");
        table.expect(30_000);
        table.fit();
        assert_eq!(table.bytes(), bytes, "too much");
        table.check();
        table.retain(|_| false);
        table.fit();
        assert!(table.bytes() <= PAGE_BYTES, "{}", table.bytes());
        enter(&mut table, 0..10);
    }

    #[test]
    fn as_many_lines_are_wanted_as_are_needed() {
        for len in 0..10_000 {
            let homes = wanted(len) - TAIL;
            assert!(full(homes) >= len, "{len}");
            assert!(homes + TAIL == LINES_MIN || full(homes - 1) < len, "{len}");
        }
    }

    /// Whoever made the hashes of a damaged device: it costs time, not memory.
    #[test]
    fn tags_that_crowd_do_not_make_it_large() {
        let mut table = Table::default();
        for n in 0..5000 {
            let tag = (1 << TAG_BITS) - 1 - n;
            table.insert(tag, |_| entry(tag, 1));
        }
        table.check();
        assert!(table.bytes() <= 5000 * 48, "{} bytes", table.bytes());
    }
}
