//! The first wire, `exec-server.v0`: `command/exec` and what belongs to it.

mod kit;

use exec_server::protocol::message::RequestId;
use exec_server::server::{self, ServerConfig};
use exec_server::transport::memory::{self, ToClient, ToServer};
use kit::{
    Client, DEADLINE, Dir, PATH, Server, base64, bytes, is_alive, on_terminal, script, until, wait_until_blocked,
};
use serde_json::{Value, json};
use std::num::NonZeroUsize;

/// The parameters that start a shell script.
fn shell(id: &str, text: &str) -> Value {
    json!({"processId": id, "argv": ["/bin/sh", "-c", text], "cwd": "/", "env": {"PATH": PATH}, "tty": false, "arg0": null})
}

/// Runs a test with a client over each transport that has said nothing yet.
fn both(test: impl Fn(&Server, &mut Client)) {
    println!("over stdio");
    let (server, mut client) = Server::stdio();
    test(&server, &mut client);
    drop((client, server));
    println!("over WebSocket");
    let server = Server::websocket(&[]);
    test(&server, &mut server.connect());
}

/// Starts a process and returns the system's number for it.
fn exec(client: &mut Client, params: Value) -> i32 {
    let id = params["processId"].clone();
    let mut result = client.call("command/exec", params);
    let pid = result["pid"].take().as_i64().unwrap();
    let rest = json!({"processId": id, "pid": null, "running": true, "exitCode": null, "stdout": null, "stderr": null});
    assert_eq!(result, rest);
    pid as i32
}

/// What a process has written, and its exit code.
#[derive(Debug, Default, PartialEq)]
struct Told {
    stdout: String,
    stderr: String,
    code: Option<i64>,
}

impl Told {
    /// Takes the next notification of a process.
    fn hear(&mut self, client: &mut Client, id: &str) {
        let message = client.wait_for(&format!("a notification of {id}"), |m| {
            m["params"]["processId"] == id && m.get("method").is_some()
        });
        let params = message["params"].as_object().unwrap();
        let mut names: Vec<&str> = params.keys().map(String::as_str).collect();
        names.sort_unstable();
        match message["method"].as_str().unwrap() {
            "command/exec/outputDelta" => {
                assert_eq!(names, ["chunk", "processId", "stream"]);
                let stream = match params["stream"].as_str().unwrap() {
                    "stdout" => &mut self.stdout,
                    "stderr" => &mut self.stderr,
                    other => panic!("{other}"),
                };
                stream.push_str(&String::from_utf8(bytes(&params["chunk"])).unwrap());
            }
            "command/exec/exited" => {
                assert_eq!(names, ["exitCode", "processId"]);
                assert_eq!(self.code, None);
                self.code = params["exitCode"].as_i64();
            }
            other => panic!("{other}"),
        }
    }
}

/// All that is told of a process up to its exit.
fn finish(client: &mut Client, id: &str) -> Told {
    let mut told = Told::default();
    while told.code.is_none() {
        told.hear(client, id);
    }
    told
}

/// What is told up to a text on standard output.
fn said(client: &mut Client, id: &str, text: &str) -> String {
    let mut told = Told::default();
    while !told.stdout.contains(text) {
        told.hear(client, id);
        assert_eq!(told.code, None, "{told:?}");
    }
    told.stdout
}

fn run(client: &mut Client, params: Value) -> Told {
    let id = params["processId"].as_str().unwrap().to_owned();
    exec(client, params);
    finish(client, &id)
}

fn write(client: &mut Client, id: &str, input: &str) -> Value {
    client.call("command/exec/write", json!({"processId": id, "chunk": base64(input)}))
}

fn terminate(client: &mut Client, id: &str) -> bool {
    let result = client.call("command/exec/terminate", json!({"processId": id}));
    let running = result["running"].as_bool().unwrap();
    assert_eq!(result, json!({"running": running}));
    running
}

