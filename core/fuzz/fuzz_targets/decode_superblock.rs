//! Invariants: any bytes give a superblock or an error; what was decoded encodes to bytes that
//! decode to the same, fits the device that was named, and has a journal within its buckets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tierce_core::record::{Superblock, superblock};
use tierce_core_fuzz::{number, seal};

fn check(bytes: &[u8], device_bytes: u64) {
    let Ok(found) = Superblock::decode(bytes, Some(device_bytes)) else { return };
    let geometry = found.geometry();
    let used = u64::from(geometry.nbuckets()) * u64::from(geometry.bucket_bytes());
    assert!(used <= device_bytes);
    assert!(found.journal_buckets().all(|bucket| geometry.contains(bucket)));
    assert!(geometry.prio_buckets() < geometry.nbuckets());
    let again = Superblock::decode(&found.encode(), Some(device_bytes));
    assert_eq!(again.as_ref(), Ok(&found));
    for next in [found.first_use(1), found.later_use(1), found.engine_use()] {
        if next.journal_buckets().all(|bucket| geometry.contains(bucket)) {
            assert_eq!(Superblock::decode(&next.encode(), None), Ok(next));
        }
    }
    let _ = (found.label_text(), found.check_usable(4096));
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes, 1 << 30);
    let mut sealed = bytes.to_vec();
    if let Some(magic) = sealed.get_mut(24..40) {
        magic.copy_from_slice(&superblock::MAGIC);
    }
    let njournal = number(bytes, 206) & 0xffff;
    seal(&mut sealed, 208 + 8 * njournal.min(256));
    check(&sealed, u64::MAX);
});
