//! blktrace: the binary files that `blktrace` writes, one per CPU; also several one after the
//! other.
//!
//! A record is 48 bytes, little-endian, and `data` bytes more that are passed over:
//!
//! ```text
//! ├ u32 magic 0x65617407 ┼ u32 sequence ─┤   the low byte of the magic is the version
//! ├ u64 time (ns) ───────────────────────┤
//! ├ u64 start (sectors of 512 B) ────────┤
//! ├ u32 bytes ───────────┼ u32 action ───┤   action: low 8 bits what happened, 1 = queued;
//! ├ u32 process ─────────┼ u32 device ───┤   bits 16–31 categories: read 0, write 1,
//! ├ u32 cpu ─────────────┼ u16 error ┼ u16 data ┤       message 10, discard 13
//! ```
//! Only queued requests count, so that one is not seen once more for each of its later stages.
//! Files recorded by a big-endian machine are refused.

use super::Decode;
use super::input::{Input, take};
use super::request::{Op, Request, SECTOR_BYTES};
use super::volumes::Volumes;
use crate::error::Error;
use std::time::Duration;

const RECORD_BYTES: usize = 48;
const MAGIC: u32 = 0x6561_7407;
const QUEUED: u32 = 1;
const WRITE: u32 = 1 << (16 + 1);
const MESSAGE: u32 = 1 << (16 + 10);
const DISCARD: u32 = 1 << (16 + 13);

/// Whether the first record carries the magic.
pub(super) fn fits(head: &[u8]) -> bool {
    head.len() >= RECORD_BYTES && head.starts_with(&MAGIC.to_le_bytes())
}

/// The decoder.
#[derive(Default)]
pub(super) struct Blktrace {
    volumes: Volumes,
}

impl Blktrace {
    /// What the record asks for; `None` if nothing of the cache.
    fn event(
        &mut self,
        bytes: &[u8; RECORD_BYTES],
        input: &mut Input,
    ) -> Result<Option<Request>, Error> {
        let (magic, rest) = take(bytes);
        let (_sequence, rest) = take::<4>(rest);
        let (nanos, rest) = take(rest);
        let (start, rest) = take(rest);
        let (size, rest) = take(rest);
        let (action, rest) = take(rest);
        let (_process, rest) = take::<4>(rest);
        let (device, rest) = take(rest);
        let (_cpu_and_error, rest) = take::<6>(rest);
        let (data, _) = take(rest);

        let magic = u32::from_le_bytes(magic);
        if magic != MAGIC {
            let wanted = format!("magic {MAGIC:#010x}");
            let found = format!("magic {magic:#010x}");
            return Err(input.malformed_record::<RECORD_BYTES>(found, wanted));
        }
        let action = u32::from_le_bytes(action);
        let size = u64::from(u32::from_le_bytes(size));
        let op = match action {
            _ if action & DISCARD != 0 => Op::Remove,
            _ if action & WRITE != 0 => Op::Set,
            _ => Op::Get,
        };
        let request = if action & 0xff != QUEUED || action & MESSAGE != 0 || size == 0 {
            None
        } else {
            let offset = u64::from_le_bytes(start).saturating_mul(SECTOR_BYTES);
            let device = u32::from_le_bytes(device).to_string();
            let target = self.volumes.extent(&device, offset, size, op, input)?;
            let time = Duration::from_nanos(u64::from_le_bytes(nanos));
            Some(Request { time, op, target, size })
        };
        input.skip(u16::from_le_bytes(data).into())?;
        Ok(request)
    }
}

impl Decode for Blktrace {
    fn decode(&mut self, input: &mut Input) -> Result<Option<Request>, Error> {
        while let Some(bytes) = input.record()? {
            if let Some(request) = self.event(&bytes, input)? {
                return Ok(Some(request));
            }
        }
        Ok(None)
    }
}
