//! What a run leaves behind: a document in JSON, and a page that people look at.
//!
//! ```text
//!   bars::Results ─┐
//!   Environment ───┴─▶ Document ─▶ JSON ─▶ Document ─▶ page::render ─▶ one HTML file
//!                                     two of them   ─▶ compare      ─▶ what differs
//! ```
//!
//! | file | read it to learn |
//! |---|---|
//! | `compare.rs` | when two runs differ by more than their noise |
//! | `chart.rs` | how one picture is drawn |
//! | `pictures.rs` | which pictures a page has |
//! | `page.rs`, `page.css` | how the page is put together |

mod chart;
mod compare;
mod page;
mod pictures;

pub use compare::{Change, Difference, compare, comparison_table};
pub use page::render;

use crate::bars::{Curve, Plan, Results, Row, Timeline};
use crate::measure::Environment;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// A run, as it is kept.
///
/// ```
/// use tierce_bench::bars::{Plan, Results};
/// use tierce_bench::{measure::Environment, report::Document};
/// let document = Document::new(Environment::read(), &Plan::smoke(), Results::default());
/// let again = Document::parse(&document.to_json()).unwrap();
/// assert_eq!(again.env.cpu, document.env.cpu);
/// ```
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Document {
    /// The machine, the commit, the settings, the load.
    pub env: Environment,
    /// Figures beside their baselines.
    pub rows: Vec<Row>,
    /// Distributions of latencies.
    #[serde(default)]
    pub curves: Vec<Curve>,
    /// What happened instant by instant.
    #[serde(default)]
    pub timelines: Vec<Timeline>,
    /// What was not measured, and why.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Why a document cannot be used.
///
/// ```
/// use tierce_bench::report::Document;
/// let error = Document::load("no/such.json".as_ref()).unwrap_err();
/// assert!(error.to_string().starts_with("cannot read no/such.json: "));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The file cannot be read.
    #[error("cannot read {}: {cause}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It is not the JSON of a run.
    #[error("{}: found no run of tierce bench: {cause}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        cause: serde_json::Error,
    },
}

impl Document {
    /// Of what was measured.
    #[must_use]
    pub fn new(mut env: Environment, plan: &Plan, results: Results) -> Self {
        env.settings = plan.describe();
        let Results { rows, curves, timelines, notes } = results;
        Self { env, rows, curves, timelines, notes }
    }

    /// As JSON; [`parse`](Self::parse) reads it again.
    ///
    /// # Panics
    ///
    /// Never: everything in it has a form in JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings, numbers and lists") + "\n"
    }

    /// From JSON.
    ///
    /// # Errors
    ///
    /// What is wrong with it, and where.
    pub fn parse(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// From a file.
    ///
    /// # Errors
    ///
    /// [`DocumentError`].
    pub fn load(path: &Path) -> Result<Self, DocumentError> {
        let path_ = || path.to_owned();
        let text = std::fs::read_to_string(path)
            .map_err(|cause| DocumentError::Read { path: path_(), cause })?;
        Self::parse(&text).map_err(|cause| DocumentError::Malformed { path: path_(), cause })
    }
}
