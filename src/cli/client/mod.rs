//! The commands that use a server: `run`, `attach`, `ps` and `cp`.

mod args;
mod attach;
mod copy;
mod copy_file;
mod failure;
mod foreground;
mod help;
mod input;
mod list;
mod output;
mod place;
mod progress;
mod run;
mod signals;
mod terminal;

pub(super) use args::{CLIENT_COMMANDS, parse_client};

use super::{fail, log_output};
use args::{AttachArgs, CopyArgs, ListArgs, RunArgs};
use exec_server::sys::allocator;
use failure::Failure;
use log::LevelFilter;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum ClientCommand {
    /// Run a command through a server.
    Run(RunArgs),
    /// Go on with a command that runs.
    Attach(AttachArgs),
    /// List the commands of a session.
    List(ListArgs),
    /// Copy files from or to a server.
    Copy(CopyArgs),
}

/// Does it, and ends this program whatever its threads do.
pub(crate) fn carry_out(command: ClientCommand) -> ! {
    let (ClientCommand::Run(RunArgs { common, .. })
    | ClientCommand::Attach(AttachArgs { common, .. })
    | ClientCommand::List(ListArgs { common, .. })
    | ClientCommand::Copy(CopyArgs { common, .. })) = &command;
    let level = match common.verbose {
        true => LevelFilter::Info,
        false => LevelFilter::Warn,
    };
    log_output::install(level, log_output::LogFormat::Text);
    allocator::limit_arenas();
    let done = match command {
        ClientCommand::Run(args) => run::run(args),
        ClientCommand::Attach(args) => attach::attach(args),
        ClientCommand::List(args) => list::list(&args),
        ClientCommand::Copy(args) => copy::copy(&args),
    };
    let code = done.unwrap_or_else(|Failure { code, message }| {
        fail(code, &message);
        code
    });
    std::process::exit(code.into())
}

/// What a lock guards is whole whenever it is free, also after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
