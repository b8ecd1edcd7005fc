//! [`Stats`] for whoever collects metrics with the crate `metrics`: Prometheus, StatsD and others.
//!
//! Names are `tierce_cache_hits_total` and so on, each with the label `cache`, and
//! `tierce_device_free_none` and so on with the label `device`, too. What ends in `_total` is a
//! counter, the rest are gauges; units are bytes or counts, as described to the recorder. What they
//! mean in detail is said at the field of [`Stats`] or [`DeviceStats`] that is called the same.
//!
//! Nothing is counted for this: [`Metrics::update`] hands on what the cache counts anyway. Call it
//! whenever the numbers are wanted, before they are scraped or every few seconds. It takes some ten
//! microseconds, for it looks at every shard of the index, and disturbs nobody.

use crate::stats::{DeviceStats, Stats};
use metrics::{Counter, Gauge, Label, Unit, with_recorder};

/// One number.
struct Number<S> {
    name: &'static str,
    kind: Kind,
    unit: Unit,
    what: &'static str,
    of: fn(&S) -> u64,
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

macro_rules! counter {
    ($of:ident $field:ident, $unit:ident, $what:literal) => {
        Number {
            name: concat!("tierce_", stringify!($of), "_", stringify!($field), "_total"),
            kind: Kind::Counter,
            unit: Unit::$unit,
            what: $what,
            of: |stats| stats.$field,
        }
    };
}

macro_rules! gauge {
    ($of:ident $field:ident, $unit:ident, $what:literal) => {
        Number {
            name: concat!("tierce_", stringify!($of), "_", stringify!($field)),
            kind: Kind::Gauge,
            unit: Unit::$unit,
            what: $what,
            of: |stats| stats.$field,
        }
    };
}

/// Every number of [`Stats`].
#[rustfmt::skip]
const OF_CACHE: &[Number<Stats>] = &[
    gauge!(cache nbuckets, Count, "Buckets of all devices."),
    gauge!(cache data_buckets, Count, "Buckets of which at most so many hold data at a time."),
    gauge!(cache held_buckets, Count, "Buckets that hold data."),
    gauge!(cache bucket_bytes, Bytes, "Bytes of a bucket."),
    gauge!(cache entries, Count, "Entries of the index, some of which may be stale."),
    gauge!(cache index_bytes, Bytes, "Memory of the index."),
    gauge!(cache write_buffer_bytes, Bytes, "Memory of values that are not on the device yet."),
    gauge!(cache write_buffer_bytes_max, Bytes, "As many as there may be."),
    gauge!(cache memory_bytes, Bytes, "Memory of copies of records."),
    gauge!(cache memory_bytes_max, Bytes, "As many as there may be."),
    counter!(cache memory_hits, Count, "Records read from copies in memory."),
    counter!(cache memory_evictions, Count, "Copies that gave way to others."),
    gauge!(cache lineage_bytes, Bytes, "Memory of what must not come back."),
    counter!(cache hits, Count, "Gets that found the value."),
    counter!(cache misses, Count, "Gets that did not, for whatever reason."),
    counter!(cache stale, Count, "Misses: the bucket had been reused before the read."),
    counter!(cache corrupt, Count, "Misses: what was read is damaged."),
    counter!(cache other_key, Count, "Misses: another key has the same hash."),
    counter!(cache expired, Count, "Misses: the entry's time was over."),
    counter!(cache misses_recovering, Count, "Misses: nothing was known of the key yet."),
    gauge!(cache recovery_buckets, Count, "Buckets that may have held something at opening."),
    gauge!(cache recovered_buckets, Count, "As many of them are known by now."),
    counter!(cache read_errors, Count, "Misses: the device could not be read."),
    counter!(cache buffer_reads, Count, "Records read from a write buffer."),
    counter!(cache inserts, Count, "Inserts acknowledged."),
    counter!(cache failed_inserts, Count, "Inserts that returned an error."),
    counter!(cache removes, Count, "Removes that found something."),
    counter!(cache memory_waits, Count, "Inserts that had to wait for memory."),
    counter!(cache write_errors, Count, "Writes that a device refused."),
    counter!(cache user_bytes_written, Bytes, "Keys and values inserted."),
    counter!(cache device_bytes_written, Bytes, "Written for them: records, headers, summaries."),
    counter!(cache dead_lists_written, Count, "Lists of records that must not come back, written."),
    counter!(cache reinserted, Count, "Entries written anew before their bucket was reused."),
    counter!(cache reinserted_bytes, Bytes, "Their keys and values."),
    counter!(cache reinsertions_given_up, Count, "Times that writing anew ended early."),
    counter!(cache reinsertion_read_errors, Count, "Reads for that that the device could not do."),
    counter!(cache read_races, Count, "Misses: the bucket was reused during the read."),
    counter!(cache invalidated, Count, "Buckets invalidated."),
    counter!(cache prio_writes, Count, "Durable writes of the gens and prios."),
    counter!(cache discards, Count, "Buckets discarded."),
    counter!(cache gc_runs, Count, "Garbage collections."),
    counter!(cache rescales, Count, "Ageing passes."),
    counter!(cache space_waits, Count, "Times that somebody had to wait for a bucket."),
];

/// Every number of [`DeviceStats`].
#[rustfmt::skip]
const OF_DEVICE: &[Number<DeviceStats>] = &[
    gauge!(device nbuckets, Count, "Buckets."),
    gauge!(device free_prio, Count, "Free buckets for the next write of gens and prios."),
    gauge!(device free_moving_gc, Count, "Free buckets for what is written anew."),
    gauge!(device free_none, Count, "Free buckets for values."),
    gauge!(device free_inc, Count, "Buckets chosen to be reused and not free yet."),
    gauge!(device waiters, Count, "Writers that wait for a bucket."),
    counter!(device space_waits, Count, "Times that somebody had to wait for a bucket."),
    counter!(device invalidated, Count, "Buckets invalidated."),
    counter!(device prio_writes, Count, "Durable writes of the gens and prios."),
    counter!(device discards, Count, "Buckets discarded."),
];

/// A number as the recorder knows it.
enum Handle {
    Counter(Counter),
    Gauge(Gauge),
}

/// All numbers of a cache, or of a device.
struct Handles<S: 'static> {
    handles: Vec<(&'static Number<S>, Handle)>,
}

impl<S> Handles<S> {
    fn register(numbers: &'static [Number<S>], labels: &[Label]) -> Self {
        let register = |number: &'static Number<S>| {
            let key = metrics::Key::from_parts(number.name, labels.to_vec());
            let metadata =
                metrics::Metadata::new("tierce", metrics::Level::INFO, Some(module_path!()));
            let (name, unit) = (|| number.name.into(), Some(number.unit));
            let handle = with_recorder(|recorder| match number.kind {
                Kind::Counter => {
                    recorder.describe_counter(name(), unit, number.what.into());
                    Handle::Counter(recorder.register_counter(&key, &metadata))
                }
                Kind::Gauge => {
                    recorder.describe_gauge(name(), unit, number.what.into());
                    Handle::Gauge(recorder.register_gauge(&key, &metadata))
                }
            });
            (number, handle)
        };
        Self { handles: numbers.iter().map(register).collect() }
    }

