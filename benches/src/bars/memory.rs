//! P11: memory per bucket, everything included, by what the kernel says the process has.

use super::Bench;
use super::row::{Better, Figure, Goal};
use crate::backend::{Full, Lockfree, Order, Original, Space};
use crate::measure::{Load, Turns, rss_bytes};

/// No turns: memory does not vary with what else the machine does. `original` keeps more than
/// an original would, for it checks the specification as well.
pub(super) fn memory(bench: &mut Bench<'_>) {
    let (nbuckets, name) = if bench.plan.quick { (4 << 20, "4 Mi") } else { (16 << 20, "16 Mi") };
    let Some(before) = rss_bytes() else { return };
    let load = Load::begin();
    let full = Full::new(nbuckets, Order::Equal);
    let per_bucket = |before: u64| {
        let now = rss_bytes().unwrap_or(before);
        now.saturating_sub(before) as f64 / f64::from(nbuckets)
    };
    let space = Lockfree::start(&full);
    space.reclaim();
    let rest = per_bucket(before);
    let gc = space.mark_all();
    let collecting = per_bucket(before);
    drop(gc);
    drop(space);
    let before = rss_bytes().unwrap_or(before);
    let space = Original::start(&full);
    space.reclaim();
    let original = per_bucket(before);
    drop(space);
    let setting = format!("{name} buckets");
    let figure = |name| Figure::new("P11", name, setting.clone(), "B/bucket", Better::Less);
    let turns = |name, samples: Vec<f64>| Turns { name, figures: vec![samples] };
    bench.add(
        &[figure("at rest").goals(Goal::AtMost(10.0), Goal::AtMost(8.5))],
        &[turns(Lockfree::NAME, vec![rest]), turns(Original::NAME, vec![original])],
        load.of_others(),
    );
    bench.add(
        &[figure("while collecting").goals(Goal::AtMost(22.0), Goal::AtMost(16.0))],
        &[turns(Lockfree::NAME, vec![collecting])],
        load.of_others(),
    );
}
