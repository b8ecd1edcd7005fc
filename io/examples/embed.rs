//! The allocator in somebody else's cache. The steps are told in the documentation of tierce-io.
use std::{collections::HashMap, fs::File, os::unix::fs::FileExt, sync::Mutex};
use tierce_core::Mark;
use tierce_io::{FormatOptions, OpenOptions, Owner, Pipeline, Volume, format};
use tierce_lockfree::{Allocator, BucketRef, Config, Error, Marked, SectorRequest};

type Index = Mutex<HashMap<u64, (BucketRef, u64, usize)>>; // key → pointer, byte on device, bytes

fn put(space: &Allocator, index: &Index, file: &File, key: u64, value: &[u8]) -> Result<(), Error> {
    let request = SectorRequest::new(value.len().div_ceil(512) as u32);
    let mut extent = space.alloc_sectors_until(&request, None)?; // step 4
    while (extent.sectors() as usize) < value.len().div_ceil(512) {
        extent = space.alloc_sectors_until(&request, None)?; // that was the rest of a bucket
    }
    let byte = extent.first_sector() * 512;
    file.write_all_at(value, byte).expect("the file can be written");
    index.lock().expect("no panic").insert(key, (extent.bucket_ref(), byte, value.len()));
    space.account_io(extent.sectors());
    Ok(()) // the extent goes: its data is in the index
}

fn get(space: &Allocator, index: &Index, file: &File, key: u64) -> Option<Vec<u8>> {
    let read = space.begin_read(); // step 5: before the look at the index
    let (pointer, byte, bytes) = *index.lock().expect("no panic").get(&key)?;
    let open = read.open(pointer)?;
    let mut value = vec![0; bytes];
    file.read_exact_at(&mut value, byte).expect("the file can be read");
    open.validate().then_some(value)
}

fn collect(space: &Allocator, index: &Index) {
    while space.wait_gc_due(None) {
        let gc = space.begin_gc().expect("the only collector"); // step 6
        index.lock().expect("no panic").retain(|_, &mut (pointer, _, bytes)| {
            gc.mark(pointer, bytes.div_ceil(512) as u32, Mark::Reclaimable) == Marked::Live
        });
        gc.finish();
    }
}

/// Puts three times as much as fits; the newest is found, the oldest is gone.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (temporary, index) = (tempfile::NamedTempFile::new()?, Index::default());
    let (path, file, size) = (temporary.path(), temporary.as_file(), Some(64 << 20));
    format(path, &FormatOptions::default().size(size).bucket(64 << 10))?; // step 1
    let options = OpenOptions::default().owner(Owner::Scratch);
    let (table, writer) = Volume::open(path, &options)?.into_start(); // step 2
    let config = Config::default().sync(false);
    let (space, mut reclaimers) = Allocator::start(config, vec![table])?.finish(); // step 3
    let pipeline = Pipeline::start(reclaimers.remove(0), writer)?;
    std::thread::scope(|threads| {
        threads.spawn(|| collect(&space, &index));
        let put = |key| put(&space, &index, file, key, &[key as u8; 16 << 10]);
        let done = (0..12_000).try_for_each(put);
        assert_eq!(get(&space, &index, file, 11_999), Some(vec![11_999u64 as u8; 16 << 10]));
        assert_eq!(get(&space, &index, file, 0), None, "its bucket was used again");
        pipeline.close()?; // step 7
        Ok(done?)
    })
}
