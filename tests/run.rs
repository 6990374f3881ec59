//! `exec-server run`: a command through a server is like the command.

#![cfg(feature = "client")]

mod kit;

use kit::{Cli, Dir, Ended, Fault, FaultProxy, Server, cli, command, is_alive, scripted, until};
use nix::sys::signal::Signal;
use serde_json::json;
use std::fs::{File, Permissions};
use std::io::{BufRead, BufReader, Read, Seek};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

/// Calls `test` with the arguments that name each kind of server: in the same program, spawned, and remote.
fn everywhere(test: impl Fn(&[&str])) {
    let spawn = format!("{} --listen stdio", kit::exec_server());
    let server = Server::websocket(&[]);
    for place in [
        &["run"][..],
        &["run", "--spawn", &spawn],
        &["run", "--connect", server.url()],
    ] {
        println!("{place:?}");
        test(place);
    }
}

fn with<'a>(place: &[&'a str], arguments: &[&'a str]) -> Vec<&'a str> {
    [place, arguments].concat()
}

fn shell(place: &[&str], script: &str) -> Ended {
    cli(&with(place, &["sh", "-c", script]))
}

/// The pid in the last line of a text.
fn pid(text: &str) -> i32 {
    text.lines().last().unwrap().trim().parse().unwrap()
}

fn gone(pid: i32) {
    until("the end of a process", || (!is_alive(pid)).then_some(()));
}

#[test]
fn output_and_exit_code_are_the_commands() {
    everywhere(|place| {
        let ended = shell(place, "echo out; echo err >&2; exit 3");
        assert_eq!((ended.code, ended.text(), &*ended.stderr), (3, "out\n", "err\n"));
        assert_eq!(shell(place, "exit 0").code, 0);
        assert_eq!(shell(place, "kill -KILL $$").code, 137);
        assert_eq!(shell(place, "kill -TERM $$").code, 143);
    });
}

#[test]
fn what_cannot_be_run_has_the_codes_of_shells() {
    let dir = Dir::new();
    std::fs::write(dir.path("data"), "no program").unwrap();
    let data = dir.path("data").to_str().unwrap().to_owned();
    everywhere(|place| {
        for (arguments, code, text) in [
            (
                &["no-such-program"][..],
                127,
                "failed to execute `no-such-program`: No such file",
            ),
            (&["/no/such/program"], 127, "No such file"),
            (&[&data], 126, "Permission denied"),
            (
                &["--cwd", "/no/such", "true"],
                125,
                "failed to enter the working directory `/no/such`",
            ),
        ] {
            let ended = cli(&with(place, arguments));
            assert_eq!((ended.code, ended.text()), (code, ""), "{arguments:?}");
            let line = ended.stderr.strip_prefix("exec-server: ").unwrap();
            assert!(line.contains(text) && line.lines().count() == 1, "{line}");
        }
    });
    assert_eq!(cli(&["run"]).code, 2);
    for (place, text) in [
        (
            ["--connect", "ws://127.0.0.1:1"],
            "failed to connect to exec-server websocket `ws://127.0.0.1:1`: Connection refused",
        ),
        (["--spawn", "echo why >&2; exit 1"], "exec-server: why"),
    ] {
        let ended = cli(&with(&["run"], &with(&place, &["true"])));
        assert_eq!(ended.code, 125);
        assert!(ended.stderr.contains(text), "{}", ended.stderr);
    }
}

#[test]
fn input_arrives_whole_and_ends() {
    let input: Vec<u8> = (0..6_000_000u32).map(|n| (n ^ (n >> 9)) as u8).collect();
    everywhere(|place| {
        let mut run = Cli::start(&with(place, &["cat"]));
        run.write(b"first");
        run.output_until("first");
        run.write(&input);
        run.close_input();
        let ended = run.finish();
        assert_eq!(ended.code, 0);
        assert!(ended.stdout.strip_prefix(b"first").unwrap() == input);
    });
}

#[test]
fn much_output_arrives_whole() {
    everywhere(|place| {
        let ended = shell(place, "seq 1 1000000; seq 1 1000 >&2");
        let lines = |n: u32| (1..=n).map(|n| format!("{n}\n")).collect::<String>();
        assert!(ended.stdout == lines(1_000_000).as_bytes());
        assert!(ended.stderr == lines(1000));
    });
}

#[test]
fn a_command_that_does_not_read_leaves_the_input_alone() {
    let dir = Dir::new();
    std::fs::write(dir.path("input"), "for others").unwrap();
    everywhere(|place| {
        let mut input = File::open(dir.path("input")).unwrap();
        let mut run = command(&with(place, &["no-such-program"]));
        assert_eq!(Cli::run(run.stdin(input.try_clone().unwrap())).code, 127);
        assert_eq!(input.stream_position().unwrap(), 0);
        // Nor is the end waited for.
        let run = Cli::start(&with(place, &["true"]));
        assert_eq!(run.finish().code, 0);
    });
}

#[test]
fn signals_are_passed_on() {
    everywhere(|place| {
        for (signal, name, code) in [
            (Signal::SIGINT, "INT", 11),
            (Signal::SIGTERM, "TERM", 12),
            (Signal::SIGHUP, "HUP", 13),
            (Signal::SIGQUIT, "QUIT", 14),
            (Signal::SIGUSR1, "USR1", 15),
            (Signal::SIGUSR2, "USR2", 16),
        ] {
            let script = format!("trap 'echo caught; exit {code}' {name}; echo ready; while :; do sleep 0.05; done");
            let run = Cli::start(&with(place, &["sh", "-c", &script]));
            run.output_until("ready");
            run.signal(signal);
            let ended = run.finish();
            assert_eq!((ended.code, ended.text()), (code, "ready\ncaught\n"), "{signal}");
        }
    });
    let run = Cli::start(&["run", "sh", "-c", "echo ready; exec sleep 1000"]);
    run.output_until("ready");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.finish().code, 143);
}

