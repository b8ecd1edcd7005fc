//! Power losses at every step of format, open and publish.
//!
//! Checked, whatever survives of what was not durable:
//! 1. A device whose format was cut short is refused, or what it was before.
//! 2. Opening never loses a published table, not even when it is cut short itself, twice.
//! 3. After a power loss the table is the last that was acknowledged, or a later one that was
//!    being published: whole, never mixed.

mod common;

use common::recorder::{Event, Loss, Recorder, after_power_loss, losses};
use std::sync::Arc;
use tierce_core::{BucketIndex, Gen, Prio};
use tierce_io::{Error, FormatOptions, Operation, Owner, Volume, format_on};
use tierce_lockfree::Gens;

const NBUCKETS: u32 = 1500;
const BUCKET: u32 = 4096;

fn blank() -> Vec<u8> {
    vec![0; (NBUCKETS * BUCKET) as usize]
}

fn options() -> FormatOptions {
    FormatOptions::default().bucket(BUCKET).block(512)
}

fn formatted() -> Vec<u8> {
    let device = Recorder::new(blank());
    format_on(&*device, &options()).expect("formats");
    std::mem::take(&mut device.state().image)
}

/// The table that round `round` publishes: every bucket tells the round.
fn record(round: u64, bucket: u32) -> (Prio, Gen) {
    (Prio::new((round as u16).wrapping_mul(7) ^ bucket as u16), Gen::new(round as u8))
}

/// Two buckets, one of which is never in the chain before or after.
fn chain(round: u64) -> [BucketIndex; 2] {
    let first = 100 + 10 * (round % 3) as u32;
    [BucketIndex::new(first + 5), BucketIndex::new(first)]
}

fn publish(writer: &mut tierce_io::StateWriter, round: u64) -> Result<(), Error> {
    let per_set = writer.superblock().geometry().prios_per_bucket();
    let records = move |set: u32| {
        let (first, end) = (set * per_set, ((set + 1) * per_set).min(NBUCKETS));
        (first..end).map(move |bucket| record(round, bucket))
    };
    writer.publish(&chain(round), (0..2).map(records).collect())
}

/// Which round's table this is; 0 for none. Panics if it is mixed.
fn round_of(table: &Gens, rounds: u64) -> u64 {
    assert_eq!(table.nbuckets(), NBUCKETS);
    if table.iter().all(|r| r == (Prio::new(0), Gen::new(0))) {
        return 0;
    }
    (1..=rounds)
        .find(|&round| (0..NBUCKETS).zip(table.iter()).all(|(b, r)| r == record(round, b)))
        .expect("the table is one that was published, whole")
}

/// Formats, opens, publishes `rounds` tables. The log, and at which place in it each round
/// began and was acknowledged.
fn run(rounds: u64) -> (Vec<u8>, Vec<Event>, Vec<(usize, usize)>) {
    let image = formatted();
    let device = Recorder::new(image.clone());
    let mut places = vec![];
    let begin = device.now();
    let volume = Volume::open_on(device.clone(), Owner::Allocator).expect("opens");
    places.push((begin, device.now()));
    let (_, mut writer) = volume.into_parts();
    for round in 1..=rounds {
        let begin = device.now();
        publish(&mut writer, round).expect("publishes");
        places.push((begin, device.now()));
    }
    let log = device.state().log.clone();
    (image, log, places)
}

/// 100 entries turn the ring of 11 buckets of 8 entries once and a bit.
#[test]
fn a_power_loss_at_every_step_keeps_what_was_acknowledged() {
    const ROUNDS: u64 = 100;
    let (image, log, places) = run(ROUNDS);
    let mut seen = [0; 3];
    // Every step of the first rounds, of a turn of the ring, and of the last rounds.
    let cuts = (0..40).chain(330..370).chain(log.len() - 10..=log.len());
    for cut in cuts {
        for loss in losses(cut) {
            let device = Recorder::new(after_power_loss(&image, &log, cut, loss));
            let volume = Volume::open_on(device, Owner::Allocator)
                .unwrap_or_else(|e| panic!("cut {cut}, {loss:?}: {e}"));
            let found = round_of(volume.table(), ROUNDS);
            // At its end itself, the last write of a round is still under way.
            let acknowledged = places.iter().rposition(|&(_, end)| end < cut).unwrap_or(0) as u64;
            let begun = places.iter().rposition(|&(begin, _)| begin < cut).unwrap_or(0) as u64;
            assert!(
                (acknowledged..=begun).contains(&found),
                "cut {cut}, {loss:?}: found {found}, acknowledged {acknowledged}, begun {begun}"
            );
            seen[0] += u32::from(found == acknowledged);
            seen[1] += u32::from(found > acknowledged);
            seen[2] += u32::from(volume.prio_chain().is_empty());
        }
    }
    assert!(seen.iter().all(|&n| n > 0), "old state, new state, no state: {seen:?}");
}

