//! Fuzzing: every target of every `*/fuzz`, from its checked-in corpus.
//!
//! libFuzzer adds what it finds to the corpus it is given, so each run gets a copy below
//! `target/` and the tree stays clean. A crashing input is left in `fuzz/artifacts`.

use crate::place;
use crate::report::Outcome;
use crate::run::{self, Output, Show};
use crate::tally;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How long CI runs each target.
pub(crate) const CI_SECONDS: u64 = 10;

#[derive(Args)]
pub(crate) struct Options {
    /// How long to run each target
    #[arg(long, default_value_t = CI_SECONDS)]
    pub(crate) seconds: u64,
    /// Run this target only
    #[arg(long)]
    pub(crate) target: Option<String>,
}

/// One fuzz target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    /// The package it attacks: the directory that holds `fuzz/`.
    pub(crate) package: PathBuf,
    /// Its name.
    pub(crate) name: String,
}

/// How to build and run a target.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// How long to run.
    pub(crate) seconds: u64,
    /// Flags for the compiler.
    pub(crate) rustflags: String,
    /// Where to build.
    pub(crate) target_dir: PathBuf,
    /// Where crashing inputs go; `fuzz/artifacts` if nothing is said.
    pub(crate) artifacts: Option<PathBuf>,
    /// Where the copy of the corpus goes.
    pub(crate) corpora: PathBuf,
    /// More of the environment of the run.
    pub(crate) env: Vec<(&'static str, OsString)>,
}

impl Setting {
    /// The code as it is, for so many seconds.
    pub(crate) fn plain(seconds: u64) -> Self {
        Self {
            seconds,
            rustflags: run::rustflags(""),
            target_dir: place::target("fuzz"),
            artifacts: None,
            corpora: place::target("fuzz-corpus"),
            env: Vec::new(),
        }
    }
}

impl Target {
    /// The target `name` of the package in directory `package`.
    pub(crate) fn new(package: &str, name: &str) -> Self {
        Self { package: place::root().join(package), name: name.to_owned() }
    }

    /// Builds it.
    pub(crate) fn build(&self, setting: &Setting, show: Show) -> Result<Output> {
        run::run(self.command("build", setting), show)
    }

    /// Builds and runs it from a copy of its corpus.
    pub(crate) fn run(&self, setting: &Setting, show: Show) -> Result<Output> {
        let corpus = self.copy_corpus(&setting.corpora)?;
        let mut command = self.command("run", setting);
        command.envs(setting.env.iter().map(|(name, value)| (name, value)));
        command.arg(&corpus).arg("--").arg(format!("-max_total_time={}", setting.seconds));
        if let Some(artifacts) = &setting.artifacts {
            fs::create_dir_all(artifacts)?;
            command.arg(format!("-artifact_prefix={}/", artifacts.display()));
        }
        run::run(command, show)
    }

    fn command(&self, verb: &str, setting: &Setting) -> Command {
        let mut command = cargo_fuzz(&self.package, verb);
        command.arg("--target-dir").arg(&setting.target_dir);
        command.arg(&self.name).env("RUSTFLAGS", &setting.rustflags);
        command
    }

    /// A fresh directory in `corpora` with the checked-in corpus.
    fn copy_corpus(&self, corpora: &Path) -> Result<PathBuf> {
        let copy = corpora.join(&self.name);
        if copy.exists() {
            fs::remove_dir_all(&copy).with_context(|| format!("clearing {}", copy.display()))?;
        }
        fs::create_dir_all(&copy).with_context(|| format!("making {}", copy.display()))?;
        let corpus = self.package.join("fuzz/corpus").join(&self.name);
        if corpus.is_dir() {
            for input in place::entries(&corpus)? {
                let name = input.file_name().context("an input without a name")?;
                fs::copy(&input, copy.join(name))
                    .with_context(|| format!("copying {}", input.display()))?;
            }
        }
        Ok(copy)
    }
}

/// A `cargo fuzz` command in the package's directory. Sanitizers need the compiler's unstable
/// flags, which `RUSTC_BOOTSTRAP` opens on a stable one.
fn cargo_fuzz(package: &Path, verb: &str) -> Command {
    let mut command = run::cargo(["fuzz", verb]);
    command.current_dir(package).env("RUSTC_BOOTSTRAP", "1");
    command
}

/// The packages that have a `fuzz/`.
pub(crate) fn packages() -> Result<Vec<PathBuf>> {
    let has_fuzz = |package: &PathBuf| package.join("fuzz/Cargo.toml").is_file();
    Ok(place::packages()?.into_iter().filter(has_fuzz).collect())
}

/// Whether there is anything to fuzz.
pub(crate) fn exists() -> Result<bool> {
    Ok(!packages()?.is_empty())
}

/// How many targets there are.
pub(crate) fn count() -> Result<u64> {
    run::need_cargo_tool("fuzz")?;
    Ok(targets(None)?.len() as u64)
}

/// All targets, or the one asked for.
fn targets(only: Option<&str>) -> Result<Vec<Target>> {
    let mut found = Vec::new();
    for package in packages()? {
        let output = run::run(cargo_fuzz(&package, "list"), Show::OnFailure)?;
        ensure!(output.status.success(), "cargo fuzz list failed in {}", package.display());
        for name in output.text.lines().map(str::trim).filter(|name| !name.is_empty()) {
            found.push(Target { package: package.clone(), name: name.to_owned() });
        }
    }
    if let Some(only) = only {
        let known = found.iter().map(|target| target.name.clone()).collect::<Vec<_>>();
        found.retain(|target| target.name == only);
        if found.is_empty() {
            bail!("there is no fuzz target {only}; there are: {}", known.join(", "));
        }
    }
    Ok(found)
}

/// Runs the targets one after the other; a crash fails its target and the others still run.
pub(crate) fn run(options: &Options) -> Result<Outcome> {
    run::need_cargo_tool("fuzz")?;
    let setting = Setting::plain(options.seconds);
    let (mut passed, mut crashed, mut inputs) = (0, Vec::new(), 0);
    for target in targets(options.target.as_deref())? {
        let output = target.run(&setting, Show::OnFailure)?;
        let ran = tally::numbers_before(&output.text, "Done ", "runs").sum::<u64>();
        println!("{:<24} {ran} inputs, {}", target.name, output.status);
        inputs += ran;
        if output.status.success() && ran > 0 {
            passed += 1;
        } else {
            crashed.push(target.name);
        }
    }
    let mut note = format!("targets; {inputs} inputs, {} s each", options.seconds);
    if !crashed.is_empty() {
        note = format!("failed: {}", crashed.join(", "));
    }
    Ok(Outcome::suite(passed, crashed.len() as u64, note))
}
