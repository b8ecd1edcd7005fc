//! Scripts of allocator operations against what they must print, byte for byte.
//!
//! * The reference's scripts were answered by the original C allocator.
//! * `tests/sim/*.ops` are our own, for what those leave out; their `.out` were reviewed by hand,
//!   and each script says why its output is right. `TIERCE_BLESS=1` rewrites them: review the
//!   difference.

use std::fs;
use std::path::{Path, PathBuf};
use tierce_core::spec::{Set, sim};

/// The scripts of a directory, by name.
fn scripts(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the directory can be read");
    let paths = entries.map(|entry| entry.expect("so can its entries").path());
    let mut scripts: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "ops")).collect();
    scripts.sort();
    scripts
}

/// Runs a script; an error ends the output.
fn answer(script: &Path) -> String {
    let text = fs::read_to_string(script).expect("the script can be read");
    let mut runner = sim::Runner::<Set>::new(sim::Limits::default());
    let mut out = String::new();
    for line in text.lines() {
        if let Err(e) = runner.line(line, &mut out) {
            out.push_str(&format!("error: {e}\n"));
            break;
        }
    }
    out
}

/// The first line in which they differ, if any does.
fn difference(script: &Path, got: &str, wanted: &str) -> Option<String> {
    if got == wanted {
        return None;
    }
    let at = got.lines().zip(wanted.lines()).take_while(|(g, w)| g == w).count();
    let line = |text: &str| text.lines().nth(at).unwrap_or("(end of output)").to_owned();
    let place = format!("{} output line {}", script.display(), at + 1);
    Some(format!("{place}:\n  got    {}\n  wanted {}", line(got), line(wanted)))
}

#[test]
fn the_original_scripts_are_answered_byte_for_byte() {
    let reference = std::env::var("TIERCE_REFERENCE")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared").to_owned());
    let directory = Path::new(&reference).join("conformance");
    if !directory.is_dir() {
        let required = std::env::var("TIERCE_REQUIRE_REFERENCE").is_ok_and(|v| v == "1");
        assert!(!required, "reference absent at {}", directory.display());
        eprintln!("skipped: reference absent at {}", directory.display());
        return;
    }
    let scripts = scripts(&directory);
    assert_eq!(scripts.len(), 13, "the reference has 13 scripts");
    let wanted = |script: &Path| fs::read_to_string(script.with_extension("out")).unwrap();
    let failures: Vec<_> =
        scripts.iter().filter_map(|s| difference(s, &answer(s), &wanted(s))).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn our_own_scripts_are_answered_byte_for_byte() {
    let directory = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim"));
    let scripts = scripts(directory);
    assert!(scripts.len() >= 12, "only {} scripts", scripts.len());
    let mut failures = Vec::new();
    for script in &scripts {
        let got = answer(script);
        let path = script.with_extension("out");
        if std::env::var_os("TIERCE_BLESS").is_some() {
            fs::write(&path, &got).unwrap();
        }
        failures.extend(difference(script, &got, &fs::read_to_string(&path).unwrap()));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
