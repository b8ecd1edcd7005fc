//! Records of three bytes, taken apart many at a time: by the shuffles of AVX2 if this processor
//! has them. Loads of three bytes each take longer than the memory of the words does.
#![cfg_attr(
    all(target_arch = "x86_64", not(any(miri, tierce_loom, tierce_shuttle, tierce_portable))),
    expect(unsafe_code, reason = "loads and stores of vectors, and a call that needs AVX2")
)]

use super::BLOCK;
use tierce_core::record::prio_set::Record;

/// Each record as a number, its first byte the lowest.
#[inline(always)]
pub(crate) fn unpacked(records: &[Record; BLOCK]) -> [u32; BLOCK] {
    #[cfg(all(
        target_arch = "x86_64",
        not(any(miri, tierce_loom, tierce_shuttle, tierce_portable))
    ))]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { vectors::unpacked(records) };
    }
    one_by_one(records)
}

fn one_by_one(records: &[Record; BLOCK]) -> [u32; BLOCK] {
    records.map(|[first, second, third]| u32::from_le_bytes([first, second, third, 0]))
}

#[cfg(all(target_arch = "x86_64", not(any(miri, tierce_loom, tierce_shuttle, tierce_portable))))]
mod vectors {
    use super::{BLOCK, Record};
    use core::arch::x86_64::{
        __m128i, _mm_loadu_si128, _mm_setr_epi8, _mm_shuffle_epi8, _mm_storeu_si128,
    };
    use tierce_core::record::prio_set::RECORD_BYTES;

    /// Numbers of a vector.
    const NUMBERS: usize = size_of::<__m128i>() / size_of::<u32>();
    /// Bytes of their records.
    const BYTES: usize = NUMBERS * RECORD_BYTES;
    /// Bytes of a block's records.
    const BLOCK_BYTES: usize = BLOCK * RECORD_BYTES;

    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn unpacked(records: &[Record; BLOCK]) -> [u32; BLOCK] {
        let records = records.as_flattened();
        let order = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
        // The last vector would end behind the records, so it begins four bytes earlier.
        let last = _mm_setr_epi8(4, 5, 6, -1, 7, 8, 9, -1, 10, 11, 12, -1, 13, 14, 15, -1);
        let mut numbers = [0; BLOCK];
        for (vector, place) in numbers.as_chunks_mut::<NUMBERS>().0.iter_mut().enumerate() {
            let start = vector * BYTES;
            let end = BLOCK_BYTES - size_of::<__m128i>();
            let bytes = load(&records[start.min(end)..]);
            let order = if start <= end { order } else { last };
            let four = _mm_shuffle_epi8(bytes, order);
            // SAFETY: as many bytes as are stored, of any alignment.
            unsafe { _mm_storeu_si128(place.as_mut_ptr().cast(), four) }
        }
        numbers
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(bytes: &[u8]) -> __m128i {
        let bytes: &[u8; size_of::<__m128i>()] = bytes.first_chunk().expect("there are as many");
        // SAFETY: as many bytes as are loaded, of any alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_at_a_time_are_one_by_one() {
        let mut bytes = (0..=u8::MAX).cycle();
        let mut byte = || bytes.next().unwrap_or(0);
        for _ in 0..100 {
            let records = [(); BLOCK].map(|()| [byte(), byte(), byte()]);
            assert_eq!(unpacked(&records), one_by_one(&records));
            byte();
        }
    }
}
