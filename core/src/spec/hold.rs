//! What owners and readers do to a bucket they hold or point at: pin, unpin, touch, mark dirty,
//! free, advance the gen; and optimistic reads.

use super::device::Place;
use super::set::{Pointer, Set};
use crate::bucket::{BucketId, Gen};
use crate::error::Error;

/// What became of a request to advance the gen of a metadata bucket that is being freed.
///
/// ```
/// use tierce_core::Gen;
/// use tierce_core::spec::Bump;
/// assert_ne!(Bump::Bumped(Gen::new(1)), Bump::MustGc);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "a node whose gen could not advance stays allocated"]
pub enum Bump {
    /// Done; this is the gen now.
    Bumped(Gen),
    /// The gen has run 96 ahead of the last garbage collection or of the durable gen: one of
    /// these has to come first, and the node stays allocated.
    MustGc,
}

/// A read that holds no pin: begun, not yet validated.
///
/// ```
/// use tierce_core::spec::{DeviceOptions, Options, Set};
/// use tierce_core::{Geometry, Reserve, Sizes};
/// # let g = Geometry::new(1024, 1, 128, 8)?;
/// # let device = DeviceOptions::new(g, Sizes::bcache(&g, 8));
/// # let mut set = Set::new(Options::default(), vec![device])?;
/// # set.start()?;
/// let p = set.alloc(Reserve::Btree).ready().expect("start filled this reserve");
/// let read = set.begin_read(p).expect("the pointer is valid");
/// // … the I/O …
/// assert!(set.validate(read), "nobody reused the bucket meanwhile");
/// # Ok::<(), tierce_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use = "what was read is void until it is validated"]
pub struct Read {
    pointer: Pointer,
    epoch: u64,
}

impl Set {
    /// One more pin, if the pointer is still valid: the bucket is not reused until
    /// [`unpin`](Self::unpin). False if it is not, or has as many pins as it can have
    /// ([`PIN_LIMIT`](crate::word::PIN_LIMIT)).
    #[must_use]
    pub fn pin(&mut self, pointer: Pointer) -> bool {
        let Some((device, b)) = self.target(pointer) else { return false };
        match device.word(b).pin(pointer.gen_) {
            Some(next) => {
                device.store(b, next);
                true
            }
            None => false,
        }
    }

    /// One pin fewer. The last pin of a bucket that is free, invalidated or open is not the
    /// caller's and stays.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the bucket does not exist or has no pin that a caller could hold.
    pub fn unpin(&mut self, bucket: BucketId) -> Result<(), Error> {
        let (device, b) = self.locate(bucket)?;
        let word = device.word(b);
        let place = device.place(b);
        let own = u16::from(!matches!(place, Place::Out | Place::PrioChain));
        if word.pin_count() <= own {
            let found = format!("{place:?} with pin {}", word.pin_count());
            return Err(Error::state(
                format!("unpinning bucket {bucket}"),
                found,
                "a pin to return",
            ));
        }
        let next = word.unpin(1).expect("its pin is at least 1");
        device.store(b, next);
        if place == Place::SetAside && next.pin_count() == 1 {
            self.return_set_aside(bucket);
        }
        Ok(())
    }

    /// What a read hit does: the bucket is fresh again, unless it is already, is metadata, or
    /// was reused. Returns whether anything changed.
    pub fn touch(&mut self, pointer: Pointer) -> bool {
        let Some((device, b)) = self.target(pointer) else { return false };
        let next = device.word(b).touch(pointer.gen_);
        if let Some(next) = next {
            device.store(b, next);
        }
        next.is_some()
    }

    /// The bucket is about to hold the only copy of something; called before the data may be
    /// that, by a holder of a pin. Metadata stays metadata.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the bucket does not exist or is not held.
    pub fn mark_dirty(&mut self, bucket: BucketId) -> Result<(), Error> {
        let (device, b) = self.locate(bucket)?;
        let word = device.word(b);
        if !matches!(device.place(b), Place::Out | Place::Open) || word.pin_count() == 0 {
            let found = format!("{:?} with pin {}", device.place(b), word.pin_count());
            let what = format!("marking bucket {bucket} dirty");
            return Err(Error::state(what, found, "held, with a pin"));
        }
        if let Some(next) = word.dirty() {
            device.store(b, next);
        }
        Ok(())
    }

    /// What the bucket holds is dead: mark none, no live sectors, one more available. The gen
    /// and the pins stay: reuse goes through invalidation. Works on a bucket in any place but
    /// the prio chain, where the mark is all that protects it.
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the bucket does not exist or holds part of the durable table.
    pub fn free(&mut self, bucket: BucketId) -> Result<(), Error> {
        let (device, b) = self.locate(bucket)?;
        if device.place(b) == Place::PrioChain {
            let what = format!("freeing bucket {bucket}");
            return Err(Error::state(what, "in the prio chain", "not in the prio chain"));
        }
        device.store(b, device.word(b).free());
        self.add_available();
        Ok(())
    }

    /// Advances the gen of a metadata bucket that is being freed, so that every pointer to the
    /// node becomes stale at once. The caller holds the prio write back
    /// ([`prio_block`](Self::prio_block)) until what replaces the node is durable: otherwise
    /// the new gen could become durable first, and a crash would leave neither node valid.
    ///
    /// A lag of 96 behind the durable gen is refused like one of 96 ahead of the last garbage
    /// collection; the gen so reaches, and never passes, 96 ahead of either. (While a collection
    /// in place is under way it has forgotten what the last one saw, so that a node freed just
    /// then may come to be 97 ahead. Shadow marks do not forget.)
    ///
    /// # Errors
    ///
    /// [`Error::State`] if the bucket does not exist, or is not with an owner.
    pub fn bump_gen(&mut self, bucket: BucketId) -> Result<Bump, Error> {
        let (device, b) = self.locate(bucket)?;
        if device.place(b) != Place::Out {
            let what = format!("advancing the gen of bucket {bucket}");
            return Err(Error::state(what, format!("{:?}", device.place(b)), "with an owner"));
        }
        let durable = device.durable_gen(b);
        let Some(next) = device.word(b).bump_gen(durable) else { return Ok(Bump::MustGc) };
        device.store(b, next);
        self.need_gc = self.need_gc.max(next.gc_gen());
        Ok(Bump::Bumped(next.gen_()))
    }

    /// Begins a read without a pin; `None` if the pointer is not valid.
    #[must_use]
    pub fn begin_read(&mut self, pointer: Pointer) -> Option<Read> {
        let epoch = self.gc_epoch;
        let (device, b) = self.target(pointer)?;
        (device.word(b).gen_() == pointer.gen_).then_some(Read { pointer, epoch })
    }

    /// Whether what was read is the data of the pointer: the gen is *equal* and fewer than two
    /// garbage collections have published since. A bucket can be reused at most 96 times per
    /// publication, so the equality cannot be that of a gen that wrapped. If not, the read
    /// counts as a miss.
    #[must_use]
    pub fn validate(&mut self, read: Read) -> bool {
        let epochs = self.gc_epoch - read.epoch;
        let same = match self.target(read.pointer) {
            Some((device, b)) => device.word(b).gen_() == read.pointer.gen_,
            None => false,
        };
        let valid = same && epochs < 2;
        self.counters.read_races_total += u64::from(!valid);
        valid
    }
}
