//! `tierce bench` and `tierce bench report`, with samples too short to mean anything.

use std::path::Path;
use std::process::{Command, Output};

fn tierce(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tierce"));
    command.args(arguments).current_dir(directory).output().expect("it starts")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_run_is_measured_kept_shown_and_compared() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = |json| {
        let quickly = ["--quick", "--seconds", "0.001", "--threads", "1", "--json", json];
        let output = tierce(directory.path(), &[&["bench", "alloc"], &quickly[..]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // No progress where nobody watches.
        assert_eq!(output.stderr, b"");
        stdout(&output)
    };
    let text = run("a.json");
    run("b.json");
    for wanted in ["P1", "P2", "original", "fifo-queue", "verdict", "reached", "clock"] {
        assert!(text.contains(wanted), "{wanted} is missing in\n{text}");
    }
    // A part is measured, so nobody asked for a page.
    assert!(!directory.path().join("report.html").exists());
    let output = tierce(directory.path(), &["bench", "report", "a.json", "--html", "a.html"]);
    assert!(output.status.success());
    let page = std::fs::read_to_string(directory.path().join("a.html")).expect("the page");
    assert!(page.contains("<h1>tierce bench</h1>") && page.contains("P2: pairs per second"));
    let output = tierce(directory.path(), &["bench", "report", "a.json", "b.json"]);
    assert!(output.status.success());
    assert!(stdout(&output).contains("figures in both runs"), "{}", stdout(&output));
    assert!(directory.path().join("report.html").exists());
}

#[test]
fn bad_input_is_refused_in_one_line() {
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::write(directory.path().join("bad.json"), "{}").expect("a file");
    let bad: [(&[&str], &str); 6] = [
        (&["bench", "nothing"], "nothing"),
        (&["bench", "--buckets", "7"], "wanted 1Ki to 64Mi buckets"),
        (&["bench", "--threads", "0"], "wanted 1 to 256 threads"),
        (&["bench", "alloc", "--json", "no/such/place.json"], "cannot write no/such/place.json"),
        (&["bench", "report", "no.json"], "cannot read no.json"),
        (&["bench", "report", "bad.json"], "bad.json: found no run of tierce bench"),
    ];
    for (arguments, wanted) in bad {
        let output = tierce(directory.path(), arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(error.contains(wanted), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
