//! Keys and pointers: what is cached, how much of it, and where.
//!
//! # Layout
//!
//! A key is 2 + n words of 64 bits: `high`, `low`, and n pointers, 0 to 7.
//!
//! ```text
//! high  63  62 60 59 58 57 56  55 54       37  36  35       20 19        0
//!      ┌───┬─────┬─────┬─────┬───┬───────────┬───┬───────────┬────────────┐
//!      │set│  n  │     │csums│pin│           │drt│ sectors   │   inode    │
//!      └───┴─────┴─────┴─────┴───┴───────────┴───┴───────────┴────────────┘
//! low   the sector at which the extent ENDS
//!
//! ptr   63  62          51 50                             8 7          0
//!      ┌───┬──────────────┬────────────────────────────────┬────────────┐
//!      │   │    device    │   sector on that device        │    gen     │
//!      └───┴──────────────┴────────────────────────────────┴────────────┘
//! ```
//!
//! | field | meaning |
//! |---|---|
//! | set | 1 in every key; readers do not look at it |
//! | n | pointers that follow: copies of the same data |
//! | csums, pin | the original's: kinds of checksum words, pinned in the index; we write 0 and ignore them |
//! | drt | dirty: the extent is the only copy of its data |
//! | sectors | length; the extent is low − sectors up to low of object `inode` |
//! | device, sector, gen | which device of the set, where on it, valid while the bucket's gen is the same |
//!
//! A data extent never crosses a bucket. Device 4095 marks a placeholder that a read miss left:
//! its gen and sector are random and mean nothing. Above the leaves of an index, inode 0 with
//! low 0 is the tombstone of a freed node.

use super::Check;
use crate::bucket::{BucketIndex, Gen};
use crate::error::{Error, Place, RecordKind};
use crate::geometry::Geometry;
use core::fmt;

/// Pointers of a key, at most: what its 3 bits can count.
pub const MAX_POINTERS: usize = 7;
/// Words of a key, at most.
pub const MAX_WORDS: usize = 2 + MAX_POINTERS;
/// Inodes are below this.
pub const MAX_INODE: u32 = 1 << 20;
/// Sectors of an extent are below this.
pub const MAX_SECTORS: u32 = 1 << 16;

const SECTORS: u32 = 20;
const DIRTY: u32 = 36;
const POINTERS: u32 = 60;
const SET: u32 = 63;
const POINTER_SECTOR: u32 = 8;
const POINTER_SECTOR_BITS: u32 = 43;
const POINTER_DEVICE: u32 = POINTER_SECTOR + POINTER_SECTOR_BITS;
const POINTER_DEVICE_MASK: u64 = (1 << 12) - 1;
/// The device number of placeholders.
const NO_DEVICE: u16 = POINTER_DEVICE_MASK as u16;

const _: () = assert!(SECTORS + 16 == DIRTY && POINTER_DEVICE == 51);

/// A place on a device, valid while the gen of its bucket is the pointer's.
///
/// ```
/// use tierce_core::{BucketIndex, Gen, Geometry, record::Pointer};
/// let p = Pointer::new(0, 128 * 7 + 16, Gen::new(3));
/// assert_eq!((p.device(), p.sector(), p.gen_()), (0, 912, Gen::new(3)));
/// let g = Geometry::new(1024, 1, 128, 1)?;
/// assert_eq!(p.bucket(&g), Some(BucketIndex::new(7)));
/// assert_eq!(p.advanced(8).sector(), 920);
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Pointer(u64);

impl Pointer {
    /// Sector `sector` of device `device`, in a bucket of gen `generation`. Bits that do not
    /// fit (12 of the device, 43 of the sector) are cut off.
    #[must_use]
    pub const fn new(device: u16, sector: u64, generation: Gen) -> Self {
        let sector = sector & ((1 << POINTER_SECTOR_BITS) - 1);
        let device = device as u64 & POINTER_DEVICE_MASK;
        Self(device << POINTER_DEVICE | sector << POINTER_SECTOR | generation.get() as u64)
    }

    /// The pointer with these bits; all patterns are pointers.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The gen it was made with.
    #[must_use]
    pub const fn gen_(self) -> Gen {
        Gen::new(self.0 as u8)
    }

