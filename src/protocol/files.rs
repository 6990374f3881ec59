//! The params and results of the `fs/*` methods.
//!
//! Fields keep the names of the protocol. Unknown fields are ignored. `sandbox`, wherever it appears, is
//! carried unread: absent or null means that the call runs as the server itself.

use std::borrow::Cow;

use super::sandbox::Sandbox;
use serde::{Deserialize, Deserializer, Serialize};

use super::path_uri::{PathUri, RequestPath};

/// A switch that is on unless it is turned off; null counts as absent.
fn on_unless_false<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::<bool>::deserialize(deserializer)?.unwrap_or(true))
}

fn on() -> bool {
    true
}

/// Params of `fs/getMetadata`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsGetMetadataParams {
    /// What to look at.
    pub path: RequestPath,
    /// False refuses a path with a link in it. Default true.
    #[serde(default = "on", deserialize_with = "on_unless_false")]
    pub follow_symlinks: bool,
    /// The sandbox to do it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
}

/// Result of `fs/getMetadata`: the target's, but for `is_symlink`. Clients insist on all six fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsGetMetadataResponse {
    /// The target is a directory.
    pub is_directory: bool,
    /// The target is a regular file.
    pub is_file: bool,
    /// The path itself is a symbolic link.
    pub is_symlink: bool,
    /// Size in bytes as the file system states it.
    pub size: u64,
    /// Time of birth in milliseconds since 1970; 0 where the file system keeps none.
    pub created_at_ms: i64,
    /// Time of the last change of the content in milliseconds since 1970.
    pub modified_at_ms: i64,
}

/// Params of `fs/readFile`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsReadFileParams {
    /// The regular file to read.
    pub path: RequestPath,
    /// False refuses a path with a link in it. Default true.
    #[serde(default = "on", deserialize_with = "on_unless_false")]
    pub follow_symlinks: bool,
    /// The sandbox to do it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
}

/// Result of `fs/readFile`. The server writes it by hand; this form is for clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsReadFileResponse<'a> {
    /// The whole content, as padded standard base64.
    #[serde(borrow)]
    pub data_base64: Cow<'a, str>,
}

/// Params of `fs/writeFile`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsWriteFileParams<'a> {
    /// The file to create or to give new content.
    pub path: RequestPath,
    /// The whole new content, as padded standard base64.
    #[serde(borrow)]
    pub data_base64: Cow<'a, str>,
    /// False refuses a path with a link in it. Default true.
    #[serde(default = "on", deserialize_with = "on_unless_false")]
    pub follow_symlinks: bool,
    /// The sandbox to do it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
}

/// Params of `fs/createDirectory`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsCreateDirectoryParams {
    /// The directory to make.
    pub path: RequestPath,
    /// Make missing parents as well, and be content with what exists. Default true.
    #[serde(default = "on", deserialize_with = "on_unless_false")]
    pub recursive: bool,
    /// False refuses a path with a link in it. Default true.
    #[serde(default = "on", deserialize_with = "on_unless_false")]
    pub follow_symlinks: bool,
    /// The sandbox to do it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
}

/// Params of `fs/canonicalize`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsCanonicalizeParams {
    /// The path to resolve; it must exist.
    pub path: RequestPath,
    /// The sandbox to do it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
}

/// Result of `fs/canonicalize`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsCanonicalizeResponse {
    /// The path without links.
    pub path: PathUri,
}

/// Params of `fs/readDirectory`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsReadDirectoryParams {
    /// The directory to list.
    pub path: RequestPath,
    /// The sandbox to do it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
}

/// One entry of `fs/readDirectory`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsReadDirectoryEntry {
    /// The name; what is not UTF-8 in it is U+FFFD here, see `uri`.
    pub file_name: String,
    /// It is a directory, or a link to one.
    pub is_directory: bool,
    /// It is a regular file, or a link to one.
    pub is_file: bool,
    /// The path URI of an entry whose name is not UTF-8, by which it can be reached; absent for others.
    /// Not in Codex's exec-server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
}

