//! The operations that the kernel has at the moment, and what each still has to do.

use crate::buffer::{Buffer, Pool};
use crate::completion::Outcome;
use crate::device::{Capabilities, DiscardKind, Operation, Request};
use crate::error::Error;
use io_uring::{opcode, squeue, types};
use rustix::io::Errno;
use std::io;
use std::sync::Arc;

/// How often an operation that the kernel refused for the moment is given to it again.
const RETRIES_MAX: u32 = 64;
/// The most that one submission transfers; a longer operation is continued.
const STEP_BYTES_MAX: usize = 1 << 30;
/// The device among the ring's registered files.
pub(super) const DEVICE: types::Fixed = types::Fixed(0);
/// `_IO(0x12, 0)`, BLOCK_URING_CMD_DISCARD from the kernel's `linux/blkdev.h`, Linux 6.12.
const DISCARD_COMMAND: u32 = 0x12 << 8;
const RWF_DSYNC: i32 = rustix::io::ReadWriteFlags::DSYNC.bits() as i32;

/// An operation under way. `T` says whose it is.
#[derive(Debug)]
pub(super) struct Flight<T> {
    request: Request,
    whose: T,
    /// Bytes transferred so far.
    done: usize,
    retries: u32,
    /// Let a kernel thread do it: its first try without blocking was refused.
    force_async: bool,
    sync: Sync,
}

/// How a durable write becomes durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sync {
    /// Not a durable write.
    None,
    /// With the write itself.
    Dsync,
    /// The file has no `RWF_DSYNC`: by a flush when the transfer is done.
    Later,
    /// That flush is under way.
    Now,
}

/// What a completion means for its operation.
#[must_use]
#[derive(Debug)]
pub(super) enum Next {
    /// It is not done: submit it again.
    Again,
    /// It is done, well or not.
    Done(Result<(), Error>),
    /// The ring cannot do it; blocking calls may.
    Elsewhere,
}

impl<T> Flight<T> {
    pub(super) fn new(request: Request, whose: T) -> Self {
        let sync = match request {
            Request::Write { durable: true, .. } => Sync::Dsync,
            _ => Sync::None,
        };
        Self { request, whose, done: 0, retries: 0, force_async: false, sync }
    }

    /// Ends it.
    pub(super) fn finish(self, result: Result<(), Error>) -> (T, Outcome) {
        let (request, whose) = self.into_parts();
        (whose, result.map(|()| request.into_buffer()))
    }

    pub(super) fn into_parts(self) -> (Request, T) {
        (self.request, self.whose)
    }

    /// Ends it without its buffer, which the kernel may still write to: that is leaked.
    fn abandon(self) -> T {
        std::mem::forget(self.request.into_buffer());
        self.whose
    }

    /// What is to be submitted now.
    pub(super) fn entry(&self, pool: &Arc<Pool>, capabilities: &Capabilities) -> squeue::Entry {
        let entry = match &self.request {
            Request::Read { offset, buffer } => {
                let (start, len) = self.rest(buffer);
                let offset = offset + self.done as u64;
                if buffer.is_registered_in(pool) {
                    opcode::ReadFixed::new(DEVICE, start, len, 0).offset(offset).build()
                } else {
                    opcode::Read::new(DEVICE, start, len).offset(offset).build()
                }
            }
            Request::Write { .. } | Request::Flush if self.is_flush() => {
                opcode::Fsync::new(DEVICE).flags(types::FsyncFlags::DATASYNC).build()
            }
            Request::Write { offset, buffer, class, .. } => {
                let (start, len) = self.rest(buffer);
                let stream = class.stream(capabilities.write_streams);
                let offset = offset + self.done as u64;
                let flags = if self.sync == Sync::Dsync { RWF_DSYNC } else { 0 };
                if buffer.is_registered_in(pool) {
                    let write = opcode::WriteFixed::new(DEVICE, start, len, 0);
                    write.offset(offset).rw_flags(flags).write_stream(stream).build()
                } else {
                    let write = opcode::Write::new(DEVICE, start, len);
                    write.offset(offset).rw_flags(flags).write_stream(stream).build()
                }
            }
            Request::Flush => unreachable!("a flush is a flush"),
            Request::Discard { offset, bytes } => discard(*offset, *bytes, capabilities.discard),
        };
        if self.force_async { entry.flags(squeue::Flags::ASYNC) } else { entry }
    }

