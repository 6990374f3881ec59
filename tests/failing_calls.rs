//! Calls of the system that fail one after the other in a server within this program: the first of a kind, the second, …
//! until nothing fails any more while a client does a bit of everything (see `checks/fault_scenario.rs`).
//!
//! The n-th call is tried for some n; for each, and with more errors, with `EXEC_SERVER_FAULTS=all`, which takes many
//! minutes, or for some with their names instead of `all`. The real program is looked at from outside in `fault_matrix.rs`.
#![cfg(all(target_env = "gnu", any(target_arch = "x86_64", target_arch = "aarch64")))]

#[path = "kit/failing_calls.rs"]
mod failing_calls;
#[path = "checks/fault_scenario.rs"]
mod fault_scenario;
mod kit;

use exec_server::server::{Listener, Server, ServerConfig};
use exec_server::transport::address::Address;
use exec_server::transport::admission::Admission;
use exec_server::transport::auth::Authorizer;
use failing_calls::{CALLS, NUMBERED, exempt_this_thread, fail, shorten, stop};
use fault_scenario::{ALL, Footprint, Part, Round, Socket, leftover, round};
use kit::{DEADLINE, Dir, until};
use nix::errno::Errno;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a call may say, the first in any case and the others if all is to be tried.
fn errors(call: &str) -> &'static [Errno] {
    use Errno::{EAGAIN, EINTR, EIO, EMFILE, ENFILE, ENOMEM, ENOSPC, EPERM};
    match call {
        "accept4" | "dup" | "epoll_create1" | "eventfd" | "inotify_init1" | "open64" | "openat" | "openat2"
        | "opendir" | "pidfd_open" | "pipe2" | "posix_openpt" | "socketpair" => &[EMFILE, ENFILE, ENOMEM],
        "clone" | "pthread_create" => &[EAGAIN],
        "copy_file_range" | "ftruncate64" | "mkdirat" | "pwrite64" | "renameat" | "symlinkat" | "inotify_add_watch" => {
            &[ENOSPC, EIO]
        }
        "read" | "recv" | "send" | "write" | "waitpid" | "recvmsg" => &[EINTR, EIO, EAGAIN],
        "poll" | "epoll_wait" | "getrandom" => &[EINTR],
        "setsid" | "setns" => &[EPERM],
        "mmap" | "mprotect" | "madvise" => &[ENOMEM],
        _ => &[EIO],
    }
}

/// Taken by each test: what fails, fails for the whole program.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    exempt_this_thread();
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen() -> SocketAddr {
    let config = ServerConfig {
        session_ttl: Duration::from_secs(2),
        ..ServerConfig::default()
    };
    let any = Address::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
    let listener = Listener::bind(&any, Admission::from(Authorizer::None).into()).unwrap();
    let Address::Tcp(address) = *listener.address() else {
        panic!("not of TCP")
    };
    listener.serve(Server::new(config)).unwrap();
    address
}

/// A bit of everything on one connection, and after it was cut on a second one with the same session.
fn rounds(address: SocketAddr) -> Round {
    let dir = Dir::new();
    let place = dir.path("round");
    let parts: Vec<Part> = ALL.into_iter().chain([Part::Kept]).collect();
    let mut all = Round::default();
    let mut session = None;
    for parts in [&parts[..], &[Part::Resumed]] {
        let mut connected = match Socket::connect(&address.to_string()) {
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

fn footprint() -> Footprint {
    Footprint::of(std::process::id() as i32)
}

/// What is there when nothing goes on.
fn baseline() -> Footprint {
    let mut last = None;
    until("an idle server", || {
        let now = footprint();
        std::thread::park_timeout(Duration::from_millis(20));
        let is_busy = |name: &String| {
            ["dispatcher", "missing-watch", "reader", "supervisor", "writer"]
                .iter()
                .any(|role| name.starts_with(role))
        };
        let is_idle = !now.threads.iter().any(is_busy) && now.children.is_empty() && last.as_ref() == Some(&now);
        last = Some(now);
        last.take_if(|_| is_idle)
    })
}

#[test]
fn each_call_may_fail_once() {
    let _alone = alone();
    let wanted = std::env::var("EXEC_SERVER_FAULTS").unwrap_or_default();
    let address = listen();
    for _ in 0..2 {
        let clean = rounds(address);
        assert!(clean.is_clean(), "without faults: {clean:?}");
    }
    let mut before = baseline();
    let mut wrong = Vec::new();
    for call in CALLS.iter().chain(NUMBERED.iter().map(|(_, name)| name)) {
        let name = call.to_str().unwrap();
        let errors = errors(name);
        let errors = if wanted == "all" { errors } else { &errors[..1] };
        if !(wanted.is_empty() || wanted == "all" || wanted.split(',').any(|wanted| wanted == name)) {
            continue;
        }
        for error in errors {
            let (mut tried, mut refused, mut ended) = (0, 0, 0);
            let mut complaints = Vec::new();
            let mut n = 1;
            loop {
                fail(call, n, *error);
                let round = rounds(address);
                if !stop() {
                    // Nothing has failed any more, so nothing may be amiss.
                    if !round.is_clean() {
                        complaints.push(format!("after {name}: {round:?}"));
                    }
                    break;
                }
                tried += 1;
                refused += usize::from(!round.refused.is_empty());
                ended += usize::from(round.ended.is_some());
                complaints.extend(round.wrong.map(|what| format!("{name} {n} {error}: {what}")));
                for refusal in &round.refused {
                    println!("    {name} {n} {error}: {refusal}");
                }
                if let Some(how) = round.ended {
                    println!("    {name} {n} {error}: ended {how}");
                }
                // A session that was cut off is over after a while.
                let start = Instant::now();
                let mut now = footprint();
                while now != before && start.elapsed() < DEADLINE / 3 {
                    std::thread::park_timeout(Duration::from_millis(2));
                    now = footprint();
                }
                if now != before {
                    complaints.push(format!("{name} {n} {error}: left behind {now:?}, before {before:?}"));
                    before = now;
                }
                n += if wanted == "all" { 1 } else { 4 * n };
            }
            before = baseline();
            println!(
                "{name:18} {error:?} tried {tried:3}, answered with an error {refused:3}, connection ended {ended:3}"
            );
            wrong.extend(complaints);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn reads_and_writes_may_be_short() {
    let _alone = alone();
    let address = listen();
    for at_most in [1000, 13] {
        shorten(at_most);
        let round = rounds(address);
        shorten(usize::MAX);
        assert!(round.is_clean(), "{at_most}: {round:?}");
    }
}
