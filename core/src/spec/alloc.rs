//! Handing out buckets and taking them back.
//!
//! Everybody takes from `none` first, then from the reserve he asked for, whoever he is: the
//! reserves are for the moment when `none` is empty. What leaves a free list gets its mark and
//! prio here ([`Snapshot::allocate`](crate::Snapshot::allocate)), counts as completely used
//! until a garbage collection knows better, and stays pinned by the 1 it had on the list: that
//! pin is now the caller's.
//!
//! *Most free first* ranks devices by what the caller could be given: the buckets on `none` and
//! on the reserve he asked for. (Ranking by all four lists would send a writer to a device whose
//! `none` is empty, past one that could serve him.)

use super::device::Place;
use super::events::Event;
use super::set::{Pointer, Set};
use crate::bucket::{BucketId, BucketIndex, DeviceIndex};
use crate::error::Error;
use crate::reserve::Reserve;

/// What an allocation, which never waits here, comes to.
///
/// ```
/// use tierce_core::spec::Allocation;
/// assert_eq!(Allocation::Ready(5).ready(), Some(5));
/// assert_eq!(Allocation::<u32>::Empty.ready(), None);
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "what was handed out is pinned until it is returned"]
pub enum Allocation<T = Pointer> {
    /// Here it is.
    Ready(T),
    /// Nothing free for this caller now; the background run may change that.
    Empty,
    /// Too few of the devices work; nothing will change that.
    Failed,
}

impl<T> Allocation<T> {
    /// What was handed out, if anything was.
    #[must_use]
    pub fn ready(self) -> Option<T> {
        match self {
            Self::Ready(t) => Some(t),
            Self::Empty | Self::Failed => None,
        }
    }
}

/// What became of a bucket that its owner says nothing points into.
///
/// ```
/// use tierce_core::spec::Unused;
/// assert_ne!(Unused::Released, Unused::Refused);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unused {
    /// It is free, with a new gen, or will be as soon as a list has room.
    Released,
    /// It stays where it is and takes the normal way, through invalidation and a prio write: it
    /// is pinned, dirty, metadata, not idle, too far ahead, or has moved since the last prio
    /// write; or marks are not valid.
    Refused,
}

impl Set {
    /// One bucket of the device that has most to give, for a user of `reserve`.
    pub fn alloc(&mut self, reserve: Reserve) -> Allocation {
        match self.ranked(reserve).first() {
            Some(&device) => self.alloc_on(device, reserve),
            None => self.count_failure(1),
        }
    }

    /// One bucket of this device for a user of `reserve`: from `none`, else from `reserve`.
    ///
    /// # Panics
    ///
    /// If the set has no such device.
    pub fn alloc_on(&mut self, device: DeviceIndex, reserve: Reserve) -> Allocation {
        if self.devices[device.as_usize()].failed.is_some() {
            self.counters.alloc_fail_failed_total += 1;
            return Allocation::Failed;
        }
        match self.take(device, reserve) {
            Some(pointer) => Allocation::Ready(pointer),
            None => {
                self.counters.alloc_fail_empty_total += 1;
                Allocation::Empty
            }
        }
    }

    /// One bucket from each of `n` different devices: those with most to give, equal ones in
    /// device order; the pointers are listed in device order. All or nothing: a failure changes
    /// nothing but the count of failures.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] if `n` is 0 or more than the set has devices.
    pub fn alloc_set(
        &mut self,
        reserve: Reserve,
        n: usize,
    ) -> Result<Allocation<Vec<Pointer>>, Error> {
        if !(1..=self.devices.len()).contains(&n) {
            let wanted = format!("1 to {}, the devices of the set", self.devices.len());
            return Err(Error::limit("n", n as u64, wanted));
        }
        let mut chosen = self.ranked(reserve);
        if chosen.len() < n {
            return Ok(self.count_failure(n));
        }
        chosen.truncate(n);
        chosen.sort_unstable();
        let pointers = chosen.into_iter().filter_map(|device| self.take(device, reserve)).collect();
        Ok(Allocation::Ready(pointers))
    }

