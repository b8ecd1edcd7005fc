//! oracleGeneral: 24 bytes a request, little-endian, packed.
//!
//! ```text
//!  0        4        8                 16       20       24
//! ├ seconds ┼ object id (64 bits) ─────┼ size B ┼ next access ┄┄ 64 bits, to 24
//! ```
//! Exactly: `u32 seconds, u64 id, u32 size, i64 next access`, the last one the 1-based index of
//! the next request for the same object, or −1 (also `i64::MAX` in some). There is no
//! operation: all are reads. The time of the next access is not used.

use super::Decode;
use super::input::{Input, take};
use super::request::{Op, Request, Target};
use crate::error::Error;
use std::time::Duration;

const RECORD_BYTES: usize = 24;

#[derive(Clone, Copy)]
struct Record {
    seconds: u32,
    id: u64,
    size: u32,
    next_access: i64,
}

impl Record {
    fn new(bytes: &[u8; RECORD_BYTES]) -> Self {
        let (seconds, rest) = take(bytes);
        let (id, rest) = take(rest);
        let (size, rest) = take(rest);
        let (next_access, _) = take(rest);
        Self {
            seconds: u32::from_le_bytes(seconds),
            id: u64::from_le_bytes(id),
            size: u32::from_le_bytes(size),
            next_access: i64::from_le_bytes(next_access),
        }
    }
}

/// Whether the first records make sense together: times ascend, sizes are sane, and a next
/// access lies ahead.
pub(super) fn fits(head: &[u8]) -> bool {
    let records = || head.as_chunks().0.iter().take(64).map(Record::new);
    let whole = head.len() >= 64 * RECORD_BYTES || head.len().is_multiple_of(RECORD_BYTES);
    let sane = records().zip(1i64..).all(|(r, index)| {
        (1..=Request::SIZE_MAX).contains(&u64::from(r.size))
            && (r.next_access == -1 || r.next_access > index)
    });
    !head.is_empty() && whole && sane && records().is_sorted_by_key(|r| r.seconds)
}

/// The decoder.
pub(super) struct OracleGeneral;

impl Decode for OracleGeneral {
    fn decode(&mut self, input: &mut Input) -> Result<Option<Request>, Error> {
        let Some(bytes) = input.record::<RECORD_BYTES>()? else { return Ok(None) };
        let record = Record::new(&bytes);
        if u64::from(record.size) > Request::SIZE_MAX || record.next_access < -1 {
            let found =
                format!("a size of {} bytes and next access {}", record.size, record.next_access);
            let wanted = "at most 1 GiB and next access -1 or an index";
            return Err(input.malformed_record::<RECORD_BYTES>(found, wanted));
        }
        Ok(Some(Request {
            time: Duration::from_secs(record.seconds.into()),
            op: Op::Get,
            target: Target::Object(record.id),
            size: record.size.into(),
        }))
    }
}
