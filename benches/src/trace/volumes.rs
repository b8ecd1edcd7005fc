//! Traces of several volumes name each in their own way; requests number them.

use super::input::Input;
use super::request::{Op, Request, Target};
use crate::error::Error;
use std::collections::HashMap;

/// Numbers for the volumes of a text trace, as they appear.
#[derive(Default)]
pub(super) struct Volumes {
    numbers: HashMap<Box<str>, u16>,
}

impl Volumes {
    /// `size` bytes of `volume` from `offset` on, for `op`, checked.
    pub(super) fn extent(
        &mut self,
        volume: &str,
        offset: u64,
        size: u64,
        op: Op,
        input: &Input,
    ) -> Result<Target, Error> {
        let end = u128::from(offset) + u128::from(size);
        let too_large = size > Request::SIZE_MAX && op != Op::Remove;
        if end > u128::from(Target::OFFSET_END) || too_large {
            let found = format!("{size} bytes from byte {offset}");
            return Err(input.malformed(found, "at most 1 GiB, below 2^57 - 512"));
        }
        if let Some(&volume) = self.numbers.get(volume) {
            return Ok(Target::Extent { volume, offset });
        }
        let number = u16::try_from(self.numbers.len())
            .map_err(|_| input.malformed("the 65537th volume", "at most 65536"))?;
        self.numbers.insert(volume.into(), number);
        Ok(Target::Extent { volume: number, offset })
    }
}
