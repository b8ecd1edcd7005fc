//! The `tierce` command: one file per subcommand.

mod bench;
mod crash;
mod format;
mod inspect;
mod logger;
mod output;
mod replay;
mod sim;
mod stdout;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use std::io::Write;
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
    Bench(bench::Args),
    Crash(crash::Args),
    Format(format::Args),
    Inspect(inspect::Args),
    Replay(replay::Args),
    Sim(sim::Args),
}

fn main() -> ExitCode {
    logger::start();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = match cli.command {
        Command::Bench(args) => bench::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Crash(args) => crash::run(&args),
        Command::Format(args) => format::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Inspect(args) => inspect::run(&args),
        Command::Replay(args) => replay::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Sim(args) => sim::run(&args).map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            tell(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Help that was asked for is printed; a mistake on the command line is told in one line, like
/// every other bad input.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Nothing is left to do if the terminal is gone.
        let _ = error.print();
        return ExitCode::from(u8::from(error.use_stderr()));
    }
    let text = error.to_string();
    let said = text.split("\n\n").next().unwrap_or_default();
    let said = said.strip_prefix("error: ").unwrap_or(said);
    let said: Vec<&str> = said.split_whitespace().collect();
    tell(&format!("{}; --help says more", said.join(" ")));
    ExitCode::FAILURE
}

/// Says what is wrong, in one line. The exit code says so, too, where nobody listens.
fn tell(said: &str) {
    let _ = writeln!(std::io::stderr(), "tierce: {said}");
}