    /// Whether `n` single allocations for a user of `reserve` would succeed now: what
    /// `wait_for(reserve, n)` waits for. Owners ask before they take locks. A bucket with a
    /// foreign pin is on a list, but would be set aside: it does not count.
    #[must_use]
    pub fn can_alloc(&self, reserve: Reserve, n: usize) -> bool {
        let own = (reserve != Reserve::None).then_some(reserve);
        let lists = || [Reserve::None].into_iter().chain(own);
        let live = self.devices.iter().filter(|d| d.failed.is_none());
        let clean = live.flat_map(|d| {
            let buckets = lists().flat_map(|list| d.list(list));
            buckets.filter(|&&b| d.word(b).pin_count() == 1)
        });
        clean.take(n).count() == n
    }

    /// Returns an allocation that was never written: it is free again, with the gen it had, on
    /// the list it came from if that has room.
    /// (What was written has to go the long way, [`free`](Self::free) and invalidation.)
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the bucket is not held by exactly one pin.
    pub fn give_back(&mut self, bucket: BucketId) -> Result<(), Error> {
        let (device, b) = self.locate(bucket)?;
        let word = device.word(b);
        if device.place(b) != Place::Out || word.pin_count() != 1 {
            let found = format!("{:?} with pin {}", device.place(b), word.pin_count());
            return Err(Error::state(
                format!("giving back bucket {bucket}"),
                found,
                "held, with pin 1",
            ));
        }
        device.store(b, word.give_back());
        let offered = device.offer_back(b);
        self.add_available();
        self.listed(bucket, offered);
        Ok(())
    }

    /// The short way for a bucket into which no *durable* record points, or where the record
    /// that replaced it is durable and outlives the bucket's old gen: its gen advances in memory
    /// and it is free at once, without a prio write. Possible once per prio write, while the gen
    /// is the durable one; after a crash its pointers are ahead of the durable gen, and
    /// [`observe`](Self::observe) raises it again.
    ///
    /// That no key in *memory* points into it is not enough: an overwritten key may still be the
    /// durable one.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if there is no such bucket.
    pub fn unused(&mut self, bucket: BucketId) -> Result<Unused, Error> {
        let marks_valid = self.marks_valid;
        let (device, b) = self.locate(bucket)?;
        let durable = device.durable_gen(b);
        let idle = device.place(b) == Place::Out && device.options.geometry.contains(b);
        let live = marks_valid && device.failed.is_none();
        let Some(next) = device.word(b).unused(durable).filter(|_| idle && live) else {
            return Ok(Unused::Refused);
        };
        device.store(b, next);
        self.need_gc = self.need_gc.max(next.gc_gen());
        self.discard(bucket);
        self.make_ready(bucket);
        Ok(Unused::Released)
    }
}