#[test]
fn initialize_answers_the_version_and_may_be_repeated() {
    both(|_, client| {
        // What the clients of that time begin with; until they have used this wire today's rules hold.
        let first = client.call("initialize", json!({"clientName": "codex-core"}));
        assert_eq!(first["protocolVersion"], "exec-server.v0");
        client.send(&json!({"method": "initialized"}));
        assert_eq!(
            client.refusal("initialize", json!({"clientName": "codex-core"})),
            (-32600, "initialize may only be sent once per connection".into())
        );
        assert_eq!(run(client, shell("p", "exit 2")).code, Some(2));
        for params in [
            json!({"clientName": "again"}),
            json!({}),
            Value::Null,
            json!([1]),
            json!("x"),
        ] {
            assert_eq!(client.call("initialize", params), first);
            client.send(&json!({"method": "initialized"}));
        }
        assert_eq!(run(client, shell("p", "exit 3")).code, Some(3));
    });
}

#[test]
fn no_handshake_is_needed_and_one_may_come_later_or_stay_unfinished() {
    both(|_, client| {
        assert_eq!(run(client, shell("p", "exit 2")).code, Some(2));
        let answer = client.call("initialize", Value::Null);
        assert_eq!(answer["protocolVersion"], "exec-server.v0");
        client.send(&json!({"method": "initialized"}));
        assert_eq!(run(client, shell("p", "exit 3")).code, Some(3));
    });
    both(|_, client| {
        client.call("initialize", json!({"clientName": "x"}));
        assert_eq!(run(client, shell("p", "exit 4")).code, Some(4));
    });
    both(|_, client| {
        assert!(!terminate(client, "p"));
        let write = json!({"processId": "p", "chunk": ""});
        let unknown = (-32600, "unknown process id p".into());
        assert_eq!(client.refusal("command/exec/write", write), unknown);
    });
}

#[test]
fn output_comes_by_stream_and_before_the_exit() {
    both(|_, client| {
        let told = run(client, shell("p", "echo out; echo err >&2; exit 3"));
        assert_eq!((&*told.stdout, &*told.stderr, told.code), ("out\n", "err\n", Some(3)));
        let killed = run(client, shell("p", "kill -9 $$"));
        assert_eq!(killed.code, Some(137));
        let numbers: String = (1..=100_000).map(|n| format!("{n}\n")).collect();
        assert!(run(client, shell("p", "seq 100000")).stdout == numbers);
    });
}

#[test]
fn the_environment_is_exact_and_the_directory_and_the_name_are_as_given() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("a%20b")).unwrap();
    both(|_, client| {
        let mut params = shell("p", "");
        params["argv"] = json!(["/usr/bin/env"]);
        params["env"] = json!({"V": "a b"});
        assert_eq!(run(client, params).stdout, "V=a b\n");
        let mut params = shell("p", "tr '\\0' ' ' </proc/$$/cmdline; pwd");
        params["arg0"] = "zero".into();
        params["cwd"] = dir.path("a%20b").to_str().into();
        let out = run(client, params).stdout;
        assert!(out.starts_with("zero -c ") && out.ends_with("/a%20b\n"), "{out}");
        // Relative to where the server runs; a URI is a name like any other.
        let mut params = shell("p", "pwd");
        params["cwd"] = ".".into();
        let here = std::env::current_dir().unwrap();
        assert_eq!(run(client, params.clone()).stdout, format!("{}\n", here.display()));
        params["cwd"] = "file:///".into();
        assert_eq!(client.refusal("command/exec", params).0, -32603);
    });
}

#[test]
fn what_cannot_be_started_says_why_and_frees_the_name() {
    both(|_, client| {
        let mut refused = |change: &dyn Fn(&mut Value), code: i64, words: &str| {
            let mut params = shell("p", "exit 0");
            change(&mut params);
            let (got, message) = client.refusal("command/exec", params);
            assert!(got == code && message.contains(words), "{got} {message}");
        };
        refused(&|p| p["argv"] = json!([]), -32602, "argv must not be empty");
        refused(&|p| *p = json!({}), -32602, "missing field `processId`");
        refused(&|p| p["cwd"] = Value::Null, -32602, "expected a string");
        refused(&|p| p["outputBytesCap"] = json!(-1), -32602, "");
        refused(&|p| p["argv"] = json!(["/no/such/program"]), -32603, "/no/such/program");
        refused(&|p| p["cwd"] = "/no/such/place".into(), -32603, "/no/such/place");
        refused(&|p| p["cwd"] = "".into(), -32603, "");
        assert_eq!(run(client, shell("p", "exit 0")).code, Some(0));
    });
}

