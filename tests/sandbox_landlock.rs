//! Sandboxes where commands can't have namespaces of their own.

mod kit;

use exec_server::process::Stream;
use exec_server::protocol::sandbox::{NetworkPolicy, Sandbox};
use exec_server::sandbox::{Enforcer, Means, NoNamespaces};
use kit::{Dir, Unshared, is_alive, until};
use std::path::PathBuf;
use std::time::Duration;

/// A directory to run in, unless there is no Landlock that is new enough.
fn directory() -> Option<(Dir, PathBuf)> {
    match Enforcer::without_namespaces().check() {
        Ok(means) => assert_eq!(means, Means::Landlock(NoNamespaces::Unwanted)),
        Err(e) => {
            println!("not tried: {e}");
            return None;
        }
    }
    let dir = Dir::new();
    let path = dir.path("").canonicalize().unwrap();
    Some((dir, path))
}

fn read_only(cwd: &std::path::Path) -> Sandbox {
    Sandbox::read_only(cwd, NetworkPolicy::Restricted)
}

#[test]
fn a_read_only_command_reads_runs_and_writes_nothing() {
    let Some((dir, cwd)) = directory() else { return };
    std::fs::write(dir.path("f"), "text").unwrap();
    let script = "cat f; cat /proc/self/comm; (exit 3) | cat; sort <(echo b; echo a); echo x > /dev/null; echo no > f";
    let end = Unshared::start(&cwd, read_only(&cwd), &[], script).unwrap().finish();
    assert_eq!(end.stdout, "textcat\na\nb\n");
    assert!(end.stderr.contains("Permission denied"), "{}", end.stderr);
    assert_eq!((end.exit.code, end.exit.sandbox_denied), (1, true));
    assert_eq!(std::fs::read_to_string(dir.path("f")).unwrap(), "text");
    let end = Unshared::start(&cwd, read_only(&cwd), &[], "exit 4").unwrap().finish();
    assert_eq!((end.exit.code, end.exit.sandbox_denied), (4, false));
}

#[test]
fn what_landlock_cannot_keep_is_refused_and_said() {
    let Some((dir, cwd)) = directory() else { return };
    let refused = |sandbox| match Unshared::start(&cwd, sandbox, &[], "echo ran > f") {
        Ok(_) => panic!("it was started"),
        Err(e) => e.to_string(),
    };
    std::fs::create_dir(dir.path(".git")).unwrap();
    let told = refused(Sandbox::workspace_write(&cwd, NetworkPolicy::Restricted));
    let (start, end) = (
        "the sandbox cannot be enforced here: protecting `",
        "` needs user namespaces: namespaces are not to be used",
    );
    assert!(told.starts_with(start) && told.ends_with(end), "{told}");
    assert!(!dir.path("f").exists());
}

#[test]
fn a_killed_command_takes_with_it_what_has_left_its_session() {
    let Some((_dir, cwd)) = directory() else { return };
    let script = "setsid sleep 1000 & echo $!; wait";
    let command = Unshared::start(&cwd, read_only(&cwd), &[], script).unwrap();
    let pid = until("the number of the other", || {
        command.output(Stream::Stdout).trim().parse::<i32>().ok()
    });
    assert!(is_alive(pid));
    command.process.terminate(Duration::ZERO);
    assert_eq!(command.finish().exit.code, 137);
    until("the end of the other", || (!is_alive(pid)).then_some(()));
}
