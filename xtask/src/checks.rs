//! Checks that read the code and run none of it.

use crate::report::Outcome;
use crate::run::{self, Show};
use crate::{fuzz, loom, place};
use anyhow::{Result, ensure};
use std::process::Command;

/// The allocator's own crates, which somebody else's engine links.
const LEAN: [&str; 4] = ["tierce-core", "tierce-lockfree", "tierce-io", "tierce-cache"];

/// What those may not bring along: builds of C, C libraries, async runtimes, and what only features
/// ask for.
const HEAVY: [&str; 14] = [
    "async-global-executor",
    "async-std",
    "bindgen",
    "cc",
    "cmake",
    "libaio",
    "metrics",
    "openssl-sys",
    "pkg-config",
    "serde",
    "smol",
    "tokio",
    "tracing",
    "vcpkg",
];

fn check(command: Command) -> Result<Outcome> {
    let output = run::run(command, Show::OnFailure)?;
    Ok(if output.status.success() {
        Outcome::clean("")
    } else {
        Outcome::broken(output.status.to_string())
    })
}

/// The peer of `tierce bench cache`, a workspace of its own that nothing else builds.
const FOYER: &str = "benches/foyer";

/// The code is formatted, that of the fuzz crates and of foyer too, which are workspaces of
/// their own.
pub(crate) fn format() -> Result<Outcome> {
    let fuzz = fuzz::packages()?.into_iter().map(|package| package.join("fuzz"));
    for workspace in fuzz.chain([place::root().join(FOYER)]) {
        let mut command = run::cargo(["fmt", "--check"]);
        command.current_dir(workspace);
        let outcome = check(command)?;
        if outcome.failed > 0 {
            return Ok(outcome);
        }
    }
    check(run::cargo(["fmt", "--all", "--check"]))
}

/// No lint complains; `incompatible_msrv` is among them and holds the code to rust-version.
/// What only the models, the random schedules or a feature compile are runs of their own.
pub(crate) fn clippy() -> Result<Outcome> {
    let lints = ["--all-targets", "--", "-D", "warnings"];
    let mut command = run::cargo(["clippy", "--workspace"]);
    command.args(lints);
    let outcome = check(command)?;
    if outcome.failed > 0 {
        return Ok(outcome);
    }
    let mut command = run::cargo(["clippy", "-p", "tierce-lockfree", "-p", "tierce-cache"]);
    command.arg("--all-features");
    command.args(lints);
    let outcome = check(command)?;
    if outcome.failed > 0 || !loom::exists()? {
        return Ok(outcome);
    }
    for checker in ["loom", "shuttle"] {
        let package = format!("tierce-{checker}-tests");
        let mut command = run::cargo(["clippy", "-p", &package, "-p", "tierce-lockfree"]);
        command.args(lints).env("RUSTFLAGS", run::rustflags(&format!("--cfg tierce_{checker}")));
        command.env("CARGO_TARGET_DIR", place::target(checker));
        let outcome = check(command)?;
        if outcome.failed > 0 {
            return Ok(outcome);
        }
    }
    Ok(Outcome::clean(""))
}

/// The documentation builds without a warning.
pub(crate) fn docs() -> Result<Outcome> {
    let mut command = run::cargo(["doc", "--workspace", "--no-deps"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    check(command)
}

/// Licences and sources of all dependencies, by `deny.toml`; those of foyer too.
pub(crate) fn licences() -> Result<Outcome> {
    run::need_cargo_tool("deny")?;
    let manifest = format!("{FOYER}/Cargo.toml");
    let mut command = run::cargo(["deny", "--manifest-path", &manifest, "--config", "deny.toml"]);
    command.args(["check", "licenses", "bans", "sources"]);
    let outcome = check(command)?;
    if outcome.failed > 0 {
        return Ok(outcome);
    }
    check(run::cargo(["deny", "--all-features", "check", "licenses", "bans", "sources"]))
}

/// The allocator's crates build no C, bring no async runtime, and nothing for features that are off.
pub(crate) fn lean() -> Result<Outcome> {
    for package in LEAN {
        let edges = "normal,build";
        let command = run::cargo(["tree", "-p", package, "-e", edges, "--prefix", "none"]);
        let output = run::run(command, Show::OnFailure)?;
        ensure!(output.status.success(), "cargo tree failed for {package}");
        let heavy = heavy(&output.text);
        ensure!(heavy.is_empty(), "{package} depends on {}", heavy.join(", "));
    }
    Ok(Outcome::clean(format!("{} crates", LEAN.len())))
}

/// The heavy packages in a listing of `name vVERSION …` lines.
fn heavy(tree: &str) -> Vec<&str> {
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| HEAVY.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heavy_packages_are_found_by_their_whole_name() {
        let tree = "tierce-io v0.1.0 (/x)\nio-uring v0.7.11\ncc v1.2.0\ntokio-like v1.0.0\n";
        assert_eq!(heavy(tree), ["cc"]);
    }
}
