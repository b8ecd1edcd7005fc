//! A scan with the 256-bit vectors of x86, eight words at a time.
//!
//! There are three kinds of unsafe code: hints, a call that needs a processor with AVX2, and the
//! loads.
//!
//! # Why the loads are sound
//!
//! Other threads change the words meanwhile. A vector load in Rust would be a plain read, and
//! that a data race; eight relaxed loads are none, but no compiler makes vector loads of them.
//! So [`load`] is a block of assembly. To the language such a block does whatever some Rust
//! code could do that has the same effect, and this one has the effect of eight relaxed loads of
//! one `AtomicU64` each, in no particular order:
//!
//! * It reads the 64 bytes of a [`Line`] that is borrowed for as long as it runs, and writes no
//!   memory (`readonly`), no stack (`nostack`), no flags (`preserves_flags`).
//! * Each of its four loads is `VMOVDQA` of 16 bytes at an address that is a multiple of 16.
//!   Intel (Software Developer's Manual, volume 3, "Guaranteed Atomic Operations") and AMD
//!   (Programmer's Manual, volume 2, "Access Atomicity") guarantee that processors with AVX do
//!   each of these at once, in memory of the ordinary, write-back kind. We need less: that no
//!   aligned half of it, one word, is torn.
//! * Two runs of it may be merged into one, or moved (`pure`): as two relaxed loads of the same
//!   word may. What is read is a hint anyway, and every hint is checked by a CAS.
#![expect(unsafe_code, reason = "vector loads of words that others change, see above")]

use super::rank::Estimate;
use crate::words::{LINE, Line};
use core::arch::asm;
use core::arch::x86_64::{
    __m128i, __m256i, _MM_HINT_T0, _MM_HINT_T1, _mm_prefetch, _mm256_and_si256,
    _mm256_castps_si256, _mm256_castsi128_si256, _mm256_castsi256_ps, _mm256_cmpeq_epi32,
    _mm256_cmpgt_epi32, _mm256_inserti128_si256, _mm256_min_epu32, _mm256_movemask_ps,
    _mm256_mullo_epi32, _mm256_set1_epi32, _mm256_setzero_si256, _mm256_shuffle_ps,
    _mm256_srli_epi32, _mm256_sub_epi16, _mm256_sub_epi32,
};
use tierce_core::word::BUSY;

/// How far ahead of a scan memory is asked for, in bytes: processors do so by themselves, but
/// stop at the end of every page.
const FAR: usize = 8192;

/// How far ahead what has come near by then is asked for once more, into the nearest cache.
const NEAR: usize = 1024;

/// Asks for the memory a little behind `line`. Only a hint.
#[inline(always)]
pub(super) fn prefetch_behind(line: &Line) {
    let there = |ahead| core::ptr::from_ref(line).wrapping_byte_add(ahead).cast();
    // SAFETY: a prefetch reads nothing that the program could see and never faults, wherever
    // the pointer leads.
    unsafe { _mm_prefetch::<_MM_HINT_T1>(there(FAR)) }
    // SAFETY: the same.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(there(NEAR)) }
}

/// Asks for the memory of `line`. Only a hint.
#[inline(always)]
pub(super) fn prefetch(line: &Line) {
    // SAFETY: as in `prefetch_behind`.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(core::ptr::from_ref(line).cast()) }
}

/// The same, if it is about to be written: it comes without the other processors' copies, which the
/// write would have to wait for.
#[inline(always)]
pub(super) fn prefetch_to_write(line: &Line) {
    // SAFETY: as in `prefetch_behind`. Processors that do not know this one do nothing.
    unsafe {
        asm!(
            "prefetchw [{line}]",
            line = in(reg) line,
            options(nostack, preserves_flags),
        );
    }
}

/// The processor has AVX2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

impl Avx2 {
    /// If it has.
    pub(super) fn detect() -> Option<Self> {
        std::is_x86_feature_detected!("avx2").then_some(Self(()))
    }

