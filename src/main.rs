//! The `exec-server` command.

mod cli;

use cli::args::{Command, parse};
use cli::{fail, print};
use exec_server::sys::reserve::Reserving;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: Reserving = Reserving;

fn main() -> ExitCode {
    let command = match parse(&mut std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(e) => return fail(2, &e.to_string()),
    };
    match command {
        Command::Help(page) => print(page),
        Command::Version => print(concat!("exec-server ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Serve(args) => {
            cli::log_output::install(args.log_level, args.log_format);
            match cli::serve::serve(&args) {
                Ok(never) => match never {},
                Err(e) => fail(1, &e),
            }
        }
        Command::CheckSandbox => cli::sandbox::check(),
        #[cfg(feature = "client")]
        Command::Client(command) => cli::client::carry_out(command),
    }
}
