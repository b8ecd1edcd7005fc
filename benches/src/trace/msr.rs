//! MSR Cambridge: `time,host,disk,Read|Write,offset,size,response`, one request a line.
//!
//! The time is a Windows file time (units of 100 ns since 1601), offset and size are bytes.
//! Host and disk together name the volume. Lines are not always sorted by time.

use super::Decode;
use super::input::{Input, quoted};
use super::request::{Op, Request};
use super::volumes::Volumes;
use crate::error::Error;
use std::time::Duration;

/// Whether a trace could start with this line.
pub(super) fn fits(line: &str) -> bool {
    let fields: Vec<_> = line.split(',').collect();
    fields.len() == 7
        && op(fields[3]).is_some()
        && [0, 4, 5].iter().all(|&i| fields[i].parse::<u64>().is_ok())
}

fn op(name: &str) -> Option<Op> {
    match name {
        _ if name.eq_ignore_ascii_case("read") => Some(Op::Get),
        _ if name.eq_ignore_ascii_case("write") => Some(Op::Set),
        _ => None,
    }
}

/// The decoder.
#[derive(Default)]
pub(super) struct Msr {
    volumes: Volumes,
}

impl Decode for Msr {
    fn decode(&mut self, input: &mut Input) -> Result<Option<Request>, Error> {
        let Some(line) = input.text()? else { return Ok(None) };
        let mut fields = line.split(',');
        let time: u64 = input.number(fields.next(), "a time in units of 100 ns")?;
        let mut next = |what| fields.next().ok_or_else(|| input.malformed("the line's end", what));
        let volume = format!("{}.{}", next("a host name")?, next("a disk number")?);
        let name = next("Read or Write")?;
        let op = op(name).ok_or_else(|| input.malformed(quoted(name), "Read or Write"))?;
        let offset = input.number(fields.next(), "an offset in bytes")?;
        let size = input.number(fields.next(), "a size in bytes")?;
        let target = self.volumes.extent(&volume, offset, size, op, input)?;
        let time = Duration::new(time / 10_000_000, (time % 10_000_000) as u32 * 100);
        Ok(Some(Request { time, op, target, size }))
    }
}
