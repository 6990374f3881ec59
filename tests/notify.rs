//! What the service manager is told, and what it must not be told.

mod kit;

use kit::{DEADLINE, Dir, Server, command, script, until};
use nix::sys::signal::Signal;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{Command, Stdio};

/// A service manager that hears what it is told.
struct Manager {
    socket: UnixDatagram,
    name: String,
    _dir: Option<Dir>,
}

impl Manager {
    /// One with a socket file.
    fn new() -> Manager {
        let dir = Dir::new();
        let path = dir.path("notify");
        let manager = Manager::at(SocketAddr::from_pathname(&path).unwrap(), path.display().to_string());
        Manager {
            _dir: Some(dir),
            ..manager
        }
    }

    /// One with an abstract name.
    fn without_file() -> Manager {
        let name = format!("exec-server-test-{}", std::process::id());
        Manager::at(SocketAddr::from_abstract_name(&name).unwrap(), format!("@{name}"))
    }

    fn at(address: SocketAddr, name: String) -> Manager {
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Manager {
            socket,
            name,
            _dir: None,
        }
    }

    /// The next thing it is told.
    fn heard(&self) -> String {
        let mut text = [0; 1000];
        let len = self.socket.recv(&mut text).unwrap();
        String::from_utf8(text[..len].to_vec()).unwrap()
    }

    /// Whether it is told something within that time.
    fn hears_within(&self, millis: u64) -> bool {
        let time = std::time::Duration::from_millis(millis);
        self.socket.set_read_timeout(Some(time)).unwrap();
        let heard = self.socket.recv(&mut [0; 1000]).is_ok();
        self.socket.set_read_timeout(Some(DEADLINE)).unwrap();
        heard
    }

    /// A server that it starts.
    fn command(&self, arguments: &[&str], watchdog: &[(&str, &str)]) -> Command {
        let mut command = command(arguments);
        command.env("NOTIFY_SOCKET", &self.name).envs(watchdog.iter().copied());
        command
    }
}

#[test]
fn it_is_told_when_clients_can_come_and_when_the_end_begins() {
    for manager in [Manager::new(), Manager::without_file()] {
        let mut server = Server::on_port(manager.command(&["--listen", "ws://127.0.0.1:0"], &[]));
        let heard = manager.heard();
        assert_eq!(heard, format!("READY=1\nSTATUS=listening at {}", server.url()));
        server.client();
        server.signal(Signal::SIGTERM);
        assert_eq!(manager.heard(), "STOPPING=1");
        assert!(server.wait().success());
    }
    let manager = Manager::new();
    let arguments = ["--listen", "stdio", "--drain-timeout", "1000"];
    let (mut server, mut client) = Server::on_pipes(manager.command(&arguments, &[]));
    assert_eq!(manager.heard(), "READY=1\nSTATUS=serving one client");
    client.handshake();
    client.start(script("a", "read line"));
    client.event("a");
    client.start(script("b", "exec sleep 1000"));
    server.signal(Signal::SIGTERM);
    let heard = manager.heard();
    assert!(
        heard.starts_with("STOPPING=1\nSTATUS=") && heard.ends_with("\nEXTEND_TIMEOUT_USEC=1010000000"),
        "{heard}"
    );
    client.close_input();
    assert_eq!(manager.heard(), "STOPPING=1");
    assert!(server.wait().success());
}

#[test]
fn commands_do_not_get_what_is_meant_for_the_server() {
    let manager = Manager::new();
    let watchdog = [("WATCHDOG_USEC", "100000000"), ("WATCHDOG_PID", "1"), ("INNOCENT", "1")];
    let (_server, mut client) = Server::on_pipes(manager.command(&["--listen", "stdio"], &watchdog));
    client.handshake();
    let mut start = script("a", "/usr/bin/env");
    start["envPolicy"] = serde_json::json!(
        {"inherit": "all", "ignoreDefaultExcludes": true, "exclude": [], "set": {}, "includeOnly": []}
    );
    let stdout = String::from_utf8(client.run(start).stdout).unwrap();
    assert!(stdout.contains("INNOCENT=1\n"), "{stdout}");
    assert!(!stdout.contains("NOTIFY") && !stdout.contains("WATCHDOG"), "{stdout}");
}

#[test]
fn a_server_that_lives_says_so_and_one_that_is_not_meant_does_not() {
    let manager = Manager::new();
    let arguments = ["--listen", "ws://127.0.0.1:0"];
    let server = Server::on_port(manager.command(&arguments, &[("WATCHDOG_USEC", "200000")]));
    assert!(manager.heard().starts_with("READY=1\n"));
    for _ in 0..5 {
        assert_eq!(manager.heard(), "WATCHDOG=1");
    }
    drop(server);
    while manager.heard() != "STOPPING=1" {}
    let watchdog = [("WATCHDOG_USEC", "20000"), ("WATCHDOG_PID", "1")];
    let _server = Server::on_port(manager.command(&arguments, &watchdog));
    assert!(manager.heard().starts_with("READY=1\n"));
    assert!(!manager.hears_within(200));
}

#[test]
fn a_server_that_accepts_no_clients_does_not_say_that_it_lives() {
    let manager = Manager::new();
    let watchdog = [("WATCHDOG_USEC", "100000")];
    let server = Server::on_port(manager.command(&["--listen", "ws://127.0.0.1:0"], &watchdog));
    assert!(manager.heard().starts_with("READY=1\n"));
    assert_eq!(manager.heard(), "WATCHDOG=1");
    // Its thread hangs in a system call.
    let thread = until("the thread that accepts", || {
        let mut threads = std::fs::read_dir(format!("/proc/{}/task", server.pid()))
            .unwrap()
            .flatten();
        threads
            .find(|thread| std::fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name == "listener\n"))
    });
    let thread = thread.file_name().into_string().unwrap();
    let calls = "--inject=poll,ppoll,accept4:delay_enter=1000000000";
    let tracer = Command::new("strace")
        .args(["-qq", "-p", &thread, calls])
        .stderr(Stdio::null())
        .spawn();
    let mut tracer = match tracer {
        Ok(tracer) => tracer,
        Err(e) => return println!("skipped: no strace: {e}"),
    };
    until("silence", || {
        if let Some(status) = tracer.try_wait().unwrap() {
            println!("skipped: strace cannot trace here: {status}");
            return Some(());
        }
        (!manager.hears_within(500)).then_some(())
    });
    // It goes on, and so says that it lives.
    tracer.kill().unwrap();
    tracer.wait().unwrap();
    assert_eq!(manager.heard(), "WATCHDOG=1");
}