    /// The sector on its device.
    #[must_use]
    pub const fn sector(self) -> u64 {
        self.0 >> POINTER_SECTOR & ((1 << POINTER_SECTOR_BITS) - 1)
    }

    /// The number of its device in the set, 0 to 4095.
    #[must_use]
    pub const fn device(self) -> u16 {
        (self.0 >> POINTER_DEVICE & POINTER_DEVICE_MASK) as u16
    }

    /// Whether it is a placeholder, which points nowhere.
    #[must_use]
    pub const fn is_placeholder(self) -> bool {
        self.device() == NO_DEVICE
    }

    /// The bucket that it points into, if its device, of this shape, has it.
    #[must_use]
    pub const fn bucket(self, geometry: &Geometry) -> Option<BucketIndex> {
        let number = self.sector() / geometry.bucket_sectors() as u64;
        if number >= geometry.nbuckets() as u64 {
            return None;
        }
        let bucket = BucketIndex::new(number as u32);
        if geometry.contains(bucket) { Some(bucket) } else { None }
    }

    /// The same place `sectors` further on.
    #[must_use]
    pub const fn advanced(self, sectors: u64) -> Self {
        let mask = ((1u64 << POINTER_SECTOR_BITS) - 1) << POINTER_SECTOR;
        let moved = self.0.wrapping_add(sectors << POINTER_SECTOR);
        Self(self.0 & !mask | moved & mask)
    }
}

impl fmt::Debug for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} gen {}", self.device(), self.sector(), self.gen_().get())
    }
}

/// An extent of a cached object and the places that hold it, or an index node.
///
/// Every value is a legal key: fields are cut out of the words, never checked against devices.
///
/// ```
/// use tierce_core::{Gen, record::{Key, Pointer}};
/// let p = Pointer::new(0, 4096, Gen::new(1));
/// let key = Key::new(5, 100, 8, &[p]).with_dirty(true);
/// assert_eq!((key.inode(), key.end(), key.sectors(), key.is_dirty()), (5, 100, 8, true));
/// assert_eq!(key.start(), Some(92));
/// assert_eq!(key.pointers(), [p]);
/// assert_eq!(key.words().collect::<Vec<_>>(), [key.high(), 100, p.bits()]);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Key {
    high: u64,
    low: u64,
    pointers: [Pointer; MAX_POINTERS],
}

impl Key {
    /// The extent of `sectors` sectors of `inode` that ends at sector `end`, not dirty.
    ///
    /// # Panics
    ///
    /// If there are more than [`MAX_POINTERS`] pointers, `inode` is not below [`MAX_INODE`] or
    /// `sectors` not below [`MAX_SECTORS`].
    #[must_use]
    pub fn new(inode: u32, end: u64, sectors: u32, pointers: &[Pointer]) -> Self {
        assert!(inode < MAX_INODE && sectors < MAX_SECTORS, "a key has 20 and 16 bits for them");
        let mut key = Self::default();
        key.pointers[..pointers.len()].copy_from_slice(pointers);
        key.high = 1 << SET
            | (pointers.len() as u64) << POINTERS
            | u64::from(sectors) << SECTORS
            | u64::from(inode);
        key.low = end;
        key
    }

    /// The same extent, dirty or not.
    #[must_use]
    pub const fn with_dirty(mut self, dirty: bool) -> Self {
        self.high = self.high & !(1 << DIRTY) | (dirty as u64) << DIRTY;
        self
    }

    /// The first word.
    #[must_use]
    pub const fn high(&self) -> u64 {
        self.high
    }

    /// The object that the extent is part of.
    #[must_use]
    pub const fn inode(&self) -> u32 {
        (self.high & (MAX_INODE as u64 - 1)) as u32
    }

    /// How long the extent is, or how large the node may grow, in sectors.
    #[must_use]
    pub const fn sectors(&self) -> u32 {
        (self.high >> SECTORS) as u32 & (MAX_SECTORS - 1)
    }

    /// Whether the extent is the only copy of its data.
    #[must_use]
    pub const fn is_dirty(&self) -> bool {
        self.high >> DIRTY & 1 != 0
    }

