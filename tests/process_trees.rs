//! What commands leave behind, however it has got away from them, ends with them, their session or the server.

mod kit;

use kit::{Client, Dir, Server, both, command, is_alive, keepers, on_terminal, processes, program, script, until};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Ways to start a program that shall be lost, as it is found neither in the group or session of the command, nor below it,
/// nor by its environment or open files.
const ESCAPES: [&str; 5] = [
    // A session of its own.
    "setsid PROGRAM >/dev/null 2>&1 </dev/null &",
    // A double fork: its parent has ended.
    "(setsid PROGRAM >/dev/null 2>&1 </dev/null &)",
    // Twice, and with nothing of the command's environment.
    "(setsid sh -c '(setsid env -i PROGRAM &)' >/dev/null 2>&1 </dev/null &)",
    // As another user, where that can be.
    "(setsid sh -c 'setpriv --reuid 65534 --clear-groups PROGRAM || PROGRAM' >/dev/null 2>&1 </dev/null &)",
    // Only out of the group, as a job of a shell.
    "(set -m; PROGRAM >/dev/null 2>&1 </dev/null & exec sleep 0)",
];

/// Programs that are deaf to all signals that can be ignored, and known by the directory that they are in.
struct Lost(Dir);

impl Lost {
    fn new() -> Lost {
        let dir = Dir::new();
        let path = dir.path("lost");
        // It ends by itself when the directory is gone, should a test fail.
        let text = format!(
            "#!/bin/sh\ntrap '' HUP INT TERM\nwhile [ -e {} ]; do sleep 0.2; done\n",
            path.display()
        );
        fs::write(&path, text).unwrap();
        executable(&path);
        // For another user.
        fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
        Lost(dir)
    }

    /// A script that starts them all, says so, and then does something.
    fn script(&self, then: &str) -> String {
        let path = self.0.path("lost").display().to_string();
        let all = ESCAPES.map(|escape| escape.replace("PROGRAM", &path)).join("\n");
        format!("{all}\necho started\n{then}")
    }

    /// Those that live: one for each way, and none other that belongs to it, when all have started.
    fn alive(&self) -> Vec<i32> {
        alive_with(&self.0.path("lost"))
    }

    fn all_started(&self) {
        self.started(ESCAPES.len());
    }

    fn started(&self, n: usize) {
        until("programs that have got away", || {
            let alive = self.alive();
            // With the shells that have their names in their arguments, until they are gone.
            let programs = alive.iter().filter(|pid| {
                let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                text.starts_with(b"/bin/sh\0/")
            });
            (programs.count() >= n).then_some(())
        });
    }

    fn all_gone(&self) {
        until("the end of what has got away", || self.alive().is_empty().then_some(()));
    }
}

fn executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The living processes with a path in their arguments.
fn alive_with(path: &Path) -> Vec<i32> {
    let path = path.display().to_string();
    let mut found = processes();
    found.retain(|pid| {
        let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        is_alive(*pid) && String::from_utf8_lossy(&text).contains(&path)
    });
    found
}

fn both_ways(id: &str, text: &str) -> [Value; 2] {
    [
        script(&format!("{id} pipe"), text),
        on_terminal(script(&format!("{id} tty"), text)),
    ]
}

fn id(start: &Value) -> &str {
    start["processId"].as_str().unwrap()
}

#[test]
fn terminate_finds_what_has_got_away_while_the_command_runs() {
    both(|_, client| {
        let lost = Lost::new();
        for start in both_ways("a", &lost.script("exec sleep 1000")) {
            client.start(start.clone());
            lost.all_started();
            let answer = client.call("process/terminate", json!({"processId": id(&start)}));
            assert_eq!(answer, json!({"running": true}));
            assert_eq!(client.finish(id(&start)).code, 137);
            lost.all_gone();
        }
    });
}

#[test]
fn terminate_finds_what_a_command_has_left_that_is_over() {
    both(|_, client| {
        let (lost, others) = (Lost::new(), Lost::new());
        client.start(script("other", &others.script("")));
        client.finish("other");
        others.all_started();
        for start in both_ways("a", &lost.script("sleep 0.3; exit 3")) {
            client.start(start.clone());
            assert_eq!(client.finish(id(&start)).code, 3);
            lost.all_started();
            let other = others.alive();
            let answer = client.call("process/terminate", json!({"processId": id(&start)}));
            assert_eq!(answer, json!({"running": false}));
            lost.all_gone();
            assert!(other.iter().all(|pid| is_alive(*pid)));
        }
        client.call("process/terminate", json!({"processId": "other", "graceMs": 50}));
        others.all_gone();
    });
}

