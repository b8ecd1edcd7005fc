//! The `tierce` command: one file per subcommand.

mod inspect;
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
    Inspect(inspect::Args),
    Sim(sim::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Inspect(args) => inspect::run(&args),
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