#[test]
fn a_name_in_use_is_refused_before_anything_is_started() {
    both(|_, client| {
        let dir = Dir::new();
        let pid = exec(client, shell("p", "exec sleep 1000"));
        let touch = shell("p", &format!("touch {}", dir.path("ran").display()));
        let refusal = client.refusal("command/exec", touch.clone());
        assert_eq!(refusal, (-32600, "process p already exists".into()));
        assert!(is_alive(pid) && !dir.path("ran").exists());
        assert!(terminate(client, "p"));
        assert_eq!(finish(client, "p").code, Some(137));
        assert_eq!(run(client, touch).code, Some(0));
        assert!(dir.path("ran").exists());
    });
}

#[test]
fn only_a_terminal_takes_input() {
    both(|_, client| {
        assert_eq!(run(client, shell("p", "cat; echo end")).stdout, "end\n");
        exec(client, shell("p", "exec sleep 1000"));
        let params = json!({"processId": "p", "chunk": base64("x")});
        let closed = (-32600, "stdin is closed for process p".into());
        assert_eq!(client.refusal("command/exec/write", params), closed);

        exec(
            client,
            on_terminal(shell(
                "t",
                "test -t 0 && stty size; read a; read b; echo \"<$a|$b>\" >&2",
            )),
        );
        said(client, "t", "24 80");
        // Twice the same is written twice.
        for _ in 0..2 {
            assert_eq!(write(client, "t", "hi\n"), json!({"accepted": true}));
        }
        let told = finish(client, "t");
        assert!(told.stdout.contains("<hi|hi>") && told.stderr.is_empty(), "{told:?}");
        let params = json!({"processId": "t", "chunk": base64("x")});
        let unknown = (-32600, "unknown process id t".into());
        assert_eq!(client.refusal("command/exec/write", params), unknown);
        let params = json!({"processId": "p", "chunk": "?"});
        assert_eq!(client.refusal("command/exec/write", params).0, -32602);
    });
}

#[test]
fn a_process_is_gone_with_its_exit() {
    both(|_, client| {
        for code in 0..50 {
            assert_eq!(run(client, shell("p", &format!("exit {code}"))).code, Some(code));
            assert!(!terminate(client, "p"));
        }
    });
}

#[test]
fn terminate_ends_all_that_was_started_and_frees_the_name() {
    both(|_, client| {
        let start = "setsid sh -c 'echo $$; exec sleep 1000' & sleep 1000 & echo $!; sleep 1000";
        exec(client, shell("p", start));
        let mut out = String::new();
        while out.lines().count() < 2 {
            out += &said(client, "p", "\n");
        }
        assert!(terminate(client, "p"));
        assert!(!terminate(client, "p"));
        assert_eq!(finish(client, "p").code, Some(137));
        for pid in out.lines().map(|pid| pid.parse().unwrap()) {
            until("the end of what was started", || (!is_alive(pid)).then_some(()));
        }
        assert_eq!(run(client, shell("p", "exit 0")).code, Some(0));
    });
}

#[test]
fn the_next_process_of_a_name_is_not_taken_for_the_one_before() {
    both(|_, client| {
        // Started again without having heard of the exit.
        for i in 0..20 {
            exec(client, shell("p", &format!("echo {i}; exec sleep 1000")));
            assert!(terminate(client, "p"));
        }
        let last = client.request("command/exec", shell("p", "echo last; exit 7"));
        while client.next().unwrap()["id"] != last {}
        let told = finish(client, "p");
        assert_eq!((&*told.stdout, told.code), ("last\n", Some(7)));
    });
}