    fn is_flush(&self) -> bool {
        matches!(self.request, Request::Flush) || self.sync == Sync::Now
    }

    /// Start and length of what is not transferred yet.
    fn rest(&self, buffer: &Buffer) -> (*mut u8, u32) {
        let rest = (buffer.len() - self.done).min(STEP_BYTES_MAX);
        let start = buffer.start().as_ptr().wrapping_add(self.done);
        (start, u32::try_from(rest).expect("STEP_BYTES_MAX fits"))
    }

    /// Takes note of what the kernel answered: bytes, or a negated errno.
    pub(super) fn complete(&mut self, device: &Arc<str>, block: u32, answer: i32) -> Next {
        if answer < 0 {
            return self.refused(device, -answer);
        }
        if self.is_flush() || self.request.operation() == Operation::Discard {
            return Next::Done(Ok(()));
        }
        let step = answer.unsigned_abs() as usize;
        self.done += step;
        self.retries = 0;
        let bytes = self.request.bytes();
        let done = self.done as u64;
        assert!(done <= bytes, "the kernel transfers no more than it was asked");
        if done == bytes {
            if self.sync == Sync::Later {
                self.sync = Sync::Now;
                return Next::Again;
            }
            return Next::Done(Ok(()));
        }
        // A part of a block is what the end of a file gives.
        if step == 0 || !done.is_multiple_of(u64::from(block)) {
            let (operation, offset) = (self.request.operation(), self.request.offset());
            let device = device.clone();
            return Next::Done(Err(Error::Short { device, operation, offset, bytes, done }));
        }
        Next::Again
    }

    fn refused(&mut self, device: &Arc<str>, errno: i32) -> Next {
        let error = Errno::from_raw_os_error(errno);
        let for_now = matches!(error, Errno::AGAIN | Errno::INTR);
        if for_now && self.retries < RETRIES_MAX {
            self.retries += 1;
            self.force_async = true;
            return Next::Again;
        }
        if error == Errno::OPNOTSUPP && self.sync == Sync::Dsync {
            self.sync = Sync::Later;
            return Next::Again;
        }
        let refused = matches!(error, Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL);
        if refused && self.request.operation() == Operation::Discard {
            // Some drivers discard only where they may block, and before Linux 6.12 the command
            // is not known.
            if self.force_async {
                return Next::Elsewhere;
            }
            self.force_async = true;
            return Next::Again;
        }
        let operation = if self.is_flush() { Operation::Flush } else { self.request.operation() };
        Next::Done(Err(Error::Io {
            device: device.clone(),
            operation,
            offset: self.request.offset() + self.done as u64,
            bytes: self.request.bytes() - self.done as u64,
            cause: io::Error::from_raw_os_error(errno),
        }))
    }
}

fn discard(offset: u64, bytes: u64, kind: DiscardKind) -> squeue::Entry {
    if kind == DiscardKind::Command {
        let mut command = [0; 16];
        command[..8].copy_from_slice(&bytes.to_le_bytes());
        let entry = opcode::UringCmd16::new(DEVICE, DISCARD_COMMAND);
        return entry.cmd(command).addr(Some(offset)).build();
    }
    use rustix::fs::FallocateFlags;
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    opcode::Fallocate::new(DEVICE, bytes).offset(offset).mode(mode.bits() as i32).build()
}

/// The slots of the operations under way; a slot's number is the ring's user data.
#[derive(Debug)]
pub(super) struct Flights<T> {
    slots: Vec<Option<Flight<T>>>,
    free: Vec<usize>,
}

