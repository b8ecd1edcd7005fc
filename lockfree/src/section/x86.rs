//! Restartable sections of x86-64 Linux.
//!
//! # The kernel's side
//!
//! By the manual of glibc ("Restartable Sequences"), rseq(2), membarrier(2), and `linux/rseq.h`,
//! the header in which the kernel documents what it promises:
//!
//! ```text
//!  the thread's area, at thread pointer + __rseq_offset; `hint/cpu.rs` finds it
//!  byte  0              4          8                16
//!       ┌──────────────┬──────────┬────────────────┬───
//!       │ cpu_id_start │ cpu_id   │ rseq_cs        │ …
//!       └──────────────┴──────────┴───────┬────────┴───
//!                                         ▼ 0, or a descriptor, aligned to 32 bytes
//!       ┌─────────┬─────────┬──────────┬───────────────────────────┬──────────┐
//!       │version 0│ flags 0 │ start    │ length: from start to the │ abort    │
//!       │ u32     │ u32     │ u64      │ end of the last, u64      │ u64      │
//!       └─────────┴─────────┴──────────┴───────────────────────────┴──────────┘
//! ```
//!
//! When the kernel lets a thread run again that it had preempted, moved, or sends a signal to, it
//! looks at `rseq_cs`. If the thread was to go on within the descriptor's range it goes on at
//! *abort* instead; if not, `rseq_cs` is cleared. The four bytes before *abort* must be
//! the signature with which glibc registered the area. `cpu_id` is written before the thread goes on.
//!
//! `membarrier(PRIVATE_EXPEDITED_RSEQ)` (Linux 5.10) does that to all threads of the process that
//! run at that time, on all CPUs, before it returns. Those that do not run have been preempted.
//!
//! # A section
//!
//! 1. Store the address of the descriptor into `rseq_cs`.
//! 2. The range begins: compare `cpu_id`, test the mode word, compare the cell.
//! 3. The last instruction of the range changes the cell, which is the only thing it changes.
//! 4. Clear `rseq_cs`, so that the code can be unloaded later on.
//!
//! Until the last instruction is done the thread can be sent to *abort*, and nothing has happened.
//! After it nobody sends it anywhere. The instruction itself happens or does not. So on one CPU a
//! thread's tests and its change are not interleaved with another's.
//!
//! # Memory ordering
//!
//! To the language a section is what Rust code could do that has the same effect: loads of
//! `AtomicU64`s (Acquire: on x86 every load is), and a store (Release: as every store) or a
//! SeqCst exchange (a locked instruction) to one. None of the blocks says `nomem` or `readonly`:
//! no access moves across.
//!
//! *The barrier's guarantee*: it interrupts all CPUs that run a thread of the process. An
//! interrupt, and the return from it, find the instructions before it done: their stores are
//! visible to who is told that it is over; those after it load what was visible when it was sent.
//! A thread that is in a section at that time restarts. One that does not run has been preempted,
//! which is a full barrier, too (membarrier(2)).
//!
//! # Processes
//!
//! The barrier has to be registered for: [`Section::find`] does, once per process. A child made by
//! fork has the areas and descriptors of its parent; whether it is registered is asked for when the
//! barrier is refused, which is then tried again. A thread of which the kernel knows no area (it was not
//! made by glibc) has a negative number, and no CPU has that.
#![expect(unsafe_code, reason = "instructions that the kernel restarts, see above")]

use crate::hint;
use crate::sync::AtomicU64;
use core::arch::asm;
use std::sync::OnceLock;
use tierce_core::broken;

/// `MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ`.
const BARRIER: libc::c_int = 1 << 7;
/// `MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ`.
const REGISTER: libc::c_int = 1 << 8;

/// What glibc registers the areas with, on x86: `RSEQ_SIG` of `sys/rseq.h`.
const SIGNATURE: u32 = 0x5305_3053;

/// Threads have areas, and the barrier is registered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Section {
    /// Where `cpu_id` lies, from the thread pointer.
    cpu_id: isize,
}

/// The parts that both kinds of sections have in common: the descriptor and what is out of line;
/// arming; the test of the mode word; and the end.
///
/// Labels: 2 descriptor, 3 start, 4 end, 5 abort, 6 in vain, 7 after.
macro_rules! section {
    ([$($commit:literal),+], $($operands:tt)*) => {
        asm!(
            ".pushsection __rseq_cs, \"aw\", @progbits",
            ".balign 32",
            "2:",
            ".long 0, 0",
            ".quad 3f, 4f - 3f, 5f",
            ".popsection",
            ".pushsection .text.unlikely, \"ax\", @progbits",
            ".long {signature}",
            "5:",
            "6:",
            "xor {done:e}, {done:e}",
            "jmp 7f",
            ".popsection",
            "lea {done}, [rip + 2b]",
            "mov qword ptr fs:[{cpu_id} + 4], {done}",
            "3:",
            $($commit,)+
            "7:",
            "mov qword ptr fs:[{cpu_id} + 4], 0",
            signature = const SIGNATURE,
            $($operands)*
        )
    };
}

