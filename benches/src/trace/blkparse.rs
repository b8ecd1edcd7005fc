//! blkparse: the default text that `blkparse` makes of a blktrace recording.
//!
//! ```text
//!   8,0    0        1     0.000000000  1234  Q   R 47348207 + 128 [fio]
//!   major,minor cpu sequence seconds pid action rwbs start + sectors [command]
//! ```
//! Only action `Q` (queued) counts, so that a request is not seen once more for each of its
//! later stages. In `rwbs` D is a discard, W a write, R a read; neither: a flush, passed over.
//! A blank line or one that starts with `CPU` begins the summary, where the trace ends.

use super::Decode;
use super::input::{Input, quoted};
use super::request::{Op, Request, SECTOR_BYTES};
use super::volumes::Volumes;
use crate::error::Error;
use std::time::Duration;

/// Whether a trace could start with this line.
pub(super) fn fits(line: &str) -> bool {
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let device = |w: &str| {
        w.split_once(',').is_some_and(|(a, b)| a.parse::<u32>().is_ok() && b.parse::<u32>().is_ok())
    };
    words.len() >= 6 && device(words[0]) && seconds(words[3]).is_some()
}

/// `seconds.nanoseconds`, exactly.
fn seconds(text: &str) -> Option<Duration> {
    let (seconds, nanos) = text.split_once('.')?;
    let nanos: u32 = (nanos.len() == 9).then(|| nanos.parse().ok())??;
    Some(Duration::new(seconds.parse().ok()?, nanos))
}

/// The decoder.
#[derive(Default)]
pub(super) struct Blkparse {
    volumes: Volumes,
}

impl Blkparse {
    /// What one line asks for; `None` if nothing of the cache.
    fn event(&mut self, line: &str, input: &Input) -> Result<Option<Request>, Error> {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let &[device, _, _, time, _, action, ref rest @ ..] = words.as_slice() else {
            return Err(input.malformed(quoted(line), "at least six fields"));
        };
        let wanted = "a time as seconds.nanoseconds";
        let time = seconds(time).ok_or_else(|| input.malformed(quoted(time), wanted))?;
        let &[rwbs, ref range @ ..] = rest else { return Ok(None) };
        let op = match rwbs {
            _ if action != "Q" => return Ok(None),
            _ if rwbs.contains('D') => Op::Remove,
            _ if rwbs.contains('W') => Op::Set,
            _ if rwbs.contains('R') => Op::Get,
            _ => return Ok(None),
        };
        let &[start, "+", sectors, ..] = range else {
            return Err(input.malformed(quoted(line), "start + sectors after the kind of request"));
        };
        let start: u64 = input.number(Some(start), "a start in sectors")?;
        let sectors: u32 = input.number(Some(sectors), "a number of sectors")?;
        if sectors == 0 {
            return Ok(None);
        }
        let size = u64::from(sectors) * SECTOR_BYTES;
        let offset = start.saturating_mul(SECTOR_BYTES);
        let target = self.volumes.extent(device, offset, size, op, input)?;
        Ok(Some(Request { time, op, target, size }))
    }
}

impl Decode for Blkparse {
    fn decode(&mut self, input: &mut Input) -> Result<Option<Request>, Error> {
        while let Some(line) = input.line()? {
            let line = line.trim();
            if line.is_empty() || line.starts_with("CPU") {
                return Ok(None);
            }
            if let Some(request) = self.event(line, input)? {
                return Ok(Some(request));
            }
        }
        Ok(None)
    }
}
