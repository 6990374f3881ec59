//! The input of a process as `std::io::Write`.

use super::error::{ExecServerError, Result};
use super::exec_client::ExecServerClient;
use super::lock;
use super::process_calls::WriteStatus;
use std::io;
use std::sync::{Arc, Mutex};

/// The most that is written in one call: keeps `process/terminate` and others from waiting for long on the wire.
const PIECE_BYTES: usize = 1024 * 1024;

/// The input of a process. Clones write to the same, one after the other.
///
/// Dropping it does not end the input; [`close`](ProcessStdin::close) does.
#[derive(Clone)]
pub struct ProcessStdin {
    client: ExecServerClient,
    process_id: Arc<str>,
    /// The number of the last write. Held while one is made, so that they arrive in order.
    last_write: Arc<Mutex<u64>>,
}

impl ProcessStdin {
    pub(super) fn new(client: ExecServerClient, process_id: Arc<str>) -> ProcessStdin {
        ProcessStdin {
            client,
            process_id,
            last_write: Arc::default(),
        }
    }

    /// Writes all of `input`; returns when the server has taken it, which waits for the process when it does not read.
    ///
    /// If the connection is lost meanwhile, it is sent again once the session is resumed, and yet arrives once.
    ///
    /// # Errors
    /// [`ExecServerError::Protocol`] if nobody will read it; what else the server has against it; that the connection
    /// is lost for good.
    pub fn send(&self, input: &[u8]) -> Result<()> {
        input.chunks(PIECE_BYTES).try_for_each(|piece| self.put(piece, false))
    }

    /// Ends the input. On a terminal that is the end-of-file character.
    ///
    /// # Errors
    /// As [`send`](ProcessStdin::send).
    pub fn close(&self) -> Result<()> {
        self.put(&[], true)
    }

    fn put(&self, input: &[u8], close: bool) -> Result<()> {
        let status = {
            let mut last = lock(&self.last_write);
            *last += 1;
            self.client.write(&self.process_id, &last.to_string(), input, close)?
        };
        let process = &self.process_id;
        match status {
            WriteStatus::Accepted => Ok(()),
            // It is closed all the same.
            WriteStatus::StdinClosed if close => Ok(()),
            WriteStatus::StdinClosed => Err(ExecServerError::Protocol(format!(
                "stdin of process {process} is closed"
            ))),
            WriteStatus::UnknownProcess => Err(ExecServerError::Protocol(format!("unknown process id {process}"))),
            WriteStatus::Starting => Err(ExecServerError::Protocol(format!("process id {process} is starting"))),
        }
    }
}

impl io::Write for ProcessStdin {
    fn write(&mut self, input: &[u8]) -> io::Result<usize> {
        let piece = &input[..input.len().min(PIECE_BYTES)];
        if !piece.is_empty() {
            self.put(piece, false).map_err(|e| match e {
                // As from a pipe that nobody reads.
                ExecServerError::Protocol(_) => io::Error::new(io::ErrorKind::BrokenPipe, e),
                e => e.into(),
            })?;
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
