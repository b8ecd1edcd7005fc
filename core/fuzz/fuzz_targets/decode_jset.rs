//! Invariants: any bytes give an entry or an error; what was decoded encodes to the bytes under
//! its checksum (padding apart); walking its keys ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tierce_core::record::Jset;
use tierce_core_fuzz::{HERE, SET, number, put, seal};

fn check(bytes: &[u8]) {
    let Ok(found) = Jset::decode(bytes, SET, HERE) else { return };
    assert!(found.last_seq <= found.seq && found.bytes() <= bytes.len());
    assert!(found.decoded_keys(HERE).count() <= found.keys.len());
    let _ = (found.uuid_bucket.key(HERE), found.btree_root.key(HERE));
    let mut again = vec![0; found.bytes_on_device(512)];
    assert_eq!(found.encode(SET, 512, &mut again), Ok(again.len()));
    assert_eq!(again[8..170], bytes[8..170]);
    assert_eq!(again[176..found.bytes()], bytes[176..found.bytes()]);
    assert_eq!(Jset::decode(&again, SET, HERE), Ok(found));
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let mut sealed = bytes.to_vec();
    put(&mut sealed, 8, SET.jset());
    let keys = number(bytes, 28);
    seal(&mut sealed, keys.saturating_mul(8).saturating_add(240));
    check(&sealed);
});
