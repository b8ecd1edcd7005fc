//! The traces of the ARC paper (`.lis`): `start blocks ignored number`, one read a line.
//!
//! Blocks are 512 bytes; there are no times. (N. Megiddo, D. Modha: ARC: A Self-Tuning, Low
//! Overhead Replacement Cache, FAST 2003.)

use super::Decode;
use super::input::Input;
use super::request::{Op, Request, SECTOR_BYTES, Target};
use crate::error::Error;
use std::time::Duration;

/// Whether a trace could start with this line.
pub(super) fn fits(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let numbers = words.by_ref().take(4).filter(|word| word.parse::<u64>().is_ok()).count();
    numbers == 4 && words.next().is_none()
}

/// The decoder.
pub(super) struct Arc;

impl Decode for Arc {
    fn decode(&mut self, input: &mut Input) -> Result<Option<Request>, Error> {
        let Some(line) = input.text()? else { return Ok(None) };
        let mut words = line.split_ascii_whitespace();
        let start: u64 = input.number(words.next(), "a start in blocks of 512 bytes")?;
        let blocks: u64 = input.number(words.next(), "a number of blocks")?;
        let end = u128::from(start) + u128::from(blocks);
        let sector = u128::from(SECTOR_BYTES);
        if end * sector > u128::from(Target::OFFSET_END)
            || blocks > Request::SIZE_MAX / SECTOR_BYTES
        {
            let found = format!("{blocks} blocks from block {start}");
            return Err(input.malformed(found, "at most 1 GiB, below block 2^48 - 1"));
        }
        let target = Target::Extent { volume: 0, offset: start * SECTOR_BYTES };
        let size = blocks * SECTOR_BYTES;
        Ok(Some(Request { time: Duration::ZERO, op: Op::Get, target, size }))
    }
}
