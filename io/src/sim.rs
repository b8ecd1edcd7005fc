//! A simulated device that loses power: everything it does wrong, it does by a seed.
//!
//! # Problem
//!
//! Whether state survives a power loss cannot be tried out on a real device ten thousand times.
//! Here it can: [`Sim`] keeps what was written but not flushed apart from what is durable, and
//! [`Sim::power_loss`] gives the device that is found afterwards. It is a peer of the real
//! implementations, and open to everybody who wants to try his own engine on it.
//!
//! # Fault model
//!
//! | what | what happens |
//! |---|---|
//! | write | goes to a volatile cache; reads see it at once |
//! | durable write | these bytes are durable when it completes; nothing is said of others |
//! | flush | everything written before is durable when it completes |
//! | discard | drawn anew each time: nothing happens; the range reads zeros, and a power loss may bring the old bytes back; it is zeros for good at once; it is other bytes for good at once |
//! | power loss | of the versions that each *sector* (512 bytes) had since it was last durable, one survives: any subset of what was not flushed, torn at sectors, in any order. Also drawn: nothing survives, everything does, whole writes do or do not, all up to some write do |
//! | power cut ([`Sim::cut_power`]) | the operation that it hits is half done (a durable write may be torn), and it and all later ones fail |
//! | [`FaultKind::Io`], [`FaultKind::NoSpace`] | an error; a write has got an arbitrary subset of its sectors into the cache, a flush has made an arbitrary subset durable |
//! | [`FaultKind::Short`] | the transfer ends after some sectors, reported as [`Error::Short`] |
//! | [`FaultKind::Stall`] | the operation is not done, nor completed, before [`Sim::resume`]; stalled operations then take place in any order |
//! | [`FaultKind::Corrupt`] | one bit of what is read or written is wrong, and nobody says so |
//! | [`SimOptions::lying_flush`] | flushes and durable writes complete, but make nothing durable |
//!
//! # What it does not show
//!
//! An operation that does not stall takes place inside [`Device::submit`]. So a user who does not
//! wait for a write before he submits the flush that has to cover it is not found out, unless
//! that write is made to stall.

mod fault;
mod media;

pub use fault::{Fault, FaultKind};

use crate::buffer::Buffer;
use crate::completion::{Completer, Completion};
use crate::device::{Capabilities, Device, DiscardKind, Operation, Request, refused};
use crate::error::Error;
use media::Media;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tierce_core::draws::Draws;
use tierce_core::geometry::SECTOR_BYTES;

const SECTOR: usize = SECTOR_BYTES as usize;

/// What a simulated device is like.
///
/// ```
/// use tierce_io::SimOptions;
/// let options = SimOptions::default().seed(7).lying_flush(true);
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SimOptions {
    /// Where all draws begin.
    pub seed: u64,
    /// Size in bytes. Memory is used only for what is written.
    pub bytes: u64,
    /// The unit of offsets and lengths in bytes: a power of two, 512 to 4096.
    pub logical_block: u32,
    /// Whether it discards.
    pub discard: DiscardKind,
    /// Flushes and durable writes make nothing durable.
    pub lying_flush: bool,
}

impl Default for SimOptions {
    /// 64 MiB in blocks of 512 bytes that discards and does not lie.
    fn default() -> Self {
        Self {
            seed: 0,
            bytes: 64 << 20,
            logical_block: 512,
            discard: DiscardKind::Command,
            lying_flush: false,
        }
    }
}

tierce_core::setters!(SimOptions {
    seed: u64,
    bytes: u64,
    logical_block: u32,
    discard: DiscardKind,
    lying_flush: bool,
});

/// The operation that a power cut hits.
///
/// ```
/// assert_ne!(tierce_io::CutAt::Any, tierce_io::CutAt::Flush);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CutAt {
    /// Whatever is not a read.
    Any,
    /// A write that is not durable by itself.
    Write,
    /// A durable write.
    DurableWrite,
    /// A flush.
    Flush,
    /// A discard.
    Discard,
}

impl CutAt {
    /// What kind of operation this is; `None` for a read.
    const fn of(request: &Request) -> Option<Self> {
        match request {
            Request::Read { .. } => None,
            Request::Write { durable: true, .. } => Some(Self::DurableWrite),
            Request::Write { .. } => Some(Self::Write),
            Request::Flush => Some(Self::Flush),
            Request::Discard { .. } => Some(Self::Discard),
        }
    }
}

