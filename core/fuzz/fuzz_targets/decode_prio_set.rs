//! Invariants: any bytes give a set or an error; it has the records that its length has room
//! for, and encodes to the same bytes but for what no record covers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tierce_core::record::{PrioSet, prio_set};
use tierce_core_fuzz::{HERE, SET, put, seal};

fn check(bytes: &[u8]) {
    let Ok(found) = PrioSet::decode(bytes, SET, HERE) else { return };
    let room = (bytes.len() - prio_set::HEADER_BYTES) / prio_set::RECORD_BYTES;
    assert_eq!(found.records().len(), room);
    let mut again = vec![0xff; bytes.len()];
    let left = PrioSet::encode(&mut again, SET, found.seq, found.next_bucket, found.records());
    assert_eq!(left, 0);
    let records_end = prio_set::HEADER_BYTES + prio_set::RECORD_BYTES * room;
    assert_eq!(again[32..records_end], bytes[32..records_end]);
    let decoded = PrioSet::decode(&again, SET, HERE).expect("we encoded it");
    assert!(decoded.records().eq(found.records()));
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let mut sealed = bytes.to_vec();
    put(&mut sealed, 8, SET.prio_set());
    let end = sealed.len();
    seal(&mut sealed, end);
    check(&sealed);
});
