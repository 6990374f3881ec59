//! The arguments of the commands that use a server: `run`, `attach`, `ps` and `cp`.

use super::ClientCommand;
use super::help::{ATTACH, COPY, LIST, RUN};
use crate::cli::args::Command;
use crate::cli::flags::{Args, Flag, Page, UsageError, read_args, wrong};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Their names.
pub(in crate::cli) const CLIENT_COMMANDS: [&str; 4] = ["run", "attach", "ps", "cp"];

/// Which server to use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// One within this program.
    Here,
    /// One on the standard streams of this shell command.
    Spawned(OsString),
    /// One that listens at this URL, and the file with its token.
    Remote(String, Option<PathBuf>),
}

/// What all of them have in common.
#[derive(Debug)]
pub(crate) struct Common {
    /// Which server.
    pub(crate) place: Place,
    /// Whether to tell of lost connections.
    pub(crate) verbose: bool,
}

/// What a command may do, by the names that Codex has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SandboxMode {
    /// Everything.
    Full,
    /// Read everything.
    ReadOnly,
    /// That, and write in its directory and those for temporary files.
    WorkspaceWrite,
}

/// A command to run.
#[derive(Debug)]
pub(crate) struct RunArgs {
    pub(crate) common: Common,
    /// Whether it gets a terminal.
    pub(crate) tty: bool,
    /// Where it runs; a relative one counts from the server's directory.
    pub(crate) cwd: Option<PathBuf>,
    /// Variables, as `(name, value)`.
    pub(crate) env: Vec<(String, String)>,
    /// Whether it gets no others.
    pub(crate) clear_env: bool,
    /// How long it may take.
    pub(crate) timeout: Option<Duration>,
    /// What it may do.
    pub(crate) sandbox: SandboxMode,
    /// Whether a sandboxed one may use the network.
    pub(crate) network: bool,
    /// Whether to leave it running.
    pub(crate) detach: bool,
    /// The program and its arguments.
    pub(crate) argv: Vec<String>,
}

/// A command to go on with.
#[derive(Debug)]
pub(crate) struct AttachArgs {
    pub(crate) common: Common,
    pub(crate) session: String,
    /// Its name; the only one that there is if `None`.
    pub(crate) process: Option<String>,
}

/// A session to look at.
#[derive(Debug)]
pub(crate) struct ListArgs {
    pub(crate) common: Common,
    pub(crate) session: String,
}

/// What to copy.
#[derive(Debug)]
pub(crate) struct CopyArgs {
    pub(crate) common: Common,
    pub(crate) direction: Direction,
    /// Whether a directory is copied with all that is in it.
    pub(crate) recursive: bool,
}

/// From where to where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the server.
    Fetch {
        /// On the server.
        from: PathBuf,
        /// Here.
        to: PathBuf,
    },
    /// To the server.
    Send {
        /// Here.
        from: PathBuf,
        /// On the server.
        to: PathBuf,
    },
}

/// Parses what follows the name of the command.
pub(in crate::cli) fn parse_client(command: &str, args: &mut Args<'_>) -> Result<Command, UsageError> {
    let mut given = Given::default();
    let page = read_args(args, &mut |flag| given.take(command, flag))?;
    match page {
        Some(Page::Version) => return Ok(Command::Version),
        Some(Page::Help) => {
            return Ok(Command::Help(match command {
                "run" => RUN,
                "attach" => ATTACH,
                "ps" => LIST,
                _ => COPY,
            }));
        }
        None => {}
    }
    match command {
        "run" => given.run_args().map(ClientCommand::Run),
        "attach" => given.attach_args().map(ClientCommand::Attach),
        "ps" => given.list_args().map(ClientCommand::List),
        _ => given.copy_args().map(ClientCommand::Copy),
    }
    .map(Command::Client)
}

/// The arguments that were there.
#[derive(Default)]
struct Given {
    connect: Option<String>,
    spawn: Option<OsString>,
    token_file: Option<PathBuf>,
    verbose: Option<()>,
    tty: Option<()>,
    cwd: Option<PathBuf>,
    env: Vec<(String, String)>,
    clear_env: Option<()>,
    timeout: Option<Duration>,
    sandbox: Option<SandboxMode>,
    network: Option<()>,
    detach: Option<()>,
    session: Option<String>,
    recursive: Option<()>,
    words: Vec<OsString>,
}

impl Given {
    fn take(&mut self, command: &str, flag: &mut Flag<'_, '_>) -> Result<(), UsageError> {
        let knows_session = matches!(command, "attach" | "ps");
        match (flag.name, command) {
            ("--connect", _) => {
                let url = flag.text()?;
                flag.put(&mut self.connect, url)
            }
            ("--spawn", "run" | "cp") => {
                let server = flag.value()?;
                flag.put(&mut self.spawn, server)
            }
            ("--token-file", _) => {
                let path = flag.value()?.into();
                flag.put(&mut self.token_file, path)
            }
            ("-v" | "--verbose", _) => flag.switch(&mut self.verbose),
            ("--session", _) if knows_session => {
                let session = flag.text()?;
                flag.put(&mut self.session, session)
            }
            ("-r" | "--recursive", "cp") => flag.switch(&mut self.recursive),
            (_, "run") => self.take_for_run(flag),
            ("--", _) => {
                self.words.extend(flag.rest());
                Ok(())
            }
            _ if flag.is_word() => {
                self.words.push(flag.word());
                Ok(())
            }
            _ => flag.unknown(),
        }
    }

