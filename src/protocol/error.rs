//! The error object of a JSON-RPC answer, and its codes.

use super::decode::{Decode, DecodeError, Fields};
use super::json::Span;
use serde::{Deserialize, Serialize};
use std::ops::Deref;

/// The message is malformed, or the call does not fit the state (not initialized, unknown
/// process, id in use).
pub const INVALID_REQUEST: i64 = -32600;
/// The server has no such method.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// The parameters of a call could not be decoded, or make no sense together.
pub const INVALID_PARAMS: i64 = -32602;
/// The call was understood and failed: a program that cannot be started, a file system error.
pub const INTERNAL: i64 = -32603;
/// The file or directory a call names does not exist.
pub const NOT_FOUND: i64 = -32004;
/// The session to resume is still attached to a live connection; clients try again on this
/// code and give up on any other.
pub const SESSION_ATTACHED: i64 = -32010;
/// The server is about to end and opens no sessions; another one may. Not a code of Codex's exec-server, whose client
/// gives up on it.
pub const DRAINING: i64 = -32011;

/// What goes wrong with a call, as the client gets to see it.
///
/// The codes are those of Codex's exec-server, because its client acts on them. It is one word in the results that it
/// goes through, which are many; what it says is behind that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}", .0.message)]
pub struct RpcError(Box<RpcFault>);

impl Deref for RpcError {
    type Target = RpcFault;

    fn deref(&self) -> &RpcFault {
        &self.0
    }
}

/// What an [`RpcError`] says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RpcFault {
    /// One of the constants of this module, or what another server sent.
    pub code: i64,
    /// One line for a person.
    pub message: String,
    /// Anything more, for a program; absent on the wire when `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<ErrorData>,
}

impl Decode<'_> for RpcError {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct RpcError")?;
        Ok(RpcFault {
            code: fields.required("code")?,
            message: fields.required("message")?,
            // Other servers' may be anything.
            data: fields.optional("data").ok().flatten(),
        }
        .into())
    }
}

/// What a program may want to know of an error. Other servers' `data` is not read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorData {
    /// The system's error number, for errors of files and programs that cannot be executed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
}

impl Decode<'_> for ErrorData {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct ErrorData")?;
        Ok(Self {
            errno: fields.optional("errno")?,
        })
    }
}

impl RpcError {
    /// An error without `data`.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self::with_errno(code, message.into(), None)
    }

    /// An error with the system's error number, if there is one.
    #[cold]
    pub fn with_errno(code: i64, message: String, errno: Option<i32>) -> Self {
        let data = errno.map(|errno| ErrorData { errno: Some(errno) });
        RpcFault { code, message, data }.into()
    }

    /// What it says.
    pub fn into_fault(self) -> RpcFault {
        *self.0
    }

    /// [`INVALID_REQUEST`]
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(INVALID_REQUEST, message)
    }

    /// [`METHOD_NOT_FOUND`]
    pub fn method_not_found(message: impl Into<String>) -> Self {
        Self::new(METHOD_NOT_FOUND, message)
    }

    /// [`INVALID_PARAMS`]
    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(INVALID_PARAMS, message)
    }

    /// [`INTERNAL`]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(INTERNAL, message)
    }

    /// [`NOT_FOUND`]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(NOT_FOUND, message)
    }

    /// [`SESSION_ATTACHED`]
    pub fn session_attached(message: impl Into<String>) -> Self {
        Self::new(SESSION_ATTACHED, message)
    }
}

impl From<RpcFault> for RpcError {
    fn from(fault: RpcFault) -> RpcError {
        RpcError(Box::new(fault))
    }
}

impl From<DecodeError> for RpcError {
    /// [`INVALID_PARAMS`]
    fn from(error: DecodeError) -> RpcError {
        error.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_absent_unless_given() {
        let error = RpcError::not_found("no such file");
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"code":-32004,"message":"no such file"}"#
        );
        let error = RpcError::with_errno(NOT_FOUND, "no such file".into(), Some(2));
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"code":-32004,"message":"no such file","data":{"errno":2}}"#
        );
    }
}
