//! A file on the server that is open.

use super::connection::Connection;
use super::error::{ExecServerError, Result};
use super::exec_client::ExecServerClient;
use super::file_calls::content;
use super::json_object::JsonObject;
use super::process_calls::fields;
use std::borrow::Cow;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

/// The most that one call reads or writes, 1 MiB: what servers allow.
const BLOCK_BYTES: usize = 1024 * 1024;

/// A file that is open on the server, for reading or for writing. Closed when it is dropped.
///
/// It belongs to the connection: when that is lost, every use fails, also after the session is resumed.
pub struct RemoteFile {
    client: ExecServerClient,
    connection: Arc<Connection>,
    handle_id: String,
    position: u64,
    is_closed: bool,
}

impl RemoteFile {
    pub(super) fn new(client: ExecServerClient, connection: Arc<Connection>, handle_id: String) -> RemoteFile {
        RemoteFile {
            client,
            connection,
            handle_id,
            position: 0,
            is_closed: false,
        }
    }

    /// `fs/readBlock`: up to `len` bytes at `offset`, at most 1 MiB, and whether the file ends with them.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn read_block(&self, offset: u64, len: usize) -> Result<(Vec<u8>, bool)> {
        let params = JsonObject::new()
            .text("handleId", &self.handle_id)
            .number("offset", offset)
            .number("len", len.min(BLOCK_BYTES) as u64)
            .done();
        let session = self.client.session();
        let mut answer = session.call_over(&self.connection, "fs/readBlock", params, None)?;
        let bulk = answer.bulk.pop();
        let fields = fields(&answer)?;
        let chunk: Cow<'_, str> = fields.required("chunk")?;
        Ok((content(bulk, &chunk)?, fields.required("eof")?))
    }

    /// `fs/writeBlock`: 1 byte to 1 MiB at `offset`.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn write_block(&self, offset: u64, block: &[u8]) -> Result<()> {
        let params = JsonObject::new()
            .text("handleId", &self.handle_id)
            .number("offset", offset)
            .done();
        let bulk = Some(("chunk", block));
        let session = self.client.session();
        session
            .call_over(&self.connection, "fs/writeBlock", params, bulk)
            .map(drop)
    }

    /// `fs/close`. Dropping it does the same, but tells no error.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn close(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.is_closed, true) {
            return Ok(());
        }
        let params = JsonObject::new().text("handleId", &self.handle_id).done();
        let session = self.client.session();
        session.clean_up_over(&self.connection, "fs/close", params).map(drop)
    }
}

impl Drop for RemoteFile {
    fn drop(&mut self) {
        match self.end() {
            // With the connection its files are closed.
            Ok(()) | Err(ExecServerError::Disconnected(_) | ExecServerError::Closed) => {}
            Err(e) => log::warn!("failed to close a file on exec-server: {e}"),
        }
    }
}

impl Read for RemoteFile {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if room.is_empty() {
            return Ok(0);
        }
        let (block, _) = self.read_block(self.position, room.len())?;
        // A server that sends more than it was asked for is cut short.
        let n = block.len().min(room.len());
        room[..n].copy_from_slice(&block[..n]);
        self.position += n as u64;
        Ok(n)
    }
}

impl Write for RemoteFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let block = &bytes[..bytes.len().min(BLOCK_BYTES)];
        if !block.is_empty() {
            self.write_block(self.position, block)?;
            self.position += block.len() as u64;
        }
        Ok(block.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// From the start or the present position; servers do not tell where an open file ends.
impl Seek for RemoteFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(_) => return Err(io::ErrorKind::Unsupported.into()),
        };
        self.position = to.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
