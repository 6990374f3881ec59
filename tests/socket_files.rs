//! Socket files: made for nobody else, replaced only when dead, and removed at the end.

#![allow(unsafe_code)]

mod kit;

use kit::{Cli, Client, Dir, Server, cli, command};
use nix::libc;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

fn url(path: &Path) -> String {
    format!("unix://{}", path.display())
}

fn serve(path: &Path) -> Server {
    Server::on_port(command(&["--listen", &url(path)]))
}

fn answers(path: &Path) {
    let mut client = Client::of_lines(&url(path));
    client.handshake();
    assert_eq!(client.call("environment/status", Value::Null)["status"], "ready");
}

fn names(dir: &Dir) -> Vec<String> {
    let all = fs::read_dir(dir.path("")).unwrap();
    all.map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// A server whose files may be anybody's.
fn with_umask(umask: &str, arguments: &[&str]) -> Command {
    let mut sh = Command::new("/bin/sh");
    let script = format!("umask {umask}; exec \"$0\" \"$@\"");
    sh.args(["-c", &script, kit::PROGRAM]).args(arguments);
    sh
}

#[test]
fn it_is_nobody_else_s_from_its_first_moment() {
    let dir = Dir::new();
    let path = dir.path("s");
    let is_over = AtomicBool::new(false);
    let modes = thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut modes = BTreeSet::new();
            while !is_over.load(Ordering::Relaxed) {
                modes.extend(fs::symlink_metadata(&path).map(|found| found.mode() & 0o7777));
            }
            modes
        });
        for umask in ["000", "022", "077", "777"] {
            drop(Server::on_port(with_umask(umask, &["--listen", &url(&path)])));
        }
        let server = Server::on_port(with_umask("000", &["--listen", &url(&path)]));
        assert_eq!(fs::symlink_metadata(&path).unwrap().mode(), libc::S_IFSOCK | 0o600);
        answers(&path);
        drop(server);
        is_over.store(true, Ordering::Relaxed);
        watching.join().unwrap()
    });
    // Less than that only where the umask takes it away, for a moment.
    assert!(modes.contains(&0o600), "{modes:?}");
    assert!(modes.iter().all(|mode| mode & !0o600 == 0), "{modes:?}");
}

#[test]
fn a_dead_one_is_replaced_and_a_live_one_is_not() {
    let dir = Dir::new();
    let path = dir.path("s");
    let mut server = serve(&path);
    server.signal(Signal::SIGKILL);
    server.wait();
    assert!(path.exists());
    let mut server = serve(&path);
    answers(&path);
    let inode = || fs::symlink_metadata(&path).unwrap().ino();
    let before = inode();
    let other = cli(&["--listen", &url(&path)]);
    assert_eq!((other.code, other.text()), (1, ""));
    let says = format!(
        "failed to listen on {}: a server is already listening there",
        url(&path)
    );
    assert!(other.stderr.contains(&says), "{}", other.stderr);
    assert_eq!(inode(), before);
    answers(&path);
    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
    assert!(names(&dir).is_empty());
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let dir = Dir::new();
    let path = dir.path("s");
    let refused = || {
        let ended = cli(&["--listen", &url(&path)]);
        assert_eq!(ended.code, 1);
        assert!(
            ended.stderr.contains("there is something else, which is no socket"),
            "{}",
            ended.stderr
        );
    };
    fs::write(&path, "precious").unwrap();
    refused();
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    fs::remove_file(&path).unwrap();
    symlink("elsewhere", &path).unwrap();
    refused();
    assert_eq!(names(&dir), ["s"]);
}

