//! `exec-server attach`: going on with a command that was left running.

use super::args::AttachArgs;
use super::failure::Failure;
use super::foreground::{self, Patience, Started};
use super::place::connect;
use super::{input, terminal};
use exec_server::client::ListedProcess;

/// Shows a command's output, goes on with it, and returns its exit code.
pub(crate) fn attach(args: AttachArgs) -> Result<u8, Failure> {
    let patience = Patience {
        timeout: None,
        hangup_leaves: true,
    };
    foreground::run(
        &patience,
        Box::new(move |terminal| {
            let connected = connect(&args.common, Some(&args.session))?;
            let client = &connected.client;
            let ListedProcess { process_id, tty, .. } = choose(client.list()?, args.process.as_deref())?;
            let (process, lost_bytes) = client.attach_process(&process_id)?;
            if lost_bytes > 0 {
                log::warn!("{lost_bytes} bytes of output from before are gone");
            }
            if tty {
                let raw = terminal.make_raw();
                raw.map_err(|e| Failure::system("failed to make the terminal raw", e))?;
                if let Some(size) = terminal::size()
                    && let Err(e) = process.resize(size)
                {
                    log::info!("failed to set the size of the terminal: {e}");
                }
            }
            Ok(Started {
                process,
                connected,
                tty,
                has_input: input::is_wanted(),
            })
        }),
    )
}

/// The process of that name, or the only one there is.
fn choose(mut processes: Vec<ListedProcess>, name: Option<&str>) -> Result<ListedProcess, Failure> {
    if let Some(name) = name {
        let found = processes.into_iter().find(|process| process.process_id == name);
        return found.ok_or_else(|| Failure::new(format!("the session has no process `{name}`")));
    }
    match processes.len() {
        1 => Ok(processes.swap_remove(0)),
        0 => Err(Failure::new("the session has no processes any more")),
        n => Err(Failure::new(format!("the session has {n} processes: name one of them"))),
    }
}
