//! The results of the `fs/*` methods, and what the params have beside paths and switches.
//!
//! Fields keep the names of the protocol.

use super::decode::{Decode, DecodeError, Fields, one_of};
use super::json::Span;
use super::path_uri::PathUri;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

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

impl Decode<'_> for FsGetMetadataResponse {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct FsGetMetadataResponse")?;
        Ok(Self {
            is_directory: fields.required("isDirectory")?,
            is_file: fields.required("isFile")?,
            is_symlink: fields.required("isSymlink")?,
            size: fields.required("size")?,
            created_at_ms: fields.required("createdAtMs")?,
            modified_at_ms: fields.required("modifiedAtMs")?,
        })
    }
}

/// Result of `fs/readFile`. The server writes it by hand; this form is for clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsReadFileResponse<'a> {
    /// The whole content, as padded standard base64.
    #[serde(borrow)]
    pub data_base64: Cow<'a, str>,
}

/// Result of `fs/canonicalize`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsCanonicalizeResponse {
    /// The path without links.
    pub path: PathUri,
}

impl Decode<'_> for FsCanonicalizeResponse {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct FsCanonicalizeResponse")?;
        Ok(Self {
            path: fields.required("path")?,
        })
    }
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

impl Decode<'_> for FsReadDirectoryEntry {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct FsReadDirectoryEntry")?;
        Ok(Self {
            file_name: fields.required("fileName")?,
            is_directory: fields.required("isDirectory")?,
            is_file: fields.required("isFile")?,
            uri: fields.optional("uri")?,
        })
    }
}

/// Result of `fs/readDirectory`: everything but `.` and `..`, in no order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsReadDirectoryResponse {
    /// The entries.
    pub entries: Vec<FsReadDirectoryEntry>,
}

impl Decode<'_> for FsReadDirectoryResponse {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct FsReadDirectoryResponse")?;
        Ok(Self {
            entries: fields.required("entries")?,
        })
    }
}

/// How far `fs/walk` goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    pub prune_hidden_directories: bool,
}

impl Decode<'_> for FsWalkOptions {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct FsWalkOptions")?;
        Ok(Self {
            max_depth: fields.required("maxDepth")?,
            max_directories: fields.required("maxDirectories")?,
            max_entries: fields.required("maxEntries")?,
            follow_directory_symlinks: fields.required("followDirectorySymlinks")?,
            prune_hidden_directories: fields.or_default("pruneHiddenDirectories")?,
        })
    }
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

impl Decode<'_> for FsWalkEntryKind {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        one_of(value, &[("file", Self::File), ("directory", Self::Directory)])
    }
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

impl Decode<'_> for FsWalkEntry {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct FsWalkEntry")?;
        Ok(Self {
            path: fields.required("path")?,
            kind: fields.required("kind")?,
        })
    }
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

impl Decode<'_> for FsWalkError {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct FsWalkError")?;
        Ok(Self {
            path: fields.required("path")?,
            message: fields.required("message")?,
        })
    }
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

impl Decode<'_> for FsWalkResponse {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct FsWalkResponse")?;
        Ok(Self {
            entries: fields.required("entries")?,
            errors: fields.required("errors")?,
            truncated: fields.required("truncated")?,
        })
    }
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

impl Decode<'_> for FsCopyResponse {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct FsCopyResponse")?;
        Ok(Self {
            skipped: fields.or_default("skipped")?,
        })
    }
}

/// What a file handle is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FsOpenMode {
    /// Reading an existing file.
    #[default]
    Read,
    /// Writing a file that is created, or emptied, at once.
    Replace,
}

impl Decode<'_> for FsOpenMode {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        one_of(value, &[("read", Self::Read), ("replace", Self::Replace)])
    }
}

/// Result of `fs/open`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FsOpenResponse {
    /// The handle's name, as it was asked for.
    pub handle_id: String,
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

impl Decode<'_> for FsMissingChangedNotification {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct FsMissingChangedNotification")?;
        Ok(Self {
            watch_id: fields.required("watchId")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::to_string;

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
