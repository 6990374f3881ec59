//! The command line: the only place that prints.

pub(crate) mod args;
mod auth;
#[cfg(feature = "client")]
pub(crate) mod client;
mod flags;
mod help;
mod life;
mod limits;
pub(crate) mod log_output;
mod notify;
pub(crate) mod sandbox;
pub(crate) mod serve;
mod ways;

use std::io::Write;
use std::process::ExitCode;

/// Says what went wrong.
pub(crate) fn fail(code: u8, error: &str) -> ExitCode {
    // Nobody is left to be told if it fails.
    let _ = std::io::stderr().write_all(format!("exec-server: {error}\n").as_bytes());
    ExitCode::from(code)
}

/// Prints what was asked for.
pub(crate) fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
