//! Running tests: by cargo-nextest where it is installed, else by cargo test.
//!
//! nextest starts a process per test, so a test that aborts or a model that deadlocks takes no
//! other with it.

use crate::place;
use crate::report::{Outcome, if_there_is};
use crate::run::{self, Output, Show};
use crate::tally::{self, Tally};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// The packages that a checker's own task runs.
const CHECKERS: [&str; 2] = ["loom-tests", "shuttle-tests"];

/// Which tests to run, and how.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tests {
    /// What both runners understand: `--workspace`, `-p`, `--lib`, `--test`, `--release`.
    pub(crate) select: Vec<String>,
    /// Only tests whose name contains this.
    pub(crate) filter: String,
    /// Environment of build and run.
    pub(crate) env: Vec<(&'static str, OsString)>,
    /// Whether the output of tests that pass is wanted too.
    pub(crate) with_output: bool,
}

impl Tests {
    /// The tests that these arguments select.
    pub(crate) fn select<S: Into<String>>(arguments: impl IntoIterator<Item = S>) -> Self {
        Self { select: arguments.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// With one more variable in the environment of build and run.
    pub(crate) fn env(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    /// Builds and runs, at most for `limit`.
    pub(crate) fn run(&self, show: Show, limit: Option<Duration>) -> Result<(Output, Tally)> {
        let mut command = self.command();
        command.arg("--no-fail-fast");
        if has_nextest() {
            if self.with_output {
                command.args(["--success-output", "immediate"]);
            }
            command.args(["--no-tests", "pass"]).args(self.filter());
        } else {
            command.arg("--").args(self.with_output.then_some("--nocapture")).args(self.filter());
        }
        let output = run::run_within(command, show, limit)?;
        let read = if has_nextest() { tally::nextest } else { tally::cargo_test };
        let tally = read(&output.text);
        Ok((output, tally))
    }

    /// Builds without running, by cargo test; says where the test programs are.
    pub(crate) fn programs(&self) -> Result<Vec<Program>> {
        let mut command = run::cargo(["test", "--no-run"]);
        command.arg("--message-format=json-render-diagnostics").args(&self.select);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let output = run::run(command, Show::Never)?;
        let (messages, rest): (Vec<_>, Vec<_>) =
            output.text.lines().partition(|line| line.starts_with('{'));
        ensure!(
            output.status.success(),
            "{} does not build\n{}",
            self.select.join(" "),
            rest.join("\n")
        );
        messages.into_iter().filter_map(|message| Program::of(message).transpose()).collect()
    }

    fn filter(&self) -> Option<&str> {
        (!self.filter.is_empty()).then_some(self.filter.as_str())
    }

    fn command(&self) -> Command {
        let runner: &[&str] = if has_nextest() { &["nextest", "run"] } else { &["test"] };
        let mut command = run::cargo(runner);
        command.args(&self.select).envs(self.env.iter().map(|(name, value)| (name, value)));
        let names_targets = |arg: &String| ["--lib", "--test"].contains(&arg.as_str());
        if !has_nextest() && !self.select.iter().any(names_targets) {
            command.arg("--tests"); // everything but doctests, as nextest does
        }
        command
    }
}

/// A test program that was built.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its package.
    pub(crate) package: String,
    /// The integration test; the unit tests if there is none.
    pub(crate) test: Option<String>,
    path: PathBuf,
    /// Where cargo would run it.
    directory: PathBuf,
}

impl Program {
    /// The program that a message of cargo tells of.
    fn of(message: &str) -> Result<Option<Self>> {
        let artifact = serde_json::from_str::<Artifact>(message)
            .with_context(|| format!("what cargo says: {message}"))?;
        let Artifact { manifest_path: Some(manifest), target: Some(target), .. } = artifact else {
            return Ok(None);
        };
        let (Some(path), true) = (artifact.executable, artifact.profile.is_some_and(|p| p.test))
        else {
            return Ok(None);
        };
        let directory = manifest.parent().context("a manifest lies in a directory")?.to_owned();
        let test = target.kind.iter().any(|kind| kind == "test").then_some(target.name);
        Ok(Some(Self { package: package_name(&directory)?, test, path, directory }))
    }

    /// It, in the environment of `tests`.
    pub(crate) fn command(&self, tests: &Tests) -> Command {
        let mut command = Command::new(&self.path);
        command.current_dir(&self.directory);
        command.envs(tests.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// What is read of cargo's messages; all but artifacts lack something.
#[derive(Deserialize)]
struct Artifact {
    manifest_path: Option<PathBuf>,
    target: Option<ArtifactTarget>,
    profile: Option<ArtifactProfile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct ArtifactTarget {
    kind: Vec<String>,
    name: String,
}

#[derive(Deserialize)]
struct ArtifactProfile {
    test: bool,
}

/// Whether cargo-nextest is installed; asked once.
fn has_nextest() -> bool {
    static PRESENT: OnceLock<bool> = OnceLock::new();
    *PRESENT.get_or_init(|| run::has_cargo_tool("nextest"))
}

/// What a finished run of tests means for a stage.
pub(crate) fn outcome(output: &Output, tally: &Tally, note: String) -> Outcome {
    let mut outcome = Outcome::suite(tally.passed, tally.failed, note);
    if !output.status.success() && outcome.failed == 0 {
        outcome.failed = 1;
        outcome.note = format!("{} although no test failed", output.status);
    }
    outcome
}

/// All unit and integration tests of the workspace. The models have a stage of their own.
pub(crate) fn workspace(reference_required: bool) -> Result<Outcome> {
    let mut tests = Tests::select([
        "--workspace",
        "--exclude",
        "tierce-loom-tests",
        "--exclude",
        "tierce-shuttle-tests",
    ]);
    match place::reference() {
        Ok(place) => tests = tests.env("TIERCE_REFERENCE", place),
        Err(error) if reference_required => return Err(error),
        Err(error) => println!("{error}: the tests that compare with it skip"),
    }
    if reference_required {
        tests = tests.env("TIERCE_REQUIRE_REFERENCE", "1");
    }
    let (output, tally) = tests.run(Show::Live, None)?;
    let mut outcome = outcome(&output, &tally, left_out(&tally));
    let idle = integration_tests()?.into_iter().filter(|test| !test.ran(&tally.binaries));
    let idle = idle.map(|test| test.id()).collect::<Vec<_>>();
    if output.status.success() && !idle.is_empty() {
        outcome.failed += idle.len() as u64;
        outcome.note = format!("no test ran in {}", idle.join(", "));
    }
    Ok(outcome)
}

/// All examples in the documentation.
pub(crate) fn doctests() -> Result<Outcome> {
    let output = run::run(run::cargo(["test", "--workspace", "--doc"]), Show::OnFailure)?;
    let tally = tally::cargo_test(&output.text);
    Ok(outcome(&output, &tally, left_out(&tally)))
}

/// The unit tests of lockfree and cache with their features on, which no other stage compiles.
pub(crate) fn features() -> Result<Outcome> {
    let packages = ["-p", "tierce-lockfree", "-p", "tierce-cache", "--lib", "--all-features"];
    let (output, tally) = Tests::select(packages).run(Show::OnFailure, None)?;
    Ok(outcome(&output, &tally, "with metrics and tracing".to_owned()))
}

/// The stress tests, integration tests whose name begins with `stress`, each told by
/// `TIERCE_SOAK_SECONDS` how long to go on.
pub(crate) fn stress(seconds: u64) -> Result<Outcome> {
    let is_stress = |test: &IntegrationTest| test.name.starts_with("stress");
    if_there_is(integration_tests()?.iter().any(is_stress), "stress test", || run_stress(seconds))
}

/// How many stress tests there are.
pub(crate) fn stress_tests() -> Result<u64> {
    let mut count = 0;
    for package in place::packages()? {
        let files = place::rust_files(&package.join("tests"))?;
        for file in files.iter().filter(|file| place::stem(file).starts_with("stress")) {
            count += test_names(file)?.len() as u64;
        }
    }
    Ok(count)
}

/// The names of the tests in a file: the functions behind `#[test]`.
pub(crate) fn test_names(file: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let name = |after: &str| Some(after.split_once("fn ")?.1.split_once('(')?.0.to_owned());
    Ok(text.split("#[test]").skip(1).filter_map(name).collect())
}

fn run_stress(seconds: u64) -> Result<Outcome> {
    // One at a time: each has 32 threads of its own.
    let mut tests = Tests::select(["--workspace", "--release", "--test", "stress*"])
        .env("TIERCE_SOAK_SECONDS", seconds.to_string())
        .env("RUST_TEST_THREADS", "1")
        .env("NEXTEST_TEST_THREADS", "1");
    tests.with_output = true;
    let (output, tally) = tests.run(Show::Live, None)?;
    Ok(outcome(&output, &tally, format!("{seconds} s each")))
}

fn left_out(tally: &Tally) -> String {
    match tally.left_out {
        0 => String::new(),
        n => format!("{n} ignored"),
    }
}

/// A file or directory in some package's `tests/`.
struct IntegrationTest {
    package: String,
    name: String,
}

impl IntegrationTest {
    fn id(&self) -> String {
        format!("{}::{}", self.package, self.name)
    }

    /// Whether one of its tests did, by the names that either runner uses.
    fn ran(&self, binaries: &BTreeSet<String>) -> bool {
        binaries.contains(&self.id()) || binaries.contains(&self.name)
    }
}

/// The integration tests of all packages but the models.
fn integration_tests() -> Result<Vec<IntegrationTest>> {
    let mut found = Vec::new();
    for package in place::packages()? {
        let tests = package.join("tests");
        if CHECKERS.iter().any(|name| package.ends_with(name)) || !tests.is_dir() {
            continue;
        }
        let name = package_name(&package)?;
        for path in place::entries(&tests)? {
            let is_file = path.extension().is_some_and(|extension| extension == "rs");
            if is_file || path.join("main.rs").is_file() {
                found.push(IntegrationTest { package: name.clone(), name: place::stem(&path) });
            }
        }
    }
    Ok(found)
}

/// The name that a package's manifest gives it.
pub(crate) fn package_name(package: &Path) -> Result<String> {
    let manifest = package.join("Cargo.toml");
    let text =
        fs::read_to_string(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
    match text.lines().find_map(name_line) {
        Some(name) => Ok(name.to_owned()),
        None => bail!("{} gives the package no name", manifest.display()),
    }
}

/// `name = "tierce-core"` → `tierce-core`.
fn name_line(line: &str) -> Option<&str> {
    let value = line.strip_prefix("name")?.trim_start().strip_prefix('=')?;
    value.trim().strip_prefix('"')?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stress_tests_are_counted() {
        assert!(stress_tests().unwrap() > 0);
    }

    #[test]
    fn test_programs_are_found_in_what_cargo_says() {
        let manifest = place::root().join("core/Cargo.toml");
        let message = |kind: &str, name: &str, test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":{manifest:?},
                "target":{{"kind":["{kind}"],"crate_types":["bin"],"name":"{name}"}},
                "profile":{{"opt_level":"0","test":{test}}},"executable":"/x/{name}-01"}}"#
            )
        };
        let unit = Program::of(&message("lib", "tierce_core", true)).unwrap().unwrap();
        assert_eq!((unit.package.as_str(), unit.test), ("tierce-core", None));
        assert_eq!(unit.path, Path::new("/x/tierce_core-01"));
        let other = Program::of(&message("test", "records", true)).unwrap().unwrap();
        assert_eq!(other.test.as_deref(), Some("records"));
        assert!(Program::of(&message("bin", "tierce", false)).unwrap().is_none());
        assert!(Program::of(r#"{"reason":"build-finished","success":true}"#).unwrap().is_none());
        assert!(Program::of("{").is_err());
    }

    #[test]
    fn package_names_are_found() {
        assert_eq!(package_name(&place::root().join("core")).unwrap(), "tierce-core");
        assert_eq!(name_line("name=\"a\""), Some("a"));
        assert_eq!(name_line("namely = \"a\""), None);
    }

    #[test]
    fn a_test_file_is_idle_unless_one_of_its_tests_ran() {
        let test = IntegrationTest { package: "tierce-io".into(), name: "crash".into() };
        let ran = |binary: &str| test.ran(&BTreeSet::from([binary.to_owned()]));
        assert!(ran("tierce-io::crash") && ran("crash"));
        assert!(!ran("tierce-io") && !ran("tierce-cache::crash"));
    }
}
