//! Calls of the system that fail under the running server: `strace` makes them, and what comes of it is seen from
//! outside.
//!
//! For each call and each error a client does a bit of everything (see `checks/fault_scenario.rs`) while the n-th such
//! call of every thread and every child fails. Each request must be answered, or the connection must end, or the server
//! must end and say why; then, without faults, everything must work again and nothing may be left behind.
//!
//! The test tries a few of them. All, in some minutes, and the table:
//!
//! ```sh
//! EXEC_SERVER_FAULTS=all cargo test --test fault_matrix -- --nocapture
//! ```
//!
//! or those of some calls with their names instead of `all`, with a comma between.

#[path = "checks/fault_scenario.rs"]
mod fault_scenario;
mod kit;

use fault_scenario::{ALL, Footprint, Part, Round, Socket, leftover, round};
use kit::{DEADLINE, Dir, exec_server, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Which calls fail, and with what. What the commands and not the server call is among them too: they are its children.
const MATRIX: &[(&str, &[&str])] = &[
    ("accept4", &["EMFILE", "ENFILE", "ENOMEM", "ECONNABORTED", "EINTR"]),
    ("chdir", &["EIO", "ENOMEM"]),
    ("clone", &["EAGAIN", "ENOMEM"]),
    ("clone3", &["EAGAIN", "ENOMEM"]),
    ("close_range", &["ENOMEM", "ENOSYS"]),
    ("copy_file_range", &["EIO", "ENOSPC", "EINTR", "EXDEV"]),
    ("dup2", &["EMFILE", "EINTR"]),
    ("eventfd2", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("execve", &["ENOMEM", "EIO", "EAGAIN"]),
    ("fchmod", &["EIO"]),
    ("fchown", &["EIO"]),
    ("fcntl", &["EMFILE", "EAGAIN", "EINTR"]),
    ("fstat", &["EIO", "ENOMEM"]),
    ("fsync", &["EIO", "ENOSPC"]),
    ("ftruncate", &["EIO", "EINTR"]),
    ("getdents64", &["EIO", "ENOMEM"]),
    ("getrandom", &["EINTR", "EIO"]),
    ("inotify_add_watch", &["ENOSPC", "ENOMEM"]),
    ("inotify_init1", &["EMFILE", "ENFILE", "ENOMEM"]),
    ("ioctl", &["EIO", "ENOMEM"]),
    ("kill", &["EPERM"]),
    ("lseek", &["EIO"]),
    ("madvise", &["ENOMEM", "EAGAIN"]),
    ("mkdirat", &["EIO", "ENOSPC"]),
    ("mmap", &["ENOMEM"]),
    ("mprotect", &["ENOMEM"]),
    ("munmap", &["ENOMEM"]),
    ("newfstatat", &["EIO", "ENOMEM"]),
    ("openat", &["EMFILE", "ENFILE", "ENOMEM", "EIO", "EINTR"]),
    ("openat2", &["EMFILE", "ENOMEM", "EIO", "EAGAIN", "EINTR"]),
    ("pidfd_open", &["EMFILE", "ENOMEM"]),
    ("pidfd_send_signal", &["EPERM"]),
    ("pipe2", &["EMFILE", "ENFILE"]),
    ("poll", &["EINTR", "ENOMEM"]),
    ("prctl", &["EINVAL"]),
    ("pwrite64", &["EIO", "ENOSPC", "EINTR"]),
    ("pread64", &["EIO", "EINTR"]),
    ("read", &["EIO", "EAGAIN", "EINTR", "ENOMEM"]),
    ("readlink", &["EIO"]),
    ("readlinkat", &["EIO"]),
    ("recvfrom", &["EIO", "EAGAIN", "EINTR", "ENOMEM"]),
    ("recvmsg", &["EIO", "EINTR"]),
    ("renameat", &["EIO", "ENOSPC"]),
    ("renameat2", &["EIO", "ENOSPC"]),
    ("sendto", &["EIO", "EAGAIN", "EINTR", "ENOMEM"]),
    ("setsid", &["EPERM"]),
    ("setsockopt", &["ENOMEM"]),
    ("shutdown", &["ENOTCONN"]),
    ("sigaltstack", &["ENOMEM"]),
    ("statx", &["EIO", "ENOMEM"]),
    ("unlinkat", &["EIO"]),
    ("unshare", &["ENOSPC", "EPERM"]),
    ("wait4", &["EINTR", "ECHILD"]),
    ("write", &["EIO", "ENOSPC", "EAGAIN", "EINTR"]),
];

/// What the test tries unless it is told otherwise.
const SOME: &[(&str, &[&str])] = &[
    ("accept4", &["EMFILE"]),
    ("clone3", &["EAGAIN"]),
    ("mmap", &["ENOMEM"]),
    ("openat", &["EMFILE"]),
    ("read", &["EIO"]),
];

/// What goes wrong and is let pass, and why.
const EXCUSED: &[(&str, &str, &str)] = &[
    (
        "fcntl",
        "(deleted)",
        "asking for the flags of an open descriptor (fdopendir) cannot fail; nix would not close it",
    ),
    (
        "newfstatat",
        "(deleted)",
        "looking at an open descriptor (fdopendir) cannot fail; nix would not close it",
    ),
    (
        "write",
        "says nothing more",
        "waking a supervisor (eventfd) cannot fail but when it is awake",
    ),
    (
        "write",
        "missing-watch",
        "waking a watch to end it (eventfd) cannot fail but when it is awake",
    ),
    (
        "wait4",
        "left behind",
        "there is no ECHILD for a child of our own; it stays as a zombie then",
    ),
    ("pidfd_send_signal", "", "it cannot fail for a sandbox of our own"),
    (
        "kill",
        "",
        "it cannot fail for a command of our own, unless it has become another user's",
    ),
    (
        "getrandom",
        "failed to generate random data",
        "it cannot fail once the kernel has started up; the standard library panics, and the connection ends",
    ),
];

/// Up to which call of a thread or child.
const CALLS: u32 = 4;

/// A server and what it writes to standard error.
struct Server {
    child: Child,
    address: String,
    said: Said,
    baseline: Option<Footprint>,
}

/// What a process has written to standard error until now.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<String>>);

impl Said {
    fn of(stderr: ChildStderr) -> Said {
        let said = Said::default();
        let writing = said.clone();
        std::thread::spawn(move || {
            let mut stderr = BufReader::new(stderr);
            let mut line = Vec::new();
            while matches!(stderr.read_until(b'\n', &mut line), Ok(1..)) {
                writing.0.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        said
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

impl Server {
    fn new() -> Server {
        let mut child = Command::new(exec_server())
            .args(["--listen", "ws://127.0.0.1:0", "--session-ttl", "3"])
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut url).unwrap();
        let said = Said::of(child.stderr.take().unwrap());
        let mut server = Server {
            child,
            address: url.trim_end().trim_start_matches("ws://").to_owned(),
            said,
            baseline: None,
        };
        let clean = server.rounds();
        assert!(clean.is_clean(), "without faults: {clean:?}");
        // What is found out once is known now, and the threads of the first connections are gone.
        let clean = server.rounds();
        assert!(clean.is_clean(), "without faults: {clean:?}");
        let pid = server.pid();
        server.baseline = Some(until("an idle server", || {
            let footprint = Footprint::of(pid);
            let rest = ["exec-server\n", "janitor\n", "listener\n"];
            (footprint.threads == rest && footprint.children.is_empty()).then_some(footprint)
        }));
        server
    }

    fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What a client does on one connection, and after it was cut on a second one with the same session.
    fn rounds(&self) -> Round {
        let dir = Dir::new();
        let place = dir.path("round");
        let parts: Vec<Part> = ALL.into_iter().chain([Part::Kept]).collect();
        let mut all = Round::default();
        let mut session = None;
        for parts in [&parts[..], &[Part::Resumed]] {
            let mut connected = match Socket::connect(&self.address) {
                Ok(connected) => connected,
                Err(e) => {
                    all.ended = Some(format!("at the connection: {e}"));
                    return all;
                }
            };
            let (opened, round) = round(&mut connected, &place, parts, session.as_deref());
            all.refused.extend(round.refused);
            all.ended = round.ended;
            all.wrong = round.wrong.or_else(|| leftover(&place));
            session = opened;
            if !(all.ended.is_none() && all.wrong.is_none() && session.is_some()) {
                break;
            }
        }
        all
    }

    fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `strace` on a process that runs, or as its parent.
struct Tracer {
    child: Child,
    said: Said,
}

impl Tracer {
    fn command(call: &str, error: &str, n: u32) -> Command {
        let mut command = Command::new("strace");
        command.args(["-f", "-e"]).arg(format!("trace={call}"));
        command.arg("-e").arg(format!("inject={call}:error={error}:when={n}"));
        command.stderr(Stdio::piped());
        command
    }

    fn attach(pid: i32, call: &str, error: &str, n: u32) -> Tracer {
        let mut command = Tracer::command(call, error, n);
        let mut child = command.arg("-p").arg(pid.to_string()).spawn().unwrap();
        let said = Said::of(child.stderr.take().unwrap());
        until("a tracer", || said.text().contains(" attached").then_some(()));
        Tracer { child, said }
    }

    /// Lets go, and returns how many calls have failed.
    fn detach(mut self) -> usize {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        until("the end of a tracer", || self.child.try_wait().unwrap());
        self.said.text().matches("(INJECTED)").count()
    }
}

/// Whether calls can be made to fail here; says so if not.
fn is_possible() -> bool {
    let mut command = Tracer::command("getpid", "EPERM", 1);
    let output = command.arg("true").output();
    let possible = output.is_ok_and(|output| output.status.success());
    if !possible {
        println!("not tested: strace is not there or may not trace");
    }
    possible
}

/// What has become of one call and error.
#[derive(Default)]
struct Verdict {
    failed_calls: usize,
    outcomes: BTreeSet<String>,
    wrong: Vec<String>,
}

/// What is asked for to be tried.
fn wanted() -> Vec<(&'static str, &'static [&'static str])> {
    match std::env::var("EXEC_SERVER_FAULTS") {
        Err(_) => SOME.to_vec(),
        Ok(all) if all == "all" => MATRIX.to_vec(),
        Ok(names) => {
            let is_named = |call: &str| names.split(',').any(|name| name == call);
            MATRIX.iter().filter(|(call, _)| is_named(call)).copied().collect()
        }
    }
}

#[test]
fn a_server_that_runs_survives_calls_that_fail() {
    if !is_possible() {
        return;
    }
    let (mut table, mut wrong) = (String::new(), Vec::new());
    let mut server = Server::new();
    for (call, errors) in wanted() {
        for error in errors {
            let verdict = attempt(&mut server, call, error);
            let outcomes: Vec<String> = verdict.outcomes.into_iter().collect();
            let line = format!(
                "{call:18} {error:13} {:4}  {}",
                verdict.failed_calls,
                outcomes.join("; ")
            );
            println!("{line}");
            writeln!(table, "{line}").unwrap();
            for what in verdict.wrong {
                println!("    WRONG: {what}");
                wrong.push(format!("{call} {error}: {what}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn attempt(server: &mut Server, call: &str, error: &str) -> Verdict {
    let (mut verdict, mut complaints) = (Verdict::default(), Vec::new());
    for n in 1..=CALLS {
        let said_before = server.said.text().len();
        let tracer = Tracer::attach(server.pid(), call, error, n);
        let round = server.rounds();
        let failed = tracer.detach();
        if failed == 0 {
            break;
        }
        verdict.failed_calls += failed;
        let mut complain = |what: String| complaints.push(format!("at call {n}: {what}"));
        for refused in &round.refused {
            verdict.outcomes.insert("answered".into());
            println!("    {call} {error} {n}: {refused}");
        }
        if let Some(how) = &round.ended {
            verdict.outcomes.insert("connection ended".into());
            println!("    {call} {error} {n}: connection ended {how}");
        }
        if round.is_clean() {
            verdict.outcomes.insert("no effect".into());
        }
        if let Some(what) = round.wrong {
            complain(what);
        }
        let said = server.said.text()[said_before..].to_owned();
        for line in said.lines() {
            println!("    {call} {error} {n}: said {line}");
        }
        if said.contains("panicked") {
            complain(format!("a panic: {said}"));
        }
        if let Some(status) = server.has_ended() {
            verdict.outcomes.insert("server ended".into());
            if status.signal().is_some() || said.is_empty() {
                complain(format!("the server ended with {status} and said {said:?}"));
            } else {
                println!("    {call} {error} {n}: server ended with {status}");
            }
            *server = Server::new();
            continue;
        }
        // A session that was cut off is over after a while.
        let start = Instant::now();
        let mut footprint = Footprint::of(server.pid());
        while server.baseline.as_ref() != Some(&footprint) && start.elapsed() < DEADLINE / 3 {
            std::thread::park_timeout(Duration::from_millis(5));
            footprint = Footprint::of(server.pid());
        }
        if server.baseline.as_ref() != Some(&footprint) {
            let before = server.baseline.take();
            complain(format!("left behind: {footprint:?}, before {before:?}"));
            *server = Server::new();
            continue;
        }
        let after = server.rounds();
        if !after.is_clean() {
            complain(format!("and after that: {after:?}"));
            *server = Server::new();
        }
    }
    for what in complaints {
        let excuse = EXCUSED
            .iter()
            .find(|(excused, text, _)| *excused == call && what.contains(text));
        match excuse {
            Some((.., why)) => drop(verdict.outcomes.insert(format!("excused: {why}"))),
            None => verdict.wrong.push(what),
        }
    }
    verdict
}
