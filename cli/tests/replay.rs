//! `tierce replay` as users run it: figures, files left behind, and what is said about bad input.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail them by panicking")]

use std::path::Path;
use std::process::{Command, Output};

/// Runs it in `directory`, on a small cache where none is named.
fn replay(directory: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tierce"));
    command.current_dir(directory).arg("replay").args(args);
    if !args.contains(&"--device") && !args.contains(&"--size") {
        command.args(["--size", "64MiB"]);
    }
    if !args.contains(&"--device") && !args.contains(&"--bucket") {
        command.args(["--bucket", "64KiB"]);
    }
    command.output().unwrap()
}

fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Runs it and returns its one line of complaint.
fn complaint(directory: &Path, args: &[&str]) -> String {
    let before = files(directory);
    let output = replay(directory, args);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {message}");
    assert_eq!(message.lines().count(), 1, "{args:?}: {message}");
    assert_eq!(files(directory), before, "{args:?} left files behind");
    message
}

/// A block trace of `requests` requests, every third a write, in the text format of blkparse.
fn trace(directory: &Path, requests: u64) -> &'static str {
    let line = |i: u64| {
        let kind = if i % 3 == 2 { "W" } else { "R" };
        let start = i * i % 977 * 8;
        format!("8,0 0 {i} 0.{i:09} 7 Q {kind} {start} + 16 [x]\n")
    };
    let text: String = (0..requests).map(line).collect();
    std::fs::write(directory.join("disk.blkparse"), text).unwrap();
    "disk.blkparse"
}

#[test]
fn the_built_in_workload_gives_figures_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let args = ["--requests", "20000", "--verify", "--json", "figures.json", "--policy", "fifo"];
    let output = replay(directory.path(), &args);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for row in ["requests         20,000", "dropped inserts  0", "wrong data       0 (every byte"] {
        assert!(table.contains(row), "{row:?} in {table}");
    }
    assert_eq!(files(directory.path()), ["figures.json"]);

    let json = std::fs::read_to_string(directory.path().join("figures.json")).unwrap();
    let figures: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(figures["requests"], 20_000);
    assert_eq!((&figures["wrong_data"], &figures["dropped_inserts"]), (&0.into(), &0.into()));
    assert_eq!(figures["nbuckets"], 1024);
    assert!(figures["invalidated"].as_u64().unwrap() > 0, "{json}");
    assert!(figures["hit_ratio"].as_f64().unwrap() > 0.2, "{json}");
    assert!(figures["insert_us"]["p99"].as_f64().unwrap() > 0.0, "{json}");
}

