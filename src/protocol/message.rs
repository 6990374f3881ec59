//! The JSON-RPC envelope: one object per message, without `"jsonrpc"`, no batches.
//!
//! A message is checked and classified in one pass; `params` stays text until a handler
//! decodes it into the type it wants. What is accepted and the words for what is not are those
//! of Codex's exec-server.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Serialize;

use super::decode::{Decode, DecodeError, Fields};
pub use super::error::RpcError;
pub use super::json::{Bulk, JsonError};
use super::json::{Kind, Scanner, Span};

/// How much structure a message may have. Its length is the transport's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How deep arrays and objects may be nested, the message itself being level 1.
    /// 127 by default: `serde_json` refuses to go deeper.
    pub max_depth: u8,
    /// How many values the message may have, itself and all that is nested in it.
    /// 262 144 by default, as in Codex's exec-server.
    pub max_values: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_depth: 127,
            max_values: 262_144,
        }
    }
}

/// The id of a request, kept as the JSON text it came in so that it goes back exactly so.
///
/// Two ids are equal if their texts are: `"a"` and `"\u0061"` are not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(Box<str>);

impl RequestId {
    /// The JSON text: a number, or a string with its quotes.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    fn from_span(id: Span<'_>) -> Result<Self, MessageError> {
        let text = std::str::from_utf8(id.raw).map_err(|_| MessageError::Id)?;
        match id.kind {
            Kind::String => Ok(Self(text.into())),
            Kind::Number => match text.parse::<i64>() {
                Ok(number) => Ok(number.into()),
                Err(_) => Err(MessageError::Id),
            },
            _ => Err(MessageError::Id),
        }
    }
}

impl From<i64> for RequestId {
    fn from(number: i64) -> Self {
        Self(number.to_string().into())
    }
}

impl From<&str> for RequestId {
    fn from(text: &str) -> Self {
        let mut json = Vec::with_capacity(text.len() + 2);
        write_json_string(&mut json, text);
        Self(String::from_utf8_lossy(&json).into())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One message, as it came over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// A call that wants an answer.
    Request {
        /// Goes into the answer.
        id: RequestId,
        /// What is called.
        method: Cow<'a, str>,
        /// The JSON text of the parameters; `None` if they are absent or `null`.
        params: Option<&'a [u8]>,
    },
    /// A call that wants none.
    Notification {
        /// What is called.
        method: Cow<'a, str>,
        /// The JSON text of the parameters; `None` if they are absent or `null`.
        params: Option<&'a [u8]>,
    },
    /// The answer to a request that succeeded.
    Response {
        /// That of the request.
        id: RequestId,
        /// The JSON text of the result.
        result: &'a [u8],
    },
    /// The answer to a request that failed.
    Error {
        /// That of the request, or -1 when it could not be read.
        id: RequestId,
        /// The JSON text of the error: an object with `code` and `message`.
        error: &'a [u8],
    },
}

/// Why a text is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The text is no JSON, or breaks one of the [`Limits`], or repeats a key.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The text is another JSON value, such as an array: there are no batches.
    #[error("expected a JSON-RPC object")]
    NotAnObject,
    /// The id is neither a string nor an integer that fits 64 bits.
    #[error("data did not match any variant of untagged enum RequestId")]
    Id,
    /// A member without which the object is no message.
    #[error("missing field `{0}`")]
    Missing(&'static str),
    /// A member of the wrong type.
    #[error(transparent)]
    Member(#[from] DecodeError),
}

/// Checks `text`, all of it, and says what it is.
///
/// An object with `method` and `id` is a request, with `method` alone a notification, with
/// `id` and `result` a response; all else must be an error. Unknown members are ignored, and
/// so is a wrong `trace` in a notification.
pub fn parse<'a>(text: &'a [u8], limits: &Limits) -> Result<Message<'a>, MessageError> {
    parse_with_bulk(text, 0..0, limits).map(|(message, _)| message)
}

/// The same, with the one long string of base64 that the params or the result may have, so that decoding them need not
/// go through it again. `base64` is what a [`Base64Run`](super::base64_run::Base64Run) found of it, or empty.
pub fn parse_with_bulk<'a>(
    text: &'a [u8],
    base64: Range<usize>,
    limits: &Limits,
) -> Result<(Message<'a>, Option<Bulk<'a>>), MessageError> {
    let mut scanner = Scanner::new(text, base64, *limits);
    let mut members = Members::default();
    if scanner.peek() == Some(b'{') {
        scanner.object(&mut |key, value| members.keep(key, value))?;
        scanner.finish()?;
        let content = members.params.or(members.result);
        let content = content.map_or(0..0, |content| address_range(content.raw));
        let bulk = scanner
            .bulk()
            .filter(|bulk| content.contains(&(bulk.text.text().as_ptr() as usize)));
        Ok((members.classify()?, bulk))
    } else {
        scanner.value()?;
        scanner.finish()?;
        Err(MessageError::NotAnObject)
    }
}

