//! The number of the CPU that this thread runs on, as the kernel tells it.
//!
//! # The restartable-sequence area
//!
//! From 2.35 on glibc registers an area of every thread with the kernel (`struct rseq`), which
//! writes the number of the CPU into it whenever it lets the thread run:
//!
//! ```text
//!  byte  0          4          8                  thread pointer + __rseq_offset = byte 0
//!       ┌──────────┬──────────┬───
//!       │cpu_id_   │cpu_id    │ …                 both u32; cpu_id < 0: not registered
//!       │start     │          │
//!       └──────────┴──────────┴───
//! ```
//!
//! `__rseq_offset` and `__rseq_size` are symbols of glibc; `__rseq_size` is 0 if the kernel
//! refused: an old one, valgrind, or `GLIBC_TUNABLES=glibc.pthread.rseq=0`. They are looked up by
//! name, so that the program starts with a C library that does not have them. The area lives as
//! long as its thread, at the same distance from each thread's pointer.
//!
//! The number is read by one instruction: no compiler has to be told that memory changes behind
//! its back, and nobody holds a reference to it. Reading cannot fail, and whatever is read is
//! reduced to a place that exists.

#![expect(unsafe_code, reason = "one instruction of assembly and calls into the C library")]

use super::Source;

/// Byte of `cpu_id` in the area.
const CPU_ID: isize = 4;

/// The fields that were there from the beginning end here.
const SMALLEST: isize = 20;

/// The best source that works.
pub(super) fn find() -> Source {
    if let Some(offset) = rseq_offset() {
        let source = Source::Rseq(offset);
        if !is_negative(number_by(source)) {
            return source;
        }
    }
    if has_vdso() && !is_negative(getcpu()) { Source::Getcpu } else { Source::ThreadSlot }
}

/// What the kernel and the C library write where there is no number: -1, -2.
const fn is_negative(number: usize) -> bool {
    (number as u32).cast_signed() < 0
}

/// The number that `source`, which is not a thread slot, tells.
#[inline]
pub(super) fn number_by(source: Source) -> usize {
    match source {
        Source::Rseq(offset) => read_at(offset) as usize,
        Source::Getcpu => getcpu(),
        Source::ThreadSlot => 0,
    }
}

/// The number in the area whose `cpu_id` lies so far from the thread pointer: a `u32`, which is
/// negative as an `i32` if the kernel does not know the area.
#[cfg(all(target_arch = "x86_64", target_env = "gnu", not(target_feature = "crt-static")))]
#[cfg_attr(tierce_portable, expect(dead_code, reason = "for sections"))]
#[inline]
pub(crate) fn number_in(offset: isize) -> usize {
    read_at(offset) as usize
}

/// How many CPUs this machine could have, also those on which this process may not run.
#[cfg(all(target_arch = "x86_64", target_env = "gnu", not(target_feature = "crt-static")))]
#[cfg_attr(tierce_portable, expect(dead_code, reason = "for sections"))]
pub(crate) fn configured_cpus() -> usize {
    // SAFETY: asks for a number.
    let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) };
    usize::try_from(cpus).unwrap_or(usize::MAX)
}

/// Where `cpu_id` lies, from the thread pointer.
#[cfg(all(
    target_env = "gnu",
    not(target_feature = "crt-static"),
    any(target_arch = "x86_64", target_arch = "aarch64"),
    target_pointer_width = "64",
))]
fn rseq_offset() -> Option<isize> {
    let symbol = |name: &core::ffi::CStr| {
        // SAFETY: `name` is a C string; looking a name up runs no code of other libraries.
        let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        (!address.is_null()).then_some(address)
    };
    let size = symbol(c"__rseq_size")?.cast::<u32>();
    let offset = symbol(c"__rseq_offset")?.cast::<isize>();
    // SAFETY: `extern const unsigned int __rseq_size`, set before `main` and constant since.
    let size = unsafe { size.read() };
    // SAFETY: `extern const ptrdiff_t __rseq_offset`, set before `main` and constant since.
    let offset = unsafe { offset.read() };
    (size as isize >= SMALLEST && offset % 4 == 0).then_some(offset + CPU_ID)
}

/// Other C libraries do not say where it lies, on other processors nobody has tried.
#[cfg(not(all(
    target_env = "gnu",
    not(target_feature = "crt-static"),
    any(target_arch = "x86_64", target_arch = "aarch64"),
    target_pointer_width = "64",
)))]
fn rseq_offset() -> Option<isize> {
    let _ = (CPU_ID, SMALLEST);
    None
}

/// The word `offset` bytes from where the thread pointer points.
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[inline]
fn read_at(offset: isize) -> u32 {
    let number: u32;
    // SAFETY: `offset` is that of `cpu_id` in the area of every thread, see `rseq_offset`: four
    // readable bytes for as long as the thread runs. `fs` is the thread pointer by the ABI.
    unsafe {
        core::arch::asm!(
            "mov {number:e}, dword ptr fs:[{offset}]",
            number = lateout(reg) number,
            offset = in(reg) offset,
            options(nostack, preserves_flags, pure, readonly),
        );
    }
    number
}

