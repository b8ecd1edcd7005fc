//! An allocator small enough for a model.

use loom::sync::Arc;
use tierce_core::{BucketId, BucketIndex, DeviceIndex, Geometry, Mark, Reserve, Sizes};
use tierce_lockfree::{Allocation, Allocator, BucketRef, Config, DeviceTable, Reclaimer};

/// The device.
pub const DEVICE: DeviceIndex = DeviceIndex::FIRST;

/// Bucket `number` of it.
#[must_use]
pub const fn bucket(number: u32) -> BucketId {
    BucketId::new(DEVICE, BucketIndex::new(number))
}

/// No cells, one open bucket, nothing has to become durable.
#[must_use]
pub fn settings() -> Config {
    Config::default().cpus(0).open_buckets(1).sync(false)
}

/// Eight buckets of two blocks; the lists hold one for the prio write and `none` for all. Of the
/// reserves only `prio` is filled. A batch is two: more than the prio write takes, or nothing
/// would ever be gained.
#[must_use]
pub fn allocator(config: Config, none: u32) -> (Arc<Allocator>, Reclaimer) {
    with_sizes(config, 0, none, 2)
}

/// As [`allocator`], with these sizes.
///
/// # Panics
///
/// If the settings are not legal.
#[must_use]
pub fn with_sizes(
    config: Config,
    btree: u32,
    none: u32,
    free_inc: u32,
) -> (Arc<Allocator>, Reclaimer) {
    of_buckets(8, config, btree, none, free_inc)
}

/// As [`with_sizes`], with this many buckets.
///
/// # Panics
///
/// If the settings are not legal.
#[must_use]
pub fn of_buckets(
    nbuckets: u32,
    config: Config,
    btree: u32,
    none: u32,
    free_inc: u32,
) -> (Arc<Allocator>, Reclaimer) {
    let geometry = Geometry::new(nbuckets, 1, 8, 4).expect("a legal shape");
    start(geometry, config, btree, none, free_inc)
}

fn start(
    geometry: Geometry,
    config: Config,
    btree: u32,
    none: u32,
    free_inc: u32,
) -> (Arc<Allocator>, Reclaimer) {
    let mut sizes = Sizes::tierce(&geometry, 0);
    (sizes.btree, sizes.prio, sizes.moving_gc, sizes.none) = (btree, 1, 0, none);
    (sizes.free_inc, sizes.candidates) = (free_inc, 2 * free_inc);
    let table = DeviceTable::empty(geometry).with_sizes(sizes);
    let (allocator, mut reclaimers) =
        Allocator::start(config, vec![table]).expect("legal settings").finish();
    (allocator, reclaimers.remove(0))
}

/// As [`allocator`], of five buckets, 3 to 7, for models that look at all of them. Lists hold one
/// for the prio write, `btree` for index nodes and one for all; a batch is `free_inc`.
///
/// # Panics
///
/// If the settings are not legal.
#[must_use]
pub fn of_five(config: Config, btree: u32, free_inc: u32) -> (Arc<Allocator>, Reclaimer) {
    start(Geometry::new(8, 3, 8, 4).expect("a legal shape"), config, btree, 1, free_inc)
}

/// The first bucket that is neither free nor held, and no metadata, in its present life.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn full(allocator: &Allocator) -> BucketRef {
    let word = |id| allocator.snapshot(id).expect("one of its buckets");
    let is_full = |&id: &BucketId| word(id).pin_count() == 0 && word(id).mark() != Mark::Metadata;
    let mut ids = allocator.geometry(DEVICE).buckets().map(|b| BucketId::new(DEVICE, b));
    let id = ids.find(is_full).expect("a full bucket");
    BucketRef::new(id, word(id).gen_())
}

/// Everything that is free.
///
/// # Panics
///
/// If the allocator was closed.
#[must_use]
pub fn drain(allocator: &Allocator) -> Vec<Allocation<'_>> {
    let take = |reserve| allocator.try_alloc(reserve).expect("in use");
    std::iter::from_fn(|| [Reserve::None, Reserve::Prio].into_iter().find_map(take)).collect()
}
