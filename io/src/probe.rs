//! What a device carries already.
//!
//! Whoever formats looks first: a device with a known signature is refused unless told to
//! overwrite it. The table below is what is known; it errs on the side of refusing (a boot
//! sector's two bytes are enough).

use crate::buffer::Buffer;
use crate::device::{Device, DeviceExt};
use crate::error::Error;
use std::fmt;
use tierce_core::record::superblock;

/// How much is read from the start of a device, and from its end. All signatures lie there.
pub(crate) const EDGE_BYTES: u64 = 128 << 10;

/// Where a signature lies.
#[derive(Clone, Copy)]
enum At {
    /// Bytes from the start.
    Start(u64),
    /// Bytes before the end.
    End(u64),
    /// A version-0.90 md superblock: the last 64 KiB-aligned 64 KiB.
    Md090,
    /// A version-1.0 md superblock: at least 8 KiB before the end, aligned to 4 KiB.
    Md10,
}

impl At {
    /// In bytes from the start of a device of `bytes` bytes, if it has such a place.
    fn resolve(self, bytes: u64) -> Option<u64> {
        match self {
            Self::Start(offset) => Some(offset),
            Self::End(before) => bytes.checked_sub(before),
            Self::Md090 => (bytes & !0xffff).checked_sub(0x10000),
            Self::Md10 => bytes.checked_sub(0x2000).map(|offset| offset & !0xfff),
        }
    }
}

const PARTITIONS: &str = "a GPT partition table";
const SWAP: &str = "swap space";
const LVM: &str = "an LVM physical volume";
const MD: &str = "a member of an md array";
const LUKS: &str = "a LUKS volume";

/// What is known: name, place, bytes. Boot sectors come last, because much else has one.
const SIGNATURES: &[(&str, At, &[u8])] = &[
    (PARTITIONS, At::Start(512), b"EFI PART"),
    (PARTITIONS, At::Start(4096), b"EFI PART"),
    (PARTITIONS, At::End(512), b"EFI PART"),
    (PARTITIONS, At::End(4096), b"EFI PART"),
    ("an ext2, ext3 or ext4 file system", At::Start(1080), b"\x53\xef"),
    ("an XFS file system", At::Start(0), b"XFSB"),
    ("a btrfs file system", At::Start(0x10040), b"_BHRfS_M"),
    ("an F2FS file system", At::Start(1024), b"\x10\x20\xf5\xf2"),
    ("an EROFS file system", At::Start(1024), b"\xe2\xe1\xf5\xe0"),
    ("a squashfs file system", At::Start(0), b"hsqs"),
    ("an ISO 9660 file system", At::Start(0x8001), b"CD001"),
    (
        "a bcachefs file system",
        At::Start(4096 + 24),
        b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef",
    ),
    (SWAP, At::Start(4096 - 10), b"SWAPSPACE2"),
    (SWAP, At::Start(8192 - 10), b"SWAPSPACE2"),
    (SWAP, At::Start(16384 - 10), b"SWAPSPACE2"),
    (SWAP, At::Start(65536 - 10), b"SWAPSPACE2"),
    (SWAP, At::Start(4096 - 10), b"SWAP-SPACE"),
    (LUKS, At::Start(0), b"LUKS\xba\xbe"),
    (LUKS, At::Start(0x4000), b"SKUL\xba\xbe"),
    (LVM, At::Start(0), b"LABELONE"),
    (LVM, At::Start(512), b"LABELONE"),
    (LVM, At::Start(1024), b"LABELONE"),
    (LVM, At::Start(1536), b"LABELONE"),
    (MD, At::Start(0), b"\xfc\x4e\x2b\xa9"),
    (MD, At::Start(4096), b"\xfc\x4e\x2b\xa9"),
    (MD, At::Md10, b"\xfc\x4e\x2b\xa9"),
    (MD, At::Md090, b"\xfc\x4e\x2b\xa9"),
    ("a partition table or boot sector", At::Start(510), b"\x55\xaa"),
];