/// A store of `new` to `cell`, if it holds `old`, the thread runs on `cpu`, and `test` lets the mode
/// word pass, by comparing it with `asked`. Whether it was made.
macro_rules! store {
    ($section:ident, [$($test:literal),+], $modes:ident, $asked:ident, $cpu:ident, $cell:ident,
     $old:ident, $new:ident) => {{
        let done: usize;
        // SAFETY: `modes` and `cell` are borrowed and of the type that is accessed; the area is
        // that of this thread for as long as it lives (`hint/cpu.rs`), `fs` being the thread
        // pointer by the ABI. The block ends where it should, also when the kernel has sent it to
        // label 5: the registers are still what they were, and only `done` has been written.
        // All that it does to memory are atomic accesses, see the top of the file.
        unsafe {
            section!(
                [
                    "cmp dword ptr fs:[{cpu_id}], {cpu:e}",
                    "jne 6b",
                    $($test,)+
                    "cmp qword ptr [{cell}], {old}",
                    "jne 6b",
                    "mov qword ptr [{cell}], {new}",
                    "4:"
                ],
                cpu_id = in(reg) $section.cpu_id,
                cpu = in(reg) $cpu,
                modes = in(reg) $modes.as_ptr(),
                asked = in(reg) $asked,
                cell = in(reg) $cell.as_ptr(),
                old = in(reg) $old,
                new = in(reg) $new,
                done = out(reg) done,
                options(nostack),
            );
        }
        done != 0
    }};
}

impl Section {
    /// If this system has sections, and each CPU that it could have has one of `rows` rows.
    pub(crate) fn find(rows: usize) -> Option<Self> {
        static FOUND: OnceLock<Option<Section>> = OnceLock::new();
        let register = || {
            let cpu_id = hint::area()?;
            membarrier(REGISTER).is_ok().then_some(Self { cpu_id })
        };
        (*FOUND.get_or_init(register)).filter(|_| rows >= hint::configured_cpus())
    }

    /// The number of the CPU that the thread runs on.
    #[inline]
    pub(crate) fn cpu(self) -> usize {
        hint::number_in(self.cpu_id)
    }

    /// Whether the kernel knows this thread's area.
    pub(crate) fn is_registered(self) -> bool {
        (self.cpu() as u32).cast_signed() >= 0
    }

    /// Makes `old` in `cell` to `new` by a store (Release), if the thread runs on `cpu` and
    /// `modes` has the bit `mode`. `false` if not, or if it was interrupted.
    #[inline]
    pub(crate) fn store(
        self,
        modes: &AtomicU64,
        mode: u64,
        cpu: usize,
        cell: &AtomicU64,
        old: u64,
        new: u64,
    ) -> bool {
        store!(
            self,
            ["test qword ptr [{modes}], {asked}", "jz 6b"],
            modes,
            mode,
            cpu,
            cell,
            old,
            new
        )
    }

    /// As [`store`](Self::store), if `modes` is `seen` in all its bits.
    #[inline]
    pub(crate) fn store_in_turn(
        self,
        modes: &AtomicU64,
        seen: u64,
        cpu: usize,
        cell: &AtomicU64,
        old: u64,
        new: u64,
    ) -> bool {
        store!(
            self,
            ["cmp qword ptr [{modes}], {asked}", "jne 6b"],
            modes,
            seen,
            cpu,
            cell,
            old,
            new
        )
    }

    /// Makes `old` in `cell` to `new` by a locked exchange (SeqCst), if `modes` has the bit
    /// `mode`. `false` if not, or if it was interrupted. The thread must be
    /// [registered](Self::is_registered).
    #[inline]
    pub(crate) fn exchange(
        self,
        modes: &AtomicU64,
        mode: u64,
        cell: &AtomicU64,
        old: u64,
        new: u64,
    ) -> bool {
        let done: usize;
        // SAFETY: as in `store!`; `rax` is given back as the exchange leaves it.
        unsafe {
            section!(
                [
                    "test qword ptr [{modes}], {mode}",
                    "jz 6b",
                    "lock cmpxchg qword ptr [{cell}], {new}",
                    "4:",
                    "jne 6b"
                ],
                cpu_id = in(reg) self.cpu_id,
                modes = in(reg) modes.as_ptr(),
                mode = in(reg) mode,
                cell = in(reg) cell.as_ptr(),
                new = in(reg) new,
                done = out(reg) done,
                inout("rax") old => _,
                options(nostack),
            );
        }
        done != 0
    }

