//! A device in memory that keeps a log of what reached it, and can show what a power loss at
//! any point of that log leaves.
//!
//! What a device may lose: of the writes since the last flush, each sector on its own, whatever
//! the order they were submitted in. What it may not: what completed before a flush that
//! completed, and durable writes that completed.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use tierce_io::{
    Buffer, Capabilities, Completer, Completion, Device, DiscardKind, Error, Operation, Request,
};

pub const SECTOR: usize = 512;

#[derive(Clone, Debug)]
pub enum Event {
    Write { offset: usize, data: Vec<u8>, durable: bool },
    Flush,
}

/// What happens to what is not durable when the power goes.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// All of it is lost.
    All,
    /// Nothing is lost.
    Nothing,
    /// Every sector survives or not, by a seed.
    Some(u64),
}

#[derive(Debug, Default)]
pub struct State {
    pub image: Vec<u8>,
    /// What a power loss leaves if it takes all that it may.
    pub durable: Vec<u8>,
    /// Since the last flush.
    pending: Vec<(usize, Vec<u8>)>,
    pub log: Vec<Event>,
    /// Fail this operation: the nth of its kind from now on, counted from 0.
    pub fail: Option<(Operation, usize)>,
}

pub struct Recorder {
    name: Arc<str>,
    capabilities: Capabilities,
    state: Mutex<State>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    pub fn new(image: Vec<u8>) -> Arc<Self> {
        let capabilities = Capabilities::new(SECTOR as u32, image.len() as u64);
        let state = Mutex::new(State { durable: image.clone(), image, ..State::default() });
        let capabilities = capabilities.with_discard(DiscardKind::None);
        Arc::new(Self { name: "recorder".into(), capabilities, state })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under the lock")
    }

    /// How many events there are so far.
    pub fn now(&self) -> usize {
        self.state().log.len()
    }
}

impl State {
    fn perform(&mut self, name: &Arc<str>, request: Request) -> Result<Buffer, Error> {
        let (operation, offset, bytes) = (request.operation(), request.offset(), request.bytes());
        match &mut self.fail {
            Some((fails, 0)) if *fails == operation => {
                self.fail = None;
                let cause = std::io::Error::from_raw_os_error(5);
                let device = name.clone();
                return Err(Error::Io { device, operation, offset, bytes, cause });
            }
            Some((fails, left)) if *fails == operation => *left -= 1,
            _ => {}
        }
        let at = offset as usize;
        match request {
            Request::Read { mut buffer, .. } => {
                let end = at + buffer.len();
                buffer.copy_from_slice(&self.image[at..end]);
                return Ok(buffer);
            }
            Request::Write { buffer, durable, .. } => {
                self.image[at..at + buffer.len()].copy_from_slice(&buffer);
                let data = buffer.to_vec();
                if durable {
                    self.durable[at..at + data.len()].copy_from_slice(&data);
                } else {
                    self.pending.push((at, data.clone()));
                }
                self.log.push(Event::Write { offset: at, data, durable });
                return Ok(buffer);
            }
            Request::Flush => {
                for (at, data) in self.pending.drain(..) {
                    self.durable[at..at + data.len()].copy_from_slice(&data);
                }
                self.log.push(Event::Flush);
            }
            other => panic!("not recorded: {other:?}"),
        }
        Ok(Buffer::empty())
    }
}

impl Device for Recorder {
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
        let (completer, completion) = Completer::new(self.name.clone());
        let result = request
            .check(&self.name, &self.capabilities)
            .and_then(|()| self.state().perform(&self.name, request));
        completer.complete(result);
        completion
    }
}

/// What is on the device that held `image` before `log[..cut]`, after a power loss at `cut`.
pub fn after_power_loss(image: &[u8], log: &[Event], cut: usize, loss: Loss) -> Vec<u8> {
    let mut image = image.to_vec();
    let log = &log[..cut];
    let flushed = log.iter().rposition(|e| matches!(e, Event::Flush)).map_or(0, |at| at + 1);
    let mut random = match loss {
        Loss::Some(seed) => seed | 1,
        Loss::All | Loss::Nothing => 1,
    };
    for (at, event) in log.iter().enumerate() {
        let Event::Write { offset, data, durable } = event else { continue };
        for (i, sector) in data.chunks(SECTOR).enumerate() {
            // xorshift64
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // The last write of the log may be torn although it is durable: it was under way.
            let safe = at < flushed || (*durable && at + 1 < cut);
            let survives = match loss {
                Loss::All => safe,
                Loss::Nothing => true,
                Loss::Some(_) => safe || random & 1 << 20 != 0,
            };
            if survives {
                let start = offset + i * SECTOR;
                image[start..start + sector.len()].copy_from_slice(sector);
            }
        }
    }
    image
}

/// The losses that are tried at every cut.
pub fn losses(cut: usize) -> impl Iterator<Item = Loss> {
    let seeds = (1..=3u64)
        .map(move |i| Loss::Some((cut as u64 * 5 + i).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    [Loss::All, Loss::Nothing].into_iter().chain(seeds)
}
