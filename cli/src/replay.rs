//! `tierce replay`: runs a trace, or a generated workload, through a cache and says how it did.

mod every;

use crate::output::Output;
use crate::stdout::print;
use anyhow::{Context, anyhow, bail, ensure};
use bytesize::ByteSize;
use every::Every;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tierce_bench::backend::Tierce;
use tierce_bench::measure::LatencySummary;
use tierce_bench::replay::{self, Outcome, Settings, Watch};
use tierce_bench::workload::{ValueSizes, Zipf, ZipfSettings};
use tierce_bench::{Error, Format, Request, Store, Trace};
use tierce_cache::Config;
use tierce_core::Policy;
use tierce_io::FormatOptions;

/// Values of the built-in workload are at most this large.
const VALUE_BYTES_MAX: u64 = 100 << 10;

/// Run a trace through a cache and report hit ratio, throughput and latency.
///
/// Without TRACE a workload is generated: Zipf-distributed keys, values sized as web objects.
/// Without --device the cache is a temporary file in the current directory.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The trace: plain, or compressed with zstd, xz or gzip.
    trace: Option<PathBuf>,
    /// The trace's format, or auto to recognise it.
    #[arg(long, default_value = "auto", value_parser = parse_format, requires = "trace")]
    format: TraceFormat,
    /// A device or file that `tierce format` has formatted.
    #[arg(long, value_name = "PATH")]
    device: Vec<PathBuf>,
    /// Size of the temporary cache file.
    #[arg(long, default_value = "1GiB", conflicts_with = "device")]
    size: ByteSize,
    /// Size of its buckets: a power of two.
    #[arg(long, default_value = "512KiB", conflicts_with = "device")]
    bucket: ByteSize,
    /// Which bucket is reused next: lru, fifo or random [default: the device's, or lru].
    #[arg(long)]
    policy: Option<Policy>,
    /// With lru: of so many at random the one least likely to be used again soon, or 0 for exact
    /// LRU [default: the cache's, 8].
    #[arg(long, value_name = "BUCKETS")]
    lru_sample: Option<u32>,
    /// Write values with at least so many hits anew before their bucket is reused: 1 to 3, or 0
    /// for none [default: the cache's, 1 with lru and 0 with the others].
    #[arg(long, value_name = "HITS", value_parser = clap::value_parser!(u8).range(0..=3))]
    reinsert: Option<u8>,
    /// Memory for copies of what is read often; without, every hit is read from the device or
    /// from a write buffer.
    #[arg(long, value_name = "SIZE", default_value = "0B")]
    memory: ByteSize,
    /// Threads that run operations.
    #[arg(long, default_value_t = 4)]
    threads: usize,
    /// Access pages of this size instead of whole objects; only for block traces.
    #[arg(long, value_name = "SIZE")]
    pages: Option<ByteSize>,
    /// Check every hit byte for byte against the latest version written.
    #[arg(long)]
    verify: bool,
    /// Print a line every so many seconds: gets, hits, inserts and bytes written per second, the
    /// slowest of a hundred gets and inserts, free buckets by reserve, buckets reused, waits, and
    /// memory.
    #[arg(long, value_name = "SECONDS")]
    every: Option<Every>,
    /// Write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Stop after so many requests [default: the whole trace, or 600000].
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// What the generated workload's random numbers start from.
    #[arg(long, default_value_t = 0, conflicts_with = "trace")]
    seed: u64,
}

/// A format, or `None` to recognise it; under another name, as clap would take `Option` for a
/// flag that may be left out.
type TraceFormat = std::option::Option<Format>;

