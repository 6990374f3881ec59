//! What to start and how.

use super::program::{self, ProgramError, c_string, variable};
use super::run_limits::RunLimits;
use crate::sandbox::{Enforcement, SandboxError};
use crate::sys::confine::ConfineError;
use crate::sys::mark::Kin;
use crate::sys::{pty, spawn};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

/// A command to start.
#[derive(Clone, Debug)]
pub struct StartSpec {
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// What the program sees as its own name instead of `argv[0]`; it never changes which program runs.
    pub arg0: Option<OsString>,
    /// The working directory, absolute.
    pub cwd: PathBuf,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Pipes or a terminal.
    pub stdio: Stdio,
    /// What ends it by itself.
    pub limits: RunLimits,
    /// By which it and what it leaves behind are found; a command of a group of its own, or of the caller's.
    pub kin: Kin,
    /// What it is confined to, if it is.
    pub confine: Option<Confine>,
}

/// Says what a command is confined to, if to anything. It is asked on the command's own thread, because it may look at many files.
#[derive(Clone)]
pub struct Confine(pub Arc<dyn Fn() -> Result<Option<Enforcement>, SandboxError> + Send + Sync>);

impl std::fmt::Debug for Confine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Confine")
    }
}

/// What a command's standard streams are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdio {
    /// A pipe each for output and error, and one for input or else `/dev/null`.
    Pipes {
        /// Whether there is a pipe for input.
        stdin: bool,
    },
    /// One terminal for all three.
    Terminal(TerminalSize),
}

/// The size of a terminal, in character cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub cols: u16,
}

impl Default for TerminalSize {
    /// 24 rows of 80 columns, as Codex's exec-server has it.
    fn default() -> TerminalSize {
        TerminalSize { rows: 24, cols: 80 }
    }
}

/// Why a command was not started. Nothing is left of it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The command names no program.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A pipe, terminal, event or thread could not be had.
    #[error("failed to create {what} for the process: {source}")]
    Resource {
        /// Which.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The working directory cannot be entered.
    #[error("failed to enter the working directory `{}`: {source}", cwd.display())]
    Directory {
        /// The directory.
        cwd: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The program cannot be executed.
    #[error("failed to execute `{}`: {source}", program.display())]
    Execute {
        /// The program as it was named.
        program: OsString,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something else.
    #[error(transparent)]
    Spawn(spawn::SpawnError),
    /// It can't have the sandbox that it is to have.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The sandbox could not be set up.
    #[error("failed to set up the sandbox: {0}")]
    Confine(ConfineError),
    /// It was terminated while it was being started.
    #[error("start was cancelled")]
    Cancelled,
}

/// Our ends of a started command's streams; all non-blocking.
pub struct Streams {
    pub stdin: Option<Arc<OwnedFd>>,
    pub stdout: Arc<OwnedFd>,
    pub stderr: Option<Arc<OwnedFd>>,
}

/// Starts the command. The calling thread is to live until the command is reaped.
pub fn start(spec: &StartSpec) -> Result<(spawn::Child, Streams), StartError> {
    let name = spec.argv.first().ok_or(ProgramError::Empty)?;
    let candidates = program::candidates(name, &spec.env)?;
    let argv = spec
        .arg0
        .iter()
        .chain(spec.argv.iter().skip(spec.arg0.is_some().into()));
    let argv: Vec<CString> = argv.map(|a| c_string(a.as_bytes(), "argv")).collect::<Result<_, _>>()?;
    let envp: Vec<CString> = spec.env.iter().map(variable).collect::<Result<_, _>>()?;
    let cwd = c_string(spec.cwd.as_os_str().as_bytes(), "cwd")?;
    let (ours, theirs) = open_streams(spec.stdio)?;
    let program = spawn::Program {
        candidates: &candidates,
        argv: &argv,
        envp: &envp,
        cwd: &cwd,
        stdio: [
            theirs.stdin.as_fd(),
            theirs.stdout.as_fd(),
            theirs.stderr.as_ref().unwrap_or(&theirs.stdout).as_fd(),
        ],
        leads: match spec.stdio {
            Stdio::Terminal(_) => spawn::Leads::Terminal,
            Stdio::Pipes { .. } => spawn::Leads::Session,
        },
        mark: Some(spec.kin),
    };
    let failed = |e: spawn::SpawnError| match e.step {
        spawn::Step::Directory => StartError::Directory {
            cwd: spec.cwd.clone(),
            source: e.errno.into(),
        },
        spawn::Step::Execute => StartError::Execute {
            program: name.clone(),
            source: e.errno.into(),
        },
        _ => StartError::Spawn(e),
    };
    let enforcement = match &spec.confine {
        None => None,
        Some(confine) => confine.0()?,
    };
    let child = match &enforcement {
        None => spawn::spawn(&program).map_err(failed)?,
        Some(enforcement) => enforcement.spawn(&program).map_err(|e| match e {
            ConfineError::Spawn(e) => failed(e),
            e => StartError::Confine(e),
        })?,
    };
    Ok((child, ours))
}

/// The command's ends of its streams; a missing error stream is the output.
struct TheirStreams {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
}

fn open_streams(stdio: Stdio) -> Result<(Streams, TheirStreams), StartError> {
    let failed = |what| move |e: io::Error| StartError::Resource { what, source: e };
    match stdio {
        Stdio::Terminal(size) => {
            let pty = pty::open(size.rows, size.cols).map_err(failed("a terminal (/dev/ptmx)"))?;
            let master = Arc::new(pty.master);
            let stdin = pty.slave.try_clone().map_err(failed("a terminal (/dev/ptmx)"))?;
            let ours = Streams {
                stdin: Some(master.clone()),
                stdout: master,
                stderr: None,
            };
            Ok((
                ours,
                TheirStreams {
                    stdin,
                    stdout: pty.slave,
                    stderr: None,
                },
            ))
        }
        Stdio::Pipes { stdin } => {
            let pipe = || {
                pipe2(OFlag::O_CLOEXEC)
                    .map_err(io::Error::from)
                    .map_err(failed("a pipe"))
            };
            let ((stdout, their_stdout), (stderr, their_stderr)) = (pipe()?, pipe()?);
            let (their_stdin, stdin) = if stdin {
                let (theirs, ours) = pipe()?;
                (theirs, Some(ours))
            } else {
                let null = std::fs::File::open("/dev/null").map_err(failed("an empty input (/dev/null)"))?;
                (null.into(), None)
            };
            for end in [Some(&stdout), Some(&stderr), stdin.as_ref()].into_iter().flatten() {
                fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
                    .map_err(io::Error::from)
                    .map_err(failed("a pipe"))?;
            }
            let ours = Streams {
                stdin: stdin.map(Arc::new),
                stdout: Arc::new(stdout),
                stderr: Some(Arc::new(stderr)),
            };
            Ok((
                ours,
                TheirStreams {
                    stdin: their_stdin,
                    stdout: their_stdout,
                    stderr: Some(their_stderr),
                },
            ))
        }
    }
}

impl StartSpec {
    /// A command on pipes without input, from its words; for tests and simple uses.
    pub fn new<W: Into<OsString>>(argv: impl IntoIterator<Item = W>) -> StartSpec {
        let path = std::env::var_os("PATH").map(|path| ("PATH".into(), path));
        StartSpec {
            argv: argv.into_iter().map(Into::into).collect(),
            arg0: None,
            cwd: OsString::from_vec(b"/".to_vec()).into(),
            env: path.into_iter().collect(),
            stdio: Stdio::Pipes { stdin: false },
            limits: RunLimits::default(),
            kin: Kin::group().command(),
            confine: None,
        }
    }
}
