//! Each invariant is broken on purpose, and the check says which bucket and what it wanted.

use super::*;
use crate::bucket::{BucketId, Gen, Mark};
use crate::geometry::Geometry;
use crate::reserve::Sizes;
use crate::spec::{DeviceOptions, Options, Pointer, Write};

const DEVICE: DeviceIndex = DeviceIndex::FIRST;

/// A set with something in every place.
fn set() -> Set {
    let geometry = Geometry::new(64, 2, 64, 8).unwrap();
    let mut sizes = Sizes::bcache(&geometry, 1);
    (sizes.moving_gc, sizes.none, sizes.free_inc, sizes.candidates) = (1, 4, 8, 16);
    let mut set = Set::new(Options::bcache(), vec![DeviceOptions::new(geometry, sizes)]).unwrap();
    assert!(set.start().unwrap().reused.is_empty());
    let _ = set.step(DEVICE);
    let forged = set.list(DEVICE, Reserve::None).next().unwrap();
    assert!(set.pin(Pointer::new(BucketId::new(DEVICE, forged), Gen::new(1))));
    let extent = set.alloc_sectors(Write::new(1, 0, 8)).unwrap();
    assert!(extent.ready().is_some());
    set.check().unwrap();
    set
}

fn device(set: &mut Set) -> &mut Device {
    &mut set.devices[0]
}

/// Makes a set, breaks it and returns what the check says.
fn broken(damage: impl FnOnce(&mut Set)) -> String {
    let mut set = set();
    damage(&mut set);
    set.check().unwrap_err().to_string()
}

/// What a test says of a bucket in each place.
fn one_in_each(set: &mut Set) -> [(Place, BucketIndex); 6] {
    let open = set.slots().next().unwrap().bucket.bucket();
    let d = device(set);
    d.ready.extend(d.ready.is_empty().then(|| BucketIndex::new(63)));
    let ready = d.ready[0];
    d.put_in(ready, Place::Ready);
    d.store(ready, d.word(ready).with_pin(1));
    let free = *d.list(Reserve::Prio).front().unwrap();
    [
        (Place::Free(Reserve::Prio), free),
        (Place::FreeInc, d.free_inc[0]),
        (Place::Ready, ready),
        (Place::SetAside, d.set_aside[0]),
        (Place::PrioChain, d.chain[0]),
        (Place::Open, open),
    ]
}

#[test]
fn one_place_each() {
    let mut set = set();
    for (place, b) in one_in_each(&mut set) {
        set.check().unwrap();
        // On its list, but said to be elsewhere.
        let mut moved = set.clone();
        device(&mut moved).put_in(b, Place::Out);
        let wanted = format!("bucket 0:{b}: found {place:?} and Out, wanted one place");
        assert_eq!(moved.check().unwrap_err().to_string(), wanted);
        // Somebody else is said to be there, who is on no list.
        let mut alone = set.clone();
        device(&mut alone).put_in(BucketIndex::new(50), place);
        let text = alone.check().unwrap_err().to_string();
        let found = format!("bucket 0:50: found {place:?}, on 0 lists, Snapshot {{ gen: 0,");
        assert!(text.starts_with(&found) && text.ends_with("wanted on its list"), "{text}");
    }
}

#[test]
fn twice_on_a_list() {
    let text = broken(|set| {
        let d = device(set);
        let first = d.free_inc[0];
        d.free_inc.push_back(first);
    });
    assert!(text.ends_with("found FreeInc and FreeInc, wanted one place"), "{text}");
}

#[test]
fn pins_and_marks_that_the_place_needs() {
    let mut set = set();
    for (place, b) in one_in_each(&mut set) {
        let word = device(&mut set).word(b);
        let mut damaged = set.clone();
        let (damage, wanted) = match place {
            Place::PrioChain => (word.with_mark(Mark::Reclaimable), "a mark that protects it"),
            Place::SetAside => (word.with_pin(1), "a foreign pin"),
            _ => (word.with_pin(0), "pin 1"),
        };
        device(&mut damaged).store(b, damage);
        let wanted =
            format!("bucket 0:{b}: found {place:?}, on 1 lists, {damage:?}, wanted {wanted}");
        assert_eq!(damaged.check().unwrap_err().to_string(), wanted);
        if place == Place::PrioChain {
            damaged.gc_begin().unwrap();
            damaged.check().expect("a collection in place has cleared the mark for a while");
        }
    }
}

#[test]
fn more_than_there_is_room_for() {
    let text = broken(|set| {
        let d = device(set);
        for b in [48, 49].map(BucketIndex::new) {
            d.append(b, Reserve::MovingGc);
            d.store(b, d.word(b).with_pin(1));
        }
    });
    assert_eq!(text, "free lists: found 3 in moving_gc, 1 in free_inc, wanted at most their sizes");
    let text = broken(|set| {
        let d = device(set);
        for b in (48..56).map(BucketIndex::new) {
            d.free_inc.push_back(b);
            d.put_in(b, Place::FreeInc);
            d.store(b, d.word(b).with_pin(1));
        }
    });
    assert_eq!(text, "free lists: found 1 in btree, 9 in free_inc, wanted at most their sizes");
    assert_eq!(broken(|set| set.available = 65), "available: found 65, wanted at most nbuckets");
}

#[test]
fn buckets_that_are_never_allocated() {
    let text = broken(|set| {
        let d = device(set);
        let b = BucketIndex::new(1);
        d.free_inc.push_back(b);
        d.put_in(b, Place::FreeInc);
        d.store(b, d.word(b).with_pin(1));
    });
    assert!(text.starts_with("bucket 0:1: found FreeInc, on 1 lists"), "{text}");
    assert!(text.ends_with("wanted on its list"), "{text}");
}
