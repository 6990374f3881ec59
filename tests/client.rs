//! The blocking client against the built server.

#![cfg(feature = "client")]

mod kit;

use exec_server::client::events::{ExecOutputStream, ExecProcessEvent, RecvError};
use exec_server::client::{
    ExecServerClient, ExecServerClientConnectOptions, ExecServerError, ExecServerLaunchCommand,
    RemoteExecServerConnectArgs, StartOptions, WriteStatus,
};
use exec_server::protocol::process::{ProcessSignal, TerminalSize};
use kit::{DEADLINE, Dir, PATH, Server, until};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::time::Duration;

fn over_websocket(server: &Server) -> ExecServerClient {
    let args = RemoteExecServerConnectArgs::new(format!("ws://{}", server.address()));
    ExecServerClient::connect_websocket(args).unwrap()
}

fn launch(arguments: &[&str]) -> ExecServerLaunchCommand {
    ExecServerLaunchCommand {
        program: kit::exec_server().into(),
        args: arguments.iter().map(Into::into).collect(),
        ..ExecServerLaunchCommand::default()
    }
}

/// Runs a test with a client over each transport.
fn each(test: impl Fn(&ExecServerClient)) {
    println!("over WebSocket");
    let server = Server::websocket(&[]);
    test(&over_websocket(&server));
    println!("over stdio");
    test(&ExecServerClient::spawn(&launch(&["--listen", "stdio"])).unwrap());
    println!("in process");
    test(&in_process());
}

/// A client of a server in this program.
fn in_process() -> ExecServerClient {
    use exec_server::server::{Server, ServerConfig};
    use exec_server::transport::memory;
    let (client, end) = memory::pair(std::num::NonZeroUsize::MIN);
    Server::new(ServerConfig::default()).serve_memory(end, || ()).unwrap();
    ExecServerClient::connect_memory(client, ExecServerClientConnectOptions::default()).unwrap()
}

fn script(text: &str) -> StartOptions {
    StartOptions::new(["/bin/sh", "-c", text]).env("PATH", PATH)
}

fn message<T>(result: Result<T, ExecServerError>) -> String {
    result.err().map_or_else(|| "no error".into(), |e| e.to_string())
}

#[test]
fn output_and_the_exit_come_back() {
    each(|client| {
        let process = client.start_process(&script("echo out; echo err >&2; exit 3")).unwrap();
        let output = process.output().unwrap();
        assert_eq!((output.exit.exit_code, output.exit.signal), (3, None));
        assert_eq!((output.stdout, output.stderr), (b"out\n".to_vec(), b"err\n".to_vec()));
        assert_eq!((process.exit_code(), process.has_exited()), (Some(3), true));
        assert!(process.events().is_none());
    });
}

#[test]
fn events_are_numbered_without_gaps_and_end_with_closed() {
    each(|client| {
        let process = client.start_process(&script("echo a; kill -9 $$")).unwrap();
        let events: Vec<_> = process.events().unwrap().map(Result::unwrap).collect();
        let seqs: Vec<_> = events.iter().filter_map(ExecProcessEvent::seq).collect();
        assert_eq!(seqs, [1, 2, 3]);
        assert!(
            matches!(&events[0], ExecProcessEvent::Output(o) if o.stream == ExecOutputStream::Stdout && o.chunk == "a\n")
        );
        let signal = "SIGKILL".to_owned();
        assert!(
            matches!(&events[1], ExecProcessEvent::Exited { exit_code: 137, signal: Some(s), sandbox_denied: Some(false), .. } if *s == signal)
        );
        assert!(matches!(&events[2], ExecProcessEvent::Closed { seq: 3 }));
        let again: Vec<_> = process.subscribe().map(Result::unwrap).collect();
        assert_eq!(again, events);
        assert!(process.wake().wait(2, Some(DEADLINE)) >= 3);
    });
}

