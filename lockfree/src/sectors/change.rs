//! How the word of a slot is changed.
//!
//! # Problem
//!
//! Taking space was one locked instruction, whose end every later load waits for: a third of all
//! that a write costs. But most slots are used by one CPU for a long time.
//!
//! # State
//!
//! Each slot has a mode of its own ([`crate::near`], where it is said of rows of cells what holds
//! for one slot here), and *cpu*: the CPU that may change the word by stores while the slot is near.
//!
//! | mode | the word is changed by |
//! |---|---|
//! | shared | anybody, by exchanges |
//! | near | who runs on *cpu*: a store in a section that tests for that CPU and this very turn |
//! | on the way | nobody |
//!
//! # Protocol
//!
//! 1. Who finds the slot near, and his CPU its *cpu*, stores.
//! 2. Who finds it shared exchanges. One CPU that has used it often, and nobody else in between,
//!    becomes its *cpu*, and makes it near.
//! 3. Whoever else wants to change it is counted as a visitor: for that it is shared first, by a
//!    barrier if it was near.
//!
//! # Invariants
//!
//! 1. *cpu* changes only while a visitor is counted, thus not while the slot is near or on the
//!    way there (Invariant 1 of [`crate::near`]).
//! 2. Who has seen a turn to near, *then* *cpu*, and finds in his section that this turn still
//!    lasts, has seen the *cpu* of this turn. *Not an older one*: its visitor had left when the
//!    turn began. *Not a newer one*: its visitor came after a barrier by which the turn had ended.
//!    If the section was over before that barrier, *cpu* was read before it was written; if not,
//!    it finds that the turn has ended.
//! 3. Of all who store in one turn no two run at the same time: by 2 they are on one CPU. And nobody
//!    exchanges meanwhile (Invariants 1 and 2 of [`crate::near`]).
//!
//! By 3 a store is as good as an exchange: the word is what was compared until it is stored.
//!
//! # Memory ordering
//!
//! *word*: a store is Release, an exchange AcqRel; each follows an Acquire load of what it
//! replaces. A store ends release sequences, an exchange does not: all that the word publishes is
//! that pins were taken, by whoever opened the bucket; who stores has acquired that, and releases
//! it again. *cpu*: Relaxed, by Invariant 2; a visitor leaves by Release, which who turns the mode
//! acquires, and who reads *cpu* has acquired the turn.
//!
//! # Progress
//!
//! Who stores is wait-free. Who exchanges succeeds, or another has. A visit is lock-free but for the
//! system call. Both of the first two may have to look again after an interrupt.

use super::choose::Slot;
use super::slot::SlotWord;
use crate::near::{MODES, NEAR, Patience, SHARED};
use crate::section::Section;
use crate::sync::Ordering;
use std::time::Duration;
use tierce_core::broken;

/// When a slot is made near: a turn and its end cost as much as some hundred locked instructions,
/// and interrupt other CPUs.
pub(super) const PATIENCE: Patience =
    Patience { least: 1 << 9, most: 1 << 18, soon: Duration::from_millis(10) };

impl Slot {
    /// Makes `old` to `new`. `false` if it is something else by now, or the thread was
    /// interrupted: the caller looks again.
    #[inline(always)]
    pub(crate) fn replace(&self, section: Option<Section>, old: SlotWord, new: SlotWord) -> bool {
        let Some(section) = section else { return self.exchange(old, new) };
        let modes = self.modes.word();
        // Acquire: pairs with the Release of the turn to this mode; `cpu` is not older.
        let seen = modes.load(Ordering::Acquire);
        let cpu = section.cpu();
        // Relaxed: by Invariant 2.
        let is_own = self.cpu.load(Ordering::Relaxed) as usize == cpu;
        if seen & MODES != NEAR || !is_own && !broken!("slot_of_any_cpu") {
            return self.replace_shared(section, seen, old, new);
        }
        let (cell, old, new) = (&self.word, old.bits(), new.bits());
        if broken!("slot_in_any_turn") {
            return section.store(modes, NEAR, cpu, cell, old, new);
        }
        section.store_in_turn(modes, seen, cpu, cell, old, new)
    }

    /// Unless the slot is near, and this CPU's.
    #[inline(never)]
    fn replace_shared(&self, section: Section, seen: u64, old: SlotWord, new: SlotWord) -> bool {
        if seen & MODES == SHARED && section.is_registered() {
            self.is_used();
            let modes = self.modes.word();
            return section.exchange(modes, SHARED, &self.word, old.bits(), new.bits());
        }
        self.modes.visited(|| self.exchange(old, new))
    }

    fn exchange(&self, old: SlotWord, new: SlotWord) -> bool {
        // AcqRel: Acquire pairs with the Release that published the bucket: its pins are taken;
        // Release keeps what the word published. Relaxed (failure): the caller loads it again.
        let order = (Ordering::AcqRel, Ordering::Relaxed);
        self.word.compare_exchange(old.bits(), new.bits(), order.0, order.1).is_ok()
    }

    /// It was used once more while it is shared.
    fn is_used(&self) {
        let Some(near) = self.modes.near() else { return };
        let cpu = near.section.cpu() as u32;
        // Relaxed (all): hints.
        if self.last.load(Ordering::Relaxed) != cpu {
            self.last.store(cpu, Ordering::Relaxed);
            self.uses.store(0, Ordering::Relaxed);
        } else if near.is_used(&self.uses) && !cfg!(any(tierce_loom, tierce_shuttle)) {
            self.bring_near();
        }
    }

    /// Whether another CPU changes it by stores, at no particular instant.
    pub(super) fn is_near_to_another(&self) -> bool {
        // Relaxed: a hint.
        let cpu = self.cpu.load(Ordering::Relaxed) as usize;
        let is_another = || self.modes.near().is_some_and(|near| cpu != near.section.cpu());
        self.modes.mode() == NEAR && is_another()
    }

    /// Makes it near to this CPU, if nobody objects.
    #[cold]
    pub(crate) fn bring_near(&self) {
        let Some(near) = self.modes.near() else { return };
        let cpu = near.section.cpu() as u32;
        // Relaxed (both): by Invariant 1.
        if self.cpu.load(Ordering::Relaxed) != cpu {
            let settle = || self.cpu.store(cpu, Ordering::Relaxed);
            if broken!("slot_cpu_unvisited") { settle() } else { self.modes.visited(settle) }
        }
        self.modes.open();
    }
}

#[cfg(all(
    test,
    target_os = "linux",
    not(any(miri, tierce_loom, tierce_shuttle, tierce_portable))
))]
#[path = "change_tests.rs"]
mod tests;
