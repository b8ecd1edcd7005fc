//! Reading `mutants.toml`.

use crate::place;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt;
use std::fs;

/// One deliberate break.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mutant {
    /// What the hook is called.
    pub(crate) name: String,
    /// What goes wrong.
    pub(crate) breaks: String,
    /// What notices.
    pub(crate) kill: Kill,
    /// Whether it shows by somebody waiting for ever.
    #[serde(default)]
    pub(crate) hangs: bool,
}

/// The test that must turn red.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub(crate) enum Kill {
    /// Models of one file of loom-tests.
    Loom {
        /// The file, without `.rs`.
        test: String,
        /// Part of the models' names.
        filter: String,
    },
    /// Random schedules of one file of shuttle-tests.
    Shuttle {
        /// The file, without `.rs`.
        test: String,
        /// Part of the scenarios' names.
        filter: String,
        /// How many each may try.
        schedules: u64,
    },
    /// Tests of a package.
    Test {
        /// The package.
        package: String,
        /// The integration test; the unit tests if there is none.
        test: Option<String>,
        /// Part of the tests' names.
        filter: String,
    },
    /// A fuzz target.
    Fuzz {
        /// The directory of the package that it attacks.
        directory: String,
        /// Its name.
        target: String,
        /// How long it may search.
        seconds: u64,
    },
    /// Nothing can notice, for this reason.
    Equivalent(String),
    /// There is no test yet; this is what it will have to be.
    Open(String),
}

impl Kill {
    /// Whether there is a test to run.
    pub(crate) fn is_test(&self) -> bool {
        !matches!(self, Self::Equivalent(_) | Self::Open(_))
    }
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loom { test, filter } => write!(f, "loom {test}::{filter}"),
            Self::Shuttle { test, filter, schedules } => {
                write!(f, "shuttle {test}::{filter}, {schedules} schedules")
            }
            Self::Test { package, test: Some(test), filter } => {
                write!(f, "{package}::{test} {filter}")
            }
            Self::Test { package, test: None, filter } => write!(f, "{package} {filter}"),
            Self::Fuzz { directory, target, seconds } => {
                write!(f, "fuzz {directory}/{target}, {seconds} s")
            }
            Self::Equivalent(reason) => write!(f, "equivalent: {reason}"),
            Self::Open(wanted) => write!(f, "no test yet: {wanted}"),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    mutant: Vec<Mutant>,
}

/// The checked-in list.
pub(crate) fn read() -> Result<Vec<Mutant>> {
    let path = place::root().join("xtask/mutants.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    parse(&text).with_context(|| format!("in {}", path.display()))
}

fn parse(text: &str) -> Result<Vec<Mutant>> {
    let mutants = toml::from_str::<File>(text)?.mutant;
    let mut seen = BTreeSet::new();
    for Mutant { name, breaks, .. } in &mutants {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        ensure!(
            !name.is_empty() && name.chars().all(legal),
            "mutant name {name:?}: lower-case letters, digits, - and _ are wanted"
        );
        ensure!(!breaks.is_empty(), "mutant {name} does not say what it breaks");
        ensure!(seen.insert(name), "mutant {name} is listed twice");
    }
    Ok(mutants)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_kill_is_read() {
        let text = r#"
            [[mutant]]
            name = "a"
            breaks = "x"
            kill.loom = { test = "word", filter = "f" }
            hangs = true
            [[mutant]]
            name = "b"
            breaks = "x"
            kill.test = { package = "tierce-core", filter = "f" }
            [[mutant]]
            name = "c"
            breaks = "x"
            kill.fuzz = { directory = "core", target = "t", seconds = 30 }
            [[mutant]]
            name = "d"
            breaks = "x"
            kill.equivalent = "because"
            [[mutant]]
            name = "e_e"
            breaks = "x"
            kill.open = "a model"
            [[mutant]]
            name = "f"
            breaks = "x"
            kill.shuttle = { test = "waiting", filter = "f", schedules = 9 }
        "#;
        let mutants = parse(text).unwrap();
        let kills = mutants.iter().map(|mutant| mutant.kill.to_string()).collect::<Vec<_>>();
        let wanted = [
            "loom word::f",
            "tierce-core f",
            "fuzz core/t, 30 s",
            "equivalent: because",
            "no test yet: a model",
            "shuttle waiting::f, 9 schedules",
        ];
        assert_eq!(kills, wanted);
        let tests = mutants.iter().filter(|mutant| mutant.kill.is_test());
        assert_eq!(tests.count(), 4);
        assert!(mutants[0].hangs && !mutants[1].hangs);
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn mistakes_are_refused() {
        let entry = |name: &str, rest: &str| {
            format!("[[mutant]]\nname = \"{name}\"\nbreaks = \"x\"\n{rest}\n")
        };
        let fine = entry("a", "kill.equivalent = \"b\"");
        let refused = |text: &str, word: &str| {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(word), "{error}");
        };
        refused(&format!("{fine}{fine}"), "listed twice");
        refused(&entry("a b", "kill.equivalent = \"b\""), "lower-case");
        refused(&entry("a", "kill.prayer = \"b\""), "prayer");
        refused(&entry("a", "kill.equivalent = \"b\"\nhang = true"), "hang");
        refused(&entry("a", ""), "kill");
    }
}
