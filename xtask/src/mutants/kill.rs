//! Building the code with one break and running the test that must notice.
//!
//! Tests and models get the break through a compiler wrapper for workspace members, one small
//! script per break, so that the dependencies are built once and not once per break. A fuzz
//! crate is a workspace of its own, of which the attacked package is no member; there the break
//! travels in `RUSTFLAGS`.

use super::list::{Kill, Mutant};
use crate::fuzz::{self, Target};
use crate::place;
use crate::run::{self, Output, Show};
use crate::suites::Tests;
use crate::{loom, shuttle, tally};
use anyhow::{Context, Result, bail, ensure};
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What became of a break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The test failed.
    Killed,
    /// The test passed.
    Survived,
    /// The test did not end.
    Hung,
    /// The code does not build with it.
    DoesNotBuild,
    /// The test failed without having run.
    NothingRan,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Killed => "killed",
            Self::Survived => "SURVIVED",
            Self::Hung => "hung",
            Self::DoesNotBuild => "DOES NOT BUILD",
            Self::NothingRan => "NOTHING RAN",
        })
    }
}

/// Runs every test that is to kill something on the code as it is. Each must pass; how long
/// each may take with a break follows from how long it took without.
pub(crate) fn baseline(mutants: &[Mutant]) -> Result<HashMap<Kill, Duration>> {
    let mut limits = HashMap::new();
    for Mutant { kill, .. } in mutants {
        if limits.contains_key(kill) {
            continue;
        }
        let built = build(kill, None)?;
        ensure!(built.status.success(), "without any break: {kill} does not build\n{}", built.text);
        let started = Instant::now();
        let (verdict, output) = execute(kill, None, None)?;
        let took = started.elapsed();
        if verdict != Verdict::Survived {
            bail!("without any break: {kill}: {verdict}\n{}", output.text);
        }
        println!("{:<18} {:>7.1} s  {kill}", "passes as it is", took.as_secs_f64());
        limits.insert(kill.clone(), took * 10 + Duration::from_secs(30));
    }
    Ok(limits)
}

/// Tries to kill one break.
pub(crate) fn attempt(mutant: &Mutant, limit: Duration) -> Result<Verdict> {
    let built = build(&mutant.kill, Some(&mutant.name))?;
    if !built.status.success() {
        println!("{}", built.text);
        return Ok(Verdict::DoesNotBuild);
    }
    let (verdict, output) = execute(&mutant.kill, Some(&mutant.name), Some(limit))?;
    if verdict == Verdict::NothingRan {
        println!("{}", output.text);
    }
    Ok(verdict)
}

/// Removes what the builds left for workspace members; the dependencies stay.
pub(crate) fn clean_up() -> Result<()> {
    for target_dir in ["mutants", "loom", "shuttle"].map(place::target) {
        if target_dir.is_dir() {
            let mut command = run::cargo(["clean", "--quiet", "--target-dir"]);
            command.arg(&target_dir);
            for package in place::packages()? {
                command.arg("-p").arg(crate::suites::package_name(&package)?);
            }
            run::run(command, Show::OnFailure)?;
        }
    }
    Ok(())
}

fn build(kill: &Kill, mutant: Option<&str>) -> Result<Output> {
    match kill {
        Kill::Fuzz { directory, target, seconds } => {
            Target::new(directory, target).build(&fuzz_setting(*seconds, mutant), Show::Never)
        }
        _ => tests(kill, mutant)?.build(Show::Never),
    }
}

/// Runs the test, already built.
fn execute(
    kill: &Kill,
    mutant: Option<&str>,
    limit: Option<Duration>,
) -> Result<(Verdict, Output)> {
    if let Kill::Fuzz { directory, target, seconds } = kill {
        let setting = fuzz_setting(*seconds, mutant);
        let output = Target::new(directory, target).run(&setting, Show::Never)?;
        return Ok((fuzz_verdict(&output), output));
    }
    let (output, tally) = tests(kill, mutant)?.run(Show::Never, limit)?;
    let aborted = output.text.contains("process didn't exit successfully");
    let verdict = match output.status.success() {
        _ if output.timed_out => Verdict::Hung,
        true if tally.passed > 0 => Verdict::Survived,
        false if tally.failed > 0 || aborted => Verdict::Killed,
        _ => Verdict::NothingRan,
    };
    Ok((verdict, output))
}

fn fuzz_verdict(output: &Output) -> Verdict {
    let ran = tally::numbers_before(&output.text, "Done ", "runs").sum::<u64>();
    match output.status.success() {
        true if ran > 0 => Verdict::Survived,
        false if output.text.contains("SUMMARY: ") => Verdict::Killed,
        _ => Verdict::NothingRan,
    }
}

/// The tests that a kill names, built with a break if one is given.
fn tests(kill: &Kill, mutant: Option<&str>) -> Result<Tests> {
    let mut tests = match kill {
        Kill::Loom { test, .. } => loom::models(loom::CI_BOUND, Some(test)),
        Kill::Shuttle { test, schedules, .. } => shuttle::scenarios(*schedules, Some(test)),
        Kill::Test { package, test, .. } => {
            let mut select = vec!["-p", package];
            match test {
                Some(test) => select.extend(["--test", test]),
                None => select.push("--lib"),
            }
            Tests::select(select)
                .env("CARGO_TARGET_DIR", place::target("mutants"))
                .env("CARGO_PROFILE_DEV_DEBUG", "0") // quicker to build and to link
        }
        Kill::Fuzz { .. } | Kill::Equivalent(_) | Kill::Open(_) => bail!("{kill} is no test"),
    };
    let filter = match kill {
        Kill::Loom { filter, .. } | Kill::Shuttle { filter, .. } | Kill::Test { filter, .. } => {
            Some(filter)
        }
        _ => None,
    };
    if let Some(filter) = filter {
        tests.filter.clone_from(filter);
    }
    if let Ok(reference) = place::reference() {
        tests = tests.env("TIERCE_REFERENCE", reference);
    }
    if let Some(mutant) = mutant {
        tests = tests.env("RUSTC_WORKSPACE_WRAPPER", wrapper(mutant)?);
    }
    Ok(tests)
}

/// A compiler for workspace members that adds the break. Its path names the break, and cargo
/// keeps what different wrappers built apart.
fn wrapper(mutant: &str) -> Result<PathBuf> {
    let directory = place::target("mutants").join("wrappers");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let path = directory.join(mutant);
    let script = format!("#!/bin/sh\nexec \"$@\" --cfg 'tierce_mutant=\"{mutant}\"'\n");
    if fs::read_to_string(&path).ok().as_deref() != Some(&script) {
        fs::write(&path, script).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("making {} executable", path.display()))?;
    }
    Ok(path)
}

fn fuzz_setting(seconds: u64, mutant: Option<&str>) -> fuzz::Setting {
    let mut setting = fuzz::Setting::plain(seconds);
    setting.artifacts = Some(place::target("mutants").join("artifacts"));
    if let Some(mutant) = mutant {
        setting.target_dir = place::target("mutants").join("fuzz");
        setting.rustflags = run::rustflags(&format!("--cfg tierce_mutant=\"{mutant}\""));
    }
    setting
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_wrapper_runs_the_compiler_with_the_break() {
        let mut command = Command::new(wrapper("test-of-the-wrapper").unwrap());
        command.args(["echo", "a b"]);
        let output = run::run(command, Show::Never).unwrap();
        assert_eq!(output.text, "a b --cfg tierce_mutant=\"test-of-the-wrapper\"\n");
    }
}