impl<T> Flights<T> {
    pub(super) fn new(depth: u32) -> Self {
        let depth = depth as usize;
        Self { slots: (0..depth).map(|_| None).collect(), free: (0..depth).rev().collect() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes it in, if not [full](Self::is_full), and says where.
    pub(super) fn insert(&mut self, flight: Flight<T>) -> usize {
        let slot = self.free.pop().expect("the caller looked whether there is room");
        self.slots[slot] = Some(flight);
        slot
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> &mut Flight<T> {
        self.slots[slot].as_mut().expect("the kernel completes what it was given, once")
    }

    pub(super) fn remove(&mut self, slot: usize) -> Flight<T> {
        let flight = self.slots[slot].take().expect("the kernel completes what it was given, once");
        self.free.push(slot);
        flight
    }
}

impl<T> Flights<T> {
    /// Leaks the buffers of all that is under way, and says whose they are.
    pub(super) fn abandon(&mut self) -> Vec<T> {
        self.slots.drain(..).flatten().map(Flight::abandon).collect()
    }
}

impl<T> Drop for Flights<T> {
    /// Not empty only after a failure of the ring or a panic: then the kernel may still write to
    /// the buffers (Invariant 1 of `kernel.rs`).
    fn drop(&mut self) {
        drop(self.abandon());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::{Completer, Completion};

    fn flight(request: Request) -> (Flight<Completer>, Completion) {
        let (completer, completion) = Completer::new("dev".into());
        (Flight::new(request, completer), completion)
    }

    #[test]
    fn short_transfers_are_continued_and_the_end_is_reported() {
        let device: Arc<str> = "dev".into();
        let (mut read, _completion) = flight(Request::read(8192, Buffer::new(8192)));
        assert!(matches!(read.complete(&device, 512, 4096), Next::Again));
        assert!(matches!(read.complete(&device, 512, 512), Next::Again));
        let Next::Done(Err(error)) = read.complete(&device, 512, 0) else { panic!("must end") };
        assert!(matches!(error, Error::Short { done: 4608, .. }), "{error}");

        let (mut write, completion) = flight(Request::write(0, Buffer::new(8192)));
        assert!(matches!(write.complete(&device, 512, 4096), Next::Again));
        let Next::Done(result) = write.complete(&device, 512, 4096) else { panic!("must end") };
        let (completer, outcome) = write.finish(result);
        completer.complete(outcome);
        assert_eq!(completion.wait().unwrap().len(), 8192);
    }

    #[test]
    fn refusals_for_the_moment_are_retried_but_not_for_ever() {
        let device: Arc<str> = "dev".into();
        let again = Errno::AGAIN.raw_os_error();
        let (mut read, _completion) = flight(Request::read(0, Buffer::new(4096)));
        for _ in 0..RETRIES_MAX {
            assert!(matches!(read.complete(&device, 512, -again), Next::Again));
        }
        let Next::Done(Err(error)) = read.complete(&device, 512, -again) else {
            panic!("must end");
        };
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }

    /// A file without `RWF_DSYNC`: the write is repeated without, then flushed.
    #[test]
    fn a_durable_write_is_flushed_where_dsync_is_refused() {
        let device: Arc<str> = "dev".into();
        let (mut write, _completion) = flight(Request::write(0, Buffer::new(4096)).durable());
        let refused = -Errno::OPNOTSUPP.raw_os_error();
        assert!(matches!(write.complete(&device, 512, refused), Next::Again));
        assert!(!write.is_flush());
        assert!(matches!(write.complete(&device, 512, 4096), Next::Again));
        assert!(write.is_flush());
        assert!(matches!(write.complete(&device, 512, 0), Next::Done(Ok(()))));
    }

    /// Command, command where the driver may block, and then not by the ring.
    #[test]
    fn a_discard_that_is_refused_is_tried_in_order() {
        let device: Arc<str> = "dev".into();
        for errno in [Errno::OPNOTSUPP, Errno::INVAL] {
            let refused = -errno.raw_os_error();
            let (mut discard, _completion) = flight(Request::discard(0, 4096));
            assert!(matches!(discard.complete(&device, 512, refused), Next::Again));
            assert!(discard.force_async);
            assert!(matches!(discard.complete(&device, 512, refused), Next::Elsewhere));
        }
        let (mut discard, _completion) = flight(Request::discard(0, 4096));
        let failed = -Errno::IO.raw_os_error();
        assert!(matches!(discard.complete(&device, 512, failed), Next::Done(Err(_))));
    }

    #[test]
    fn flights_that_the_kernel_keeps_are_answered_and_their_memory_leaked() {
        let pool = Pool::new(4096, 1);
        let (read, completion) = flight(Request::read(0, pool.buffer(4096)));
        let mut flights = Flights::new(1);
        flights.insert(read);
        drop(flights);
        assert!(matches!(completion.wait(), Err(Error::Closed { .. })));
        assert_eq!(pool.free(), 0, "the chunk must not be used again");
    }
}
