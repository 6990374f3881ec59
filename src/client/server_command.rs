//! A command that is a server on its standard streams.

use super::options::ExecServerLaunchCommand;
use super::stream_wire::Exit;
use crate::process::ProgramError;
use crate::process::program::{c_string, candidates, variable};
use crate::sys::spawn::{Child, Leads, Program, spawn};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::pipe2;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

/// How long it may take after SIGTERM, as with Codex.
const GRACE: Duration = Duration::from_secs(2);

/// The longest line of its standard error that goes to the log in one piece, in bytes.
const MAX_LOG_LINE: usize = 4096;

/// A running server, alone in its process group with what it starts there. Dropped, all of that is ended.
pub(super) struct ServerCommand {
    child: Child,
    output: File,
    errors: Option<File>,
    /// Of the last line on standard error, what has come.
    line: Vec<u8>,
    /// Readable when the connection was cut.
    stop: OwnedFd,
}

/// What there is to do.
pub(super) enum Turn {
    /// So many bytes were read.
    Read(usize),
    /// Nothing more will come; why.
    Ended(&'static str),
}

impl ServerCommand {
    /// Starts it, and returns the way to its standard input, too.
    pub(super) fn start(command: &ExecServerLaunchCommand) -> io::Result<(ServerCommand, Exit)> {
        let mut env: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        for (name, _) in &command.env {
            env.retain(|(inherited, _)| inherited != name);
        }
        env.extend_from_slice(&command.env);
        let (their_input, input) = pipe2(OFlag::O_CLOEXEC)?;
        let (output, their_output) = pipe2(OFlag::O_CLOEXEC)?;
        let (errors, their_errors) = pipe2(OFlag::O_CLOEXEC)?;
        let (exit, stop) = Exit::pipe(input)?;
        let child = spawn(&Program {
            candidates: &candidates(command.program.as_os_str(), &env).map_err(invalid)?,
            argv: &argv(command).map_err(invalid)?,
            envp: &env
                .iter()
                .map(variable)
                .collect::<Result<Vec<_>, _>>()
                .map_err(invalid)?,
            cwd: &c_string(
                command.cwd.as_deref().unwrap_or(".".as_ref()).as_os_str().as_bytes(),
                "cwd",
            )
            .map_err(invalid)?,
            stdio: [their_input.as_fd(), their_output.as_fd(), their_errors.as_fd()],
            // It is to outlive this thread, and may ask for a password on the terminal.
            leads: Leads::Group,
            mark: None,
        })
        .map_err(|e| io::Error::from(e.errno))?;
        let server = ServerCommand {
            child,
            output: output.into(),
            errors: Some(errors.into()),
            line: Vec::new(),
            stop,
        };
        Ok((server, exit))
    }

    /// Reads what comes next on its standard output; what comes on standard error goes to the log meanwhile.
    pub(super) fn read(&mut self, room: &mut [u8]) -> io::Result<Turn> {
        loop {
            let errors = self.errors.as_ref().map(AsFd::as_fd);
            let stop = self.stop.as_fd();
            let mut fds = [
                PollFd::new(self.output.as_fd(), PollFlags::POLLIN),
                PollFd::new(stop, PollFlags::POLLIN),
                PollFd::new(self.child.pidfd.as_fd(), PollFlags::POLLIN),
                PollFd::new(errors.unwrap_or(stop), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                Err(e) => return Err(e.into()),
                Ok(_) => {}
            }
            let [output, stopped, has_exited, errors] = fds.map(|fd| fd.any() == Some(true));
            if stopped {
                return Ok(Turn::Ended("the connection was cut"));
            }
            if errors && self.errors.is_some() {
                self.log_errors();
            }
            if output {
                match self.output.read(room) {
                    Ok(0) => return Ok(Turn::Ended("the server closed its standard output")),
                    Ok(n) => return Ok(Turn::Read(n)),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) => return Err(e),
                }
            }
            // Everything that it had written by then was read, whoever else has its output open.
            if has_exited {
                return Ok(Turn::Ended("the server has ended"));
            }
        }
    }

    /// Reads some of its standard error, which does not block once.
    fn log_errors(&mut self) {
        let Some(errors) = &mut self.errors else { return };
        let mut piece = [0; 1024];
        let n = match errors.read(&mut piece) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return,
            Ok(n) if n > 0 => n,
            _ => {
                self.errors = None;
                0
            }
        };
        for byte in &piece[..n] {
            if *byte != b'\n' {
                self.line.push(*byte);
            }
            if *byte == b'\n' || self.line.len() >= MAX_LOG_LINE {
                self.log_line();
            }
        }
        if n == 0 {
            self.log_line();
        }
    }

    fn log_line(&mut self) {
        if !self.line.is_empty() {
            log::info!("exec-server: {}", String::from_utf8_lossy(&self.line));
            self.line.clear();
        }
    }

    /// Waits for its end, reading its standard error meanwhile so that it can say what it has to say.
    fn wait_exit(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let errors = self.errors.as_ref().map(AsFd::as_fd);
            let mut fds = [
                PollFd::new(self.child.pidfd.as_fd(), PollFlags::POLLIN),
                PollFd::new(errors.unwrap_or(self.child.pidfd.as_fd()), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                Err(Errno::EINTR) => continue,
                Ok(1..) => {}
                _ => return,
            }
            let [has_exited, errors] = fds.map(|fd| fd.any() == Some(true));
            if errors && self.errors.is_some() {
                self.log_errors();
            }
            if has_exited {
                return;
            }
        }
    }
}

impl Drop for ServerCommand {
    fn drop(&mut self) {
        // Until it is reaped below, the number of its group is nobody else's.
        let group = self.child.pid;
        let _ = killpg(group, Signal::SIGTERM);
        self.wait_exit(GRACE);
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
        self.log_line();
    }
}

fn argv(command: &ExecServerLaunchCommand) -> Result<Vec<CString>, ProgramError> {
    let words = [command.program.as_os_str()]
        .into_iter()
        .chain(command.args.iter().map(AsRef::as_ref));
    words.map(|word| c_string(word.as_bytes(), "argv")).collect()
}

fn invalid(error: ProgramError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}
