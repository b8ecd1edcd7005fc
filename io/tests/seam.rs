//! The contract of `Device`, checked with the same body on every implementation and kind of
//! device: transfers, refusals, short reads, owned buffers, many submitters.

mod common;

use common::{dir, engines, file, on_every_device, open};
use std::sync::{Arc, Mutex};
use tierce_io::{
    Buffer, Completion, DeviceExt, DeviceOptions, DiscardKind, Engine, Error, Operation, Request,
};

const MIB: u64 = 1 << 20;

fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|i| (i ^ i >> 8 ^ seed.wrapping_mul(31)) as u8).collect()
}

#[test]
fn what_was_written_is_read() {
    on_every_device(8 * MIB, |path, engine| {
        let device = open(path, engine);
        let block = device.capabilities().logical_block as usize;
        assert_eq!(device.capabilities().bytes, 8 * MIB);
        // From a single block to more than a pool buffer holds.
        for (place, bytes) in [(0, block), (1, 4096), (2, 65536), (3, 1 << 20), (4, 3 * block)] {
            let offset = place * MIB + block as u64;
            let data = pattern(place, bytes);
            device.write_at(offset, &data).unwrap();
            assert_eq!(device.read_at(offset, bytes).unwrap()[..], data[..]);
        }
        device.flush().unwrap();
        let mut buffer = device.buffer(block);
        buffer.fill(9);
        device.submit(Request::write(0, buffer).durable()).wait().unwrap();
        drop(device);
        let again = open(path, engine);
        assert!(again.read_at(0, block).unwrap().iter().all(|&byte| byte == 9));
        let data = pattern(3, 1 << 20);
        assert_eq!(again.read_at(3 * MIB + block as u64, 1 << 20).unwrap()[..], data[..]);
    });
}

#[test]
fn discarded_ranges_read_as_zeros_on_files_and_loop_devices() {
    on_every_device(4 * MIB, |path, engine| {
        let device = open(path, engine);
        if device.capabilities().discard == DiscardKind::None {
            eprintln!("skipped: {} does not discard", path.display());
            return;
        }
        device.write_at(MIB, &pattern(1, 1 << 20)).unwrap();
        device.discard(MIB, MIB / 2).unwrap();
        assert!(device.read_at(MIB, 1 << 19).unwrap().iter().all(|&byte| byte == 0));
        let rest = device.read_at(MIB + MIB / 2, 1 << 19).unwrap();
        assert_eq!(rest[..], pattern(1, 1 << 20)[1 << 19..]);
    });
}

#[test]
fn refusals_name_the_request_and_change_nothing() {
    on_every_device(MIB, |path, engine| {
        let device = open(path, engine);
        let e = device.submit(Request::read(100, Buffer::new(4096))).wait().unwrap_err();
        assert!(matches!(e, Error::Misaligned { operation: Operation::Read, offset: 100, .. }));
        let e = device.write_at(0, &[1; 100]).unwrap_err();
        assert!(matches!(e, Error::Misaligned { bytes: 100, .. }));
        let e = device.write_at(MIB, &[1; 4096]).unwrap_err();
        assert!(matches!(e, Error::Range { device_bytes: MIB, .. }));
        let e = device.read_at(u64::MAX - 4095, 8192).unwrap_err();
        assert!(matches!(e, Error::Range { .. }), "the end overflows: {e}");
        let e = device.discard(MIB - 4096, 8192).unwrap_err();
        assert!(matches!(e, Error::Range { operation: Operation::Discard, .. }));
        assert!(e.to_string().contains(&*path.display().to_string()), "{e}");
        assert!(device.read_at(0, 1 << 20).unwrap().iter().all(|&byte| byte == 0));
        assert_eq!(std::fs::metadata(path).unwrap().len() % MIB, 0, "a file must not grow");
    });
}

#[test]
fn a_device_that_shrank_gives_a_short_read_not_zeros() {
    for engine in engines() {
        let dir = dir();
        let path = file(&dir, "shrinks", MIB);
        let device = open(&path, engine);
        let writable = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        for (left, done) in [(MIB / 2 + 8192, 8192), (MIB / 2, 0)] {
            writable.set_len(left).unwrap();
            let e = device.read_at(MIB / 2, 65536).unwrap_err();
            let Error::Short { offset, bytes, done: found, .. } = e else { panic!("{e}") };
            assert_eq!((offset, bytes, found), (MIB / 2, 65536, done));
        }
    }
}

/// The kernel's own error reaches the caller with its cause. A full file system under a sparse
/// file would do as well, but cannot be had everywhere; a read-only descriptor can.
#[test]
fn errors_of_the_kernel_are_reported_with_their_place() {
    for engine in engines() {
        let dir = dir();
        let path = file(&dir, "read-only", MIB);
        let options = DeviceOptions::default().engine(engine);
        let options = options.access(tierce_io::Access::ReadOnly);
        let device = tierce_io::open_device(&path, &options).unwrap();
        let e = device.write_at(8192, &[1; 4096]).unwrap_err();
        let Error::Io { operation, offset, bytes, cause, .. } = &e else { panic!("{e}") };
        assert_eq!((*operation, *offset, *bytes), (Operation::Write, 8192, 4096));
        assert_eq!(cause.raw_os_error(), Some(9), "EBADF: {e}");
        assert!(e.to_string().starts_with(&*path.display().to_string()), "{e}");
    }
}

