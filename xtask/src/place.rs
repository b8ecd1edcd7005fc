//! Where things are: the workspace, its packages, its suites, the reference.

use anyhow::{Context, Result, ensure};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The workspace root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}

/// `target/<name>`, also where `CARGO_TARGET_DIR` moves the target directory.
pub(crate) fn target(name: &str) -> PathBuf {
    let base = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    root().join(base).join(name)
}

/// The directory of recordings that some tests compare with, if it is there:
/// `TIERCE_REFERENCE`, else `../shared` beside the workspace.
pub(crate) fn reference() -> Result<PathBuf> {
    let given = env::var_os("TIERCE_REFERENCE").map(PathBuf::from);
    let place = match given {
        Some(place) => env::current_dir()?.join(place),
        None => root().parent().context("the workspace is the root directory")?.join("shared"),
    };
    ensure!(place.is_dir(), "reference absent at {}", place.display());
    Ok(place)
}

/// The directories directly below the root that hold a package, sorted.
pub(crate) fn packages() -> Result<Vec<PathBuf>> {
    Ok(entries(root())?.into_iter().filter(|dir| dir.join("Cargo.toml").is_file()).collect())
}

/// The `.rs` files directly in `dir`, sorted; none if there is no such directory.
pub(crate) fn rust_files(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let is_rust = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "rs");
    Ok(entries(dir)?.into_iter().filter(is_rust).collect())
}

/// All `.rs` files below `dir`, except build output and hidden directories.
pub(crate) fn rust_files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = rust_files(dir)?;
    for path in entries(dir)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(rust_files_below(&path)?);
        }
    }
    Ok(found)
}

/// What a directory contains, sorted.
pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let read = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut paths = read
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .with_context(|| format!("reading {}", dir.display()))?;
    paths.sort();
    Ok(paths)
}

/// The last component of a path without its extension.
pub(crate) fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
