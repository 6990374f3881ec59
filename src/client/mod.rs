//! The other side of the wire: a program's view of a server that runs commands for it.
//!
//! Blocking calls, and two threads for each client: one takes in what the server sends, the other does what has to be
//! done at a certain time. Whoever calls writes to the wire by itself.

mod attach;
mod client;
mod connection;
mod error;
pub mod events;
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

pub use client::ExecServerClient;
pub use error::{ExecServerError, Result};
pub use exec_process::{ExecServerProcess, ProcessOutput};
pub use file_calls::MissingWatch;
pub use options::{ExecServerClientConnectOptions, ExecServerLaunchCommand, RemoteExecServerConnectArgs};
pub use process_calls::{ListedProcess, ReadResponse, WriteStatus};
pub use process_stdin::ProcessStdin;
pub use remote_file::RemoteFile;
pub use server_environment::{ServerEnvironment, ServerShell};
pub use start_options::StartOptions;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a lock guards is whole whenever it is free, also after a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
