//! Queues, pools of rings, polling by the kernel, and ways to discard: the same outcomes by every
//! way to the device.

mod common;

use common::{dir, engines, file, on_every_device, open};
use std::time::Duration;
use tierce_io::{
    DeviceExt, DeviceOptions, DiscardBy, DiscardKind, Engine, Error, Fault, FaultKind, Operation,
    Queue, Request, Sim, SimOptions,
};

const MIB: u64 = 1 << 20;

/// Also if there is something to give back at once: the device is not to be idle meanwhile.
#[test]
fn whoever_polls_gives_the_kernel_what_was_submitted() {
    if !engines().contains(&Engine::Uring) {
        return;
    }
    let dir = dir();
    let path = file(&dir, "polled", MIB);
    let mut queue = Queue::new(open(&path, Engine::Uring), 4);
    // Holes, which are read without waiting: when the first is given back the others are done.
    for block in 0..3 {
        let read = Request::read(block * 4096, queue.buffer(4096));
        assert!(queue.submit(read, block).is_ok());
    }
    queue.wait().expect("three are under way").1.expect("reads");
    let mut written = queue.buffer(4096);
    written.fill(7);
    assert!(queue.submit(Request::write(8 * 4096, written), 9).is_ok());
    queue.poll().expect("two are done").1.expect("reads");
    let sees = || std::fs::read(&path).expect("readable")[8 * 4096] == 7;
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while !sees() {
        assert!(std::time::Instant::now() < until, "the kernel does not have it");
        std::thread::yield_now();
    }
}

#[test]
fn a_queue_does_what_its_device_does() {
    on_every_device(8 * MIB, |path, engine| {
        let device = open(path, engine);
        let mut queue = Queue::new(device.clone(), 16);
        assert_eq!(queue.has_own_ring(), engine == Engine::Uring);
        for round in 0..20u64 {
            for block in 0..16 {
                let mut buffer = queue.buffer(4096 << (block % 6));
                buffer.fill((round + block) as u8);
                let mut write = Request::write(block * 256 * 1024, buffer);
                if block % 5 == 0 {
                    write = write.durable();
                }
                assert!(queue.submit(write, block).is_ok(), "there is room");
            }
            assert!(queue.submit(Request::Flush, 99).is_err(), "it is full");
            let mut tokens: Vec<_> = std::iter::from_fn(|| queue.wait())
                .map(|(token, outcome)| {
                    assert_eq!(outcome.expect("it works").len(), 4096 << (token % 6));
                    token
                })
                .collect();
            tokens.sort_unstable();
            assert!(tokens.into_iter().eq(0..16), "each once");
            for block in 0..16 {
                let read = Request::read(block * 256 * 1024, queue.buffer(4096));
                assert!(queue.submit(read, block).is_ok());
            }
            // Without waiting: it is asked again and again.
            let mut left = 16;
            while left > 0 {
                let Some((block, outcome)) = queue.poll() else { continue };
                let wanted = (round + block) as u8;
                assert!(outcome.expect("it works").iter().all(|&byte| byte == wanted));
                left -= 1;
            }
            assert_eq!((queue.under_way(), queue.poll().is_none()), (0, true));
        }
        assert!(queue.submit(Request::Flush, 1).is_ok());
        assert!(queue.submit(Request::read(100, queue.buffer(4096)), 2).is_ok());
        let mut outcomes = [queue.wait(), queue.wait()].map(|done| done.expect("two are there"));
        outcomes.sort_by_key(|(token, _)| *token);
        assert!(outcomes[0].1.is_ok() && matches!(outcomes[1].1, Err(Error::Misaligned { .. })));
        if device.capabilities().discard != DiscardKind::None {
            assert!(queue.submit(Request::discard(0, MIB), 3).is_ok());
            assert!(queue.wait().is_some_and(|(_, outcome)| outcome.is_ok()));
            assert!(device.read_at(0, 4096).expect("reads").iter().all(|&byte| byte == 0));
        }
        // What is dropped while it is under way is done all the same.
        let mut buffer = queue.buffer(4096);
        buffer.fill(0x77);
        assert!(queue.submit(Request::write(4 * MIB, buffer), 4).is_ok());
        let _: Option<_> = queue.poll();
        drop(queue);
        let read = device.read_at(4 * MIB, 4096).expect("reads");
        assert!(read.iter().all(|&byte| byte == 0x77), "{}: {engine:?}", path.display());
    });
}

#[test]
fn each_thread_has_a_queue_of_its_own() {
    for engine in engines() {
        let dir = dir();
        let device = open(&file(&dir, "queues", 8 * MIB), engine);
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let device = device.clone();
                scope.spawn(move || {
                    let mut queue = Queue::new(device, 4);
                    for round in 0..100u64 {
                        let offset = thread * MIB + round % 16 * 4096;
                        let mut buffer = queue.buffer(4096);
                        buffer.fill((thread * 50 + round) as u8);
                        assert!(queue.submit(Request::write(offset, buffer), round).is_ok());
                        let (_, outcome) = queue.wait().expect("one is under way");
                        let buffer = outcome.expect("it works");
                        assert!(queue.submit(Request::read(offset, buffer), round).is_ok());
                        let (token, outcome) = queue.wait().expect("one is under way");
                        let read = outcome.expect("it works");
                        assert!(token == round && read[0] == (thread * 50 + round) as u8);
                    }
                });
            }
        });
    }
}

