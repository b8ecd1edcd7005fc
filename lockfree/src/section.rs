//! Restartable sections: a few instructions that the kernel makes happen at once, or not at all.
//!
//! # Problem
//!
//! A word that only threads on one CPU change needs no locked instruction, if none of them is
//! stopped between its look at the word and its store. Linux promises that: a thread that is
//! preempted, moved to another CPU, or interrupted by a signal within a *restartable sequence*
//! does not go on there but at an address that it named before.
//!
//! # What there is
//!
//! A [`Section`] is the proof that this process may use them. Its operations look at a *mode
//! word* and a cell, and then change the cell, as one step with respect to [`Section::barrier`]:
//!
//! | operation | changes the cell, if all of this holds | by |
//! |---|---|---|
//! | [`store`](Section::store) | the thread runs on the given CPU, the mode word has the given bit, the cell holds `old` | a store (Release) |
//! | [`store_in_turn`](Section::store_in_turn) | the same, but of the mode word all bits are as given | a store (Release) |
//! | [`exchange`](Section::exchange) | the mode word has the given bit, the cell holds `old` | a locked exchange (SeqCst) |
//!
//! Both say whether they did. If not, any of the conditions may have failed, or the thread was
//! interrupted: the caller looks again.
//!
//! *Guarantee of the barrier*: each section of this process, on whatever CPU, either has changed
//! its cell before the barrier returns, and whoever called the barrier sees that; or it does its
//! tests after the barrier began, and sees what was written before it.
//!
//! Two stores to one cell exclude each other if they name the same CPU: of two threads on a CPU
//! one has been stopped. All else is up to the callers: `near.rs`, `cells.rs` and
//! `sectors/change.rs`.
//!
//! # Where
//!
//! `section/x86.rs`: x86-64 Linux with glibc. `section/model.rs`: the same under the model
//! checker. Nowhere else is there a `Section` ([`Section::find`]): not with another C library or
//! processor, under Miri, shuttle, valgrind, ThreadSanitizer, nor where the kernel has no such
//! barrier.

#[cfg(all(
    target_arch = "x86_64",
    target_os = "linux",
    target_env = "gnu",
    target_pointer_width = "64",
    not(target_feature = "crt-static"),
    not(any(miri, tierce_loom, tierce_shuttle, tierce_portable))
))]
#[path = "section/x86.rs"]
mod imp;

#[cfg(tierce_loom)]
#[path = "section/model.rs"]
mod imp;

#[cfg(not(any(
    tierce_loom,
    all(
        target_arch = "x86_64",
        target_os = "linux",
        target_env = "gnu",
        target_pointer_width = "64",
        not(target_feature = "crt-static"),
        not(any(miri, tierce_shuttle, tierce_portable))
    )
)))]
#[path = "section/absent.rs"]
mod imp;

pub(crate) use imp::Section;
