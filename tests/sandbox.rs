//! Commands in a sandbox: what they may do, and that all else is as without one.

mod kit;

use kit::{Client, Dir, Server, both, children, is_alive, on_terminal, program, script, until, uri};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::process::Command;

/// Whether there can be sandboxes here; says so if not.
fn is_possible() -> bool {
    let possible = exec_server::sandbox::Enforcer::default().check();
    if let Err(e) = &possible {
        println!("not tried: {e}");
    }
    possible.is_ok()
}

/// Runs a test over each transport, with a client and a directory that has a workspace `ws` and a place `out` outside.
fn in_workspace(test: impl Fn(&Server, &mut Client, &Dir)) {
    if is_possible() {
        both(|server, client| {
            let dir = Dir::new();
            std::fs::create_dir_all(dir.path("ws")).unwrap();
            std::fs::create_dir_all(dir.path("out")).unwrap();
            test(server, client, &dir);
        });
    }
}

fn special(kind: &str, access: &str) -> Value {
    json!({"path": {"type": "special", "value": {"kind": kind}}, "access": access})
}

fn sandbox(dir: &Dir, entries: &[Value], network: &str) -> Value {
    let files = json!({"type": "restricted", "entries": entries});
    json!({"permissions": {"type": "managed", "file_system": files, "network": network},
        "cwd": dir.uri("ws"), "workspaceRoots": [dir.uri("ws")], "windowsSandboxLevel": "disabled"})
}

/// The workspace may be written, everything read, nothing reached.
fn workspace(dir: &Dir) -> Value {
    sandbox(
        dir,
        &[special("root", "read"), special("project_roots", "write")],
        "restricted",
    )
}

fn confined(mut start: Value, dir: &Dir) -> Value {
    start["cwd"] = dir.uri("ws").into();
    start["sandbox"] = workspace(dir);
    start
}

#[test]
fn a_refusal_is_told_and_a_failure_of_its_own_is_not() {
    in_workspace(|_, client, dir| {
        let run = client.run(confined(script("a", "echo x > f; echo x > ../out/f"), dir));
        assert!(run.code != 0 && run.sandbox_denied, "{run:?}");
        assert_eq!(
            client.call("process/read", json!({"processId": "a"}))["sandboxDenied"],
            true
        );
        assert!(dir.path("ws/f").exists() && !dir.path("out/f").exists());
        let run = client.run(confined(script("b", "ls /nowhere; exit 3"), dir));
        assert!(run.code == 3 && !run.sandbox_denied, "{run:?}");
        let run = client.run(confined(script("c", "echo x > ../out/f; exit 0"), dir));
        assert!(run.code == 0 && !run.sandbox_denied, "{run:?}");
        let run = client.run(script("d", "echo permission denied; exit 1"));
        assert!(!run.sandbox_denied, "{run:?}");
    });
}

#[test]
fn signals_reach_a_command_as_without() {
    in_workspace(|_, client, dir| {
        // One that does not handle it dies of it, although it is the first program in its namespace.
        client.start(confined(program("a", &["/bin/sleep", "1000"]), dir));
        client.call("process/signal", json!({"processId": "a", "signal": "interrupt"}));
        let run = client.finish("a");
        assert_eq!((run.code, run.signal.as_deref()), (130, Some("SIGINT")));
        let run = client.run(confined(script("b", "kill -TERM $$; sleep 9"), dir));
        assert_eq!((run.code, run.signal.as_deref()), (143, Some("SIGTERM")));
        client.start(confined(on_terminal(program("c", &["/bin/cat"])), dir));
        client.write("c", "0", "up\n");
        client.output_until("c", "up\r\nup\r\n");
        client.write("c", "1", "\x03");
        let run = client.finish("c");
        assert_eq!((run.code, run.signal.as_deref()), (130, Some("SIGINT")));
    });
}

