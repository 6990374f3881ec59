//! Servers that see other mounts than the test.

use super::{Client, Dir, Server, exec_server};
use std::process::Command;

/// What runs a command with mounts of its own: as root, or as somebody who is root in a namespace of its own.
const NAMESPACES: [&[&str]; 2] = [&["--mount"], &["--user", "--map-root-user", "--mount"]];

/// A server whose mounts are changed by `setup` first, a shell script that has the directory as `$0`; `None`, and why,
/// where there can't be any.
pub(crate) fn server_where(setup: &str, dir: &Dir) -> Option<(Server, Client)> {
    let in_namespace = |flags: &[&str], program: &[&str]| {
        let mut command = Command::new("unshare");
        command
            .args(flags)
            .args(["sh", "-c", &format!("{setup} && exec \"$@\"")]);
        command.arg(dir.path("")).args(program);
        command
    };
    let works = |flags: &&&[&str]| {
        let output = in_namespace(flags, &["true"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let Some(flags) = NAMESPACES.iter().find(works) else {
        println!("not tested: no mounts can be made here");
        return None;
    };
    let (server, mut client) = Server::on_pipes(in_namespace(flags, &[exec_server(), "--listen", "stdio"]));
    client.handshake();
    Some((server, client))
}
