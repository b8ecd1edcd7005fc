//! Reading with the next reads under way already.
//!
//! # Problem
//!
//! At open, the journal and the prio chain are looked at piece by piece, each when the one before
//! has been. Read like that, they take many times as long as the device needs: it waits for each
//! piece to be asked for, and pieces are smaller than what it reads best.
//!
//! # Protocol
//!
//! Whoever reads says which pieces he expects next, if he is right. What is expected is read in
//! *windows*: pieces that lie so close that a window has several of them are read together. Up to
//! [`READS_MAX`] reads are under way. What comes true is there, or on its way, when it is asked
//! for; what was started before that is dropped. Guessing costs reads, so it is done where there
//! is a reason to:
//!
//! * The journal: its buckets are searched in order, each from its start ([`InOrder`]).
//! * The prio chain: only a set says where the next one is, but a chain that was made of buckets
//!   that lie side by side, as those of the prio reserve do, goes on as it began. A guess is the
//!   same step once more ([`Steps`]). A scattered chain is read one set after the other: the
//!   format has no other place that names its buckets.
//!
//! Devices answer several reads at the same moment, and then have none. So with each window
//! that is begun all that is done is taken at once, and the kernel gets new reads in its place
//! before anybody looks at what came. There are buffers for as many as are under way and as many
//! again.
//!
//! What is dropped is waited for at the end, unless it came before. If a read of a window fails,
//! the piece is read by itself, when it is asked for: no guess fails whoever does not need it.
//!
//! Memory is bounded: reads go to a pool of buffers, and nothing is guessed while all of it is in
//! use. A piece that was read keeps the buffer of its window for as long as somebody has it.

use crate::buffer::{Buffer, Pool};
use crate::completion::Outcome;
use crate::device::{Device, Request};
use crate::error::Error;
use crate::queue::Queue;
use std::collections::VecDeque;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Reads that are ahead at a time.
const READS_MAX: usize = 16;
/// Bytes of buffers, those that hold what was read and is being looked at included; more only if
/// two reads need more.
const BYTES_MAX: u64 = 8 << 20;
/// At most so many buffers.
const CHUNKS_MAX: u64 = 2 * READS_MAX as u64;
/// What devices read at their best speed, at several reads at a time.
const WINDOW_BYTES: u64 = 256 << 10;
/// The queue's own buffers are as small as can be: those of the pool last longer.
const NO_BUFFERS: usize = 4096;
/// Pieces that are expected at a time: those of all buffers.
pub(crate) const EXPECTED_MAX: usize = 128;
/// Guesses after a second step that was as the first.
const GUESSES_MIN: usize = 8;
/// Guesses after a step that was not as those before.
const GUESSES_AFTER_JUMP: usize = 4;

/// A range of a device: offset and length in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl Span {
    fn end(&self) -> u64 {
        self.offset + self.bytes
    }

    fn contains(&self, other: &Self) -> bool {
        self.offset <= other.offset && other.end() <= self.end()
    }
}

/// A piece that was read.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    window: Arc<Buffer>,
    range: Range<usize>,
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.window[self.range.clone()]
    }
}

/// A read that was started.
#[derive(Debug)]
struct Ahead {
    /// By what number the queue knows it.
    token: u64,
    window: Span,
    /// What came of it.
    done: Option<Result<Arc<Buffer>, Error>>,
}

/// Reads from a device, some of them before they are asked for.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    queue: Queue,
    pool: Arc<Pool>,
    /// Whether pieces are read together.
    in_windows: bool,
    /// Started in this order.
    ahead: VecDeque<Ahead>,
    tokens: u64,
}

