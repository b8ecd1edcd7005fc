//! Which of the per-CPU places a thread should try first.
//!
//! Cells, counters and hint tables come in as many copies as there are CPUs. The number given
//! here is a *hint*: any thread may use any copy, a thread that moves to another CPU or shares
//! its number with another is slower, never wrong. Nobody owns a copy, so nothing is stranded
//! when a thread ends or a CPU goes away.
//!
//! # Where it comes from
//!
//! Chosen once, when it is first needed, the best that there is:
//!
//! | source | cost | where |
//! |---|---|---|
//! | [`Rseq`](CpuHint::Rseq) | one load | the kernel keeps the CPU's number in an area that glibc registers for every thread |
//! | [`Getcpu`](CpuHint::Getcpu) | 2 to 8 ns | other Linux: a function that the kernel maps into every process |
//! | [`ThreadSlot`](CpuHint::ThreadSlot) | one load of a thread-local | other systems, Miri, valgrind, the model checker: a number that a thread draws on first use and keeps |
//!
//! What is one instruction of assembly, or a call of C, is in `hint/cpu.rs`.

#[cfg(all(target_os = "linux", not(miri), not(tierce_loom), not(tierce_shuttle)))]
mod cpu;

#[cfg(all(target_os = "linux", not(miri), not(tierce_loom), not(tierce_shuttle)))]
use cpu::{find, number_by};

use crate::sync::{AtomicUsize, Ordering, execution_static, thread_local};

/// By what threads find the copy of per-CPU data that is theirs: locality, never safety.
///
/// ```
/// use tierce_lockfree::{Config, CpuHint};
/// let hint: CpuHint = Config::default().cpu_hint();
/// assert!(matches!(hint, CpuHint::Rseq | CpuHint::Getcpu | CpuHint::ThreadSlot));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum CpuHint {
    /// The CPU's number, out of the thread's restartable-sequence area.
    Rseq,
    /// The CPU's number, from the kernel's `getcpu` without a system call.
    Getcpu,
    /// A number of the thread's own.
    ThreadSlot,
}

impl CpuHint {
    /// What this process uses.
    pub(crate) fn chosen() -> Self {
        source().hint()
    }
}

/// A source, with what it takes to ask it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    /// The number is a `u32` this many bytes from where the thread pointer points.
    #[cfg_attr(
        not(all(target_os = "linux", not(miri), not(tierce_loom), not(tierce_shuttle))),
        expect(dead_code, reason = "only Linux has it")
    )]
    Rseq(isize),
    #[cfg_attr(
        not(all(target_os = "linux", not(miri), not(tierce_loom), not(tierce_shuttle))),
        expect(dead_code, reason = "only Linux has it")
    )]
    Getcpu,
    ThreadSlot,
}

impl Source {
    const fn hint(self) -> CpuHint {
        match self {
            Self::Rseq(_) => CpuHint::Rseq,
            Self::Getcpu => CpuHint::Getcpu,
            Self::ThreadSlot => CpuHint::ThreadSlot,
        }
    }
}

/// This thread's place among `copies` copies.
#[inline]
pub(crate) fn place(copies: usize) -> usize {
    if copies <= 1 {
        return 0;
    }
    let number = number();
    // CPUs are numbered from 0, so that the first test mostly suffices.
    if number < copies { number } else { number % copies }
}

#[cfg(not(all(target_os = "linux", not(miri), not(tierce_loom), not(tierce_shuttle))))]
use elsewhere::{number, source};

#[cfg(all(target_os = "linux", not(miri), not(tierce_loom), not(tierce_shuttle)))]
use linux::{number, source};

/// What restartable sections need, see `section/x86.rs`.
#[cfg(all(
    target_arch = "x86_64",
    target_os = "linux",
    target_env = "gnu",
    target_pointer_width = "64",
    not(target_feature = "crt-static"),
    not(any(miri, tierce_loom, tierce_shuttle, tierce_portable))
))]
pub(crate) use {
    cpu::{configured_cpus, number_in},
    linux::area,
};

