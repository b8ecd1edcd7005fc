//! One cache on several devices: buckets are taken from the one with most free; if one fails, its
//! share of the entries become misses and the others go on.
//!
//! `cargo run --example devices -- /path/of/one /path/of/another`

use std::error::Error;
use tierce_cache::{Cache, Config};
use tierce_io::FormatOptions;

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<_> = std::env::args().skip(1).collect();
    let [first, others @ ..] = &paths[..] else { return Err("paths of new files".into()) };
    let options = FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
    for path in &paths {
        tierce_io::format(path, &options)?;
    }
    // In the same order every time.
    let config = others.iter().fold(Config::new(first), Config::also);
    let cache = Cache::open(config.clone())?;
    for n in 0u32..500 {
        cache.insert(&n.to_le_bytes(), &[n as u8; 9000])?;
    }
    cache.close()?;

    let cache = Cache::open(config)?; // as it was
    let found = (0u32..500).filter(|n| cache.contains(&n.to_le_bytes()).unwrap_or(false)).count();
    println!("{found} of 500 on {} buckets", cache.stats().nbuckets);
    Ok(())
}