    /// The sector of the object at which the extent ends.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.low
    }

    /// The sector at which it starts, `None` if that would be before the object.
    #[must_use]
    pub const fn start(&self) -> Option<u64> {
        self.low.checked_sub(self.sectors() as u64)
    }

    /// Where the copies of the extent are.
    #[must_use]
    pub fn pointers(&self) -> &[Pointer] {
        &self.pointers[..self.pointer_count()]
    }

    const fn pointer_count(&self) -> usize {
        (self.high >> POINTERS & 0b111) as usize
    }

    /// Whether, above the leaves, it is what is left of a freed node.
    #[must_use]
    pub const fn is_tombstone(&self) -> bool {
        self.inode() == 0 && self.low == 0
    }

    /// What is left of the extent when it starts at sector `start` and ends at `end`, both
    /// inside it.
    #[must_use]
    pub(super) fn cut(mut self, start: u64, end: u64) -> Self {
        let skipped = start - self.start().unwrap_or(0);
        let count = self.pointer_count();
        for pointer in &mut self.pointers[..count] {
            *pointer = pointer.advanced(skipped);
        }
        let mask = (u64::from(MAX_SECTORS) - 1) << SECTORS;
        self.high = self.high & !mask | (end - start) << SECTORS & mask;
        self.low = end;
        self
    }

    /// Words that the key takes.
    #[must_use]
    pub const fn word_count(&self) -> usize {
        2 + self.pointer_count()
    }

    /// Its words as on the device.
    pub fn words(&self) -> impl Iterator<Item = u64> + use<'_> {
        [self.high, self.low].into_iter().chain(self.pointers().iter().map(|p| p.bits()))
    }

    /// The key at the start of `words`; `place` is where they lie.
    ///
    /// # Errors
    ///
    /// [`Error::Record`] if the words end before the key does.
    pub fn decode(words: &[u64], place: Place) -> Result<Self, Error> {
        match Keys::new(words.iter().copied(), place).next() {
            Some(key) => key,
            None => Err(Check::new(RecordKind::Key, place).error("length", 0, 2)),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dirty = if self.is_dirty() { " dirty" } else { "" };
        write!(f, "{}:{} −{}{dirty}", self.inode(), self.end(), self.sectors())?;
        f.debug_list().entries(self.pointers()).finish()
    }
}

/// The keys in a sequence of words, one after the other; ends after the first error.
///
/// ```
/// use tierce_core::{error::Place, record::{Key, Keys}};
/// let keys = [Key::new(1, 8, 8, &[]), Key::new(1, 16, 8, &[])];
/// let words: Vec<u64> = keys.iter().flat_map(|key| key.words()).collect();
/// let decoded = Keys::new(words.iter().copied(), Place::device(0));
/// assert_eq!(decoded.collect::<Result<Vec<_>, _>>()?, keys);
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Keys<I> {
    words: I,
    place: Place,
    failed: bool,
}

impl<I: Iterator<Item = u64>> Keys<I> {
    /// The keys in `words`; `place` is where they lie.
    pub const fn new(words: I, place: Place) -> Self {
        Self { words, place, failed: false }
    }

    fn read(&mut self, high: u64) -> Option<Key> {
        let mut key = Key { high, low: self.words.next()?, ..Key::default() };
        let count = key.pointer_count();
        for pointer in &mut key.pointers[..count] {
            *pointer = Pointer(self.words.next()?);
        }
        Some(key)
    }
}