#[cfg(all(test, target_os = "linux", not(any(miri, tierce_loom, tierce_shuttle))))]
pub(crate) use cpu::affinity;

/// Where there is nothing to choose.
#[cfg(not(all(target_os = "linux", not(miri), not(tierce_loom), not(tierce_shuttle))))]
mod elsewhere {
    pub(super) fn source() -> super::Source {
        super::Source::ThreadSlot
    }

    pub(super) fn number() -> usize {
        super::thread_slot()
    }
}

/// The choice is kept in one word, so that asking costs one load of what nobody writes.
#[cfg(all(target_os = "linux", not(miri), not(tierce_loom), not(tierce_shuttle)))]
mod linux {
    use super::{AtomicUsize, Ordering, Source, find, number_by, thread_slot};

    /// Not chosen yet. An offset is a multiple of 4, so neither this nor the next two is one.
    const UNKNOWN: usize = 1;
    const GETCPU: usize = 2;
    const THREAD_SLOT: usize = 3;

    static CHOSEN: AtomicUsize = AtomicUsize::new(UNKNOWN);

    fn encode(source: Source) -> usize {
        match source {
            Source::Rseq(offset) => offset.cast_unsigned(),
            Source::Getcpu => GETCPU,
            Source::ThreadSlot => THREAD_SLOT,
        }
    }

    fn decode(word: usize) -> Source {
        match word {
            UNKNOWN => choose(),
            GETCPU => Source::Getcpu,
            THREAD_SLOT => Source::ThreadSlot,
            offset => Source::Rseq(offset.cast_signed()),
        }
    }

    #[cold]
    fn choose() -> Source {
        let source = find();
        // Relaxed: whoever does not see it comes to the same choice.
        CHOSEN.store(encode(source), Ordering::Relaxed);
        source
    }

    #[inline]
    pub(super) fn source() -> Source {
        // Relaxed: the word is all there is.
        decode(CHOSEN.load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn number() -> usize {
        // Relaxed: the word is all there is.
        let chosen = CHOSEN.load(Ordering::Relaxed);
        if chosen.is_multiple_of(4) {
            return number_by(Source::Rseq(chosen.cast_signed()));
        }
        number_elsewhere(chosen)
    }

    #[inline(never)]
    fn number_elsewhere(chosen: usize) -> usize {
        match decode(chosen) {
            Source::ThreadSlot => thread_slot(),
            source => number_by(source),
        }
    }

    /// Where `cpu_id` lies from the thread pointer, if threads have areas.
    #[cfg(all(
        target_arch = "x86_64",
        target_env = "gnu",
        target_pointer_width = "64",
        not(target_feature = "crt-static"),
        not(tierce_portable)
    ))]
    pub(crate) fn area() -> Option<isize> {
        match source() {
            Source::Rseq(offset) => Some(offset),
            Source::Getcpu | Source::ThreadSlot => None,
        }
    }
}

execution_static!(NEXT: AtomicUsize = AtomicUsize::new(0));

thread_local! {
    // Relaxed: the numbers need to differ, nothing is published with them.
    static SLOT: usize = NEXT.fetch_add(1, Ordering::Relaxed);
}

/// The number that this thread drew.
fn thread_slot() -> usize {
    // A thread that is being torn down has lost its number: any place will do.
    SLOT.try_with(|slot| *slot).unwrap_or(0)
}

#[cfg(all(test, not(any(tierce_loom, tierce_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_one_of_the_copies() {
        for copies in [1, 2, 3, 4, 5, 64, 1000] {
            assert!(place(copies) < copies);
        }
    }

    #[test]
    fn a_thread_keeps_its_slot() {
        assert_eq!(thread_slot(), thread_slot());
        assert_ne!(thread_slot(), std::thread::spawn(thread_slot).join().expect("no panic"));
    }

    #[test]
    fn the_choice_is_made_once() {
        assert_eq!(source(), source());
        assert_eq!(CpuHint::chosen(), source().hint());
    }
}