#[test]
fn an_exit_waits_for_nobody_and_later_output_follows_it() {
    both(|_, client| {
        let dir = Dir::new();
        let (path, answer) = (dir.path("fifo"), dir.path("answer"));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (fifo, file) = (path.display(), answer.display());
        let text = format!("(read x <{fifo}; echo later; echo x >{file}) & echo now");
        let told = run(client, shell("p", &text));
        assert_eq!((&*told.stdout, told.code), ("now\n", Some(0)));
        std::fs::write(&path, "go\n").unwrap();
        assert_eq!(said(client, "p", "later"), "later\n");
        until("the end of that", || answer.exists().then_some(()));
        std::fs::remove_file(&answer).unwrap();

        // Once the name is another's, nothing that comes from the first is told.
        assert_eq!(run(client, shell("p", &text)).code, Some(0));
        exec(client, on_terminal(shell("p", "read x; exit 5")));
        std::fs::write(&path, "go\n").unwrap();
        until("what is not told", || answer.exists().then_some(()));
        write(client, "p", "\n");
        let told = finish(client, "p");
        assert!(!told.stdout.contains("later") && told.code == Some(5), "{told:?}");
    });
}

#[test]
fn all_output_is_sent_whatever_the_cap() {
    both(|_, client| {
        for cap in [json!(0), json!(10), json!(u32::MAX), Value::Null] {
            let mut params = shell("p", "head -c 3000000 /dev/zero | tr '\\0' x");
            params["outputBytesCap"] = cap;
            assert_eq!(run(client, params).stdout.len(), 3_000_000);
        }
        // What is kept can be seen with a method of today's.
        let mut params = shell("q", "echo 0123456789; exec sleep 1000");
        params["outputBytesCap"] = json!(5);
        exec(client, params);
        said(client, "q", "\n");
        let read = client.call("process/read", json!({"processId": "q"}));
        assert_eq!((&read["chunks"], &read["lostBytes"]), (&json!([]), &json!(11)));
    });
}

#[test]
fn a_client_that_does_not_read_holds_up_the_command_and_loses_nothing() {
    both(|_, client| {
        let pid = exec(client, shell("p", "exec head -c 20000000 /dev/zero"));
        wait_until_blocked(pid);
        assert_eq!(finish(client, "p").stdout.len(), 20_000_000);
    });
}

#[test]
fn what_is_not_known_is_refused_in_the_words_of_this_wire() {
    both(|_, client| {
        assert_eq!(client.refusal("nothing", json!({})).0, -32601);
        assert!(!terminate(client, "p"));
        let unknown = (-32600, "unknown method: nothing".into());
        assert_eq!(client.refusal("nothing", json!({})), unknown);
        client.send(&json!({"method": "nothing"}));
        let complaint = client.wait_for("a complaint", |m| m["id"] == -1);
        let error = json!({"code": -32600, "message": "unexpected notification method: nothing"});
        assert_eq!(complaint["error"], error);
        // Answers to nothing are ignored, empty lines skipped, what is no JSON is answered.
        client.send(&json!({"id": 1, "result": {}}));
        client.send(&json!({"id": 1, "error": {"code": 1, "message": "x"}}));
        if !client.is_websocket() {
            client.send_text("\n \r");
        }
        client.send_text("{");
        let complaint = client.wait_for("a complaint", |m| m["id"] == -1);
        assert_eq!(complaint["error"]["code"], -32600);
        assert!(
            complaint["error"]["message"].as_str().unwrap().contains("parse"),
            "{complaint}"
        );
        assert_eq!(run(client, shell("p", "exit 0")).code, Some(0));
    });
}

#[test]
fn requests_have_their_effect_in_the_order_they_come() {
    both(|_, client| {
        let start = client.request(
            "command/exec",
            on_terminal(shell("p", "read x; echo \"<$x>\"; exec sleep 1000")),
        );
        let write = client.request("command/exec/write", json!({"processId": "p", "chunk": base64("hi\n")}));
        client.result(start);
        assert_eq!(client.result(write), json!({"accepted": true}));
        said(client, "p", "<hi>");
        let start = client.request("command/exec", shell("q", "exec sleep 1000"));
        let end = client.request("command/exec/terminate", json!({"processId": "q"}));
        assert_eq!(client.result(start)["running"], true);
        assert_eq!(client.result(end), json!({"running": true}));
        assert_eq!(finish(client, "q").code, Some(137));
    });
}

