//! Reading with the next reads under way already.
//!
//! # Problem
//!
//! At open, the journal and the prio chain are read piece by piece, each when the one before has
//! been looked at. One at a time, reads take many times as long as the device needs.
//!
//! # Protocol
//!
//! Whoever reads says which reads he expects next, if he is right. Reads that are expected are
//! started, up to [`READS_MAX`] and [`BYTES_MAX`]; what comes true is there, or on its way, when
//! it is asked for. What does not come true is dropped, unread. Guessing costs reads, so it is
//! done where there is a reason to:
//!
//! * The journal: its buckets are searched in order, each from its start ([`InOrder`]).
//! * The prio chain: only a set says where the next one is, but a chain that was made of buckets
//!   that lie side by side, as those of the prio reserve do, goes on as it began. A guess is the
//!   same step once more; after each that came true twice as many are made, after one that did
//!   not, none before two steps were the same ([`Steps`]). A scattered chain is read one set
//!   after the other: the format has no other place that names its buckets.

use crate::completion::Completion;
use crate::device::{Device, Request};
use crate::error::Error;
use std::collections::VecDeque;

/// Reads under way at a time.
const READS_MAX: usize = 32;
/// Bytes of buffers under way at a time, but for one read.
const BYTES_MAX: u64 = 8 << 20;

/// A range of a device: offset and length in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// Reads from a device, some of them before they are asked for.
#[derive(Debug)]
pub(crate) struct ReadAhead<'a> {
    device: &'a dyn Device,
    /// Started in this order.
    under_way: VecDeque<(Span, Completion)>,
}

impl<'a> ReadAhead<'a> {
    pub(crate) fn new(device: &'a dyn Device) -> Self {
        Self { device, under_way: VecDeque::new() }
    }

    /// Fills `out` from `offset` on. `next` are the reads that are expected after this one.
    pub(crate) fn read(
        &mut self,
        offset: u64,
        out: &mut [u8],
        next: impl Iterator<Item = Span>,
    ) -> Result<(), Error> {
        let span = Span { offset, bytes: out.len() as u64 };
        // What was started before this was guessed in vain.
        let known = self.under_way.iter().position(|(started, _)| *started == span);
        self.under_way.drain(..known.unwrap_or(self.under_way.len()));
        let own = match self.under_way.pop_front() {
            Some((_, completion)) => completion,
            None => self.start(span),
        };
        for span in next {
            self.expect(span);
        }
        out.copy_from_slice(&own.wait()?);
        Ok(())
    }

    fn start(&self, span: Span) -> Completion {
        self.device.submit(Request::read(span.offset, self.device.buffer(span.bytes as usize)))
    }

    /// Starts a read that is expected, if there is room.
    fn expect(&mut self, span: Span) {
        let is_known = self.under_way.iter().any(|(started, _)| *started == span);
        let bytes: u64 = self.under_way.iter().map(|(started, _)| started.bytes).sum();
        let has_room = self.under_way.len() < READS_MAX && bytes + span.bytes <= BYTES_MAX;
        if !is_known && has_room {
            let completion = self.start(span);
            self.under_way.push_back((span, completion));
        }
    }
}

/// Reads that are expected in a known order.
#[derive(Debug)]
pub(crate) struct InOrder(Vec<Span>);

impl InOrder {
    pub(crate) fn new(spans: impl Iterator<Item = Span>) -> Self {
        Self(spans.collect())
    }

    /// What comes after the read at `offset`; nothing if that is not one of them.
    pub(crate) fn after(&self, offset: u64) -> impl Iterator<Item = Span> + use<'_> {
        let place = self.0.iter().position(|span| span.offset == offset);
        place.map_or(&[][..], |at| &self.0[at + 1..]).iter().copied().take(READS_MAX)
    }
}

/// Guesses bucket numbers that follow each other in equal steps.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    last: Option<u32>,
    step: i64,
    /// How many of the next are worth guessing.
    guesses: usize,
}

