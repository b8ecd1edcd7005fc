//! Reading a line: words, `key=value` pairs, buckets, ranges and keys.

use super::super::{Live, Pointer};
use crate::bucket::{BucketId, BucketIndex, DeviceIndex, Gen, Mark};
use crate::error::Error;
use crate::reserve::Reserve;
use core::fmt::Display;
use core::ops::RangeInclusive;

/// A line that is not empty, taken apart.
#[derive(Clone, Debug)]
pub(super) struct Line<'a> {
    number: usize,
    pub(super) op: &'a str,
    pub(super) bare: Vec<&'a str>,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Line<'a> {
    /// `None` if nothing stands before the comment.
    pub(super) fn parse(number: usize, text: &'a str) -> Option<Self> {
        let text = text.split('#').next().unwrap_or("");
        let mut words = text.split_whitespace();
        let op = words.next()?;
        let mut line = Self { number, op, bare: Vec::new(), pairs: Vec::new() };
        for word in words {
            match word.split_once('=') {
                Some(pair) => line.pairs.push(pair),
                None => line.bare.push(word),
            }
        }
        Some(line)
    }

    /// The error that `argument` of this line is not what it could be.
    pub(super) fn error(&self, argument: &str, found: impl Display, wanted: impl Display) -> Error {
        let what = if argument.is_empty() || argument == self.op {
            self.op.to_owned()
        } else {
            format!("{} {argument}", self.op)
        };
        Error::Script {
            line: self.number,
            what,
            found: found.to_string(),
            wanted: wanted.to_string(),
        }
    }

    /// Puts the line before an error of the engine.
    pub(super) fn wrap(&self, e: Error) -> Error {
        match e {
            Error::Limit { what, found, wanted } => self.error(what, found, wanted),
            Error::State { what, found, wanted } if what == self.op => {
                self.error("", found, wanted)
            }
            Error::State { what, found, wanted } => self.error(&format!("({what})"), found, wanted),
            other => other,
        }
    }

    /// Only these keys, each at most once.
    pub(super) fn only_keys(&self, keys: &[&str]) -> Result<(), Error> {
        for (at, (key, _)) in self.pairs.iter().enumerate() {
            if !keys.contains(key) {
                let wanted = if keys.is_empty() { "no `key=value`" } else { &keys.join("=, ") };
                return Err(self.error("", format!("{key}="), wanted));
            }
            if self.pairs[..at].iter().any(|(earlier, _)| earlier == key) {
                return Err(self.error("", format!("{key}= twice"), "each at most once"));
            }
        }
        Ok(())
    }

    /// Nothing but these keys.
    pub(super) fn only(&self, keys: &[&str]) -> Result<(), Error> {
        if let Some(word) = self.bare.first() {
            let wanted = match keys {
                [] => "nothing after it".to_owned(),
                keys => format!("{}=", keys.join("=, ")),
            };
            return Err(self.error("", word, wanted));
        }
        self.only_keys(keys)
    }

    /// Nothing but words, at least one.
    pub(super) fn only_words(&self, wanted: &str) -> Result<(), Error> {
        if self.bare.is_empty() {
            return Err(self.error("", "nothing", wanted));
        }
        self.only_keys(&[])
    }

    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.pairs.iter().find(|(k, _)| *k == key).map(|(_, value)| *value)
    }

    pub(super) fn number(
        &self,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, Error> {
        self.text(key).map(|text| self.parse_number(key, text, range)).transpose()
    }

    /// As [`number`](Self::number), for what fits 32 bits.
    pub(super) fn small(
        &self,
        key: &str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, Error> {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        Ok(self.number(key, range)?.map(|n| n as u32))
    }

    pub(super) fn required(&self, key: &str, range: RangeInclusive<u64>) -> Result<u64, Error> {
        let wanted = format!("{key}={}..{}", range.start(), range.end());
        self.number(key, range)?.ok_or_else(|| self.error("", format!("no {key}="), wanted))
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        Ok(self.number(key, 0..=1)?.map(|n| n == 1))
    }

    pub(super) fn signed(&self, key: &str) -> Result<Option<i64>, Error> {
        let parse = |text: &str| {
            text.parse().map_err(|_| self.error(key, text, "a whole number of 64 bits"))
        };
        self.text(key).map(parse).transpose()
    }

    pub(super) fn reserve(&self) -> Result<Reserve, Error> {
        match self.text("reserve").unwrap_or("none") {
            "none" => Ok(Reserve::None),
            "btree" => Ok(Reserve::Btree),
            "prio" => Ok(Reserve::Prio),
            "movinggc" => Ok(Reserve::MovingGc),
            other => Err(self.error("reserve", other, "none, btree, prio or movinggc")),
        }
    }

    pub(super) fn mark(&self) -> Result<Option<Mark>, Error> {
        let parse = |text| match text {
            "free" => Ok(Mark::None),
            "clean" => Ok(Mark::Reclaimable),
            "dirty" => Ok(Mark::Dirty),
            "meta" => Ok(Mark::Metadata),
            other => Err(self.error("mark", other, "free, clean, dirty or meta")),
        };
        self.text("mark").map(parse).transpose()
    }

    fn parse_number(
        &self,
        argument: &str,
        text: &str,
        range: RangeInclusive<u64>,
    ) -> Result<u64, Error> {
        match text.parse() {
            Ok(n) if range.contains(&n) => Ok(n),
            _ => {
                let wanted = format!("a number from {} to {}", range.start(), range.end());
                Err(self.error(argument, text, wanted))
            }
        }
    }
}

/// Which buckets there are, to read and write their names: `B` with one device, `D:B` with more.
#[derive(Clone, Debug)]
pub(super) struct Names {
    /// Buckets of each device.
    pub(super) nbuckets: Vec<u32>,
}

/// A key given to `gc` or `observe`: `B:S[:clean|dirty|meta][@G]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) bucket: BucketId,
    pub(super) sectors: u32,
    pub(super) live: Live,
    /// Without one, the bucket's current gen.
    pub(super) gen_: Option<Gen>,
}