fn parse_format(name: &str) -> Result<TraceFormat, String> {
    if name == "auto" {
        return Ok(None);
    }
    name.parse().map(Some).map_err(|error: Error| error.to_string())
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(
        args.device.len() <= 1,
        "--device is given {} times, wanted once: a cache has one device as yet",
        args.device.len()
    );
    let watch = Arc::<Watch>::default();
    let settings = settings(args, &watch);
    settings.validate()?;
    // Whatever can be refused is, before a cache is made.
    let trace = args.trace.as_deref().map(|path| Trace::open(path, args.format)).transpose()?;
    let inputs = || args.device.iter().chain(&args.trace).map(PathBuf::as_path);
    let json = args.json.as_deref().map(|path| Output::open(path, inputs())).transpose()?;

    let store = match args.device.first() {
        Some(device) => Tierce::open(config(device, args))?,
        None => temporary(args)?,
    };
    let run = || match trace {
        Some(trace) => from_trace(&store, trace, &settings),
        None => generated(&store, args, &settings),
    };
    let outcome = match args.every {
        Some(every) => every::told(every, &store, &watch, run)?,
        None => run()?,
    };
    store.close()?;
    let printed = print(&table(&outcome));
    if let Some(json) = json {
        let mut text = serde_json::to_vec_pretty(&outcome)?;
        text.push(b'\n');
        json.write(&text)?;
    }
    printed?;
    judge(&outcome)
}

fn settings(args: &Args, watch: &Arc<Watch>) -> Settings {
    let mut settings = Settings::default();
    settings.threads = args.threads;
    settings.page_bytes = args.pages.map(|size| size.as_u64());
    settings.verify = args.verify;
    settings.requests = args.requests;
    settings.watch = args.every.map(|_| Arc::clone(watch));
    // Another number for each run: a cache that keeps its content must not mix runs up.
    settings.namespace = RandomState::new().hash_one(0);
    settings
}

fn config(path: &Path, args: &Args) -> Config {
    let memory_bytes = usize::try_from(args.memory.as_u64()).unwrap_or(usize::MAX);
    let mut config = Config::new(path).memory_bytes(memory_bytes);
    if let Some(policy) = args.policy {
        config = config.policy(policy);
    }
    if let Some(buckets) = args.lru_sample {
        config = config.lru_sample(buckets);
    }
    match args.reinsert {
        Some(hits) => config.reinsert_after(hits),
        None => config,
    }
}

/// A cache in a new file, which has no name any more when this returns: nothing of it is left
/// whichever way the process ends.
fn temporary(args: &Args) -> anyhow::Result<Tierce> {
    let path = PathBuf::from(format!("tierce-replay-{}.img", std::process::id()));
    let wanted = "a power of two from 4 KiB to 128 MiB";
    let bucket = u32::try_from(args.bucket.as_u64())
        .map_err(|_| anyhow!("--bucket is {}, wanted {wanted}", args.bucket))?;
    let mut options = FormatOptions::default()
        .size(Some(args.size.as_u64()))
        .bucket(bucket)
        .policy(args.policy.unwrap_or_default());
    if args.pages.is_some() {
        // With its header a page takes a little more than a power of two: in large blocks,
        // twice its size.
        options.block = 512;
    }
    let formatted = match tierce_io::format(&path, &options) {
        Err(tierce_io::Error::BlockTooSmall { wanted, .. }) => {
            options.block = wanted;
            tierce_io::format(&path, &options)
        }
        formatted => formatted,
    };
    formatted?;
    let opened = Tierce::open(config(&path, args));
    let removed = std::fs::remove_file(&path);
    let store = opened?;
    removed.with_context(|| format!("cannot remove {}", path.display()))?;
    Ok(store)
}

fn from_trace(store: &Tierce, trace: Trace, settings: &Settings) -> Result<Outcome, Error> {
    let position = trace.position();
    let length = settings.requests.unwrap_or_else(|| position.length());
    let bar = bar(length, settings);
    let mut taken = 0;
    replay::run(store, trace, settings, &mut |requests| {
        taken += requests;
        bar.set_message(format!("{} requests", HumanCount(taken)));
        bar.set_position(if settings.requests.is_some() { taken } else { position.read() });
    })
    .inspect(|_| bar.finish_and_clear())
}