/// Something known, and where.
///
/// ```
/// use tierce_io::DeviceOptions;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("swap");
/// let mut bytes = vec![0; 1 << 20];
/// bytes[4086..4096].copy_from_slice(b"SWAPSPACE2");
/// std::fs::write(&path, bytes)?;
/// let device = tierce_io::open_device(&path, &DeviceOptions::default())?;
/// let finding = tierce_io::probe(&*device)?.expect("a signature");
/// assert_eq!(finding.to_string(), "swap space (at byte 4086)");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// What it is, with its article.
    pub what: &'static str,
    /// Where its signature starts, in bytes from the start of the device.
    pub offset: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at byte {})", self.what, self.offset)
    }
}

/// Looks for everything known on a device; `None` if there is nothing. Reads only.
///
/// See [`Finding`] for an example.
///
/// # Errors
///
/// Whatever the device reports.
pub fn probe(device: &dyn Device) -> Result<Option<Finding>, Error> {
    Ok(Edges::read(device)?.known())
}

/// Both ends of a device.
pub(crate) struct Edges {
    /// Of the device.
    bytes: u64,
    head: Buffer,
    tail: Buffer,
    tail_start: u64,
}

impl Edges {
    pub(crate) fn read(device: &dyn Device) -> Result<Self, Error> {
        let bytes = device.capabilities().bytes;
        let edge = EDGE_BYTES.min(bytes);
        let tail_start = bytes - edge;
        let head = device.read_at(0, edge as usize)?;
        let tail = device.read_at(tail_start, edge as usize)?;
        Ok(Self { bytes, head, tail, tail_start })
    }

    /// The first of everything known.
    pub(crate) fn known(&self) -> Option<Finding> {
        if let Some(finding) = bcache(&self.head) {
            return Some(finding);
        }
        for &(what, at, magic) in SIGNATURES {
            let Some(offset) = at.resolve(self.bytes) else { continue };
            let is_in_head = offset < self.head.len() as u64;
            let (part, start) =
                if is_in_head { (&self.head, 0) } else { (&self.tail, self.tail_start) };
            // Below the tail: not on a device of this size.
            let Some(start) = offset.checked_sub(start) else { continue };
            let start = start as usize;
            if part.get(start..start + magic.len()) == Some(magic) {
                return Some(Finding { what, offset });
            }
        }
        None
    }

    /// The first byte that is not zero.
    pub(crate) fn first_byte(&self) -> Option<Finding> {
        let first = |bytes: &Buffer| bytes.iter().position(|&byte| byte != 0).map(|at| at as u64);
        let offset = first(&self.head).or_else(|| first(&self.tail).map(|at| self.tail_start + at));
        offset.map(|offset| Finding { what: "something unknown", offset })
    }
}

/// Any superblock with bcache's magic, by what its version says.
fn bcache(head: &[u8]) -> Option<Finding> {
    let start = superblock::OFFSET as usize;
    let word = |at: usize| {
        let bytes = head.get(start + at..start + at + 8)?;
        bytes.try_into().ok().map(u64::from_le_bytes)
    };
    let magic = superblock::MAGIC_OFFSET as usize;
    if head.get(magic..magic + superblock::MAGIC.len())? != superblock::MAGIC {
        return None;
    }
    let tierce_index = word(128)? & superblock::INCOMPAT_TIERCE_INDEX != 0;
    let what = match word(16)? {
        0 => "a formatted cache that was never used",
        3 => "a cache of tierce or Linux bcache",
        5 if tierce_index => "a tierce cache with its index",
        5 => "a cache of tierce or Linux bcache",
        1 | 2 | 4 | 6 => "a backing device of Linux bcache",
        _ => "a Linux bcache device of an unknown version",
    };
    Some(Finding { what, offset: superblock::MAGIC_OFFSET })
}
