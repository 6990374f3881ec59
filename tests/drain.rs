//! A server that lets its commands finish before it ends.

mod kit;

use kit::{Client, DEADLINE, Dir, Server, children, command, http, program, script, until};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::{Value, json};

const INITIALIZE: &str = "initialize";

/// A command that ends when the test says so.
struct Gated {
    dir: Dir,
}

impl Gated {
    fn new() -> Gated {
        let dir = Dir::new();
        nix::unistd::mkfifo(&dir.path("gate"), Mode::S_IRWXU).unwrap();
        Gated { dir }
    }

    /// It says `up`, waits, and says the rest.
    fn start(&self, client: &mut Client, rest: &str) {
        let gate = self.dir.path("gate");
        client.start(script("a", &format!("echo up; cat {}; {rest}", gate.display())));
        client.output_until("a", "up");
    }

    fn open(&self) {
        std::fs::write(self.dir.path("gate"), "").unwrap();
    }
}

fn drain(server: &Server) {
    server.signal(Signal::SIGTERM);
    until("a server that is not ready", || {
        (http(server, "GET /readyz HTTP/1.1").0 == "503 Service Unavailable").then_some(())
    });
    assert_eq!(http(server, "GET /healthz HTTP/1.1").0, "200 OK");
}

/// Whether a connection is there.
fn has_writer(server: &Server) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let mut names = tasks
        .flatten()
        .map(|task| std::fs::read_to_string(task.path().join("comm")));
    names.any(|name| name.is_ok_and(|name| name == "writer\n"))
}

fn hello() -> Value {
    json!({"clientName": "test"})
}

#[test]
fn commands_finish_and_their_output_is_delivered() {
    let mut server = Server::websocket(&["--drain-timeout", "1000"]);
    let mut client = server.client();
    let gated = Gated::new();
    // More than is sent ahead of the client's reading.
    gated.start(&mut client, "head -c 3000000 /dev/zero; exit 3");
    drain(&server);
    let mut late = server.connect();
    let (code, message) = late.refusal(INITIALIZE, hello());
    assert_eq!(
        (code, &message[..]),
        (-32011, "the server is about to end: it opens no sessions")
    );
    let (code, _) = late.refusal(
        "command/exec",
        json!({"processId": "x", "argv": ["true"], "cwd": "/", "env": {}, "tty": false}),
    );
    assert_eq!(code, -32011);
    // A session that there is goes on as before.
    assert_eq!(client.run(program("b", &["/bin/true"])).code, 0);
    gated.open();
    let run = client.finish("a");
    assert_eq!((run.stdout.len(), run.code), (3_000_000, 3));
    client.rest();
    assert_eq!(client.close_frame.unwrap().reason.as_str(), "server is shutting down");
    drop(late);
    assert!(server.wait().success());
}

#[test]
fn a_session_is_resumed_for_what_was_missed() {
    let mut server = Server::websocket(&["--drain-timeout", "1000"]);
    let mut client = server.client();
    let gated = Gated::new();
    gated.start(&mut client, "echo done; exit 4");
    let session = client.session.clone();
    drop(client);
    until("a session without a connection", || {
        (!has_writer(&server)).then_some(())
    });
    drain(&server);
    gated.open();
    until("the end of the command", || {
        children(server.pid()).is_empty().then_some(())
    });
    let mut client = server.connect();
    until("the session", || {
        let id = client.request(INITIALIZE, json!({"clientName": "test", "resumeSessionId": session}));
        (client.answer(id)["error"]["code"] != -32010).then_some(())
    });
    client.send(&json!({"method": "initialized"}));
    client.continue_at(&session);
    let poll = json!({"processId": "a", "afterSeq": 2, "waitMs": DEADLINE.as_millis() as u64});
    let read = client.call("process/read", poll);
    assert!(read["exited"] == true && read["exitCode"] == 4, "{read}");
    assert_eq!(
        client.call("process/read", json!({"processId": "a", "afterSeq": 1}))["chunks"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    client.rest();
    assert!(server.wait().success());
}

#[test]
fn a_second_signal_or_the_end_of_the_time_ends_it_at_once() {
    for (timeout, second) in [
        ("1000", Some(Signal::SIGTERM)),
        ("1000", Some(Signal::SIGINT)),
        ("100ms", None),
    ] {
        let mut server = Server::websocket(&["--drain-timeout", timeout]);
        let mut client = server.client();
        client.start(program("a", &["/bin/sleep", "1000"]));
        server.signal(Signal::SIGTERM);
        if let Some(second) = second {
            until("a server that is not ready", || {
                http(&server, "GET /readyz HTTP/1.1").0.starts_with("503").then_some(())
            });
            server.signal(second);
        }
        client.rest();
        assert!(server.wait().success());
    }
}

#[test]
fn without_commands_there_is_nothing_to_wait_for() {
    let mut server = Server::websocket(&["--drain-timeout", "1000"]);
    let mut client = server.client();
    assert_eq!(client.run(program("a", &["/bin/true"])).code, 0);
    server.signal(Signal::SIGTERM);
    client.rest();
    assert!(server.wait().success());
}

#[test]
fn the_only_client_has_its_commands_finish_too() {
    let (mut server, mut client) = Server::on_pipes(command(&["--listen", "stdio", "--drain-timeout", "1000"]));
    client.handshake();
    let gated = Gated::new();
    gated.start(&mut client, "echo done; exit 5");
    server.signal(Signal::SIGTERM);
    assert_eq!(client.run(program("b", &["/bin/true"])).code, 0);
    gated.open();
    let run = client.finish("a");
    assert_eq!((&run.stdout[..], run.code), (&b"done\n"[..], 5));
    assert!(server.wait().success());
    assert!(client.next().is_none());
}
