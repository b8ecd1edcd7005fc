//! Reading what a bucket says of its records: the footer, and the summary before it.
//!
//! How long the summary is says the footer. Most are short, so whoever wants both reads some of what
//! is before the footer [with it](with_footer), and mostly need not read again.

use crate::layout::{Entry, Footer, Layout};
use std::ops::Range;
use tierce_core::BucketIndex;
use tierce_io::{Device, DeviceExt};

/// A footer is read with so much of its bucket: the summary of records of 1 KiB or so, and little
/// beside the bucket.
const SHARE: u32 = 32;

/// The footer, and what is read with it: from so many bytes on, to the end of the footer.
pub(crate) fn with_footer(layout: &Layout) -> Range<u32> {
    let before = (layout.bucket_bytes / SHARE).next_multiple_of(layout.block);
    layout.footer.saturating_sub(before)..layout.dead
}

/// The records that `footer` stands for, of a bucket in that life, in its order. `known` is what has
/// been read already, up to the footer; the device is read if that is too little. `None`: the
/// summary is damaged.
pub(crate) fn entries(
    device: &dyn Device,
    layout: &Layout,
    (bucket, life): (BucketIndex, u64),
    footer: &Footer,
    known: &[u8],
) -> Result<Option<Vec<Entry>>, tierce_io::Error> {
    if footer.summary_bytes() <= known.len() {
        return Ok(footer.entries(layout, life, known));
    }
    let at = layout.summary(footer.records);
    let offset = layout.start(bucket) + u64::from(at);
    let bytes = device.read_at(offset, (layout.footer - at) as usize)?;
    Ok(footer.entries(layout, life, &bytes))
}
