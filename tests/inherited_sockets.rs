//! Sockets that the server is started with: by systemd, by inetd, by anybody.

mod kit;

use kit::{Client, DEADLINE, Dir, PROGRAM, Server, command, program, script, threads_and_fds};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

/// Has a shell start the program with the socket as descriptor 3, and with what else the script does before.
fn passing(socket: impl Into<OwnedFd>, before: &str, arguments: &[&str]) -> Command {
    let mut sh = Command::new("/bin/sh");
    let text = format!("{before}; exec 3<&0 </dev/null; exec \"$0\" \"$@\"");
    sh.args(["-c", &text, PROGRAM]).args(arguments).stdin(socket.into());
    sh
}

const SYSTEMD: &str = "export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=web";

fn answers(mut client: Client) {
    client.handshake();
    assert_eq!(client.run(program("p", &["/bin/echo", "hello"])).stdout, b"hello\n");
}

#[test]
fn sockets_that_listen() {
    let tcp = || TcpListener::bind("127.0.0.1:0").unwrap();
    for (before, listen) in [
        (":", "fd://3"),
        (SYSTEMD, "systemd"),
        (SYSTEMD, "systemd://web"),
        (SYSTEMD, "fd://3"),
    ] {
        let socket = tcp();
        let url = format!("ws://{}", socket.local_addr().unwrap());
        let server = Server::with_its_input(passing(socket, before, &["--listen", listen]));
        assert_eq!(server.url(), url);
        answers(server.connect());
    }
    let dir = Dir::new();
    let path = dir.path("s");
    let socket = UnixListener::bind(&path).unwrap();
    let server = Server::with_its_input(passing(socket, SYSTEMD, &["--listen", "systemd"]));
    assert_eq!(server.url(), format!("unix://{}", path.display()));
    answers(server.connect());
    answers(Client::of_lines(server.url()));
    drop(server);
    assert!(path.exists(), "it was somebody else's");
}

#[test]
fn commands_know_nothing_of_them() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = Server::with_its_input(passing(socket, SYSTEMD, &["--listen", "systemd"]));
    let mut client = server.client();
    let mut start = script("p", "env; ls -l /proc/self/fd");
    start["envPolicy"] =
        json!({"inherit": "all", "ignoreDefaultExcludes": true, "exclude": [], "set": {}, "includeOnly": []});
    let output = String::from_utf8(client.run(start).stdout).unwrap();
    assert!(output.contains("PATH=") && !output.contains("LISTEN_"), "{output}");
    assert!(!output.contains("socket:"), "{output}");
}

#[test]
fn what_was_passed_to_others_or_is_no_socket_is_refused() {
    let tcp = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap());
    let open = || OwnedFd::from(TcpListener::bind("0.0.0.0:0").unwrap());
    let datagram = || OwnedFd::from(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let lonely = || {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
        socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).unwrap()
    };
    let null = || OwnedFd::from(fs::File::open("/dev/null").unwrap());
    for (socket, before, listen, says) in [
        (
            tcp(),
            "export LISTEN_PID=1 LISTEN_FDS=1",
            &["systemd"][..],
            "LISTEN_PID does not name it",
        ),
        (tcp(), "export LISTEN_PID=$$", &["systemd"], "LISTEN_FDS does not tell"),
        (
            tcp(),
            "export LISTEN_PID=$$ LISTEN_FDS=0",
            &["systemd"],
            "LISTEN_FDS does not tell",
        ),
        (
            tcp(),
            "export LISTEN_PID=$$ LISTEN_FDS=2",
            &["systemd"],
            "failed to use descriptor 4",
        ),
        (tcp(), SYSTEMD, &["systemd://other"], "no socket of the name `other`"),
        (
            tcp(),
            ":",
            &["fd://3", "fd://3"],
            "it was not inherited, or is in use already",
        ),
        (
            open(),
            ":",
            &["fd://3"],
            "can be reached from other machines: it needs --ws-auth or --insecure-no-auth",
        ),
        (
            open(),
            SYSTEMD,
            &["systemd"],
            "can be reached from other machines: it needs --ws-auth or --insecure-no-auth",
        ),
        (datagram(), ":", &["fd://3"], "it is no stream socket"),
        (lonely(), ":", &["fd://3"], "ENOTCONN"),
        (null(), ":", &["fd://3"], "Socket operation on non-socket"),
        (
            UnixStream::pair().unwrap().0.into(),
            ":",
            &["fd://3", "ws://127.0.0.1:0"],
            "is served alone",
        ),
    ] {
        let arguments: Vec<&str> = listen.iter().flat_map(|url| ["--listen", url]).collect();
        let ended = kit::Cli::run(&mut passing(socket, before, &arguments));
        assert!(
            ended.code == 1 && ended.stderr.contains(says),
            "{before} {listen:?}: {ended:?}"
        );
        assert!(ended.stdout.is_empty());
    }
    // With a word that it is meant.
    let arguments = ["--listen", "fd://3", "--insecure-no-auth"];
    let server = Server::with_its_input(passing(open(), ":", &arguments));
    let port = server.url().rsplit_once(':').unwrap().1;
    answers(Client::of_websocket(&format!("ws://127.0.0.1:{port}")));
}

