//! `exec-server ps`: the commands of a session.

use super::args::ListArgs;
use super::failure::Failure;
use super::output;
use super::place::connect;
use exec_server::client::ListedProcess;
use std::io;
use std::os::fd::AsFd;

/// Prints a table of the session's commands.
pub(crate) fn list(args: &ListArgs) -> Result<u8, Failure> {
    let connected = connect(&args.common, Some(&args.session)).map_err(Failure::plain)?;
    let listed = connected.client.list();
    // So that the session is free again before this is over.
    connected.end();
    let mut table = row("PID", "STATE", "TTY", "BYTES", "NAME");
    let mut processes = listed.map_err(|e| Failure::from(e).plain())?;
    processes.sort_unstable_by(|a, b| a.process_id.cmp(&b.process_id));
    for process in processes {
        table += &row(
            &process.pid.map_or("-".into(), |pid| pid.to_string()),
            &state(&process),
            if process.tty { "yes" } else { "no" },
            &process.retained_bytes.to_string(),
            &process.process_id,
        );
    }
    output::write_all(io::stdout().as_fd(), table.as_bytes())
        .map(|()| 0)
        .map_err(|e| Failure::system("failed to write to standard output", e).plain())
}

fn row(pid: &str, state: &str, tty: &str, bytes: &str, name: &str) -> String {
    // A name is whatever a client has chosen, and one line here.
    format!("{pid:<9} {state:<11} {tty:<4} {bytes:>9}  {}\n", name.escape_debug())
}

fn state(process: &ListedProcess) -> String {
    match (process.exited, &process.signal, process.exit_code) {
        (false, ..) => "running".into(),
        (true, Some(signal), _) => signal.clone(),
        (true, None, Some(code)) => format!("exited {code}"),
        (true, None, None) => "exited".into(),
    }
}
