//! The `exec-server` command.

mod cli;

use cli::args::{Command, HELP, parse};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => print(HELP),
        Ok(Command::Version) => print(concat!("exec-server ", env!("CARGO_PKG_VERSION"), "\n")),
        Ok(Command::Serve(args)) => {
            cli::log_output::install(args.log_level);
            match cli::serve::serve(&args) {
                Ok(never) => match never {},
                Err(e) => fail(1, &e),
            }
        }
        Err(e) => fail(2, &e.to_string()),
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(code: u8, error: &str) -> ExitCode {
    eprintln!("exec-server: {error}");
    ExitCode::from(code)
}
