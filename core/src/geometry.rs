//! How large things are: every limit and every constant derived from them.
//!
//! 1 sector is 512 bytes everywhere.

use crate::bucket::BucketIndex;
use crate::error::Error;
use crate::word::SECTORS_MAX;

/// Bytes of a sector.
pub const SECTOR_BYTES: u32 = 512;
/// Devices of a set, at most.
pub const MAX_DEVICES: u8 = 8;
/// Buckets of a device, at most: what the word of an open bucket can name.
pub const MAX_BUCKETS: u32 = 1 << 25;
/// Buckets of a table, at least (tests and simulations; a device has more).
pub const MIN_BUCKETS: u32 = 8;
/// Buckets of a usable device, at least: with fewer the reserves would be empty.
pub const MIN_DEVICE_BUCKETS: u32 = 513;
/// Sectors of a bucket, at least.
pub const MIN_BUCKET_SECTORS: u32 = 8;
/// Sectors of a bucket, at most: 128 MiB.
pub const MAX_BUCKET_SECTORS: u32 = 1 << 18;
/// Sectors of a block, at most: 4 KiB.
pub const MAX_BLOCK_SECTORS: u32 = 8;
/// Metadata buckets (prio sets, index nodes) use only this much of a bucket.
pub const MAX_META_BYTES: u32 = 4 << 20;

/// The shape of one device.
///
/// ```
/// use tierce_core::Geometry;
/// let g = Geometry::new(1024, 1, 128, 1)?;
/// assert_eq!((g.bucket_bytes(), g.prio_buckets()), (65536, 1));
/// assert_eq!(g.buckets().count(), 1023, "bucket 0 holds the superblock");
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Geometry {
    nbuckets: u32,
    first_bucket: u32,
    bucket_sectors: u32,
    block_sectors: u32,
}

impl Geometry {
    /// A device of `nbuckets` buckets of `bucket_sectors` sectors each, of which those from
    /// `first_bucket` on may be allocated, written in blocks of `block_sectors`.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if `nbuckets` is not in [`MIN_BUCKETS`]..=[`MAX_BUCKETS`],
    /// `bucket_sectors` or `block_sectors` is no power of two in its range, a bucket is smaller
    /// than a block, or `first_bucket` is not in 1..`nbuckets`.
    pub fn new(
        nbuckets: u32,
        first_bucket: u32,
        bucket_sectors: u32,
        block_sectors: u32,
    ) -> Result<Self, Error> {
        if !(MIN_BUCKETS..=MAX_BUCKETS).contains(&nbuckets) {
            let wanted = format!("{MIN_BUCKETS} to {MAX_BUCKETS}");
            return Err(Error::limit("nbuckets", nbuckets, wanted));
        }
        if !bucket_sectors.is_power_of_two()
            || !(MIN_BUCKET_SECTORS..=MAX_BUCKET_SECTORS).contains(&bucket_sectors)
        {
            let wanted = format!("a power of two, {MIN_BUCKET_SECTORS} to {MAX_BUCKET_SECTORS}");
            return Err(Error::limit("bucket_sectors", bucket_sectors, wanted));
        }
        if !block_sectors.is_power_of_two() || block_sectors > MAX_BLOCK_SECTORS {
            let wanted = format!("a power of two, 1 to {MAX_BLOCK_SECTORS}");
            return Err(Error::limit("block_sectors", block_sectors, wanted));
        }
        if !(1..nbuckets).contains(&first_bucket) {
            let wanted = format!("1 to {}", nbuckets - 1);
            return Err(Error::limit("first_bucket", first_bucket, wanted));
        }
        Ok(Self { nbuckets, first_bucket, bucket_sectors, block_sectors })
    }

    /// Buckets of the device, including those before [`first_bucket`](Self::first_bucket).
    #[must_use]
    pub const fn nbuckets(&self) -> u32 {
        self.nbuckets
    }

    /// The first bucket that may be allocated.
    #[must_use]
    pub const fn first_bucket(&self) -> BucketIndex {
        BucketIndex::new(self.first_bucket)
    }

    /// Sectors of a bucket, a power of two.
    #[must_use]
    pub const fn bucket_sectors(&self) -> u32 {
        self.bucket_sectors
    }

    /// Sectors of a block, the smallest write, a power of two.
    #[must_use]
    pub const fn block_sectors(&self) -> u32 {
        self.block_sectors
    }

    /// Bytes of a bucket.
    #[must_use]
    pub const fn bucket_bytes(&self) -> u32 {
        self.bucket_sectors * SECTOR_BYTES
    }

    /// Bytes of a block.
    #[must_use]
    pub const fn block_bytes(&self) -> u32 {
        self.block_sectors * SECTOR_BYTES
    }

    /// The buckets that may be allocated.
    pub fn buckets(
        &self,
    ) -> impl DoubleEndedIterator<Item = BucketIndex> + ExactSizeIterator + use<> {
        (self.first_bucket..self.nbuckets).map(BucketIndex::new)
    }