#[test]
fn interrupts_in_quick_succession_kill() {
    everywhere(|place| {
        let script = "trap 'echo caught' INT; echo ready; while :; do sleep 0.01; done";
        let run = Cli::start(&with(place, &["sh", "-c", script]));
        run.output_until("ready");
        run.signal(Signal::SIGINT);
        run.output_until("caught");
        until("the end of the program", || {
            run.signal(Signal::SIGINT);
            (!is_alive(run.pid())).then_some(())
        });
        assert_eq!(run.finish().code, 137);
    });
}

#[test]
fn a_signal_that_is_ignored_stays_so() {
    let script = r#"trap "" HUP; exec "$0" run sh -c 'trap "exit 9" USR1; echo ready; while :; do sleep 0.05; done'"#;
    let mut nohup = std::process::Command::new("sh");
    let run = Cli::of(nohup.args(["-c", script, kit::exec_server()]).stdin(Stdio::null()));
    run.output_until("ready");
    run.signal(Signal::SIGHUP);
    run.signal(Signal::SIGUSR1);
    assert_eq!(run.finish().code, 9);
}

#[test]
fn a_signal_before_the_command_ends_it_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let run = Cli::start(&["run", "--connect", &url, "true"]);
        let (mut silent, _) = listener.accept().unwrap();
        // It has asked, so it takes signals by now.
        silent.read_exact(&mut [0; 3]).unwrap();
        run.signal(signal);
        assert_eq!(run.finish().code, code);
    }
}

