//! Who may enter.

mod kit;

use kit::{Cli, Dir, Server, command, program};
use serde_json::json;
use std::path::PathBuf;
use std::process::Stdio;

/// A file that only its owner can read.
fn secret(dir: &Dir, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let file = dir.path("secret");
    std::fs::write(&file, text).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    file
}

#[test]
fn tokens_are_not_in_logs_or_what_a_command_inherits() {
    let dir = Dir::new();
    let file = secret(&dir, "s3cret");
    let mut server = command(&["--listen", "ws://127.0.0.1:0", "--log-level", "trace"]);
    server
        .args(["--ws-auth", "capability-token", "--ws-token-file"])
        .arg(&file);
    let server = Cli::of(server.stdin(Stdio::null()).env("EXEC_SERVER_TOKEN", "s3cret"));
    let url = server.output_until("\n").trim().to_owned();
    let run = |arguments: &[&str], token: &str| {
        let mut run = command(&["run"]);
        run.args(arguments)
            .args(["-v", "--", "/usr/bin/env"])
            .stdin(Stdio::null());
        Cli::run(run.env("EXEC_SERVER_TOKEN", token).env("SEEN", "yes"))
    };
    let server_command = format!(
        "env >{}; exec {} --listen stdio",
        dir.path("env").display(),
        kit::PROGRAM
    );
    // By default names with TOKEN are left out of another server's variables, but not of those of this program.
    for place in [&["--connect", &url][..], &["--spawn", &server_command], &[]] {
        let ended = run(place, "s3cret");
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert!(ended.text().contains("PATH="));
        assert!(
            !ended.text().contains("s3cret") && !ended.stderr.contains("s3cret"),
            "{place:?}"
        );
    }
    let seen = std::fs::read_to_string(dir.path("env")).unwrap();
    assert!(seen.contains("SEEN=yes") && !seen.contains("s3cret"));
    let wrong = run(&["--connect", &url], "wr0ng");
    assert!(wrong.code == 125 && !wrong.stderr.contains("wr0ng"), "{}", wrong.stderr);
    // Nor when a client asks for all there is.
    let ended = run(&["--connect", &url, "--env", "EXEC_SERVER_TOKEN=asked-for"], "s3cret");
    assert!(ended.text().contains("EXEC_SERVER_TOKEN=asked-for"));
    server.signal(nix::sys::signal::Signal::SIGTERM);
    let ended = server.finish();
    assert!(ended.stderr.contains("session"), "{}", ended.stderr);
    for token in ["s3cret", "wr0ng"] {
        assert!(!ended.stderr.contains(token), "{}", ended.stderr);
    }
}

#[test]
fn all_of_the_server_s_variables_are_not_its_token() {
    let mut server = command(&["--listen", "stdio"]);
    server.env("EXEC_SERVER_TOKEN", "s3cret").env("OTHER_TOKEN", "other");
    let (_server, mut client) = Server::on_pipes(server);
    client.handshake();
    let mut start = program("a", &["/usr/bin/env"]);
    start["envPolicy"] =
        json!({"inherit": "all", "ignoreDefaultExcludes": true, "exclude": [], "set": {}, "includeOnly": []});
    let output = String::from_utf8(client.run(start).stdout).unwrap();
    assert!(
        output.contains("OTHER_TOKEN=other") && !output.contains("s3cret"),
        "{output}"
    );
}
