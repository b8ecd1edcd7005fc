//! cachebench's key-value traces: comma-separated text whose first line names the columns.
//!
//! Needed are `key`, `op` and `size` (of the value, in bytes); `op_count` (default 1) says how
//! many times the request happened in a row and `op_time` when, in seconds; others are passed
//! over. `GET` and `GET_LEASE` read, `SET` and `SET_LEASE` write, `DELETE` removes.

use super::Decode;
use super::input::{Input, quoted};
use super::request::{Op, Request, Target};
use crate::error::Error;
use std::time::Duration;

/// Whether a trace could start with this line.
pub(super) fn fits(line: &str) -> bool {
    let has = |name| line.split(',').any(|column| column.trim() == name);
    has("key") && has("op") && has("size")
}

/// The decoder.
pub(super) struct CachebenchKv {
    key: usize,
    op: usize,
    size: usize,
    op_count: Option<usize>,
    op_time: Option<usize>,
    /// The request of the last line, and how many more times it happened.
    again: Option<(Request, u64)>,
}

impl CachebenchKv {
    /// Reads the header.
    pub(super) fn new(input: &mut Input) -> Result<Self, Error> {
        let wanted = "a header with the columns key, op and size";
        let header = input.line()?.ok_or_else(|| input.malformed("an empty file", wanted))?;
        let column = |name| header.split(',').position(|column| column.trim() == name);
        let needed = |name| column(name).ok_or_else(|| input.malformed(quoted(&header), wanted));
        Ok(Self {
            key: needed("key")?,
            op: needed("op")?,
            size: needed("size")?,
            op_count: column("op_count"),
            op_time: column("op_time"),
            again: None,
        })
    }

    /// The request of one line, and how many times it happened.
    fn row(&self, line: &str, input: &Input) -> Result<(Request, u64), Error> {
        let fields: Vec<_> = line.split(',').map(str::trim).collect();
        let get = |column: usize| fields.get(column).copied();
        let key = get(self.key).filter(|key| !key.is_empty());
        let key = key.ok_or_else(|| input.malformed(quoted(line), "a key"))?;
        let op = match get(self.op) {
            Some("GET" | "GET_LEASE") => Op::Get,
            Some("SET" | "SET_LEASE") => Op::Set,
            Some("DELETE") => Op::Remove,
            found => {
                let wanted = "GET, GET_LEASE, SET, SET_LEASE or DELETE";
                return Err(input.malformed(quoted(found.unwrap_or("")), wanted));
            }
        };
        let size: u64 = input.number(get(self.size), "a size in bytes")?;
        if size > Request::SIZE_MAX {
            return Err(input.malformed(format!("a size of {size} bytes"), "at most 1 GiB"));
        }
        let count = match self.op_count {
            None => 1,
            Some(column) => input.number::<u32>(get(column), "how many times")?,
        };
        let seconds = match self.op_time {
            None => 0,
            Some(column) => input.number(get(column), "a time in seconds")?,
        };
        let time = Duration::from_secs(seconds);
        Ok((Request { time, op, target: Target::named(key), size }, count.into()))
    }
}

impl Decode for CachebenchKv {
    fn decode(&mut self, input: &mut Input) -> Result<Option<Request>, Error> {
        loop {
            if let Some((request, count @ 1..)) = &mut self.again {
                *count -= 1;
                return Ok(Some(*request));
            }
            let Some(line) = input.text()? else { return Ok(None) };
            self.again = Some(self.row(&line, input)?);
        }
    }
}