#[test]
fn without_replay_a_late_subscriber_is_told_what_there_was() {
    each(|client| {
        // More than a block of the server's, so that it is handed over as it lies there.
        let script = script("head -c 500000 /dev/zero; read go")
            .pipe_stdin()
            .without_replay();
        let process = client.start_process(&script).unwrap();
        let mut output = process.merged_output().unwrap();
        output.read_exact(&mut vec![0; 500_000]).unwrap();
        let mut late = process.subscribe();
        process.write(b"go\n").unwrap();
        match late.recv() {
            Err(RecvError::Lagged(lagged)) => assert_eq!(lagged.bytes, 500_000),
            other => panic!("{other:?}"),
        }
        assert!(matches!(late.recv(), Ok(ExecProcessEvent::Exited { exit_code: 0, .. })));
        assert!(matches!(late.recv(), Ok(ExecProcessEvent::Closed { .. })));
        assert_eq!(output.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn input_is_echoed_and_ended() {
    each(|client| {
        let process = client
            .start_process(&StartOptions::new(["/bin/cat"]).pipe_stdin())
            .unwrap();
        let mut output = BufReader::new(process.merged_output().unwrap());
        let mut stdin = process.stdin();
        for line in ["one\n", "two\n"] {
            stdin.write_all(line.as_bytes()).unwrap();
            let mut read = String::new();
            output.read_line(&mut read).unwrap();
            assert_eq!(read, line);
        }
        // More than pipes, windows and one message hold.
        let large: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
        let mut back = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                stdin.write_all(&large).unwrap();
                stdin.close().unwrap();
            });
            output.read_to_end(&mut back).unwrap();
        });
        assert!(back == large, "{} bytes", back.len());
        assert_eq!(process.wait(Some(DEADLINE)).unwrap().exit_code, 0);
        let too_late = stdin.write_all(b"x").and_then(|()| stdin.flush());
        assert_eq!(too_late.unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
        stdin.close().unwrap();
    });
}

#[test]
fn both_streams_can_be_read_as_from_a_child() {
    each(|client| {
        let text = "head -c 3000000 /dev/zero & head -c 2000000 /dev/zero >&2; wait";
        let process = client.start_process(&script(text)).unwrap();
        let (mut stdout, mut stderr) = process.stdout_and_stderr().unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(|| stdout.read_to_end(&mut out).unwrap());
            stderr.read_to_end(&mut err).unwrap();
        });
        assert_eq!((out.len(), err.len()), (3_000_000, 2_000_000));
    });
}

#[test]
fn a_process_that_nobody_reads_holds_no_other_up() {
    each(|client| {
        let noisy = client.start_process(&script("exec yes")).unwrap();
        until("a full window", || (noisy.wake().seen() > 3).then_some(()));
        let quiet = client.start_process(&script("echo quiet")).unwrap();
        assert_eq!(quiet.output().unwrap().stdout, b"quiet\n");
        assert!(noisy.terminate(Duration::ZERO).unwrap());
        assert_eq!(noisy.wait(Some(DEADLINE)).unwrap().exit_code, 137);
    });
}

#[test]
fn discarded_output_holds_nothing_up() {
    each(|client| {
        let process = client
            .start_process(&script("head -c 20000000 /dev/zero; exit 4"))
            .unwrap();
        assert_eq!(process.wait(Some(DEADLINE)).unwrap().exit_code, 4);
        let process = client
            .start_process(&script("head -c 20000000 /dev/zero; exit 5"))
            .unwrap();
        drop(process.events());
        assert_eq!(process.wait(Some(DEADLINE)).unwrap().exit_code, 5);
    });
}

