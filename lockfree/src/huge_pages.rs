//! Huge pages under large memory.
//!
//! A pass over a device reads all its words. In pages of 4 KiB it stops every 512 of them:
//! processors do not fetch ahead beyond the end of a page, and each page has to be looked up
//! (in a virtual machine twice). In pages of 2 MiB the same loop took two thirds of the time. And
//! the first touch of a small page costs more than filling it, which buffers feel, too.
//!
//! Many systems give huge pages only to those who ask (`transparent_hugepage/enabled` is
//! `madvise`). To ask is a hint: without Linux, or where it has none, everything is as before.
//! It costs no memory if all of what is asked for is used: only whole huge pages are.
#![cfg_attr(
    all(target_os = "linux", not(miri)),
    expect(unsafe_code, reason = "a call of the C library")
)]

use core::mem::MaybeUninit;

/// Bytes of a huge page where ordinary ones have 4 KiB: memory that is aligned to it and as large
/// can be in huge pages altogether. Where ordinary pages are larger, asking for a multiple of this
/// leads to nothing, or to huge pages of that kind.
pub const HUGE_PAGE: usize = 2 << 20;

/// Asks the system for huge pages in `memory`, before it is written for the first time. A hint:
/// whatever the system makes of it, `memory` is what it was. Only huge pages that lie in it
/// altogether are asked for, so nothing is with less than [`HUGE_PAGE`] bytes. Takes a system
/// call, as long as it takes.
///
/// ```
/// let mut words: Vec<u64> = Vec::with_capacity(1 << 20);
/// tierce_lockfree::huge_pages::ask_for(words.spare_capacity_mut());
/// words.resize(1 << 20, 7);
/// ```
#[cfg(all(target_os = "linux", not(miri)))]
pub fn ask_for<T>(memory: &mut [MaybeUninit<T>]) {
    let range = memory.as_mut_ptr_range();
    let first = range.start.addr().next_multiple_of(HUGE_PAGE);
    let length = range.end.addr().saturating_sub(first) / HUGE_PAGE * HUGE_PAGE;
    if length == 0 {
        return;
    }
    let start = range.start.with_addr(first).cast();
    // SAFETY: the pages lie within `memory`, which is borrowed. This advice changes neither what
    // is in them nor what may be done with them.
    let _hint = unsafe { libc::madvise(start, length, libc::MADV_HUGEPAGE) };
}

/// Asks nobody: there are huge pages on Linux only.
#[cfg(not(all(target_os = "linux", not(miri))))]
pub fn ask_for<T>(_memory: &mut [MaybeUninit<T>]) {}
