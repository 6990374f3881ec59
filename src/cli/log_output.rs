//! Log lines on standard error.

use log::{LevelFilter, Log, Metadata, Record};
use std::io::Write;

struct StandardError;

/// Sends log records up to `level` to standard error, a line each.
pub(crate) fn install(level: LevelFilter) {
    static LOGGER: StandardError = StandardError;
    // It can only fail when there is a logger already.
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries have their own idea of what is worth a line, and log the contents of messages.
        metadata.target().starts_with("exec_server")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_ascii_lowercase();
            let line = format!("exec-server: {level}: {}\n", record.args());
            // In one write, so that lines of several threads do not mix; nobody is left to be told if it fails.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}