impl<I: Iterator<Item = u64>> Iterator for Keys<I> {
    type Item = Result<Key, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let high = self.words.next()?;
        let Some(key) = self.read(high) else {
            self.failed = true;
            let check = Check::new(RecordKind::Key, self.place);
            let pointers = high >> POINTERS & 0b111;
            let wanted = "no more than the words that follow";
            return Some(Err(check.error("number of pointers", pointers, wanted)));
        };
        self.place = self.place.plus(8 * key.word_count() as u64);
        Some(Ok(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pointer_fields_are_independent(device in 0u16..4096, sector in 0u64..1 << 43, g: u8) {
            let p = Pointer::new(device, sector, Gen::new(g));
            prop_assert_eq!((p.device(), p.sector(), p.gen_().get()), (device, sector, g));
            prop_assert_eq!(p.is_placeholder(), device == 4095);
            prop_assert_eq!(p.bits() >> 63, 0);
            let q = p.advanced(77);
            prop_assert_eq!((q.device(), q.gen_().get()), (device, g));
            prop_assert_eq!(q.sector(), (sector + 77) % (1 << 43));
        }

        #[test]
        fn key_fields_are_independent(
            inode in 0..MAX_INODE, sectors in 0..MAX_SECTORS, end: u64, dirty: bool,
            pointers in prop::collection::vec(any::<u64>(), 0..=7),
        ) {
            let pointers: Vec<_> = pointers.into_iter().map(Pointer::from_bits).collect();
            let key = Key::new(inode, end, sectors, &pointers).with_dirty(dirty);
            prop_assert_eq!((key.inode(), key.sectors(), key.end()), (inode, sectors, end));
            prop_assert_eq!(key.is_dirty(), dirty);
            prop_assert_eq!(key.pointers(), pointers);
            let words: Vec<_> = key.words().collect();
            prop_assert_eq!(words.len(), key.word_count());
            prop_assert_eq!(Key::decode(&words, Place::device(0)), Ok(key));
        }

        /// All words are keys, up to one error at the end; nothing is lost or made up.
        #[test]
        fn any_words_decode_or_fail(words in prop::collection::vec(any::<u64>(), 0..60)) {
            let mut decoded = Vec::new();
            let mut failed = false;
            for key in Keys::new(words.iter().copied(), Place::device(0)) {
                prop_assert!(!failed);
                match key {
                    Ok(key) => decoded.extend(key.words()),
                    Err(_) => failed = true,
                }
            }
            prop_assert!(words.starts_with(&decoded));
            prop_assert!(failed || decoded.len() == words.len());
        }
    }

    /// The layout at the top of this file, bit by bit.
    #[test]
    fn bits_lie_where_the_layout_says() {
        for (key, high) in [
            (Key::new(0, 0, 0, &[]), 1 << 63),
            (Key::new(0xf_ffff, 0, 0, &[]), 1 << 63 | 0xf_ffff),
            (Key::new(0, 0, 0xffff, &[]), 1 << 63 | 0xffff << 20),
            (Key::new(0, 0, 0, &[]).with_dirty(true), 1 << 63 | 1 << 36),
            (Key::new(0, 0, 0, &[Pointer::default(); 7]), 1 << 63 | 7 << 60),
        ] {
            assert_eq!(key.high(), high, "{key:?}");
        }
        for (pointer, bits) in [
            (Pointer::new(0, 0, Gen::new(255)), 0xff),
            (Pointer::new(0, (1 << 43) - 1, Gen::new(0)), ((1 << 43) - 1) << 8),
            (Pointer::new(4095, 0, Gen::new(0)), 4095 << 51),
            (Pointer::new(u16::MAX, u64::MAX, Gen::new(255)), u64::MAX >> 1),
        ] {
            assert_eq!(pointer.bits(), bits, "{pointer:?}");
        }
    }

    /// A key's end, not its start, is on the device: the text says where it counts from.
    #[test]
    fn texts_for_people() {
        let at = Pointer::new(2, 128, Gen::new(3));
        assert_eq!(format!("{at:?}"), "2:128 gen 3");
        let key = Key::new(1, 100, 8, &[at]);
        assert_eq!(format!("{key:?}"), "1:100 −8[2:128 gen 3]");
        assert_eq!(format!("{:?}", key.with_dirty(true)), "1:100 −8 dirty[2:128 gen 3]");
        assert_eq!(format!("{:?}", Key::default()), "0:0 −0[]");
    }

    #[test]
    fn pointers_outside_the_device_have_no_bucket() {
        let g = Geometry::new(1024, 2, 128, 1).unwrap();
        for (sector, bucket) in
            [(255, None), (256, Some(2)), (1024 * 128 - 1, Some(1023)), (1024 * 128, None)]
        {
            let p = Pointer::new(0, sector, Gen::new(0));
            assert_eq!(p.bucket(&g), bucket.map(BucketIndex::new));
        }
        assert_eq!(Pointer::from_bits(u64::MAX).bucket(&g), None);
    }

    #[test]
    fn an_error_says_where_the_key_is() {
        let words = [1 << 63, 0, 2 << 60, 0, 1];
        let error = Keys::new(words.into_iter(), Place::device(80)).last().unwrap().unwrap_err();
        let wanted = "key at byte 96: number of pointers is 2, \
                      wanted no more than the words that follow";
        assert_eq!(error.to_string(), wanted);
        assert!(Key::decode(&[], Place::device(0)).is_err());
    }
}
