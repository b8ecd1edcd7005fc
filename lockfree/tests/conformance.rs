//! Scripts of allocator operations, answered by the concurrent allocator through its reclaimer's
//! steps: the reference's, which the original C allocator answered, and core's own, which the
//! executable specification answers.
//!
//! Compared byte for byte, but for the order of `free:` and `discard:` events within a step,
//! which a concurrent allocator does not promise: each line's events of that kind are compared
//! as a set, behind the others in their order.

#![cfg(not(any(tierce_loom, tierce_shuttle)))]

use std::fs;
use std::path::{Path, PathBuf};
use tierce_core::spec::sim;
use tierce_lockfree::sim::Scripted;

/// Where this allocator differs by design: script of core, output line, why.
const BY_DESIGN: [(&str, usize, &str); 1] =
    [("crash", 88, "a start-up cannot be abandoned and gone on with: it is dropped")];

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
    let mut runner = sim::Runner::<Scripted>::new(sim::Limits::default());
    let mut out = String::new();
    for line in text.lines() {
        if let Err(e) = runner.line(line, &mut out) {
            out.push_str(&format!("error: {e}\n"));
            break;
        }
    }
    out
}

/// The line with what may come in any order behind the rest, sorted.
fn settled(line: &str) -> String {
    let words = line.split_inclusive([' ', '[', ']']);
    let loose = |word: &&str| {
        let word = word.trim_start_matches('[');
        word.starts_with("free:") || word.starts_with("discard:")
    };
    let (mut sorted, rest): (Vec<&str>, Vec<&str>) = words.partition(loose);
    let trim = |word: &str| word.trim_end_matches([' ', ']']).to_owned();
    let mut sorted: Vec<_> = sorted.drain(..).map(trim).collect();
    sorted.sort();
    let rest: Vec<_> = rest.iter().map(|word| word.trim_end_matches([' ', ']', '['])).collect();
    format!("{} | {}", rest.join(" "), sorted.join(" "))
}

/// The first line in which they differ, if any does.
fn difference(script: &Path, got: &str, wanted: &str) -> Option<(usize, String)> {
    let mut lines = got.lines().zip(wanted.lines());
    let same = |(got, wanted): &(&str, &str)| settled(got) == settled(wanted);
    let place = |at: usize| format!("{} output line {}", script.display(), at + 1);
    let at = lines.position(|pair| !same(&pair));
    let at = at.or_else(|| {
        let (got, wanted) = (got.lines().count(), wanted.lines().count());
        (got != wanted).then_some(got.min(wanted))
    })?;
    let line = |text: &str| text.lines().nth(at).unwrap_or("(end of output)").to_owned();
    Some((at + 1, format!("{}:\n  got    {}\n  wanted {}", place(at), line(got), line(wanted))))
}

fn compare(directory: &Path) -> usize {
    let (mut failures, mut exact) = (Vec::new(), 0);
    let scripts = scripts(directory);
    for script in &scripts {
        let (got, wanted) = (answer(script), script.with_extension("out"));
        let wanted = fs::read_to_string(wanted).expect("it has an answer");
        exact += usize::from(got == wanted);
        let name = script.file_stem().and_then(|name| name.to_str()).unwrap_or("");
        let by_design = BY_DESIGN.iter().find(|(of, ..)| *of == name).map(|(_, at, _)| *at);
        match difference(script, &got, &wanted) {
            Some((at, _)) if Some(at) == by_design => {}
            Some((_, difference)) => failures.push(difference),
            None if by_design.is_some() => failures.push(format!("{name} no longer differs")),
            None => {}
        }
    }
    println!("{}: {} scripts, {exact} byte for byte", directory.display(), scripts.len());
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
    scripts.len()
}

#[test]
fn the_original_scripts_are_answered() {
    let reference = std::env::var("TIERCE_REFERENCE")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared").to_owned());
    let directory = Path::new(&reference).join("conformance");
    if !directory.is_dir() {
        let required = std::env::var("TIERCE_REQUIRE_REFERENCE").is_ok_and(|v| v == "1");
        assert!(!required, "reference absent at {}", directory.display());
        eprintln!("skipped: reference absent at {}", directory.display());
        return;
    }
    assert_eq!(compare(&directory), 13, "the reference has 13 scripts");
}

#[test]
fn scripts_of_the_specification_are_answered() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../core/tests/sim");
    assert!(compare(Path::new(directory)) >= 12);
}
