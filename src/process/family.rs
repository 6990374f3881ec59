//! Ending a command together with everything it has started.
//!
//! A signal to the process group misses what has left it (`setsid`, job control). So a command that has descendants is
//! stopped first, which keeps them from forking on, then its descendants are collected and stopped until no new ones
//! appear, and then all are killed. Each is signalled through a pidfd that was opened before its parentage was
//! checked, so that a pid given to a stranger meanwhile is never hit.

use crate::sys::pidfd;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

/// How often a family is searched for new members before it is killed as it was found. Stopped processes do not fork,
/// so that the second search normally finds nothing new.
const SEARCHES: usize = 8;

/// Makes orphaned descendants children of this process instead of init's, so that they can still be found and ended.
/// From then on the main thread must call [`reap_orphans`] at each SIGCHLD.
///
/// # Errors
/// What `prctl(2)` said.
pub fn adopt_orphans() -> std::io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Reaps the adopted orphans that have ended. To be called from the main thread: the kernel makes orphans its children,
/// while commands are children of the threads that supervise and reap them.
pub fn reap_orphans() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WNOTHREAD)) {
        if status.pid().is_none() {
            break;
        }
    }
}

/// Kills a command that was not reaped yet, its process group, and all its descendants.
pub fn kill_family(leader: Pid) {
    if children(leader.as_raw()).is_empty() {
        let _ = killpg(leader, Signal::SIGKILL);
        return;
    }
    let _ = killpg(leader, Signal::SIGSTOP);
    let mut members = Vec::new();
    let mut known = HashSet::new();
    for _ in 0..SEARCHES {
        let before = members.len();
        descendants(leader.as_raw(), &mut known, &mut members);
        if members.len() == before {
            break;
        }
        for (pid, parent) in &members[before..] {
            signal_child(*pid, *parent, Signal::SIGSTOP);
        }
    }
    for (pid, parent) in members {
        signal_child(pid, parent, Signal::SIGKILL);
    }
    let _ = killpg(leader, Signal::SIGKILL);
}

/// Kills all descendants of this process; for its own end.
pub fn kill_descendants() {
    let me = Pid::this().as_raw();
    let mut known = HashSet::new();
    for _ in 0..SEARCHES {
        let mut members = Vec::new();
        descendants(me, &mut known, &mut members);
        if members.is_empty() {
            return;
        }
        for (pid, parent) in members {
            signal_child(pid, parent, Signal::SIGKILL);
        }
    }
}

/// Which command a leader's pid belongs to now: a pid may be given again once a command and its group are gone.
static LEADERS: LazyLock<Mutex<HashMap<i32, u64>>> = LazyLock::new(Mutex::default);

/// A command's claim to the group and session that bear its pid, valid until another command gets that pid.
pub struct Claim {
    leader: i32,
    serial: u64,
}

impl Claim {
    /// Claims the group of a command that was just started.
    pub fn new(leader: Pid) -> Claim {
        static SERIAL: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        leaders().insert(leader.as_raw(), serial);
        Claim {
            leader: leader.as_raw(),
            serial,
        }
    }

    fn is_valid(&self) -> bool {
        leaders().get(&self.leader) == Some(&self.serial)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut leaders = leaders();
        if leaders.get(&self.leader) == Some(&self.serial) {
            leaders.remove(&self.leader);
        }
        if leaders.is_empty() {
            leaders.shrink_to_fit();
        }
    }
}

fn leaders() -> std::sync::MutexGuard<'static, HashMap<i32, u64>> {
    LEADERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills what commands that were reaped have left in their groups and sessions, and the descendants of that.
