//! `tierce format`: make a cache device of a file or a block device.

use crate::stdout::print;
use anyhow::bail;
use bytesize::ByteSize;
use std::path::PathBuf;
use tierce_core::Policy;
use tierce_io::FormatOptions;

/// Make a cache device of a file or a block device
///
/// What the device carries is lost. A device with a known signature (a partition table, a file
/// system, swap, LUKS, LVM, md, a cache), and a file that begins or ends with anything but zeros, is
/// refused without --force.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The block device, or the file, which is created if it does not exist
    path: PathBuf,
    /// Size of the file to create
    #[arg(long)]
    size: Option<ByteSize>,
    /// Size of a bucket: a power of two, 4KiB to 128MiB
    #[arg(long, default_value = "512KiB")]
    bucket: ByteSize,
    /// The smallest write: a power of two, from the device's logical block to 4KiB
    #[arg(long, default_value = "4KiB")]
    block: ByteSize,
    /// Which bucket is reused next: lru, fifo or random
    #[arg(long, default_value_t)]
    policy: Policy,
    /// A name for people, at most 32 bytes
    #[arg(long, default_value = "")]
    label: String,
    /// Discard buckets before they are reused
    #[arg(long)]
    discard: bool,
    /// Overwrite whatever the device carries
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let options = FormatOptions::default()
        .size(args.size.map(|size| size.as_u64()))
        .bucket(bytes("--bucket", args.bucket)?)
        .block(bytes("--block", args.block)?)
        .policy(args.policy)
        .label(args.label.clone())
        .discard(args.discard)
        .force(args.force);
    let superblock = tierce_io::format(&args.path, &options)?;
    let geometry = superblock.geometry();
    print(&format!(
        "{}: {} buckets of {}, blocks of {}, {}, uuid {}\n",
        args.path.display(),
        geometry.nbuckets(),
        ByteSize(geometry.bucket_bytes().into()),
        ByteSize(geometry.block_bytes().into()),
        superblock.policy,
        superblock.uuid,
    ))
}

fn bytes(option: &str, size: ByteSize) -> anyhow::Result<u32> {
    match u32::try_from(size.as_u64()) {
        Ok(bytes) => Ok(bytes),
        Err(_) => bail!("{option} is {size}, wanted at most 128 MiB"),
    }
}
