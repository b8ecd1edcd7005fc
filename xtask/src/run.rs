//! Running commands: output captured line by line, shown at once or only when it failed, and a
//! time limit that ends the whole process group.

use anyhow::{Context, Result, bail};
use std::env;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, pipe};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// When the output of a command is printed.
#[derive(Clone, Copy)]
pub(crate) enum Show {
    /// Line by line as it comes.
    Live,
    /// The lines that the function picks as they come, and all of it if the command failed.
    Picked(fn(&str) -> bool),
    /// At the end, and only if the command failed.
    OnFailure,
    /// Never: the caller looks at it.
    Never,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Output {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// Standard output and standard error, interleaved as they came.
    pub(crate) text: String,
    /// Whether it was ended for taking too long.
    pub(crate) timed_out: bool,
}

/// A `cargo` command at the workspace root whose output is free of colour, so that it can be
/// read by the parsers of `tally.rs`.
pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(crate::place::root()).env("CARGO_TERM_COLOR", "never");
    command
}

/// Whether `cargo NAME` can be run.
pub(crate) fn has_cargo_tool(name: &str) -> bool {
    let mut command = cargo([name, "--version"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Fails with a word on what to do unless `cargo NAME` can be run.
pub(crate) fn need_cargo_tool(name: &str) -> Result<()> {
    if !has_cargo_tool(name) {
        bail!("cargo-{name} is not installed: cargo install --locked cargo-{name}");
    }
    Ok(())
}

/// Adds `flags` to those that `RUSTFLAGS` already asks for.
pub(crate) fn rustflags(flags: &str) -> String {
    match env::var("RUSTFLAGS") {
        Ok(given) if !given.is_empty() => format!("{given} {flags}"),
        _ => flags.to_owned(),
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: Command, show: Show) -> Result<Output> {
    run_within(command, show, None)
}

/// Runs a command, at most for `limit`.
pub(crate) fn run_within(
    mut command: Command,
    show: Show,
    limit: Option<Duration>,
) -> Result<Output> {
    let line = describe(&command);
    if matches!(show, Show::Live | Show::Picked(_)) {
        println!("$ {line}");
    }
    let (reader, writer) = pipe().context("making a pipe")?;
    let stdout = writer.try_clone().context("sharing a pipe")?;
    command.stdin(Stdio::null()).stdout(stdout).stderr(writer);
    if limit.is_some() {
        command.process_group(0);
    }
    let mut child = command.spawn().with_context(|| format!("starting {line}"))?;
    drop(command); // it holds our ends of the pipe, which must close for the reader to end
    let watchdog = limit.map(|limit| Watchdog::start(child.id(), limit));
    let text = read_lines(BufReader::new(reader), show)?;
    let status = child.wait().with_context(|| format!("waiting for {line}"))?;
    let timed_out = watchdog.is_some_and(Watchdog::stop);
    if matches!(show, Show::OnFailure | Show::Picked(_)) && !status.success() {
        println!("$ {line}\n{text}");
    }
    Ok(Output { status, text, timed_out })
}

/// Reads to the end; bytes that are no UTF-8 are replaced.
fn read_lines(mut reader: impl BufRead, show: Show) -> Result<String> {
    let mut text = String::new();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).context("reading a command's output")? > 0 {
        let decoded = String::from_utf8_lossy(&line);
        let echo = match show {
            Show::Live => true,
            Show::Picked(pick) => pick(&decoded),
            Show::OnFailure | Show::Never => false,
        };
        if echo {
            print!("{decoded}");
        }
        text.push_str(&decoded);
        line.clear();
    }
    Ok(text)
}

/// A command as one would type it, with its directory left out.
fn describe(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default();
    let mut line = name.to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// How long a command that was told to end may take to end what it has started.
const GRACE: Duration = Duration::from_secs(15);

/// A thread that ends a process group when its time is over: first by SIGTERM, for nextest puts
/// each test into a group of its own and only it can end them, then by SIGKILL.
struct Watchdog {
    finished: mpsc::Sender<()>,
    thread: thread::JoinHandle<bool>,
}

impl Watchdog {
    fn start(group: u32, limit: Duration) -> Self {
        let (finished, waiting) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut wait = limit;
            for signal in ["-TERM", "-KILL"] {
                if waiting.recv_timeout(wait) != Err(mpsc::RecvTimeoutError::Timeout) {
                    return signal == "-KILL"; // it has ended, by itself or by the first signal
                }
                let group = format!("-{group}");
                // The group may be gone already; then there is nothing left to end.
                let _ = Command::new("kill").args([signal, "--", &group]).status();
                wait = GRACE;
            }
            true
        });
        Self { finished, thread }
    }

    /// Whether it had to act.
    fn stop(self) -> bool {
        drop(self.finished);
        self.thread.join().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn both_streams_are_captured() {
        let output = run(shell("echo out; echo err >&2; exit 3"), Show::Never).unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(output.text, "out\nerr\n");
        assert!(!output.timed_out);
    }

    /// The grandchild holds the pipe: only ending the group lets the reader finish.
    #[test]
    fn a_limit_ends_the_whole_group() {
        let limit = Some(Duration::from_millis(200));
        let output = run_within(shell("sleep 1000 & sleep 1000"), Show::Never, limit).unwrap();
        assert!(output.timed_out && !output.status.success());
    }

    #[test]
    fn a_command_may_end_what_it_has_started() {
        let script = "trap 'echo told; exit 1' TERM; while :; do sleep 0.05; done";
        let output = run_within(shell(script), Show::Never, Some(Duration::from_millis(200)));
        let output = output.unwrap();
        assert!(output.timed_out);
        assert!(output.text.ends_with("told\n"), "{}", output.text);
    }

    #[test]
    fn a_command_that_is_not_there_is_an_error() {
        let error = run(Command::new("tierce-no-such-tool"), Show::Never).unwrap_err();
        assert!(error.to_string().contains("tierce-no-such-tool"), "{error}");
    }
}
