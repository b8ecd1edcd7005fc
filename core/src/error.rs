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
}

impl Error {
    /// A [`Error::Limit`] for `what`.
    pub(crate) fn limit(what: &'static str, found: impl Into<u64>, wanted: String) -> Self {
        Self::Limit { what, found: found.into(), wanted }
    }
}
