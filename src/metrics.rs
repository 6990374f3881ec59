//! What is counted of all servers in this program, and how Prometheus reads it.
//!
//! Counting is one relaxed addition for a message, a read or a write, never for a byte, and it is done whether anybody
//! asks or not. Times are only taken once somebody has asked for that.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What only grows.
#[derive(Clone, Copy)]
pub(crate) enum Count {
    Connections,
    Sessions,
    Resumptions,
    Requests,
    Started,
    NotStarted,
    Ended,
    OutputBytes,
    EvictedBytes,
    StdinBytes,
    ReceivedBytes,
    SentBytes,
}

/// Their names, and what they are, in the same order.
const COUNTS: [(&str, &str); 12] = [
    ("connections_total", "Connections that were served"),
    ("sessions_total", "Sessions that were opened"),
    ("session_resumptions_total", "Sessions that were taken up again"),
    ("requests_total", "Requests that were received"),
    ("processes_started_total", "Processes that were started"),
    ("process_start_failures_total", "Processes that could not be started"),
    ("processes_ended_total", "Processes that have had their last event"),
    ("output_bytes_total", "Bytes of output that were read from processes"),
    (
        "output_evicted_detached_bytes_total",
        "Bytes of output that were given up for newer ones while no client was attached",
    ),
    ("stdin_bytes_total", "Bytes of input that were written to processes"),
    ("received_bytes_total", "Bytes of messages that were received"),
    (
        "sent_bytes_total",
        "Bytes that were sent to clients, with their framing",
    ),
];

static COUNTED: [AtomicU64; COUNTS.len()] = [const { AtomicU64::new(0) }; COUNTS.len()];

/// The limits whose meeting is counted, by the names of their flags.
const LIMITS: [&str; 18] = [
    "max-connections",
    "max-handshakes",
    "upgrade-timeout",
    "initialize-timeout",
    "silence-limit",
    "max-sessions",
    "max-message-bytes",
    "max-unread-bytes",
    "max-requests",
    "max-long-polls",
    "max-file-calls",
    "max-file-handles",
    "max-file-workers",
    "max-processes",
    "max-running",
    "retain-total-bytes",
    "stdin-hard-bytes",
    "stdin-total-bytes",
];

static LIMITS_MET: [AtomicU64; LIMITS.len()] = [const { AtomicU64::new(0) }; LIMITS.len()];

/// The upper bounds of the buckets of a [`Times`], in microseconds.
const BOUNDS: [u32; 8] = [100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 1_000_000];

/// How long something takes.
pub(crate) struct Times {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

/// From the arrival of a request to its answer, but for reads that wait for events.
pub(crate) static REQUESTS: Times = Times::new();

/// From the arrival of a start to the moment the program runs.
pub(crate) static STARTS: Times = Times::new();

/// Whether times are taken.
static IS_ON: AtomicBool = AtomicBool::new(false);

/// One more of something, or so many.
pub(crate) fn add(count: Count, n: usize) {
    COUNTED[count as usize].fetch_add(n as u64, Ordering::Relaxed);
}

/// The limit with that flag was met.
#[cold]
pub(crate) fn limit_met(flag: &str) {
    let place = LIMITS.iter().position(|limit| *limit == flag);
    debug_assert!(place.is_some(), "{flag}");
    if let Some(place) = place {
        LIMITS_MET[place].fetch_add(1, Ordering::Relaxed);
    }
}

/// Takes times from now on.
pub(crate) fn take_times() {
    IS_ON.store(true, Ordering::Relaxed);
}

/// Now, if times are taken.
pub(crate) fn now() -> Option<Instant> {
    IS_ON.load(Ordering::Relaxed).then(Instant::now)
}

impl Times {
    const fn new() -> Times {
        Times {
            buckets: [const { AtomicU64::new(0) }; BOUNDS.len() + 1],
            sum_us: AtomicU64::new(0),
        }
    }

