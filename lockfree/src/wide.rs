//! Loops over a large table, compiled twice: once for every processor, and once for those of x86
//! that have vectors of 256 bits (AVX2), which then make half as many instructions of them.
#![cfg_attr(
    all(target_arch = "x86_64", not(any(miri, tierce_loom, tierce_shuttle, tierce_portable))),
    expect(unsafe_code, reason = "a call that needs a processor with AVX2, a hint, and writes")
)]

mod shuffle;

pub(crate) use shuffle::unpacked;

use crate::sync::AtomicU64;
use core::mem::MaybeUninit;

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

/// Words that are made and written together: those of four cache lines.
pub(crate) const BLOCK: usize = 32;

/// `BLOCK` words, aligned as the widest loads want them.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Block(pub(crate) [u64; BLOCK]);

/// Writes them where it will take a while until somebody reads them, without bringing into the
/// caches what was there before: half of what the memory has to do. For memory that is in them it
/// is slower. The thread calls [`end_past_caches`] before anybody else can see the words.
///
/// # Panics
///
/// If `places` do not begin at a multiple of 16 bytes.
#[inline(always)]
#[cfg(all(target_arch = "x86_64", not(any(miri, tierce_loom, tierce_shuttle, tierce_portable))))]
pub(crate) fn write_past_caches(places: &mut [MaybeUninit<AtomicU64>; BLOCK], block: &Block) {
    use core::arch::x86_64::{__m128i, _mm_load_si128, _mm_stream_si128};
    let (to, from) = (places.as_mut_ptr().cast::<__m128i>(), block.0.as_ptr().cast::<__m128i>());
    assert!(to.is_aligned(), "two words have to be written at a time");
    for pair in 0..BLOCK / 2 {
        // SAFETY: two words of the block, which is aligned.
        let words = unsafe { _mm_load_si128(from.wrapping_add(pair)) };
        // SAFETY: two of the places, which are borrowed mutably and were just seen to be aligned.
        // Any bits are an `AtomicU64`.
        unsafe { _mm_stream_si128(to.wrapping_add(pair), words) }
    }
}

/// Orders what [`write_past_caches`] wrote before whatever the thread does next.
#[inline(always)]
#[cfg(all(target_arch = "x86_64", not(any(miri, tierce_loom, tierce_shuttle, tierce_portable))))]
pub(crate) fn end_past_caches() {
    // SAFETY: every x86-64 has it.
    unsafe { core::arch::x86_64::_mm_sfence() }
}

/// Writes them as any other word.
#[inline(always)]
#[cfg(not(all(
    target_arch = "x86_64",
    not(any(miri, tierce_loom, tierce_shuttle, tierce_portable))
)))]
pub(crate) fn write_past_caches(places: &mut [MaybeUninit<AtomicU64>; BLOCK], block: &Block) {
    for (place, &word) in places.iter_mut().zip(&block.0) {
        place.write(AtomicU64::new(word));
    }
}

/// Nothing.
#[inline(always)]
#[cfg(not(all(
    target_arch = "x86_64",
    not(any(miri, tierce_loom, tierce_shuttle, tierce_portable))
)))]
pub(crate) fn end_past_caches() {}
