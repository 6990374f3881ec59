//! Ending a command together with everything it has started.
//!
//! A signal to the process group misses what has left it (`setsid`, job control), and a look at the tree what has lost its
//! parent (double forks). So a command bears a [mark](crate::sys::mark) that it hands on, and its family are those that
//! bear it and all that descend from them. Where more than the command itself is left, they are stopped first, which
//! keeps them from forking on, until no new ones appear, and then all are killed. Each is signalled through a pidfd that
//! was opened before its mark or its parentage was checked, so that a pid given to a stranger meanwhile is never hit.

use crate::sys::mark::{Kin, Table};
use crate::sys::{keeper, pidfd};
use log::{debug, warn};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::collections::HashSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

/// How often a family is searched for new members before it is killed as it was found. Stopped processes do not fork, so
/// that the second search normally finds nothing new; a fork bomb takes some more.
const SEARCHES: usize = 64;

/// Whether orphans become children of this process.
static ADOPTS: AtomicBool = AtomicBool::new(false);

/// The process that waits for the end of this one: 0 if there is none yet, -1 while it is started or if there can be none.
static KEEPER: AtomicI32 = AtomicI32::new(0);

/// Makes orphaned descendants children of this process instead of init's, so that they are found without a look at all
/// processes, and has a small process started with the first command that kills what commands have left should this one
/// be killed. From then on the main thread must call [`reap_orphans`] at each SIGCHLD.
///
/// # Errors
/// What `prctl(2)` said.
pub fn adopt_orphans() -> std::io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    ADOPTS.store(true, Ordering::Relaxed);
    Ok(())
}

