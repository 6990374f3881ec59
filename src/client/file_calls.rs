//! The `fs/*` methods, one call each.
//!
//! Paths are absolute and on the server's machine. What fails there is [`ExecServerError::Server`]: -32004 for what does
//! not exist, and with the system's error number where this crate's server tells it.

use super::error::{ExecServerError, Result};
use super::exec_client::ExecServerClient;
use super::json_object::JsonObject;
use super::pending::Answer;
use super::process_calls::{decode, member};
use super::remote_file::RemoteFile;
use crate::protocol::bytes;
use crate::protocol::files::{
    FsCanonicalizeResponse, FsCopyResponse, FsGetMetadataResponse, FsOpenMode, FsReadDirectoryEntry,
    FsReadDirectoryResponse, FsWalkOptions, FsWalkResponse,
};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tungstenite::Bytes;

/// The largest message that servers take, as Codex's does: 64 MiB.
const MAX_SENT_BYTES: usize = 64 * 1024 * 1024;

/// What a message has beside the content of a file.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// A watch for paths that do not exist: see [`ExecServerClient::fs_watch_missing`].
#[derive(Debug)]
pub struct MissingWatch {
    changed: Receiver<()>,
}

impl MissingWatch {
    /// Waits, for at most `timeout`, until one of the paths may have been made: then true. False when the time is over,
    /// and when the watch has ended: another one has taken its place, or the connection was lost.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.changed.recv_timeout(timeout).is_ok()
    }

    /// Whether there is nothing more to wait for, because the watch has ended.
    pub fn has_ended(&self) -> bool {
        self.changed.recv_timeout(Duration::ZERO) == Err(RecvTimeoutError::Disconnected)
    }

    /// What receives one message when one of the paths may have been made, and is disconnected when the watch has ended.
    pub fn receiver(&self) -> &Receiver<()> {
        &self.changed
    }
}