    /// Something is done that began then.
    pub(crate) fn took(&self, begun: Option<Instant>) {
        if let Some(begun) = begun {
            self.add(begun.elapsed());
        }
    }

    fn add(&self, time: Duration) {
        let us = time.as_micros() as u64;
        let bucket = BOUNDS.partition_point(|bound| u64::from(*bound) < us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }
}

/// Everything that is counted, and these numbers of what there is now, each with its name and what it is, in Prometheus'
/// text format, version 0.0.4.
pub(crate) fn page(gauges: &[(&str, &str, usize)]) -> String {
    let mut page = Page::default();
    page.head("build_info", "gauge", "The version of the server");
    page.line(
        "build_info",
        concat!("{version=\"", env!("CARGO_PKG_VERSION"), "\"}"),
        1,
    );
    for (name, help, number) in gauges {
        page.head(name, "gauge", help);
        page.line(name, "", *number as u64);
    }
    for ((name, help), counted) in COUNTS.iter().zip(&COUNTED) {
        page.head(name, "counter", help);
        page.line(name, "", counted.load(Ordering::Relaxed));
    }
    page.head("limits_met_total", "counter", "How often each limit was met");
    for (limit, met) in LIMITS.iter().zip(&LIMITS_MET) {
        let labels = ["{limit=\"", limit, "\"}"].concat();
        page.line("limits_met_total", &labels, met.load(Ordering::Relaxed));
    }
    let what = "From a request's arrival to its answer, but for reads that wait for events";
    page.times("request_duration_seconds", what, &REQUESTS);
    let what = "From the arrival of a start to the moment the program runs";
    page.times("process_start_duration_seconds", what, &STARTS);
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(
            self.0,
            "# HELP exec_server_{name} {help}.\n# TYPE exec_server_{name} {kind}\n"
        );
    }

    fn line(&mut self, name: &str, labels: &str, number: u64) {
        let _ = writeln!(self.0, "exec_server_{name}{labels} {number}");
    }

    fn times(&mut self, name: &str, help: &str, times: &Times) {
        self.head(name, "histogram", help);
        let bucket = [name, "_bucket"].concat();
        let mut number = 0;
        for (i, counted) in times.buckets.iter().enumerate() {
            number += counted.load(Ordering::Relaxed);
            let bound = BOUNDS.get(i).map_or("+Inf".to_owned(), |us| seconds(u64::from(*us)));
            self.line(&bucket, &["{le=\"", &bound, "\"}"].concat(), number);
        }
        let sum = seconds(times.sum_us.load(Ordering::Relaxed));
        let _ = writeln!(
            self.0,
            "exec_server_{name}_sum {sum}\nexec_server_{name}_count {number}"
        );
    }
}

/// So many microseconds as a number of seconds, without floating point, whose text takes much code.
fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_each_time_in_its_bucket() {
        let times = Times::new();
        for us in [1, 100, 101, 1_000_000, 5_000_001] {
            times.add(Duration::from_micros(us));
        }
        let mut page = Page::default();
        page.times("x_seconds", "X", &times);
        let expected = "\
# HELP exec_server_x_seconds X.
# TYPE exec_server_x_seconds histogram
exec_server_x_seconds_bucket{le=\"0.000100\"} 2
exec_server_x_seconds_bucket{le=\"0.000300\"} 3
exec_server_x_seconds_bucket{le=\"0.001000\"} 3
exec_server_x_seconds_bucket{le=\"0.003000\"} 3
exec_server_x_seconds_bucket{le=\"0.010000\"} 3
exec_server_x_seconds_bucket{le=\"0.030000\"} 3
exec_server_x_seconds_bucket{le=\"0.100000\"} 3
exec_server_x_seconds_bucket{le=\"1.000000\"} 4
exec_server_x_seconds_bucket{le=\"+Inf\"} 5
exec_server_x_seconds_sum 6.000203
exec_server_x_seconds_count 5
";
        assert_eq!(page.0, expected);
    }
}
