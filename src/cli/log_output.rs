//! Log lines on standard error.

use exec_server::protocol::message::write_json_string;
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// Where a client logs what a server that it has started writes to standard error.
const SERVER_COMMAND: &str = "exec_server::client::server_command";

/// The terminal is raw: a line begins where the one before has ended, unless it is told otherwise.
static IS_RAW: AtomicBool = AtomicBool::new(false);

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// A text for people.
    Text,
    /// A JSON object with the text, and apart from it whom it is about.
    Json,
}

struct StandardError {
    level: LevelFilter,
    format: LogFormat,
}

/// Sends log records up to `level` to standard error, a line each, and in any case what a server says that was started
/// for a client: that may be ssh, which says why there is no server.
pub(crate) fn install(level: LevelFilter, format: LogFormat) {
    static LOGGER: OnceLock<StandardError> = OnceLock::new();
    // It can only fail when there is a logger already.
    if log::set_logger(LOGGER.get_or_init(|| StandardError { level, format })).is_ok() {
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
            let mut line = match self.format {
                LogFormat::Text => text(record),
                LogFormat::Json => json(record, SystemTime::now()),
            };
            let end: &[u8] = if IS_RAW.load(Ordering::Relaxed) { b"\r\n" } else { b"\n" };
            line.extend_from_slice(end);
            // In one write, so that lines of several threads do not mix; nobody is left to be told if it fails.
            let _ = std::io::stderr().write_all(&line);
        }
    }

    fn flush(&self) {}
}

fn text(record: &Record<'_>) -> Vec<u8> {
    let level = record.level().as_str().to_ascii_lowercase();
    let mut line = format!("exec-server: {level}: {}", record.args()).into_bytes();
    // Names and errors may have anything in them; what another server says is for a terminal.
    if record.target() != SERVER_COMMAND {
        for byte in &mut line {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
    }
    line
}

fn json(record: &Record<'_>, now: SystemTime) -> Vec<u8> {
    let mut line = Fields(Vec::with_capacity(256));
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    line.text("ts", &timestamp(since));
    line.text("level", &record.level().as_str().to_ascii_lowercase());
    line.text("message", &record.args().to_string());
    // It says nothing else than that it has failed, which this cannot.
    let _ = record.key_values().visit(&mut line);
    line.0.push(b'}');
    line.0
}

/// A JSON object without its end.
struct Fields(Vec<u8>);

impl Fields {
    fn name(&mut self, name: &str) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        write_json_string(&mut self.0, name);
        self.0.push(b':');
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        write_json_string(&mut self.0, text);
    }
}

impl<'a> VisitSource<'a> for Fields {
    fn visit_pair(&mut self, key: Key<'a>, value: Value<'a>) -> Result<(), Error> {
        match value.to_i64() {
            Some(number) => {
                self.name(key.as_str());
                self.0.extend_from_slice(number.to_string().as_bytes());
            }
            None => self.text(key.as_str(), &value.to_string()),
        }
        Ok(())
    }
}

/// A time since the beginning of 1970 as RFC 3339 has it, to the millisecond, in UTC.
fn timestamp(since: Duration) -> String {
    let seconds = since.as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from a 1st of March, so that a leap day is the last of its year, in eras of 400 years of 146 097
    // days. From there to 1970 it is 719 468 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_001, "2024-02-29T23:59:59.001Z"),
            (1_798_761_599_000, "2026-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(timestamp(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn a_record_is_one_line_whatever_is_in_it() {
        let values = [("conn", Value::from(7u64)), ("process", Value::from("a \"b\"\n"))];
        let args = format_args!("it failed:\n{}", "twice");
        let mut builder = Record::builder();
        let record = builder.level(Level::Warn).key_values(&values).args(args).build();
        assert_eq!(
            String::from_utf8(json(&record, SystemTime::UNIX_EPOCH)).unwrap(),
            r#"{"ts":"1970-01-01T00:00:00.000Z","level":"warn","message":"it failed:\ntwice","conn":7,"process":"a \"b\"\n"}"#
        );
        assert_eq!(text(&record), b"exec-server: warn: it failed: twice");
    }
}