    /// Restarts all sections of this process and orders what they do, see the top of
    /// `section.rs`. A system call that waits for every CPU that runs a thread of the process.
    ///
    /// # Panics
    ///
    /// If the kernel refuses what it granted before: the process has forbidden itself the call.
    #[cold]
    pub(crate) fn barrier(self) {
        if broken!("barrier_skipped") {
            return;
        }
        // The second time: a child that the kernel does not take for its registered parent.
        let result = membarrier(BARRIER)
            .or_else(|_| membarrier(REGISTER).and_then(|()| membarrier(BARRIER)));
        if let Err(error) = result {
            panic!(
                "membarrier is refused, which this process was registered for: {error}; to forbid \
                 it, switch `Config::restartable` off before"
            );
        }
    }
}

fn membarrier(command: libc::c_int) -> std::io::Result<()> {
    // SAFETY: takes three numbers and touches no memory of the process.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hint::affinity::{Trial, allowed_cpus, apart, run_on};
    use crate::sync::Ordering;

    const MODE: u64 = 1 << 9;

    /// Bound to one CPU, whose number is returned.
    fn bound() -> Option<(Section, usize)> {
        let Some(section) = Section::find(usize::MAX) else {
            eprintln!("skipped: this system has no restartable sequences");
            return None;
        };
        let cpu = *allowed_cpus().first().expect("this thread runs");
        run_on(cpu);
        Some((section, cpu))
    }

    /// Until it is done: it may be interrupted, but not a hundred times in a row.
    fn at_last(attempt: impl Fn() -> bool) -> bool {
        (0..100).any(|_| attempt())
    }

    /// The address of a descriptor that was left behind.
    fn armed(section: Section) -> u64 {
        let descriptor: u64;
        // SAFETY: reads the field behind `cpu_id` of this thread's area.
        unsafe {
            asm!(
                "mov {0}, qword ptr fs:[{1} + 4]",
                out(reg) descriptor,
                in(reg) section.cpu_id,
                options(nostack, readonly),
            );
        }
        descriptor
    }

    #[test]
    fn a_store_happens_if_all_is_as_told() {
        apart(|| {
            let Some((section, cpu)) = bound() else { return };
            let (modes, cell) = (AtomicU64::new(MODE | 1 << 40), AtomicU64::new(7));
            let store = |mode, cpu, old| section.store(&modes, mode, cpu, &cell, old, 8);
            assert!(!at_last(|| store(MODE << 1, cpu, 7)), "another mode");
            assert!(!at_last(|| store(MODE, cpu + 1, 7)), "another CPU");
            assert!(!at_last(|| store(MODE, cpu, 6)), "another word");
            assert_eq!(cell.load(Ordering::Relaxed), 7);
            assert!(at_last(|| store(MODE, cpu, 7)));
            assert_eq!((cell.load(Ordering::Relaxed), armed(section)), (8, 0));
        });
    }

    #[test]
    fn a_store_happens_in_its_turn() {
        apart(|| {
            let Some((section, cpu)) = bound() else { return };
            let (modes, cell) = (AtomicU64::new(MODE | 1 << 40), AtomicU64::new(7));
            let store = |seen, cpu, old| section.store_in_turn(&modes, seen, cpu, &cell, old, 8);
            assert!(!at_last(|| store(MODE, cpu, 7)), "another turn");
            assert!(!at_last(|| store(MODE | 1 << 40, cpu + 1, 7)), "another CPU");
            assert!(!at_last(|| store(MODE | 1 << 40, cpu, 6)), "another word");
            assert_eq!(cell.load(Ordering::Relaxed), 7);
            assert!(at_last(|| store(MODE | 1 << 40, cpu, 7)));
            assert_eq!((cell.load(Ordering::Relaxed), armed(section)), (8, 0));
        });
    }

    #[test]
    fn an_exchange_happens_if_all_is_as_told() {
        apart(|| {
            let Some((section, _)) = bound() else { return };
            let (modes, cell) = (AtomicU64::new(MODE), AtomicU64::new(7));
            let exchange = |mode, old| section.exchange(&modes, mode, &cell, old, 8);
            assert!(!at_last(|| exchange(MODE << 1, 7)), "another mode");
            assert!(!at_last(|| exchange(MODE, 6)), "another word");
            assert_eq!(cell.load(Ordering::Relaxed), 7);
            assert!(at_last(|| exchange(MODE, 7)));
            assert_eq!((cell.load(Ordering::Relaxed), armed(section)), (8, 0));
        });
    }

    /// As [`Section::store`], but it takes `turns` turns of a loop between the tests and the store:
    /// tens of microseconds, in which a thread without sections would go on after whatever came.
    fn store_slowly(
        section: Section,
        modes: &AtomicU64,
        cell: &AtomicU64,
        (old, new): (u64, u64),
        turns: u64,
    ) -> bool {
        let done: usize;
        // SAFETY: as in `Section::store`; the counter is only counted down.
        unsafe {
            section!(
                [
                    "test qword ptr [{modes}], {mode}",
                    "jz 6b",
                    "cmp qword ptr [{cell}], {old}",
                    "jne 6b",
                    "8:",
                    "dec {turns}",
                    "jnz 8b",
                    "mov qword ptr [{cell}], {new}",
                    "4:"
                ],
                cpu_id = in(reg) section.cpu_id,
                modes = in(reg) modes.as_ptr(),
                mode = in(reg) MODE,
                cell = in(reg) cell.as_ptr(),
                old = in(reg) old,
                new = in(reg) new,
                turns = inout(reg) turns => _,
                done = out(reg) done,
                options(nostack),
            );
        }
        done != 0
    }

    /// Whatever was in a section when the barrier came does not store after it.
    #[test]
    fn a_barrier_restarts_sections() {
        apart(|| {
            let cpus = allowed_cpus();
            let Some((section, _)) = bound() else { return };
            let (modes, cell, end) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
            let mut overwritten = 0;
            let stored = std::thread::scope(|scope| {
                let other = scope.spawn(|| {
                    let mut stored = 0;
                    run_on(*cpus.last().expect("there is one"));
                    // Relaxed (all of this test): the barrier is what orders here.
                    while end.load(Ordering::Relaxed) == 0 {
                        let old = cell.load(Ordering::Relaxed);
                        let done = store_slowly(section, &modes, &cell, (old, old + 1), 20_000);
                        stored += u64::from(done);
                    }
                    stored
                });
                let until = std::time::Instant::now() + std::time::Duration::from_secs(1);
                for round in 1..=2000 {
                    if std::time::Instant::now() > until {
                        break;
                    }
                    modes.store(MODE, Ordering::Relaxed);
                    // Until it has just stored once, and is in its next section, if it runs.
                    let before = cell.load(Ordering::Relaxed);
                    while cell.load(Ordering::Relaxed) == before {
                        std::hint::spin_loop();
                    }
                    (0..200).for_each(|_| std::hint::spin_loop());
                    modes.store(0, Ordering::Relaxed);
                    section.barrier();
                    cell.store(round << 32, Ordering::Relaxed);
                    // Longer than a section.
                    (0..1000).for_each(|_| std::hint::spin_loop());
                    overwritten += u64::from(cell.load(Ordering::Relaxed) != round << 32);
                }
                end.store(1, Ordering::Relaxed);
                other.join().expect("no panic")
            });
            assert!(overwritten == 0 && stored > 0, "{overwritten} of {stored} after a barrier");
        });
    }

    /// Two threads of one CPU, most of whose time slices end within a section: no store is lost.
    #[test]
    fn who_is_preempted_restarts() {
        apart(|| {
            let Some((section, cpu)) = bound() else { return };
            let (modes, cell) = (AtomicU64::new(MODE), AtomicU64::new(0));
            let trial = Trial::new(std::time::Duration::from_millis(500));
            let count = || {
                run_on(cpu);
                let mut stored = 0;
                // Relaxed: both run on one CPU.
                while !trial.is_over(stored > 10) {
                    let old = cell.load(Ordering::Relaxed);
                    let done = store_slowly(section, &modes, &cell, (old, old + 1), 20_000);
                    stored += u64::from(done);
                    std::thread::yield_now();
                }
                stored
            };
            let stored = std::thread::scope(|scope| {
                let other = scope.spawn(count);
                count() + other.join().expect("no panic")
            });
            let there = cell.load(Ordering::Relaxed);
            assert!(there == stored && stored > 10, "{there} of {stored} stores are there");
        });
    }

    /// Fewer rows than CPUs: two would share one.
    #[test]
    fn each_cpu_needs_a_row() {
        apart(|| {
            let cpus = hint::configured_cpus();
            assert!(cpus > 0 && Section::find(cpus - 1).is_none());
        });
    }

    /// A child has one thread, which goes on in the middle of whatever its parent did.
    #[test]
    fn a_child_goes_on() {
        apart(|| {
            let Some((section, cpu)) = bound() else { return };
            let (modes, cell) = (AtomicU64::new(MODE), AtomicU64::new(7));
            // SAFETY: the child does nothing but its sections and a system call, and leaves.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let stored = at_last(|| section.store(&modes, MODE, cpu, &cell, 7, 8));
                section.barrier();
                // SAFETY: ends the process, without the parent's handlers.
                unsafe { libc::_exit(i32::from(!stored)) };
            }
            let mut status = -1;
            // SAFETY: waits for that child, into a place of this function.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!((waited, status), (child, 0), "the child has stored and left");
            assert_eq!(cell.load(Ordering::Relaxed), 7, "in memory of its own");
        });
    }
}
