//! Kills a cache in mid-run, again and again, and checks what it serves afterwards: the rounds,
//! and, started by them, the process that is killed. See [`tierce_bench::kill`].

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use tierce_bench::LoopDevice;
use tierce_bench::backend::Tierce;
use tierce_bench::kill::worker::{self, Load};
use tierce_bench::kill::{CacheFile, Settings, run};
use tierce_cache::Config;
use tierce_io::FormatOptions;

/// Kill a cache in mid-run and check what it serves afterwards.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    test: TestArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Work on a cache until killed (the test starts this).
    #[command(hide = true)]
    Worker(WorkerArgs),
}

/// What the cache lies on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Medium {
    /// A file in this directory.
    File,
    /// A loop device over such a file; left out, and said so, where none can be had.
    Loop,
}

#[derive(Debug, Args)]
struct TestArgs {
    /// What the cache lies on.
    #[arg(long, value_delimiter = ',', default_value = "file,loop")]
    on: Vec<Medium>,
    /// How many times to kill, on each.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// What the random choices start from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct WorkerArgs {
    path: PathBuf,
    #[arg(long)]
    keys: u64,
    #[arg(long)]
    threads: u64,
    #[arg(long)]
    value_bytes_max: usize,
    #[arg(long)]
    first_version: u64,
    #[arg(long)]
    seed: u64,
}

/// 1024 buckets, so that a round reuses them.
const CACHE_BYTES: u64 = 64 << 20;
const BUCKET_BYTES: u32 = 64 << 10;

/// A file that is removed with this.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // It is gone already, or there is nobody left to tell.
        let _ = std::fs::remove_file(&self.0);
    }
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Worker(args)) => work(&args).map(|()| ExitCode::SUCCESS),
        None => test(&cli.test),
    };
    result.unwrap_or_else(|error| {
        eprintln!("tierce-kill-test: {error}");
        ExitCode::FAILURE
    })
}

fn test(args: &TestArgs) -> Result<ExitCode, Failure> {
    let mut wrong = 0;
    for medium in &args.on {
        let name = PathBuf::from(format!("tierce-kill-test-{}.img", std::process::id()));
        wrong += match medium {
            Medium::File => {
                let file = Temporary(name);
                kill(args, "a file", &file.0, Some(CACHE_BYTES))?
            }
            Medium::Loop => match LoopDevice::new(&name, CACHE_BYTES, &["--direct-io=on"]) {
                Ok(device) => kill(args, "a loop device", device.path(), None)?,
                Err(error) => {
                    println!("skipped: no loop device: {error}");
                    0
                }
            },
        };
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All rounds on what is at `path`. Returns how much was wrong.
fn kill(args: &TestArgs, medium: &str, path: &Path, size: Option<u64>) -> Result<u64, Failure> {
    tierce_io::format(path, &FormatOptions::default().size(size).bucket(BUCKET_BYTES))?;
    let subject = CacheFile::new(std::env::current_exe()?, path);
    let mut settings = Settings::default();
    settings.rounds = args.rounds;
    settings.load.seed = args.seed;
    let checked = run(&subject, &settings, &mut |round| println!("{medium}, {round}"))?;
    println!("{medium}: {} rounds: {checked}", args.rounds);
    Ok(checked.wrong)
}

fn work(args: &WorkerArgs) -> Result<(), Failure> {
    let load = Load {
        keys: args.keys,
        threads: args.threads,
        value_bytes_max: args.value_bytes_max,
        first_version: args.first_version,
        seed: args.seed,
    };
    // Not `Stdout`, which may split a record into two writes.
    let log = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let store = Tierce::open(Config::new(&args.path))?;
    Ok(worker::run(&store, &load, &Mutex::new(log), &AtomicBool::new(false))?)
}
