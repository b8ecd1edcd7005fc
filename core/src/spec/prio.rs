//! The prio write: all gens and prios of a device become durable.
//!
//! 1. The gens have advanced in memory.
//! 2. The table that holds them is written into freshly allocated buckets, the last part first:
//!    each part names the next one, so the head of the chain is known last.
//! 3. Flush.
//! 4. A journal entry names the head: now the table is the durable one.
//! 5. Only now the buckets of the old chain are released, and the buckets whose new gens the
//!    table contained go on to the free lists.
//!
//! It allocates from `none`, else from the prio reserve, and never waits for itself: either all
//! its buckets are there or nothing is taken. The new buckets are unpinned as soon as they are
//! written; their mark, metadata, is all that protects them, and every garbage collection renews
//! it.
//!
//! The buckets of the old chain are freed, or, with
//! [`recycle_prio_chain`](super::Options::recycle_prio_chain), refill the prio reserve while it
//! has room. That needs no new gen: nothing but the superseded chain named them.
//!
//! An index owner that advanced the gen of a node whose replacement is not durable yet holds the
//! prio write back ([`Set::prio_block`]).

use super::device::Place;
use super::events::Event;
use super::set::Set;
use crate::bucket::{BucketIndex, DeviceIndex, Prio};
use crate::error::Error;
use crate::reserve::Reserve;

/// What a prio write came to.
///
/// ```
/// use tierce_core::spec::{DeviceOptions, Options, PrioWrite, Set};
/// use tierce_core::{DeviceIndex, Geometry, Sizes};
/// let g = Geometry::new(1024, 1, 128, 8)?;
/// let device = DeviceOptions::new(g, Sizes::bcache(&g, 8));
/// let mut set = Set::new(Options::default(), vec![device])?;
/// assert_eq!(set.prio_write(DeviceIndex::FIRST), PrioWrite::WouldBlock, "no bucket yet");
/// set.start()?;
/// assert_eq!(set.prio_write(DeviceIndex::FIRST), PrioWrite::Written { seq: 1 });
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PrioWrite {
    /// The table is durable.
    Written {
        /// The number of this prio write; the first is 1.
        seq: u64,
    },
    /// `none` and `prio` together hold too few buckets; nothing was taken.
    WouldBlock,
    /// An index owner holds it back.
    Blocked,
    /// The device does not keep its contents, so it has no prio writes.
    NoSync,
    /// The device was taken out.
    Failed,
}

impl Set {
    /// Writes and publishes the table of a device.
    ///
    /// # Panics
    ///
    /// If the set has no such device.
    pub fn prio_write(&mut self, device: DeviceIndex) -> PrioWrite {
        let d = &self.devices[device.as_usize()];
        if d.failed.is_some() {
            return PrioWrite::Failed;
        }
        if !d.options.sync {
            return PrioWrite::NoSync;
        }
        if self.prio_blocked > 0 {
            return PrioWrite::Blocked;
        }
        let wanted = d.options.geometry.prio_buckets();
        self.set_aside_all_pinned(device, Reserve::None);
        self.set_aside_all_pinned(device, Reserve::Prio);
        if self.devices[device.as_usize()].usable(Reserve::Prio) < wanted as usize {
            return PrioWrite::WouldBlock;
        }
        let mut chain = self.write_images(device, wanted);
        chain.reverse();
        let d = &mut self.devices[device.as_usize()];
        for (durable, word) in d.durable.iter_mut().zip(&d.words) {
            *durable = word.gen_();
        }
        let old = core::mem::replace(&mut d.chain, chain);
        d.prio_seq += 1;
        d.write_early = false;
        d.write_partial = false;
        let seq = d.prio_seq;
        for b in old {
            self.release_old_image(device, b);
        }
        self.counters.prio_write_total += 1;
        self.event(Event::PrioWritten { device, seq });
        PrioWrite::Written { seq }
    }

    /// Allocates and writes the parts, the last one first.
    fn write_images(&mut self, device: DeviceIndex, count: u32) -> Vec<BucketIndex> {
        let mut chain = Vec::with_capacity(count as usize);
        for index in (0..count).rev() {
            let pointer = self.take(device, Reserve::Prio).expect("enough were there");
            let b = pointer.bucket.bucket();
            self.event(Event::PrioImage { index, bucket: pointer.bucket });
            let d = &mut self.devices[device.as_usize()];
            d.store(b, d.word(b).with_pin(0));
            d.put_in(b, Place::PrioChain);
            chain.push(b);
        }
        chain
    }

    fn release_old_image(&mut self, device: DeviceIndex, b: BucketIndex) {
        let recycle = self.options.recycle_prio_chain;
        let bucket = Self::id(device, b);
        let d = &mut self.devices[device.as_usize()];
        d.store(b, d.word(b).free());
        d.put_in(b, Place::Out);
        self.add_available();
        self.event(Event::PrioFreed { bucket });
        let d = &mut self.devices[device.as_usize()];
        let has_room = d.list(Reserve::Prio).len() < d.options.sizes.prio as usize;
        if recycle && has_room && d.word(b).pin_count() == 0 {
            let word = d.word(b).with_prio(Prio::FRESH).with_pin(1);
            d.store(b, word);
            d.append(b, Reserve::Prio);
            if let Some(gc) = &mut self.gc {
                // The gen stays, so it cannot say that the bucket was reused since the walk began.
                gc.rewrite_start(bucket, word);
            }
            self.event(Event::Released { bucket, reserve: Reserve::Prio });
        }
    }

    /// Holds all prio writes of the set back until the matching
    /// [`prio_unblock`](Self::prio_unblock). Returns how many do so now.
    pub fn prio_block(&mut self) -> u32 {
        self.prio_blocked += 1;
        self.prio_blocked
    }

    /// What replaces the node is durable. Returns how many still hold prio writes back.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if nobody did.
    pub fn prio_unblock(&mut self) -> Result<u32, Error> {
        match self.prio_blocked.checked_sub(1) {
            Some(left) => self.prio_blocked = left,
            None => return Err(Error::state("prio_unblock", "nobody", "somebody who blocks")),
        }
        Ok(self.prio_blocked)
    }
}