impl Key {
    pub(super) fn pointer(&self, current: Gen) -> Pointer {
        Pointer::new(self.bucket, self.gen_.unwrap_or(current))
    }
}

impl Names {
    pub(super) fn many(&self) -> bool {
        self.nbuckets.len() > 1
    }

    /// A bucket's name.
    pub(super) fn show(&self, id: BucketId) -> String {
        if self.many() { id.to_string() } else { id.bucket().to_string() }
    }

    /// `dev=`, 0 if absent.
    pub(super) fn device(&self, line: &Line<'_>) -> Result<DeviceIndex, Error> {
        let last = self.nbuckets.len() as u64 - 1;
        Ok(DeviceIndex::new(line.number("dev", 0..=last)?.unwrap_or(0) as u8))
    }

    /// All buckets that the line names.
    pub(super) fn buckets(&self, line: &Line<'_>) -> Result<Vec<BucketId>, Error> {
        line.only_words("buckets")?;
        line.bare.iter().map(|text| self.bucket(line, text)).collect()
    }

    pub(super) fn bucket(&self, line: &Line<'_>, text: &str) -> Result<BucketId, Error> {
        let (device, rest) = self.split_device(line, text)?;
        self.index(line, device, rest)
    }

    /// `B` or `B-B`, each with a device if there are several.
    pub(super) fn range(&self, line: &Line<'_>, text: &str) -> Result<Vec<BucketId>, Error> {
        let (device, rest) = self.split_device(line, text)?;
        let Some((first, last)) = rest.split_once('-') else {
            return Ok(vec![self.index(line, device, rest)?]);
        };
        let first = self.index(line, device, first)?.bucket().get();
        let last = self.index(line, device, last)?.bucket().get();
        if first > last {
            return Err(line.error("", text, "a range that ascends"));
        }
        Ok((first..=last).map(|b| BucketId::new(device, BucketIndex::new(b))).collect())
    }

    pub(super) fn ranges(&self, line: &Line<'_>) -> Result<Vec<Vec<BucketId>>, Error> {
        line.bare.iter().map(|text| self.range(line, text)).collect()
    }

    pub(super) fn keys(&self, line: &Line<'_>) -> Result<Vec<Key>, Error> {
        line.bare.iter().map(|text| self.key(line, text)).collect()
    }

    fn key(&self, line: &Line<'_>, text: &str) -> Result<Key, Error> {
        let wanted =
            if self.many() { "D:B:S[:clean|dirty|meta][@G]" } else { "B:S[:clean|dirty|meta][@G]" };
        let (device, rest) = self.split_device(line, text)?;
        let (rest, gen_) = match rest.split_once('@') {
            Some((rest, gen_)) => (rest, Some(line.parse_number("gen", gen_, 0..=255)? as u8)),
            None => (rest, None),
        };
        let mut parts = rest.split(':');
        let (Some(bucket), Some(sectors)) = (parts.next(), parts.next()) else {
            return Err(line.error("", text, wanted));
        };
        let live = match (parts.next(), parts.next()) {
            (None | Some("clean"), None) => Live::Clean,
            (Some("dirty"), None) => Live::Dirty,
            (Some("meta"), None) => Live::Metadata,
            _ => return Err(line.error("", text, wanted)),
        };
        Ok(Key {
            bucket: self.index(line, device, bucket)?,
            sectors: line.parse_number("sectors", sectors, 0..=u64::from(u32::MAX))? as u32,
            live,
            gen_: gen_.map(Gen::new),
        })
    }

    fn split_device<'t>(
        &self,
        line: &Line<'_>,
        text: &'t str,
    ) -> Result<(DeviceIndex, &'t str), Error> {
        if !self.many() {
            return Ok((DeviceIndex::FIRST, text));
        }
        let Some((device, rest)) = text.split_once(':') else {
            return Err(line.error("", text, "device:bucket"));
        };
        let last = self.nbuckets.len() as u64 - 1;
        let device = line.parse_number("device", device, 0..=last)?;
        Ok((DeviceIndex::new(device as u8), rest))
    }

    fn index(&self, line: &Line<'_>, device: DeviceIndex, text: &str) -> Result<BucketId, Error> {
        let last = u64::from(self.nbuckets[device.as_usize()]) - 1;
        let b = line.parse_number("bucket", text, 0..=last)?;
        Ok(BucketId::new(device, BucketIndex::new(b as u32)))
    }
}
