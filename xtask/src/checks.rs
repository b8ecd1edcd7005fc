//! Checks that read the code and run none of it.

use crate::report::Outcome;
use crate::run::{self, Show};
use anyhow::{Result, ensure};
use std::process::Command;

/// The allocator's own crates, which somebody else's engine links.
const LEAN: [&str; 4] = ["tierce-core", "tierce-lockfree", "tierce-io", "tierce-cache"];

/// What those may not bring along: builds of C, C libraries, async runtimes.
const HEAVY: [&str; 11] = [
    "async-global-executor",
    "async-std",
    "bindgen",
    "cc",
    "cmake",
    "libaio",
    "openssl-sys",
    "pkg-config",
    "smol",
    "tokio",
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

/// The code is formatted.
pub(crate) fn format() -> Result<Outcome> {
    check(run::cargo(["fmt", "--all", "--check"]))
}

/// No lint complains; `incompatible_msrv` is among them and holds the code to rust-version.
pub(crate) fn clippy() -> Result<Outcome> {
    check(run::cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// The documentation builds without a warning.
pub(crate) fn docs() -> Result<Outcome> {
    let mut command = run::cargo(["doc", "--workspace", "--no-deps"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    check(command)
}

/// Licences and sources of all dependencies, by `deny.toml`.
pub(crate) fn licences() -> Result<Outcome> {
    run::need_cargo_tool("deny")?;
    check(run::cargo(["deny", "--all-features", "check", "licenses", "bans", "sources"]))
}

/// The allocator's crates build no C and bring no async runtime.
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