#[test]
fn nothing_outlives_a_sandboxed_command() {
    in_workspace(|server, client, dir| {
        let text = "setsid sh -c 'echo $$ > f; exec sleep 1000' & while [ ! -s f ]; do sleep 0.01; done; echo up; exec sleep 1000";
        for (id, end) in [("a", "process/terminate"), ("b", "process/signal")] {
            let _ = std::fs::remove_file(dir.path("ws/f"));
            client.start(confined(script(id, text), dir));
            client.output_until(id, "up");
            let all = family(server.pid());
            assert!(all.len() >= 3, "{all:?}");
            client.call(end, json!({"processId": id, "signal": "interrupt"}));
            client.finish(id);
            until("the end of all", || all.iter().all(|pid| !is_alive(*pid)).then_some(()));
        }
        // Not even when it ends by itself, where one without a sandbox leaves them.
        client.start(confined(script("c", "setsid sleep 1000 & echo up; read line"), dir));
        client.output_until("c", "up");
        client.finish("c");
        until("the end of all", || family(server.pid()).is_empty().then_some(()));
    });
}

/// All descendants of a process.
fn family(pid: i32) -> Vec<i32> {
    let mut all = children(pid);
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        let more = children(*pid);
        all.extend(more);
        next += 1;
    }
    all
}

#[test]
fn what_cannot_be_started_is_refused_as_without() {
    in_workspace(|_, client, dir| {
        let refused = |client: &mut Client, start: Value| client.refusal("process/start", start);
        let (code, text) = refused(client, confined(program("a", &["/no/such/program"]), dir));
        assert_eq!(code, -32603);
        assert!(
            text.starts_with("failed to execute `/no/such/program`: No such file"),
            "{text}"
        );
        let mut start = confined(program("a", &["/bin/true"]), dir);
        start["cwd"] = dir.uri("ws/missing").into();
        let (code, text) = refused(client, start);
        assert!(
            code == -32603 && text.starts_with("failed to enter the working directory"),
            "{text}"
        );
        // One that nobody may enter is none.
        let mut start = confined(program("a", &["/bin/true"]), dir);
        let hidden = json!({"path": {"type": "path", "path": dir.uri("ws")}, "access": "deny"});
        start["sandbox"] = sandbox(dir, &[special("root", "read"), hidden], "restricted");
        let (code, text) = refused(client, start);
        assert!(code == -32603 && text.contains("Permission denied"), "{text}");
        std::os::unix::fs::symlink("/tmp", dir.path("ws/.git")).unwrap();
        let (code, text) = refused(client, confined(program("a", &["/bin/true"]), dir));
        assert!(code == -32603 && text.contains("crosses writable symlink"), "{text}");
        assert_eq!(client.call("process/list", Value::Null)["processes"], json!([]));
    });
}

#[test]
fn a_policy_that_restricts_nothing_is_no_sandbox() {
    in_workspace(|_, client, dir| {
        for (id, permissions) in [
            ("a", json!({"type": "disabled"})),
            ("b", json!({"type": "external", "network": "enabled"})),
            (
                "c",
                json!({"type": "managed", "file_system": {"type": "unrestricted"}, "network": "enabled"}),
            ),
        ] {
            let mut start = script(id, "exec 3>out; echo x >&3; ls -d /proc/1");
            start["cwd"] = dir.uri("out").into();
            start["sandbox"] = json!({"permissions": permissions, "windowsSandboxLevel": "disabled"});
            assert_eq!(client.call("process/start", start)["sandboxType"], "none");
            assert_eq!(client.finish(id).code, 0);
        }
    });
}

