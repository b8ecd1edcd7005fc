//! Room for tables with an entry per bucket.
//!
//! A table of many millions of entries is touched page by page when it is filled, and each first
//! touch of a page of 4 KiB costs more than filling it. The kernel is told that pages of 2 MiB
//! will do: it decides, and where it has none everything works as before.

/// Smaller tables are not worth it, in bytes.
const WORTH_IT: usize = 4 << 20;

/// An empty list with room for `count` entries.
pub(crate) fn room_for<T>(count: usize) -> Vec<T> {
    let list = Vec::with_capacity(count);
    if count.saturating_mul(size_of::<T>()) >= WORTH_IT {
        advise(&list);
    }
    list
}

#[cfg(all(target_os = "linux", not(miri)))]
fn advise<T>(list: &Vec<T>) {
    use rustix::mm::{Advice, madvise};
    /// The advice is about whole pages; the largest there are on any machine.
    const PAGE: usize = 64 << 10;
    let skipped = list.as_ptr().align_offset(PAGE);
    let start = list.as_ptr().wrapping_add(skipped);
    let bytes = list.capacity().saturating_sub(skipped) * size_of::<T>() / PAGE * PAGE;
    // SAFETY: the range lies in the list's allocation, and the advice changes no content.
    let advised = unsafe { madvise(start.cast_mut().cast(), bytes, Advice::LinuxHugepage) };
    // A kernel without huge pages refuses; nothing depends on it.
    let _ = advised;
}

#[cfg(not(all(target_os = "linux", not(miri))))]
fn advise<T>(_: &Vec<T>) {}

#[cfg(test)]
mod tests {
    use super::room_for;

    #[test]
    fn any_size_has_room() {
        for count in [0, 1, 100, 3 << 20, (5 << 20) + 7] {
            let mut list = room_for::<(u16, u8)>(count);
            assert!(list.capacity() >= count && list.is_empty());
            list.resize(count, (7, 8));
            assert!(list.iter().all(|&entry| entry == (7, 8)));
        }
    }
}
