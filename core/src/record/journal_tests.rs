//! The journal search on journals made by our own encoder.

use super::*;
use crate::record::{Format, Uuid};
use proptest::prelude::*;

/// 64 MiB in buckets of 8 KiB with blocks of 512 bytes: 64 journal buckets.
fn superblock() -> Superblock {
    let uuid = Uuid([1; 16]);
    let format = Format { uuid, set_uuid: uuid, ..Format::new(64 << 20, 16, 1) };
    Superblock::format(&format).unwrap().first_use(0)
}

/// A journal ring in memory, written as a device's would be.
struct Ring {
    superblock: Superblock,
    buckets: Vec<Vec<u8>>,
    slot: usize,
    byte: usize,
}

impl Ring {
    fn new() -> Self {
        let superblock = superblock();
        let bytes = superblock.geometry().bucket_bytes() as usize;
        let buckets = vec![vec![0; bytes]; superblock.njournal.into()];
        Self { superblock, buckets, slot: 0, byte: 0 }
    }

    /// Writes an entry where the last ended, or in the next bucket.
    fn append(&mut self, entry: &Jset) -> (usize, usize) {
        let set = self.superblock.set_magic();
        if self.byte + entry.bytes_on_device(512) > self.buckets[0].len() {
            (self.slot, self.byte) = ((self.slot + 1) % self.buckets.len(), 0);
        }
        let place = (self.slot, self.byte);
        self.byte += entry.encode(set, 512, &mut self.buckets[self.slot][self.byte..]).unwrap();
        place
    }

    fn search(&self) -> Result<Option<Journal>, Error> {
        let first = self.superblock.geometry().first_bucket().get();
        Journal::search(&self.superblock, |bucket, byte, out| {
            let bytes = &self.buckets[(bucket.get() - first) as usize];
            out.copy_from_slice(&bytes[byte as usize..][..out.len()]);
            Ok(())
        })
    }
}

fn entry(seq: u64, last_seq: u64, words: usize) -> Jset {
    Jset { seq, last_seq, keys: vec![seq; words], ..Jset::default() }
}

#[test]
fn an_empty_journal_is_no_error() {
    assert!(Ring::new().search().unwrap().is_none());
}

#[test]
fn finds_the_newest_over_several_turns() {
    let mut ring = Ring::new();
    let mut last = (0, 0);
    for seq in 1..=3000 {
        last = ring.append(&entry(seq, seq.saturating_sub(5).max(1), seq as usize % 150));
    }
    let journal = ring.search().unwrap().unwrap();
    assert_eq!((journal.newest.seq, journal.newest.keys.len()), (3000, 0));
    let live: Vec<_> = journal.live.iter().map(|e| e.seq).collect();
    assert_eq!(live, [2995, 2996, 2997, 2998, 2999, 3000]);
    let newest = journal.newest_entry();
    assert_eq!((newest.slot as usize, newest.byte as usize), last);
    assert_eq!((journal.next_slot as usize, journal.next_byte as usize), (ring.slot, ring.byte));
    assert_eq!(journal.highest_seq[ring.slot], Some(3000));
    assert_eq!(journal.highest_seq.iter().max(), Some(&Some(3000)));
    assert!(journal.entries_found > 300, "a whole turn is still there");
}

/// What a crash leaves: the entry before the torn one is the newest, and the next one goes
/// where the torn one is.
#[test]
fn a_torn_newest_entry_is_passed_over() {
    let mut ring = Ring::new();
    for seq in 1..10 {
        ring.append(&entry(seq, seq.min(3), 20));
    }
    let (slot, byte) = ring.append(&entry(10, 3, 100));
    ring.buckets[slot][byte + 512] ^= 1;
    let journal = ring.search().unwrap().unwrap();
    assert_eq!(journal.newest.seq, 9);
    assert_eq!((journal.next_slot as usize, journal.next_byte as usize), (slot, byte));
}

/// A tear behind the newest, in what is left of an earlier turn, hides nothing.
#[test]
fn a_gap_in_the_live_range_is_an_error() {
    let mut ring = Ring::new();
    let places: Vec<_> = (1..=200).map(|seq| ring.append(&entry(seq, 1, 50))).collect();
    // The first entry of a bucket in the middle: that whole bucket is lost.
    let (slot, _) = places[100];
    ring.buckets[slot][0] ^= 1;
    let error = ring.search().unwrap_err().to_string();
    assert!(error.contains("seq is "), "{error}");
    assert!(error.contains(", of the live 1 to 200"), "{error}");
}