/// Result of `fs/readDirectory`: everything but `.` and `..`, in no order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsReadDirectoryResponse {
    /// The entries.
    pub entries: Vec<FsReadDirectoryEntry>,
}

/// Params of `fs/walk`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsWalkParams {
    /// Where to start.
    pub path: RequestPath,
    /// How far to go.
    pub options: FsWalkOptions,
    /// The sandbox to do it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
}

/// How far `fs/walk` goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsWalkOptions {
    /// Levels below the root's own children, 0 to 64.
    pub max_depth: u64,
    /// Directories read, the root among them, 1 to 10000.
    pub max_directories: u64,
    /// Entries in the answer, 1 to 50000.
    pub max_entries: u64,
    /// List links to directories, and enter them.
    pub follow_directory_symlinks: bool,
    /// List directories whose name begins with a dot, but don't enter them. Default false.
    #[serde(default)]
    pub prune_hidden_directories: bool,
}

/// What an entry of `fs/walk` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FsWalkEntryKind {
    /// A regular file.
    File,
    /// A directory, or a followed link to one.
    Directory,
}

/// One entry of `fs/walk`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsWalkEntry {
    /// Its path URI.
    pub path: String,
    /// What it is.
    pub kind: FsWalkEntryKind,
}

/// What `fs/walk` could not look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsWalkError {
    /// Its path URI.
    pub path: String,
    /// What the system said.
    pub message: String,
}

/// Result of `fs/walk`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsWalkResponse {
    /// What was found: level by level, by name within a directory.
    pub entries: Vec<FsWalkEntry>,
    /// What could not be looked at.
    pub errors: Vec<FsWalkError>,
    /// A limit other than the depth cut the walk short.
    pub truncated: bool,
}

/// Params of `fs/remove`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsRemoveParams {
    /// What to remove; a link is removed itself.
    pub path: RequestPath,
    /// Remove a directory with all that is in it. Default true.
    #[serde(default = "on", deserialize_with = "on_unless_false")]
    pub recursive: bool,
    /// Be content when there is nothing. Default true.
    #[serde(default = "on", deserialize_with = "on_unless_false")]
    pub force: bool,
    /// False refuses a path with a link in it. Default true.
    #[serde(default = "on", deserialize_with = "on_unless_false")]
    pub follow_symlinks: bool,
    /// The sandbox to do it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
}

/// Params of `fs/copy`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsCopyParams {
    /// A regular file, a link or a directory.
    pub source_path: RequestPath,
    /// Where the copy goes; its parent must exist.
    pub destination_path: RequestPath,
    /// Needed for a directory.
    pub recursive: bool,
    /// The sandbox to do it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
}

/// Result of `fs/copy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsCopyResponse {
    /// Devices, sockets and pipes of the source tree, which are not copied; absent when there are none.
    /// Not in Codex's exec-server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<PathUri>,
}

/// What a file handle is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FsOpenMode {
    /// Reading an existing file.
    #[default]
    Read,
    /// Writing a file that is created, or emptied, at once.
    Replace,
}

/// Params of `fs/open`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsOpenParams {
    /// The client's name for the handle, at most 32 bytes.
    pub handle_id: String,
    /// The regular file to open.
    pub path: RequestPath,
    /// What for. Default reading; null is refused.
    #[serde(default)]
    pub mode: FsOpenMode,
    /// The sandbox to do it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<Sandbox>,
}

/// Result of `fs/open`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsOpenResponse {
    /// The handle's name, as it was asked for.
    pub handle_id: String,
}

/// Params of `fs/readBlock`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsReadBlockParams {
    /// An open handle.
    pub handle_id: String,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How many bytes, 1 to 1048576.
    pub len: u64,
}

