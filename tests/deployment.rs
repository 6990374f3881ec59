//! The files for deployment in README.md: that the server takes their arguments, and answers where they ask it.

mod kit;

use kit::{Dir, Server, cli, command};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;

const README: &str = include_str!("../README.md");

/// The code block after the line `<!-- NAME -->`.
fn file(name: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("\n<!-- {name} -->\n```")).expect(name);
    let (_, rest) = rest.split_once('\n').unwrap();
    rest.split_once("\n```\n").expect(name).0
}

/// What follows `start` on the one line of the file that begins with it.
fn setting<'a>(file: &'a str, start: &str) -> &'a str {
    let values: Vec<&str> = file
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix(start))
        .collect();
    let [value] = values[..] else {
        panic!("{start}: {values:?}")
    };
    value
}

/// A token where the server is to find it.
fn token(dir: &Dir) -> PathBuf {
    let path = dir.path("token");
    let mut options = std::fs::OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o400);
    options.open(&path).unwrap().write_all(b"secret").unwrap();
    path
}

/// Replaces the value of a flag, which must be there.
fn put(arguments: &mut [String], flag: &str, expected: &str, value: &str) {
    let at = arguments.iter().position(|argument| argument == flag).expect(flag);
    assert_eq!(arguments[at + 1], expected);
    arguments[at + 1] = value.to_owned();
}

/// The first line of the answer to a request without a token.
fn status(server: &Server, path: &str) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(kit::DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap().to_owned()
}

/// Starts a server in a container's way, with its arguments, and looks whether it is ready.
fn start(mut arguments: Vec<String>) -> Server {
    let dir = Dir::new();
    put(&mut arguments, "--listen", "ws://0.0.0.0:9400", "ws://127.0.0.1:0");
    let token = token(&dir);
    put(
        &mut arguments,
        "--ws-token-file",
        "/run/secrets/exec-server/token",
        token.to_str().unwrap(),
    );
    let arguments: Vec<&str> = arguments.iter().map(|argument| &argument[..]).collect();
    let server = Server::on_port(command(&arguments));
    assert_eq!(status(&server, "/readyz"), "HTTP/1.1 200 OK");
    server
}

#[test]
fn the_unit_starts_the_server_with_its_socket() {
    let service = file("exec-server.service");
    let dir = Dir::new();
    let token = token(&dir);
    let line = setting(service, "ExecStart=/usr/local/bin/exec-server ");
    let mut arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
    put(&mut arguments, "--ws-token-file", "%d/token", token.to_str().unwrap());
    let drain = arguments
        .iter()
        .position(|argument| argument == "--drain-timeout")
        .unwrap();
    assert!(arguments[drain + 1].parse::<u32>().unwrap() > 0);
    // Else systemd sends SIGTERM to the commands that may finish.
    assert_eq!(setting(service, "KillMode="), "mixed");
    assert_eq!(setting(service, "Type="), "notify");
    assert_eq!(setting(file("exec-server.socket"), "ListenStream=127.0.0.1:"), "9400");

    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let mut shell = Command::new("sh");
    let script = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$@\" 3<&0 </dev/null";
    shell
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_exec-server")])
        .args(arguments);
    shell.stdin(OwnedFd::from(socket));
    let server = Server::with_its_input(shell);
    assert_eq!(server.address(), address);
    assert_eq!(status(&server, "/readyz"), "HTTP/1.1 200 OK");
}

#[test]
fn the_container_starts_the_server() {
    let arguments = setting(file("Containerfile"), "CMD ");
    start(serde_json::from_str(arguments).unwrap());
}

#[test]
fn the_pod_starts_a_server_that_answers_its_probes() {
    let manifest = file("kubernetes.yaml");
    let arguments: Vec<String> = serde_json::from_str(setting(manifest, "args: ")).unwrap();
    let drain = arguments
        .iter()
        .position(|argument| argument == "--drain-timeout")
        .unwrap();
    let drain: u32 = arguments[drain + 1].parse().unwrap();
    let grace: u32 = setting(manifest, "terminationGracePeriodSeconds: ").parse().unwrap();
    assert!(grace > drain);
    assert_eq!(
        setting(manifest, "secret: "),
        "{secretName: exec-server, defaultMode: 0400}"
    );
    let server = start(arguments);
    let probes: Vec<&str> = manifest
        .lines()
        .filter_map(|line| line.split_once("httpGet: {path: "))
        .map(|(_, rest)| rest)
        .collect();
    assert_eq!(probes.len(), 3);
    for probe in probes {
        let (path, _) = probe.split_once(',').unwrap();
        assert_eq!(status(&server, path), "HTTP/1.1 200 OK", "{path}");
    }
}

#[test]
fn the_guest_gives_the_server_flags_that_it_has() {
    let help = String::from_utf8(cli(&["--help"]).stdout).unwrap();
    let arguments = setting(file("init"), "exec /bin/exec-server ");
    let flags: Vec<&str> = arguments
        .split(' ')
        .filter(|argument| argument.starts_with("--"))
        .collect();
    assert_eq!(flags.len(), 2);
    for flag in flags {
        assert!(help.contains(&format!("  {flag} ")), "{flag}");
    }
    assert!(arguments.contains("--listen vsock://any:9400") && help.contains("vsock://CID:PORT"));
}
