//! An open that is refused says why, and changes nothing.

use std::sync::Arc;
use tierce_cache::{Cache, Config, Error};
use tierce_io::{Device, DeviceExt, FormatOptions, Owner, Sim, SimOptions, Volume, format_on};

const BUCKET: u32 = 16 << 10;

fn formatted(seed: u64, bucket: u32) -> Arc<Sim> {
    let sim = Sim::new(&SimOptions::default().seed(seed).bytes(640 * u64::from(bucket)));
    let options = FormatOptions::default().bucket(bucket).block(512);
    format_on(&*sim, &options).expect("a new device");
    sim
}

/// Why these are refused.
fn refused(config: &Config, sims: &[&Arc<Sim>]) -> Error {
    let bytes = |sim: &Sim| sim.read_at(0, 64 << 10).expect("readable").to_vec();
    let before: Vec<_> = sims.iter().map(|sim| bytes(sim)).collect();
    let devices = sims.iter().map(|sim| Arc::clone(sim) as Arc<dyn Device>).collect();
    let error = Cache::open_on(config, devices).map(drop).expect_err("to be refused");
    for (sim, before) in sims.iter().zip(before) {
        assert!(bytes(sim) == before, "{} was changed: {error}", sim.name());
    }
    error
}

#[test]
fn a_refusal_changes_nothing() {
    let config = Config::new("sim");
    let (a, b) = (formatted(1, BUCKET), formatted(2, 2 * BUCKET));
    let error = refused(&config, &[&a, &b]);
    assert!(matches!(error, Error::Geometry { .. }), "{error}");
    let error = refused(&config, &[&a, &a]);
    assert!(matches!(error, Error::Twice { .. }), "{error}");
    let error = refused(&config, &[&formatted(4, 8192), &formatted(5, 8192)]);
    assert!(matches!(error, Error::SmallBuckets { .. }), "{error}");
    let error = refused(&config, &[&a, &Sim::new(&SimOptions::default())]);
    assert!(error.to_string().contains("not formatted"), "{error}");
    let error = refused(&Config::new("sim").cpus(5000), &[&a]);
    assert!(error.to_string().contains("cpus"), "{error}");
    // It is nobody's index yet.
    Volume::open_on(a, Owner::Allocator).expect("as it was");
}

/// By its name, and by another one.
#[test]
fn a_file_that_is_named_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, link) = (dir.path().join("cache"), dir.path().join("link"));
    let options = FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
    tierce_io::format(&path, &options).expect("a new file");
    std::fs::hard_link(&path, &link).expect("a link");
    for other in [&path, &link] {
        let error = Cache::open(Config::new(&path).also(other)).map(drop).expect_err("one file");
        let Error::Twice { device, other: first } = error else { panic!("{error}") };
        assert_eq!((device, first), (other.display().to_string(), path.display().to_string()));
    }
    let cache = Cache::open(Config::new(&path)).expect("once");
    let error = Cache::open(Config::new(&link)).map(drop).expect_err("somebody has it");
    assert!(error.to_string().contains("in use"), "{error}");
    drop(cache);
}
