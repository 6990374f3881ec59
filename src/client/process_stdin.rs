//! The input of a process as `std::io::Write`.

use super::error::{ExecServerError, Result};
use super::exec_client::ExecServerClient;
use super::write_window::{PIECE_BYTES, WriteWindow};
use std::io;
use std::sync::Arc;

/// The input of a process. Clones write to the same, one after the other.
///
/// Through [`Write`](io::Write) it is like a pipe: what is written is sent, and not waited for until it has arrived. Up
/// to 256 KiB, or 64 writes, may be on their way so; beyond that a write waits, as it does when the process does not read.
/// What the server has against a write is told by the next one, by [`flush`](io::Write::flush), which waits for
/// all answers, and by [`close`](ProcessStdin::close); after that there are no more writes. To a server that may put writes in
/// another order, which this crate's does not, there is one at a time.
///
/// If the connection is lost meanwhile, what was not answered is sent again once the session is resumed, in its order,
/// and yet arrives once.
///
/// Dropping it does not end the input, [`close`](ProcessStdin::close) does; nor is anything lost with it that was
/// written. A client that is closed, or dropped with all that belongs to it, waits for the answers for up to a second.
#[derive(Clone)]
pub struct ProcessStdin {
    client: ExecServerClient,
    window: Arc<WriteWindow>,
}

impl ProcessStdin {
    /// The ids of its writes are numbers behind `prefix`.
    pub(super) fn new(client: ExecServerClient, process_id: Arc<str>, prefix: Box<str>) -> ProcessStdin {
        ProcessStdin {
            window: WriteWindow::new(client.session(), process_id, prefix),
            client,
        }
    }

    /// Writes all of `input`; returns when the server has taken it, which waits for the process when it does not read.
    ///
    /// # Errors
    /// [`ExecServerError::Protocol`] if nobody will read it; what else the server has against it, or against an earlier
    /// write; that the connection is lost for good.
    pub fn send(&self, input: &[u8]) -> Result<()> {
        let session = self.client.session();
        let mut last = 0;
        for piece in input.chunks(PIECE_BYTES) {
            last = self.window.put(session, piece, false)?;
        }
        self.window.settle(session, last)
    }

    /// Ends the input, and waits for all answers. On a terminal that is the end-of-file character.
    ///
    /// # Errors
    /// As [`send`](ProcessStdin::send); not that the input was closed already, unless a write was lost with that and nobody told.
    pub fn close(&self) -> Result<()> {
        let session = self.client.session();
        let last = self.window.put(session, &[], true)?;
        self.window.settle_close(session, last)
    }
}

impl io::Write for ProcessStdin {
    fn write(&mut self, input: &[u8]) -> io::Result<usize> {
        let piece = &input[..input.len().min(PIECE_BYTES)];
        if !piece.is_empty() {
            self.window
                .put(self.client.session(), piece, false)
                .map_err(as_from_a_pipe)?;
        }
        Ok(piece.len())
    }

    /// Waits until the server has taken all that was written.
    fn flush(&mut self) -> io::Result<()> {
        let last = self.window.last_number();
        self.window.settle(self.client.session(), last).map_err(as_from_a_pipe)
    }
}

/// What nobody reads breaks the pipe.
fn as_from_a_pipe(error: ExecServerError) -> io::Error {
    match error {
        ExecServerError::Protocol(_) => io::Error::new(io::ErrorKind::BrokenPipe, error),
        error => error.into(),
    }
}
