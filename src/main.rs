//! The `exec-server` command.

mod cli;

use cli::Failure;
use cli::args::{Command, parse};
use exec_server::sys::allocator;
use log::LevelFilter;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let command = match parse(&mut std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(e) => return fail(2, &e.to_string()),
    };
    match command {
        Command::Help(page) => print(page),
        Command::Version => print(concat!("exec-server ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Serve(args) => {
            cli::log_output::install(args.log_level);
            match cli::serve::serve(&args) {
                Ok(never) => match never {},
                Err(e) => fail(1, &e),
            }
        }
        Command::Run(args) => finish(args.common.verbose, || cli::run::run(args)),
        Command::Attach(args) => finish(args.common.verbose, || cli::attach::attach(args)),
        Command::List(args) => finish(args.common.verbose, || cli::list::list(&args)),
        Command::Copy(args) => finish(args.common.verbose, || cli::copy::copy(&args)),
    }
}

/// Does what uses a server, and ends this program whatever its threads do.
fn finish(verbose: bool, run: impl FnOnce() -> Result<u8, Failure>) -> ExitCode {
    let level = if verbose { LevelFilter::Info } else { LevelFilter::Warn };
    cli::log_output::install(level);
    allocator::limit_arenas();
    let code = run().unwrap_or_else(|failure| {
        fail(failure.code, &failure.message);
        failure.code
    });
    std::process::exit(code.into())
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn fail(code: u8, error: &str) -> ExitCode {
    // Nobody is left to be told if it fails.
    let _ = std::io::stderr().write_all(format!("exec-server: {error}\n").as_bytes());
    ExitCode::from(code)
}