impl Steps {
    /// Takes note of the bucket that is read now, and guesses those after it.
    pub(crate) fn after(&mut self, bucket: u32) -> impl Iterator<Item = u32> + use<> {
        let step = self.last.map_or(0, |last| i64::from(bucket) - i64::from(last));
        let as_before = step == self.step && step != 0;
        self.guesses = if as_before { (2 * self.guesses).clamp(2, READS_MAX) } else { 0 };
        (self.last, self.step) = (Some(bucket), step);
        let guess = move |n: usize| u32::try_from(i64::from(bucket) + n as i64 * step).ok();
        (1..=self.guesses).map_while(guess)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceExt;
    use crate::sim::{Fault, FaultKind, Sim, SimOptions};
    use crate::{Operation, device};

    const SPAN: u64 = 4096;

    fn span(number: u64) -> Span {
        Span { offset: number * SPAN, bytes: SPAN }
    }

    /// Block n of the device is full of n.
    fn numbered() -> std::sync::Arc<Sim> {
        let sim = Sim::new(&SimOptions::default());
        (0..64).for_each(|n| sim.write_at(n * SPAN, &[n as u8; SPAN as usize]).expect("writes"));
        sim
    }

    #[test]
    fn what_is_read_is_right_whatever_was_expected() {
        let sim = numbered();
        let mut reads = ReadAhead::new(&*sim);
        let mut out = [0; SPAN as usize];
        let expected = [vec![2, 3, 4], vec![9, 3], vec![], vec![4, 4, 4], vec![60]];
        for (block, expected) in [1, 2, 3, 50, 4].into_iter().zip(expected) {
            let expected = expected.into_iter().map(span);
            reads.read(block * SPAN, &mut out, expected).expect("reads");
            assert!(out.iter().all(|&byte| u64::from(byte) == block), "{block}");
        }
    }

    /// A guess that fails harms nobody but the one who needs it.
    #[test]
    fn an_error_comes_when_its_read_is_asked_for() {
        let sim = numbered();
        sim.inject(Fault::new(FaultKind::Io, Operation::Read, 2));
        let mut reads = ReadAhead::new(&*sim);
        let mut out = [0; SPAN as usize];
        reads.read(0, &mut out, [span(1), span(2)].into_iter()).expect("reads");
        reads.read(SPAN, &mut out, std::iter::empty()).expect("reads");
        assert!(reads.read(2 * SPAN, &mut out, std::iter::empty()).is_err());
        reads.read(2 * SPAN, &mut out, std::iter::empty()).expect("it was one fault");
    }

    #[test]
    fn no_more_than_the_bounds_are_under_way() {
        let sim = numbered();
        sim.inject(Fault::new(FaultKind::Stall, device::Operation::Read, 1).for_good());
        let mut reads = ReadAhead::new(&*sim);
        reads
            .read(0, &mut [0; SPAN as usize], (1..64).map(span))
            .expect("the first is not stalled");
        assert_eq!(reads.under_way.len(), READS_MAX);
        let mut reads = ReadAhead::new(&*sim);
        (0..9).for_each(|n| reads.expect(Span { offset: n << 20, bytes: 1 << 20 }));
        assert_eq!(reads.under_way.len(), 8, "8 MiB");
        drop(reads);
        sim.resume();
    }

    #[test]
    fn steps_are_guessed_when_there_is_a_reason_to() {
        let mut steps = Steps::default();
        let mut guess = |bucket| steps.after(bucket).collect::<Vec<_>>();
        assert_eq!(guess(100), []);
        assert_eq!(guess(99), [], "one step says nothing");
        assert_eq!(guess(98), [97, 96]);
        assert_eq!(guess(97), [96, 95, 94, 93]);
        assert_eq!(guess(500), []);
        assert_eq!(guess(503), []);
        assert_eq!(guess(506), [509, 512]);
        let mut down = Steps::default();
        [4, 3].into_iter().for_each(|bucket| down.after(bucket).for_each(drop));
        assert_eq!(down.after(2).collect::<Vec<_>>(), [1, 0], "there is nothing below");
        assert_eq!(down.after(1).collect::<Vec<_>>(), [0]);
    }
}
