//! Counting what a run did.

use std::fmt;

/// Declares the kinds, in the order in which they are printed.
macro_rules! kinds {
    ($($(#[doc = $doc:literal])* $name:ident => $text:literal,)*) => {
        /// Something that a run did or met.
        ///
        /// ```
        /// use tierce_io::explore::Kind;
        /// assert_eq!(Kind::Gc.to_string(), "collections");
        /// ```
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[non_exhaustive]
        pub enum Kind { $($(#[doc = $doc])* $name,)* }

        impl Kind {
            /// All.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }

        impl fmt::Display for Kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(match self { $(Self::$name => $text,)* })
            }
        }
    };
}

kinds! {
    /// Extents written.
    Write => "extents written",
    /// Whole buckets written.
    Fill => "whole buckets written",
    /// Index nodes written.
    Node => "index nodes written",
    /// Entries moved by moving GC.
    Move => "entries moved",
    /// Dirty extents written.
    Dirty => "dirty extents",
    /// Entries read and accepted while running.
    Read => "entries read",
    /// Entries removed from the index.
    Delete => "entries deleted",
    /// Buckets allocated and given back unwritten.
    GiveBack => "buckets given back",
    /// Index nodes freed.
    Free => "buckets freed",
    /// Buckets that became free the short way, without a prio write.
    Unused => "buckets unused",
    /// Index nodes freed while prio writes were held back.
    Replace => "nodes replaced",
    /// Prio writes that waited for who held them back.
    PrioBlocked => "prio writes held back",
    /// Commits of the index.
    Commit => "index commits",
    /// Collections finished.
    Gc => "collections",
    /// Collections abandoned.
    GcAbandoned => "collections abandoned",
    /// Buckets that were invalidated.
    Invalidate => "buckets invalidated",
    /// Tables that became durable.
    PrioWrite => "prio writes",
    /// Buckets discarded.
    Discard => "buckets discarded",
    /// Buckets that start-up invalidated at once.
    StartupFill => "start-up fills",
    /// Power losses of any kind.
    PowerLoss => "power losses",
    /// Cuts while formatting.
    FormatCut => "cut: formatting",
    /// Cuts at the first use of a device.
    FirstUseCut => "cut: first use",
    /// Cuts while a used device was being opened.
    RecoveryCut => "cut: recovery",
    /// Two cuts, and nothing in between but opening.
    TwoCuts => "cut: twice in a row",
    /// Cuts after opening and before the first bucket could be had.
    StartupCut => "cut: start-up",
    /// Cuts in a write of data.
    DataCut => "cut: data write",
    /// Cuts in the flush of the index.
    CommitCut => "cut: index commit",
    /// Cuts in the write of a prio set.
    SetCut => "cut: prio set",
    /// Cuts in the flush before a journal entry.
    JournalFlushCut => "cut: journal flush",
    /// Cuts in the write of a journal entry.
    EntryCut => "cut: journal entry",
    /// Cuts in a discard.
    DiscardCut => "cut: discard",
    /// Operations that were made to fail with the power on.
    Fault => "injected faults met",
    /// Devices that failed for good.
    Failed => "devices failed",
    /// Tables found that were being published when the power went.
    UnacknowledgedTable => "unacknowledged tables found",
    /// Durable pointers that were accepted after a power loss.
    Accepted => "durable pointers accepted",
    /// Durable pointers that were stale after a power loss.
    Stale => "durable pointers stale",
}

/// How often each [`Kind`] was met.
///
/// ```
/// use tierce_io::explore::{Coverage, Kind};
/// let mut sum = Coverage::default();
/// sum.merge(&Coverage::default());
/// assert_eq!(sum.of(Kind::Gc), 0);
/// assert_eq!(sum.missing().count(), Kind::ALL.len());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Coverage([u64; Kind::ALL.len()]);

impl Default for Coverage {
    fn default() -> Self {
        Self([0; Kind::ALL.len()])
    }
}

impl Coverage {
    /// How often this was met.
    #[must_use]
    pub const fn of(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    /// Everything of `other`, too.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }

    /// What was never met.
    pub fn missing(&self) -> impl Iterator<Item = Kind> {
        Kind::ALL.iter().copied().filter(|&kind| self.of(kind) == 0)
    }

    pub(super) const fn add(&mut self, kind: Kind) {
        self.add_many(kind, 1);
    }

    pub(super) const fn add_many(&mut self, kind: Kind, count: u64) {
        self.0[kind as usize] += count;
    }
}

impl fmt::Display for Coverage {
    /// A line per kind.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Kind::ALL.iter().try_for_each(|&kind| writeln!(f, "{kind:<28} {:>10}", self.of(kind)))
    }
}
