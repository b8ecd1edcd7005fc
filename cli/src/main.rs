//! The `tierce` command: one file per subcommand.

mod format;
mod inspect;
mod replay;
mod sim;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Manages the space of flash caches.
#[derive(Debug, Parser)]
#[command(name = "tierce", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Format(format::Args),
    Inspect(inspect::Args),
    Replay(replay::Args),
    Sim(sim::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Format(args) => format::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Inspect(args) => inspect::run(&args),
        Command::Replay(args) => replay::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Sim(args) => sim::run(&args).map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tierce: {error:#}");
            ExitCode::FAILURE
        }
    }
}