#[test]
fn the_end_of_a_session_ends_what_its_commands_have_left_and_nothing_else() {
    let server = Server::websocket(&["--session-ttl", "0"]);
    let (mut client, mut stays) = (server.client(), server.client());
    let (lost, others) = (Lost::new(), Lost::new());
    let start = |client: &mut Client, lost: &Lost| {
        client.start(script("over", &lost.script("")));
        client.finish("over");
        lost.all_started();
    };
    start(&mut client, &lost);
    start(&mut stays, &others);
    client.start(script("a", "exec sleep 1000"));
    drop(client);
    lost.all_gone();
    stays.run(program("b", &["/bin/true"]));
    assert!(others.alive().len() >= ESCAPES.len());
    drop(stays);
    others.all_gone();
}

#[cfg(feature = "client")]
#[test]
fn what_a_forgotten_command_has_left_ends_with_its_session() {
    // In a program that adopts no orphans.
    use exec_server::host;
    use exec_server::server::ServerConfig;
    let lost = Lost::new();
    let mut args = host::InProcessStartArgs::new("test");
    args.config = ServerConfig {
        retain_ended: std::time::Duration::ZERO,
        ..ServerConfig::default()
    };
    let host = host::start(args).unwrap();
    host.request(1, "process/start", &script("a", &lost.script("")))
        .unwrap()
        .unwrap();
    let mut id = 1;
    until("an unknown process", || {
        id += 1;
        host.request(id, "process/read", &json!({"processId": "a"}))
            .unwrap()
            .err()
    });
    lost.all_started();
    let keepers = keepers(Pid::this().as_raw());
    assert!(keepers.is_empty(), "{keepers:?}");
    host.shutdown().unwrap();
    lost.all_gone();
}

#[test]
fn a_signal_ends_the_server_with_all_that_has_got_away() {
    for start in both_ways("a", "") {
        let (mut server, mut client) = Server::stdio();
        client.handshake();
        let lost = Lost::new();
        let mut start = start;
        start["argv"][2] = lost.script("exec sleep 1000").into();
        client.start(start);
        lost.all_started();
        let keepers = keepers(server.pid());
        assert_eq!(keepers.len(), 1);
        server.signal(Signal::SIGTERM);
        assert!(server.wait().success());
        lost.all_gone();
        until("the end of the keeper", || (!is_alive(keepers[0])).then_some(()));
    }
}

#[test]
fn nothing_outlives_a_server_that_is_killed() {
    let kill = |server: &mut Server, client: &mut Client, kill: &dyn Fn(&Server)| {
        assert!(keepers(server.pid()).is_empty(), "no keeper without a command");
        let lost = Lost::new();
        client.start(script("over", &lost.script("")));
        client.finish("over");
        for start in both_ways("a", &lost.script("exec sleep 1000")) {
            client.start(start);
        }
        until("programs that have got away", || {
            (lost.alive().len() >= 3 * ESCAPES.len()).then_some(())
        });
        let keepers = keepers(server.pid());
        assert_eq!(keepers.len(), 1);
        kill(server);
        assert!(!server.wait().success());
        lost.all_gone();
        until("the end of the keeper", || (!is_alive(keepers[0])).then_some(()));
    };
    // Killed with its whole group, as clients do it.
    let mut leader = command(&["--listen", "stdio"]);
    leader.process_group(0);
    let (mut server, mut client) = Server::on_pipes(leader);
    client.handshake();
    kill(&mut server, &mut client, &|server| {
        killpg(Pid::from_raw(server.pid()), Signal::SIGKILL).unwrap();
    });
    for signal in [Signal::SIGKILL, Signal::SIGABRT] {
        let mut server = Server::websocket(&[]);
        let mut client = server.client();
        kill(&mut server, &mut client, &|server| server.signal(signal));
    }
}

#[test]
fn a_keeper_that_was_killed_is_replaced() {
    let mut server = Server::websocket(&[]);
    let mut client = server.client();
    client.run(program("a", &["/bin/true"]));
    let first = until("a keeper", || keepers(server.pid()).first().copied());
    nix::sys::signal::kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    until("its end", || keepers(server.pid()).is_empty().then_some(()));
    let lost = Lost::new();
    client.start(script("b", &lost.script("")));
    client.finish("b");
    lost.all_started();
    assert_eq!(keepers(server.pid()).len(), 1);
    server.signal(Signal::SIGKILL);
    server.wait();
    lost.all_gone();
}

/// A program that starts itself anew in a session of its own and ends, over and over again: it is never where it was found.
/// A few at a time.
fn relay(dir: &Dir, count: usize) -> String {
    let path = dir.path("relay");
    let text = format!(
        "#!/bin/sh\n[ -e {0} ] && (setsid {0} >/dev/null 2>&1 </dev/null &)\n",
        path.display()
    );
    fs::write(&path, text).unwrap();
    executable(&path);
    format!("for i in $(seq {count}); do ({} &); done; echo started", path.display())
}