/// Result of `fs/readBlock`. The server writes it by hand; this form is for clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsReadBlockResponse<'a> {
    /// The bytes, as padded standard base64.
    #[serde(borrow)]
    pub chunk: Cow<'a, str>,
    /// The file ended before the block was full.
    pub eof: bool,
}

/// Params of `fs/writeBlock`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsWriteBlockParams<'a> {
    /// An open handle.
    pub handle_id: String,
    /// Where in the file, in bytes.
    pub offset: u64,
    /// 1 to 1048576 bytes, as padded standard base64.
    #[serde(borrow)]
    pub chunk: Cow<'a, str>,
}

/// Params of `fs/close`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsCloseParams {
    /// The handle, open or not.
    pub handle_id: String,
}

/// Params of `fs/watchMissing`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsWatchMissingParams {
    /// The watch's number, greater than every earlier one of the connection.
    pub watch_id: u64,
    /// Paths that don't exist now, 1 to 64.
    pub missing: Vec<RequestPath>,
    /// A path that exists now.
    #[serde(default)]
    pub present: Option<RequestPath>,
}

/// Result of `fs/watchMissing`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsWatchMissingResponse {
    /// The watch is on.
    pub watching: bool,
}

/// Params of the notification `fs/missingChanged`, sent once per watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsMissingChangedNotification {
    /// The watch's number.
    pub watch_id: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_str, to_string};

    #[test]
    fn defaults() {
        let params: FsRemoveParams = from_str(r#"{"path":"file:///a","x":1}"#).unwrap();
        assert!(params.recursive && params.force && params.follow_symlinks);
        let params: FsCreateDirectoryParams =
            from_str(r#"{"path":"file:///a","recursive":null,"sandbox":null}"#).unwrap();
        assert!(params.recursive && params.sandbox.is_none());
        let params: FsGetMetadataParams = from_str(r#"{"path":"file:///a","followSymlinks":false}"#).unwrap();
        assert!(!params.follow_symlinks);
        let params: FsOpenParams = from_str(r#"{"path":"file:///a","handleId":""}"#).unwrap();
        assert_eq!(params.mode, FsOpenMode::Read);
    }

    #[test]
    fn refusals_have_the_known_words() {
        let cases = [
            (
                from_str::<FsCopyParams>(r#"{"sourcePath":"/a","destinationPath":"/b"}"#)
                    .map(|_| ())
                    .unwrap_err(),
                "missing field `recursive`",
            ),
            (
                from_str::<FsOpenParams>(r#"{"handleId":"h","path":"/a","mode":"write"}"#)
                    .map(|_| ())
                    .unwrap_err(),
                "unknown variant `write`, expected `read` or `replace`",
            ),
            (
                from_str::<FsWalkParams>(r#"{"path":"/a","options":{"maxDepth":1,"maxDirectories":1,"maxEntries":1}}"#)
                    .map(|_| ())
                    .unwrap_err(),
                "missing field `followDirectorySymlinks`",
            ),
        ]
        .map(|(error, text): (serde_json::Error, _)| (error.to_string(), text));
        for (error, text) in cases {
            assert!(error.starts_with(text), "{error}");
        }
        assert!(from_str::<FsOpenParams>(r#"{"handleId":"h","path":"/a","mode":null}"#).is_err());
    }

    #[test]
    fn base64_of_a_request_is_borrowed() {
        let params: FsWriteFileParams<'_> = from_str(r#"{"path":"/a","dataBase64":"aGk="}"#).unwrap();
        assert!(matches!(params.data_base64, Cow::Borrowed("aGk=")));
    }

    #[test]
    fn additions_are_absent_when_empty() {
        assert_eq!(to_string(&FsCopyResponse::default()).unwrap(), "{}");
        let entry = FsReadDirectoryEntry {
            file_name: "a".into(),
            is_directory: false,
            is_file: true,
            uri: None,
        };
        assert_eq!(
            to_string(&entry).unwrap(),
            r#"{"fileName":"a","isDirectory":false,"isFile":true}"#
        );
    }
}