/// Cut, open cut short again, open: still the same.
#[test]
fn a_power_loss_while_opening_after_a_power_loss_loses_nothing() {
    let (image, log, places) = run(5);
    for cut in [3, places[0].1, places[2].1, places[3].1 + 1, log.len() - 1, log.len()] {
        let image = after_power_loss(&image, &log, cut, Loss::All);
        let device = Recorder::new(image.clone());
        let wanted = Volume::open_on(device.clone(), Owner::Engine).unwrap().table().clone();
        let second = device.state().log.clone();
        for cut in 0..=second.len() {
            for loss in losses(cut) {
                let device = Recorder::new(after_power_loss(&image, &second, cut, loss));
                let mut volume = Volume::open_on(device.clone(), Owner::Engine)
                    .unwrap_or_else(|e| panic!("cut {cut}, {loss:?}: {e}"));
                assert_eq!(volume.table(), &wanted);
                // And it can be used.
                let round = volume.prio_seq() + 1;
                let (_, mut writer) = volume.into_parts();
                publish(&mut writer, round).unwrap();
                drop(writer);
                volume = Volume::open_on(device, Owner::Engine).unwrap();
                assert_eq!(round_of(volume.table(), round), round);
            }
        }
    }
}

#[test]
fn a_half_formatted_device_is_refused_or_what_it_was() {
    // What it was: a used cache, with an ext4 magic in its first kilobyte for good measure.
    let (before, log, _) = run(3);
    let mut before = after_power_loss(&before, &log, log.len(), Loss::Nothing);
    before[1080..1082].copy_from_slice(b"\x53\xef");
    let device = Recorder::new(before.clone());
    let forced = options().force(true);
    let refused = format_on(&*device, &options()).unwrap_err();
    assert!(matches!(refused, Error::Foreign { .. }), "{refused}");
    assert_eq!(device.now(), 0, "a refusal writes nothing");
    format_on(&*device, &forced).unwrap();
    let log = device.state().log.clone();
    let mut seen = [0; 3];
    for cut in 0..=log.len() {
        for loss in losses(cut) {
            let image = after_power_loss(&before, &log, cut, loss);
            match Volume::open_on(Recorder::new(image), Owner::Allocator) {
                Ok(volume) if volume.prio_seq() == 0 => {
                    assert!(cut == log.len(), "cut {cut}, {loss:?}: formatted too early");
                    seen[0] += 1;
                }
                Ok(volume) => {
                    assert_eq!(round_of(volume.table(), 3), 3, "cut {cut}, {loss:?}");
                    seen[1] += 1;
                }
                Err(Error::NotFormatted { .. } | Error::Foreign { .. } | Error::Corrupt { .. }) => {
                    seen[2] += 1;
                }
                Err(e) => panic!("cut {cut}, {loss:?}: {e}"),
            }
        }
    }
    assert!(seen.iter().all(|&n| n > 0), "formatted, as before, refused: {seen:?}");
}

/// A failing device: the error comes with its cause, and ever after; what is on the device is a
/// table that was published or was being published.
#[test]
fn any_failing_operation_fails_the_device_and_keeps_a_whole_table() {
    for operation in [Operation::Write, Operation::Flush] {
        for nth in 0..3 {
            let device = Recorder::new(formatted());
            let volume = Volume::open_on(device.clone(), Owner::Allocator).unwrap();
            let (_, mut writer) = volume.into_parts();
            publish(&mut writer, 1).unwrap();
            device.state().fail = Some((operation, nth));
            let mut failed_at = None;
            for round in 2..=5 {
                match publish(&mut writer, round) {
                    Ok(()) => assert!(failed_at.is_none(), "out of use for good"),
                    Err(error) => {
                        assert!(error.to_string().contains("Input/output error"), "{error}");
                        failed_at.get_or_insert(round);
                    }
                }
            }
            let failed_at = failed_at.expect("the injected error must show");
            let image = device.state().image.clone();
            let volume = Volume::open_on(Recorder::new(image), Owner::Allocator).unwrap();
            let found = round_of(volume.table(), 5);
            assert!((failed_at - 1..=failed_at).contains(&found), "{operation} {nth}: {found}");
        }
    }
}

