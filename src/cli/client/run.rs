//! `exec-server run`: a command through a server, as if it ran here.

use super::args::{Place, RunArgs, SandboxMode};
use super::failure::Failure;
use super::foreground::{self, Patience, Started};
use super::place::{Connected, connect};
use super::{input, output, terminal};
use exec_server::client::StartOptions;
use exec_server::process::adopt_orphans;
use exec_server::protocol::environment::{EnvInherit, EnvPolicy};
use exec_server::protocol::sandbox::{NetworkPolicy, Sandbox};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

/// Runs a command and returns its exit code.
pub(crate) fn run(args: RunArgs) -> Result<u8, Failure> {
    if args.detach {
        return start_detached(&args);
    }
    if args.common.place == Place::Here
        && let Err(e) = adopt_orphans()
    {
        log::warn!("failed to become a subreaper: {e}; what the command leaves behind may outlive it");
    }
    let patience = Patience {
        timeout: args.timeout,
        hangup_leaves: false,
    };
    foreground::run(
        &patience,
        Box::new(move |terminal| {
            let connected = connect(&args.common, None)?;
            let start = start_options(&args, &connected)?;
            if args.tty {
                let raw = terminal.make_raw();
                raw.map_err(|e| Failure::system("failed to make the terminal raw", e))?;
            }
            let started = connected.client.start_process(&start);
            Ok(Started {
                process: started.map_err(|e| Failure::of_start(&e))?,
                connected,
                tty: args.tty,
                has_input: args.tty || start.pipe_stdin,
            })
        }),
    )
}

/// Starts a command and leaves it running.
fn start_detached(args: &RunArgs) -> Result<u8, Failure> {
    let connected = connect(&args.common, None)?;
    let client = &connected.client;
    // Its output is not acknowledged: what nobody reads gives way, and the command runs on.
    let process = client.exec(&start_options(args, &connected)?);
    let process = process.map_err(|e| Failure::of_start(&e))?;
    let line = format!("{} {process}\n", client.session_id());
    let told = output::write_all(io::stdout().as_fd(), line.as_bytes());
    connected.end();
    told.map(|()| 0)
        .map_err(|e| Failure::system("failed to write to standard output", e))
}

fn start_options(args: &RunArgs, connected: &Connected) -> Result<StartOptions, Failure> {
    let mut start = StartOptions::new(args.argv.iter().map(String::as_str));
    start.cwd = connected.path(args.cwd.as_deref().unwrap_or(Path::new(".")))?;
    // There is one reader, from the beginning.
    start.replay = false;
    start.tty = args.tty;
    start.size = if args.tty { terminal::size() } else { None };
    start.pipe_stdin = !args.tty && input::is_wanted();
    if !args.clear_env {
        start.env_policy = Some(EnvPolicy {
            inherit: EnvInherit::All,
            // The variables of another server may be secrets of whoever runs it; those of this program are the user's.
            ignore_default_excludes: args.common.place == Place::Here,
            exclude: Vec::new(),
            set: BTreeMap::new(),
            include_only: Vec::new(),
        });
        // A terminal is of the kind that this one is.
        if args.tty
            && let Ok(kind) = std::env::var("TERM")
        {
            start.env.insert("TERM".into(), kind);
        }
    }
    let network = if args.network {
        NetworkPolicy::Enabled
    } else {
        NetworkPolicy::Restricted
    };
    start.sandbox = match args.sandbox {
        SandboxMode::Full => None,
        SandboxMode::ReadOnly => Some(Sandbox::read_only(&start.cwd, network)),
        SandboxMode::WorkspaceWrite => Some(Sandbox::workspace_write(&start.cwd, network)),
    };
    // Nobody is there to see to it later.
    if args.detach {
        (start.timeout, start.limit_grace) = (args.timeout, Some(foreground::GRACE));
    }
    start.env.extend(args.env.iter().cloned());
    Ok(start)
}