    /// Whether `bucket` is one of [`buckets`](Self::buckets).
    #[must_use]
    pub const fn contains(&self, bucket: BucketIndex) -> bool {
        self.first_bucket <= bucket.get() && bucket.get() < self.nbuckets
    }

    /// The sector at which `bucket` starts.
    #[must_use]
    pub const fn first_sector(&self, bucket: BucketIndex) -> u64 {
        bucket.get() as u64 * self.bucket_sectors as u64
    }

    /// Live sectors are counted in units of `1 << sector_shift()` sectors, so that a whole
    /// bucket fits the 13 bits of the word. 0 up to buckets of 2 MiB.
    #[must_use]
    pub const fn sector_shift(&self) -> u32 {
        let mut shift = 0;
        while self.bucket_sectors >> shift > SECTORS_MAX as u32 {
            shift += 1;
        }
        shift
    }

    /// `sectors` in these units, rounded up: what is not empty stays so.
    #[must_use]
    pub const fn units(&self, sectors: u32) -> u32 {
        sectors.div_ceil(1 << self.sector_shift())
    }

    /// Bytes that a metadata bucket uses: the bucket, at most [`MAX_META_BYTES`].
    #[must_use]
    pub const fn meta_bytes(&self) -> u32 {
        if self.bucket_bytes() < MAX_META_BYTES { self.bucket_bytes() } else { MAX_META_BYTES }
    }

    /// Buckets whose gen and prio one prio set holds: 3 bytes each behind a header of 40.
    #[must_use]
    pub const fn prios_per_bucket(&self) -> u32 {
        (self.meta_bytes() - 40) / 3
    }

    /// Prio sets, so buckets, that one prio write needs.
    #[must_use]
    pub const fn prio_buckets(&self) -> u32 {
        self.nbuckets.div_ceil(self.prios_per_bucket())
    }

    /// Sectors of I/O after which every bucket ages by one, for a set of `devices` devices of
    /// this shape: 1/1024 of their size, rounded down.
    ///
    /// A set counts its I/O down from 0. Whoever brings the counter below 0 adds one step, once,
    /// and one rescale pass is due; if the counter is still negative, the next I/O brings the
    /// next pass.
    #[must_use]
    pub const fn rescale_step(&self, devices: u32) -> u64 {
        self.nbuckets as u64 * devices as u64 * self.bucket_sectors as u64 / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the disk format, section 2.4.
    #[test]
    fn prio_records_per_bucket() {
        for (bucket_bytes, records) in
            [(4 << 10, 1352), (8 << 10, 2717), (64 << 10, 21832), (512 << 10, 174_749)]
        {
            let g = Geometry::new(4096, 1, bucket_bytes / SECTOR_BYTES, 1).unwrap();
            assert_eq!(g.prios_per_bucket(), records);
        }
        assert_eq!(Geometry::new(4096, 1, 8, 8).unwrap().prio_buckets(), 4);
        let huge = Geometry::new(4096, 1, MAX_BUCKET_SECTORS, 8).unwrap();
        assert_eq!(huge.meta_bytes(), MAX_META_BYTES);
    }

    #[test]
    fn a_whole_bucket_fits_the_word() {
        let mut sectors = MIN_BUCKET_SECTORS;
        while sectors <= MAX_BUCKET_SECTORS {
            let g = Geometry::new(1024, 1, sectors, 8).unwrap();
            assert!(sectors >> g.sector_shift() <= u32::from(SECTORS_MAX));
            sectors *= 2;
        }
        assert_eq!(Geometry::new(1024, 1, 4096, 8).unwrap().sector_shift(), 0);
        assert_eq!(Geometry::new(1024, 1, 8192, 8).unwrap().sector_shift(), 1);
    }

    /// 1/1024 of the set, rounded down; the largest set there is does not overflow.
    #[test]
    fn rescale_steps() {
        for ((nbuckets, bucket_sectors, devices), step) in [
            ((64, 64, 1), 4),
            ((64, 64, 2), 8),
            ((100, 8, 1), 0),
            ((100, 8, 2), 1),
            ((MAX_BUCKETS, MAX_BUCKET_SECTORS, 8), 1 << 36),
        ] {
            let g = Geometry::new(nbuckets, 1, bucket_sectors, 8).unwrap();
            assert_eq!(g.rescale_step(devices), step);
        }
    }

    #[test]
    fn refusals_name_the_field() {
        for (args, field) in [
            ((7, 1, 128, 1), "nbuckets"),
            ((MAX_BUCKETS + 1, 1, 128, 1), "nbuckets"),
            ((1024, 0, 128, 1), "first_bucket"),
            ((1024, 1024, 128, 1), "first_bucket"),
            ((1024, 1, 4, 1), "bucket_sectors"),
            ((1024, 1, 100, 1), "bucket_sectors"),
            ((1024, 1, 128, 0), "block_sectors"),
            ((1024, 1, 128, 16), "block_sectors"),
        ] {
            let e = Geometry::new(args.0, args.1, args.2, args.3).unwrap_err();
            assert!(e.to_string().starts_with(field), "{e}");
        }
    }
}
