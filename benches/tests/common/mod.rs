//! Where the reference data is: real traces that are not part of this repository.

use std::path::PathBuf;

/// The file `name` of the reference, or `None`, said on standard error, if there is none.
///
/// # Panics
/// If it is absent although `TIERCE_REQUIRE_REFERENCE=1`.
#[must_use]
pub(crate) fn reference(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("TIERCE_REFERENCE").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared")),
        PathBuf::from,
    );
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    let required = std::env::var_os("TIERCE_REQUIRE_REFERENCE").is_some_and(|v| v == "1");
    assert!(!required, "the reference is required and absent at {}", path.display());
    eprintln!("skipped: reference absent at {}", path.display());
    None
}