fn address_range(text: &[u8]) -> Range<usize> {
    let start = text.as_ptr() as usize;
    start..start + text.len()
}

/// The members of a message that mean something.
#[derive(Default)]
struct Members<'a> {
    id: Option<Span<'a>>,
    method: Option<Span<'a>>,
    params: Option<Span<'a>>,
    trace: Option<Span<'a>>,
    result: Option<Span<'a>>,
    error: Option<Span<'a>>,
}

impl<'a> Members<'a> {
    fn keep(&mut self, key: &str, value: Span<'a>) {
        let member = match key {
            "id" => &mut self.id,
            "method" => &mut self.method,
            "params" => &mut self.params,
            "trace" => &mut self.trace,
            "result" => &mut self.result,
            "error" => &mut self.error,
            _ => return,
        };
        *member = Some(value);
    }

    fn classify(self) -> Result<Message<'a>, MessageError> {
        let params = self
            .params
            .filter(|params| params.kind != Kind::Null)
            .map(|params| params.raw);
        match (self.method, self.id, self.result) {
            (Some(method), Some(id), _) => {
                let id = RequestId::from_span(id)?;
                let method = Cow::decode(method)?;
                if let Some(trace) = self.trace {
                    check_trace(trace)?;
                }
                Ok(Message::Request { id, method, params })
            }
            (Some(method), None, _) => Ok(Message::Notification {
                method: Cow::decode(method)?,
                params,
            }),
            (None, Some(id), Some(result)) => Ok(Message::Response {
                id: RequestId::from_span(id)?,
                result: result.raw,
            }),
            (None, id, _) => {
                if let Some(error) = self.error {
                    check_error(error)?;
                }
                let id = id.map(RequestId::from_span).transpose()?;
                let error = self.error.ok_or(MessageError::Missing("error"))?;
                Ok(Message::Error {
                    id: id.ok_or(MessageError::Missing("id"))?,
                    error: error.raw,
                })
            }
        }
    }
}

/// `trace` has no use here, but a client that gets it wrong is told so.
fn check_trace(trace: Span<'_>) -> Result<(), DecodeError> {
    if trace.kind == Kind::Null {
        return Ok(());
    }
    let fields = Fields::of(trace, "struct W3cTraceContext")?;
    fields.optional::<Cow<'_, str>>("traceparent")?;
    fields.optional::<Cow<'_, str>>("tracestate")?;
    Ok(())
}

/// The same for an error that a client answers with.
fn check_error(error: Span<'_>) -> Result<(), DecodeError> {
    let fields = Fields::of(error, "struct JSONRPCErrorError")?;
    fields.required::<i64>("code")?;
    fields.required::<Cow<'_, str>>("message")?;
    Ok(())
}

/// Appends the answer to a request that succeeded.
///
/// A result that cannot be written as JSON becomes an error answer: its request must not
/// stay unanswered.
pub fn write_result(out: &mut Vec<u8>, id: &RequestId, result: &impl Serialize) {
    let start = out.len();
    open_result(out, id);
    match serde_json::to_writer(&mut *out, result) {
        Ok(()) => out.push(b'}'),
        Err(error) => {
            out.truncate(start);
            let error = RpcError::internal(format!("failed to encode the result: {error}"));
            write_error(out, Some(id), &error);
        }
    }
}

/// Appends the answer to a request that succeeded with a result that is JSON already.
pub fn write_raw_result(out: &mut Vec<u8>, id: &RequestId, json: &[u8]) {
    open_result(out, id);
    out.extend_from_slice(json);
    out.push(b'}');
}

fn open_result(out: &mut Vec<u8>, id: &RequestId) {
    out.extend_from_slice(b"{\"id\":");
    out.extend_from_slice(id.0.as_bytes());
    out.extend_from_slice(b",\"result\":");
}

/// Appends the answer to a request that failed; without an id (it could not be read) the
/// answer carries -1.
pub fn write_error(out: &mut Vec<u8>, id: Option<&RequestId>, error: &RpcError) {
    out.extend_from_slice(b"{\"error\":{\"code\":");
    out.extend_from_slice(error.code.to_string().as_bytes());
    out.extend_from_slice(b",\"message\":");
    write_json_string(out, &error.message);
    if let Some(data) = &error.data {
        out.extend_from_slice(b",\"data\":");
        // Numbers and nothing else, so it cannot fail.
        let _ = serde_json::to_writer(&mut *out, data);
    }
    out.extend_from_slice(b"},\"id\":");
    out.extend_from_slice(id.map_or("-1", RequestId::as_json).as_bytes());
    out.push(b'}');
}

/// Appends `text` as a JSON string, quotes included.
pub fn write_json_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut written = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            0..0x20 => b'u',
            _ => continue,
        };
        out.extend_from_slice(&bytes[written..at]);
        written = at + 1;
        out.extend_from_slice(&[b'\\', short]);
        if short == b'u' {
            let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
            out.extend_from_slice(&[b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    out.extend_from_slice(&bytes[written..]);
    out.push(b'"');
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
