//! What can be wrong with a value given to, or found by, this crate.

/// Why a configuration or a record was refused.
///
/// Every variant names what was looked at, what was found and what was wanted, so that the
/// message can be acted on without a debugger.
///
/// ```
/// use tierce_core::Geometry;
/// let e = Geometry::new(0, 1, 128, 1).unwrap_err();
/// assert_eq!(e.to_string(), "nbuckets is 0, wanted 8 to 33554432");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is outside its range.
    #[error("{what} is {found}, wanted {wanted}")]
    Limit {
        /// The setting, by its public name.
        what: &'static str,
        /// The value that was given.
        found: u64,
        /// The range or rule it breaks.
        wanted: String,
    },
    /// Something was asked of a bucket or a set whose state does not allow it.
    #[error("{what}: found {found}, wanted {wanted}")]
    State {
        /// What was asked, and of what.
        what: String,
        /// The state it is in.
        found: String,
        /// The state it would have to be in.
        wanted: &'static str,
    },
    /// A line of a script cannot be understood or carried out.
    #[error("line {line}: {what}: found {found}, wanted {wanted}")]
    Script {
        /// The line, counted from 1.
        line: usize,
        /// The operation and argument.
        what: String,
        /// What stands there.
        found: String,
        /// What could stand there.
        wanted: String,
    },
}

impl Error {
    /// A [`Error::Limit`] for `what`.
    pub(crate) fn limit(what: &'static str, found: impl Into<u64>, wanted: String) -> Self {
        Self::Limit { what, found: found.into(), wanted }
    }

    /// A [`Error::State`].
    pub(crate) fn state(
        what: impl Into<String>,
        found: impl core::fmt::Display,
        wanted: &'static str,
    ) -> Self {
        Self::State { what: what.into(), found: found.to_string(), wanted }
    }
}
