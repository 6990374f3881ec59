//! The server as process 1 of a container, and as the one that adopts orphans elsewhere: strangers are reaped, the
//! statuses of commands are not lost, and everything ends with it.

mod kit;

use kit::{Client, Server, children, is_alive, keepers, script, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use std::process::Command;

/// Runs what follows as process 1 of a process namespace.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !geteuid().is_root() {
        command.arg("-Ur");
    }
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
    command
}

/// Whether the system lets it.
fn has_namespaces() -> bool {
    let tried = unshare().arg("/bin/true").output();
    let why = match tried {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(e) => e.to_string(),
    };
    println!("skipped: no process namespace: {why}");
    false
}

/// A server that is process 1, its number here, and its client.
fn process_one(arguments: &[&str]) -> (Server, i32, Client) {
    let mut unshare = unshare();
    unshare
        .arg(kit::exec_server())
        .args(["--listen", "stdio"])
        .args(arguments);
    let (server, mut client) = Server::on_pipes(unshare);
    client.handshake();
    let pid = children(server.pid())[0];
    (server, pid, client)
}

/// Starts a program in the server's namespace that is none of its commands and leaves an orphan there; `script` is what
/// the orphan runs.
fn stranger(server: i32, script: &str) {
    let status = Command::new("nsenter")
        .args([
            "-t",
            &server.to_string(),
            "-p",
            "-m",
            "sh",
            "-c",
            &format!("({script}) & exit 0"),
        ])
        .status();
    assert!(status.unwrap().success());
}

/// Orphans come and go while commands give their exit codes.
fn reaps(server: i32, client: &mut Client, strangers: bool) {
    for i in 0..40 {
        let id = format!("p{i}");
        client.start(script(
            &id,
            &format!("(setsid sh -c 'exit 9' &); (sh -c 'exit 8' &); exit {i}"),
        ));
        if strangers && i % 4 == 0 {
            stranger(server, "exit 7");
        }
    }
    for i in 0..40 {
        assert_eq!(client.finish(&format!("p{i}")).code, i);
    }
    until("no zombies", || children(server).is_empty().then_some(()));
}

#[test]
fn orphans_are_reaped_and_no_exit_code_is_lost() {
    let (server, mut client) = Server::stdio();
    client.handshake();
    reaps(server.pid(), &mut client, false);
    drop((client, server));
    if has_namespaces() {
        let (_server, pid, mut client) = process_one(&[]);
        reaps(pid, &mut client, geteuid().is_root());
        // Everything ends with process 1 anyway.
        assert!(keepers(pid).is_empty());
    }
}

#[test]
fn everything_ends_with_process_one() {
    if !has_namespaces() {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let (mut server, pid, mut client) = process_one(&[]);
        client.start(script("a", "(setsid sleep 1000 &); exec sleep 1000"));
        if geteuid().is_root() {
            stranger(pid, "exec sleep 1000");
        }
        let all = until("all that was started", || {
            let all = children(pid);
            (all.len() == 2 + usize::from(geteuid().is_root())).then_some(all)
        });
        kill(Pid::from_raw(pid), signal).unwrap();
        assert!(server.wait().success());
        assert!(!all.iter().any(|pid| is_alive(*pid)));
    }
}

#[test]
fn a_command_may_ask_process_one_to_end() {
    if !has_namespaces() {
        return;
    }
    let (mut server, _, mut client) = process_one(&["--drain-timeout", "1000"]);
    let run = client.run(script(
        "a",
        "kill -TERM 1; kill -USR1 1; kill -PIPE 1; echo said; exit 3",
    ));
    assert_eq!((&run.stdout[..], run.code), (&b"said\n"[..], 3));
    assert!(server.wait().success());
    assert!(client.next().is_none());
}

#[cfg(feature = "client")]
#[test]
fn any_command_of_the_program_can_be_process_one() {
    if !has_namespaces() {
        return;
    }
    let mut unshare = unshare();
    unshare.args([
        kit::exec_server(),
        "run",
        "--",
        "sh",
        "-c",
        "(setsid sleep 1000 &); kill -TERM 1; exec sleep 1000",
    ]);
    let status = unshare.status().unwrap();
    assert_eq!(status.code(), Some(128 + Signal::SIGTERM as i32));
}
