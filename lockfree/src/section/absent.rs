//! Where there are no restartable sections.

use crate::sync::AtomicU64;

/// There is none.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Section {}

impl Section {
    /// Never finds one.
    pub(crate) fn find(_rows: usize) -> Option<Self> {
        None
    }

    pub(crate) fn cpu(self) -> usize {
        match self {}
    }

    pub(crate) fn is_registered(self) -> bool {
        match self {}
    }

    pub(crate) fn store(
        self,
        _: &AtomicU64,
        _: u64,
        _: usize,
        _: &AtomicU64,
        _: u64,
        _: u64,
    ) -> bool {
        match self {}
    }

    pub(crate) fn store_in_turn(
        self,
        _: &AtomicU64,
        _: u64,
        _: usize,
        _: &AtomicU64,
        _: u64,
        _: u64,
    ) -> bool {
        match self {}
    }

    pub(crate) fn exchange(self, _: &AtomicU64, _: u64, _: &AtomicU64, _: u64, _: u64) -> bool {
        match self {}
    }

    pub(crate) fn barrier(self) {
        match self {}
    }
}
