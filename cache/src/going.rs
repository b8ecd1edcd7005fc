//! Reading what is about to go.
//!
//! A bucket that was chosen to be reused has a new gen at once, but keeps its content until that gen
//! is durable, one batch and one write of all gens later. On a small device that is a twentieth of
//! what it holds, and what [`crate::reinsert`] is about to save. Until then gets find it all the
//! same.
//!
//! # Why that is safe
//!
//! The index leads there, so nobody overwrote or removed the key. The number of the bucket's life
//! stands until the new gen is durable, before anybody can write to the bucket; it is looked at
//! before and after the read, no two lives have the same, and the checksum of every record starts
//! from it.

use crate::engine::Engine;
use tierce_lockfree::{BucketRef, OpenRead, Read};

/// A read that has begun.
#[derive(Clone, Copy, Debug)]
#[must_use = "what is read counts only if the bucket is still there"]
pub(crate) enum Begun<'a> {
    /// Of a bucket that is in use.
    Current(OpenRead<'a>),
    /// Of one whose content is about to go.
    Going,
}

impl Engine {
    /// What a read begins with, before the key is looked up: see `tierce_lockfree::readers`. `None`
    /// while nothing is reused, as the cache is recovering ([`crate::recover`]).
    pub(crate) fn begin_read(&self) -> Option<Read<'_>> {
        self.allocator.get().map(|allocator| allocator.begin_read())
    }

    /// Begins to read `bucket`; `None` if its content is gone.
    pub(crate) fn begin<'a>(&self, read: Option<Read<'a>>, bucket: BucketRef) -> Option<Begun<'a>> {
        match read.and_then(|read| read.open(bucket)) {
            Some(open) => Some(Begun::Current(open)),
            None => self.lives.may_come_back(bucket).then_some(Begun::Going),
        }
    }

    /// Whether what was read of `bucket`, whose life had that number, was there all the time.
    pub(crate) fn was_there(&self, begun: Begun<'_>, bucket: BucketRef, life: u64) -> bool {
        match begun {
            Begun::Current(open) => open.validate(),
            Begun::Going => self.lives.number(bucket) == Some(life),
        }
    }
}