    /// See [`super::scan::portable`].
    pub(super) fn scan(
        self,
        lines: &[Line],
        estimate: Estimate,
        bound: u32,
        found: &mut impl FnMut(usize),
    ) {
        // SAFETY: there is no `Avx2` unless the processor has it.
        unsafe { scan(lines, estimate, bound, found) }
    }
}

/// Lines that are looked at before what passed in them is. Whether something in a line passes
/// nobody can predict, so the loop over a block has no branch that asks; and of those lines in
/// which something does nearly all have one word that does, which is easily predicted.
const BLOCK: usize = 256;

const _: () = assert!(BLOCK <= 1 << 8 && LINE == 8, "a line's number and its bits are 16 bits");

#[target_feature(enable = "avx2")]
fn scan(lines: &[Line], estimate: Estimate, bound: u32, found: &mut impl FnMut(usize)) {
    // The lines in which something passes: number in the block, and a bit for each word.
    let mut hits = [0u16; BLOCK];
    for (number, block) in lines.chunks(BLOCK).enumerate() {
        let mut count = 0;
        for (at, line) in block.iter().enumerate() {
            prefetch_behind(line);
            let below = bits_below(load(line), estimate, bound);
            hits[count % BLOCK] = (at as u16) << 8 | u16::from(below);
            count += usize::from(below != 0);
        }
        for &hit in &hits[..count] {
            let line = number * BLOCK + usize::from(hit >> 8);
            let mut below = hit & 0xff;
            while below != 0 {
                found(line * LINE + below.trailing_zeros() as usize);
                below &= below - 1;
            }
        }
    }
}

/// Words 0, 1, 4, 5 of a line, and words 2, 3, 6, 7.
#[target_feature(enable = "avx2")]
#[inline]
fn load(line: &Line) -> [__m256i; 2] {
    let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
    // SAFETY: all of the line is read, at multiples of 16 bytes as it is aligned to 64; why
    // others may write to it meanwhile is told at the top of this file.
    unsafe {
        asm!(
            "vmovdqa {a}, [{line}]",
            "vmovdqa {b}, [{line} + 16]",
            "vmovdqa {c}, [{line} + 32]",
            "vmovdqa {d}, [{line} + 48]",
            line = in(reg) line,
            a = out(xmm_reg) a,
            b = out(xmm_reg) b,
            c = out(xmm_reg) c,
            d = out(xmm_reg) d,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    let join = |low, high| _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
    [join(a, c), join(b, d)]
}

/// For each of the eight words a bit: whether nothing but its gens could forbid to reuse the
/// bucket, and the estimate of its key is below `bound`. The lower and the upper halves of the
/// words are taken apart first (which puts them in order, too): all fields lie within one half,
/// and keys have 30 bits.
#[target_feature(enable = "avx2")]
#[inline]
fn bits_below([one, other]: [__m256i; 2], estimate: Estimate, bound: u32) -> u8 {
    let (one, other) = (_mm256_castsi256_ps(one), _mm256_castsi256_ps(other));
    let low = _mm256_castps_si256(_mm256_shuffle_ps(one, other, 0b10_00_10_00));
    let high = _mm256_castps_si256(_mm256_shuffle_ps(one, other, 0b11_01_11_01));
    let all = |value: u32| _mm256_set1_epi32(value.cast_signed());

    let epoch = all(u32::from(estimate.epoch) << 16);
    let age = _mm256_srli_epi32(_mm256_sub_epi16(epoch, low), 16);
    let age = _mm256_min_epu32(age, all(estimate.oldest));
    let sectors = _mm256_and_si256(_mm256_srli_epi32(high, 3), all(0x1fff));
    let key = _mm256_mullo_epi32(_mm256_sub_epi32(all(estimate.fresh), age), sectors);

    let busy = _mm256_and_si256(high, all((BUSY >> 32) as u32));
    let idle = _mm256_cmpeq_epi32(busy, _mm256_setzero_si256());
    let below = _mm256_cmpgt_epi32(all(bound), key);
    _mm256_movemask_ps(_mm256_castsi256_ps(_mm256_and_si256(idle, below))) as u8
}
