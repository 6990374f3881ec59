//! What the system says of the server.

use std::collections::HashMap;
use std::fs;

/// What a server holds at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Resident memory, in KiB.
    pub(crate) rss: u64,
    /// That of it which is no file's.
    pub(crate) anonymous: u64,
    pub(crate) threads: u64,
    pub(crate) fds: u64,
    /// Children, dead ones that were not waited for included.
    pub(crate) children: u64,
}

impl Figures {
    pub(crate) fn of(pid: u32) -> Figures {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let value = |name| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok())
                .unwrap_or(0)
        };
        Figures {
            rss: value("VmRSS:"),
            anonymous: value("RssAnon:"),
            threads: value("Threads:"),
            fds: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |fds| fds.count() as u64),
            children: parents().values().filter(|parent| **parent == pid).count() as u64,
        }
    }

    /// Whether all but the memory is the same.
    pub(crate) fn holds_as_much_as(&self, other: &Figures) -> bool {
        (self.threads, self.fds, self.children) == (other.threads, other.fds, other.children)
    }

    /// The most of each.
    pub(crate) fn max(self, other: Figures) -> Figures {
        Figures {
            rss: self.rss.max(other.rss),
            anonymous: self.anonymous.max(other.anonymous),
            threads: self.threads.max(other.threads),
            fds: self.fds.max(other.fds),
            children: self.children.max(other.children),
        }
    }
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The parent of each process there is.
fn parents() -> HashMap<u32, u32> {
    let parent = |pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    pids().filter_map(|pid| Some((pid, parent(pid)?))).collect()
}

/// The processes that have a variable in their environment.
pub(crate) fn marked(variable: &str) -> Vec<u32> {
    let has = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|v| v == variable.as_bytes())
    };
    pids().filter(has).collect()
}
