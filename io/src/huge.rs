//! Large pages under large memory.
//!
//! The first touch of a small page costs more than filling it. So the kernel is told that pages
//! of 2 MiB will do. Where it has none, everything works as before.

use std::ptr::NonNull;

/// The size of a large page, to which memory has to be aligned to lie in such pages.
pub(crate) const LARGE: usize = 2 << 20;

/// Asks for large pages under `bytes` bytes from `start` on, which are not touched yet.
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) fn prefer_large(start: NonNull<u8>, bytes: usize) {
    use rustix::mm::{Advice, madvise};
    // SAFETY: the advice does not change what any memory holds, whoever has it; a range that is
    // not mapped is refused.
    let advised = unsafe { madvise(start.as_ptr().cast(), bytes, Advice::LinuxHugepage) };
    // A kernel that does not know it refuses; nothing depends on it.
    let _ = advised;
}

/// There is nobody to ask.
#[cfg(not(all(target_os = "linux", not(miri))))]
pub(crate) fn prefer_large(_: NonNull<u8>, _: usize) {}
