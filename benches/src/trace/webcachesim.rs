//! webcachesim: `time id size`, one read a line; the time in seconds, the size in bytes.
//!
//! Further columns (features of the object) are passed over.

use super::Decode;
use super::input::Input;
use super::request::{Op, Request, Target};
use crate::error::Error;
use std::time::Duration;

/// Whether a trace could start with this line.
pub(super) fn fits(line: &str) -> bool {
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    words.len() == 3 && words.iter().all(|word| word.parse::<u64>().is_ok())
}

/// The decoder.
pub(super) struct Webcachesim;

impl Decode for Webcachesim {
    fn decode(&mut self, input: &mut Input) -> Result<Option<Request>, Error> {
        let Some(line) = input.text()? else { return Ok(None) };
        let mut words = line.split_ascii_whitespace();
        let seconds = input.number(words.next(), "a time in seconds")?;
        let id = words.next().ok_or_else(|| input.malformed("the line's end", "an id"))?;
        let size: u64 = input.number(words.next(), "a size in bytes")?;
        if size > Request::SIZE_MAX {
            return Err(input.malformed(format!("a size of {size} bytes"), "at most 1 GiB"));
        }
        let time = Duration::from_secs(seconds);
        Ok(Some(Request { time, op: Op::Get, target: Target::named(id), size }))
    }
}