#[test]
fn a_time_that_is_over_ends_the_command() {
    everywhere(|place| {
        let script = "trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done";
        let ended = cli(&with(place, &["--timeout", "1", "sh", "-c", script]));
        assert_eq!((ended.code, ended.text()), (124, "bye\n"));
        assert_eq!(cli(&with(place, &["--timeout", "1000", "true"])).code, 0);
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    assert_eq!(cli(&["run", "--timeout", "0", "--connect", &url, "true"]).code, 124);
}

#[test]
fn environment_and_directory() {
    let dir = Dir::new();
    let here = std::fs::canonicalize(dir.path("")).unwrap();
    let run = |place: &[&str], arguments: &[&str]| {
        let mut run = command(&with(place, arguments));
        run.env("FROM_HERE", "x").env("A_TOKEN", "y").current_dir(&here);
        let ended = Cli::run(run.stdin(Stdio::null()));
        assert_eq!((ended.code, &*ended.stderr), (0, ""));
        ended.text().to_owned()
    };
    let script = "echo $FROM_HERE-$A_TOKEN-$B-${HOME:+home}; pwd";
    let own = run(&["run"], &["--env", "B=1=2", "sh", "-c", script]);
    assert_eq!(own, format!("x-y-1=2-home\n{}\n", here.display()));
    std::fs::create_dir(dir.path("sub")).unwrap();
    let sub = run(&["run"], &["--cwd", "sub", "--env", "FROM_HERE=z", "sh", "-c", script]);
    assert_eq!(sub, format!("z-y--home\n{}/sub\n", here.display()));
    // The spawned server has the same environment, but does not give away what may be a secret.
    let spawn = format!("{} --listen stdio", kit::exec_server());
    let spawned = run(&["run", "--spawn", &spawn], &["sh", "-c", script]);
    assert_eq!(spawned, format!("x---home\n{}\n", here.display()));
    let server = Server::websocket(&[]);
    let remote = ["run", "--connect", server.url()];
    let cwd = std::env::current_dir().unwrap();
    assert_eq!(
        run(&remote, &["sh", "-c", script]),
        format!("---home\n{}\n", cwd.display())
    );
    assert_eq!(
        run(&remote, &["--cwd", "src", "pwd"]),
        format!("{}/src\n", cwd.display())
    );
    for place in [&["run"][..], &remote] {
        assert_eq!(run(place, &["--clear-env", "--env", "A=1", "env"]), "A=1\n");
        assert_eq!(run(place, &["--cwd", "/", "pwd"]), "/\n");
    }
}

#[test]
fn a_command_whose_output_nobody_reads_is_ended() {
    everywhere(|place| {
        let mut run = command(&with(place, &["sh", "-c", "echo $$ >&2; exec yes"]))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(run.stderr.take().unwrap()).read_line(&mut line).unwrap();
        run.stdout.take().unwrap().read_exact(&mut [0; 100]).unwrap();
        let status = until("the end of the program", || run.try_wait().unwrap());
        assert_eq!(status.code(), Some(141));
        gone(pid(&line));
    });
}

#[test]
fn what_a_command_leaves_running_is_ended() {
    everywhere(|place| {
        let holds_output = shell(place, "sleep 1000 & echo $!");
        assert_eq!(holds_output.code, 0);
        gone(pid(holds_output.text()));
        let says_more = shell(place, "(while kill -0 $$ 2>/dev/null; do :; done; echo more) & exit 4");
        assert_eq!((says_more.code, says_more.text()), (4, "more\n"));
    });
    let script = "setsid sh -c 'echo $$; exec sleep 1000 >/dev/null 2>&1' & read x";
    let mut run = Cli::start(&["run", "sh", "-c", script]);
    let away = pid(&run.output_until("\n"));
    run.write(b"\n");
    assert_eq!(run.finish().code, 0);
    gone(away);
}

#[test]
fn nothing_is_left_of_a_command_that_ignores_signals() {
    let script = "trap '' TERM INT; setsid sleep 1000 >/dev/null 2>&1 & echo $!; while :; do sleep 0.05; done";
    let run = Cli::start(&["run", "sh", "-c", script]);
    let sleeper = pid(&run.output_until("\n"));
    until("the end of the program", || {
        run.signal(Signal::SIGTERM);
        (!is_alive(run.pid())).then_some(())
    });
    assert_eq!(run.finish().code, 137);
    gone(sleeper);
}

#[test]
fn a_token_is_read_from_a_file_or_the_environment() {
    let dir = Dir::new();
    let file = dir.path("token");
    std::fs::write(&file, "s3cret\n").unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let file = file.to_str().unwrap();
    let server = Server::websocket(&["--ws-auth", "capability-token", "--ws-token-file", file]);
    let run = ["run", "--connect", server.url()];
    assert_eq!(cli(&with(&run, &["--token-file", file, "true"])).code, 0);
    let mut by_variable = command(&with(&run, &["true"]));
    assert_eq!(
        Cli::run(by_variable.stdin(Stdio::null()).env("EXEC_SERVER_TOKEN", "s3cret")).code,
        0
    );
    let refused = cli(&with(&run, &["true"]));
    assert_eq!(refused.code, 125);
    assert!(refused.stderr.contains("401"), "{}", refused.stderr);
    std::fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
    let open = cli(&with(&run, &["--token-file", file, "true"]));
    assert_eq!(open.code, 125);
    assert!(open.stderr.contains("is open to group or others"), "{}", open.stderr);
}

/// Starts a command and leaves it running; returns the session and its name.
fn detach(server: &Server, arguments: &[&str]) -> (String, String) {
    let run = ["run", "--connect", server.url(), "--detach"];
    let mut run = command(&with(&run, arguments));
    // A pipe, so that it gets input.
    let ended = Cli::run(run.stdin(Stdio::piped()));
    assert_eq!((ended.code, &*ended.stderr), (0, ""));
    let (session, process) = ended.text().trim_end().split_once(' ').unwrap();
    (session.to_owned(), process.to_owned())
}

#[test]
fn a_command_is_left_and_gone_on_with() {
    let server = Server::websocket(&[]);
    let script = "echo ready; while read line; do echo got $line; done; exit 6";
    let (session, process) = detach(&server, &["sh", "-c", script]);
    let on = ["--connect", server.url(), "--session", &session];
    let table = cli(&with(&["ps"], &on));
    let rows: Vec<Vec<&str>> = table
        .text()
        .lines()
        .map(|row| row.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0], ["PID", "STATE", "TTY", "BYTES", "NAME"]);
    assert_eq!(
        (rows.len(), &rows[1][1..3], rows[1][4]),
        (2, &["running", "no"][..], &*process)
    );
    assert!(is_alive(rows[1][0].parse().unwrap()));

    let mut first = Cli::start(&with(&["attach"], &on));
    first.write(b"one\n");
    assert_eq!(first.output_until("got one\n"), "ready\ngot one\n");
    first.signal(Signal::SIGHUP);
    assert_eq!(first.finish().code, 129);

    let mut second = Cli::start(&with(&["attach"], &with(&on, &[&process])));
    assert_eq!(second.output_until("got one\n"), "ready\ngot one\n");
    second.write(b"two\n");
    second.output_until("got two\n");
    second.close_input();
    let ended = second.finish();
    assert_eq!(
        (ended.code, ended.text(), &*ended.stderr),
        (6, "ready\ngot one\ngot two\n", "")
    );

    assert!(cli(&with(&["ps"], &on)).text().contains("exited 6"));
    let again = cli(&with(&["attach"], &on));
    assert_eq!((again.code, again.text()), (6, "ready\ngot one\ngot two\n"));
    let unknown = cli(&with(&["attach"], &with(&on, &["nobody"])));
    assert_eq!(
        (unknown.code, &*unknown.stderr),
        (125, "exec-server: the session has no process `nobody`\n")
    );
    let unknown = cli(&["ps", "--connect", server.url(), "--session", "nope"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.stderr.contains("unknown session id nope"), "{}", unknown.stderr);
}

#[test]
fn what_is_not_kept_is_counted() {
    let server = Server::websocket(&["--retain-bytes", "64k"]);
    let (session, _) = detach(
        &server,
        &["sh", "-c", "seq 1 100000; echo done; read x; echo $x; exit 2"],
    );
    let on = ["--connect", server.url(), "--session", &session];
    let table = cli(&with(&["ps"], &on));
    let row = table.text().lines().nth(1).unwrap();
    // It has said all and waits for a line.
    kit::wait_until_blocked(row.split(' ').next().unwrap().parse().unwrap());
    let mut attach = Cli::start(&with(&["attach"], &on));
    attach.output_until("done\n");
    attach.write(b"word\n");
    let ended = attach.finish();
    let whole = (1..=100_000).map(|n| format!("{n}\n")).collect::<String>() + "done\nword\n";
    assert!(ended.code == 2 && whole.ends_with(ended.text()));
    let lost = whole.len() - ended.stdout.len();
    assert!(lost > 400_000);
    assert_eq!(
        ended.stderr,
        format!("exec-server: warn: {lost} bytes of output from before are gone\n")
    );
}

#[test]
fn a_lost_connection_is_resumed() {
    let server = Server::websocket(&[]);
    for verbose in [false, true] {
        let proxy = FaultProxy::new(server.address().parse().unwrap(), |n| match n {
            0..4 => (Fault::Cut, 300_000 * (n + 1)),
            _ => (Fault::None, 0),
        });
        let flags: &[&str] = if verbose { &["-v"] } else { &[] };
        let url = proxy.url();
        let run = with(&["run", "--connect", &url], flags);
        let mut run = Cli::start(&with(&run, &["sh", "-c", "seq 1 400000; cat; exit 5"]));
        run.write(&[b'x'; 300_000]);
        run.write(b"\n");
        run.close_input();
        let ended = run.finish();
        assert_eq!(ended.code, 5);
        let whole = (1..=400_000).map(|n| format!("{n}\n")).collect::<String>() + &"x".repeat(300_000) + "\n";
        assert!(ended.stdout == whole.as_bytes());
        assert!(proxy.faults() >= 2);
        // A connection may also be cut while the session is being resumed.
        assert_eq!(
            verbose,
            ended.stderr.contains("the session is resumed"),
            "{}",
            ended.stderr
        );
        assert!(verbose || ended.stderr.is_empty(), "{}", ended.stderr);
    }
}

#[test]
fn a_connection_that_cannot_be_resumed_is_an_error() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        server.start();
        server.accept();
        let request = server.request("initialize");
        server.refuse(&request, -32600, "unknown session id s");
        server.ignore_one();
    });
    let ended = cli(&["run", "--connect", &url, "true"]);
    assert_eq!((ended.code, ended.text()), (125, ""));
    let text = "exec-server: exec-server transport disconnected; failed to resume exec-server session: \
        exec-server rejected request (-32600): unknown session id s\n";
    assert_eq!(ended.stderr, text);
    // The script waits for one more connection.
    drop(std::net::TcpStream::connect(url.strip_prefix("ws://").unwrap()).unwrap());
    script.join().unwrap();
}

