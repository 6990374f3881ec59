//! How the program ends when it cannot do what it was asked to.

use exec_server::client::ExecServerError;
use std::io;

/// The exit code of `run` and `attach` for what fails here, and not in the command: docker's convention.
const FAILED_HERE: u8 = 125;

/// The exit codes of shells for a program that cannot be executed, and one that is not there.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// `ENOENT`
const NO_SUCH_FILE: i32 = 2;

/// Why the program ends, and its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) message: String,
}

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Failure {
        Failure {
            code: FAILED_HERE,
            message: message.into(),
        }
    }

    /// What a call of the system said.
    pub(super) fn system(what: &str, error: impl Into<io::Error>) -> Failure {
        Failure::new(format!("{what}: {}", error.into()))
    }

    /// The command could not be started.
    pub(super) fn of_start(error: &ExecServerError) -> Failure {
        match error {
            ExecServerError::Server { message, errno, .. } => Failure {
                code: match errno {
                    Some(NO_SUCH_FILE) => NOT_FOUND,
                    Some(_) => NOT_EXECUTABLE,
                    None => FAILED_HERE,
                },
                message: message.clone(),
            },
            _ => error.into(),
        }
    }

    /// With the exit code of commands that have none of another program's to give.
    pub(super) fn plain(mut self) -> Failure {
        self.code = 1;
        self
    }
}

impl From<&ExecServerError> for Failure {
    fn from(error: &ExecServerError) -> Failure {
        Failure::new(error.to_string())
    }
}

impl From<ExecServerError> for Failure {
    fn from(error: ExecServerError) -> Failure {
        Failure::from(&error)
    }
}
