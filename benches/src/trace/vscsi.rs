//! vscsi: what VMware's vscsiStats records, in two versions, little-endian.
//!
//! ```text
//! v1, 32 bytes: u32 serial, u32 length (bytes), u32 scatter-gather elements,
//!               u16 command, u16 version, u64 start (sectors of 512 B), u64 time (µs)
//! v2, 40 bytes: u16 command, u16 version, u32 serial, u32 length, u32 scatter-gather elements,
//!               u64 start, u64 time (µs), u64 response time (µs)
//! ```
//! The version is the high byte of its field. The command is the SCSI operation code: reads
//! are 0x08, 0x28, 0x88, writes 0x0a, 0x2a, 0x8a.

use super::Decode;
use super::input::{Input, take};
use super::request::{Op, Request, SECTOR_BYTES, Target};
use crate::error::Error;
use std::time::Duration;

const V1_BYTES: usize = 32;
const V2_BYTES: usize = 40;

/// The fields that both versions have.
struct Record {
    command: u16,
    version: u16,
    length: u32,
    start: u64,
    micros: u64,
}

impl Record {
    fn v1(bytes: &[u8; V1_BYTES]) -> Self {
        let (_serial, rest) = take::<4>(bytes);
        let (length, rest) = take(rest);
        let (_elements, rest) = take::<4>(rest);
        let (command, rest) = take(rest);
        let (version, rest) = take(rest);
        Self::common(command, version, length, rest)
    }

    fn v2(bytes: &[u8; V2_BYTES]) -> Self {
        let (command, rest) = take(bytes);
        let (version, rest) = take(rest);
        let (_serial, rest) = take::<4>(rest);
        let (length, rest) = take(rest);
        let (_elements, rest) = take::<4>(rest);
        Self::common(command, version, length, rest)
    }

    /// `rest` are the start and the time, which follow each other in both.
    fn common(command: [u8; 2], version: [u8; 2], length: [u8; 4], rest: &[u8]) -> Self {
        let (start, rest) = take(rest);
        let (micros, _) = take(rest);
        Self {
            command: u16::from_le_bytes(command),
            version: u16::from_le_bytes(version) >> 8,
            length: u32::from_le_bytes(length),
            start: u64::from_le_bytes(start),
            micros: u64::from_le_bytes(micros),
        }
    }

    fn op(&self) -> Option<Op> {
        match self.command {
            0x08 | 0x28 | 0x88 => Some(Op::Get),
            0x0a | 0x2a | 0x8a => Some(Op::Set),
            _ => None,
        }
    }

    fn request(&self, version: u16) -> Result<Request, (String, String)> {
        if self.version != version {
            return Err((format!("version {}", self.version), format!("version {version}")));
        }
        let op = self.op().ok_or_else(|| {
            (format!("SCSI command {:#04x}", self.command), "a read or write".to_owned())
        })?;
        let (offset, size) = (u128::from(self.start) * 512, u64::from(self.length));
        if offset + u128::from(size) > u128::from(Target::OFFSET_END) || size > Request::SIZE_MAX {
            let found = format!("{size} bytes from sector {}", self.start);
            return Err((found, "at most 1 GiB, below sector 2^48 - 1".to_owned()));
        }
        Ok(Request {
            time: Duration::from_micros(self.micros),
            op,
            target: Target::Extent { volume: 0, offset: self.start * SECTOR_BYTES },
            size,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    V1,
    V2,
}

/// The version in which the first records make sense.
fn version(head: &[u8]) -> Option<Version> {
    let (v1, v1_rest) = head.as_chunks();
    let (v2, v2_rest) = head.as_chunks();
    let cut = |records: usize, rest: &[u8]| records < 64 && !rest.is_empty();
    let valid = |record: Record, version| record.request(version).is_ok();
    if head.is_empty() {
        None
    } else if !cut(v1.len(), v1_rest) && v1.iter().take(64).all(|r| valid(Record::v1(r), 1)) {
        Some(Version::V1)
    } else if !cut(v2.len(), v2_rest) && v2.iter().take(64).all(|r| valid(Record::v2(r), 2)) {
        Some(Version::V2)
    } else {
        None
    }
}

/// Whether this is a vscsi trace of either version.
pub(super) fn fits(head: &[u8]) -> bool {
    version(head).is_some()
}

/// The decoder.
pub(super) struct Vscsi {
    version: Version,
}

impl Vscsi {
    /// Takes the version from the first record: by its version field, where the rest of the
    /// head is damaged.
    pub(super) fn new(input: &mut Input) -> Result<Self, Error> {
        let head = input.head();
        let first = |offset: usize| head.get(offset + 1).copied();
        let version = version(head).or(match (first(14), first(2)) {
            (Some(1), _) => Some(Version::V1),
            (_, Some(2)) => Some(Version::V2),
            _ => None,
        });
        match version {
            Some(version) => Ok(Self { version }),
            None => Err(input.malformed("no vscsi record", "a vscsi record of version 1 or 2")),
        }
    }

    fn decode_as<const N: usize>(
        input: &mut Input,
        version: u16,
        record: impl Fn(&[u8; N]) -> Record,
    ) -> Result<Option<Request>, Error> {
        let Some(bytes) = input.record::<N>()? else { return Ok(None) };
        let request = record(&bytes).request(version);
        request.map(Some).map_err(|(found, wanted)| input.malformed_record::<N>(found, wanted))
    }
}

impl Decode for Vscsi {
    fn decode(&mut self, input: &mut Input) -> Result<Option<Request>, Error> {
        match self.version {
            Version::V1 => Self::decode_as(input, 1, Record::v1),
            Version::V2 => Self::decode_as(input, 2, Record::v2),
        }
    }
}
