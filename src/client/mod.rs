//! The other side of the wire: a program's view of a server that runs commands for it.
//!
//! Blocking calls, and two threads for each client: one takes in what the server sends, the other does what has to be
//! done at a certain time. Whoever calls writes to the wire by itself.
//!
//! ```
//! use exec_server::client::{ExecServerClient, ExecServerClientConnectOptions, StartOptions};
//! use exec_server::host;
//! use exec_server::server::ServerConfig;
//! use std::io::Write;
//!
//! let (_server, end) = host::connect(ServerConfig::default())?;
//! let client = ExecServerClient::connect_memory(end, ExecServerClientConnectOptions::default())?;
//! let process = client.start_process(&StartOptions::new(["/bin/cat"]).pipe_stdin())?;
//! process.stdin().write_all(b"hello\n")?;
//! process.close_stdin()?;
//! let output = process.output()?;
//! assert_eq!((output.stdout.as_slice(), output.exit.exit_code), (&b"hello\n"[..], 0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A lost WebSocket is made again, the session resumed, and what was missed fetched and put where it belongs: whoever
//! reads the events of a process sees nothing of it. From this crate's server nothing is ever lost so, as long as it keeps
//! the session; from others what they retain is had, and a process for which that is not enough fails by itself.

mod attach;
mod connection;
mod error;
pub mod events;
mod exec_client;
mod exec_process;
mod file_calls;
mod handshake;
mod incoming;
mod json_object;
mod keeper;
mod memory_wire;
mod options;
mod outgoing;
mod pending;
mod posted;
mod process_calls;
mod process_stdin;
mod reader;
mod recovery;
mod remote;
mod remote_file;
mod server_command;
mod server_environment;
mod session;
mod start_options;
mod stream_wire;
mod write_window;

pub use error::{ExecServerError, Result};
pub use events::ReadResponse;
pub use exec_client::ExecServerClient;
pub use exec_process::{ExecServerProcess, ProcessOutput};
pub use file_calls::MissingWatch;
pub use options::{ExecServerClientConnectOptions, ExecServerLaunchCommand, RemoteExecServerConnectArgs};
pub use process_calls::{ListedProcess, WriteStatus};
pub use process_stdin::ProcessStdin;
pub use remote_file::RemoteFile;
pub use server_environment::{ServerEnvironment, ServerShell};
pub use start_options::StartOptions;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a lock guards is whole whenever it is free, also after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
