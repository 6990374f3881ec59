//! Limits that end a command by themselves: time, silence, output.

#![cfg(feature = "client")]

mod kit;

use exec_server::client::StartOptions;
use kit::{Client, both, bytes, on_terminal, script, until, with_stdin, write};
use serde_json::{Value, json};

const LIMITS: [&str; 4] = ["timeoutMs", "idleTimeoutMs", "outputLimitBytes", "graceMs"];

fn limited(mut start: Value, limit: &str, value: u64) -> Value {
    assert!(LIMITS.contains(&limit));
    start[limit] = value.into();
    start
}

fn id(start: &Value) -> String {
    start["processId"].as_str().unwrap().to_owned()
}

/// Starts a command and waits for its end: what it wrote, the params of `process/exited`, and what it was ended by, as
/// the other methods tell it.
fn end(client: &mut Client, start: Value) -> (Vec<u8>, Value, Value) {
    let id = id(&start);
    client.start(start);
    let (mut output, mut exited) = (Vec::new(), Value::Null);
    loop {
        let event = client.event(&id);
        match event.kind.as_str() {
            "output" => output.extend(bytes(&event.params["chunk"])),
            "exited" => exited = event.params,
            _ => break,
        }
    }
    let read = client.call("process/read", json!({"processId": id}));
    let list = client.call("process/list", json!({}));
    let mut listed = list["processes"].as_array().unwrap().iter();
    let listed = listed.find(|process| process["processId"] == id.as_str()).unwrap();
    assert_eq!(read["endedBy"], listed["endedBy"]);
    (output, exited, read["endedBy"].clone())
}

fn both_ways(name: &str, text: &str) -> [Value; 2] {
    [
        script(&format!("{name} pipe"), text),
        on_terminal(script(&format!("{name} tty"), text)),
    ]
}

#[test]
fn a_timeout_ends_a_command_with_all_it_has_started() {
    both(|_, client| {
        let text = "trap '' TERM; (setsid sleep 1000 &); sleep 1000 & echo $!; yes >/dev/null";
        for start in both_ways("a", text) {
            let (output, exited, ended) = end(client, limited(start, "timeoutMs", 1500));
            assert_eq!(
                (&exited["exitCode"], &exited["signal"]),
                (&json!(137), &json!("SIGKILL"))
            );
            assert_eq!((&exited["endedBy"], &ended), (&json!("timeout"), &json!("timeout")));
            let child: i32 = String::from_utf8(output).unwrap().trim().parse().unwrap();
            until("the end of its child", || (!kit::is_alive(child)).then_some(()));
        }
    });
}

#[test]
fn a_timeout_also_ends_what_holds_the_output_of_a_command_that_is_over() {
    both(|_, client| {
        let start = script("a", "setsid sleep 1000 & exit 4");
        let (_, exited, ended) = end(client, limited(start, "timeoutMs", 500));
        assert_eq!((&exited["exitCode"], &exited["endedBy"]), (&json!(4), &Value::Null));
        assert_eq!(ended, "timeout");
    });
}

#[test]
fn a_command_that_meets_no_limit_is_told_of_as_ever() {
    both(|_, client| {
        for start in both_ways("a", "printf 12345; exit 3") {
            let mut start = limited(start, "outputLimitBytes", 5);
            for limit in ["timeoutMs", "idleTimeoutMs"] {
                start = limited(start, limit, u64::MAX);
            }
            let (output, exited, ended) = end(client, start);
            assert_eq!((&output[..], &exited["exitCode"]), (&b"12345"[..], &json!(3)));
            assert!(exited.get("endedBy").is_none() && ended.is_null());
        }
    });
}

#[test]
fn a_command_that_is_asked_to_end_may_do_so_in_its_own_way() {
    both(|_, client| {
        for start in both_ways("a", "trap 'echo bye; exit 7' TERM; while :; do sleep 0.05; done") {
            let start = limited(limited(start, "timeoutMs", 500), "graceMs", 20_000);
            let (output, exited, ended) = end(client, start);
            assert_eq!((&exited["exitCode"], &ended), (&json!(7), &json!("timeout")));
            assert!(String::from_utf8(output).unwrap().contains("bye"));
        }
    });
}

