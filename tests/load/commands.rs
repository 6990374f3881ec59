//! The program's own client in a soak, with whole processes that are killed.

use super::numbers::{LINE, Numbers};
use super::random::Random;
use super::{Shared, count};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;

/// Runs one command after the other through the server, until the round is over.
pub(crate) fn run_commands(shared: &Shared, n: u64, seed: u64) {
    let mut random = Random::new(seed);
    random.next();
    for i in 0.. {
        if shared.is_over() || shared.is_hopeless() {
            return;
        }
        let pauses = shared.pauses();
        match run_command(shared, Numbers::of(n + i), &mut random) {
            Ok(()) => {}
            // The session has expired while all of this was stopped.
            Err(_) if shared.pauses() != pauses => {}
            Err(e) => shared.fail(format!("command {i} of {n}: {e}"), &[]),
        }
    }
}

fn run_command(shared: &Shared, numbers: Numbers, random: &mut Random) -> Result<(), String> {
    let lines = 1 + random.below(100_000) as u64;
    let total = lines * LINE;
    let has_input = random.below(2) == 0;
    let killed_after = match random.below(3) {
        0 => Some(random.below(total as usize) as u64),
        _ => None,
    };
    let mut command = Command::new(&shared.options.program);
    command.args(["run", "--connect", &format!("ws://{}", shared.quiet_proxy)]);
    command.args(["--env", &format!("EXEC_SERVER_SOAK={}", shared.mark), "--"]);
    match has_input {
        true => command.arg("/bin/cat"),
        false => command.args([
            "/usr/bin/seq",
            &numbers.first.to_string(),
            &numbers.last_of(lines).to_string(),
        ]),
    };
    let input = if has_input { Stdio::piped() } else { Stdio::null() };
    let command = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("cannot be started: {e}"))?;
    let (input, mut output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        let writer = input.map(|mut input| {
            scope.spawn(move || {
                let mut at = 0;
                while at < total {
                    let bytes = numbers.bytes(at, 40_000.min((total - at) as usize));
                    // Its reader may have been killed.
                    if input.write_all(&bytes).is_err() {
                        return;
                    }
                    at += bytes.len() as u64;
                }
            })
        });
        let told = scope.spawn(move || {
            let mut told = String::new();
            errors.map(|mut errors| errors.read_to_string(&mut told));
            told
        });
        let (mut at, mut differs) = (0, false);
        let mut piece = vec![0; 64 * 1024];
        while let Some(output) = &mut output {
            let n = output.read(&mut piece).unwrap_or(0);
            differs |= piece[..n] != numbers.bytes(at, n);
            at += n as u64;
            if n == 0 || killed_after.is_some_and(|after| at >= after) {
                break;
            }
        }
        if killed_after.is_some() {
            let _ = child.kill();
        }
        drop(output);
        let status = child.wait().map_err(|e| e.to_string())?;
        writer.map(thread::ScopedJoinHandle::join);
        let told = told.join().unwrap_or_default();
        count(&shared.counts.bytes, at);
        if killed_after.is_some() {
            count(&shared.counts.killed_commands, 1);
        } else {
            count(&shared.counts.commands, 1);
        }
        match killed_after.is_some() || (status.success() && at == total) {
            true if !differs => Ok(()),
            _ => Err(format!(
                "{status}, {at} of {total} bytes, different: {differs}: {}",
                told.trim()
            )),
        }
    })
}
