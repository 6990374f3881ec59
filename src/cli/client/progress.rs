//! How far a copy is, shown on a terminal.

use super::lock;
use super::output::write_all;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How often it is drawn, so that it can be read.
const INTERVAL: Duration = Duration::from_millis(100);

/// The width of the bar in characters.
const BAR: usize = 30;

/// How much of one file is copied. Shown on standard error, if that is a terminal, once it takes long enough.
pub(super) struct Progress {
    name: String,
    /// The size of the file; 0 if unknown.
    total: u64,
    done: AtomicU64,
    /// When it was drawn last; `None` if it is not to be shown.
    drawn: Option<Mutex<Drawn>>,
}

struct Drawn {
    at: Instant,
    /// Something stands on the line.
    is_there: bool,
}

impl Progress {
    /// Before the first byte.
    pub(super) fn new(path: &Path, total: u64) -> Progress {
        let name = path.file_name().unwrap_or(path.as_os_str());
        let drawn = Drawn {
            at: Instant::now(),
            is_there: false,
        };
        Progress {
            name: name.to_string_lossy().escape_debug().to_string(),
            total,
            done: AtomicU64::new(0),
            drawn: io::stderr().is_terminal().then(|| Mutex::new(drawn)),
        }
    }

    /// So many bytes more.
    pub(super) fn add(&self, bytes: usize) {
        let done = self.done.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        let Some(drawn) = &self.drawn else { return };
        {
            let mut drawn = lock(drawn);
            if drawn.at.elapsed() < INTERVAL {
                return;
            }
            drawn.at = Instant::now();
            drawn.is_there = true;
        }
        self.draw(done, "");
    }

    fn draw(&self, done: u64, end: &str) {
        let share = (done.min(self.total) * 100).checked_div(self.total).unwrap_or(0);
        let mut bar = "#".repeat(share as usize * BAR / 100);
        bar.extend(std::iter::repeat_n(' ', BAR - bar.len()));
        let line = format!("\r[{bar}] {share:>3}% {} KiB  {}\x1b[K{end}", done / 1024, self.name);
        // It is only for show.
        let _ = write_all(io::stderr().as_fd(), line.as_bytes());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        let is_there = self.drawn.as_ref().is_some_and(|drawn| lock(drawn).is_there);
        if is_there {
            self.draw(self.done.load(Ordering::Relaxed), "\n");
        }
    }
}