#[test]
fn signals_terminals_and_lists() {
    each(|client| {
        let text = "trap 'echo usr1' USR1; trap 'stty size; exit 7' INT; echo ready; while :; do sleep 0.01; done";
        let process = client
            .start_process(&script(text).terminal(30, 100).process_id("t"))
            .unwrap();
        let mut output = BufReader::new(process.merged_output().unwrap());
        let mut line = || {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        assert_eq!(line(), "ready");
        let pid = process.pid().unwrap();
        let listed = client.list().unwrap();
        assert_eq!((listed[0].process_id.as_str(), listed[0].pid), ("t", Some(pid)));
        assert!(listed[0].tty && !listed[0].exited);
        process.signal(ProcessSignal::Usr1).unwrap();
        // The shell says something, too, about the `sleep` that the signal has ended.
        while line() != "usr1" {}
        process.resize(TerminalSize { rows: 31, cols: 99 }).unwrap();
        process.signal(ProcessSignal::Interrupt).unwrap();
        while line() != "31 99" {}
        assert_eq!(process.wait(Some(DEADLINE)).unwrap().exit_code, 7);
        assert_eq!(process.pid(), Some(pid));
    });
}

#[test]
fn names_are_refused_twice_and_errors_say_what_the_server_said() {
    each(|client| {
        let sleeper = client
            .start_process(&script("exec sleep 1000").process_id("p"))
            .unwrap();
        let again = message(client.start_process(&script("true").process_id("p")));
        assert_eq!(
            again,
            "exec-server protocol error: session already registered for process p"
        );
        let again = message(client.exec(&script("true").process_id("p")));
        assert_eq!(again, "exec-server rejected request (-32600): process p already exists");
        let missing = message(client.start_process(&StartOptions::new(["/nowhere/prog"]).process_id("q")));
        assert!(
            missing.starts_with("exec-server rejected request (-32603): "),
            "{missing}"
        );
        // What could not be started can be tried again.
        let next = client.start_process(&script("exit 9").process_id("q")).unwrap();
        assert_eq!(next.wait(Some(DEADLINE)).unwrap().exit_code, 9);
        assert!(message(client.read("nobody", None, None, Duration::ZERO)).ends_with("unknown process id nobody"));
        let written = client.write("nobody", "1", b"x", false).unwrap();
        assert_eq!(written, WriteStatus::UnknownProcess);
        let closed = message(sleeper.write(b"x"));
        assert_eq!(closed, "exec-server protocol error: stdin of process p is closed");
        assert!(sleeper.wait(Some(Duration::from_millis(1))).is_err());
        assert!(!client.terminate("nobody", Duration::ZERO).unwrap());
        assert!(sleeper.terminate(Duration::from_secs(20)).unwrap());
        assert_eq!(sleeper.wait(Some(DEADLINE)).unwrap().exit_code, 143);
    });
}

#[test]
fn output_of_a_bare_exec_is_read() {
    each(|client| {
        let id = client.exec(&script("echo hello; echo oops >&2; exit 3")).unwrap();
        let read = client.read(&id, Some(99), None, DEADLINE).unwrap();
        assert!(read.closed && read.chunks.is_empty());
        let read = client.read(&id, None, None, Duration::ZERO).unwrap();
        assert_eq!((read.exit_code, read.next_seq, read.lost_bytes), (Some(3), 5, 0));
        assert_eq!((read.chunks.len(), read.chunks[0].seq), (2, 1));
        let read = client.read(&id, None, Some(1), Duration::ZERO).unwrap();
        assert_eq!((read.chunks.len(), &read.chunks[0].chunk[..]), (1, &b"hello\n"[..]));
    });
}

#[test]
fn the_server_says_where_it_runs() {
    each(|client| {
        assert!(!client.session_id().is_empty());
        assert!(client.has_capability("processAck") && !client.has_capability("networkProxyLaunch"));
        let environment = client.environment_info().unwrap();
        assert_eq!(environment.platform_os.as_deref(), Some("linux"));
        assert!(!environment.shell.path.is_empty());
        assert_eq!(client.environment_status().unwrap(), "ready");
        let params = exec_server::protocol::environment::EnvironmentConfigParams {
            cwd: exec_server::protocol::path_uri::PathUri("/".into()),
            config_paths: vec![vec!["model".into()]],
            requirements_paths: Vec::new(),
        };
        let config = client.environment_config(&params).unwrap();
        assert!(config.starts_with(b"{"), "{}", String::from_utf8_lossy(&config));
    });
}

#[test]
fn files_go_there_and_back() {
    each(|client| {
        let dir = Dir::new();
        let large: Vec<u8> = (0..20_000_000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        client.fs_write_file(dir.path("large"), &large).unwrap();
        assert!(std::fs::read(dir.path("large")).unwrap() == large);
        assert!(client.fs_read_file(dir.path("large")).unwrap() == large);
        client.fs_write_file(dir.path("a b%"), b"small").unwrap();
        assert_eq!(client.fs_read_file(dir.path("a b%")).unwrap(), b"small");
        client.fs_write_file(dir.path("empty"), b"").unwrap();
        assert_eq!(client.fs_read_file(dir.path("empty")).unwrap(), b"");

        client.fs_create_directory(dir.path("d/e"), true).unwrap();
        assert_eq!(
            client.fs_copy(dir.path("a b%"), dir.path("d/f"), false).unwrap(),
            Vec::<std::path::PathBuf>::new()
        );
        let metadata = client.fs_metadata(dir.path("d/f")).unwrap();
        assert!(metadata.is_file && metadata.size == 5);
        let mut names: Vec<_> = client.fs_read_directory(dir.path("d")).unwrap();
        names.sort_by(|a, b| a.file_name.cmp(&b.file_name));
        assert_eq!((names[0].file_name.as_str(), names[1].file_name.as_str()), ("e", "f"));
        let options = exec_server::protocol::files::FsWalkOptions {
            max_depth: 9,
            max_directories: 9,
            max_entries: 99,
            follow_directory_symlinks: false,
            prune_hidden_directories: false,
        };
        assert_eq!(client.fs_walk(dir.path("d"), &options).unwrap().entries.len(), 2);
        std::os::unix::fs::symlink("d", dir.path("link")).unwrap();
        let real = client.fs_canonicalize(dir.path("link/f")).unwrap();
        assert_eq!(real, dir.path("d/f").canonicalize().unwrap());
        client.fs_remove(dir.path("d"), true, false).unwrap();
        let gone = client.fs_metadata(dir.path("d")).unwrap_err();
        assert_eq!(gone.code(), Some(-32004));
        assert_eq!(std::io::Error::from(gone).kind(), std::io::ErrorKind::NotFound);
        let too_much = message(client.fs_write_file(dir.path("huge"), &vec![0; 64 << 20]));
        assert!(too_much.contains("write the file in blocks"), "{too_much}");
    });
}

#[test]
fn contents_of_any_length_are_the_same_there_and_here() {
    each(|client| {
        let dir = Dir::new();
        for len in [
            0,
            1,
            2,
            3,
            12_287,
            12_288,
            12_289,
            65_536,
            196_607,
            196_608,
            1 << 20,
            2_000_003,
        ] {
            let content: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            std::fs::write(dir.path("f"), &content).unwrap();
            assert!(client.fs_read_file(dir.path("f")).unwrap() == content, "{len} bytes");
            let file = client.fs_open(dir.path("f")).unwrap();
            let (block, eof) = file.read_block(0, 1 << 20).unwrap();
            assert!(
                block == content[..len.min(1 << 20)] && eof == (len < 1 << 20),
                "{len} bytes"
            );
        }
        let text = "echo one; seq 20000; echo two >&2";
        let process = client.start_process(&script(text)).unwrap();
        let output = process.output().unwrap();
        let read = process.read(None, None, Duration::ZERO).unwrap();
        let of = |stream| {
            let chunks = read.chunks.iter().filter(|chunk| chunk.stream == stream);
            chunks.flat_map(|chunk| chunk.chunk.to_vec()).collect::<Vec<_>>()
        };
        assert!(of(ExecOutputStream::Stdout) == output.stdout);
        assert_eq!(of(ExecOutputStream::Stderr), b"two\n");
    });
}

#[test]
fn files_are_read_and_written_in_blocks() {
    each(|client| {
        let dir = Dir::new();
        let content: Vec<u8> = (0..3_000_000u32).map(|i| (i % 253) as u8).collect();
        let mut file = client.fs_create(dir.path("f")).unwrap();
        file.write_all(&content).unwrap();
        file.seek(SeekFrom::Start(1)).unwrap();
        file.write_all(b"!").unwrap();
        file.close().unwrap();
        let mut file = client.fs_open(dir.path("f")).unwrap();
        let mut back = Vec::new();
        file.read_to_end(&mut back).unwrap();
        assert!(back[1] == b'!' && back.len() == content.len() && back[2..] == content[2..]);
        let (block, eof) = file.read_block(2_999_999, 10).unwrap();
        assert_eq!((block.len(), eof), (1, true));
        drop(file);
        let missing = client.fs_open(dir.path("g")).map(drop).unwrap_err();
        assert_eq!(missing.code(), Some(-32004));
        // Handles are given back: a connection may have 128.
        for _ in 0..300 {
            client.fs_open(dir.path("f")).unwrap();
        }
    });
}

#[test]
fn a_watch_tells_once_and_ends_with_the_next() {
    each(|client| {
        let dir = Dir::new();
        let first = client.fs_watch_missing(&[dir.path("a")], None).unwrap();
        let watch = client.fs_watch_missing(&[dir.path("b")], None).unwrap();
        assert!(first.has_ended() && !watch.has_ended());
        std::fs::write(dir.path("b"), "").unwrap();
        assert!(watch.wait(DEADLINE));
        assert!(watch.has_ended());
    });
}

#[test]
fn a_process_is_killed_with_its_handle_only_where_asked() {
    each(|client| {
        let killed = client
            .start_process(&script("exec sleep 1000").process_id("k").kill_on_drop())
            .unwrap();
        let kept = client
            .start_process(&script("exec sleep 1000").process_id("l"))
            .unwrap();
        let mut events = killed.subscribe();
        drop((killed, kept));
        while !events.recv().unwrap().is_last() {}
        let listed = client.list().unwrap();
        let exited: Vec<_> = listed.iter().map(|p| (p.process_id.as_str(), p.exited)).collect();
        assert_eq!(exited, [("k", true), ("l", false)]);
    });
}

#[test]
fn a_session_is_resumed_by_name() {
    let server = Server::websocket(&[]);
    let client = over_websocket(&server);
    let id = client.session_id().to_owned();
    let process = client
        .start_process(&script("exec sleep 1000").process_id("p"))
        .unwrap();
    let mut args = RemoteExecServerConnectArgs::new(format!("ws://{}", server.address()));
    args.options.resume_session_id = Some(id.clone());
    args.options.recovery_timeout = Duration::ZERO;
    let in_use = ExecServerClient::connect_websocket(args.clone()).unwrap_err();
    assert_eq!(in_use.code(), Some(-32010));
    drop((process, client));
    // The server may not have noticed yet that it is free.
    args.options.recovery_timeout = DEADLINE;
    let resumed = ExecServerClient::connect_websocket(args.clone()).unwrap();
    assert_eq!(resumed.session_id(), id);
    assert_eq!(resumed.list().unwrap()[0].process_id, "p");
    args.options.resume_session_id = Some("no-such-session".into());
    let unknown = message(ExecServerClient::connect_websocket(args));
    assert_eq!(
        unknown,
        "exec-server rejected request (-32600): unknown session id no-such-session"
    );
}

#[test]
fn a_token_is_presented() {
    let dir = Dir::new();
    let file = dir.path("token");
    std::fs::write(&file, "secret\n").unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let server = Server::websocket(&[
        "--ws-auth",
        "capability-token",
        "--ws-token-file",
        file.to_str().unwrap(),
    ]);
    let url = format!("ws://{}", server.address());
    let mut args = RemoteExecServerConnectArgs::new(&url);
    let refused = message(ExecServerClient::connect_websocket(args.clone()));
    let expected = format!(
        "failed to connect to exec-server websocket `{url}`: the server answered HTTP 401 Unauthorized: missing websocket bearer token"
    );
    assert_eq!(refused, expected);
    args.auth_token = Some("secret".into());
    assert!(!format!("{args:?}").contains("secret"));
    let client = ExecServerClient::connect_websocket(args).unwrap();
    assert_eq!(client.environment_status().unwrap(), "ready");
}

#[test]
fn what_cannot_be_reached_is_named() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("ws://{free}");
    let refused = message(ExecServerClient::connect_websocket(RemoteExecServerConnectArgs::new(
        &url,
    )));
    let expected = format!("failed to connect to exec-server websocket `{url}`: Connection refused (os error 111)");
    assert_eq!(refused, expected);
    let tls = message(ExecServerClient::connect_websocket(RemoteExecServerConnectArgs::new(
        "wss://box",
    )));
    assert_eq!(
        tls,
        "failed to connect to exec-server websocket `wss://box`: there is no TLS here; use a tunnel and `ws://`"
    );
    let missing = ExecServerLaunchCommand {
        program: "/nowhere/exec-server".into(),
        ..ExecServerLaunchCommand::default()
    };
    assert_eq!(
        message(ExecServerClient::spawn(&missing)),
        "failed to spawn exec-server: No such file or directory (os error 2)"
    );
    let no_server = ExecServerLaunchCommand {
        program: "/bin/true".into(),
        ..ExecServerLaunchCommand::default()
    };
    let ended = message(ExecServerClient::spawn(&no_server));
    assert!(ended.starts_with("exec-server transport disconnected"), "{ended}");
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let mut args = RemoteExecServerConnectArgs::new(&url);
    args.connect_timeout = Duration::from_millis(50);
    assert_eq!(
        message(ExecServerClient::connect_websocket(args)),
        format!("timed out connecting to exec-server websocket `{url}` after 50ms")
    );
    let silent = ExecServerLaunchCommand {
        program: "/bin/sleep".into(),
        args: vec!["1000".into()],
        ..ExecServerLaunchCommand::default()
    };
    let options = ExecServerClientConnectOptions {
        initialize_timeout: Duration::from_millis(50),
        ..ExecServerClientConnectOptions::default()
    };
    assert_eq!(
        message(ExecServerClient::connect_stdio_command(&silent, options)),
        "timed out waiting for exec-server initialize handshake after 50ms"
    );
}

#[test]
fn calls_and_processes_end_with_the_server() {
    let mut server = Server::websocket(&[]);
    let mut args = RemoteExecServerConnectArgs::new(format!("ws://{}", server.address()));
    args.options.recovery_timeout = Duration::ZERO;
    let client = ExecServerClient::connect_websocket(args).unwrap();
    let process = client.start_process(&script("exec sleep 1000")).unwrap();
    std::thread::scope(|scope| {
        let read = scope.spawn(|| client.read(process.id(), Some(9), None, DEADLINE).unwrap());
        let waited = scope.spawn(|| process.wait(None).unwrap_err().to_string());
        // Both wait by now or find out later; it makes no difference to what they get.
        server.signal(nix::sys::signal::Signal::SIGKILL);
        server.wait();
        let failure = read.join().unwrap().failure.unwrap();
        assert!(failure.starts_with("exec-server transport disconnected"), "{failure}");
        assert!(waited.join().unwrap().starts_with("exec-server transport disconnected"));
    });
    let later = message(client.start_process(&script("true")));
    assert!(later.starts_with("exec-server transport disconnected"), "{later}");
    assert_eq!(
        process.read(None, None, Duration::ZERO).unwrap().failure,
        process.failure()
    );
}

#[test]
fn a_client_can_be_closed_while_others_wait() {
    each(|client| {
        let process = client.start_process(&script("exec sleep 1000")).unwrap();
        std::thread::scope(|scope| {
            let read = scope.spawn(|| client.read(process.id(), Some(9), None, DEADLINE).unwrap());
            let mut events = process.events().unwrap();
            client.close();
            assert!(read.join().unwrap().failure.is_some());
            assert!(matches!(events.recv(), Ok(ExecProcessEvent::Failed(m)) if m == "exec-server transport closed"));
        });
        assert!(matches!(client.list(), Err(ExecServerError::Closed)));
    });
}

#[test]
fn a_command_that_is_the_server_is_ended_with_the_client() {
    let client = ExecServerClient::spawn(&launch(&["--listen", "stdio"])).unwrap();
    let process = client
        .start_process(&script("echo $PPID; exec sleep 1000").process_id("p"))
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.merged_output().unwrap())
        .read_line(&mut line)
        .unwrap();
    let server: i32 = line.trim().parse().unwrap();
    let child = process.pid().unwrap();
    assert!(kit::is_alive(server) && kit::is_alive(child));
    drop((process, client));
    assert!(
        !std::path::Path::new(&format!("/proc/{server}")).exists(),
        "the server is not even a zombie"
    );
    until("the end of the command", || (!kit::is_alive(child)).then_some(()));
}

#[test]
fn what_a_command_leaves_in_its_group_is_killed() {
    // The server ends by itself, and a helper of it would live on.
    let dir = Dir::new();
    let text = format!("sleep 1000 & echo $! > {}", dir.path("pid").display());
    let command = ExecServerLaunchCommand {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), text.into()],
        ..ExecServerLaunchCommand::default()
    };
    assert!(ExecServerClient::spawn(&command).is_err());
    let helper = std::fs::read_to_string(dir.path("pid"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    until("the end of the helper", || (!kit::is_alive(helper)).then_some(()));
}

#[test]
fn many_threads_share_a_client() {
    each(|client| {
        std::thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || {
                    for i in 0..20 {
                        let text = format!("read line; echo {thread}-{i}-$line");
                        let process = client.start_process(&script(&text).pipe_stdin()).unwrap();
                        process.write(b"x\n").unwrap();
                        let output = process.output().unwrap();
                        assert_eq!(output.stdout, format!("{thread}-{i}-x\n").into_bytes());
                    }
                });
            }
        });
    });
}
