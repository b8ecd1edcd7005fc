//! A ring that belongs to the thread that uses it, without any other thread.

use super::kernel::{Kernel, Reaped, Setup};
use crate::buffer::{Buffer, Pool};
use crate::completion::Outcome;
use crate::device::Request;
use crate::file::DeviceFile;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct OwnRing {
    kernel: Kernel<u64>,
    pool: Arc<Pool>,
    /// Discards that the ring refused, done by blocking calls.
    done: VecDeque<(u64, Outcome)>,
}

impl OwnRing {
    /// For the calling thread, with buffers of its own.
    pub(crate) fn new(file: Arc<DeviceFile>, pool: Arc<Pool>, setup: Setup) -> io::Result<Self> {
        let (kernel, _ready) = Kernel::new(file, pool.clone(), setup, None)?;
        Ok(Self { kernel, pool, done: VecDeque::new() })
    }

    pub(crate) fn buffer(&self, bytes: usize) -> Buffer {
        self.pool.buffer(bytes)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.kernel.is_full()
    }

    pub(crate) fn len(&self) -> usize {
        self.kernel.len() + self.done.len()
    }

    pub(crate) fn begin(&mut self, request: Request, token: u64) {
        if self.kernel.does(&request) {
            self.kernel.begin(request, token);
        } else {
            let outcome = self.kernel.helper().perform(request);
            self.done.push_back((token, outcome));
        }
    }

    /// One that is done; waits for it if told. An error means that the ring is of no use.
    pub(crate) fn take(&mut self, wait: bool) -> io::Result<Option<(u64, Outcome)>> {
        // First, so that the device is busy while the caller looks at what it gets.
        if self.kernel.has_begun() {
            self.kernel.enter(0)?;
        }
        loop {
            if let Some(done) = self.done.pop_front().or_else(|| self.reap()) {
                return Ok(Some(done));
            }
            let waits = wait && !self.kernel.is_empty();
            self.kernel.enter(usize::from(waits))?;
            let done = self.reap().or_else(|| self.done.pop_front());
            // What was continued is not done yet.
            if done.is_some() || !waits {
                return Ok(done);
            }
        }
    }

    /// The tokens of what the kernel has; it is answered no more.
    pub(crate) fn abandon(mut self) -> impl Iterator<Item = u64> {
        let own: Vec<_> = self.done.drain(..).map(|(token, _)| token).collect();
        self.kernel.abandon().into_iter().chain(own)
    }

    fn reap(&mut self) -> Option<(u64, Outcome)> {
        let done = &mut self.done;
        let reaped = self.kernel.reap(|helper, request, token| {
            done.push_back((token, helper.perform(request)));
        })?;
        match reaped {
            Reaped::Done(token, outcome) => Some((token, outcome)),
            Reaped::Own(_) => unreachable!("it has no entries of its own"),
        }
    }
}

impl Drop for OwnRing {
    /// Waits until the kernel has nothing of it any more.
    fn drop(&mut self) {
        while !self.kernel.is_empty() {
            if self.take(true).is_err() {
                return; // what the kernel has is leaked
            }
        }
        self.kernel.let_go();
    }
}
