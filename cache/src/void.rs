//! A device that failed and comes back at the next start has missed what went on without it.
//!
//! # Problem
//!
//! While a device is out of use, newer values of its keys are stored on other devices, and reused
//! there in their turn. What would keep the older ones from coming back ([`crate::lineage`]) cannot
//! be written to the device that failed.
//!
//! # Protocol
//!
//! Before anything goes on without it, the devices that are left say durably that it is *void*: none
//! of its lives up to a number counts any more. As its records will not come back, whatever they
//! took the place of becomes dead just before, as if its buckets were reused. They say it in one
//! sector behind their superblock, in bucket 0, which is never allocated. A restart asks all of
//! them.
//!
//! The same sector says which devices the cache is made of ([`crate::members`]).

use crate::layout::{SECTOR, checksum};
use crate::members::{Members, Uuid};
use tierce_core::geometry::MAX_DEVICES;
use tierce_io::{Device, DeviceExt, Error};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Where the sector is, in bytes: behind the superblock.
const OFFSET: u64 = 8192;
/// Buckets of at least so many bytes have room for it in bucket 0.
pub(crate) const BUCKET_BYTES_MIN: u32 = 16 << 10;
const MAGIC: u64 = 0x3264_766f_6863_7274; // "trchovd2"
const SLOTS: usize = MAX_DEVICES as usize;

/// Devices whose lives up to a number do not count, and those that the cache is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Void {
    devices: Vec<(Uuid, u64)>,
    pub(crate) members: Members,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    checksum: U64,
    magic: U64,
    count: U32,
    unused: U32,
    devices: [RawDevice; SLOTS],
    run: U64,
    members: U32,
    unused_too: U32,
    uuids: [[u8; 16]; SLOTS],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Clone, Copy)]
#[repr(C)]
struct RawDevice {
    uuid: [u8; 16],
    upto: U64,
}
const _: () = assert!(size_of::<Raw>() <= SECTOR);

impl Void {
    /// Whether a life of that device does not count.
    pub(crate) fn contains(&self, uuid: Uuid, life: u64) -> bool {
        self.devices.iter().any(|&(device, upto)| device == uuid && life <= upto)
    }

    /// The lives of that device up to `upto` do not count. False if that was known.
    pub(crate) fn insert(&mut self, uuid: Uuid, upto: u64) -> bool {
        if let Some(known) = self.devices.iter_mut().find(|(device, _)| *device == uuid) {
            let newer = known.1 < upto;
            known.1 = known.1.max(upto);
            return newer;
        }
        self.devices.push((uuid, upto));
        // Of more devices than a cache has, the oldest is not one of its devices any more.
        if self.devices.len() > SLOTS {
            let oldest = self.devices.iter().enumerate().min_by_key(|(_, (_, upto))| *upto);
            let oldest = oldest.map_or(0, |(at, _)| at);
            self.devices.swap_remove(oldest);
        }
        true
    }

    /// What `other` says of devices that do not count, too.
    pub(crate) fn merge(&mut self, other: &Self) {
        for &(uuid, upto) in &other.devices {
            self.insert(uuid, upto);
        }
    }

    /// What `device` says; nothing if it never had to say anything.
    pub(crate) fn read(device: &dyn Device) -> Result<Self, Error> {
        let block = device.capabilities().logical_block as usize;
        let bytes = device.read_at(OFFSET, block.max(SECTOR))?;
        let Ok((raw, _)) = Raw::ref_from_prefix(&bytes) else { return Ok(Self::default()) };
        let (count, members) = (raw.count.get() as usize, raw.members.get() as usize);
        let valid = raw.magic.get() == MAGIC
            && raw.checksum == checksum(0, &raw.as_bytes()[8..])
            && count.max(members) <= SLOTS;
        if !valid {
            return Ok(Self::default());
        }
        let devices = raw.devices[..count].iter();
        let devices = devices.map(|device| (device.uuid, device.upto.get())).collect();
        let members = Members { run: raw.run.get(), uuids: raw.uuids[..members].to_vec() };
        Ok(Self { devices, members })
    }

    /// Has `device` say this, durably.
    pub(crate) fn write(&self, device: &dyn Device) -> Result<(), Error> {
        let mut raw = Raw {
            checksum: U64::ZERO,
            magic: U64::new(MAGIC),
            count: U32::new(self.devices.len() as u32),
            unused: U32::ZERO,
            devices: [RawDevice { uuid: [0; 16], upto: U64::ZERO }; SLOTS],
            run: U64::new(self.members.run),
            members: U32::new(self.members.uuids.len() as u32),
            unused_too: U32::ZERO,
            uuids: [[0; 16]; SLOTS],
        };
        for (out, &(uuid, upto)) in raw.devices.iter_mut().zip(&self.devices) {
            *out = RawDevice { uuid, upto: U64::new(upto) };
        }
        raw.uuids[..self.members.uuids.len()].copy_from_slice(&self.members.uuids);
        raw.checksum = checksum(0, &raw.as_bytes()[8..]);
        let block = device.capabilities().logical_block as usize;
        let mut bytes = vec![0; block.max(SECTOR)];
        bytes[..size_of::<Raw>()].copy_from_slice(raw.as_bytes());
        device.write_at(OFFSET, &bytes)?;
        device.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tierce_io::{Sim, SimOptions};

    #[test]
    fn what_was_said_is_found() {
        let sim = Sim::new(&SimOptions::default());
        assert_eq!(Void::read(&*sim).expect("readable"), Void::default());
        let mut void = Void::default();
        for n in 0..10 {
            assert!(void.insert([n; 16], 100 + u64::from(n)));
        }
        assert!(!void.insert([5; 16], 105) && void.insert([5; 16], 106));
        void.members = Members { run: 1 << 50, uuids: vec![[1; 16], [2; 16]] };
        void.write(&*sim).expect("writable");
        let found = Void::read(&*sim.power_loss()).expect("readable");
        assert_eq!(found, void);
        assert!(found.contains([5; 16], 106) && !found.contains([5; 16], 107));
        assert!(!found.contains([0; 16], 1), "the oldest of ten made room");
    }
}