#[test]
fn dropped_completions_do_their_work_and_give_their_buffers_back() {
    on_every_device(4 * MIB, |path, engine| {
        let options = DeviceOptions::default().engine(engine).buffers(8, 65536);
        let device = tierce_io::open_device(path, &options).unwrap();
        for round in 0..200u64 {
            let mut write = device.buffer(65536);
            write.fill(round as u8);
            drop(device.submit(Request::write(round % 8 * 65536, write)));
            drop(device.submit(Request::read(MIB, device.buffer(65536))));
        }
        drop(device); // waits for all of it
        let device = open(path, engine);
        for place in 0..8u64 {
            // Writes to one place under way together land in any order, but each as a whole
            // sector: what is there is one of the values written there.
            let found = device.read_at(place * 65536, 65536).unwrap();
            assert!(found.iter().all(|&byte| u64::from(byte) % 8 == place));
        }
    });
}

#[test]
fn many_threads_submit_at_once() {
    on_every_device(16 * MIB, |path, engine| {
        // Fewer slots and buffers than requests, so that both run out.
        let options = DeviceOptions::default().engine(engine).queue_depth(4).buffers(3, 4096);
        let device = tierce_io::open_device(path, &options).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let device = &device;
                scope.spawn(move || {
                    let base = thread * 2 * MIB;
                    for round in 0..20u64 {
                        let writes: Vec<Completion> = (0..16u64)
                            .map(|i| {
                                let mut buffer = device.buffer(4096);
                                buffer.fill((thread * 16 + i + round) as u8);
                                device.submit(Request::write(base + i * 4096, buffer))
                            })
                            .collect();
                        for write in writes {
                            write.wait().unwrap();
                        }
                        for i in 0..16u64 {
                            let found = device.read_at(base + i * 4096, 4096).unwrap();
                            let wanted = (thread * 16 + i + round) as u8;
                            assert!(found.iter().all(|&byte| byte == wanted));
                        }
                    }
                    device.flush().unwrap();
                });
            }
        });
    });
}

/// A future: polled by an executor of ten lines.
#[test]
fn completions_are_futures() {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
        let waker = Arc::new(Unpark(std::thread::current())).into();
        let mut context = std::task::Context::from_waker(&waker);
        loop {
            if let std::task::Poll::Ready(output) =
                std::pin::Pin::new(&mut future).poll(&mut context)
            {
                return output;
            }
            std::thread::park();
        }
    }
    for engine in engines() {
        let dir = dir();
        let device = open(&file(&dir, "future", MIB), engine);
        block_on(device.submit(Request::write(0, Buffer::new(4096)))).unwrap();
        block_on(device.submit(Request::Flush)).unwrap();
    }
}

#[test]
fn registered_buffers_come_first_and_others_work_too() {
    let dir = dir();
    let path = file(&dir, "buffers", MIB);
    let options = DeviceOptions::default().engine(Engine::Uring).buffers(2, 4096);
    let device = match tierce_io::open_device(&path, &options) {
        Ok(device) => device,
        Err(error) => return eprintln!("skipped: {error}"),
    };
    let buffers: Vec<Buffer> = (0..3).map(|_| device.buffer(4096)).collect();
    assert_eq!(buffers.iter().filter(|b| b.is_registered()).count(), 2);
    // A buffer of another device's ring is not taken for one of this ring's.
    let other = tierce_io::open_device(file(&dir, "other", MIB), &options).unwrap();
    for (i, mut buffer) in (0u64..).zip(buffers) {
        buffer.fill(i as u8 + 1);
        other.submit(Request::write(i * 4096, buffer)).wait().unwrap();
    }
    for i in 0..3u64 {
        let found = other.read_at(i * 4096, 4096).unwrap();
        assert!(found.iter().all(|&byte| u64::from(byte) == i + 1));
    }
}

/// A ring that the kernel refuses: here because it is too large, the same path as a seccomp
/// filter's EPERM.
#[test]
fn a_refused_ring_falls_back_and_says_why_once() {
    let dir = dir();
    let path = file(&dir, "fall-back", MIB);
    let said = Arc::new(Mutex::new(Vec::new()));
    let sink = said.clone();
    let options = DeviceOptions::default()
        .queue_depth(1 << 20)
        .on_notice(move |notice| sink.lock().unwrap().push(notice.to_string()));
    let device = tierce_io::open_device(&path, &options).unwrap();
    device.write_at(0, &[3; 4096]).unwrap();
    assert_eq!(device.read_at(0, 4096).unwrap()[..], [3; 4096]);
    let said = said.lock().unwrap();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains("io_uring is refused (") && !said[0].contains('\n'), "{said:?}");
    drop(device);
    let error = tierce_io::open_device(&path, &options.clone().engine(Engine::Uring)).unwrap_err();
    assert!(matches!(error, Error::Setup { .. }), "{error}");
}

/// A request that arrives just when the ring's thread goes to sleep, over and over.
#[test]
fn no_request_is_overlooked_by_a_thread_going_to_sleep() {
    // In memory where that is possible: the shorter an operation, the closer the race.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| dir());
    let path = file(&dir, "race", MIB);
    for engine in engines() {
        let device = open(&path, engine);
        let mut buffer = device.buffer(4096);
        for round in 0..20_000 {
            let read = device.submit(Request::read(0, buffer));
            // Not asleep when it is done, so that the next one follows at once.
            let started = std::time::Instant::now();
            while !read.is_done() {
                std::hint::spin_loop();
                assert!(started.elapsed().as_secs() < 30, "{engine:?}: overlooked in {round}");
            }
            buffer = read.wait().unwrap();
        }
    }
}
