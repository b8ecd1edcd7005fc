//! Faults that are injected into a simulated device.

use crate::device::{Operation, Request};
use std::ops::Range;

/// What goes wrong; [`crate::sim`] says what each does.
///
/// ```
/// assert_ne!(tierce_io::FaultKind::Io, tierce_io::FaultKind::Stall);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FaultKind {
    /// `EIO`.
    Io,
    /// `ENOSPC`.
    NoSpace,
    /// The transfer ends too early. No transfer, no fault: for reads and writes.
    Short,
    /// The operation hangs.
    Stall,
    /// One bit is wrong. For reads and writes.
    Corrupt,
}

/// A fault at one place of the future.
///
/// ```
/// use tierce_io::{DeviceExt, Fault, FaultKind, Operation, Sim, SimOptions};
/// let sim = Sim::new(&SimOptions::default());
/// sim.inject(Fault::new(FaultKind::Io, Operation::Flush, 1));
/// sim.flush()?;
/// assert!(sim.flush().unwrap_err().to_string().contains("flush"));
/// sim.flush()?;
/// # Ok::<(), tierce_io::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    kind: FaultKind,
    operation: Operation,
    after: u64,
    again: bool,
    /// First byte, and the one behind the last; `None`: everywhere.
    place: Option<(u64, u64)>,
}

impl Fault {
    /// Hits the operation of this kind that comes after `after` others of it, once.
    #[must_use]
    pub const fn new(kind: FaultKind, operation: Operation, after: u64) -> Self {
        Self { kind, operation, after, again: false, place: None }
    }

    /// Hits every operation of that kind from then on.
    #[must_use]
    pub const fn for_good(mut self) -> Self {
        self.again = true;
        self
    }

    /// Hits, and counts, only operations that touch these bytes of the device. A flush touches
    /// none.
    #[must_use]
    pub const fn within(mut self, bytes: Range<u64>) -> Self {
        self.place = Some((bytes.start, bytes.end));
        self
    }

    fn is_meant(&self, request: &Request) -> bool {
        let (from, to) = (request.offset(), request.offset() + request.bytes());
        let is_there = self.place.is_none_or(|(first, end)| from < end && first < to);
        self.operation == request.operation() && is_there
    }

    const fn does_stall(&self) -> bool {
        matches!(self.kind, FaultKind::Stall)
    }
}

/// Whether an operation stalls that is being submitted.
pub(super) fn stalls(faults: &mut Vec<Fault>, request: &Request) -> bool {
    hit(faults, |fault| fault.does_stall() && fault.is_meant(request)).is_some()
}

/// Which other fault hits an operation that is being performed.
pub(super) fn take(faults: &mut Vec<Fault>, request: &Request) -> Option<FaultKind> {
    hit(faults, |fault| !fault.does_stall() && fault.is_meant(request))
}

/// Counts all faults that are meant down by one; the first that is due hits.
fn hit(faults: &mut Vec<Fault>, is_meant: impl Fn(&Fault) -> bool) -> Option<FaultKind> {
    let due = faults.iter().position(|fault| fault.after == 0 && is_meant(fault));
    for fault in faults.iter_mut().filter(|fault| is_meant(fault)) {
        fault.after = fault.after.saturating_sub(1);
    }
    let fault = faults[due?];
    if !fault.again {
        faults.remove(due?);
    }
    Some(fault.kind)
}