/// Through a device without rings an error is an outcome, and a stall is waited for.
#[test]
fn a_queue_on_a_simulated_device_tells_what_it_tells() {
    let sim = Sim::new(&SimOptions::default());
    let mut queue = Queue::new(sim.clone(), 2);
    sim.inject(Fault::new(FaultKind::Io, Operation::Flush, 0));
    sim.inject(Fault::new(FaultKind::Stall, Operation::Read, 0));
    assert!(queue.submit(Request::read(0, queue.buffer(512)), 1).is_ok());
    assert!(queue.submit(Request::Flush, 2).is_ok());
    assert!(matches!(queue.wait(), Some((2, Err(Error::Io { .. })))));
    assert!(queue.poll().is_none(), "it is stalled");
    let resumes = std::thread::spawn(move || sim.resume());
    assert!(matches!(queue.wait(), Some((1, Ok(_)))));
    resumes.join().expect("no panic");
}

fn many_submitters(device: &dyn tierce_io::Device) {
    std::thread::scope(|scope| {
        for thread in 0..6u64 {
            scope.spawn(move || {
                for round in 0..60u64 {
                    let offset = thread * MIB + round * 4096;
                    device.write_at(offset, &[(thread + round) as u8; 4096]).expect("writes");
                    let read = device.read_at(offset, 4096).expect("reads");
                    assert!(read.iter().all(|&byte| u64::from(byte) == thread + round));
                }
                device.flush().expect("flushes");
            });
        }
    });
}

fn threads_named(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("procfs");
    let comm = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
    tasks.flatten().filter_map(|task| comm(task).ok()).filter(|comm| comm.trim() == name).count()
}

#[test]
fn rings_share_the_work_and_end_with_the_device() {
    let dir = dir();
    let path = file(&dir, "rings", 8 * MIB);
    let options = DeviceOptions::default().engine(Engine::Uring).thread_name("t-rings");
    if let Err(error) = tierce_io::open_device(&path, &options) {
        return eprintln!("skipped: {error}");
    }
    let device = tierce_io::open_device(&path, &options.rings(3)).expect("one was not refused");
    // Registered with each of them.
    assert!(format!("{:?}", device.buffer(4096)).contains("registered"));
    assert_eq!(threads_named("t-rings"), 3);
    many_submitters(&*device);
    drop(device);
    assert_eq!(threads_named("t-rings"), 0);
    tierce_io::open_device(&path, &DeviceOptions::default()).expect("nobody uses it");
}

#[test]
fn more_memory_than_there_can_be_is_refused() {
    let dir = dir();
    let path = file(&dir, "buffers", MIB);
    for (buffers, bytes) in [(u32::MAX, 1 << 20), (64, usize::MAX), (1 << 20, 1 << 44)] {
        for engine in [Engine::Auto, Engine::Sync] {
            let options = DeviceOptions::default().engine(engine).buffers(buffers, bytes);
            let refused = tierce_io::open_device(&path, &options);
            assert!(matches!(refused, Err(Error::Setup { .. })), "{refused:?}");
        }
    }
}

#[test]
fn the_kernel_may_poll() {
    let dir = dir();
    let path = file(&dir, "sqpoll", 8 * MIB);
    let options = DeviceOptions::default().engine(Engine::Uring);
    match tierce_io::open_device(&path, &options.sqpoll(Duration::from_millis(1))) {
        Ok(device) => {
            many_submitters(&*device);
            // The kernel's thread sleeps by now, and is woken.
            std::thread::sleep(Duration::from_millis(20));
            many_submitters(&*device);
        }
        Err(error) => eprintln!("skipped: {error}"),
    }
}

#[test]
fn discards_by_blocking_calls_and_not_at_all() {
    on_every_device(4 * MIB, |path, engine| {
        let options = DeviceOptions::default().engine(engine);
        let found = open(path, engine).capabilities().discard;
        let device = tierce_io::open_device(path, &options.clone().discards(DiscardBy::Blocking));
        let device = device.expect("opens");
        let wanted = match found {
            DiscardKind::Command => DiscardKind::Blocking,
            other => other,
        };
        assert_eq!(device.capabilities().discard, wanted);
        if wanted != DiscardKind::None {
            device.write_at(MIB, &[5; 1 << 20]).expect("writes");
            device.discard(MIB, MIB / 2).expect("discards");
            let mut queue = Queue::new(device.clone(), 1);
            assert!(queue.submit(Request::discard(MIB + MIB / 2, 4096), 1).is_ok());
            assert!(queue.wait().is_some_and(|(_, outcome)| outcome.is_ok()));
            let read = device.read_at(MIB, 1 << 20).expect("reads");
            let half = (MIB / 2) as usize;
            assert!(read[..half + 4096].iter().all(|&byte| byte == 0));
            assert!(read[half + 4096..].iter().all(|&byte| byte == 5));
        }
        drop(device);
        let device = tierce_io::open_device(path, &options.discards(DiscardBy::Off));
        let refused = device.expect("opens").discard(0, 4096).expect_err("it is off");
        assert!(matches!(refused, Error::Unsupported { .. }), "{refused}");
    });
}