    fn update(&self, stats: &S) {
        for (number, handle) in &self.handles {
            let value = (number.of)(stats);
            match handle {
                Handle::Counter(counter) => counter.absolute(value),
                Handle::Gauge(gauge) => gauge.set(value as f64),
            }
        }
    }
}

/// The numbers of one cache at the recorder of the crate `metrics`. See the [module](self).
///
/// ```
/// use tierce_cache::{Cache, Config, Metrics};
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("cache");
/// # let options = tierce_io::FormatOptions::default().size(Some(64 << 20)).bucket(64 << 10);
/// # tierce_io::format(&path, &options)?;
/// let cache = Cache::open(Config::new(&path))?;
/// // Once, after the recorder was installed.
/// let mut metrics = Metrics::register("thumbnails");
/// cache.insert(b"key", b"value")?;
/// // Whenever they are wanted.
/// metrics.update(&cache.stats());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Metrics {
    cache: Label,
    numbers: Handles<Stats>,
    /// Registered when the stats name them first.
    devices: Vec<Handles<DeviceStats>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").field("cache", &self.cache.value()).finish_non_exhaustive()
    }
}

impl Metrics {
    /// Describes and registers the numbers of the cache that shall be called so, with the recorder
    /// that is installed just now; if there is none, nothing is recorded, then or later.
    #[must_use]
    pub fn register(cache: &str) -> Self {
        let cache = Label::new("cache", cache.to_owned());
        let numbers = Handles::register(OF_CACHE, std::slice::from_ref(&cache));
        Self { cache, numbers, devices: Vec::new() }
    }

