//! Building, once, everything that is to kill something, with all breaks in it.
//!
//! Tests, models and schedules get their hooks (`core/src/broken.rs`) through a compiler wrapper
//! for workspace members, so that the dependencies are those of the other tasks; cargo keeps what
//! the wrapper built apart. A fuzz crate is a workspace of its own, of which the attacked package
//! is no member; there the flag travels in `RUSTFLAGS`.

use super::list::Kill;
use crate::fuzz::{self, Target};
use crate::place;
use crate::run::{self, Show};
use crate::suites::{Program, Tests};
use crate::{loom, shuttle};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// What the compiler is told.
const FLAG: &str = "--cfg tierce_mutants";

/// The test programs; fuzz targets are found by their names.
pub(crate) struct Built(Vec<Program>);

impl Built {
    /// Builds what these need.
    pub(crate) fn new<'a>(kills: impl Iterator<Item = &'a Kill> + Clone) -> Result<Self> {
        let (mut models, mut schedules, mut tests) = (Vec::new(), Vec::new(), Vec::new());
        let mut targets = BTreeSet::new();
        for kill in kills {
            match kill {
                Kill::Loom { test, .. } => models.extend(["--test", test]),
                Kill::Shuttle { test, .. } => schedules.extend(["--test", test]),
                Kill::Test { package, test: Some(test), .. } => {
                    tests.extend(["-p", package, "--test", test]);
                }
                Kill::Test { package, test: None, .. } => tests.extend(["-p", package, "--lib"]),
                Kill::Fuzz { directory, target, .. } => _ = targets.insert((directory, target)),
                Kill::Equivalent(_) | Kill::Open(_) => {}
            }
        }
        let mut programs = Vec::new();
        let suites =
            [(loom_suite(), models), (shuttle::scenarios(1), schedules), (unit_suite(), tests)];
        for (suite, selection) in suites {
            if !selection.is_empty() {
                programs.extend(build(suite, &selection)?);
            }
        }
        for (directory, target) in targets {
            let built = Target::new(directory, target).build(&fuzz_setting(1), Show::OnFailure)?;
            ensure!(built.status.success(), "fuzz {directory}/{target} does not build");
        }
        Ok(Self(programs))
    }

    /// The program that has the tests of `kill`.
    pub(crate) fn program(&self, kill: &Kill) -> Result<&Program> {
        let (package, test) = match kill {
            Kill::Loom { test, .. } => (loom::PACKAGE, Some(test)),
            Kill::Shuttle { test, .. } => (shuttle::PACKAGE, Some(test)),
            Kill::Test { package, test, .. } => (package.as_str(), test.as_ref()),
            Kill::Fuzz { .. } | Kill::Equivalent(_) | Kill::Open(_) => bail!("{kill} is no test"),
        };
        let is_it =
            |program: &&Program| program.package == package && program.test.as_ref() == test;
        self.0.iter().find(is_it).with_context(|| format!("{kill}: {package} has no such test"))
    }
}

/// The models as CI runs them.
pub(crate) fn loom_suite() -> Tests {
    loom::models(loom::CI_BOUND)
}

/// The tests of packages.
pub(crate) fn unit_suite() -> Tests {
    Tests::default()
        .env("CARGO_TARGET_DIR", place::target("mutants"))
        .env("CARGO_PROFILE_DEV_DEBUG", "0") // quicker to build and to link
}

/// How a fuzz target is built and run.
pub(crate) fn fuzz_setting(seconds: u64) -> fuzz::Setting {
    let mut setting = fuzz::Setting::plain(seconds);
    setting.artifacts = Some(place::target("mutants").join("artifacts"));
    setting.target_dir = place::target("mutants").join("fuzz");
    setting.rustflags = run::rustflags(FLAG);
    setting
}

fn build(mut suite: Tests, selection: &[&str]) -> Result<Vec<Program>> {
    let mut seen = BTreeSet::new();
    for pair in selection.chunk_by(|_, next| !next.starts_with('-')) {
        if seen.insert(pair) {
            suite.select.extend(pair.iter().map(|&argument| argument.to_owned()));
        }
    }
    suite.env("RUSTC_WORKSPACE_WRAPPER", wrapper()?).programs()
}

/// A compiler for workspace members that adds the flag.
fn wrapper() -> Result<PathBuf> {
    let directory = place::target("mutants");
    fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
    let path = directory.join("rustc-with-mutants");
    let script = format!("#!/bin/sh\nexec \"$@\" {FLAG}\n");
    if fs::read_to_string(&path).ok().as_deref() != Some(&script) {
        fs::write(&path, script).with_context(|| format!("writing {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("making {} executable", path.display()))?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_wrapper_runs_the_compiler_with_the_flag() {
        let mut command = Command::new(wrapper().unwrap());
        command.args(["echo", "a b"]);
        let output = run::run(command, Show::Never).unwrap();
        assert_eq!(output.text, "a b --cfg tierce_mutants\n");
    }
}
