//! A cache that threads share, with blocking calls.
//!
//! `cargo run --example blocking -- /path/of/a/new/file`

use std::error::Error;
use tierce_cache::{Cache, Config};
use tierce_io::FormatOptions;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("the path of a new file")?;
    let options = FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
    tierce_io::format(&path, &options)?;

    let cache = Cache::open(Config::new(&path))?.typed::<str, String>();
    std::thread::scope(|scope| {
        let writers = (0..4).map(|thread| {
            let cache = &cache;
            scope.spawn(move || {
                (0..1000).try_for_each(|n| {
                    cache.insert(&format!("{thread}/{n}"), &format!("value {n} of {thread}"))
                })
            })
        });
        let writers: Vec<_> = writers.collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("no thread panics"))
    })?;
    let value = cache.get_with("3/999", || Ok::<_, tierce_cache::Error>("from afar".to_owned()))?;
    println!("{value:?}, {} hits, {} inserts", cache.stats().hits, cache.stats().inserts);
    cache.close()?; // durable; dropping it is as good after a `flush`
    Ok(())
}
