//! What the system says about a process.

use super::until;
use std::fs;
use std::time::Duration;

/// The fields of `/proc/PID/stat` after the name: state, parent, group, session …
pub(crate) fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// Whether a process exists and is no zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|fields| fields[0] != "Z" && fields[0] != "X")
}

/// How many threads and descriptors a process has.
pub(crate) fn threads_and_fds(pid: i32) -> (usize, usize) {
    let count = |what| fs::read_dir(format!("/proc/{pid}/{what}")).unwrap().count();
    (count("task"), count("fd"))
}

/// Waits until a process writes no more because nobody reads.
pub(crate) fn wait_until_blocked(pid: i32) {
    let mut seen = (0, String::new());
    until("a blocked writer", || {
        let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
        let written = io.lines().find(|line| line.starts_with("wchar")).unwrap();
        seen = if written == seen.1 {
            (seen.0 + 1, seen.1.clone())
        } else {
            (0, written.to_owned())
        };
        let sleeps = stat(pid).unwrap()[0] == "S";
        (sleeps && seen.0 > 50 && seen.1 != "wchar: 0").then_some(())
    });
}

/// All processes.
pub(crate) fn processes() -> Vec<i32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The processes whose parent a process is, zombies included, but for its keeper.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let mut all = processes();
    all.retain(|child| stat(*child).is_some_and(|fields| fields[1] == pid.to_string()) && !is_keeper(*child));
    all
}

/// Those that wait for the end of a server.
pub(crate) fn keepers(server: i32) -> Vec<i32> {
    let mut all = processes();
    all.retain(|child| stat(*child).is_some_and(|fields| fields[1] == server.to_string()) && is_keeper(*child));
    all
}

fn is_keeper(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "exec-keeper\n")
}

/// The processor time that the threads of a process have used.
pub(crate) fn processor_time(pid: i32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let statistics = tasks.filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok());
    let used = statistics.map(|text| text.split(' ').next().unwrap().parse::<u64>().unwrap());
    Duration::from_nanos(used.sum())
}