/// The parts.
impl Set {
    /// The working devices that have something for a user of `reserve`, most first, equal ones
    /// in device order.
    pub(super) fn ranked(&mut self, reserve: Reserve) -> Vec<DeviceIndex> {
        let mut ranked = Vec::with_capacity(self.devices.len());
        for device in self.device_indexes() {
            self.set_aside_pinned_fronts(device, reserve);
            let d = &self.devices[device.as_usize()];
            let usable = d.usable(reserve);
            if d.failed.is_none() && usable > 0 {
                ranked.push((core::cmp::Reverse(usable), device));
            }
        }
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, device)| device).collect()
    }

    /// An allocation on `n` devices that cannot be served.
    pub(super) fn count_failure<T>(&mut self, n: usize) -> Allocation<T> {
        if self.devices.iter().filter(|d| d.failed.is_none()).count() < n {
            self.counters.alloc_fail_failed_total += 1;
            return Allocation::Failed;
        }
        self.counters.alloc_fail_empty_total += 1;
        Allocation::Empty
    }

    /// Pops a bucket and makes it the caller's.
    pub(super) fn take(&mut self, device: DeviceIndex, reserve: Reserve) -> Option<Pointer> {
        self.set_aside_pinned_fronts(device, reserve);
        let d = &mut self.devices[device.as_usize()];
        let bucket_sectors = d.units(d.options.geometry.bucket_sectors());
        let (bucket, home) = [Reserve::None, reserve]
            .into_iter()
            .find_map(|list| Some((d.free[list.as_usize()].pop_front()?, list)))?;
        let word = d.word(bucket).allocate(reserve.purpose(), bucket_sectors);
        let word = word.expect("pinned fronts were set aside, so its pin is 1");
        debug_assert!(matches!(d.place(bucket), Place::Free(_)), "it was on a list");
        d.store(bucket, word);
        d.put_in(bucket, Place::Out);
        d.homes[bucket.as_usize()] = home;
        self.available = self.available.saturating_sub(1);
        self.counters.alloc_total[reserve.as_usize()] += 1;
        Some(Pointer::new(BucketId::new(device, bucket), word.gen_()))
    }

    /// Takes buckets with foreign pins off the fronts of the lists a user of `reserve` pops.
    fn set_aside_pinned_fronts(&mut self, device: DeviceIndex, reserve: Reserve) {
        let d = &mut self.devices[device.as_usize()];
        for list in [Reserve::None, reserve] {
            while let Some(&bucket) = d.list(list).front() {
                if d.word(bucket).pin_count() == 1 {
                    break;
                }
                d.free[list.as_usize()].pop_front();
                d.put_in(bucket, Place::SetAside);
                d.set_aside.push(bucket);
                self.counters.foreign_pin_total += 1;
            }
        }
    }

    /// As above wherever in the list they are, so that its length can be relied on.
    pub(super) fn set_aside_all_pinned(&mut self, device: DeviceIndex, list: Reserve) {
        let d = &mut self.devices[device.as_usize()];
        let (clean, pinned): (Vec<_>, Vec<_>) =
            d.list(list).iter().partition(|b| d.word(**b).pin_count() == 1);
        if pinned.is_empty() {
            return;
        }
        d.free[list.as_usize()] = clean.into();
        for bucket in pinned {
            d.put_in(bucket, Place::SetAside);
            d.set_aside.push(bucket);
            self.counters.foreign_pin_total += 1;
        }
    }

    /// Puts a bucket that may be handed out on a free list, or keeps it until one has room.
    pub(super) fn make_ready(&mut self, bucket: BucketId) {
        let offered = self.devices[bucket.device().as_usize()].offer(bucket.bucket());
        self.listed(bucket, offered);
    }

    /// A bucket was put on that list, or must be kept until one has room.
    fn listed(&mut self, bucket: BucketId, reserve: Option<Reserve>) {
        match reserve {
            Some(reserve) => self.event(Event::Released { bucket, reserve }),
            None => {
                let d = &mut self.devices[bucket.device().as_usize()];
                d.put_in(bucket.bucket(), Place::Ready);
                d.ready.push_back(bucket.bucket());
            }
        }
    }

    /// The foreign pin of a bucket that was set aside is gone.
    pub(super) fn return_set_aside(&mut self, bucket: BucketId) {
        let d = &mut self.devices[bucket.device().as_usize()];
        d.set_aside.retain(|&b| b != bucket.bucket());
        self.make_ready(bucket);
    }

    pub(super) fn discard(&mut self, bucket: BucketId) {
        let d = &mut self.devices[bucket.device().as_usize()];
        if d.options.discard {
            d.discards += 1;
            self.event(Event::Discarded { bucket });
        }
    }

    pub(super) fn add_available(&mut self) {
        self.available = (self.available + 1).min(self.nbuckets());
    }

    pub(super) fn id(device: DeviceIndex, bucket: BucketIndex) -> BucketId {
        BucketId::new(device, bucket)
    }
}
