//! The walk over an index on a device, which meets every pointer that may be live.
//!
//! # Order
//!
//! 1. the uuid bucket;
//! 2. the root, then every node below it as it is descended into; in a leaf, the extents of the
//!    merged keys; above, first every key to a node that any of the bsets holds. So a node below
//!    the root is met twice, and one that a later bset replaced is met once, where it lowers
//!    its bucket's last_gc;
//! 3. the keys of live journal entries, in order of seq ([`journal_keys`]). A key that is in the
//!    index already is met twice.
//!
//! These are the pointers that Linux meets when it starts, as often as it does: what it counts
//! twice, so do we, until the first garbage collection.
//!
//! Placeholders and tombstones are passed over. Whether a pointer is stale is for the caller to
//! say, who has the gens; the walk does not descend through stale ones.
//!
//! # Damage
//!
//! A pointer outside its device, an extent that crosses a bucket, a node that is not one, and a
//! bucket that is met as a node twice end the walk with an error. So no bucket is read twice,
//! and the walk is linear in the size of the index whatever the bytes say.

use super::key::{Key, Pointer};
use super::{Check, Jset, Node, SetMagic};
use crate::broken;
use crate::bucket::{BucketId, DeviceIndex};
use crate::error::{Error, Place, RecordKind};
use crate::geometry::{Geometry, SECTOR_BYTES};
use std::collections::HashSet;

/// What a pointer leads to.
///
/// ```
/// use tierce_core::record::{Key, PointerKind};
/// let key = Key::new(1, 8, 8, &[]).with_dirty(true);
/// assert_eq!(PointerKind::of_extent(&key), PointerKind::Dirty);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PointerKind {
    /// The identities of backing devices.
    UuidBucket,
    /// An index node.
    Node,
    /// Data whose only copy this is.
    Dirty,
    /// Data that can be had again.
    Clean,
}

impl PointerKind {
    /// What the pointers of an extent lead to.
    #[must_use]
    pub const fn of_extent(key: &Key) -> Self {
        if key.is_dirty() { Self::Dirty } else { Self::Clean }
    }
}

/// A pointer that the walk met; [`index()`] has an example.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Met {
    /// The pointer.
    pub pointer: Pointer,
    /// The bucket that it points into.
    pub bucket: BucketId,
    /// How many sectors live there.
    pub sectors: u32,
    /// What is there.
    pub kind: PointerKind,
}

/// How much a walk saw; [`index()`] has an example.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WalkCounts {
    /// Nodes read.
    pub nodes: u64,
    /// Bsets in them.
    pub bsets: u64,
    /// Keys in leaves after merging.
    pub leaf_keys: u64,
}

/// Walks the index that `newest`, the newest journal entry, names. `devices` are the shapes of
/// the set's devices in order. `read` fills its buffer with the start of a bucket. `live` is
/// told every pointer, in the order above, and says whether it is live (not stale).
///
/// A stale root is an error; an entry without a root is an empty index.
///
/// # Errors
///
/// What `read` returns; [`Error::Record`] for damage.
///
/// ```
/// use tierce_core::error::{Error, Place};
/// use tierce_core::record::{Jset, Key, Node, PaddedKey, Pointer, SetMagic, walk};
/// use tierce_core::{Gen, Geometry};
/// let (geometry, set) = (Geometry::new(1024, 1, 8, 1)?, SetMagic(42));
/// let at = |bucket: u64, sector| Pointer::new(0, bucket * 8 + sector, Gen::new(0));
/// let mut node = vec![0; 4096];
/// Node::encode_bset(&mut node, set, at(5, 0), 1, 512, &[Key::new(1, 4, 4, &[at(9, 2)])])?;
/// let root = PaddedKey::new(&Key::new(0, 0, 8, &[at(5, 0)])).expect("one pointer fits");
/// let newest = Jset { seq: 1, last_seq: 1, btree_root: root, ..Jset::default() };
///
/// let mut met = vec![];
/// let counts = walk::index(
///     &[geometry],
///     set,
///     (&newest, Place::device(8192)),
///     |_, out: &mut [u8]| Ok::<(), Error>(out.copy_from_slice(&node)),
///     |m| {
///         met.push((m.bucket.bucket().get(), m.sectors, m.kind));
///         true
///     },
/// )?;
/// assert_eq!(met, [(5, 8, walk::PointerKind::Node), (9, 4, walk::PointerKind::Clean)]);
/// assert_eq!((counts.nodes, counts.leaf_keys), (1, 1));
/// # Ok::<(), Error>(())
/// ```
pub fn index<E: From<Error>>(
    devices: &[Geometry],
    set: SetMagic,
    newest: (&Jset, Place),
    mut read: impl FnMut(BucketId, &mut [u8]) -> Result<(), E>,
    mut live: impl FnMut(&Met) -> bool,
) -> Result<WalkCounts, E> {
    let (newest, place) = newest;
    if let Some(key) = newest.uuid_bucket.key(place)? {
        for met in locate(devices, &key, PointerKind::UuidBucket, place) {
            live(&met?);
        }
    }
    let Some(root) = newest.btree_root.key(place)? else { return Ok(WalkCounts::default()) };
    let mut walk = Walk { devices, set, seen: HashSet::new(), counts: WalkCounts::default() };
    // Nodes still to be read, the next one last.
    let mut pending = vec![(root, newest.btree_level, place)];
    while let Some((key, level, named_at)) = pending.pop() {
        let Some(at) = walk.live_copy(&key, named_at, &mut live)? else {
            if walk.counts.nodes == 0 {
                let check = Check::new(RecordKind::Jset, named_at);
                return Err(check.error("btree_root", "stale", "a live node").into());
            }
            continue;
        };
        let node = walk.node(at, &key, &mut read)?;
        let place = Place::bucket(at.bucket(), 0);
        if level > 0 {
            for key in node.bsets.iter().flatten().filter(|key| !key.is_tombstone()) {
                walk.live_copy(key, place, &mut live)?;
            }
            let children = node.merged(level).into_iter().filter(|key| !key.is_tombstone());
            pending.extend(children.rev().map(|key| (key, level - 1, place)));
            continue;
        }
        for key in node.merged(level) {
            walk.counts.leaf_keys += 1;
            extent(devices, &key, place, &mut live)?;
        }
    }
    Ok(walk.counts)
}

