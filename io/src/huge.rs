//! Room for tables with an entry per bucket.
//!
//! A table of many millions of entries is touched page by page when it is filled, and the first
//! touch of a page costs more than filling it. So the kernel is told that pages of 2 MiB will do,
//! and a thread has it fetch them all while the device is being read. Where it does not, because
//! it has none or no such thread can be had, everything works as before.

/// Smaller tables are not worth it, in bytes.
const WORTH_IT: usize = 4 << 20;

/// An empty list with room for `count` entries.
pub(crate) fn room_for<T>(count: usize) -> Vec<T> {
    let list = Vec::with_capacity(count);
    if count.saturating_mul(size_of::<T>()) >= WORTH_IT {
        pages::fetch(&list);
    }
    list
}

#[cfg(all(target_os = "linux", not(miri)))]
mod pages {
    use rustix::mm::{Advice, madvise};

    /// The advice is about whole pages; the largest there are on any machine.
    const PAGE: usize = 64 << 10;

    pub(super) fn fetch<T>(list: &Vec<T>) {
        let skipped = list.as_ptr().align_offset(PAGE);
        let start = list.as_ptr().wrapping_add(skipped).expose_provenance();
        let bytes = list.capacity().saturating_sub(skipped) * size_of::<T>() / PAGE * PAGE;
        advise(start, bytes, Advice::LinuxHugepage);
        // Not waited for: whoever touches a page before fetches it himself.
        let thread = std::thread::Builder::new().name("tierce-pages".into());
        let _ = thread.spawn(move || advise(start, bytes, Advice::LinuxPopulateWrite));
    }

    fn advise(start: usize, bytes: usize, advice: Advice) {
        let start = std::ptr::with_exposed_provenance_mut(start);
        // SAFETY: neither advice changes what any memory holds, whoever has it by then; a range
        // that is not mapped any more is refused.
        let advised = unsafe { madvise(start, bytes, advice) };
        // A kernel that does not know it refuses; nothing depends on it.
        let _ = advised;
    }
}

#[cfg(not(all(target_os = "linux", not(miri))))]
mod pages {
    pub(super) fn fetch<T>(_: &Vec<T>) {}
}

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