/// Opening a device that fails: a typed error, and the device as usable as before.
#[test]
fn a_failing_open_is_an_error_and_can_be_repeated() {
    let (before, log, _) = run(2);
    let used = after_power_loss(&before, &log, log.len(), Loss::Nothing);
    for image in [before, used] {
        for operation in [Operation::Read, Operation::Write, Operation::Flush] {
            let mut failures = 0;
            for nth in 0..40 {
                let device = Recorder::new(image.clone());
                device.state().fail = Some((operation, nth));
                let opened = Volume::open_on(device.clone(), Owner::Allocator);
                failures += u32::from(opened.is_err());
                device.state().fail = None;
                drop(opened);
                let volume = Volume::open_on(device, Owner::Allocator).unwrap();
                assert!(matches!(round_of(volume.table(), 2), 0 | 2));
            }
            assert!(failures > 0 || operation == Operation::Flush, "{operation} never failed");
        }
    }
}

/// The recorder itself sees lost flushes: without any, a table can be lost.
#[test]
fn the_checker_sees_a_device_that_ignores_flushes() {
    let (image, log, _) = run(3);
    let lying: Vec<Event> = log
        .iter()
        .filter(|event| !matches!(event, Event::Flush))
        .map(|event| match event.clone() {
            Event::Write { offset, data, .. } => Event::Write { offset, data, durable: false },
            Event::Flush => Event::Flush,
        })
        .collect();
    let lost = (0..=lying.len()).flat_map(|cut| losses(cut).map(move |loss| (cut, loss))).any(
        |(cut, loss)| {
            let image = after_power_loss(&image, &lying, cut, loss);
            Volume::open_on(Recorder::new(image), Owner::Allocator).is_err()
        },
    );
    assert!(lost, "a device that lies must lose something");
}

/// The same volume on a shared recorder keeps what `Arc<dyn Device>` promises.
#[test]
fn a_volume_gives_its_device_back() {
    let device = Recorder::new(formatted());
    let volume = Volume::open_on(device.clone(), Owner::Allocator).unwrap();
    assert_eq!(&**volume.device().name(), "recorder");
    drop(volume);
    assert_eq!(Arc::strong_count(&device), 1);
}

/// Two chains that share a bucket could leave none after a power loss.
#[test]
#[should_panic(expected = "overwrites the chain that is the state of the device")]
fn a_chain_over_the_live_one_is_refused() {
    let volume = Volume::open_on(Recorder::new(formatted()), Owner::Allocator).unwrap();
    let (_, mut writer) = volume.into_parts();
    publish(&mut writer, 1).unwrap();
    let _ = publish(&mut writer, 1);
}

/// With more journal buckets than the superblock's first sector has room for, its two halves
/// must not be torn apart.
#[test]
fn a_power_loss_in_the_first_superblock_with_many_journal_buckets_is_survived() {
    let blank = vec![0; 5200 * BUCKET as usize];
    let device = Recorder::new(blank);
    format_on(&*device, &options()).unwrap();
    let image = std::mem::take(&mut device.state().image);
    let device = Recorder::new(image.clone());
    let volume = Volume::open_on(device.clone(), Owner::Engine).unwrap();
    assert_eq!(volume.superblock().njournal, 40);
    let log = device.state().log.clone();
    // The last event is the superblock's head, three before it are its tail and the flush.
    for back in 0..4u64 {
        let cut = log.len() - back as usize;
        for seed in 1..40u64 {
            let loss = Loss::Some((seed * 4 + back).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let device = Recorder::new(after_power_loss(&image, &log, cut, loss));
            tierce_io::recover(device.clone())
                .unwrap_or_else(|e| panic!("cut {cut}, {loss:?}: {e}"));
        }
    }
}
