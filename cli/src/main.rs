//! The `tierce` command.

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
    Replay(replay::Args),
    /// Run a script of allocator operations and print what each does.
    Sim(sim::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Replay(args) => replay::run(&args),
        Command::Sim(args) => sim::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("tierce: {e:#}");
            ExitCode::FAILURE
        }
    }
}