#[test]
fn the_end_of_the_connection_ends_everything() {
    let everything = |client: &mut Client| {
        let mut pids = vec![exec(client, on_terminal(shell("t", "exec sleep 1000")))];
        pids.push(exec(client, shell("p", "sleep 1000 & echo $!; wait")));
        pids.push(said(client, "p", "\n").trim().parse().unwrap());
        // This one has left its process behind, with and without a hold on its streams.
        exec(
            client,
            shell("q", "sleep 1000 & echo $!; sleep 1000 >/dev/null 2>&1 & echo $!"),
        );
        pids.extend(
            finish(client, "q")
                .stdout
                .lines()
                .map(|pid| pid.parse::<i32>().unwrap()),
        );
        assert_eq!(pids.len(), 5);
        exec(client, shell("r", "sleep 1000 >/dev/null 2>&1 & echo $!"));
        pids.extend(
            finish(client, "r")
                .stdout
                .lines()
                .map(|pid| pid.parse::<i32>().unwrap()),
        );
        pids
    };
    let gone = |pids: Vec<i32>| {
        for pid in pids {
            until("the end of a process", || (!is_alive(pid)).then_some(()));
        }
    };
    let (mut server, mut client) = Server::stdio();
    let pids = everything(&mut client);
    client.close_input();
    assert_eq!(server.wait().code(), Some(0));
    gone(pids);
    // With and without a handshake: nobody can come back for it on this wire.
    for shakes_hands in [false, true] {
        let server = Server::websocket(&[]);
        let mut client = server.connect();
        if shakes_hands {
            client.handshake();
        }
        let pids = everything(&mut client);
        let session = std::mem::take(&mut client.session);
        drop(client);
        gone(pids);
        if shakes_hands {
            let resume = json!({"clientName": "x", "resumeSessionId": session});
            let words = format!("unknown session id {session}");
            assert_eq!(server.connect().refusal("initialize", resume), (-32600, words));
        }
    }
}

#[test]
fn both_wires_can_be_spoken_side_by_side() {
    both(|_, client| {
        client.handshake();
        exec(client, shell("old", "exec sleep 1000"));
        client.start(script("new", "echo hi; exec sleep 1000"));
        assert_eq!(client.event("new").kind, "output");
        let list = client.call("process/list", Value::Null);
        let names: Vec<&Value> = list["processes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| &p["processId"])
            .collect();
        assert_eq!(names, ["new", "old"]);
        assert_eq!(client.refusal("command/exec", shell("new", "")).0, -32600);
        client.call("process/signal", json!({"processId": "old", "signal": "interrupt"}));
        assert_eq!(finish(client, "old").code, Some(130));
        assert_eq!(client.refusal("process/read", json!({"processId": "old"})).0, -32600);
        client.call("process/terminate", json!({"processId": "new"}));
        assert_eq!(client.finish("new").kinds, ["exited", "closed"]);
    });
}

#[test]
fn it_is_spoken_within_a_program_too() {
    let (client, end) = memory::pair(NonZeroUsize::new(4).unwrap());
    server::Server::new(ServerConfig::default())
        .serve_memory(end, || ())
        .unwrap();
    let start = ToServer::Request {
        id: RequestId::from(1),
        method: "command/exec".into(),
        params: shell("p", "echo hi; exit 3").to_string().into(),
        bulk: None,
        raw: false,
    };
    client.outgoing.send(start).unwrap();
    let next = || match client.incoming.recv_timeout(DEADLINE).unwrap() {
        ToClient::Message(text) => serde_json::from_slice::<Value>(&text).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(next()["result"]["running"], true);
    let output = json!({"processId": "p", "stream": "stdout", "chunk": base64("hi\n")});
    assert_eq!(next(), json!({"method": "command/exec/outputDelta", "params": output}));
    let exited = json!({"processId": "p", "exitCode": 3});
    assert_eq!(next(), json!({"method": "command/exec/exited", "params": exited}));
}
