//! What libraries have to say goes to standard error, one line each.

use log::{LevelFilter, Log, Metadata, Record};

struct ToStderr;

impl Log for ToStderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tierce")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("tierce: {}", record.args());
        }
    }

    fn flush(&self) {}
}

/// From now on warnings are shown.
pub(crate) fn start() {
    // Only a second call could fail, and there is none.
    if log::set_logger(&ToStderr).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}
