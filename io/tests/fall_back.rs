//! Where the kernel refuses io_uring, or some of it: everything works all the same, and one line
//! says why. The tests run themselves again as somebody to whom less is allowed.

mod common;

use common::{dir, engines};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use tierce_core::{DeviceIndex, Reserve};
use tierce_io::{
    DeviceExt, DeviceOptions, Engine, Error, FormatOptions, OpenOptions, Pipeline, Request, Volume,
};
use tierce_lockfree::{Allocator, Config};

/// Runs one test of this file again, through these commands, with `variable` set.
fn again(through: &[&str], test: &str, variable: &str, value: &Path) -> std::io::Result<Output> {
    let own = std::env::current_exe().expect("this test");
    let own = own.display().to_string();
    let rest = [&*own, "--exact", "--nocapture", test];
    let all: Vec<&str> = through.iter().copied().chain(rest).collect();
    Command::new(all[0]).args(&all[1..]).env(variable, value).output()
}

/// Through these, a command runs as nobody.
const AS_NOBODY: [&str; 5] =
    ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];

/// A directory that belongs to nobody, outside of what only its builder may enter.
fn nobodys() -> Option<tempfile::TempDir> {
    let dir = tempfile::tempdir().ok()?;
    std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).ok()?;
    Some(dir)
}

/// Whether the test ran again and passed; if it could not be run, says so and passes as well.
fn passed(output: std::io::Result<Output>, last_words: &str) {
    match output {
        Err(error) => eprintln!("skipped: {error}"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            let refused = String::from_utf8_lossy(&output.stderr);
            if refused.contains("ermission denied") && !refused.contains("panicked") {
                return eprintln!("skipped: another user cannot run this test: {refused}");
            }
            assert!(output.status.success() && said.contains(last_words), "{said}{refused}");
        }
    }
}

/// From now on this thread, and those it starts, get EPERM for io_uring_setup, as in a container.
fn refuse_io_uring() {
    const IO_URING_SETUP: u32 = libc::SYS_io_uring_setup as u32;
    let load_number = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let jump_if_equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let end = libc::BPF_RET | libc::BPF_K;
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        step(load_number, 0, 0, 0),
        step(jump_if_equal, 0, 1, IO_URING_SETUP),
        step(end, 0, 0, refuse),
        step(end, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: takes numbers only.
    let result = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program is valid for the duration of the call, which copies it.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Keeps what is logged.
struct Logged(Mutex<Vec<String>>);

impl log::Log for Logged {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().expect("no panic").push(format!("{} {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

static LOGGED: Logged = Logged(Mutex::new(Vec::new()));

/// A whole volume: formatted, opened, worked on with discards, and opened again.
fn use_a_volume(path: &Path) {
    let size = Some(64 << 20);
    let options = FormatOptions::default().size(size).bucket(64 << 10);
    tierce_io::format(path, &options).expect("formats");
    for _ in 0..2 {
        let volume = Volume::open(path, &OpenOptions::default()).expect("opens");
        let device = volume.device().clone();
        let (table, writer) = volume.into_start();
        let config = Config::default().discard(true);
        let started = Allocator::start(config, vec![table]).expect("a valid table");
        let (allocator, mut reclaimers) = started.finish();
        let pipeline = Pipeline::start(reclaimers.remove(0), writer).expect("a thread");
        for _ in 0..50 {
            let bucket = allocator.alloc_until(DeviceIndex::FIRST, Reserve::None, None);
            let bucket = bucket.expect("the device works");
            device.write_at(bucket.first_sector() * 512, &[7; 4096]).expect("it works");
            bucket.written();
        }
        pipeline.close().expect("the device works");
    }
}

#[test]
fn a_filter_that_refuses_io_uring_is_worked_around_and_said_once() {
    const TEST: &str = "a_filter_that_refuses_io_uring_is_worked_around_and_said_once";
    const DIRECTORY: &str = "TIERCE_TEST_SECCOMP";
    if let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) {
        log::set_logger(&LOGGED).expect("the first");
        log::set_max_level(log::LevelFilter::Trace);
        refuse_io_uring();
        use_a_volume(&directory.join("one"));
        use_a_volume(&directory.join("two"));
        let logged = LOGGED.0.lock().expect("no panic");
        assert_eq!(logged.len(), 1, "{logged:?}");
        assert!(logged[0].starts_with("WARN ") && !logged[0].contains('\n'), "{logged:?}");
        assert!(logged[0].contains("io_uring is refused (Operation not permitted"), "{logged:?}");
        let uring = DeviceOptions::default().engine(Engine::Uring);
        let refused = tierce_io::open_device(directory.join("one"), &uring).unwrap_err();
        assert!(matches!(refused, Error::Setup { .. }), "{refused}");
        return println!("fell back");
    }
    let own = dir();
    passed(again(&["env"], TEST, DIRECTORY, own.path()), "fell back");
    match nobodys() {
        Some(dir) => passed(again(&AS_NOBODY, TEST, DIRECTORY, dir.path()), "fell back"),
        None => eprintln!("skipped: not root, so this ran as another user anyway"),
    }
}

/// Somebody who may lock little memory registers fewer buffers, and one who may lock none gets no
/// ring at all; he is told so, and goes on.
#[test]
fn a_small_memlock_limit_registers_fewer_buffers() {
    const TEST: &str = "a_small_memlock_limit_registers_fewer_buffers";
    const FILE: &str = "TIERCE_TEST_MEMLOCK";
    if let Ok(path) = std::env::var(FILE) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let sink = said.clone();
        let options = DeviceOptions::default()
            .on_notice(move |notice| sink.lock().expect("no panic").push(notice.to_string()));
        let device = tierce_io::open_device(path, &options).expect("opens");
        let buffers: Vec<_> = (0..64).map(|_| device.buffer(65536)).collect();
        let registered = buffers.iter().filter(|buffer| buffer.is_registered()).count();
        let said = said.lock().expect("no panic");
        let refused = said.iter().any(|said| said.contains("io_uring is refused ("));
        assert!(said.len() == 1 && (refused || said[0].contains("RLIMIT_MEMLOCK")), "{said:?}");
        assert!(if refused { registered == 0 } else { (1..64).contains(&registered) });
        for mut buffer in buffers {
            buffer.fill(6);
            let buffer = device.submit(Request::write(65536, buffer)).wait().expect("writes");
            let read = device.submit(Request::read(65536, buffer)).wait().expect("reads");
            assert!(read.iter().all(|&byte| byte == 6));
        }
        return println!("{}", if refused { "fell back" } else { "registered some" });
    }
    let Some(dir) = nobodys().filter(|_| engines().len() == 2) else {
        return eprintln!("skipped: needs root and io_uring");
    };
    let path = dir.path().join("file");
    std::fs::File::create(&path).expect("a file").set_len(1 << 20).expect("a sparse file");
    std::os::unix::fs::chown(&path, Some(65534), Some(65534)).expect("root may");
    for (limit, words) in [("3145728", "registered some"), ("0", "fell back")] {
        let limit = format!("--memlock={limit}");
        let through: Vec<_> = AS_NOBODY.into_iter().chain(["prlimit", &*limit]).collect();
        passed(again(&through, TEST, FILE, &path), words);
    }
}
