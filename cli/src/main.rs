//! The `tierce` command: one file per subcommand.

mod inspect;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Bucket allocation for flash caches.
#[derive(Parser, Debug)]
#[command(name = "tierce", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Inspect(inspect::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Inspect(args) => inspect::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tierce: {error:#}");
            ExitCode::FAILURE
        }
    }
}
