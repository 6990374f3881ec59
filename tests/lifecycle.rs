//! From the start of a process to its last event.

mod kit;

use kit::{Dir, both, is_alive, on_terminal, program, script, until, with_stdin, write};
use serde_json::{Value, json};

#[test]
fn events_are_numbered_from_the_first_output_to_the_end() {
    both(|_, client| {
        let run = client.run(script("a", "echo out; echo err >&2; exit 3"));
        assert_eq!((&run.stdout[..], &run.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!((run.code, run.signal), (3, None));
        let n = run.kinds.len();
        assert_eq!(run.kinds[n - 2..], ["exited", "closed"]);
        let read = client.call("process/read", json!({"processId": "a"}));
        assert_eq!((&read["nextSeq"], &read["exitCode"]), (&json!(n + 1), &json!(3)));
        assert_eq!((&read["closed"], &read["failure"]), (&json!(true), &Value::Null));
    });
}

#[test]
fn the_answer_to_a_start_comes_before_its_events() {
    both(|_, client| {
        let n = 100;
        let ids: Vec<i64> = (0..n)
            .map(|i| client.request("process/start", program(&format!("p{i}"), &["/bin/echo", "hi"])))
            .collect();
        let (mut answered, mut closed) = (Vec::new(), 0);
        while closed < n {
            let message = client.next().unwrap();
            if let Some(id) = message["id"].as_i64() {
                let i = ids.iter().position(|known| *known == id).unwrap();
                assert_eq!(message["result"]["processId"], format!("p{i}"));
                answered.push(message["result"]["processId"].clone());
            } else {
                assert!(answered.contains(&message["params"]["processId"]), "{message}");
                closed += usize::from(message["method"] == "process/closed");
            }
        }
    });
}

#[test]
fn exit_codes_are_passed_on() {
    both(|_, client| {
        for code in [0, 1, 127, 255] {
            let text = format!("exit {code}");
            assert_eq!(client.run(script(&format!("pipe {code}"), &text)).code, code);
            let run = client.run(on_terminal(script(&format!("tty {code}"), &text)));
            assert_eq!((run.code, run.signal), (code, None));
        }
    });
}

#[test]
fn death_by_a_signal_is_told_with_its_name() {
    both(|_, client| {
        for (number, name) in [(9, "SIGKILL"), (15, "SIGTERM"), (11, "SIGSEGV")] {
            let text = format!("ulimit -c 0; kill -{number} $$");
            let pipe = client.run(script(&format!("pipe {name}"), &text));
            assert_eq!((pipe.code, pipe.signal.as_deref()), (128 + number, Some(name)));
            let tty = client.run(on_terminal(script(&format!("tty {name}"), &text)));
            assert_eq!((tty.code, tty.signal.as_deref()), (128 + number, Some(name)));
        }
    });
}

#[test]
fn a_start_that_fails_names_what_is_wrong_and_frees_the_id() {
    both(|_, client| {
        let dir = Dir::new();
        std::fs::write(dir.path("plain"), "no program").unwrap();
        let plain = dir.path("plain").display().to_string();
        for tty in [false, true] {
            let mut refused = |argv: &[&str], cwd: &str, names: &str| {
                let mut start = program("a", argv);
                start["tty"] = tty.into();
                start["cwd"] = cwd.into();
                let (code, message) = client.refusal("process/start", start);
                assert_eq!(code, -32603);
                assert!(message.contains(names), "{message}");
            };
            refused(&["/no/such/program"], "file:///", "/no/such/program");
            refused(&["no-such-command"], "file:///", "no-such-command");
            refused(&[&plain], "file:///", &plain);
            refused(&["/bin/true"], "file:///no/such/directory", "/no/such/directory");
            refused(&["/bin/true"], &dir.uri("plain"), &plain);
            refused(&[""], "file:///", "program");
        }
        assert_eq!(client.refusal("process/start", program("a", &[])).0, -32602);
        assert_eq!(client.refusal("process/read", json!({"processId": "a"})).0, -32600);
        assert_eq!(client.run(program("a", &["/bin/true"])).code, 0);
        let (code, message) = client.refusal("process/start", program("a", &["/bin/true"]));
        assert_eq!((code, &message[..]), (-32600, "process a already exists"));
    });
}

#[test]
fn a_process_is_closed_when_the_last_holder_of_its_pipes_is_gone() {
    both(|_, client| {
        // The child left behind ends when the pipe that it reads is closed, which is for the test to do.
        let dir = Dir::new();
        let fifo = dir.path("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        client.start(script("a", &format!("cat {} & echo up; exit 4", fifo.display())));
        client.output_until("a", "up");
        assert_eq!(client.event("a").kind, "exited");
        let poll = json!({"processId": "a", "afterSeq": 2, "waitMs": 50});
        assert_eq!(client.call("process/read", poll)["closed"], false);
        std::fs::write(&fifo, "late").unwrap();
        client.output_until("a", "late");
        assert_eq!(client.event("a").kind, "closed");
    });
}

#[test]
fn terminate_ends_what_an_exited_process_has_left_behind() {
    both(|_, client| {
        client.start(script("a", "sleep 1000 & echo $!"));
        let left: i32 = client.output_until("a", "\n").trim().parse().unwrap();
        assert_eq!(client.event("a").kind, "exited");
        assert!(is_alive(left));
        let answer = client.call("process/terminate", json!({"processId": "a"}));
        assert_eq!(answer, json!({"running": false}));
        assert_eq!(client.event("a").kind, "closed");
        until("the end of the rest", || (!is_alive(left)).then_some(()));
    });
}

#[test]
fn arg0_names_a_program_and_chooses_none() {
    both(|_, client| {
        for tty in [false, true] {
            let id = format!("tty {tty}");
            let mut start = program(
                &id,
                &["/bin/sh", "-c", "echo \"<$0>\"; tr '\\0' '\\n' </proc/$$/cmdline"],
            );
            start["arg0"] = "/bin/false".into();
            start["tty"] = tty.into();
            let run = client.run(start);
            let output = String::from_utf8([run.stdout, run.pty].concat()).unwrap();
            assert!(output.starts_with("</bin/false>"), "{output}");
            assert_eq!(output.lines().nth(1).map(str::trim), Some("/bin/false"));
            assert_eq!(run.code, 0);
        }
    });
}

#[test]
fn the_environment_is_just_what_was_asked_for() {
    both(|_, client| {
        for tty in [false, true] {
            let mut start = program(&format!("tty {tty}"), &["/usr/bin/env"]);
            start["env"] = json!({"B": "2 = 3", "A": "", "ünï": "code"});
            start["tty"] = tty.into();
            let run = client.run(start);
            let output = String::from_utf8([run.stdout, run.pty].concat()).unwrap();
            let mut lines: Vec<&str> = output.lines().collect();
            lines.sort_unstable();
            assert_eq!(lines, ["A=", "B=2 = 3", "ünï=code"]);
        }
    });
}

#[test]
fn a_policy_says_what_is_inherited_of_the_environment() {
    both(|_, client| {
        let mut start = program("a", &["/usr/bin/env"]);
        start["env"] = json!({"ASKED_FOR": "1", "MY_TOKEN": "2"});
        start["envPolicy"] = json!({"inherit": "core", "ignoreDefaultExcludes": false, "exclude": ["HOME"],
            "set": {"LANG": "set", "A_SECRET": "3"}, "includeOnly": []});
        let run = client.run(start.clone());
        let output = String::from_utf8(run.stdout).unwrap();
        let path = format!("PATH={}", std::env::var("PATH").unwrap());
        for wanted in ["ASKED_FOR=1", "MY_TOKEN=2", "LANG=set", "A_SECRET=3", &path] {
            assert!(output.lines().any(|line| line == wanted), "{wanted} in {output}");
        }
        assert!(!output.contains("HOME=") && !output.contains("CARGO"), "{output}");
        start["processId"] = "b".into();
        start["envPolicy"]["inherit"] = "some".into();
        assert_eq!(client.refusal("process/start", start).0, -32602);
    });
}

#[test]
fn requests_right_behind_a_start_are_carried_out_in_order() {
    both(|_, client| {
        for i in 0..20 {
            let id = format!("p{i}");
            client.request("process/start", with_stdin(program(&id, &["/bin/cat"])));
            let poll = client.request("process/read", json!({"processId": id, "waitMs": 20_000}));
            let writes: Vec<i64> = (0..5)
                .map(|n| client.request("process/write", write(&id, &n.to_string(), &format!("{n},"))))
                .collect();
            for write in writes {
                assert_eq!(client.result(write)["status"], "accepted");
            }
            assert_eq!(client.output_until(&id, "4,"), "0,1,2,3,4,");
            assert_eq!(client.result(poll)["chunks"][0]["seq"], 1);
            client.request("process/start", program(&format!("s{i}"), &["/bin/sleep", "1000"]));
            client.request(
                "process/signal",
                json!({"processId": format!("s{i}"), "signal": "interrupt"}),
            );
            assert_eq!(client.finish(&format!("s{i}")).code, 130);
        }
    });
}

#[test]
fn terminate_right_behind_a_start_ends_the_process_or_the_start() {
    both(|_, client| {
        for i in 0..30 {
            let id = format!("p{i}");
            let start = client.request("process/start", program(&id, &["/bin/sleep", "1000"]));
            let answer = client.call("process/terminate", json!({"processId": id}));
            assert_eq!(answer, json!({"running": true}));
            let started = client.answer(start);
            if started.get("error").is_some() {
                let message = format!("process {id} start was cancelled");
                assert_eq!(started["error"], json!({"code": -32600, "message": message}));
                assert_eq!(client.run(program(&id, &["/bin/true"])).code, 0);
            } else {
                assert_eq!(client.finish(&id).code, 137);
            }
        }
    });
}

#[test]
fn a_terminal_is_the_controlling_one_and_has_the_asked_size() {
    both(|_, client| {
        let usual = client.run(on_terminal(script("usual", "stty size </dev/tty; tty >&2")));
        let output = String::from_utf8(usual.pty).unwrap();
        assert!(output.starts_with("24 80\r\n/dev/pts/"), "{output}");
        let mut start = on_terminal(script("sized", "stty size; read x; stty size"));
        start["size"] = json!({"rows": 5, "cols": 7});
        client.start(start);
        client.output_until("sized", "5 7\r\n");
        let resize = |id: &str, rows: u32| json!({"processId": id, "size": {"rows": rows, "cols": 9}});
        assert_eq!(client.call("process/resize", resize("sized", 3)), json!({}));
        assert_eq!(client.refusal("process/resize", resize("sized", 0)).0, -32602);
        assert_eq!(client.write("sized", "1", "\n"), "accepted");
        client.output_until("sized", "3 9\r\n");
        assert_eq!(client.refusal("process/resize", resize("nobody", 3)).0, -32600);
    });
}
