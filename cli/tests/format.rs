//! `tierce format` as a user runs it: what it makes, what it refuses, and its exit codes.

use std::path::Path;
use std::process::{Command, Output};

fn format(path: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tierce"));
    command.arg("format").arg(path).args(args).output().expect("the command runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_new_file_is_formatted_and_shown() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("cache");
    let args = ["--size", "64MiB", "--bucket", "64KiB", "--policy", "fifo", "--label", "mine"];
    let output = format(&path, &args);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    let wanted = format!("{}: 1024 buckets of 64.0 KiB, blocks of 4.0 KiB, fifo", path.display());
    assert!(said.starts_with(&wanted), "{said}");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 64 << 20);

    let again = format(&path, &["--bucket", "64KiB"]);
    assert_eq!(again.status.code(), Some(1));
    let said = stderr(&again);
    assert!(said.starts_with("tierce: ") && said.contains("never used"), "{said}");
    assert!(said.contains("--force") && said.trim_end().lines().count() == 1, "{said}");
    assert!(format(&path, &["--bucket", "64KiB", "--force"]).status.success());
}

#[test]
fn refusals_are_one_line_and_leave_nothing() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("cache");
    for (args, words) in [
        (&[][..], "give a size to create it"),
        (&["--size", "64MiB"], "too small"),
        (
            &["--size", "64MiB", "--bucket", "60KiB"],
            "the bucket is 61440, wanted a power of two, 4096 to 134217728 bytes",
        ),
        (
            &["--size", "64MiB", "--bucket", "64KiB", "--block", "8KiB"],
            "the block is 8192, wanted a power of two, 512 to 4096 bytes",
        ),
        (&["--size", "64MiB", "--bucket", "8GiB"], "--bucket is 8.0 GiB"),
    ] {
        let output = format(&path, args);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words) && said.trim_end().lines().count() == 1, "{said}");
        assert!(!path.exists(), "{said}");
    }
    let usage = format(&path, &["--policy", "mru"]);
    let said = stderr(&usage);
    assert_eq!(usage.status.code(), Some(1), "{said}");
    assert!(said.contains("the policy must be lru, fifo or random"));
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
}

/// What somebody keeps in a file is not lost by a wrong name, whatever it is.
#[test]
fn a_file_with_anything_in_it_is_overwritten_only_if_told() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("archive");
    for at in [0, 70_000, (64 << 20) - 1] {
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(64 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"x", at).unwrap();
        let output = format(&path, &["--bucket", "64KiB"]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("(at byte {at})")) && said.contains("--force"), "{said}");
        let mut byte = [0];
        std::os::unix::fs::FileExt::read_exact_at(
            &std::fs::File::open(&path).unwrap(),
            &mut byte,
            at,
        )
        .unwrap();
        assert_eq!(&byte, b"x", "it is still there");
        assert!(format(&path, &["--bucket", "64KiB", "--force"]).status.success());
    }
}

/// Nobody reads what it says, or nobody can: the exit code tells which.
#[test]
fn what_cannot_be_printed_is_no_panic() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("cache");
    let path = path.to_str().unwrap();
    let format = ["format", path, "--force", "--size", "64MiB", "--bucket", "64KiB"];
    for args in [&format[..], &["crash", "--seeds", "1"], &["replay", "--requests", "1"]] {
        let command = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_tierce"));
            command.args(args).current_dir(directory.path());
            command
        };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let closed = command().stdout(writer).output().unwrap();
        assert!(closed.status.success(), "{args:?}: {}", stderr(&closed));
        let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
        let told = command().stdout(full()).output().unwrap();
        let said = stderr(&told);
        assert_eq!(told.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.starts_with("tierce: stdout: No space left"), "{args:?}: {said}");
        let silent = command().stdout(full()).stderr(full()).status().unwrap();
        assert_eq!(silent.code(), Some(1), "{args:?}");
    }
}
