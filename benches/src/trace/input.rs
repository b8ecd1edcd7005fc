//! The bytes of a trace: opened, decompressed, and handed out as records or lines together
//! with the place they came from.

use super::decompress::decompressed;
use crate::error::{Error, Place};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much of the start is looked at to recognise the format.
const HEAD_BYTES: u64 = 64 << 10;

/// A longer line is taken for a binary file.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// A trace file that is being read.
pub(super) struct Input {
    path: PathBuf,
    /// The first [`HEAD_BYTES`], which `reader` starts with as well.
    head: Vec<u8>,
    reader: Box<dyn BufRead + Send>,
    place: Place,
    position: Position,
    line: Vec<u8>,
}

impl Input {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let cannot_open = |cause| Error::Open { path: path.to_owned(), cause };
        let file = File::open(path).map_err(cannot_open)?;
        let metadata = file.metadata().map_err(cannot_open)?;
        if metadata.is_dir() {
            return Err(cannot_open(io::ErrorKind::IsADirectory.into()));
        }
        let position = Position { read: Arc::default(), length: metadata.len() };
        let counted = Counted { file, read: Arc::clone(&position.read) };
        let mut input = Self {
            path: path.to_owned(),
            head: Vec::new(),
            reader: Box::new(io::empty()),
            place: Place::Byte(0),
            position,
            line: Vec::new(),
        };
        let (head, rest) = peeked(counted, HEAD_BYTES).map_err(|e| input.cannot_read(e))?;
        let plain = decompressed(&head, BufReader::with_capacity(1 << 17, rest));
        let (head, rest) = peeked(plain, HEAD_BYTES).map_err(|e| input.cannot_read(e))?;
        input.head = head;
        input.reader = Box::new(BufReader::with_capacity(1 << 17, rest));
        Ok(input)
    }

    /// The first bytes of the (decompressed) trace, 64 KiB or all of it.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    pub(super) fn position(&self) -> Position {
        self.position.clone()
    }

    /// The next `N` bytes, or `None` at the end. Fewer than `N` are an error.
    pub(super) fn record<const N: usize>(&mut self) -> Result<Option<[u8; N]>, Error> {
        let mut record = [0; N];
        match self.fill(&mut record)? {
            0 => Ok(None),
            n if n == N => {
                self.skipped(N);
                Ok(Some(record))
            }
            short => {
                let found = format!("the file's end after {short} bytes of a record");
                Err(self.malformed(found, format!("{N} bytes")))
            }
        }
    }

    /// Passes over `count` bytes that belong to the last record.
    pub(super) fn skip(&mut self, count: usize) -> Result<(), Error> {
        let mut bytes = vec![0; count];
        let found = self.fill(&mut bytes)?;
        if found < count {
            let found = format!("the file's end after {found} bytes of a record's data");
            return Err(self.malformed(found, format!("{count} bytes")));
        }
        self.skipped(count);
        Ok(())
    }

    fn skipped(&mut self, count: usize) {
        if let Place::Byte(offset) = &mut self.place {
            *offset += count as u64;
        }
    }

    /// Fills `bytes` as far as the trace goes and says how far that was.
    fn fill(&mut self, bytes: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.reader.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.cannot_read(error)),
            }
        }
        Ok(filled)
    }

    /// The next line without its end, or `None` at the end of the trace.
    pub(super) fn line(&mut self) -> Result<Option<String>, Error> {
        let line_number = match self.place {
            Place::Line(line) => line + 1,
            Place::Byte(_) => 1,
        };
        self.line.clear();
        let mut limited = (&mut self.reader).take(LINE_BYTES_MAX + 1);
        let length = match limited.read_until(b'\n', &mut self.line) {
            Ok(length) => length,
            Err(error) => return Err(self.cannot_read(error)),
        };
        if length == 0 {
            return Ok(None);
        }
        self.place = Place::Line(line_number);
        if length as u64 > LINE_BYTES_MAX {
            return Err(self.malformed("a line of more than 16 MiB", "lines of text"));
        }
        match std::str::from_utf8(&self.line) {
            Ok(text) => Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned())),
            Err(_) => Err(self.malformed("bytes that are not UTF-8", "lines of text")),
        }
    }

    /// The next line that is not blank.
    pub(super) fn text(&mut self) -> Result<Option<String>, Error> {
        loop {
            match self.line()? {
                Some(line) if line.trim().is_empty() => {}
                line_or_end => return Ok(line_or_end),
            }
        }
    }

    /// The number in `text`, which the format calls `what`.
    pub(super) fn number<T>(&self, text: Option<&str>, what: &str) -> Result<T, Error>
    where
        T: std::str::FromStr,
    {
        let text = text.ok_or_else(|| self.malformed("the line's end", what))?;
        text.trim().parse().map_err(|_| self.malformed(quoted(text), what))
    }

    /// What is wrong with the record or line at hand: the one that starts here, for records,
    /// before they were returned by [`Self::record`], which ends there after.
    pub(super) fn malformed(&self, found: impl Into<String>, wanted: impl Into<String>) -> Error {
        self.malformed_at(self.place, found, wanted)
    }

    /// What is wrong with the record of `N` bytes that was returned last.
    pub(super) fn malformed_record<const N: usize>(
        &self,
        found: impl Into<String>,
        wanted: impl Into<String>,
    ) -> Error {
        let place = match self.place {
            Place::Byte(end) => Place::Byte(end.saturating_sub(N as u64)),
            line @ Place::Line(_) => line,
        };
        self.malformed_at(place, found, wanted)
    }

    fn malformed_at(
        &self,
        place: Place,
        found: impl Into<String>,
        wanted: impl Into<String>,
    ) -> Error {
        Error::Malformed {
            path: self.path.clone(),
            place,
            found: found.into(),
            wanted: wanted.into(),
        }
    }

    pub(super) fn unknown_format(&self) -> Error {
        let found = match self.head.get(..16.min(self.head.len())) {
            None | Some([]) => "nothing (it is empty)".to_owned(),
            Some(start) => format!("\"{}\"", start.escape_ascii()),
        };
        let wanted = super::Format::names().join(", ");
        Error::UnknownFormat { path: self.path.clone(), found, wanted }
    }

    fn cannot_read(&self, cause: io::Error) -> Error {
        Error::Read { path: self.path.clone(), place: self.place, cause }
    }
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Input")
            .field("path", &self.path)
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// The first `N` bytes, and the rest.
pub(super) fn take<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    let (first, rest) = bytes.split_first_chunk().expect("a record holds all its fields");
    (*first, rest)
}