#[test]
fn a_line_is_printed_every_so_often_and_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let output = replay(directory.path(), &["--requests", "30000", "--every", "0.05"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let heading = text.lines().next().unwrap();
    for column in ["gets/s", "hits %", "inserts/s", "write MB/s", "get p99", "free none", "waits/s"]
    {
        assert!(heading.contains(column), "{column} in {heading}");
    }
    let is_line = |line: &&str| line.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let (table, _) = text.split_once("\nrequests ").unwrap();
    let lines: Vec<_> = table.lines().filter(is_line).collect();
    assert!(!lines.is_empty(), "{text}");
    let all_same_length = lines.iter().all(|line| line.chars().count() == heading.chars().count());
    assert!(all_same_length, "{text}");
    assert!(text.contains("requests         30,000"), "the figures follow: {text}");

    let complaint = complaint(directory.path(), &["--every", "0"]);
    assert!(complaint.contains("wanted 0.01 to 3600 seconds"), "{complaint}");
}

#[test]
fn a_trace_is_replayed_by_objects_and_by_pages() {
    let directory = tempfile::tempdir().unwrap();
    let trace = trace(directory.path(), 3_000);
    let figures = |args: &[&str]| -> serde_json::Value {
        let output = replay(directory.path(), &[&[trace, "--json", "f.json"], args].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let json = std::fs::read_to_string(directory.path().join("f.json")).unwrap();
        serde_json::from_str(&json).unwrap()
    };
    let objects = figures(&["--verify", "--threads", "2"]);
    assert_eq!((&objects["operations"], &objects["accesses"]), (&3_000.into(), &2_000.into()));
    // FIFO: LRU hardly knows old from new in so young a cache.
    let pages = ["--verify", "--pages", "4KiB", "--threads", "1", "--policy", "fifo"];
    let pages = figures(&pages);
    assert_eq!((&pages["operations"], &pages["accesses"]), (&6_000.into(), &6_000.into()));
    // The cache holds all of it: whatever was touched before is a hit.
    let mut seen = std::collections::HashSet::new();
    let touched = (0..3_000u64).flat_map(|i| [i * i % 977, i * i % 977 + 1]);
    let hits = touched.filter(|&page| !seen.insert(page)).count();
    assert_eq!(pages["hits"], hits);
    assert_eq!(figures(&["--format", "blkparse", "--requests", "10"])["requests"], 10);
}

#[test]
fn a_formatted_device_is_used_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    let options = tierce_io::FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
    tierce_io::format(directory.path().join("cache"), &options).unwrap();
    for _ in 0..2 {
        let args = ["--device", "cache", "--requests", "2000", "--verify"];
        let output = replay(directory.path(), &args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(files(directory.path()), ["cache"]);
    }
}

#[test]
fn bad_input_is_named_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let complaint = |args: &[&str]| complaint(path, args);
    std::fs::write(path.join("text"), "dear reader,\n").unwrap();
    std::fs::write(path.join("cut"), [7u8; 100]).unwrap();
    let long = trace(path, 10);

    assert!(complaint(&["missing"]).starts_with("tierce: trace missing: cannot open it: "));
    assert!(complaint(&["text"]).contains("starts with \"dear reader,\\n\", wanted one of"));
    let cut = complaint(&["cut", "--format", "oracle-general"]);
    assert!(cut.contains("trace cut: byte 96: found the file's end after 4 bytes"), "{cut}");
    assert!(
        complaint(&["text", "--format", "arc"]).contains("text: line 1: found \"dear\", wanted")
    );
    assert!(complaint(&["--device", "missing"]).starts_with("tierce: missing: cannot be opened"));
    assert!(complaint(&["--device", "text"]).contains("run `tierce format text`"));
    assert!(complaint(&["--device", "a", "--device", "b"]).contains("is given 2 times"));
    assert!(complaint(&["--size", "1MiB"]).contains("too small: 1048576 bytes make"));
    assert!(complaint(&["--bucket", "8GiB"]).contains("wanted a power of two from 4 KiB"));
    assert!(complaint(&["--pages", "4KiB"]).contains("wanted a block trace"));
    assert!(complaint(&[long, "--pages", "3000"]).contains("the page size is 3000, wanted"));
    assert!(complaint(&["--threads", "0"]).contains("the number of threads is 0, wanted 1"));
    assert!(complaint(&["--json", "no/such"]).contains("cannot write no/such"));
}

/// Figures are written over figures, not over what they are of.
#[test]
fn figures_destroy_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let options = tierce_io::FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
    tierce_io::format(path.join("cache"), &options).unwrap();
    std::fs::hard_link(path.join("cache"), path.join("again")).unwrap();
    let trace = trace(path, 10);
    let before = std::fs::read(path.join(trace)).unwrap();
    for json in ["cache", "again"] {
        let said = complaint(path, &["--device", "cache", "--json", json]);
        assert!(said.contains(&format!("cannot write {json}: it is what is read")), "{said}");
        let said = complaint(path, &["--json", json]);
        assert!(said.contains(&format!("cannot write {json}: it carries a cache")), "{said}");
    }
    assert!(complaint(path, &[trace, "--json", trace]).contains("it is what is read"));
    assert_eq!(std::fs::read(path.join(trace)).unwrap(), before);
    let used = replay(path, &["--device", "cache", "--requests", "10"]);
    assert!(used.status.success(), "{}", String::from_utf8_lossy(&used.stderr));

    // Nor over others, before there are any.
    std::fs::write(path.join("kept"), "figures, and longer than what comes".repeat(1000)).unwrap();
    complaint(path, &["--device", "missing", "--json", "kept"]);
    assert!(std::fs::read_to_string(path.join("kept")).unwrap().starts_with("figures"));
    let written = replay(path, &["--requests", "10", "--json", "kept"]);
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let kept = std::fs::read_to_string(path.join("kept")).unwrap();
    assert!(serde_json::from_str::<serde_json::Value>(&kept).is_ok(), "{kept}");
}
