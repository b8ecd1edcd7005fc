//! What [`super::x86`] offers, for everything else: other processors, and checkers that must see
//! every load.

use super::rank::Estimate;
use crate::words::Line;

/// Nothing.
#[inline(always)]
pub(super) fn prefetch_behind(_line: &Line) {}

/// Nothing.
#[inline(always)]
pub(super) fn prefetch(_line: &Line) {}

/// Nothing.
#[inline(always)]
pub(super) fn prefetch_to_write(_line: &Line) {}

/// There is none.
#[derive(Clone, Copy, Debug)]
pub(super) enum Avx2 {}

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        None
    }

    pub(super) fn scan(
        self,
        _lines: &[Line],
        _estimate: Estimate,
        _bound: u32,
        _passed: &mut impl FnMut(usize),
    ) {
        match self {}
    }
}
