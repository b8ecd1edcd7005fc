//! What formatting a device is told, and the superblock that comes of it.

use super::identity::Uuid;
use super::superblock::VERSION_FORMATTED;
use super::superblock::{INCOMPAT_BUCKET_SIZE_LOG2, Superblock, VERSION_FEATURES};
use crate::bucket::DeviceIndex;
use crate::error::Error;
use crate::geometry::{Geometry, MAX_DEVICES, MIN_DEVICE_BUCKETS, SECTOR_BYTES};
use crate::policy::Policy;

/// What [`Superblock::format`] is told.
///
/// ```
/// use tierce_core::record::Format;
/// let f = Format::new(1 << 30, 1024, 8);
/// assert_eq!((f.nr_in_set, f.discard), (1, false));
/// ```
#[derive(Clone, Debug)]
pub struct Format {
    /// Bytes of the device; what does not fill a bucket at its end stays unused.
    pub device_bytes: u64,
    /// Sectors of a bucket, a power of two.
    pub bucket_sectors: u32,
    /// Sectors of a block, 1 to 8, at least the device's own.
    pub block_sectors: u32,
    /// A new random identity for the device.
    pub uuid: Uuid,
    /// The set's identity: a new random one, or that of the set the device joins.
    pub set_uuid: Uuid,
    /// A name for people, at most 32 bytes.
    pub label: String,
    /// Which bucket is reused next.
    pub policy: Policy,
    /// Whether freed buckets are discarded.
    pub discard: bool,
    /// Devices of the set, 1 to 8.
    pub nr_in_set: u8,
    /// Which of them this one is.
    pub nr_this_dev: u8,
}

impl Format {
    /// The only device of a new set, with the default policy and no label. The uuids are zero:
    /// set them, [`Superblock::format`] refuses zeros.
    #[must_use]
    pub fn new(device_bytes: u64, bucket_sectors: u32, block_sectors: u32) -> Self {
        Self {
            device_bytes,
            bucket_sectors,
            block_sectors,
            uuid: Uuid::default(),
            set_uuid: Uuid::default(),
            label: String::new(),
            policy: Policy::default(),
            discard: false,
            nr_in_set: 1,
            nr_this_dev: 0,
        }
    }
}

impl Superblock {
    /// The superblock of a newly formatted device.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] for a setting outside its range, a device of fewer than
    /// [`MIN_DEVICE_BUCKETS`] buckets, a uuid of zeros, or a label longer than 32 bytes.
    pub fn format(options: &Format) -> Result<Self, Error> {
        let sectors = options.device_bytes / u64::from(SECTOR_BYTES);
        let nbuckets = sectors.checked_div(options.bucket_sectors.into()).unwrap_or(0);
        // What is too many for 32 bits is too many for `Geometry::new`, too.
        let in_range = u32::try_from(nbuckets).unwrap_or(u32::MAX);
        let first_bucket = 23u32.checked_div(options.bucket_sectors).unwrap_or(0) + 1;
        let geometry =
            Geometry::new(in_range, first_bucket, options.bucket_sectors, options.block_sectors)?;
        if in_range < MIN_DEVICE_BUCKETS {
            let wanted = format!("at least {MIN_DEVICE_BUCKETS}: a larger device, smaller buckets");
            return Err(Error::limit("nbuckets", nbuckets, wanted));
        }
        for (what, uuid) in [("uuid", options.uuid), ("set_uuid", options.set_uuid)] {
            if uuid == Uuid::default() {
                return Err(Error::limit(what, 0u8, "anything but zero".into()));
            }
        }
        if !(1..=MAX_DEVICES).contains(&options.nr_in_set) {
            return Err(Error::limit("nr_in_set", options.nr_in_set, "1 to 8".into()));
        }
        if options.nr_this_dev >= options.nr_in_set {
            let wanted = format!("less than nr_in_set, {}", options.nr_in_set);
            return Err(Error::limit("nr_this_dev", options.nr_this_dev, wanted));
        }
        let mut label = [0; 32];
        let Some(room) = label.get_mut(..options.label.len()) else {
            let wanted = "at most 32".into();
            return Err(Error::limit("bytes of the label", options.label.len() as u64, wanted));
        };
        room.copy_from_slice(options.label.as_bytes());
        let needs_log2 = u16::try_from(options.bucket_sectors).is_err();
        Ok(Self {
            version: if needs_log2 { VERSION_FEATURES } else { VERSION_FORMATTED },
            uuid: options.uuid,
            set_uuid: options.set_uuid,
            label,
            sync: false,
            discard: options.discard,
            policy: options.policy,
            other_flags: 0,
            seq: 0,
            feature_compat: 0,
            feature_incompat: if needs_log2 { INCOMPAT_BUCKET_SIZE_LOG2 } else { 0 },
            last_mount: 0,
            nr_in_set: options.nr_in_set,
            nr_this_dev: DeviceIndex::new(options.nr_this_dev),
            njournal: 0,
            geometry,
        })
    }
}