#[test]
fn older_clients_wrap_their_commands() {
    in_workspace(|_, client, dir| {
        let wrapper = "/home/user/.codex/tmp/arg0/codex-arg0x/codex-linux-sandbox";
        let policy = json!({"type": "workspace-write", "writable_roots": [], "network_access": false,
            "exclude_tmpdir_env_var": true, "exclude_slash_tmp": true});
        let cwd = dir.path("ws").display().to_string();
        let policy = policy.to_string();
        let mut start = program(
            "a",
            &[
                wrapper,
                "--sandbox-policy-cwd",
                &cwd,
                "--sandbox-policy",
                &policy,
                "--",
                "/bin/sh",
                "-c",
                "echo $0; echo x > f; echo x > ../out/f",
            ],
        );
        start["cwd"] = cwd.clone().into();
        start["arg0"] = wrapper.into();
        assert_eq!(client.call("process/start", start)["sandboxType"], "linuxSeccomp");
        let run = client.finish("a");
        assert_eq!(run.stdout, b"/bin/sh\n");
        assert!(
            run.sandbox_denied && dir.path("ws/f").exists() && !dir.path("out/f").exists(),
            "{run:?}"
        );
        let start = program("b", &[wrapper, "--nonsense", "--", "/bin/true"]);
        assert_eq!(client.refusal("process/start", start).0, -32602);
    });
}

#[test]
fn the_environment_tells_whether_there_are_sandboxes() {
    in_workspace(|_, client, _| {
        let info = client.call("environment/info", Value::Null);
        assert_eq!(info["sandbox"]["available"], true, "{info}");
    });
}

#[test]
fn more_can_be_hidden_than_there_are_descriptors() {
    if !is_possible() {
        return;
    }
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" --listen stdio", kit::exec_server()]);
    let (_server, mut client) = Server::on_pipes(command);
    client.handshake();
    let dir = Dir::new();
    for n in 0..200 {
        std::fs::create_dir_all(dir.path(&format!("ws/d{n}.env"))).unwrap();
        std::fs::write(dir.path(&format!("ws/f{n}.env")), "secret").unwrap();
    }
    let pattern = json!({"path": {"type": "glob_pattern", "pattern": "*.env"}, "access": "deny"});
    let mut start = script("a", "cat f0.env f199.env; ls d0.env d199.env; echo done");
    start["cwd"] = dir.uri("ws").into();
    start["sandbox"] = sandbox(
        &dir,
        &[special("root", "read"), special("project_roots", "write"), pattern],
        "enabled",
    );
    let run = client.run(start);
    assert_eq!(run.stdout, b"done\n", "{run:?}");
    assert_eq!(
        String::from_utf8_lossy(&run.stderr).matches("ermission denied").count(),
        4
    );
}

#[test]
fn a_killed_server_leaves_nothing_of_a_sandbox() {
    if !is_possible() {
        return;
    }
    let (mut server, mut client) = Server::stdio();
    client.handshake();
    let dir = Dir::new();
    std::fs::create_dir_all(dir.path("ws")).unwrap();
    client.start(confined(
        script("a", "setsid sleep 1000 & echo up; exec sleep 1000"),
        &dir,
    ));
    client.output_until("a", "up");
    let all = until("the whole family", || {
        Some(family(server.pid())).filter(|all| all.len() >= 3)
    });
    server.signal(Signal::SIGKILL);
    server.wait();
    until("the end of all", || all.iter().all(|pid| !is_alive(*pid)).then_some(()));
}

#[test]
fn many_sandboxes_leave_nothing_behind() {
    in_workspace(|server, client, dir| {
        let run = |client: &mut Client, n: usize, name: &str| {
            for i in 0..n {
                let id = format!("{name}{i}");
                client.start(confined(program(&id, &["/bin/true"]), dir));
            }
            for i in 0..n {
                assert_eq!(client.finish(&format!("{name}{i}")).code, 0);
            }
        };
        run(client, 5, "few");
        let descriptors = || kit::threads_and_fds(server.pid()).1;
        let before = until("a quiet server", || children(server.pid()).is_empty().then(descriptors));
        run(client, 40, "many");
        until("as many descriptors as before", || {
            (children(server.pid()).is_empty() && descriptors() <= before).then_some(())
        });
        assert_eq!(std::fs::read_dir(dir.path("ws")).unwrap().count(), 0);
        assert!(uri(&dir.path("ws")).starts_with("file:///"));
    });
}
