//! Reading and writing the superblock.
//!
//! There is one copy of it, so a power loss in the middle of its write must leave the old or
//! the new one, although only sectors are written as a whole. Everything that changes from one
//! opening to the next lies in its first sector, the checksum included; what lies behind (the
//! numbers of most journal buckets) changes once, at the first use, when the old checksum does
//! not cover it yet. So what is behind goes first, then a flush, then the first sector's change:
//! at every instant the superblock is the old one or the new one.

use crate::device::{Device, DeviceExt, Request};
use crate::error::Error;
use crate::probe::probe;
use tierce_core::Error as CoreError;
use tierce_core::geometry::{MIN_DEVICE_BUCKETS, SECTOR_BYTES};
use tierce_core::record::Superblock;
use tierce_core::record::superblock::BYTES;
pub(crate) use tierce_core::record::superblock::OFFSET;

/// Reads the superblock of a device and checks that the device can be used by it. Whoever needs to
/// know what it is before he [opens](crate::Volume::open_on) it, which changes the superblock.
///
/// ```
/// use tierce_io::{FormatOptions, Sim, SimOptions, format_on, read_superblock};
/// let device = Sim::new(&SimOptions::default());
/// let made = format_on(&*device, &FormatOptions::default().bucket(64 << 10))?;
/// assert_eq!(read_superblock(&*device)?.uuid, made.uuid);
/// # Ok::<(), tierce_io::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::NotFormatted`], [`Error::Foreign`], [`Error::Corrupt`], [`Error::Truncated`],
/// [`Error::TooSmall`], [`Error::BlockTooSmall`], or an error of the device.
pub fn read(device: &dyn Device) -> Result<Superblock, Error> {
    let name = device.name();
    let device_bytes = device.capabilities().bytes;
    if device_bytes < OFFSET + BYTES as u64 {
        return Err(Error::NotFormatted { device: name.clone() });
    }
    let bytes = device.read_at(OFFSET, BYTES)?;
    let superblock = match Superblock::decode(&bytes, None) {
        Ok(superblock) => superblock,
        Err(CoreError::NotFormatted { .. } | CoreError::BackingDevice { .. }) => {
            return Err(match probe(device)? {
                Some(found) => Error::Foreign { device: name.clone(), found: found.to_string() },
                None => Error::NotFormatted { device: name.clone() },
            });
        }
        Err(cause) => return Err(Error::Corrupt { device: name.clone(), cause }),
    };
    let geometry = superblock.geometry();
    let wanted = u64::from(geometry.nbuckets()) * u64::from(geometry.bucket_bytes());
    if wanted > device_bytes {
        return Err(Error::Truncated { device: name.clone(), found: device_bytes, wanted });
    }
    if geometry.nbuckets() < MIN_DEVICE_BUCKETS {
        return Err(Error::TooSmall {
            device: name.clone(),
            bytes: device_bytes,
            nbuckets: geometry.nbuckets().into(),
            bucket_bytes: geometry.bucket_bytes().into(),
            wanted: MIN_DEVICE_BUCKETS,
        });
    }
    let (found, wanted) = (geometry.block_bytes(), device.capabilities().logical_block);
    if found < wanted {
        return Err(Error::BlockTooSmall { device: name.clone(), found, wanted });
    }
    Ok(superblock)
}

/// Replaces `old` by `new`, durably. What was written before and has to be durable before this
/// must have been flushed.
pub(crate) fn replace(
    device: &dyn Device,
    old: &Superblock,
    new: &Superblock,
) -> Result<(), Error> {
    const HEAD: usize = SECTOR_BYTES as usize;
    let (old, new) = (old.encode(), new.encode());
    if old[HEAD..] != new[HEAD..] {
        let mut between = new;
        between[..HEAD].copy_from_slice(&old[..HEAD]);
        device.write_at(OFFSET, &between)?;
        device.flush()?;
    }
    write(device, &new)
}

/// Writes a superblock where there is none, durably.
pub(crate) fn write(device: &dyn Device, bytes: &[u8; BYTES]) -> Result<(), Error> {
    let mut buffer = device.buffer(BYTES);
    buffer.copy_from_slice(bytes);
    device.perform(Request::write(OFFSET, buffer).durable()).map(drop)
}
