//! Mooncake: one JSON object a line, `{"timestamp": ms, …, "hash_ids": [block, …]}`.
//!
//! A line is one request to a language model; its `hash_ids` are the blocks of the key-value
//! cache it needs, in order. Each becomes a read of [`BLOCK_BYTES`]: the trace gives no sizes,
//! as they depend on the model.

use super::Decode;
use super::input::Input;
use super::request::{Op, Request, Target};
use crate::error::Error;
use std::time::Duration;

/// The nominal size of a block.
const BLOCK_BYTES: u64 = 4096;

#[derive(serde::Deserialize)]
struct Line {
    timestamp: u64,
    hash_ids: Vec<u64>,
}

/// Whether a trace could start with this line. A head may end within it.
pub(super) fn fits(line: &str) -> bool {
    line.starts_with('{') && line.contains("\"timestamp\"") && line.contains("\"hash_ids\"")
}

/// The decoder.
#[derive(Default)]
pub(super) struct Mooncake {
    time: Duration,
    blocks: std::vec::IntoIter<u64>,
}

impl Decode for Mooncake {
    fn decode(&mut self, input: &mut Input) -> Result<Option<Request>, Error> {
        loop {
            if let Some(block) = self.blocks.next() {
                let (time, target) = (self.time, Target::Object(block));
                return Ok(Some(Request { time, op: Op::Get, target, size: BLOCK_BYTES }));
            }
            let Some(text) = input.text()? else { return Ok(None) };
            let line: Line = serde_json::from_str(&text).map_err(|error| {
                input.malformed(error.to_string(), "an object with timestamp and hash_ids")
            })?;
            self.time = Duration::from_millis(line.timestamp);
            self.blocks = line.hash_ids.into_iter();
        }
    }
}
