//! Signals, and being ended.

mod kit;

use kit::{both, is_alive, on_terminal, program, script, stat, until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn interrupt(id: &str) -> Value {
    json!({"processId": id, "signal": "interrupt"})
}

#[test]
fn an_interrupt_reaches_the_whole_group() {
    both(|_, client| {
        let text = "trap 'echo parent; exit 5' INT
            sh -c 'trap \"echo child; exit 1\" INT; echo ready; while :; do sleep 0.1; done'";
        client.start(script("a", text));
        client.output_until("a", "ready\n");
        assert_eq!(client.call("process/signal", interrupt("a")), json!({}));
        let run = client.finish("a");
        assert_eq!((&run.stdout[..], run.code), (&b"child\nparent\n"[..], 5));
        assert_eq!(client.call("process/signal", interrupt("a")), json!({}));
        assert_eq!(client.call("process/signal", interrupt("nobody")), json!({}));
    });
}

#[test]
fn an_interrupt_reaches_the_foreground_job_of_a_shell() {
    both(|_, client| {
        let mut start = on_terminal(program("a", &["bash", "--norc", "--noprofile", "-i"]));
        start["env"]["HISTFILE"] = "/dev/null".into();
        client.start(start);
        client.write("a", "1", "echo shell-$$-$((20 + 1))\n");
        let said = client.output_until("a", "-21\r\n");
        let number = said
            .lines()
            .find_map(|line| line.strip_prefix("shell-")?.strip_suffix("-21"));
        let shell: i32 = number.unwrap_or_else(|| panic!("{said:?}")).parse().unwrap();
        client.write("a", "2", "sleep 1000\n");
        let job = until("the job in the foreground", || {
            let foreground: i32 = stat(shell)?[5].parse().unwrap();
            let program = std::fs::read_to_string(format!("/proc/{foreground}/cmdline")).ok()?;
            program.starts_with("sleep").then_some(foreground)
        });
        assert_ne!(job, shell);
        assert_eq!(client.call("process/signal", interrupt("a")), json!({}));
        until("the end of the job", || (!is_alive(job)).then_some(()));
        client.write("a", "3", "echo code-$?-$((20 + 3))\n");
        client.output_until("a", "code-130-23");
        assert!(is_alive(shell));
    });
}

#[test]
fn other_signals_are_for_clients_that_ask_for_them() {
    both(|server, client| {
        client.start(program("a", &["/bin/sleep", "1000"]));
        for signal in ["hangup", "kill", "terminate", "usr1", "SIGINT"] {
            let params = json!({"processId": "a", "signal": signal});
            assert_eq!(client.refusal("process/signal", params).0, -32602);
        }
        let list = client.call("process/list", Value::Null);
        assert_eq!(list["processes"][0]["exited"], false);
        if !client.is_websocket() {
            return;
        }
        let mut other = server.connect();
        other.initialize(json!({"clientName": "test", "extendedSignals": true}));
        for (signal, name) in [
            ("hangup", "SIGHUP"),
            ("interrupt", "SIGINT"),
            ("quit", "SIGQUIT"),
            ("kill", "SIGKILL"),
            ("usr1", "SIGUSR1"),
            ("usr2", "SIGUSR2"),
            ("terminate", "SIGTERM"),
        ] {
            other.start(script(name, "ulimit -c 0; echo ready; exec sleep 1000"));
            other.output_until(name, "ready");
            let params = json!({"processId": name, "signal": signal});
            assert_eq!(other.call("process/signal", params), json!({}));
            assert_eq!(other.finish(name).signal.as_deref(), Some(name));
        }
        let params = json!({"processId": "a", "signal": "stop"});
        assert_eq!(other.refusal("process/signal", params).0, -32602);
    });
}

#[test]
fn terminate_cannot_be_refused() {
    both(|_, client| {
        for start in [script("pipe", ""), on_terminal(script("tty", ""))] {
            let (mut start, id) = (start.clone(), start["processId"].as_str().unwrap().to_owned());
            start["argv"][2] = "trap '' TERM INT HUP; echo ready; while :; do sleep 0.1; done".into();
            client.start(start);
            client.output_until(&id, "ready");
            let terminated = client.call("process/terminate", json!({"processId": id}));
            assert_eq!(terminated, json!({"running": true}));
            let run = client.finish(&id);
            assert_eq!((run.code, run.signal.as_deref()), (137, Some("SIGKILL")));
            let again = client.call("process/terminate", json!({"processId": id}));
            assert_eq!(again, json!({"running": false}));
        }
        let unknown = client.call("process/terminate", json!({"processId": "nobody"}));
        assert_eq!(unknown, json!({"running": false}));
    });
}

#[test]
fn terminate_reaches_children_in_sessions_of_their_own() {
    both(|_, client| {
        let text = "setsid sh -c 'echo $$; exec sleep 1000' & wait";
        client.start(script("a", text));
        let child: i32 = client.output_until("a", "\n").trim().parse().unwrap();
        assert_eq!(stat(child).unwrap()[3], child.to_string(), "not a session of its own");
        client.call("process/terminate", json!({"processId": "a"}));
        assert_eq!(client.finish("a").code, 137);
        until("the end of the child", || (!is_alive(child)).then_some(()));
    });
}

#[test]
fn terminate_with_grace_asks_first() {
    both(|_, client| {
        let text = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.1; done";
        client.start(script("obeys", text));
        client.output_until("obeys", "ready\n");
        let params = json!({"processId": "obeys", "graceMs": 1_000_000});
        assert_eq!(client.call("process/terminate", params), json!({"running": true}));
        let run = client.finish("obeys");
        assert_eq!((&run.stdout[..], run.code, run.signal), (&b"bye\n"[..], 7, None));

        client.start(script(
            "refuses",
            "trap '' TERM; echo ready; while :; do sleep 0.1; done",
        ));
        client.output_until("refuses", "ready\n");
        let start = Instant::now();
        client.call("process/terminate", json!({"processId": "refuses", "graceMs": 150}));
        assert_eq!(client.finish("refuses").code, 137);
        assert!(start.elapsed() >= Duration::from_millis(150));

        client.start(script(
            "hurried",
            "trap '' TERM; echo ready; while :; do sleep 0.1; done",
        ));
        client.output_until("hurried", "ready\n");
        client.call(
            "process/terminate",
            json!({"processId": "hurried", "graceMs": 1_000_000}),
        );
        client.call("process/terminate", json!({"processId": "hurried"}));
        assert_eq!(client.finish("hurried").code, 137);
    });
}