#[test]
fn a_server_that_knows_one_signal_only_is_asked_to_end_the_command() {
    let (url, script) = scripted(|server| {
        server.open("s", json!({}));
        let id = server.start()["processId"].clone();
        let request = server.request("process/signal");
        assert_eq!(request["params"], json!({"processId": id, "signal": "terminate"}));
        server.refuse(&request, -32602, "unknown variant `terminate`, expected `interrupt`");
        let request = server.request("process/terminate");
        server.answer(&request, json!({"running": true}));
        for (method, seq) in [("process/exited", 1), ("process/closed", 2)] {
            let params = json!({"processId": id, "seq": seq, "exitCode": 137});
            server.send(&json!({"method": method, "params": params}));
        }
        while server.socket().read().is_ok() {}
    });
    let mut run = Cli::start(&["run", "--connect", &url, "true"]);
    // Once input is forwarded, the command has been started.
    run.close_input();
    run.errors_until("the server cannot close the input");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.finish().code, 137);
    script.join().unwrap();
}

#[test]
fn a_sandbox_holds_a_command_and_lets_it_work() {
    if let Err(e) = exec_server::sandbox::Enforcer::default().check() {
        println!("not tried: {e}");
        return;
    }
    everywhere(|place| {
        let dir = Dir::new();
        // Not in a directory for temporary files, all of which may be written.
        let home = std::fs::canonicalize(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let outside = home.join(dir.path("").file_name().unwrap());
        let workspace = outside.join("ws");
        std::fs::create_dir_all(workspace.join(".git")).unwrap();
        let cwd = workspace.to_str().unwrap();
        let script = "echo 1 > a && echo 2 > .git/b; echo 3 > ../c; read line; echo \"$line\"; exit 5";
        for (mode, may_write) in [("read-only", false), ("workspace-write", true)] {
            let arguments = ["--sandbox", mode, "--cwd", cwd, "--", "sh", "-c", script];
            let mut run = Cli::start(&with(place, &arguments));
            run.write(b"input\n");
            run.close_input();
            let ended = run.finish();
            assert_eq!((ended.code, ended.text()), (5, "input\n"), "{}", ended.stderr);
            assert_eq!(workspace.join("a").exists(), may_write);
            assert!(!workspace.join(".git/b").exists() && !outside.join("c").exists());
        }
        std::fs::remove_dir_all(&outside).unwrap();
    });
}

#[test]
fn bytes_are_not_changed() {
    let every: Vec<u8> = (0..=255).collect();
    everywhere(|place| {
        let mut run = Cli::start(&with(place, &["cat"]));
        run.write(&every);
        run.close_input();
        let ended = run.finish();
        assert!(ended.code == 0 && ended.stdout == every);
    });
}
