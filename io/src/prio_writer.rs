//! Writing one table of gens and prios: a chain of prio sets.
//!
//! The chain is written last set first, so that each set names its successor; between the sets
//! there is no flush and no waiting but for memory: at most [`SETS_IN_FLIGHT_MAX`] sets are
//! encoded and under way at a time. Nothing refers to the chain yet. It becomes the state of the
//! device by the [journal](crate::journal) entry that names its head, and by the flush before
//! that entry it is durable first.
//!
//! When this returns, with or without an error, nothing of it is under way any more: the chain's
//! buckets are not written behind the back of whoever gets them next.

use crate::completion::Completion;
use crate::device::{Device, Request};
use crate::error::Error;
use std::collections::VecDeque;
use tierce_core::record::{PrioSet, SetMagic};
use tierce_core::{BucketIndex, Gen, Geometry, Prio};

/// Sets that are under way at a time, each of at most 4 MiB.
pub const SETS_IN_FLIGHT_MAX: usize = 8;

/// Writes the chain `chain`, head first, with the number `seq`. `records` is called once per
/// set, the last set first, and appends the records of that set, in order of bucket, to an empty
/// list; set i is about the buckets from `i · prios_per_bucket` on.
///
/// Nothing is flushed.
///
/// ```
/// use tierce_core::{BucketIndex, Gen, Prio};
/// use tierce_io::{FormatOptions, write_prio_chain};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("cache");
/// let options = FormatOptions { size: Some(64 << 20), bucket: 64 << 10, ..Default::default() };
/// let superblock = tierce_io::format(&path, &options)?;
/// let device = tierce_io::open_device(&path, &options.device)?;
/// let (geometry, set) = (superblock.geometry(), superblock.set_magic());
/// let chain = [BucketIndex::new(40)];
/// write_prio_chain(&*device, geometry, set, 1, &chain, |_set, records| {
///     records.extend((0..1024).map(|_| (Prio::FRESH, Gen::new(1))));
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// Whatever the device reports for the first set that fails.
///
/// # Panics
///
/// If `chain` has another length than [`Geometry::prio_buckets`], or names a bucket outside the
/// device: it comes from the allocator, which would be broken.
pub fn write_prio_chain(
    device: &dyn Device,
    geometry: &Geometry,
    set: SetMagic,
    seq: u64,
    chain: &[BucketIndex],
    mut records: impl FnMut(usize, &mut Vec<(Prio, Gen)>),
) -> Result<(), Error> {
    assert_eq!(chain.len(), geometry.prio_buckets() as usize, "a chain has a bucket per set");
    assert!(chain.iter().all(|&b| geometry.contains(b)), "a chain lies in the device: {chain:?}");
    let mut flights = Flights::default();
    let mut list = Vec::new();
    // The last set names nothing.
    let mut next = 0;
    for (index, &bucket) in chain.iter().enumerate().rev() {
        flights.make_room(SETS_IN_FLIGHT_MAX - 1);
        if flights.error.is_some() {
            break;
        }
        list.clear();
        records(index, &mut list);
        let mut buffer = device.buffer(geometry.meta_bytes() as usize);
        PrioSet::encode(&mut buffer, set, seq, next, list.iter().copied());
        let offset = u64::from(bucket.get()) * u64::from(geometry.bucket_bytes());
        flights.under_way.push_back(device.submit(Request::write(offset, buffer)));
        next = bucket.get().into();
    }
    flights.make_room(0);
    flights.error.map_or(Ok(()), Err)
}

/// Writes under way, and the first error of those that are not any more.
#[derive(Default)]
struct Flights {
    under_way: VecDeque<Completion>,
    error: Option<Error>,
}

impl Flights {
    /// Waits until at most `most` are under way.
    fn make_room(&mut self, most: usize) {
        while self.under_way.len() > most {
            let Some(oldest) = self.under_way.pop_front() else { return };
            if let Err(error) = oldest.wait() {
                self.error.get_or_insert(error);
            }
        }
    }
}