/// A server on one end of a connection, as inetd starts it: all of its streams are the same.
fn on_connection(theirs: UnixStream, arguments: &[&str]) -> kit::Started {
    let stream = || OwnedFd::from(theirs.try_clone().unwrap());
    let mut server = command(&[&["--listen", "fd://0"], arguments].concat());
    server.stdin(stream()).stdout(stream()).stderr(stream());
    kit::Started(server.spawn().unwrap())
}

/// Starts a shell script, and returns its number.
fn start(client: &mut Client, text: &str) -> i32 {
    client.start(script("p", &format!("echo $$; {text}")));
    let output = client.output_until("p", "\n");
    output.lines().next().unwrap().parse().unwrap()
}

#[test]
fn one_connection_is_served_to_its_end() {
    // As lines, and what is logged does not get between them.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut server = on_connection(theirs, &["--log-level", "trace"]);
    let mut client = Client::of_lines_on(ours.try_clone().unwrap().into());
    client.handshake();
    let sleep = start(&mut client, "exec sleep 1000");
    ours.shutdown(std::net::Shutdown::Write).unwrap();
    client.rest();
    assert!(server.wait().success());
    assert!(!kit::is_alive(sleep));

    // As WebSocket.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut server = on_connection(theirs, &[]);
    let (socket, _) = tungstenite::client("ws://localhost", std::net::TcpStream::from(OwnedFd::from(ours))).unwrap();
    let mut client = Client::of_socket(socket);
    client.handshake();
    assert_eq!(client.call("environment/status", Value::Null)["status"], "ready");
    client.websocket().close(None).unwrap();
    client.rest();
    drop(client);
    assert!(server.wait().success());

    // And when it comes to nothing.
    for request in ["GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", ""] {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut server = on_connection(theirs, &[]);
        ours.write_all(request.as_bytes()).unwrap();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        ours.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.starts_with("HTTP/1.1 200 OK"), !request.is_empty(), "{answer}");
        assert!(server.wait().success());
    }
}

#[test]
fn a_client_that_reads_nothing_is_served_to_its_end_too() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut server = on_connection(theirs, &[]);
    let mut client = Client::of_lines_on(ours.into());
    client.handshake();
    kit::wait_until_blocked(start(&mut client, "exec yes"));
    drop(client);
    assert!(server.wait().success());
}

#[test]
fn a_listening_socket_as_all_streams() {
    let dir = Dir::new();
    let path = dir.path("s");
    let socket = OwnedFd::from(UnixListener::bind(&path).unwrap());
    let stream = || Stdio::from(socket.try_clone().unwrap());
    let mut server = command(&["--listen", "fd://0"]);
    server.stdin(stream()).stdout(stream()).stderr(stream());
    let server = kit::Started(server.spawn().unwrap());
    let url = format!("unix://{}", path.display());
    answers(Client::of_lines(&url));
    answers(Client::of_websocket(&url));
    let before = kit::until("all of it is gone", || {
        let now = threads_and_fds(server.pid());
        (now.0 <= 4).then_some(now)
    });
    answers(Client::of_lines(&url));
    kit::until("as before", || {
        (threads_and_fds(server.pid()).1 <= before.1).then_some(())
    });
}
