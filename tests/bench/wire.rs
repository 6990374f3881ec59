//! Measures a server over the wire: what a client sees, and what it costs the server.
//!
//! ```sh
//! cargo bench --bench wire                               # the built program, over stdio and over WebSocket
//! cargo bench --bench wire -- --only echo --rounds 5     # one measurement, five times
//! cargo bench --bench wire -- --server 'codex exec-server --listen stdio' \
//!                             --server 'codex exec-server --listen ws://127.0.0.1:0'
//! ```
//!
//! Each `--server` is one more server to measure beside the built program (or that of `--own PROGRAM`): a command, split
//! at its spaces. If it has `ws://` in it, it is a WebSocket server and its first line of output is the URL, else it
//! talks on its standard streams. It has to be the server itself and not a script that starts it, as it is measured and
//! killed by its pid.
//!
//! Every measurement has a server of its own. The servers take turns, and take them again in each round (`--rounds`,
//! else 3; some are measured once), so that a busy machine is busy for all of them. A line has the medians of the
//! rounds, and behind that of a further server how many times it is that of the built program over the same transport:
//! good when it is more than 1 for what is counted in a second, and less than 1 for all else. MB are 1,000,000 bytes of
//! payload, not of base64.
//!
//! What a server fails at is `failed` in its column, with the reason below; the rest go on. With `--json FILE` all values
//! are kept in that file, for `plot.py`; what other measurements of the same servers have left there stays.

mod cases;
mod connection;
mod results;
mod server;

use cases::{CASES, Case, Turns};
use results::{Outcome, Results};
use server::is_websocket;
use std::process::exit;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() {
    let command = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (mut rounds, mut only, mut json) = (3, None, None);
    let (mut own, mut others) = (env!("CARGO_BIN_EXE_exec-server").to_owned(), Vec::new());
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        let value = arguments.next().unwrap_or_else(|| usage());
        match argument.as_str() {
            "--own" => own = value,
            "--server" => others.push(command(&value)),
            "--rounds" => rounds = value.parse().unwrap_or(0),
            "--only" => only = Some(value),
            "--json" => json = Some(value),
            _ => usage(),
        }
    }
    let listen = |url: &str| vec![own.clone(), "--listen".to_owned(), url.to_owned()];
    let mut servers = vec![listen("stdio"), listen("ws://127.0.0.1:0")];
    servers.append(&mut others);
    let wanted = match &only {
        None => CASES.iter().collect(),
        Some(only) => only
            .split(',')
            .map(|name| CASES.iter().find(|case| case.name == name).unwrap_or_else(|| usage()))
            .collect::<Vec<_>>(),
    };
    if rounds == 0 || servers.iter().any(Vec::is_empty) {
        usage();
    }
    let mut results = match Results::open(&servers, json.as_deref()) {
        Ok(results) => results,
        Err(e) => {
            eprintln!("{}: {e}", json.unwrap_or_default());
            exit(1);
        }
    };
    results.print_head();
    for case in wanted {
        let outcomes = measure(case, &servers, rounds);
        if let Err(e) = results.add(case.name, &outcomes) {
            eprintln!("the results were not written: {e}");
            exit(1);
        }
    }
    results.print_foot();
}

fn usage() -> ! {
    let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
    let names = names.join("|");
    eprintln!(
        "usage: cargo bench --bench wire -- [--own PROGRAM] [--server COMMAND]... [--rounds N] [--json FILE] \
         [--only CASE,...]\ncases: {names}"
    );
    exit(2)
}

/// Lets the servers take turns.
fn measure(case: &Case, servers: &[Vec<String>], rounds: usize) -> Vec<Outcome> {
    let run = |server: &[String], outcome: &mut Outcome| {
        if outcome.failure.is_none() && (is_websocket(server) || !case.needs_websocket) {
            outcome.failure = (case.run)(server, &mut outcome.values).err().map(|e| e.to_string());
        }
    };
    let mut outcomes: Vec<Outcome> = servers.iter().map(|_| Outcome::default()).collect();
    let turns = servers.iter().zip(&mut outcomes);
    match case.turns {
        Turns::Together => std::thread::scope(|scope| {
            for (server, outcome) in turns {
                scope.spawn(move || run(server, outcome));
            }
        }),
        Turns::Once => turns.for_each(|(server, outcome)| run(server, outcome)),
        Turns::Each => {
            for _ in 0..rounds {
                for (server, outcome) in servers.iter().zip(&mut outcomes) {
                    run(server, outcome);
                }
            }
        }
    }
    outcomes
}
