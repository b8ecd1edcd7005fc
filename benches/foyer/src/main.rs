//! foyer as a peer of `tierce bench cache`: see `tierce_bench::peer` for how it is driven.
//!
//! Set up as its documentation tells, defaults where it gives any: the block engine over a
//! directory with direct I/O, blocks of 16 MiB, a flush buffer of 16 MiB, one flusher, w-TinyLFU
//! in memory. Every insert is written to the disk (`WriteOnInsertion`), as tierce does, and
//! nothing is recovered, for it starts empty. The calling threads wait for its futures; the
//! runtime has as many threads as the machine.
#![forbid(unsafe_code)]

use foyer::{BlockEngineConfig, DeviceBuilder, Error, FsDeviceBuilder, HybridCache};
use foyer::{HybridCacheBuilder, HybridCachePolicy, IoEngineConfig, PsyncIoEngineConfig};
use foyer::{RecoverMode, UringIoEngineConfig};
use std::process::ExitCode;
use tierce_bench::peer::{self, Place};
use tierce_bench::{Insertion, Store};
use tokio::runtime::Runtime;

type Cache = HybridCache<Vec<u8>, Vec<u8>>;

struct Foyer {
    runtime: Runtime,
    cache: Cache,
}

impl Foyer {
    fn open(place: &Place) -> Result<(Self, String), String> {
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        let cache = runtime.block_on(build(place)).map_err(|error| error.to_string())?;
        let settings = format!(
            "foyer 0.22, {}, {} MiB of disk in blocks of 16 MiB, {} MiB of memory, flush buffer \
             16 MiB, written on insertion",
            place.engine,
            place.bytes >> 20,
            place.memory_bytes >> 20,
        );
        Ok((Self { runtime, cache }, settings))
    }
}

async fn build(place: &Place) -> Result<Cache, Error> {
    let device = FsDeviceBuilder::new(&place.directory)
        .with_capacity(place.bytes as usize)
        .with_direct(true)
        .build()?;
    let builder = HybridCacheBuilder::new()
        .with_policy(HybridCachePolicy::WriteOnInsertion)
        .memory(place.memory_bytes as usize)
        .with_weighter(|key: &Vec<u8>, value: &Vec<u8>| key.len() + value.len())
        .storage()
        .with_engine_config(BlockEngineConfig::new(device))
        .with_recover_mode(RecoverMode::None);
    let engine: Box<dyn IoEngineConfig> = match place.engine.as_str() {
        "io_uring" => Box::new(UringIoEngineConfig::new()),
        _ => Box::new(PsyncIoEngineConfig::new()),
    };
    builder.with_io_engine_config(engine).build().await
}

impl Store for Foyer {
    type Error = Error;

    fn get(&self, key: &[u8], value: &mut Vec<u8>) -> Result<bool, Error> {
        let found = self.runtime.block_on(async { self.cache.get(key).await })?;
        let Some(entry) = found else { return Ok(false) };
        value.clear();
        value.extend_from_slice(entry.value());
        Ok(true)
    }

    /// It queues the value and returns; when its queue is full it drops it, and does not say so:
    /// such a key is a miss later.
    fn insert(&self, key: &[u8], value: &[u8]) -> Result<Insertion, Error> {
        let _runtime = self.runtime.enter();
        self.cache.insert(key.to_vec(), value.to_vec());
        Ok(Insertion::Stored)
    }

    fn remove(&self, key: &[u8]) -> Result<bool, Error> {
        let _runtime = self.runtime.enter();
        let was_there = self.cache.contains(key);
        self.cache.remove(key);
        Ok(was_there)
    }
}

fn main() -> ExitCode {
    peer::serve(Foyer::open)
}