/// The word `offset` bytes from where the thread pointer points.
#[cfg(all(target_arch = "aarch64", target_pointer_width = "64"))]
#[inline]
fn read_at(offset: isize) -> u32 {
    let number: u32;
    // SAFETY: `offset` is that of `cpu_id` in the area of every thread, see `rseq_offset`: four
    // readable bytes for as long as the thread runs. `tpidr_el0` is the thread pointer by the ABI.
    unsafe {
        core::arch::asm!(
            "mrs {pointer}, tpidr_el0",
            "ldr {number:w}, [{pointer}, {offset}]",
            pointer = out(reg) _,
            number = lateout(reg) number,
            offset = in(reg) offset,
            options(nostack, preserves_flags, pure, readonly),
        );
    }
    number
}

/// Never asked: no offset is found there.
#[cfg(not(all(
    any(target_arch = "x86_64", target_arch = "aarch64"),
    target_pointer_width = "64"
)))]
fn read_at(_offset: isize) -> u32 {
    0
}

/// The number by `getcpu`; negative if there is none.
fn getcpu() -> usize {
    // SAFETY: takes nothing and gives a number.
    let number = unsafe { libc::sched_getcpu() };
    number.cast_unsigned() as usize
}

/// Whether the kernel has mapped its functions into this process. Without them (valgrind hides
/// them) `getcpu` is a system call, which costs more than the best hint saves.
fn has_vdso() -> bool {
    // SAFETY: looks up a number in what the kernel gave the process at its start.
    let address = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    address != 0
}

/// Threads that choose their CPU.
#[cfg(test)]
pub(crate) mod affinity {
    use std::time::{Duration, Instant};

    /// How long threads try to make happen what a test is about.
    #[derive(Clone, Copy)]
    pub(crate) struct Trial {
        began: Instant,
        least: Duration,
    }

    impl Trial {
        /// On a machine with many others threads may hardly run: then a test takes longer.
        const MOST: Duration = Duration::from_secs(60);

        /// At least so long.
        pub(crate) fn new(least: Duration) -> Self {
            Self { began: Instant::now(), least }
        }

        /// Whether it was long enough, if that is whether what was wanted has happened.
        pub(crate) fn is_over(self, has_happened: bool) -> bool {
            let took = self.began.elapsed();
            took > if has_happened { self.least } else { Self::MOST }
        }
    }

    /// At most 8 on which this thread may run.
    pub(crate) fn allowed_cpus() -> Vec<usize> {
        let set = affinity();
        // SAFETY: `cpu` is below the number of bits of the set.
        let is_allowed = |&cpu: &usize| unsafe { libc::CPU_ISSET(cpu, &set) };
        (0..libc::CPU_SETSIZE as usize).filter(is_allowed).take(8).collect()
    }

    fn affinity() -> libc::cpu_set_t {
        // SAFETY: a set of bits, for which all zeroes is a value.
        let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
        // SAFETY: writes at most the size given, into a set that is ours.
        let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
        assert_eq!(result, 0);
        set
    }

    /// Runs a test on a thread of its own: wherever it moves, the runner's thread stays as it was.
    pub(crate) fn apart(test: impl FnOnce() + Send) {
        std::thread::scope(|scope| {
            if let Err(panic) = scope.spawn(test).join() {
                std::panic::resume_unwind(panic);
            }
        });
    }

    /// Moves the thread.
    pub(crate) fn run_on(cpu: usize) {
        // SAFETY: as in `affinity`.
        let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
        // SAFETY: `cpu` was found in such a set.
        unsafe { libc::CPU_SET(cpu, &mut set) };
        // SAFETY: reads the size given, from a set that is ours.
        let result = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
        assert_eq!(result, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::affinity::{allowed_cpus, apart, run_on};
    use super::*;
    use std::process::Command;

    /// In which environment the test below runs itself again, and what it must find there.
    const EXPECTED: &str = "TIERCE_EXPECTED_HINT";

    fn name() -> String {
        format!("{:?}", find().hint())
    }

    /// What a thread is told is where it runs: pinned to a CPU it is told that CPU.
    #[test]
    fn the_number_is_that_of_the_cpu() {
        apart(number_is_that_of_the_cpu);
    }

    fn number_is_that_of_the_cpu() {
        for source in [Some(Source::Getcpu), rseq_offset().map(Source::Rseq)] {
            let Some(source) = source.filter(|&source| !is_negative(number_by(source))) else {
                eprintln!("skipped: this system does not have it");
                continue;
            };
            for cpu in allowed_cpus() {
                run_on(cpu);
                assert_eq!(number_by(source), cpu, "{source:?}");
            }
        }
    }

    /// Where the area is not registered the program goes on with the next source.
    #[test]
    fn without_the_area_another_source_is_chosen() {
        if let Ok(expected) = std::env::var(EXPECTED) {
            assert_eq!(name(), expected);
            return;
        }
        let this = "hint::cpu::tests::without_the_area_another_source_is_chosen";
        let program = std::env::current_exe().expect("a test is a program");
        let expected = if has_vdso() { "Getcpu" } else { "ThreadSlot" };
        let output = Command::new(program)
            .args(["--exact", this])
            .env("GLIBC_TUNABLES", "glibc.pthread.rseq=0")
            .env(EXPECTED, expected)
            .output()
            .expect("it starts once more");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
}
