//! What can go wrong outside the cache that is measured.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why a trace, a setting or a run was refused or given up.
///
/// Every message fits one line and names the file or setting, the place in it, what was found
/// and what was wanted.
///
/// ```
/// use tierce_bench::Trace;
/// let error = Trace::open("no/such/trace".as_ref(), None).unwrap_err();
/// assert!(error.to_string().starts_with("trace no/such/trace: cannot open it: "));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The trace cannot be opened.
    #[error("trace {}: cannot open it: {cause}", path.display())]
    Open {
        /// The trace.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// Reading or decompressing the trace failed.
    #[error("trace {}: cannot read on after {place}: {cause}", path.display())]
    Read {
        /// The trace.
        path: PathBuf,
        /// How far it could be read.
        place: Place,
        /// What the system or the decompressor said.
        cause: io::Error,
    },
    /// The trace holds something that its format does not allow.
    #[error("trace {}: {place}: found {found}, wanted {wanted}", path.display())]
    Malformed {
        /// The trace.
        path: PathBuf,
        /// Where.
        place: Place,
        /// What is there.
        found: String,
        /// What should be there.
        wanted: String,
    },
    /// The format was to be recognised, and none fits.
    #[error("trace {}: it starts with {found}, wanted one of the formats {wanted}", path.display())]
    UnknownFormat {
        /// The trace.
        path: PathBuf,
        /// Its first bytes.
        found: String,
        /// The names of the known formats.
        wanted: String,
    },
    /// A setting is outside its range.
    #[error("{what} is {found}, wanted {wanted}")]
    Setting {
        /// The setting, by its public name.
        what: &'static str,
        /// The value that was given.
        found: String,
        /// The range or rule it breaks.
        wanted: String,
    },
    /// The cache under test returned an error.
    #[error("cannot {action}: {cause}")]
    Store {
        /// What it was asked to do.
        action: &'static str,
        /// What it said.
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A peer in a process of its own did not do its part.
    #[error("peer {}: {found}", program.display())]
    Peer {
        /// The program.
        program: PathBuf,
        /// What it did or said.
        found: String,
    },
    /// The kill test's worker did not do its part.
    #[error("kill test, round {round}: found {found}, wanted {wanted}")]
    Worker {
        /// The round, from 1.
        round: u32,
        /// What it did.
        found: String,
        /// What it should have done.
        wanted: String,
    },
}

impl Error {
    /// An [`Error::Store`] for a failed `action`.
    pub(crate) fn store<E>(action: &'static str) -> impl FnOnce(E) -> Self
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        move |cause| Self::Store { action, cause: Box::new(cause) }
    }
}

/// A place in a trace, after decompression.
///
/// ```
/// use tierce_bench::Place;
/// assert_eq!(Place::Line(3).to_string(), "line 3");
/// assert_eq!(Place::Byte(96).to_string(), "byte 96");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// An offset from the start, in bytes.
    Byte(u64),
    /// A line, counted from 1.
    Line(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Byte(offset) => write!(f, "byte {offset}"),
            Self::Line(line) => write!(f, "line {line}"),
        }
    }
}