impl ExecServerClient {
    /// `fs/getMetadata`, of what links lead to.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn fs_metadata(&self, path: impl AsRef<Path>) -> Result<FsGetMetadataResponse> {
        decode(&self.call_path("fs/getMetadata", path.as_ref())?)
    }

    /// `fs/readFile`: the whole content of a regular file, up to 512 MiB.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn fs_read_file(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        let mut answer = self.call_path("fs/readFile", path.as_ref())?;
        let bulk = answer.bulk.pop();
        content(bulk, &member::<Cow<'_, str>>(&answer, "dataBase64")?)
    }

    /// `fs/writeFile`: the whole new content of a file, all or nothing. Up to 47 MiB, as servers take no larger messages;
    /// for more see [`fs_create`](ExecServerClient::fs_create).
    ///
    /// # Errors
    /// What the server has against it, that it is too much, or that the connection is lost.
    pub fn fs_write_file(&self, path: impl AsRef<Path>, content: &[u8]) -> Result<()> {
        let path = path.as_ref();
        if bytes::encoded_len(content.len()) > MAX_SENT_BYTES - MAX_HEAD_BYTES {
            return Err(ExecServerError::Protocol(format!(
                "writing {}: {} bytes do not fit into a message of {MAX_SENT_BYTES} bytes; write the file in blocks",
                path.display(),
                content.len()
            )));
        }
        let params = JsonObject::new().path("path", path).done();
        let bulk = Some(("dataBase64", content));
        self.session().call("fs/writeFile", params, bulk, None).map(drop)
    }

    /// `fs/createDirectory`; with its parents, and no matter whether it exists, if `recursive`.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn fs_create_directory(&self, path: impl AsRef<Path>, recursive: bool) -> Result<()> {
        let params = JsonObject::new()
            .path("path", path.as_ref())
            .flag("recursive", recursive);
        self.session()
            .call("fs/createDirectory", params.done(), None, None)
            .map(drop)
    }

    /// `fs/canonicalize`: the path without links.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn fs_canonicalize(&self, path: impl AsRef<Path>) -> Result<PathBuf> {
        let answer = self.call_path("fs/canonicalize", path.as_ref())?;
        Ok(decode::<FsCanonicalizeResponse>(&answer)?.path.0)
    }

    /// `fs/readDirectory`: what is in a directory, in no order.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn fs_read_directory(&self, path: impl AsRef<Path>) -> Result<Vec<FsReadDirectoryEntry>> {
        let answer = self.call_path("fs/readDirectory", path.as_ref())?;
        Ok(decode::<FsReadDirectoryResponse>(&answer)?.entries)
    }

    /// `fs/walk`: what is below a directory.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn fs_walk(&self, path: impl AsRef<Path>, options: &FsWalkOptions) -> Result<FsWalkResponse> {
        let options = serde_json::to_vec(options)?;
        let params = JsonObject::new().path("path", path.as_ref()).raw("options", &options);
        decode(&self.session().call("fs/walk", params.done(), None, None)?)
    }

    /// `fs/remove`: a directory with all that is in it if `recursive`; no matter whether it exists if `force`.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn fs_remove(&self, path: impl AsRef<Path>, recursive: bool, force: bool) -> Result<()> {
        let params = JsonObject::new()
            .path("path", path.as_ref())
            .flag("recursive", recursive)
            .flag("force", force);
        self.session().call("fs/remove", params.done(), None, None).map(drop)
    }

    /// `fs/copy`: a file, or a directory if `recursive`. Returns what of a directory was left out: devices and the like.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn fs_copy(&self, from: impl AsRef<Path>, to: impl AsRef<Path>, recursive: bool) -> Result<Vec<PathBuf>> {
        let params = JsonObject::new()
            .path("sourcePath", from.as_ref())
            .path("destinationPath", to.as_ref())
            .flag("recursive", recursive);
        let answer = self.session().call("fs/copy", params.done(), None, None)?;
        let copied: FsCopyResponse = decode(&answer)?;
        Ok(copied.skipped.into_iter().map(|path| path.0).collect())
    }

    /// `fs/open`: a file to be read in blocks.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn fs_open(&self, path: impl AsRef<Path>) -> Result<RemoteFile> {
        self.open_file(path.as_ref(), FsOpenMode::Read)
    }

    /// `fs/open`: a file to be written in blocks, which is made, or emptied, at once.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn fs_create(&self, path: impl AsRef<Path>) -> Result<RemoteFile> {
        self.open_file(path.as_ref(), FsOpenMode::Replace)
    }

    fn open_file(&self, path: &Path, mode: FsOpenMode) -> Result<RemoteFile> {
        let session = self.session();
        let handle_id = session.new_name("f");
        let mode = match mode {
            FsOpenMode::Read => "read",
            FsOpenMode::Replace => "replace",
        };
        let params = JsonObject::new()
            .text("handleId", &handle_id)
            .path("path", path)
            .text("mode", mode)
            .done();
        let connection = session.connection()?;
        session.call_over(&connection, "fs/open", params, None)?;
        Ok(RemoteFile::new(self.clone(), connection, handle_id))
    }

    /// `fs/watchMissing`: watches for paths that do not exist, up to 64, and one that does. A client has one watch; a
    /// new one takes the place of the one before.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn fs_watch_missing(&self, missing: &[PathBuf], present: Option<&Path>) -> Result<MissingWatch> {
        let uris: Vec<String> = missing
            .iter()
            .map(|path| crate::protocol::path_uri::format(path))
            .collect();
        let session = self.session();
        let (watch_id, changed) = session.new_watch();
        let mut params = JsonObject::new()
            .number("watchId", watch_id)
            .texts("missing", &mut uris.iter().map(String::as_str));
        if let Some(present) = present {
            params = params.path("present", present);
        }
        session.call("fs/watchMissing", params.done(), None, None)?;
        Ok(MissingWatch { changed })
    }

    fn call_path(&self, method: &'static str, path: &Path) -> Result<Answer> {
        let params = JsonObject::new().path("path", path).done();
        self.session().call(method, params, None, None)
    }
}

/// The content that was taken out of a result, or what stands in it.
pub(super) fn content(bulk: Option<Bytes>, text: &str) -> Result<Vec<u8>> {
    match bulk {
        // Not a copy, as nobody else has it.
        Some(content) => Ok(content.into()),
        None => bytes::decode(text.as_bytes()).map_err(|e| ExecServerError::Json(e.to_string())),
    }
}
