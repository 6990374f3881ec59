//! What goes wrong for a client.

use crate::protocol::decode::DecodeError;
use crate::protocol::error::RpcError;
use std::io;
use std::time::Duration;

/// The result of a call.
pub type Result<T> = std::result::Result<T, ExecServerError>;

/// Why a call failed. The texts are those of Codex's client.
#[derive(Debug, thiserror::Error)]
pub enum ExecServerError {
    /// The command that is to be the server could not be started.
    #[error("failed to spawn exec-server: {0}")]
    Spawn(#[source] io::Error),
    /// The server did not become a WebSocket in time.
    #[error("timed out connecting to exec-server websocket `{url}` after {timeout:?}")]
    WebSocketConnectTimeout {
        /// Where it was looked for.
        url: String,
        /// The time it had.
        timeout: Duration,
    },
    /// There is no server at that place, or it refused.
    #[error("failed to connect to exec-server websocket `{url}`: {source}")]
    WebSocketConnect {
        /// Where it was looked for.
        url: String,
        /// What the system or the server said.
        source: io::Error,
    },
    /// The server did not answer `initialize` in time.
    #[error("timed out waiting for exec-server initialize handshake after {timeout:?}")]
    InitializeTimedOut {
        /// The time it had.
        timeout: Duration,
    },
    /// The client was closed.
    #[error("exec-server transport closed")]
    Closed,
    /// The connection is lost: while this call was on its way, or for good. It has the reason.
    #[error("{0}")]
    Disconnected(String),
    /// A message could not be written or understood.
    #[error("failed to serialize or deserialize exec-server JSON: {0}")]
    Json(String),
    /// The server does something that it should not, or the client was asked to.
    #[error("exec-server protocol error: {0}")]
    Protocol(String),
    /// The server refused the call.
    #[error("exec-server rejected request ({code}): {message}")]
    Server {
        /// One of [`crate::protocol::error`].
        code: i64,
        /// What the server said.
        message: String,
        /// The system's error number on the server, for files.
        errno: Option<i32>,
    },
}

impl ExecServerError {
    /// The code with which the server refused the call.
    pub fn code(&self) -> Option<i64> {
        match self {
            ExecServerError::Server { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the connection is lost or closed.
    pub fn is_disconnected(&self) -> bool {
        matches!(self, ExecServerError::Closed | ExecServerError::Disconnected(_))
    }

    pub(super) fn timed_out(method: &str, limit: Duration) -> ExecServerError {
        ExecServerError::Protocol(format!(
            "timed out waiting for exec-server `{method}` response after {limit:?}"
        ))
    }
}

impl From<RpcError> for ExecServerError {
    fn from(error: RpcError) -> ExecServerError {
        let error = error.into_fault();
        ExecServerError::Server {
            code: error.code,
            errno: error.data.and_then(|data| data.errno),
            message: error.message,
        }
    }
}

impl From<DecodeError> for ExecServerError {
    fn from(error: DecodeError) -> ExecServerError {
        ExecServerError::Json(error.to_string())
    }
}

impl From<serde_json::Error> for ExecServerError {
    fn from(error: serde_json::Error) -> ExecServerError {
        ExecServerError::Json(error.to_string())
    }
}

/// For what is used through `Read` and `Write`: the system's error where the server told one.
impl From<ExecServerError> for io::Error {
    fn from(error: ExecServerError) -> io::Error {
        let kind = match &error {
            ExecServerError::Server { errno: Some(errno), .. } => io::Error::from_raw_os_error(*errno).kind(),
            ExecServerError::Server { code, .. } if *code == crate::protocol::error::NOT_FOUND => {
                io::ErrorKind::NotFound
            }
            ExecServerError::Closed | ExecServerError::Disconnected(_) => io::ErrorKind::BrokenPipe,
            ExecServerError::InitializeTimedOut { .. } | ExecServerError::WebSocketConnectTimeout { .. } => {
                io::ErrorKind::TimedOut
            }
            ExecServerError::Json(_) | ExecServerError::Protocol(_) => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_known_words() {
        let second = Duration::from_secs(1);
        let (url, timeout) = ("ws://box".to_owned(), second);
        let table = [
            (
                ExecServerError::Spawn(io::Error::from_raw_os_error(2)),
                "failed to spawn exec-server: No such file or directory (os error 2)",
            ),
            (
                ExecServerError::WebSocketConnectTimeout { url, timeout },
                "timed out connecting to exec-server websocket `ws://box` after 1s",
            ),
            (
                ExecServerError::InitializeTimedOut { timeout },
                "timed out waiting for exec-server initialize handshake after 1s",
            ),
            (
                ExecServerError::timed_out("environment/info", second),
                "exec-server protocol error: timed out waiting for exec-server `environment/info` response after 1s",
            ),
            (ExecServerError::Closed, "exec-server transport closed"),
            (
                RpcError::invalid_request("no").into(),
                "exec-server rejected request (-32600): no",
            ),
        ];
        for (error, text) in table {
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn an_error_of_a_file_keeps_its_kind() {
        let mut error = RpcError::not_found("gone");
        let kind = |error: &RpcError| io::Error::from(ExecServerError::from(error.clone())).kind();
        assert_eq!(kind(&error), io::ErrorKind::NotFound);
        error = RpcError::with_errno(error.code, error.message.clone(), Some(13));
        assert_eq!(kind(&error), io::ErrorKind::PermissionDenied);
    }
}