///
/// A pid is not given again while a group or session bears it; so if a process with a leader's pid exists, nothing is
/// left of that command.
pub fn kill_remnants<'a>(claims: impl Iterator<Item = &'a Claim>) {
    let leaders: HashSet<i32> = claims.filter(|c| c.is_valid()).map(|c| c.leader).collect();
    if leaders.is_empty() {
        return;
    }
    let all = processes();
    let gone = |leader: i32| leaders.contains(&leader) && !all.contains_key(&leader);
    let me = Pid::this().as_raw();
    let is_ours = |mut pid: i32| {
        for _ in 0..all.len() {
            match all.get(&pid) {
                Some(stat) if stat.parent == me => return true,
                Some(stat) => pid = stat.parent,
                None => return false,
            }
        }
        false
    };
    let mut known = HashSet::new();
    let mut members = Vec::new();
    for (pid, stat) in &all {
        if (gone(stat.group) || gone(stat.session)) && is_ours(*pid) && known.insert(*pid) {
            members.push((*pid, stat.parent));
            descendants(*pid, &mut known, &mut members);
        }
    }
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        for (pid, parent) in &members {
            signal_child(*pid, *parent, signal);
        }
    }
}

/// Appends the descendants of `pid` that are not `known` yet, each with its parent.
fn descendants(pid: i32, known: &mut HashSet<i32>, found: &mut Vec<(i32, i32)>) {
    let mut todo = vec![pid];
    let mut visited = HashSet::new();
    while let Some(parent) = todo.pop() {
        if !visited.insert(parent) {
            continue;
        }
        for child in children(parent) {
            todo.push(child);
            if known.insert(child) {
                found.push((child, parent));
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

/// The living and dead children of a process, over all its threads.
fn children(pid: i32) -> Vec<i32> {
    let Ok(tasks) = patiently(|| fs::read_dir(format!("/proc/{pid}/task"))) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for task in tasks.flatten() {
        match patiently(|| fs::read_to_string(task.path().join("children"))) {
            Ok(list) => found.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok())),
            // A kernel without CONFIG_PROC_CHILDREN: the slow way, once for all threads.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && task.path().exists() => {
                return processes()
                    .iter()
                    .filter(|(_, stat)| stat.parent == pid)
                    .map(|(pid, _)| *pid)
                    .collect();
            }
            Err(_) => {}
        }
    }
    found
}

fn signal_child(pid: i32, parent: i32, signal: Signal) {
    let Ok(fd) = patiently(|| pidfd::open(Pid::from_raw(pid))) else {
        return;
    };
    if Stat::of(pid).is_some_and(|stat| stat.parent == parent) {
        let _ = pidfd::send_signal(fd.as_fd(), signal as i32);
    }
}

#[derive(Clone, Copy)]
struct Stat {
    parent: i32,
    group: i32,
    session: i32,
}

impl Stat {
    /// Of a process that exists.
    fn of(pid: i32) -> Option<Stat> {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        // The name, in parentheses, may hold anything.
        let end = text.iter().rposition(|b| *b == b')')?;
        let mut fields = std::str::from_utf8(&text[end + 1..])
            .ok()?
            .split_ascii_whitespace()
            .skip(1);
        let mut field = || fields.next()?.parse().ok();
        Some(Stat {
            parent: field()?,
            group: field()?,
            session: field()?,
        })
    }
}

fn processes() -> HashMap<i32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return HashMap::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, Stat::of(pid)?))).collect()
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
        let stat = Stat::of(child).unwrap();
        assert_eq!((stat.parent, stat.group, stat.session), (pid, child, child));
        kill_family(Pid::from_raw(pid));
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
        assert!(Stat::of(pid).is_none());
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
        let stat = Stat::of(child.id() as i32).unwrap();
        assert_eq!(stat.parent, Pid::this().as_raw());
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_claim_is_valid_until_another_command_has_the_pid() {
        // A number that no process has.
        let leader = Pid::from_raw(i32::MAX);
        let first = Claim::new(leader);
        assert!(first.is_valid());
        let second = Claim::new(leader);
        assert!(!first.is_valid() && second.is_valid());
        drop(first);
        assert!(second.is_valid());
        drop(second);
        assert!(!leaders().contains_key(&leader.as_raw()));
    }
}