    /// Hands on the numbers of the cache, as [`Cache::stats`](crate::Cache::stats) says them.
    pub fn update(&mut self, stats: &Stats) {
        self.numbers.update(stats);
        for device in stats.devices.iter().skip(self.devices.len()) {
            let labels = [self.cache.clone(), Label::new("device", device.name.clone())];
            self.devices.push(Handles::register(OF_DEVICE, &labels));
        }
        for (device, handles) in stats.devices.iter().zip(&self.devices) {
            handles.update(device);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::formatted;
    use crate::{Cache, Config};
    use metrics::{Key, KeyName, Metadata, Recorder, SharedString};
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    /// Keeps everything.
    #[derive(Default)]
    struct Kept {
        values: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
        described: Mutex<BTreeMap<String, Option<Unit>>>,
    }

    impl Kept {
        fn value(&self, key: &Key) -> Arc<AtomicU64> {
            let labels: String =
                key.labels().map(|l| format!(" {}={}", l.key(), l.value())).collect();
            let mut values = self.values.lock().expect("no test panics with it");
            values.entry(format!("{}{labels}", key.name())).or_default().clone()
        }

        fn counter(&self, key: &str) -> u64 {
            let values = self.values.lock().expect("no test panics with it");
            // Relaxed: set by the same thread.
            values[key].load(Ordering::Relaxed)
        }

        fn gauge(&self, key: &str) -> f64 {
            f64::from_bits(self.counter(key))
        }

        fn describe(&self, name: &KeyName, unit: Option<Unit>) {
            let mut described = self.described.lock().expect("no test panics with it");
            described.insert(name.as_str().to_owned(), unit);
        }
    }

    impl Recorder for Kept {
        fn describe_counter(&self, name: KeyName, unit: Option<Unit>, _what: SharedString) {
            self.describe(&name, unit);
        }
        fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, _what: SharedString) {
            self.describe(&name, unit);
        }
        fn describe_histogram(&self, name: KeyName, _unit: Option<Unit>, _what: SharedString) {
            unreachable!("{name:?}")
        }
        fn register_counter(&self, key: &Key, _metadata: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.value(key))
        }
        fn register_gauge(&self, key: &Key, _metadata: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.value(key))
        }
        fn register_histogram(&self, key: &Key, _metadata: &Metadata<'_>) -> metrics::Histogram {
            unreachable!("{key}")
        }
    }

    #[test]
    fn a_recorder_sees_what_was_counted() {
        let cache = Cache::open_on(&Config::new("sim"), vec![formatted(0, 640, 16 << 10)]);
        let cache = cache.expect("just formatted");
        let kept = Kept::default();
        let mut metrics = metrics::with_local_recorder(&kept, || Metrics::register("test"));
        for n in 0..7_u8 {
            cache.insert(&[n], b"value").expect("room");
        }
        for n in 0..9_u8 {
            cache.get(&[n]).expect("a get never fails");
        }
        for _ in 0..2 {
            // A counter is what it is, not added up again.
            metrics::with_local_recorder(&kept, || metrics.update(&cache.stats()));
        }
        assert_eq!(kept.counter("tierce_cache_hits_total cache=test"), 7);
        assert_eq!(kept.counter("tierce_cache_misses_total cache=test"), 2);
        assert_eq!(kept.counter("tierce_cache_inserts_total cache=test"), 7);
        let (entries, nbuckets) = ("tierce_cache_entries cache=test", cache.stats().nbuckets);
        assert!((kept.gauge(entries) - 7.0).abs() < 1e-9);
        let device = &cache.stats().devices[0].name;
        let of_device = kept.gauge(&format!("tierce_device_nbuckets cache=test device={device}"));
        assert!((of_device - nbuckets as f64).abs() < 1e-9);
        let described = kept.described.lock().expect("no test panics with it");
        assert_eq!(described["tierce_cache_index_bytes"], Some(Unit::Bytes));
        assert_eq!(described.len(), OF_CACHE.len() + OF_DEVICE.len());
    }

    /// The names of a struct's fields that are numbers.
    fn numbers(debug: &str) -> Vec<&str> {
        debug.split([',', '{']).filter_map(|part| part.trim().strip_suffix(": 0")).collect()
    }

    #[test]
    fn every_number_of_the_stats_is_a_metric() {
        let name = |name: &'static str, prefix| {
            let name = name.strip_prefix(prefix).expect("every name begins so");
            name.strip_suffix("_total").unwrap_or(name)
        };
        let cache: Vec<_> = OF_CACHE.iter().map(|n| name(n.name, "tierce_cache_")).collect();
        assert_eq!(cache, numbers(&format!("{:?}", Stats::default())));
        let device: Vec<_> = OF_DEVICE.iter().map(|n| name(n.name, "tierce_device_")).collect();
        let stats = format!("{:?}", DeviceStats::default()).replace(" }", ",");
        assert_eq!(device, numbers(&stats));
    }
}