impl ReadAhead {
    /// For pieces of at most `bytes` bytes, expected at multiples of `distance`, a power of two
    /// that is not less. `many` of them are worth windows and a ring of the calling thread's own.
    pub(crate) fn new(device: &Arc<dyn Device>, bytes: u64, distance: u64, many: bool) -> Self {
        let in_windows = many && 2 * distance <= WINDOW_BYTES;
        let chunk = if in_windows { WINDOW_BYTES } else { bytes };
        let chunks = (BYTES_MAX / chunk).clamp(2, CHUNKS_MAX);
        let pool = Pool::untouched(chunk as usize, chunks as u32);
        let queue = if many {
            Queue::with_buffers(device.clone(), READS_MAX as u32, NO_BUFFERS)
        } else {
            Queue::through_device(device.clone(), READS_MAX as u32)
        };
        Self { queue, pool, in_windows, ahead: VecDeque::new(), tokens: 0 }
    }

    /// Reads `span`. `next` are the pieces that are expected after it. As long as it is not there
    /// `meanwhile` is called, until that has nothing left to do.
    pub(crate) fn read(
        &mut self,
        span: Span,
        next: impl Iterator<Item = Span>,
        mut meanwhile: impl FnMut() -> bool,
    ) -> Result<Piece, Error> {
        // What was started before this was guessed in vain, or has been looked at.
        let known = self.ahead.iter().position(|ahead| ahead.window.contains(&span));
        self.ahead.drain(..known.unwrap_or(self.ahead.len()));
        if known.is_none() {
            // Some buffers may be held by what others are to do with what was read.
            while self.pool.free() == 0 && meanwhile() {}
            self.start(span);
        }
        // Not for each piece of a window, unless it is the last.
        if known != Some(0) || self.ahead[0].done.is_none() || self.ahead.len() == 1 {
            self.take_all();
            self.expect(next);
            self.take_all();
        }
        loop {
            match &self.ahead[0] {
                Ahead { window, done: Some(Ok(buffer)), .. } => {
                    let from = (span.offset - window.offset) as usize;
                    let range = from..from + span.bytes as usize;
                    return Ok(Piece { window: buffer.clone(), range });
                }
                Ahead { done: None, .. } => {
                    if !self.take_all() && !meanwhile() {
                        self.wait();
                    }
                }
                // What cannot be read may be somebody else's.
                Ahead { window, done: Some(Err(_)), .. } if *window != span => {
                    self.ahead.clear();
                    self.start(span);
                }
                Ahead { done: Some(Err(_)), .. } => {
                    let failed = self.ahead.pop_front().and_then(|ahead| ahead.done);
                    if let Some(Err(error)) = failed {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Gives the kernel what was started, and takes what is done, if anything is.
    fn take_all(&mut self) -> bool {
        let mut is_some = false;
        while let Some((token, outcome)) = self.queue.poll() {
            self.take(token, outcome);
            is_some = true;
        }
        is_some
    }

    /// Takes note of a read that is done; of what was dropped nobody wants to know.
    fn take(&mut self, token: u64, outcome: Outcome) {
        if let Some(ahead) = self.ahead.iter_mut().find(|ahead| ahead.token == token) {
            ahead.done = Some(outcome.map(Arc::new));
        }
    }

    fn wait(&mut self) {
        let (token, outcome) = self.queue.wait().expect("a read is under way");
        self.take(token, outcome);
    }

    fn start(&mut self, window: Span) {
        self.tokens += 1;
        let token = self.tokens;
        self.ahead.push_back(Ahead { token, window, done: None });
        let buffer = self.pool.buffer(window.bytes as usize);
        let mut request = Request::read(window.offset, buffer);
        while let Err(refused) = self.queue.submit(request, token) {
            // As many as there can be are under way, some of which nobody wants any more.
            self.wait();
            request = refused;
        }
    }

    /// Starts reads of what is expected, as far as there is room.
    fn expect(&mut self, next: impl Iterator<Item = Span>) {
        let mut last = None;
        for span in next {
            if last.is_some_and(|window: Span| window.contains(&span)) {
                continue;
            }
            if self.queue.under_way() >= READS_MAX || self.pool.free() == 0 {
                return;
            }
            let known = self.ahead.iter().find(|ahead| ahead.window.contains(&span));
            let known = known.map(|ahead| ahead.window);
            let window = known.unwrap_or_else(|| self.window_of(span));
            if known.is_none() {
                self.start(window);
            }
            last = Some(window);
        }
    }

    /// What is read with `span`: its surroundings, if others can be expected there.
    fn window_of(&self, span: Span) -> Span {
        let offset = span.offset - span.offset % WINDOW_BYTES;
        let device = self.queue.device().capabilities();
        let end = device.bytes - device.bytes % u64::from(device.logical_block);
        let bytes = WINDOW_BYTES.min(end.saturating_sub(offset));
        let window = Span { offset, bytes };
        if self.in_windows && window.contains(&span) { window } else { span }
    }
}

/// Pieces that are expected in a known order.
#[derive(Debug)]
pub(crate) struct InOrder(Vec<Span>);

impl InOrder {
    pub(crate) fn new(spans: impl Iterator<Item = Span>) -> Self {
        Self(spans.collect())
    }

    /// What comes after the read at `offset`; nothing if that is not one of them.
    pub(crate) fn after(&self, offset: u64) -> impl Iterator<Item = Span> + use<'_> {
        let place = self.0.iter().position(|span| span.offset == offset);
        place.map_or(&[][..], |at| &self.0[at + 1..]).iter().copied().take(EXPECTED_MAX)
    }
}

/// Guesses bucket numbers that follow each other in equal steps: none before two were equal, then
/// [`GUESSES_MIN`], and four times as many with each that came true. After one that did not come
/// true, [`GUESSES_AFTER_JUMP`] more with the same step: where one run of neighbours ends another
/// one begins, mostly in the same direction.
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
        if step == self.step && step != 0 {
            self.guesses = (4 * self.guesses).clamp(GUESSES_MIN, EXPECTED_MAX);
        } else if self.guesses > GUESSES_AFTER_JUMP {
            self.guesses = GUESSES_AFTER_JUMP;
        } else {
            (self.guesses, self.step) = (0, step);
        }
        self.last = Some(bucket);
        let step = self.step;
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
    fn numbered() -> Arc<Sim> {
        let sim = Sim::new(&SimOptions::default());
        (0..64).for_each(|n| sim.write_at(n * SPAN, &[n as u8; SPAN as usize]).expect("writes"));
        sim
    }

    fn reads_of(sim: &Arc<Sim>, bytes: u64, distance: u64) -> ReadAhead {
        let device: Arc<dyn Device> = sim.clone();
        ReadAhead::new(&device, bytes, distance, true)
    }

    fn no_work() -> bool {
        false
    }

    #[test]
    fn what_is_read_is_right_whatever_was_expected() {
        let sim = numbered();
        // Far apart, and close enough for windows.
        for distance in [1 << 20, SPAN] {
            let mut reads = reads_of(&sim, SPAN, distance);
            let expected = [vec![2, 3, 4], vec![9, 3], vec![], vec![4, 4, 4], vec![60]];
            for (block, expected) in [1, 2, 3, 50, 4].into_iter().zip(expected) {
                let expected = expected.into_iter().map(span);
                let piece = reads.read(span(block), expected, no_work).expect("reads");
                assert_eq!(piece.len(), SPAN as usize);
                assert!(piece.iter().all(|&byte| u64::from(byte) == block), "{block}");
            }
        }
    }

    #[test]
    fn the_last_window_ends_with_the_device() {
        let bytes = WINDOW_BYTES + 2 * SPAN;
        let sim = Sim::new(&SimOptions::default().bytes(bytes));
        let mut reads = reads_of(&sim, SPAN, SPAN);
        let last = span(bytes / SPAN - 1);
        reads.read(span(0), [last].into_iter(), no_work).expect("reads");
        assert_eq!(reads.ahead[1].window, Span { offset: WINDOW_BYTES, bytes: 2 * SPAN });
        reads.read(last, std::iter::empty(), no_work).expect("reads");
    }

    /// A guess that fails harms nobody but the one who needs it, nor does what lies beside it.
    #[test]
    fn an_error_comes_when_its_read_is_asked_for() {
        for (distance, fails) in [(1 << 20, true), (SPAN, false)] {
            let sim = numbered();
            sim.inject(Fault::new(FaultKind::Io, Operation::Read, 2));
            let mut reads = reads_of(&sim, SPAN, distance);
            let mut read =
                |at, next: &[u64]| reads.read(span(at), next.iter().copied().map(span), no_work);
            read(0, &[1, 2]).expect("reads");
            read(1, &[]).expect("it is read by itself, if not before");
            assert_eq!(read(2, &[]).is_err(), fails);
            read(2, &[]).expect("it was one fault");
        }
    }

    #[test]
    fn no_more_than_the_bounds_are_under_way() {
        let sim = numbered();
        sim.inject(Fault::new(FaultKind::Stall, device::Operation::Read, 1).for_good());
        let mut reads = reads_of(&sim, SPAN, 1 << 20);
        reads.read(span(0), (1..64).map(span), no_work).expect("the first is not stalled");
        assert!(reads.queue.under_way() <= READS_MAX, "{}", reads.queue.under_way());
        assert!(reads.ahead.len() >= READS_MAX, "{}", reads.ahead.len());
        let large = |n: u64| Span { offset: n << 20, bytes: 1 << 20 };
        let mut reads = reads_of(&sim, 1 << 20, 1 << 20);
        reads.expect((0..=BYTES_MAX >> 20).map(large));
        assert_eq!(reads.ahead.len() as u64, BYTES_MAX >> 20);
        sim.resume();
    }

    #[test]
    fn who_waits_does_something_else() {
        let sim = numbered();
        sim.inject(Fault::new(FaultKind::Stall, device::Operation::Read, 0));
        let mut reads = reads_of(&sim, SPAN, SPAN);
        let mut left = 3;
        let work = || {
            left -= 1;
            if left == 0 {
                sim.resume();
            }
            true
        };
        reads.read(span(0), std::iter::empty(), work).expect("reads");
        assert_eq!(left, 0);
    }

    #[test]
    fn steps_are_guessed_when_there_is_a_reason_to() {
        let mut steps = Steps::default();
        let mut guess = |bucket| steps.after(bucket).collect::<Vec<_>>();
        assert_eq!(guess(100), []);
        assert_eq!(guess(99), [], "one step says nothing");
        assert_eq!(guess(98), (90..98).rev().collect::<Vec<_>>());
        assert_eq!(guess(97), (65..97).rev().collect::<Vec<_>>());
        assert_eq!(guess(500), [499, 498, 497, 496], "the next run may go the same way");
        assert_eq!(guess(503), [], "it does not");
        assert_eq!(guess(506), [509, 512, 515, 518, 521, 524, 527, 530]);
        let mut down = Steps::default();
        [4, 3].into_iter().for_each(|bucket| down.after(bucket).for_each(drop));
        assert_eq!(down.after(2).collect::<Vec<_>>(), [1, 0], "there is nothing below");
        assert_eq!(down.after(1).collect::<Vec<_>>(), [0]);
    }

    /// A scattered chain is not guessed at, a long run is, and who was wrong twice stops.
    #[test]
    fn guesses_are_as_many_as_came_true() {
        let mut steps = Steps::default();
        let scattered = (0..100u32).map(|n| n * n * 7919 % 65_521);
        assert_eq!(scattered.map(|bucket| steps.after(bucket).count()).sum::<usize>(), 0);
        let counts: Vec<_> = (1000..1006).map(|bucket| steps.after(bucket).count()).collect();
        assert_eq!(counts, [0, 0, 8, 32, 128, 128]);
        let counts: Vec<_> = [9, 800, 7].map(|bucket| steps.after(bucket).count()).into();
        assert_eq!(counts, [4, 0, 0]);
    }
}
