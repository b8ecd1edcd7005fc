//! A device by blocking calls: what is left where the kernel refuses io_uring (an older kernel,
//! a container, a seccomp filter).
//!
//! A few threads take requests from one queue and perform them with `pread`, `pwritev2`,
//! `fdatasync`, `fallocate` and `BLKDISCARD`. The queue is one mutex: this is the fall-back, not
//! the fast path. Threads sleep on a condition variable while there is nothing to do.

use crate::buffer::{Buffer, Pool};
use crate::completion::{Completer, Completion, Outcome};
use crate::device::{Capabilities, Device, DiscardKind, Operation, Request, refused};
use crate::ending::join;
use crate::error::Error;
use crate::file::{DeviceFile, DeviceOptions};
use rustix::fs::FallocateFlags;
use rustix::io::{Errno, ReadWriteFlags};
use rustix::ioctl;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How often an interrupted or refused call is made again before its error is reported.
const RETRIES_MAX: u32 = 64;

/// A device driven by blocking calls on threads of its own.
///
/// ```
/// use tierce_io::{DeviceExt, DeviceOptions, Engine};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("cache");
/// std::fs::write(&path, vec![0; 1 << 20])?;
/// let options = DeviceOptions::default().engine(Engine::Sync);
/// let device = tierce_io::open_device(&path, &options)?; // a `SyncIo`
/// device.write_at(4096, &[5; 4096])?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SyncIo {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    file: Arc<DeviceFile>,
    pool: Arc<Pool>,
    queue: Mutex<Queue>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    requests: VecDeque<(Request, Completer)>,
    closed: bool,
}

impl Shared {
    /// No code that can panic runs under the lock, so a poisoned one is still consistent.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut queue = self.lock();
        loop {
            if let Some((request, completer)) = queue.requests.pop_front() {
                drop(queue);
                completer.complete(perform(&self.file, request));
                queue = self.lock();
            } else if queue.closed {
                return;
            } else {
                queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl SyncIo {
    /// Starts the threads for an open file.
    pub(crate) fn start(file: Arc<DeviceFile>, options: &DeviceOptions) -> Result<Self, Error> {
        let pool = Pool::new(options.buffer_bytes, options.buffers);
        let (queue, arrived) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { file, pool, queue, arrived });
        let mut started = Self { shared: shared.clone(), threads: Vec::new() };
        for _ in 0..options.threads {
            let shared = shared.clone();
            let thread = std::thread::Builder::new()
                .name(options.thread_name.to_string())
                .spawn(move || shared.work());
            let thread = thread.map_err(|cause| {
                let device = started.name().clone();
                Error::Setup { device, what: "an I/O thread", cause }
            })?;
            started.threads.push(thread);
        }
        Ok(started)
    }
}

impl Device for SyncIo {
    fn name(&self) -> &Arc<str> {
        &self.shared.file.name
    }

    fn capabilities(&self) -> &Capabilities {
        &self.shared.file.capabilities
    }

    fn buffer(&self, bytes: usize) -> Buffer {
        self.shared.pool.buffer(bytes)
    }

    fn submit(&self, request: Request) -> Completion {
        if let Err(error) = request.check(self.name(), self.capabilities()) {
            return refused(self.name(), error);
        }
        let (completer, completion) = Completer::new(self.name().clone());
        self.shared.lock().requests.push_back((request, completer));
        self.shared.arrived.notify_one();
        completion
    }

    fn perform(&self, request: Request) -> Outcome {
        request.check(self.name(), self.capabilities())?;
        perform(&self.shared.file, request)
    }
}

impl Drop for SyncIo {
    /// Waits until what was submitted is done.
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.arrived.notify_all();
        self.threads.drain(..).for_each(|thread| drop(join(thread)));
    }
}

/// Does an operation on the caller's thread.
pub(crate) fn perform(file: &DeviceFile, mut request: Request) -> Outcome {
    let (operation, offset, bytes) = (request.operation(), request.offset(), request.bytes());
    let failed = |errno: Errno| Error::Io {
        device: file.name.clone(),
        operation,
        offset,
        bytes,
        cause: errno.into(),
    };
    match &mut request {
        Request::Read { offset, buffer } => {
            let offset = *offset;
            let one =
                |done: usize| rustix::io::pread(file, &mut buffer[done..], offset + done as u64);
            transfer(file, operation, offset, bytes, one)?;
        }
        Request::Write { offset, buffer, durable, .. } => {
            let offset = *offset;
            let mut dsync = *durable;
            let one = |done: usize| {
                let rest = [IoSlice::new(&buffer[done..])];
                let at = offset + done as u64;
                if dsync {
                    match rustix::io::pwritev2(file, &rest, at, ReadWriteFlags::DSYNC) {
                        Err(Errno::OPNOTSUPP | Errno::NOSYS) => dsync = false,
                        other => return other,
                    }
                }
                rustix::io::pwrite(file, &buffer[done..], at)
            };
            transfer(file, operation, offset, bytes, one)?;
            if *durable && !dsync {
                retry(|| rustix::fs::fdatasync(file)).map_err(failed)?;
            }
        }
        Request::Flush => retry(|| rustix::fs::fdatasync(file)).map_err(failed)?,
        Request::Discard { offset, bytes } => {
            let (offset, bytes) = (*offset, *bytes);
            retry(|| discard(file, offset, bytes)).map_err(failed)?;
        }
    }
    Ok(request.into_buffer())
}

/// Calls `one(bytes done)` until all is transferred.
fn transfer(
    file: &DeviceFile,
    operation: Operation,
    offset: u64,
    bytes: u64,
    mut one: impl FnMut(usize) -> Result<usize, Errno>,
) -> Result<(), Error> {
    let mut done = 0;
    let block = u64::from(file.capabilities.logical_block);
    while done < bytes {
        let step = retry(|| one(done as usize)).map_err(|errno| Error::Io {
            device: file.name.clone(),
            operation,
            offset: offset + done,
            bytes: bytes - done,
            cause: errno.into(),
        })?;
        done += step as u64;
        // A part of a block is what the end of a file gives.
        if step == 0 || !done.is_multiple_of(block) {
            let device = file.name.clone();
            return Err(Error::Short { device, operation, offset, bytes, done });
        }
    }
    Ok(())
}

/// Again after an interruption, and after `EAGAIN`, which a blocking call gives when the kernel
/// is short of something for a moment.
fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    let mut left = RETRIES_MAX;
    loop {
        match call() {
            Err(Errno::INTR | Errno::AGAIN) if left > 0 => left -= 1,
            other => return other,
        }
    }
}

fn discard(file: &DeviceFile, offset: u64, bytes: u64) -> Result<(), Errno> {
    /// `_IO(0x12, 119)`, from the kernel's `linux/fs.h`.
    const BLKDISCARD: ioctl::Opcode = ioctl::opcode::none(0x12, 119);
    match file.capabilities.discard {
        DiscardKind::Command | DiscardKind::Blocking => {
            // SAFETY: BLKDISCARD takes a pointer to two u64, start and length, and only reads.
            let range = unsafe { ioctl::Setter::<BLKDISCARD, [u64; 2]>::new([offset, bytes]) };
            // SAFETY: the opcode belongs to the argument, see above.
            unsafe { ioctl::ioctl(file, range) }
        }
        DiscardKind::Punch | DiscardKind::None => rustix::fs::fallocate(
            file,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            offset,
            bytes,
        ),
    }
}
