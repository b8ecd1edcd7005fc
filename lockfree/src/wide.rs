//! Loops over a large table, compiled twice: once for every processor, and once for those of x86
//! that have vectors of 256 bits (AVX2), which then make half as many instructions of them.
#![cfg_attr(
    all(target_arch = "x86_64", not(any(miri, tierce_loom, tierce_shuttle, tierce_portable))),
    expect(unsafe_code, reason = "a call that needs a processor with AVX2, and a hint")
)]

/// Work on many words. (A closure would do, if one could say that it is to be inlined.)
pub(crate) trait Wide {
    /// Does it: `#[inline(always)]`, for only what is inlined is compiled twice.
    fn work(self);
}

/// Does `work`, in instructions that this processor has.
#[inline]
#[cfg(all(target_arch = "x86_64", not(any(miri, tierce_loom, tierce_shuttle, tierce_portable))))]
pub(crate) fn wide(work: impl Wide) {
    #[target_feature(enable = "avx2")]
    fn with_avx2(work: impl Wide) {
        work.work();
    }
    if !std::is_x86_feature_detected!("avx2") {
        return work.work();
    }
    // SAFETY: the processor has AVX2.
    unsafe { with_avx2(work) }
}

/// Does `work`.
#[inline(always)]
#[cfg(not(all(
    target_arch = "x86_64",
    not(any(miri, tierce_loom, tierce_shuttle, tierce_portable))
)))]
pub(crate) fn wide(work: impl Wide) {
    work.work();
}

/// Asks for the memory a page behind `place`, for who goes through memory in this direction:
/// processors do so by themselves, but stop at the end of every page. Only a hint.
#[inline(always)]
#[cfg(all(target_arch = "x86_64", not(any(miri, tierce_loom, tierce_shuttle, tierce_portable))))]
pub(crate) fn prefetch_behind<T>(place: &T) {
    use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    let there = core::ptr::from_ref(place).wrapping_byte_add(4096);
    // SAFETY: a prefetch reads nothing that the program could see and never faults, wherever
    // the pointer leads.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(there.cast()) }
}

/// Nothing.
#[inline(always)]
#[cfg(not(all(
    target_arch = "x86_64",
    not(any(miri, tierce_loom, tierce_shuttle, tierce_portable))
)))]
pub(crate) fn prefetch_behind<T>(_place: &T) {}