fn generated(store: &Tierce, args: &Args, settings: &Settings) -> Result<Outcome, Error> {
    let largest = VALUE_BYTES_MAX.min(store.value_bytes_max() as u64);
    let mut workload = ZipfSettings::default();
    workload.sizes = ValueSizes::web(largest)?;
    workload.requests = args.requests.unwrap_or(workload.requests);
    workload.seed = args.seed;
    let requests: Box<dyn Iterator<Item = Result<Request, Error>>> =
        Box::new(Zipf::new(&workload)?);
    let bar = bar(workload.requests, settings);
    bar.set_message("requests");
    replay::run(store, requests, settings, &mut |requests| bar.inc(requests))
        .inspect(|_| bar.finish_and_clear())
}

/// Seen on a terminal only, and not between lines that say more.
fn bar(length: u64, settings: &Settings) -> ProgressBar {
    if settings.watch.is_some() {
        return ProgressBar::hidden();
    }
    let template = "{bar:40} {percent:>3} %  {msg}  {elapsed} of {duration}";
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A run that lost or falsified anything has failed.
fn judge(outcome: &Outcome) -> anyhow::Result<()> {
    if let Some(first) = &outcome.first_wrong {
        bail!("{} hits returned wrong data; the first: {first}", outcome.wrong_data);
    }
    let dropped = outcome.store.dropped_inserts;
    ensure!(dropped == 0, "{dropped} inserts were dropped");
    Ok(())
}

/// The figures for people.
fn table(outcome: &Outcome) -> String {
    let count = |n: u64| HumanCount(n).to_string();
    let percent = |ratio: f64| format!("{:.2} %", ratio * 100.0);
    let store = &outcome.store;
    let verified = if outcome.verified { "every byte of each hit checked" } else { "keys checked" };
    let rows = [
        ("requests", count(outcome.requests)),
        ("operations", count(outcome.operations)),
        ("hits", format!("{} of {}", count(outcome.hits), count(outcome.accesses))),
        ("hit ratio", format!("{} of accesses", percent(outcome.hit_ratio))),
        ("", format!("{} of bytes", percent(outcome.byte_hit_ratio))),
        ("throughput", format!("{} operations/s", count(outcome.ops_per_s as u64))),
        (
            "inserted",
            format!("{} values, {}", count(outcome.inserts), size(outcome.inserted_bytes)),
        ),
        ("elapsed", format!("{:.1} s", outcome.seconds)),
        (
            "buckets",
            format!("{}, {} of them for data", count(store.nbuckets), count(store.data_buckets)),
        ),
        ("", format!("{} held data, on average", count(outcome.held_buckets_mean as u64))),
        ("invalidated", count(store.invalidated)),
        ("reinserted", count(store.reinserted)),
        (
            "written",
            format!("{} for {}", size(store.device_bytes_written), size(store.user_bytes_written)),
        ),
        ("prio writes", count(store.prio_writes)),
        ("discards", count(store.discards)),
        ("GC runs", count(store.gc_runs)),
        ("read races", count(store.read_races)),
        ("write buffers", format!("{} at most", size(store.write_buffer_bytes_max))),
        (
            "copies",
            format!("{} at most, {} reads", size(store.memory_bytes_max), count(store.memory_hits)),
        ),
        ("too large", count(outcome.too_large)),
        ("dropped inserts", count(store.dropped_inserts)),
        ("wrong data", format!("{} ({verified})", count(outcome.wrong_data))),
        ("memory", outcome.rss_bytes.map_or_else(|| "unknown".to_owned(), size)),
    ];
    let mut text: String =
        rows.iter().map(|(name, value)| format!("{name:<16} {value}\n")).collect();
    text += "latency (µs)          p50        p99      p99.9        max\n";
    for (name, latency) in
        [("hit", outcome.hit_us), ("miss", outcome.miss_us), ("insert", outcome.insert_us)]
    {
        let LatencySummary { p50, p99, p999, max } = latency;
        text += &format!("  {name:<11} {p50:>10.1} {p99:>10.1} {p999:>10.1} {max:>10.1}\n");
    }
    text
}

fn size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}