#[test]
fn silence_ends_a_command_but_not_while_there_is_output_or_input() {
    both(|_, client| {
        // Longer than it may be silent.
        let text = "for i in $(seq 35); do echo $i; sleep 0.1; done; exec sleep 1000";
        for start in both_ways("a", text) {
            let (output, exited, ended) = end(client, limited(start, "idleTimeoutMs", 2500));
            assert_eq!(
                (&exited["endedBy"], &ended),
                (&json!("idleTimeout"), &json!("idleTimeout"))
            );
            let output = String::from_utf8(output).unwrap();
            assert!(output.trim().ends_with("35"), "{output:?}");
        }
        let start = limited(with_stdin(script("in", "exec cat >/dev/null")), "idleTimeoutMs", 2500);
        client.start(start);
        let began = std::time::Instant::now();
        let mut n = 0;
        until("enough input", || {
            n += 1;
            let answer = client.call("process/write", write("in", &n.to_string(), "x"));
            assert_eq!(answer["status"], "accepted");
            (began.elapsed().as_millis() > 3500).then_some(())
        });
        let exited = client.event("in");
        assert_eq!(
            (exited.kind.as_str(), &exited.params["endedBy"]),
            ("exited", &json!("idleTimeout"))
        );
    });
}

#[test]
fn too_much_output_ends_a_command_and_the_rest_is_dropped() {
    both(|_, client| {
        let endless = "while :; do echo 0123456789; echo 0123456789 >&2; done";
        // Also one that is faster than its end.
        for text in [endless, "head -c 50000 /dev/zero; exit 0"] {
            for start in both_ways(text, text) {
                let (output, _, ended) = end(client, limited(start, "outputLimitBytes", 10_001));
                assert_eq!((output.len(), ended), (10_001, json!("outputLimit")));
            }
        }
        let mute = limited(script("mute", "exec yes"), "outputLimitBytes", 0);
        let (output, exited, _) = end(client, mute);
        assert_eq!((output.len(), &exited["endedBy"]), (0, &json!("outputLimit")));
    });
}

#[test]
fn limits_are_named_and_checked() {
    both(|_, client| {
        let info = client.call("environment/info", json!({}));
        assert_eq!(info["capabilities"]["processLimits"], true);
        for limit in LIMITS {
            for wrong in [json!(-1), json!("1"), json!(1.5)] {
                let mut start = script("a", "exit");
                start[limit] = wrong;
                assert_eq!(client.refusal("process/start", start).0, -32602, "{limit}");
            }
        }
    });
}

#[test]
fn a_client_asks_for_limits_and_is_told_which_was_met() {
    let (_server, client) = {
        let (server, end) = exec_server::host::connect(exec_server::server::ServerConfig::default()).unwrap();
        let options = exec_server::client::ExecServerClientConnectOptions::default();
        let client = exec_server::client::ExecServerClient::connect_memory(end, options);
        (server, client.unwrap())
    };
    let command = |text| StartOptions::new(["/bin/sh", "-c", text]).env("PATH", kit::PATH);
    let cases = [
        (
            command("exec sleep 1000").timeout(std::time::Duration::from_millis(50)),
            "timeout",
        ),
        (
            command("exec sleep 1000").idle_timeout(std::time::Duration::from_millis(50)),
            "idleTimeout",
        ),
        (command("exec yes").output_limit_bytes(10), "outputLimit"),
    ];
    for (start, by) in cases {
        let process = client.start_process(&start).unwrap();
        let exit = process.wait(Some(kit::DEADLINE)).unwrap();
        assert_eq!((exit.ended_by.as_deref(), exit.exit_code), (Some(by), 137));
    }
}
