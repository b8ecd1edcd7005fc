//! Finding the hooks in the sources and comparing them with the list.

use super::list::Mutant;
use crate::place;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The names of all hooks below `root` and the first file that has each. xtask itself, whose
/// tests spell hooks too, is left out.
pub(crate) fn find(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for path in place::rust_files_below(root)? {
        let shown = path.strip_prefix(root).unwrap_or(&path);
        if shown.starts_with("xtask") {
            continue;
        }
        let text =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        for name in names(&text) {
            found.entry(name).or_insert_with(|| shown.display().to_string());
        }
    }
    Ok(found)
}

/// The names in `broken!("name")`, outside comment lines.
fn names(text: &str) -> BTreeSet<String> {
    let code = text.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
    let code = code.collect::<Vec<_>>().join("\n");
    let name = |after: &str| {
        let value = after.trim_start().strip_prefix('"')?;
        Some(value.split_once('"')?.0.to_owned())
    };
    code.split("broken!(").skip(1).filter_map(name).collect()
}

/// What is on one side only, in words.
pub(crate) fn compare(mutants: &[Mutant], hooks: &BTreeMap<String, String>) -> Vec<String> {
    let listed = mutants.iter().map(|mutant| &mutant.name).collect::<BTreeSet<_>>();
    let unlisted = hooks.iter().filter(|(name, _)| !listed.contains(name));
    let unlisted =
        unlisted.map(|(name, file)| format!("{name} ({file}) is not in xtask/mutants.toml"));
    let unhooked = listed.iter().filter(|name| !hooks.contains_key(**name));
    let unhooked = unhooked.map(|name| format!("{name} is listed, but no source has its hook"));
    unlisted.chain(unhooked).collect()
}

#[cfg(test)]
mod tests {
    use super::super::list::Kill;
    use super::*;

    #[test]
    fn hooks_are_found_in_every_form_but_not_in_comments() {
        let text = r#"
            // if broken!("in-a-comment") {
            if broken!("first") || !tierce_core::broken!("second") {
            let order = u64::from(broken!(
                "on-a-line-of-its-own"
            ));
            macro_rules! broken { ($name:literal) => { false } }
        "#;
        let found = names(text).into_iter().collect::<Vec<_>>();
        assert_eq!(found, ["first", "on-a-line-of-its-own", "second"]);
    }

    #[test]
    fn what_is_on_one_side_only_is_named() {
        let mutant = |name: &str| Mutant {
            name: name.into(),
            breaks: "x".into(),
            kill: Kill::Equivalent("y".into()),
            hangs: false,
        };
        let hooks = BTreeMap::from([
            ("both".to_owned(), "a.rs".to_owned()),
            ("hook".to_owned(), "b.rs".to_owned()),
        ]);
        let problems = compare(&[mutant("both"), mutant("list")], &hooks);
        assert_eq!(problems.len(), 2);
        assert!(problems[0].starts_with("hook (b.rs)") && problems[1].starts_with("list "));
        assert!(compare(&[mutant("both"), mutant("hook")], &hooks).is_empty());
    }
}