/// A simulated device.
///
/// ```
/// use tierce_io::{DeviceExt, Sim, SimOptions};
/// let sim = Sim::new(&SimOptions::default());
/// sim.write_at(0, &[1; 512])?;
/// sim.flush()?;
/// sim.write_at(512, &[2; 512])?;
/// assert_eq!(sim.read_at(512, 512)?[..], [2; 512]);
///
/// let after = sim.power_loss();
/// assert_eq!(after.read_at(0, 512)?[..], [1; 512], "it was flushed");
/// assert!([0, 2].contains(&after.read_at(512, 512)?[0]), "it may have survived");
/// assert!(sim.flush().is_err(), "no power");
/// # Ok::<(), tierce_io::Error>(())
/// ```
pub struct Sim {
    name: Arc<str>,
    capabilities: Capabilities,
    lying_flush: bool,
    state: Mutex<State>,
}

struct State {
    media: Media,
    draws: Draws,
    faults: Vec<Fault>,
    /// Where the power will go, after so many more operations of that kind.
    cut: Option<(CutAt, u64)>,
    /// What the power cut hit.
    hit: Option<CutAt>,
    has_power: bool,
    stalled: Vec<(Request, Completer)>,
    operations: u64,
}

impl fmt::Debug for Sim {
    /// Without what is on it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Sim {
    /// A device full of zeros.
    ///
    /// # Panics
    ///
    /// If the logical block is no power of two from 512 to 4096, or does not divide the size.
    #[must_use]
    pub fn new(options: &SimOptions) -> Arc<Self> {
        let mut capabilities = Capabilities::new(options.logical_block, options.bytes);
        let blocks = options.bytes.is_multiple_of(options.logical_block.into());
        assert!(blocks, "{} bytes are no multiple of the logical block", options.bytes);
        capabilities.discard = options.discard;
        let state = State::new(Media::default(), Draws::new(options.seed));
        Arc::new(Self {
            name: format!("sim-{}", options.seed).into(),
            capabilities,
            lying_flush: options.lying_flush,
            state: Mutex::new(state),
        })
    }

    /// The power goes now: what survived, as a device of its own without injected faults. This
    /// one does nothing any more; operations that were stalled end with [`Error::Closed`].
    #[must_use]
    pub fn power_loss(&self) -> Arc<Self> {
        let mut state = self.state();
        state.has_power = false;
        state.stalled.clear();
        let mut draws = state.draws.clone();
        let media = state.media.after_power_loss(&mut draws);
        Arc::new(Self {
            name: self.name.clone(),
            capabilities: self.capabilities,
            lying_flush: self.lying_flush,
            state: Mutex::new(State::new(media, draws)),
        })
    }

    /// The power will go during an operation of this kind, after `after` others of it. Replaces
    /// an earlier call.
    pub fn cut_power(&self, at: CutAt, after: u64) {
        self.state().cut = Some((at, after));
    }

    /// The power will not be cut, if it is still there.
    pub fn keep_power(&self) {
        self.state().cut = None;
    }

    /// What the [cut](Self::cut_power) hit, if it has taken place; never [`CutAt::Any`].
    #[must_use]
    pub fn cut_hit(&self) -> Option<CutAt> {
        self.state().hit
    }

    /// Adds a fault, see [`Fault`].
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Does what was stalled, in any order, and completes it.
    ///
    /// ```
    /// use tierce_io::{Device, Fault, FaultKind, Operation, Request, Sim, SimOptions};
    /// let sim = Sim::new(&SimOptions::default());
    /// sim.inject(Fault::new(FaultKind::Stall, Operation::Write, 0));
    /// let completion = sim.submit(Request::write(0, sim.buffer(512)));
    /// assert!(!completion.is_done());
    /// sim.resume();
    /// completion.wait()?;
    /// # Ok::<(), tierce_io::Error>(())
    /// ```
    pub fn resume(&self) {
        let mut state = self.state();
        let mut done = Vec::new();
        while !state.stalled.is_empty() {
            let count = state.stalled.len() as u64;
            let next = state.below(count) as usize;
            let (request, completer) = state.stalled.swap_remove(next);
            let outcome = self.perform(&mut state, request);
            done.push((completer, outcome));
        }
        drop(state);
        done.into_iter().for_each(|(completer, outcome)| completer.complete(outcome));
    }

    /// How many operations are stalled.
    #[must_use]
    pub fn stalled(&self) -> usize {
        self.state().stalled.len()
    }

