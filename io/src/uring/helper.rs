//! A thread for discards that a ring does not do: `BLKDISCARD`, which blocks.
//!
//! It is started by the first of them and ends with the ring. Where no thread can be had, the
//! discard fails: nothing depends on it.

use crate::completion::Completer;
use crate::device::Request;
use crate::ending::join;
use crate::error::Error;
use crate::file::DeviceFile;
use crate::sync_io::perform;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

type Work = (Request, Completer);

#[derive(Debug)]
pub(super) struct Helper {
    file: Arc<DeviceFile>,
    thread: Option<(Sender<Work>, JoinHandle<()>)>,
}

impl Helper {
    pub(super) fn new(file: Arc<DeviceFile>) -> Self {
        Self { file, thread: None }
    }

    /// Has it done.
    pub(super) fn send(&mut self, request: Request, completer: Completer) {
        if self.thread.is_none() {
            match self.start() {
                Ok(thread) => self.thread = Some(thread),
                Err(cause) => {
                    let (device, what) = (self.file.name.clone(), "the thread for discards");
                    return completer.complete(Err(Error::Setup { device, what, cause }));
                }
            }
        }
        if let Some((sender, _)) = &self.thread {
            // Whatever cannot be sent is dropped, and so answered.
            drop(sender.send((request, completer)));
        }
    }

    fn start(&self) -> std::io::Result<(Sender<Work>, JoinHandle<()>)> {
        let (sender, receiver) = channel::<Work>();
        let file = self.file.clone();
        let work = move || {
            for (request, completer) in receiver {
                completer.complete(perform(&file, request));
            }
        };
        let thread = std::thread::Builder::new().name("tierce-discard".into()).spawn(work)?;
        Ok((sender, thread))
    }

    /// On the caller's own thread.
    pub(super) fn perform(&self, request: Request) -> crate::Outcome {
        perform(&self.file, request)
    }

    /// Waits until all is done.
    pub(super) fn join(&mut self) {
        if let Some((sender, thread)) = self.thread.take() {
            drop(sender);
            let _ = join(thread);
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.join();
    }
}