/// Tells `live` every pointer of the keys in journal entry `entry`, which lies at `place`.
///
/// # Errors
///
/// [`Error::Record`] for a damaged key or pointer.
///
/// ```
/// use tierce_core::error::Place;
/// use tierce_core::record::{Jset, Key, Pointer, walk};
/// use tierce_core::{Gen, Geometry};
/// let key = Key::new(1, 4, 4, &[Pointer::new(0, 9 * 8, Gen::new(0))]);
/// let entry = Jset { seq: 1, keys: key.words().collect(), ..Jset::default() };
/// let mut met = 0;
/// walk::journal_keys(&[Geometry::new(1024, 1, 8, 1)?], &entry, Place::device(0), |m| {
///     assert_eq!((m.bucket.bucket().get(), m.sectors), (9, 4));
///     met += 1;
///     true
/// })?;
/// assert_eq!(met, 1);
/// # Ok::<(), tierce_core::Error>(())
/// ```
pub fn journal_keys(
    devices: &[Geometry],
    entry: &Jset,
    place: Place,
    mut live: impl FnMut(&Met) -> bool,
) -> Result<(), Error> {
    for key in entry.decoded_keys(place) {
        extent(devices, &key?, place, &mut live)?;
    }
    Ok(())
}

/// Tells `live` every pointer of an extent.
fn extent(
    devices: &[Geometry],
    key: &Key,
    place: Place,
    live: &mut impl FnMut(&Met) -> bool,
) -> Result<(), Error> {
    for met in locate(devices, key, PointerKind::of_extent(key), place) {
        live(&met?);
    }
    Ok(())
}

/// The pointers of `key`, which lies at `place`, each checked against its device.
fn locate<'a>(
    devices: &'a [Geometry],
    key: &'a Key,
    kind: PointerKind,
    place: Place,
) -> impl Iterator<Item = Result<Met, Error>> + 'a {
    let pointers = key.pointers().iter().filter(|pointer| !pointer.is_placeholder());
    pointers.map(move |&pointer| {
        let check = Check::new(RecordKind::Key, place);
        let number = usize::from(pointer.device());
        let Some(geometry) = devices.get(number) else {
            let wanted = format_args!("below the set's {}", devices.len());
            return Err(check.error("device of a pointer", number, wanted));
        };
        let Some(bucket) = pointer.bucket(geometry) else {
            let wanted = format_args!(
                "in buckets {} to {}",
                geometry.first_bucket(),
                geometry.nbuckets() - 1
            );
            return Err(check.error("sector of a pointer", pointer.sector(), wanted));
        };
        let into = pointer.sector() - geometry.first_sector(bucket);
        let left = u64::from(geometry.bucket_sectors()) - into;
        let (sectors, metadata) =
            (key.sectors(), matches!(kind, PointerKind::Node | PointerKind::UuidBucket));
        let wanted = format_args!("at most the {left} left in the bucket");
        check.that(u64::from(sectors) <= left, "sectors", sectors, wanted)?;
        let wanted = "the start of a bucket";
        check.that(!metadata || into == 0, "sector of a pointer", pointer.sector(), wanted)?;
        let bucket = BucketId::new(DeviceIndex::new(pointer.device() as u8), bucket);
        Ok(Met { pointer, bucket, sectors, kind })
    })
}

/// What a walk carries from node to node.
struct Walk<'a> {
    devices: &'a [Geometry],
    set: SetMagic,
    seen: HashSet<BucketId>,
    counts: WalkCounts,
}

impl Walk<'_> {
    /// Tells `live` every pointer of a node's key; the first live one's bucket.
    fn live_copy(
        &self,
        key: &Key,
        place: Place,
        live: &mut impl FnMut(&Met) -> bool,
    ) -> Result<Option<BucketId>, Error> {
        let mut copy = None;
        for met in locate(self.devices, key, PointerKind::Node, place) {
            let met = met?;
            if live(&met) {
                copy = copy.or(Some(met.bucket));
            }
        }
        Ok(copy)
    }

    /// The node in bucket `at`, to which `key` points.
    fn node<E: From<Error>>(
        &mut self,
        at: BucketId,
        key: &Key,
        read: &mut impl FnMut(BucketId, &mut [u8]) -> Result<(), E>,
    ) -> Result<Node, E> {
        let place = Place::bucket(at.bucket(), 0);
        let check = Check::new(RecordKind::Node, place);
        let new = self.seen.insert(at) || broken!("walk_node_twice");
        check.that(new, "bucket", "in the index twice", "once")?;
        let geometry = &self.devices[at.device().as_usize()];
        let bytes = (key.sectors() * SECTOR_BYTES).min(geometry.meta_bytes());
        let mut buffer = vec![0; bytes as usize];
        read(at, &mut buffer)?;
        let block_bytes = geometry.block_bytes();
        let first = key.pointers()[0];
        let node = Node::decode(&buffer, self.set, first, block_bytes, place)?;
        self.counts.nodes += 1;
        self.counts.bsets += node.bsets.len() as u64;
        Ok(node)
    }
}

#[cfg(test)]
#[path = "walk_tests.rs"]
mod tests;