    /// No fault is left, but for what is stalled.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// How many operations were submitted that are not reads: as many places for a cut.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// No code that can panic runs under the lock but by a broken invariant.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn io_error(&self, request: &Request, cause: io::Error) -> Error {
        let (operation, offset, bytes) = (request.operation(), request.offset(), request.bytes());
        Error::Io { device: self.name.clone(), operation, offset, bytes, cause }
    }

    /// Does an operation that is not stalled.
    fn perform(&self, state: &mut State, mut request: Request) -> Result<Buffer, Error> {
        if state.cut_now(&request) {
            state.has_power = false;
            state.hit = CutAt::of(&request);
            state.touch_some(&request);
        }
        if !state.has_power {
            return Err(self.io_error(&request, io::Error::other("the power is off")));
        }
        let fault = fault::take(&mut state.faults, &request);
        match fault {
            Some(FaultKind::Io) => return Err(self.fail(state, &request, EIO)),
            Some(FaultKind::NoSpace) => return Err(self.fail(state, &request, ENOSPC)),
            Some(FaultKind::Short) => return Err(self.end_short(state, request)),
            _ => {}
        }
        let corrupt = fault == Some(FaultKind::Corrupt);
        match &mut request {
            Request::Read { offset, buffer } => {
                state.media.read(sector_of(*offset), buffer);
                if corrupt {
                    state.flip_bit(buffer);
                }
            }
            Request::Write { offset, buffer, durable, .. } => {
                if corrupt {
                    state.flip_bit(buffer);
                }
                let durable = *durable && !self.lying_flush;
                state.media.write(sector_of(*offset), buffer, durable);
            }
            Request::Flush if self.lying_flush => {}
            Request::Flush => state.media.flush(),
            Request::Discard { offset, bytes } => state.discard(*offset, *bytes),
        }
        Ok(request.into_buffer())
    }

    /// An error after which nothing is known.
    fn fail(&self, state: &mut State, request: &Request, errno: i32) -> Error {
        state.touch_some(request);
        self.io_error(request, io::Error::from_raw_os_error(errno))
    }

    /// Some sectors at the front are transferred, but not all.
    fn end_short(&self, state: &mut State, request: Request) -> Error {
        let (operation, offset, bytes) = (request.operation(), request.offset(), request.bytes());
        let block = u64::from(self.capabilities.logical_block);
        let done = state.below(bytes / block) * block;
        if let Request::Write { buffer, .. } = &request {
            state.media.write(sector_of(offset), &buffer[..done as usize], false);
        }
        Error::Short { device: self.name.clone(), operation, offset, bytes, done }
    }
}

/// Linux's numbers.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

const fn sector_of(offset: u64) -> u64 {
    offset / SECTOR as u64
}

impl State {
    const fn new(media: Media, draws: Draws) -> Self {
        Self {
            media,
            draws,
            faults: Vec::new(),
            cut: None,
            hit: None,
            has_power: true,
            stalled: Vec::new(),
            operations: 0,
        }
    }

    /// A number in 0..`n`; 0 if `n` is 0.
    fn below(&mut self, n: u64) -> u64 {
        self.draws.below(u32::try_from(n).unwrap_or(u32::MAX)).into()
    }

    /// Whether the power goes during this operation.
    fn cut_now(&mut self, request: &Request) -> bool {
        let kind = CutAt::of(request);
        match &mut self.cut {
            Some((at, left)) if kind.is_some() && (*at == CutAt::Any || Some(*at) == kind) => {
                *left = left.wrapping_sub(1);
                let now = *left == u64::MAX;
                if now {
                    self.cut = None;
                }
                now
            }
            _ => false,
        }
    }

    /// What an operation that ended in the middle may have done.
    fn touch_some(&mut self, request: &Request) {
        match request {
            Request::Read { .. } => {}
            Request::Write { offset, buffer, .. } => {
                self.media.write_some(sector_of(*offset), buffer, &mut self.draws);
            }
            Request::Flush => self.media.flush_some(&mut self.draws),
            Request::Discard { offset, bytes } => self.discard(*offset, *bytes),
        }
    }

    fn discard(&mut self, offset: u64, bytes: u64) {
        let sectors = sector_of(offset)..sector_of(offset + bytes);
        match self.draws.below(4) {
            0 => {}
            1 => self.media.zero(sectors, false),
            2 => self.media.zero(sectors, true),
            _ => self.media.scramble(sectors, &mut self.draws),
        }
    }

    fn flip_bit(&mut self, buffer: &mut [u8]) {
        let bit = self.below(buffer.len() as u64 * 8);
        if let Some(byte) = buffer.get_mut(bit as usize / 8) {
            *byte ^= 1 << (bit % 8);
        }
    }
}

impl Device for Sim {
    fn name(&self) -> &Arc<str> {
        &self.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn buffer(&self, bytes: usize) -> Buffer {
        Buffer::new(bytes)
    }

    fn submit(&self, request: Request) -> Completion {
        if let Err(error) = request.check(&self.name, &self.capabilities) {
            return refused(&self.name, error);
        }
        let (completer, completion) = Completer::new(self.name.clone());
        let mut state = self.state();
        state.operations += u64::from(request.operation() != Operation::Read);
        if state.has_power && fault::stalls(&mut state.faults, &request) {
            state.stalled.push((request, completer));
            return completion;
        }
        let outcome = self.perform(&mut state, request);
        drop(state);
        completer.complete(outcome);
        completion
    }
}
