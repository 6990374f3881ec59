//! The seeds of the fuzz targets, without a fuzzer.

use std::fs;
use std::path::Path;

#[path = "checks/env_policy.rs"]
mod env_policy;
#[path = "checks/frames.rs"]
mod frames;
#[path = "checks/lines.rs"]
mod lines;
#[path = "checks/message.rs"]
mod message;
#[path = "checks/output_log.rs"]
mod output_log;
#[path = "checks/path_uri.rs"]
mod path_uri;
#[path = "checks/sandbox_policy.rs"]
mod sandbox_policy;
#[path = "checks/stdin_queue.rs"]
mod stdin_queue;
#[path = "checks/upgrade.rs"]
mod upgrade;

fn replay(target: &str, check: impl Fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    if !fuzz.exists() {
        // A published package comes without them.
        return;
    }
    let mut seeds = 0;
    for entry in fs::read_dir(fuzz.join("seeds").join(target)).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        check(&fs::read(&path).unwrap());
        seeds += 1;
    }
    assert!(seeds >= 10, "only {seeds} seeds for {target}");
}

#[test]
fn messages() {
    replay("message", message::check);
}

#[test]
fn lines_in_pieces() {
    replay("lines", lines::check_input);
}

#[test]
fn websocket_frames_in_pieces() {
    replay("frames", frames::check);
}

#[test]
fn steps_of_the_output_log() {
    replay("output_log", output_log::check_input);
}

#[test]
fn steps_of_the_stdin_queue() {
    replay("stdin_queue", stdin_queue::check_input);
}

#[test]
fn policies_and_the_files_they_are_about() {
    replay("sandbox_policy", |input| {
        sandbox_policy::check_input(input);
    });
}

#[test]
fn new_connections_in_pieces() {
    replay("upgrade", upgrade::check);
}

#[test]
fn uris_of_paths() {
    replay("path_uri", path_uri::check);
}

#[test]
fn environments_of_commands() {
    replay("env_policy", env_policy::check_input);
}