#[test]
fn two_entries_of_one_seq_are_an_error() {
    let mut ring = Ring::new();
    ring.append(&entry(1, 1, 0));
    ring.append(&entry(2, 1, 0));
    ring.append(&entry(2, 1, 0));
    let error = ring.search().unwrap_err().to_string();
    assert!(error.contains("byte 1024: seq is 2, wanted 3, of the live 1 to 2"), "{error}");
}

#[test]
fn the_last_numbers_do_not_overflow() {
    let mut ring = Ring::new();
    ring.append(&entry(u64::MAX - 1, u64::MAX - 1, 0));
    ring.append(&entry(u64::MAX, u64::MAX - 1, 0));
    assert_eq!(ring.search().unwrap().unwrap().live.len(), 2);
    // 2⁶⁴ live entries claimed, one there.
    let mut ring = Ring::new();
    ring.append(&entry(u64::MAX, 0, 0));
    assert!(ring.search().is_err());
}

#[test]
fn an_error_of_the_reader_is_passed_on() {
    #[derive(Debug, PartialEq)]
    enum Failure {
        Device,
        Format,
    }
    impl From<Error> for Failure {
        fn from(_: Error) -> Self {
            Self::Format
        }
    }
    let found = Journal::search(&superblock(), |_, _, _| Err(Failure::Device)).unwrap_err();
    assert_eq!(found, Failure::Device);
}

#[test]
fn an_entry_reads_again_until_it_changes() {
    let mut ring = Ring::new();
    ring.append(&entry(1, 1, 60));
    let journal = ring.search().unwrap().unwrap();
    let read = |_, byte, out: &mut [u8]| {
        out.copy_from_slice(&ring.buckets[0][byte as usize..][..out.len()]);
        Ok::<(), Error>(())
    };
    let again = Journal::read_entry(&ring.superblock, journal.newest_entry(), read).unwrap();
    assert_eq!(again, journal.newest);
    let other = JournalEntry { seq: 2, ..*journal.newest_entry() };
    let error = Journal::read_entry(&ring.superblock, &other, read).unwrap_err();
    assert!(error.to_string().ends_with("seq is 1, wanted 2"), "{error}");
}

#[test]
fn an_entry_read_again_may_be_gone() {
    let mut ring = Ring::new();
    ring.append(&entry(1, 1, 60));
    let journal = ring.search().unwrap().unwrap();
    let read = |failing: bool| {
        Journal::read_entry(&ring.superblock, journal.newest_entry(), |_, _, out| {
            out.fill(0);
            if failing { Err(Error::limit("device", 5u32, "to answer".into())) } else { Ok(()) }
        })
    };
    assert_eq!(read(true).unwrap_err().to_string(), "device is 5, wanted to answer");
    let error = read(false).unwrap_err().to_string();
    assert!(error.starts_with("journal entry at bucket 2 byte 0: magic is 0x0000"), "{error}");
}

/// A checksum that is right says that the entry is whole: what is wrong in it then is no torn
/// write, and the entry is not passed over.
#[test]
fn a_whole_entry_that_breaks_a_rule_ends_the_search() {
    let mut ring = Ring::new();
    ring.append(&entry(1, 1, 0));
    let (slot, byte) = ring.append(&entry(2, 1, 0));
    let bytes = &mut ring.buckets[slot][byte..][..240];
    bytes[24] = 9;
    let csum = crate::record::crc::checksum(&bytes[8..]);
    bytes[..8].copy_from_slice(&csum.to_le_bytes());
    let wanted = "journal entry at bucket 2 byte 512: version is 9, wanted 1";
    assert_eq!(ring.search().unwrap_err().to_string(), wanted);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any entries, any damage: the search ends, and what it calls live is complete.
    #[test]
    fn any_journal_is_searched(
        entries in prop::collection::vec((1u64..40, 0u64..40, 0usize..300), 0..60),
        damage in prop::collection::vec((0usize..64, 0usize..8192, any::<u8>()), 0..20),
    ) {
        let mut ring = Ring::new();
        for (seq, last_seq, words) in entries {
            ring.append(&entry(seq, last_seq.min(seq), words));
        }
        for (slot, byte, value) in damage {
            ring.buckets[slot][byte] = value;
        }
        if let Ok(Some(journal)) = ring.search() {
            let first = journal.newest.last_seq.max(1);
            let live: Vec<_> = journal.live.iter().map(|e| e.seq).collect();
            prop_assert_eq!(live, (first..=journal.newest.seq).collect::<Vec<_>>());
            prop_assert!(journal.next_byte <= 8192);
            prop_assert_eq!(
                journal.highest_seq.iter().flatten().max(),
                Some(&journal.newest.seq)
            );
        }
    }
}
