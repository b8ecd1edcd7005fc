//! Writing result lines.

use super::super::{Event, Gauges};
use super::engine::Engine;
use super::parse::Names;
use crate::bucket::{BucketId, BucketIndex, DeviceIndex, Mark};
use crate::reserve::Reserve;
use crate::word::Snapshot;
use core::fmt::Write;

/// A reserve as scripts call it.
pub(super) const fn reserve_name(reserve: Reserve) -> &'static str {
    match reserve {
        Reserve::Btree => "btree",
        Reserve::Prio => "prio",
        Reserve::MovingGc => "movinggc",
        Reserve::None => "none",
    }
}

/// A mark as scripts call it.
pub(super) const fn mark_name(mark: Mark) -> &'static str {
    match mark {
        Mark::None => "free",
        Mark::Reclaimable => "clean",
        Mark::Dirty => "dirty",
        Mark::Metadata => "meta",
    }
}

/// `[inc:4 free:4->none]`
pub(super) fn events(names: &Names, events: &[Event]) -> String {
    let texts: Vec<String> = events.iter().map(|event| show_event(names, event)).collect();
    format!("[{}]", texts.join(" "))
}

fn show_event(names: &Names, event: &Event) -> String {
    match *event {
        Event::Invalidated { bucket, .. } => format!("inc:{}", names.show(bucket)),
        Event::PrioImage { index, bucket } => format!("prio_io:{index}->{}", names.show(bucket)),
        Event::PrioFreed { bucket } => format!("prio_free:{}", names.show(bucket)),
        Event::PrioWritten { seq, .. } => format!("prio_written:seq={seq}"),
        Event::Discarded { bucket } => format!("discard:{}", names.show(bucket)),
        Event::Released { bucket, reserve } => {
            format!("free:{}->{}", names.show(bucket), reserve_name(reserve))
        }
    }
}

/// One bucket of `dump`. `unit` is what the word counts sectors in.
pub(super) fn bucket(names: &Names, id: BucketId, word: Snapshot, unit: u32) -> String {
    format!(
        "bucket {} prio={} gen={} last_gc={} mark={} sectors={} move={} pin={}\n",
        names.show(id),
        word.prio(),
        word.gen_(),
        word.last_gc(),
        mark_name(word.mark()),
        u32::from(word.sectors()) * unit,
        u8::from(word.is_moving()),
        word.pin_count(),
    )
}

fn numbers(buckets: &[BucketIndex]) -> String {
    buckets.iter().map(BucketIndex::to_string).collect::<Vec<_>>().join(" ")
}

/// `lists`, one line per device.
pub(super) fn lists<E: Engine>(engine: &E, names: &Names, device: DeviceIndex) -> String {
    let mut text = "lists ".to_owned();
    if names.many() {
        let _ = write!(text, "dev{device} ");
    }
    for reserve in Reserve::ALL {
        let list = numbers(&engine.list(device, reserve));
        let _ = write!(text, "{}=[{list}] ", reserve_name(reserve));
    }
    let _ = writeln!(text, "free_inc=[{}]", numbers(&engine.free_inc(device)));
    text
}

/// `need_gc= avail= in_use=`, as `stats` and `gc` end or begin with.
pub(super) fn gc_figures(gauges: &Gauges) -> String {
    format!(
        "need_gc={} avail={} in_use={}",
        gauges.need_gc, gauges.available, gauges.in_use_percent
    )
}

pub(super) fn stats<E: Engine>(engine: &E, names: &Names, devices: &[DeviceIndex]) -> String {
    let gauges = engine.gauges();
    let mut text = format!("stats min_prio={} {}", gauges.min_prio, gc_figures(&gauges));
    for &device in devices {
        if names.many() {
            let _ = write!(text, " dev{device}:");
        }
        for reserve in Reserve::ALL {
            let len = engine.list(device, reserve).len();
            let _ = write!(text, " {}={len}", reserve_name(reserve));
        }
        let _ = write!(
            text,
            " free_inc={} needs_gc={} fifo_next={} sectors_written={} discards={}",
            engine.free_inc(device).len(),
            u8::from(engine.needs_gc(device)),
            engine.fifo_next(device),
            engine.sectors_written(device),
            engine.discards(device),
        );
    }
    text.push('\n');
    text
}

/// The open buckets, least recently used first.
pub(super) fn open<E: Engine>(engine: &E, names: &Names) -> String {
    let mut text = "open ".to_owned();
    for slot in engine.slots() {
        let _ = write!(
            text,
            "{{b={} free={} wp={} next={}:{}}} ",
            names.show(slot.bucket),
            slot.sectors_left,
            slot.write_point,
            slot.inode,
            slot.next,
        );
    }
    let _ = writeln!(text, "unused={}", engine.unused_slots());
    text
}
