//! Lets many clients work on the built program for a long time, with connections that fail and clients that are killed, and
//! compares every byte.
//!
//! ```sh
//! cargo bench --bench soak                                 # a minute
//! cargo bench --bench soak -- --seconds 1200
//! cargo bench --bench soak -- --seed 7 --clients 40 --each 25
//! cargo bench --bench soak -- --server /usr/local/bin/exec-server
//! ```
//!
//! Prints what the server holds at most in each round, and when all clients have gone and their sessions are over. Exit
//! code 1 if a byte was wrong, or if more is left than there was before.

#[path = "../load/mod.rs"]
mod load;

use load::{Options, PROGRAM, soak};
use std::process::exit;
use std::time::{SystemTime, UNIX_EPOCH};

/// How long a round is, in seconds: shorter than an ended process is kept.
const ROUND: u64 = 30;

/// A run of fewer seconds leaves silent clients out.
const SHORT: u64 = 60;

fn main() {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |now| now.as_secs());
    let (mut seconds, mut seed, mut clients, mut each, mut program) = (60, now, 20, 10, PROGRAM.to_owned());
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let mut log = None;
    while let Some(argument) = arguments.next() {
        let value = arguments.next().unwrap_or_else(|| usage());
        let number = || value.parse().unwrap_or_else(|_| usage());
        match argument.as_str() {
            "--seconds" => seconds = number(),
            "--seed" => seed = number(),
            "--clients" => clients = number(),
            "--each" => each = number() as usize,
            "--server" => program = value,
            "--log" => log = Some(value.into()),
            _ => usage(),
        }
    }
    let ttl = 8;
    let options = Options {
        program,
        seed,
        rounds: u64::MAX,
        all_ticks: seconds.saturating_mul(10),
        ticks: ROUND.min(seconds) * 10,
        ended: u64::MAX,
        clients,
        each,
        commands: 4,
        // The server takes longer than that to give up a client that says nothing.
        is_short: seconds < SHORT,
        ttl,
        log,
    };
    let Err(failures) = soak(options) else {
        println!("all as it must be");
        return;
    };
    println!("{} failures", failures.len());
    exit(1);
}

fn usage() -> ! {
    eprintln!(
        "usage: cargo bench --bench soak -- [--seconds N] [--seed N] [--clients N] [--each N] [--server PROGRAM] \
         [--log FILE]"
    );
    exit(2)
}