    fn take_for_run(&mut self, flag: &mut Flag<'_, '_>) -> Result<(), UsageError> {
        match flag.name {
            "-t" | "--tty" => flag.switch(&mut self.tty),
            "--cwd" => {
                let cwd = flag.value()?.into();
                flag.put(&mut self.cwd, cwd)
            }
            "--env" => {
                let variable = flag.parsed("NAME=VALUE", |text| {
                    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty())?;
                    Some((name.to_owned(), value.to_owned()))
                })?;
                self.env.push(variable);
                Ok(())
            }
            "--clear-env" => flag.switch(&mut self.clear_env),
            "--timeout" => {
                let timeout = flag.seconds()?;
                flag.put(&mut self.timeout, timeout)
            }
            "--sandbox" => {
                let modes = "read-only, workspace-write or danger-full-access";
                let mode = flag.parsed(modes, |text| match text {
                    "read-only" => Some(SandboxMode::ReadOnly),
                    "workspace-write" => Some(SandboxMode::WorkspaceWrite),
                    "danger-full-access" => Some(SandboxMode::Full),
                    _ => None,
                })?;
                flag.put(&mut self.sandbox, mode)
            }
            "--network" => flag.switch(&mut self.network),
            "--detach" => flag.switch(&mut self.detach),
            "--" => {
                self.words = flag.rest();
                Ok(())
            }
            // The command begins, and its flags are its own.
            _ if flag.is_word() => {
                self.words.push(flag.word());
                self.words.extend(flag.rest());
                Ok(())
            }
            _ => flag.unknown(),
        }
    }

    fn common(&mut self) -> Result<Common, UsageError> {
        let place = match (self.connect.take(), self.spawn.take(), self.token_file.take()) {
            (Some(_), Some(_), _) => return wrong("--connect and --spawn are mutually exclusive"),
            (None, _, Some(_)) => return wrong("--token-file needs --connect"),
            (Some(url), None, token_file) => Place::Remote(url, token_file),
            (None, Some(server), None) => Place::Spawned(server),
            (None, None, None) => Place::Here,
        };
        Ok(Common {
            place,
            verbose: self.verbose.is_some(),
        })
    }

    fn run_args(mut self) -> Result<RunArgs, UsageError> {
        let common = self.common()?;
        let argv: Result<Vec<String>, OsString> = self.words.into_iter().map(OsString::into_string).collect();
        let Ok(argv) = argv else {
            return wrong("the command and its arguments must be UTF-8");
        };
        if argv.first().is_none_or(String::is_empty) {
            return wrong("run needs a command");
        }
        let detach = self.detach.is_some();
        if detach && !matches!(common.place, Place::Remote(..)) {
            return wrong("--detach needs --connect: another server ends with this command");
        }
        let sandbox = self.sandbox.unwrap_or(SandboxMode::Full);
        if self.network.is_some() && sandbox == SandboxMode::Full {
            return wrong("--network needs --sandbox read-only or workspace-write");
        }
        Ok(RunArgs {
            common,
            sandbox,
            network: self.network.is_some(),
            tty: self.tty.is_some(),
            cwd: self.cwd,
            env: self.env,
            clear_env: self.clear_env.is_some(),
            timeout: self.timeout,
            detach,
            argv,
        })
    }

    fn attach_args(mut self) -> Result<AttachArgs, UsageError> {
        let common = self.common()?;
        let session = self.session("attach", &common)?;
        let mut words = self.words.into_iter();
        let (process, more) = (words.next(), words.next());
        if let Some(word) = more {
            return wrong(format!("unexpected argument `{}`", word.to_string_lossy()));
        }
        let process = process.map(OsString::into_string).transpose();
        let process = process.or_else(|_| wrong("the name of the process is not UTF-8"))?;
        Ok(AttachArgs {
            common,
            session,
            process,
        })
    }

    fn list_args(mut self) -> Result<ListArgs, UsageError> {
        let common = self.common()?;
        let session = self.session("ps", &common)?;
        if let Some(word) = self.words.first() {
            return wrong(format!("unexpected argument `{}`", word.to_string_lossy()));
        }
        Ok(ListArgs { common, session })
    }

    /// Sessions that can be taken up are only those of servers that others have started.
    fn session(&mut self, command: &str, common: &Common) -> Result<String, UsageError> {
        match (&common.place, self.session.take()) {
            (Place::Remote(..), Some(session)) => Ok(session),
            _ => wrong(format!("{command} needs --connect and --session")),
        }
    }

    fn copy_args(mut self) -> Result<CopyArgs, UsageError> {
        let common = self.common()?;
        let [from, to] = &self.words[..] else {
            return wrong("cp needs a source and a destination");
        };
        let direction = match (remote_path(from), remote_path(to)) {
            (Some(from), None) => Direction::Fetch { from, to: to.into() },
            (None, Some(to)) => Direction::Send { from: from.into(), to },
            _ => return wrong("one of source and destination must begin with `remote:`"),
        };
        Ok(CopyArgs {
            common,
            direction,
            recursive: self.recursive.is_some(),
        })
    }
}

/// The path on the server, if that is where it is.
fn remote_path(word: &OsString) -> Option<PathBuf> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let path = word.as_bytes().strip_prefix(b"remote:")?;
    // The server's own directory.
    let path = if path.is_empty() { b"." } else { path };
    Some(OsString::from_vec(path.to_vec()).into())
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
