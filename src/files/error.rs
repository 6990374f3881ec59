//! What goes wrong with files, and the class of answer each failure gets.

use std::io;

use nix::errno::Errno;

use crate::protocol::path_uri::{PathUriError, PathUriErrorKind};

/// The class of answer a failure gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesErrorKind {
    /// There is no such file, directory or handle: JSON-RPC -32004.
    NotFound,
    /// The request makes no sense, or it is not permitted: JSON-RPC -32600.
    InvalidRequest,
    /// A param is malformed: JSON-RPC -32602.
    InvalidParams,
    /// The system refused for any other reason: JSON-RPC -32603.
    Internal,
}

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct FilesError {
    /// The class of answer.
    pub kind: FilesErrorKind,
    /// The system's error number, if the system had a say.
    pub errno: Option<i32>,
    /// The text of the answer: the system's words as the standard library prints them, or ours.
    pub message: String,
}

impl FilesError {
    /// A refusal of ours, with its words.
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self {
            kind: FilesErrorKind::InvalidRequest,
            errno: None,
            message: message.into(),
        }
    }

    /// A malformed param, with what is wrong with it.
    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self {
            kind: FilesErrorKind::InvalidParams,
            errno: None,
            message: message.into(),
        }
    }

    /// Something that isn't there, though not for the system to say.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self {
            kind: FilesErrorKind::NotFound,
            errno: None,
            message: message.into(),
        }
    }

    /// Whether the system said just this.
    pub fn is(&self, errno: Errno) -> bool {
        self.errno == Some(errno as i32)
    }
}

impl From<io::Error> for FilesError {
    fn from(error: io::Error) -> Self {
        // Codex's exec-server decides by std's error kinds: EACCES and EPERM are PermissionDenied,
        // EINVAL is InvalidInput.
        let kind = match error.kind() {
            io::ErrorKind::NotFound => FilesErrorKind::NotFound,
            io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => FilesErrorKind::InvalidRequest,
            _ => FilesErrorKind::Internal,
        };
        Self {
            kind,
            errno: error.raw_os_error(),
            message: error.to_string(),
        }
    }
}

impl From<Errno> for FilesError {
    fn from(errno: Errno) -> Self {
        io::Error::from(errno).into()
    }
}

impl From<PathUriError> for FilesError {
    fn from(error: PathUriError) -> Self {
        match error.kind {
            PathUriErrorKind::InvalidParams => Self::invalid_params(error.message),
            PathUriErrorKind::InvalidRequest => Self::invalid_request(error.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes() {
        let table = [
            (Errno::ENOENT, FilesErrorKind::NotFound),
            (Errno::EACCES, FilesErrorKind::InvalidRequest),
            (Errno::EPERM, FilesErrorKind::InvalidRequest),
            (Errno::EINVAL, FilesErrorKind::InvalidRequest),
            (Errno::EEXIST, FilesErrorKind::Internal),
            (Errno::ENOTDIR, FilesErrorKind::Internal),
            (Errno::EISDIR, FilesErrorKind::Internal),
            (Errno::ELOOP, FilesErrorKind::Internal),
            (Errno::ENOSPC, FilesErrorKind::Internal),
            (Errno::EBADF, FilesErrorKind::Internal),
        ];
        for (errno, kind) in table {
            let error = FilesError::from(errno);
            assert_eq!(error.kind, kind, "{errno}");
            assert!(error.is(errno));
            assert!(error.message.ends_with(&format!("(os error {})", errno as i32)));
        }
        assert_eq!(
            FilesError::from(Errno::ENOENT).message,
            "No such file or directory (os error 2)"
        );
    }
}
