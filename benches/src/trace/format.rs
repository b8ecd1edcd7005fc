//! The formats, their names, and how one is recognised.
//!
//! Content decides: each format's `fits` looks at the first 64 KiB. Binary formats are asked
//! before text ones, the most telling first. The name decides only where the content cannot
//! (a binary trace too short to be told from another).

use super::input::{Input, quoted};
use super::{
    Decode, arc, blkparse, blktrace, cachebench_kv, fio_iolog, mooncake, msr, oracle_general,
    vscsi, webcachesim,
};
use crate::error::Error;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// How a trace is written down.
///
/// ```
/// use tierce_bench::Format;
/// assert_eq!("oracle-general".parse::<Format>().unwrap(), Format::OracleGeneral);
/// assert_eq!(Format::Vscsi.to_string(), "vscsi");
/// let error = "vhs".parse::<Format>().unwrap_err().to_string();
/// assert!(error.starts_with("the trace format is \"vhs\", wanted one of oracle-general, vscsi"));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Format {
    /// libCacheSim's binary oracleGeneral: objects with their sizes, all reads.
    OracleGeneral,
    /// Binary VMware vSCSI block traces, version 1 or 2.
    Vscsi,
    /// The Microsoft Research Cambridge block traces: comma-separated text.
    Msr,
    /// What fio's `write_iolog` writes, version 2 or 3.
    FioIolog,
    /// The binary files of blktrace.
    Blktrace,
    /// What blkparse prints in its default format.
    Blkparse,
    /// CacheLib's cachebench key-value traces: comma-separated text with a header.
    CachebenchKv,
    /// The block traces published with the ARC paper.
    Arc,
    /// webcachesim's `time id size`.
    Webcachesim,
    /// Mooncake's language-model serving traces, one JSON object a line.
    Mooncake,
}

impl Format {
    /// All formats, in the order in which they are listed to users.
    pub const ALL: [Self; 10] = [
        Self::OracleGeneral,
        Self::Vscsi,
        Self::Msr,
        Self::FioIolog,
        Self::Blktrace,
        Self::Blkparse,
        Self::CachebenchKv,
        Self::Arc,
        Self::Webcachesim,
        Self::Mooncake,
    ];

    /// Its name, as users write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OracleGeneral => "oracle-general",
            Self::Vscsi => "vscsi",
            Self::Msr => "msr",
            Self::FioIolog => "fio-iolog",
            Self::Blktrace => "blktrace",
            Self::Blkparse => "blkparse",
            Self::CachebenchKv => "cachebench-kv",
            Self::Arc => "arc",
            Self::Webcachesim => "webcachesim",
            Self::Mooncake => "mooncake",
        }
    }

    /// The names of all formats.
    #[must_use]
    pub fn names() -> [&'static str; 10] {
        Self::ALL.map(Self::name)
    }

    /// The format whose traces start like `head`, or `None` if no format does.
    ///
    /// `head` is the start of the decompressed trace, the more the better; `path` is only
    /// looked at where the content leaves the choice open.
    ///
    /// ```
    /// use tierce_bench::Format;
    /// let head = b"fio version 2 iolog\n";
    /// assert_eq!(Format::detect(head, "x".as_ref()), Some(Format::FioIolog));
    /// assert_eq!(Format::detect(b"dear reader", "x.txt".as_ref()), None);
    /// ```
    #[must_use]
    pub fn detect(head: &[u8], path: &Path) -> Option<Self> {
        let named = Self::by_name(path).filter(|format| format.fits(head));
        named.or_else(|| Self::ALL.into_iter().find(|format| format.fits(head)))
    }

    /// The format that files with such a name usually have.
    fn by_name(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let has = |part: &str| name.split('.').any(|p| p == part);
        if has("oraclegeneral") {
            Some(Self::OracleGeneral)
        } else if has("vscsi") {
            Some(Self::Vscsi)
        } else if has("blktrace") {
            Some(Self::Blktrace)
        } else if has("lis") {
            Some(Self::Arc)
        } else {
            None
        }
    }

    /// Whether a trace of this format could start with `head`.
    fn fits(self, head: &[u8]) -> bool {
        match self {
            Self::OracleGeneral => oracle_general::fits(head),
            Self::Vscsi => vscsi::fits(head),
            Self::Blktrace => blktrace::fits(head),
            _ => first_line(head).is_some_and(|line| self.fits_line(line)),
        }
    }

    /// Whether a trace of this text format could start with this line.
    fn fits_line(self, line: &str) -> bool {
        match self {
            Self::Msr => msr::fits(line),
            Self::FioIolog => fio_iolog::fits(line),
            Self::Blkparse => blkparse::fits(line),
            Self::CachebenchKv => cachebench_kv::fits(line),
            Self::Arc => arc::fits(line),
            Self::Webcachesim => webcachesim::fits(line),
            Self::Mooncake => mooncake::fits(line),
            Self::OracleGeneral | Self::Vscsi | Self::Blktrace => false,
        }
    }

    /// The decoder for a trace of this format that starts with `input`'s head.
    pub(super) fn decoder(self, input: &mut Input) -> Result<Box<dyn Decode>, Error> {
        Ok(match self {
            Self::OracleGeneral => Box::new(oracle_general::OracleGeneral),
            Self::Vscsi => Box::new(vscsi::Vscsi::new(input)?),
            Self::Msr => Box::new(msr::Msr::default()),
            Self::FioIolog => Box::new(fio_iolog::FioIolog::new(input)?),
            Self::Blktrace => Box::new(blktrace::Blktrace::default()),
            Self::Blkparse => Box::new(blkparse::Blkparse::default()),
            Self::CachebenchKv => Box::new(cachebench_kv::CachebenchKv::new(input)?),
            Self::Arc => Box::new(arc::Arc),
            Self::Webcachesim => Box::new(webcachesim::Webcachesim),
            Self::Mooncake => Box::new(mooncake::Mooncake::default()),
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|format| format.name() == name).ok_or_else(|| Error::Setting {
            what: "the trace format",
            found: quoted(name),
            wanted: format!("one of {}", Self::names().join(", ")),
        })
    }
}

/// The first line that is not blank, if `head` starts with text.
fn first_line(head: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The head may end within a character.
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).ok()?,
    };
    text.lines().map(str::trim).find(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for format in Format::ALL {
            assert_eq!(format.name().parse::<Format>().unwrap(), format);
        }
    }

    #[test]
    fn nothing_is_no_format() {
        assert_eq!(Format::detect(b"", "a.vscsi".as_ref()), None);
        assert_eq!(Format::detect(&[0; 4096], "zeros".as_ref()), None);
        assert_eq!(Format::detect(&[0xff; 4096], "ones.oracleGeneral".as_ref()), None);
    }
}