/// `text` as an error message shows it: in quotes, at most 40 characters, no control characters.
pub(super) fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(40).flat_map(char::escape_debug).collect();
    format!("\"{shown}{}\"", if text.chars().nth(40).is_some() { "…" } else { "" })
}

/// Reads up to `count` bytes ahead: those, and a reader that starts with them.
fn peeked<R: Read>(mut source: R, count: u64) -> io::Result<(Vec<u8>, impl Read + use<R>)> {
    let mut head = Vec::new();
    (&mut source).take(count).read_to_end(&mut head)?;
    Ok((head.clone(), Cursor::new(head).chain(source)))
}

/// A file that counts what was read of it.
struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        // Relaxed: a figure for a progress bar, nothing is published by it.
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// How far a [`Trace`](super::Trace) has been read, in bytes of the file as it is stored.
///
/// ```
/// use tierce_bench::Trace;
/// let file = std::env::temp_dir().join(format!("tierce-position-{}.txt", std::process::id()));
/// std::fs::write(&file, "10 7 4096\n").unwrap();
/// let position = Trace::open(&file, None).unwrap().position();
/// assert_eq!((position.read(), position.length()), (10, 10));
/// # std::fs::remove_file(&file).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Position {
    read: Arc<AtomicU64>,
    length: u64,
}

impl Position {
    /// Bytes read so far; ahead of the requests by what is buffered.
    #[must_use]
    pub fn read(&self) -> u64 {
        // Relaxed: a figure for a progress bar, nothing is published by it.
        self.read.load(Ordering::Relaxed)
    }

    /// Bytes of the file; 0 if it is not a regular file.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }
}
