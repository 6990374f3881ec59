//! Log lines on standard error.

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Where a client logs what a server that it has started writes to standard error.
const SERVER_COMMAND: &str = "exec_server::client::server_command";

/// The terminal is raw: a line begins where the one before has ended, unless it is told otherwise.
static IS_RAW: AtomicBool = AtomicBool::new(false);

struct StandardError {
    level: LevelFilter,
}

/// Sends log records up to `level` to standard error, a line each, and in any case what a server says that was started
/// for a client: that may be ssh, which says why there is no server.
pub(crate) fn install(level: LevelFilter) {
    static LOGGER: OnceLock<StandardError> = OnceLock::new();
    // It can only fail when there is a logger already.
    if log::set_logger(LOGGER.get_or_init(|| StandardError { level })).is_ok() {
        log::set_max_level(level.max(LevelFilter::Info));
    }
}

/// Says whether the terminal is raw.
#[cfg(feature = "client")]
pub(super) fn set_raw(is_raw: bool) {
    IS_RAW.store(is_raw, Ordering::Relaxed);
}

impl Log for StandardError {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Libraries have their own idea of what is worth a line, and log the contents of messages.
        let target = metadata.target();
        let is_servers = metadata.level() == Level::Info && target == SERVER_COMMAND;
        is_servers || (metadata.level() <= self.level && target.starts_with("exec_server"))
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_ascii_lowercase();
            let end = if IS_RAW.load(Ordering::Relaxed) { "\r\n" } else { "\n" };
            let line = format!("exec-server: {level}: {}{end}", record.args());
            // In one write, so that lines of several threads do not mix; nobody is left to be told if it fails.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}
