//! fio's iolog: one event a line, after the line `fio version N iolog`.
//!
//! ```text
//! v2:  FILE add|open|close
//!      FILE read|write|trim|sync|datasync|wait OFFSET LENGTH   wait: OFFSET is µs since the last
//! v3:  MICROSECONDS FILE …                                     since the start; no wait
//! ```
//! Offsets and lengths are bytes. A file is a volume; only read, write and trim are requests.

use super::Decode;
use super::input::{Input, quoted};
use super::request::{Op, Request};
use super::volumes::Volumes;
use crate::error::Error;
use std::time::Duration;

/// Whether a trace could start with this line.
pub(super) fn fits(line: &str) -> bool {
    version(line).is_some()
}

fn version(line: &str) -> Option<Version> {
    match line.trim() {
        "fio version 2 iolog" => Some(Version::V2),
        "fio version 3 iolog" => Some(Version::V3),
        _ => None,
    }
}

#[derive(Clone, Copy)]
enum Version {
    V2,
    V3,
}

/// The decoder.
pub(super) struct FioIolog {
    version: Version,
    micros: u64,
    volumes: Volumes,
}

impl FioIolog {
    /// Reads the first line.
    pub(super) fn new(input: &mut Input) -> Result<Self, Error> {
        let wanted = "\"fio version 2 iolog\" or \"fio version 3 iolog\"";
        let line = input.line()?.ok_or_else(|| input.malformed("an empty file", wanted))?;
        let version = version(&line).ok_or_else(|| input.malformed(quoted(&line), wanted))?;
        Ok(Self { version, micros: 0, volumes: Volumes::default() })
    }

    /// What one line asks for; `None` if nothing of the cache.
    fn event(&mut self, line: &str, input: &Input) -> Result<Option<Request>, Error> {
        let mut words = line.split_ascii_whitespace();
        if let Version::V3 = self.version {
            self.micros = input.number(words.next(), "a time in µs")?;
        }
        let mut next = |what| words.next().ok_or_else(|| input.malformed("the line's end", what));
        let file = next("a file name")?;
        let action = next("an action")?;
        let op = match (action, self.version) {
            ("add" | "open" | "close" | "sync" | "datasync", _) => return Ok(None),
            ("read", _) => Op::Get,
            ("write", _) => Op::Set,
            ("trim", _) => Op::Remove,
            ("wait", Version::V2) => {
                let wait: u64 = input.number(words.next(), "a wait in µs")?;
                self.micros = self.micros.saturating_add(wait);
                return Ok(None);
            }
            _ => {
                let wanted = "add, open, close, read, write, trim, sync, datasync or (v2) wait";
                return Err(input.malformed(quoted(action), wanted));
            }
        };
        let offset = input.number(words.next(), "an offset in bytes")?;
        let size = input.number(words.next(), "a length in bytes")?;
        let target = self.volumes.extent(file, offset, size, op, input)?;
        Ok(Some(Request { time: Duration::from_micros(self.micros), op, target, size }))
    }
}

impl Decode for FioIolog {
    fn decode(&mut self, input: &mut Input) -> Result<Option<Request>, Error> {
        while let Some(line) = input.text()? {
            if let Some(request) = self.event(&line, input)? {
                return Ok(Some(request));
            }
        }
        Ok(None)
    }
}
