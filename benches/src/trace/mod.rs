//! Recorded requests, whatever they were recorded with.
//!
//! [`Trace::open`] finds out how the file is compressed (plain, zstd, xz, gzip; by its first
//! bytes) and in which [`Format`] it is (told, or by content and name), and then yields one
//! [`Request`] after the other without ever holding more than a buffer of it.
//!
//! A format is one file of this folder: its layout is drawn at the top, and it implements
//! `Decode`. To add one, write that file and add a line to each `match` in `format.rs`.
//!
//! | formats | name | what a request names |
//! |---|---|---|
//! | `vscsi`, `msr`, `fio-iolog`, `blktrace`, `blkparse`, `arc` | block traces | [`Target::Extent`] |
//! | `oracle-general`, `webcachesim`, `cachebench-kv`, `mooncake` | object traces | [`Target::Object`] |

mod arc;
mod blkparse;
mod blktrace;
mod cachebench_kv;
mod decompress;
mod fio_iolog;
mod format;
mod input;
mod mooncake;
mod msr;
mod oracle_general;
mod request;
mod volumes;
mod vscsi;
mod webcachesim;

pub use format::Format;
pub use input::Position;
pub use request::{Op, Request, Target};

use crate::error::Error;
use input::Input;
use std::path::Path;
use std::time::Duration;

/// Turns the bytes of one format into requests.
///
/// The times may start anywhere; [`Trace`] makes them relative to the first request.
trait Decode: Send {
    /// The next request, or `None` at the end of the trace.
    fn decode(&mut self, input: &mut Input) -> Result<Option<Request>, Error>;
}

/// An open trace: an iterator over its requests.
///
/// It ends after the first error, and a trace without a single request is one.
///
/// ```
/// use tierce_bench::{Format, Op, Trace};
/// let file = std::env::temp_dir().join(format!("tierce-doc-{}.txt", std::process::id()));
/// std::fs::write(&file, "10 7 4096\n12 8 100\n").unwrap();
///
/// let trace = Trace::open(&file, None).unwrap();
/// assert_eq!(trace.format(), Format::Webcachesim);
/// let requests: Vec<_> = trace.map(Result::unwrap).collect();
/// assert_eq!((requests[1].op, requests[1].size), (Op::Get, 100));
/// assert_eq!(requests[1].time.as_secs(), 2);
/// # std::fs::remove_file(&file).unwrap();
/// ```
pub struct Trace {
    input: Input,
    format: Format,
    decoder: Box<dyn Decode>,
    state: State,
}

/// How far the iteration is.
enum State {
    Unstarted,
    /// The first request was at this time.
    Started(Duration),
    Ended,
}

impl Trace {
    /// Opens the trace at `path`, in `format`, or in the one that fits if `None`.
    ///
    /// # Errors
    /// [`Error::Open`], [`Error::Read`] if the file cannot be read or decompressed;
    /// [`Error::UnknownFormat`] if no format fits; [`Error::Malformed`] if its start
    /// contradicts the format.
    pub fn open(path: &Path, format: Option<Format>) -> Result<Self, Error> {
        let mut input = Input::open(path)?;
        let format = match format {
            Some(format) => format,
            None => Format::detect(input.head(), path).ok_or_else(|| input.unknown_format())?,
        };
        let decoder = format.decoder(&mut input)?;
        Ok(Self { input, format, decoder, state: State::Unstarted })
    }

    /// The format it is read in.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// How much of the file has been read, to be asked from any thread while this is iterated.
    #[must_use]
    pub fn position(&self) -> Position {
        self.input.position()
    }

    /// The next request with its time relative to the first one's.
    fn advance(&mut self) -> Result<Option<Request>, Error> {
        let request = self.decoder.decode(&mut self.input)?;
        let start = match (&self.state, &request) {
            (State::Started(start), _) => *start,
            (_, Some(first)) => {
                self.state = State::Started(first.time);
                first.time
            }
            (_, None) => return Err(self.input.malformed("no request", "at least one")),
        };
        Ok(request.map(|r| Request { time: r.time.saturating_sub(start), ..r }))
    }
}

impl Iterator for Trace {
    type Item = Result<Request, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if matches!(self.state, State::Ended) {
            return None;
        }
        let next = self.advance().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.state = State::Ended;
        }
        next
    }
}

impl std::iter::FusedIterator for Trace {}

impl std::fmt::Debug for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trace")
            .field("format", &self.format)
            .field("input", &self.input)
            .finish_non_exhaustive()
    }
}
