//! Invariants: any bytes give entries, at most as many as there is room for, that encode to the
//! same bytes but for the padding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tierce_core::record::{UuidEntry, uuids};

fuzz_target!(|bytes: &[u8]| {
    for (inode, entry) in UuidEntry::decode_all(bytes) {
        let start = inode as usize * uuids::ENTRY_BYTES;
        assert_eq!(entry.encode()[..72], bytes[start..][..72]);
    }
});