/// Reaps the adopted orphans that have ended. To be called from the main thread: the kernel makes orphans its children,
/// while commands are children of the threads that supervise and reap them.
pub fn reap_orphans() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WNOTHREAD)) {
        let Some(pid) = status.pid() else { break };
        // Somebody has killed it: the next command starts another.
        let _ = KEEPER.compare_exchange(pid.as_raw(), 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Sees to it that what commands leave behind ends with this process however that ends, if it adopts orphans.
pub fn keep() {
    // With process 1 of a namespace everything in it ends.
    let is_needed = ADOPTS.load(Ordering::Relaxed)
        && std::process::id() != 1
        && KEEPER
            .compare_exchange(0, -1, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok();
    if is_needed {
        match keeper::start(Kin::all()) {
            Ok(pid) => KEEPER.store(pid.as_raw(), Ordering::Relaxed),
            Err(e) => warn!("failed to start a keeper: {e}; what commands leave behind may outlive a killed server"),
        }
    }
}

/// Kills a family: a command that was not reaped yet with its process group, and all that it has left anywhere.
pub fn kill(leader: Option<Pid>, kin: Kin) {
    let Ok(table) = Table::open() else {
        // Nobody can be found then.
        if let Some(leader) = leader {
            let _ = killpg(leader, Signal::SIGKILL);
        }
        return;
    };
    let leader_pid = leader.map(Pid::as_raw);
    if let Some(leader) = leader {
        let others = marked(&table, kin).into_iter().any(|pid| Some(pid) != leader_pid);
        if !others && children(leader.as_raw()).is_empty() {
            let _ = killpg(leader, Signal::SIGKILL);
            return;
        }
        let _ = killpg(leader, Signal::SIGSTOP);
    }
    let refused = stop_and_kill(&table, kin, &|found| {
        if let Some(leader) = leader_pid {
            found.add_descendants(leader);
        }
        // After the tree, because who loses its parent goes from there to here.
        for pid in marked(&table, kin) {
            if Some(pid) != leader_pid {
                found.add(pid, 0);
                found.add_descendants(pid);
            }
        }
    });
    if let Some(leader) = leader {
        let _ = killpg(leader, Signal::SIGKILL);
    }
    tell_survivors(&refused);
}

/// Sends SIGTERM to what a command that was reaped has left.
pub fn ask_to_end(kin: Kin) {
    if let Ok(table) = Table::open() {
        for pid in marked(&table, kin) {
            signal_member(&table, kin, (pid, 0), Signal::SIGTERM);
        }
    }
}

/// Waits until nothing is left of a command that was reaped, at most so long.
pub fn wait(kin: Kin, limit: Duration) {
    let start = Instant::now();
    while let Some(left) = limit.checked_sub(start.elapsed())
        && let Some(member) = living(kin)
    {
        let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let _ = poll(&mut [PollFd::new(member.as_fd(), PollFlags::POLLIN)], left);
    }
}

/// One that lives of what a command that was reaped has left; a pidfd says when it has ended.
pub fn living(kin: Kin) -> Option<OwnedFd> {
    let table = Table::open().ok()?;
    marked(&table, kin).into_iter().find_map(|pid| {
        let member = patiently(|| pidfd::open(Pid::from_raw(pid))).ok()?;
        let has_ended = poll(&mut [PollFd::new(member.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(1);
        (!has_ended && table.is_of(pid, kin)).then_some(member)
    })
}

/// Kills all descendants of this process; for its own end.
pub fn kill_descendants() {
    let keeper = KEEPER.swap(-1, Ordering::Relaxed);
    if let Ok(table) = Table::open() {
        // Another time for those that were just being started.
        for _ in 0..2 {
            let refused = stop_and_kill(&table, Kin::all(), &|found| {
                found.known.insert(keeper);
                found.add_descendants(Pid::this().as_raw());
            });
            tell_survivors(&refused);
        }
    }
    if keeper > 0 {
        signal_child(keeper, Pid::this().as_raw(), Signal::SIGKILL);
    }
}

fn tell_survivors(pids: &[i32]) {
    if !pids.is_empty() {
        warn!("what a command has started may not be killed and lives on: processes {pids:?}");
    }
}

/// Stops all that `find` finds until it finds nobody new, and kills them. Returns who cannot be signalled.
fn stop_and_kill(table: &Table, kin: Kin, find: &dyn Fn(&mut Found)) -> Vec<i32> {
    let mut found = Found::default();
    for _ in 0..SEARCHES {
        let before = found.members.len();
        find(&mut found);
        if found.members.len() == before {
            break;
        }
        for member in &found.members[before..] {
            signal_member(table, kin, *member, Signal::SIGSTOP);
        }
    }
    if !found.members.is_empty() {
        debug!("killing {} processes that a command has started", found.members.len());
    }
    // Children before their parents, whose end would change their parentage.
    let mut refused = found.members;
    refused.reverse();
    refused.retain(|member| signal_member(table, kin, *member, Signal::SIGKILL));
    refused.into_iter().map(|(pid, _)| pid).collect()
}

/// Processes that were found, each with its parent.
#[derive(Default)]
struct Found {
    known: HashSet<i32>,
    members: Vec<(i32, i32)>,
}

impl Found {
    fn add(&mut self, pid: i32, parent: i32) {
        if self.known.insert(pid) {
            self.members.push((pid, parent));
        }
    }

    fn add_descendants(&mut self, pid: i32) {
        let mut todo = vec![pid];
        let mut visited = HashSet::new();
        while let Some(parent) = todo.pop() {
            // What was excluded from the beginning is left alone with all it has.
            if !visited.insert(parent) {
                continue;
            }
            for child in children(parent) {
                todo.push(child);
                self.add(child, parent);
            }
        }
    }
}

/// Tries again for a while what has failed for want of something, such as descriptors, that may be there again: who is not
/// found is not ended.
fn patiently<T>(attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..20 {
        match attempt() {
            Err(e)
                if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
                    && e.raw_os_error() != Some(Errno::ESRCH as i32) =>
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            done => return done,
        }
    }
    attempt()
}

/// Who bears such a mark, of those that are looked at: where orphans are adopted, they are all there is to be found without
/// a parent that is known; elsewhere all processes.
fn marked(table: &Table, kin: Kin) -> Vec<i32> {
    let mut found = Vec::new();
    let main = Pid::this().as_raw();
    match ADOPTS.load(Ordering::Relaxed).then(|| children_of_thread(main, main)) {
        Some(Ok(orphans)) => found.extend(orphans.into_iter().filter(|pid| table.is_of(*pid, kin))),
        _ => table.each(&mut |pid| found.extend(table.is_of(pid, kin).then_some(pid))),
    }
    found
}

/// The living and dead children of a process, over all its threads.
fn children(pid: i32) -> Vec<i32> {
    let Ok(tasks) = patiently(|| fs::read_dir(format!("/proc/{pid}/task"))) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for task in tasks.flatten() {
        let thread = task.file_name().to_str().and_then(|name| name.parse().ok());
        match children_of_thread(pid, thread.unwrap_or(pid)) {
            Ok(children) => found.extend(children),
            // A kernel without CONFIG_PROC_CHILDREN: the slow way, once for all threads.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && task.path().exists() => return slow_children(pid),
            Err(_) => {}
        }
    }
    found
}

fn children_of_thread(pid: i32, thread: i32) -> std::io::Result<Vec<i32>> {
    let list = patiently(|| fs::read_to_string(format!("/proc/{pid}/task/{thread}/children")))?;
    Ok(list
        .split_ascii_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect())
}

fn slow_children(parent: i32) -> Vec<i32> {
    let mut found = Vec::new();
    if let Ok(table) = Table::open() {
        table.each(&mut |pid| {
            found.extend((self::parent(pid) == Some(parent)).then_some(pid));
        });
    }
    found
}

/// Sends a signal to a process that bears the mark, or is a child of that parent still. Whether it may not be sent one.
fn signal_member(table: &Table, kin: Kin, (pid, parent): (i32, i32), signal: Signal) -> bool {
    let Ok(fd) = patiently(|| pidfd::open(Pid::from_raw(pid))) else {
        return false;
    };
    let is_meant = table.is_of(pid, kin) || self::parent(pid) == Some(parent);
    is_meant
        && pidfd::send_signal(fd.as_fd(), signal as i32)
            .is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
}

fn signal_child(pid: i32, parent: i32, signal: Signal) {
    let Ok(fd) = patiently(|| pidfd::open(Pid::from_raw(pid))) else {
        return;
    };
    if self::parent(pid) == Some(parent) {
        let _ = pidfd::send_signal(fd.as_fd(), signal as i32);
    }
}

/// The parent of a process that exists.
fn parent(pid: i32) -> Option<i32> {
    let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything. Then the state.
    let end = text.iter().rposition(|b| *b == b')')?;
    let mut fields = std::str::from_utf8(&text[end + 1..]).ok()?.split_ascii_whitespace();
    fields.nth(1)?.parse().ok()
}

/// Sends `signal` to a group of processes; a group that is gone is no error.
pub fn signal_group(group: Pid, signal: Signal) -> nix::Result<()> {
    match killpg(group, signal) {
        Err(nix::errno::Errno::ESRCH) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command, Stdio};

    fn command(script: &str) -> (Child, i32) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        (child, line.trim().parse().unwrap())
    }

    fn is_gone(pid: i32) -> bool {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            return true;
        };
        stat.rsplit(')').next().unwrap().starts_with(" Z")
    }

    #[test]
    fn a_family_ends_with_those_in_sessions_of_their_own() {
        let (mut leader, child) = command("setsid sh -c 'echo $$; exec sleep 1000' & wait");
        let pid = leader.id() as i32;
        assert_eq!(children(pid), [child]);
        assert_eq!(parent(child), Some(pid));
        kill(Some(Pid::from_raw(pid)), Kin::group());
        assert_eq!(leader.wait().unwrap().signal(), Some(9));
        while !is_gone(child) {
            std::thread::park_timeout(std::time::Duration::from_millis(1));
        }
    }

    #[test]
    fn a_child_that_is_anothers_by_now_is_not_hit() {
        let (mut leader, pid) = command("echo $$; exec sleep 1000");
        signal_child(pid, 1, Signal::SIGKILL);
        assert!(!is_gone(pid));
        signal_child(pid, Pid::this().as_raw(), Signal::SIGKILL);
        assert_eq!(leader.wait().unwrap().signal(), Some(9));
        assert!(parent(pid).is_none());
        assert_eq!(signal_group(Pid::from_raw(pid), Signal::SIGINT), Ok(()));
    }

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_rest() {
        let directory = std::env::temp_dir().join(format!("family-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let name = directory.join("a) R 1 (b");
        let _ = fs::remove_file(&name);
        std::os::unix::fs::symlink("/bin/sleep", &name).unwrap();
        let mut child = Command::new(&name).arg("1000").spawn().unwrap();
        assert_eq!(parent(child.id() as i32), Some(Pid::this().as_raw()));
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_dir_all(&directory).unwrap();
    }
}
