//! Gens that advance without waiting to become durable: the short way of unused buckets, and
//! freed index nodes. `ahead.rs` keeps what is durable for them.

use crate::allocator::Allocator;
use crate::bucket_ref::BucketRef;
use crate::device::Device;
use crate::prio_block::Bump;
use tierce_core::Reserve;

/// What became of a bucket that its owner says nothing points into.
///
/// ```
/// use tierce_lockfree::Unused;
/// assert_ne!(Unused::Released(None), Unused::Refused);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unused {
    /// It is on this free list, with a new gen; `None`: as soon as a list has room and its
    /// discard, if the set discards, is done.
    Released(Option<Reserve>),
    /// It stays where it is and takes the normal way, through invalidation and a prio write: it
    /// is pinned, dirty, metadata, too far ahead of the last collection, or has moved since the
    /// last prio write; the pointer is stale, the device out of use, or marks are not valid.
    Refused,
}

impl Allocator {
    /// The short way for a bucket into which no *durable* record points, or where the record that
    /// replaced it is durable and outlives the bucket's old gen: its gen advances in memory and
    /// it is free at once, without a prio write. Possible once per prio write; after a crash
    /// its pointers are ahead of the durable gen, and
    /// [`Startup::observe`](crate::Startup::observe) raises it again.
    ///
    /// That no key in *memory* points into it is not enough: an overwritten key may still be the
    /// durable one.
    ///
    /// Takes a short lock that only the owner of the index and the reclaimer take.
    ///
    /// ```
    /// # use tierce_core::{Geometry, Reserve};
    /// # use tierce_lockfree::{Allocator, Config, DeviceTable, Unused};
    /// # let geometry = Geometry::new(1024, 1, 128, 1)?;
    /// # let config = Config::default().sync(false);
    /// # let (allocator, mut reclaimers) =
    /// #     Allocator::start(config, vec![DeviceTable::empty(geometry)])?.finish();
    /// # let _ = reclaimers[0].step();
    /// let bucket = allocator.try_alloc(Reserve::None)?.expect("the reclaimer ran");
    /// let pointer = bucket.bucket_ref();
    /// bucket.written(); // but its key was never inserted anywhere
    /// assert!(matches!(allocator.unused(pointer), Unused::Released(_)));
    /// assert!(allocator.pin(pointer).is_none(), "every pointer to it is stale");
    /// # Ok::<(), tierce_lockfree::Error>(())
    /// ```
    pub fn unused(&self, pointer: BucketRef) -> Unused {
        if self.table_of(pointer).is_none() {
            return Unused::Refused;
        }
        let device = &self.devices()[pointer.device().as_usize()];
        let advanced = {
            // A collection in place waits for this lock before it clears anything. Not held while
            // the bucket is released: whoever is woken may come here.
            let _pass = device.pass.lock();
            let may = self.gc_state().marks_valid() && device.check().is_ok();
            may.then(|| self.advance_unused(device, pointer)).flatten()
        };
        let Some(gc_gen) = advanced else { return Unused::Refused };
        self.gc_state().note_gc_gen(gc_gen);
        if self.config().discard {
            device.discard_later(pointer.bucket());
            return Unused::Released(None);
        }
        match device.release(pointer.bucket()) {
            Ok(reserve) => Unused::Released(Some(reserve)),
            Err(bucket) => {
                device.keep(bucket);
                Unused::Released(None)
            }
        }
    }

    /// Returns gen − last_gc afterwards.
    fn advance_unused(&self, device: &Device, pointer: BucketRef) -> Option<u8> {
        let (bucket, gen_) = (pointer.bucket(), pointer.gen_());
        let mut ahead = device.ahead.lock();
        let durable = ahead.durable_gen(bucket, gen_);
        let after = device.table().unused(bucket, gen_, durable)?;
        if self.config().sync {
            ahead.advance(bucket, gen_);
        }
        Some(after.gc_gen())
    }

    pub(crate) fn bump_gen(&self, pointer: BucketRef) -> Bump {
        if self.table_of(pointer).is_none() {
            return Bump::Stale;
        }
        let device = &self.devices()[pointer.device().as_usize()];
        let (bucket, gen_) = (pointer.bucket(), pointer.gen_());
        let mut ahead = device.ahead.lock();
        let durable = ahead.durable_gen(bucket, gen_);
        match device.table().bump_gen(bucket, gen_, durable) {
            Ok(after) => {
                if self.config().sync {
                    ahead.advance(bucket, gen_);
                }
                drop(ahead);
                self.gc_state().note_gc_gen(after.gc_gen());
                self.ring_if_gc_due();
                Bump::Bumped(after.gen_())
            }
            Err(word) if word.gen_() == gen_ => {
                drop(ahead);
                self.gc_state().need_after(self.gc_state().finished());
                Bump::MustGc
            }
            Err(_) => Bump::Stale,
        }
    }
}
