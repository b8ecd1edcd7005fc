//! What a command prints.

use anyhow::Context;
use std::io::{ErrorKind, Write};

/// Prints; somebody who closes the pipe has seen enough.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("stdout"),
        _ => Ok(()),
    }
}