fn relay_is_gone(dir: &Dir) {
    // It can be missed once, as it has moved, but not that often.
    let mut quiet = 0;
    until("the end of the relay", || {
        quiet = if alive_with(&dir.path("relay")).is_empty() {
            quiet + 1
        } else {
            0
        };
        (quiet == 20).then_some(())
    });
}

#[test]
fn terminate_catches_what_forks_on_and_on() {
    both(|_, client| {
        for (n, then) in ["exec sleep 1000", "exit 0"].into_iter().enumerate() {
            for start in both_ways(&n.to_string(), "") {
                let dir = Dir::new();
                let mut start = start;
                start["argv"][2] = format!("{}; {then}", relay(&dir, 3)).into();
                client.start(start.clone());
                client.output_until(id(&start), "started");
                if n == 1 {
                    client.finish(id(&start));
                }
                client.call("process/terminate", json!({"processId": id(&start)}));
                if n == 0 {
                    client.finish(id(&start));
                }
                relay_is_gone(&dir);
            }
        }
    });
}

#[test]
fn a_killed_server_leaves_nothing_that_forks_on_and_on() {
    let (mut server, mut client) = Server::stdio();
    client.handshake();
    let dir = Dir::new();
    client.start(script("a", &relay(&dir, 3)));
    client.finish("a");
    server.signal(Signal::SIGKILL);
    server.wait();
    relay_is_gone(&dir);
}

#[test]
fn a_fork_bomb_ends() {
    both(|_, client| {
        // Each starts two more, in sessions of their own, and waits; 511 in all.
        let dir = Dir::new();
        let path = dir.path("bomb");
        let text = format!(
            "#!/bin/sh\n[ $1 -gt 0 ] && for i in 1 2; do setsid {0} $(($1 - 1)) & done\n\
             while [ -e {0} ]; do sleep 0.5; done\n",
            path.display()
        );
        fs::write(&path, text).unwrap();
        executable(&path);
        client.start(script("a", &format!("{} 8", path.display())));
        until("a part of the bomb", || (alive_with(&path).len() > 100).then_some(()));
        client.call("process/terminate", json!({"processId": "a"}));
        client.finish("a");
        until("its end", || alive_with(&path).is_empty().then_some(()));
    });
}

#[test]
fn where_there_can_be_no_mark_what_is_below_a_command_ends_with_it() {
    let mut command = Command::new("prlimit");
    // Below every mark.
    command.args(["prlimit", "--locks=1000:1000", kit::PROGRAM, "--listen", "stdio"]);
    let (mut server, mut client) = Server::on_pipes(command);
    client.handshake();
    let lost = Lost::new();
    let path = lost.0.path("lost").display().to_string();
    // In its group, and below it in another and in another session.
    client.start(script(
        "a",
        &format!("{path} & setsid {path} & (set -m; {path} & wait) & echo started; wait"),
    ));
    client.output_until("a", "started\n");
    lost.started(3);
    client.call("process/terminate", json!({"processId": "a"}));
    assert_eq!(client.finish("a").code, 137);
    lost.all_gone();
    // What is nowhere below it goes with the server.
    client.start(script("b", &lost.script("exec true")));
    client.finish("b");
    lost.all_started();
    client.close_input();
    assert!(server.wait().success());
    lost.all_gone();
}

#[test]
fn what_is_left_has_the_same_time_to_end() {
    both(|_, client| {
        let dir = Dir::new();
        let (ready, done) = (dir.path("ready"), dir.path("done"));
        // The command ends at once; its child holds no output, and takes its time.
        let slow = format!(
            "trap 'sleep 0.3; echo 1 >{}; exit' TERM; echo 1 >{}; while :; do sleep 0.05; done",
            done.display(),
            ready.display()
        );
        client.start(script("a", &format!("sh -c \"{slow}\" >/dev/null 2>&1 & sleep 1000")));
        until("its child", || ready.exists().then_some(()));
        client.call("process/terminate", json!({"processId": "a", "graceMs": 20_000}));
        let run = client.finish("a");
        assert_eq!(run.signal.as_deref(), Some("SIGTERM"));
        assert!(done.exists(), "killed before its time");

        // And a command that is over.
        fs::remove_file(&done).unwrap();
        fs::remove_file(&ready).unwrap();
        client.start(script("b", &format!("sh -c \"{slow}\" >/dev/null 2>&1 &")));
        client.finish("b");
        until("its child", || ready.exists().then_some(()));
        client.call("process/terminate", json!({"processId": "b", "graceMs": 20_000}));
        until("the end that it takes", || done.exists().then_some(()));

        // But not more.
        let lost = Lost::new();
        client.start(script("c", &lost.script("exec sleep 1000")));
        lost.all_started();
        client.call("process/terminate", json!({"processId": "c", "graceMs": 100}));
        assert_eq!(client.finish("c").signal.as_deref(), Some("SIGTERM"));
        lost.all_gone();
    });
}
