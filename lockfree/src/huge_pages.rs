//! Huge pages for the tables.
//!
//! A pass over a device reads all its words. In pages of 4 KiB it stops every 512 of them:
//! processors do not fetch ahead beyond the end of a page, and each page has to be looked up
//! (in a virtual machine twice). In pages of 2 MiB the same loop took two thirds of the time.
//!
//! Many systems give huge pages only to those who ask (`transparent_hugepage/enabled` is
//! `madvise`). To ask is a hint: without Linux, or where it has none, everything is as before.
//! It costs no memory: only whole huge pages of the table are asked for, and every word of a
//! table is written when it is made.
#![cfg_attr(
    all(target_os = "linux", not(miri)),
    expect(unsafe_code, reason = "a call of the C library")
)]

use core::mem::MaybeUninit;

/// What a huge page has where ordinary ones have 4 KiB. Where they have more, asking for a
/// multiple of this leads to nothing, or to huge pages of that kind.
#[cfg(all(target_os = "linux", not(miri)))]
const HUGE: usize = 2 << 20;

/// Asks for huge pages in `memory`, before it is written for the first time.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) fn ask_for<T>(memory: &mut [MaybeUninit<T>]) {
    let range = memory.as_mut_ptr_range();
    let first = range.start.addr().next_multiple_of(HUGE);
    let length = range.end.addr().saturating_sub(first) / HUGE * HUGE;
    if length == 0 {
        return;
    }
    let start = range.start.with_addr(first).cast();
    // SAFETY: the pages lie within `memory`, which is borrowed. This advice changes neither what
    // is in them nor what may be done with them.
    let _hint = unsafe { libc::madvise(start, length, libc::MADV_HUGEPAGE) };
}

/// There are none to ask for.
#[cfg(not(all(target_os = "linux", not(miri))))]
pub(crate) fn ask_for<T>(_memory: &mut [MaybeUninit<T>]) {}