#[test]
fn of_many_at_once_exactly_one_wins() {
    let dir = Dir::new();
    let path = dir.path("s");
    for round in 0..6 {
        if round % 2 == 1 {
            drop(UnixListener::bind(&path).unwrap());
        }
        let servers: Vec<Cli> = (0..6).map(|_| Cli::start(&["--listen", &url(&path)])).collect();
        let mut winner = None;
        // Who has lost ends; so the one that is left has won.
        let mut ended = Vec::new();
        for server in servers {
            let told = server.output_or_end();
            if told.is_empty() {
                ended.push(server.finish());
            } else {
                assert!(winner.replace(server).is_none(), "two have won");
            }
        }
        let winner = winner.expect("one has won");
        for ended in ended {
            assert!(
                ended.code == 1 && ended.stderr.contains("already listening there"),
                "{ended:?}"
            );
        }
        answers(&path);
        assert_eq!(names(&dir), ["s"]);
        winner.signal(Signal::SIGTERM);
        assert_eq!(winner.finish().code, 0);
        assert!(names(&dir).is_empty());
    }
}

#[test]
fn it_is_removed_at_the_end_only_if_it_is_the_same() {
    let dir = Dir::new();
    let path = dir.path("s");
    let mut server = serve(&path);
    fs::remove_file(&path).unwrap();
    let second = serve(&path);
    server.signal(Signal::SIGTERM);
    assert!(server.wait().success());
    answers(&path);
    drop(second);
    assert!(names(&dir).is_empty());
}

#[test]
fn a_directory_that_others_have_locked_is_not_waited_for_long() {
    let dir = Dir::new();
    let lock = fs::File::open(dir.path("")).unwrap();
    lock.lock().unwrap();
    let ended = cli(&["--listen", &url(&dir.path("s"))]);
    assert_eq!(ended.code, 1);
    assert!(
        ended.stderr.contains("failed to lock its directory"),
        "{}",
        ended.stderr
    );
    assert!(names(&dir).is_empty());
}

/// A user that nobody is.
const STRANGER: u32 = 54_321;

/// What a client gets to know that connects as another user.
fn as_stranger(path: &Path, request: &'static str) -> std::io::Result<String> {
    let path = path.to_owned();
    let connecting = thread::spawn(move || {
        // Of this thread alone, unlike what the C library does.
        // SAFETY: it takes numbers.
        let done = unsafe { libc::syscall(libc::SYS_setresuid, STRANGER, STRANGER, STRANGER) };
        assert_eq!(done, 0);
        let stream = OwnedFd::from(UnixStream::connect(path)?);
        let mut client = std::fs::File::from(stream);
        use std::io::{Read, Write};
        client.write_all(request.as_bytes())?;
        let mut told = vec![0; 4096];
        let n = client.read(&mut told)?;
        told.truncate(n);
        Ok(String::from_utf8(told).unwrap())
    });
    connecting.join().unwrap()
}

const HELLO: &str = "{\"id\":1,\"method\":\"initialize\",\"params\":{\"clientName\":\"test\"}}\n";
const READY: &str = "GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn other_users_are_not_let_in_unless_told() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can be another user");
        return;
    }
    let dir = Dir::new();
    let path = dir.path("s");
    let server = serve(&path);
    assert_eq!(
        as_stranger(&path, HELLO).unwrap_err().kind(),
        std::io::ErrorKind::PermissionDenied
    );
    // The mode is not all that keeps them out.
    fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    let told = as_stranger(&path, HELLO).unwrap();
    assert!(
        told.contains("user 54321 may not connect here") && told.contains("-32600"),
        "{told}"
    );
    let told = as_stranger(&path, READY).unwrap();
    assert!(
        told.starts_with("HTTP/1.1 403") && told.contains("user 54321 may not connect here"),
        "{told}"
    );
    answers(&path);
    drop(server);

    let arguments = ["--listen", &url(&path), "--allow-uid", "54321", "--allow-uid", "7"];
    let _server = Server::on_port(with_umask("077", &arguments));
    assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o7777, 0o666);
    assert!(as_stranger(&path, HELLO).unwrap().contains("sessionId"));
    assert!(as_stranger(&path, READY).unwrap().starts_with("HTTP/1.1 200"));
    answers(&path);
}
