//! What a server sends, understood.

use super::events::ExecOutputStream;
use super::pending::Answer;
use crate::protocol::bytes::{self, Base64};
use crate::protocol::decode::{Decode, DecodeError, Fields, decode, word};
use crate::protocol::error::RpcError;
use crate::protocol::files::FsMissingChangedNotification;
use crate::protocol::json::Span;
use crate::protocol::message::{Limits, Message, RequestId, parse_with_bulk};
use crate::sys::memory;
use std::borrow::Cow;
use tungstenite::Bytes;

/// A message that means something to a client.
#[derive(Debug)]
pub(super) enum Incoming<'a> {
    Output {
        process_id: Cow<'a, str>,
        seq: u64,
        stream: ExecOutputStream,
        chunk: Bytes,
    },
    Exited(Exited),
    Closed(Closed),
    /// `fs/missingChanged`
    MissingChanged {
        watch_id: u64,
    },
    Answer {
        id: i64,
        outcome: Result<Answer, RpcError>,
    },
    /// A request of the server.
    Request {
        id: RequestId,
        method: String,
    },
    /// A notification that is not known, an answer to nothing.
    Nothing,
}

/// Params of `process/exited`.
#[derive(Debug)]
pub(super) struct Exited {
    pub(super) process_id: String,
    pub(super) seq: u64,
    pub(super) exit_code: i32,
    pub(super) signal: Option<String>,
    pub(super) sandbox_denied: Option<bool>,
    pub(super) ended_by: Option<String>,
}

impl Decode<'_> for Exited {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct Exited")?;
        Ok(Self {
            process_id: fields.required("processId")?,
            seq: fields.required("seq")?,
            exit_code: fields.required("exitCode")?,
            signal: fields.optional("signal")?,
            sandbox_denied: fields.optional("sandboxDenied")?,
            ended_by: fields.optional("endedBy")?,
        })
    }
}

/// Params of `process/closed`.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) process_id: String,
    pub(super) seq: u64,
}

impl Decode<'_> for Closed {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct Closed")?;
        Ok(Self {
            process_id: fields.required("processId")?,
            seq: fields.required("seq")?,
        })
    }
}

impl Decode<'_> for ExecOutputStream {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let name = word(value)?;
        stream_named(&name).ok_or_else(|| DecodeError::new(format!("unknown stream `{name}`")))
    }
}

/// Any number of values: a listing of a large directory has more than a server takes from a client.
const LIMITS: Limits = Limits {
    max_depth: 127,
    max_values: usize::MAX,
};

/// Understands a message.
///
/// # Errors
/// What it is not, in the words of Codex's client; there is nothing to go on from. `kind` says what it should be.
pub(super) fn understand<'a>(text: &'a [u8], kind: &str) -> Result<Incoming<'a>, String> {
    if let Some(output) = usual_output(text) {
        return Ok(output);
    }
    let (message, bulk) = parse_with_bulk(text, 0..0, &LIMITS).map_err(|e| format!("failed to parse {kind}: {e}"))?;
    let bulk = bulk.map(|bulk| bulk.text);
    match message {
        Message::Notification { method, params } => {
            notification(&method, params, bulk).map_err(|e| format!("exec-server notification handling failed: {e}"))
        }
        Message::Request { id, method, .. } => Ok(Incoming::Request {
            id,
            method: method.into_owned(),
        }),
        Message::Response { id, result } => {
            let Ok(id) = id.as_json().parse() else {
                return Ok(Incoming::Nothing);
            };
            Ok(Incoming::Answer {
                id,
                outcome: Ok(answer(result, bulk)),
            })
        }
        Message::Error { id, error } => {
            let error = refusal(error);
            match id.as_json().parse() {
                Ok(-1) | Err(_) => log::warn!("exec-server complains: {error}"),
                Ok(id) => {
                    return Ok(Incoming::Answer {
                        id,
                        outcome: Err(error),
                    });
                }
            }
            Ok(Incoming::Nothing)
        }
    }
}

/// The one message that comes thousands of times a second, with its members in the order in which servers write them. The
/// base64 is decoded from where it was received, and that checks all of it.
fn usual_output(text: &[u8]) -> Option<Incoming<'_>> {
    let rest = text.strip_prefix(br#"{"method":"process/output","params":{"processId":""#)?;
    let (process_id, rest) = rest.split_at(memory::find(b'"', rest)?);
    let process_id = std::str::from_utf8(process_id).ok()?;
    if process_id.bytes().any(|b| b == b'\\' || b < 0x20) {
        return None;
    }
    let rest = rest.strip_prefix(br#"","seq":"#)?;
    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    let (number, rest) = rest
        .split_at_checked(digits)
        .filter(|(number, _)| number.first() != Some(&b'0'))?;
    let seq = std::str::from_utf8(number).ok()?.parse().ok()?;
    let rest = rest.strip_prefix(br#","stream":""#)?;
    let (name, rest) = rest.split_at(memory::find(b'"', &rest[..rest.len().min(8)])?);
    let stream = stream_named(std::str::from_utf8(name).ok()?)?;
    let chunk = rest.strip_prefix(br#"","chunk":""#)?.strip_suffix(br#""}}"#)?;
    Some(Incoming::Output {
        process_id: Cow::Borrowed(process_id),
        seq,
        stream,
        chunk: bytes::decode(chunk).ok()?.into(),
    })
}

/// The stream that servers call so.
pub(super) fn stream_named(name: &str) -> Option<ExecOutputStream> {
    Some(match name {
        "stdout" => ExecOutputStream::Stdout,
        "stderr" => ExecOutputStream::Stderr,
        "pty" => ExecOutputStream::Pty,
        _ => return None,
    })
}

fn notification<'a>(
    method: &str,
    params: Option<&'a [u8]>,
    bulk: Option<Base64<'_>>,
) -> Result<Incoming<'a>, DecodeError> {
    let params = params.unwrap_or(b"null");
    Ok(match method {
        "process/output" => {
            let fields = Fields::of(Span::of_checked(params), "struct Output")?;
            let chunk = match bulk {
                Some(bulk) => bulk.decode(),
                None => {
                    let base64: Cow<'_, str> = fields.required("chunk")?;
                    bytes::decode(base64.as_bytes()).map_err(|e| DecodeError::new(e.to_string()))?
                }
            };
            Incoming::Output {
                process_id: fields.required("processId")?,
                seq: fields.required("seq")?,
                stream: fields.required("stream")?,
                chunk: chunk.into(),
            }
        }
        "process/exited" => Incoming::Exited(decode(params)?),
        "process/closed" => Incoming::Closed(decode(params)?),
        "fs/missingChanged" => {
            let changed: FsMissingChangedNotification = decode(params)?;
            Incoming::MissingChanged {
                watch_id: changed.watch_id,
            }
        }
        _ => Incoming::Nothing,
    })
}

/// Keeps a result, its one long string decoded.
fn answer(result: &[u8], bulk: Option<Base64<'_>>) -> Answer {
    let Some(bulk) = bulk else {
        return Answer {
            json: result.into(),
            bulk: Vec::new(),
        };
    };
    let text = bulk.text();
    let start = text.as_ptr() as usize - result.as_ptr() as usize;
    Answer {
        json: [&result[..start], &result[start + text.len()..]].concat(),
        bulk: vec![bulk.decode().into()],
    }
}

/// What a server said against a call.
fn refusal(error: &[u8]) -> RpcError {
    decode(error).unwrap_or_else(|e| RpcError::internal(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(text: &str) -> String {
        match understand(text.as_bytes(), "message") {
            Ok(Incoming::Answer {
                id,
                outcome: Ok(answer),
            }) => format!(
                "{id}: {} + {:?}",
                String::from_utf8(answer.json).unwrap(),
                answer.bulk.first().map(Bytes::len)
            ),
            Ok(Incoming::Answer { id, outcome: Err(e) }) => format!("{id}: {} {e} {:?}", e.code, e.data),
            Ok(other) => format!("{other:?}"),
            Err(e) => e,
        }
    }

    #[test]
    fn output_is_the_same_whatever_the_order_of_its_members() {
        let usual =
            r#"{"method":"process/output","params":{"processId":"p","seq":12,"stream":"pty","chunk":"aGVsbG8K"}}"#;
        assert!(usual_output(usual.as_bytes()).is_some());
        let expected = r#"Output { process_id: "p", seq: 12, stream: Pty, chunk: b"hello\n" }"#;
        assert_eq!(show(usual), expected);
        for other in [
            r#" {"method":"process/output","params":{"processId":"p","seq":12,"stream":"pty","chunk":"aGVsbG8K"}}"#,
            r#"{"params":{"chunk":"aGVsbG8K","seq":12,"stream":"pty","processId":"p"},"method":"process/output"}"#,
            r#"{"method":"process/output","params":{"processId":"\u0070","seq":12,"stream":"pty","chunk":"aGVsbG8K"}}"#,
            r#"{"method":"process/output","params":{"processId":"p","seq":12,"stream":"pty","chunk":"aGVs\u0062G8K"}}"#,
            r#"{"method":"process/output","params":{"processId":"p","seq":12,"stream":"pty","chunk":"aGVsbG8K","x":"y"}}"#,
        ] {
            assert!(usual_output(other.as_bytes()).is_none(), "{other}");
            assert_eq!(show(other), expected);
        }
    }

    #[test]
    fn what_only_looks_like_usual_output_is_refused_in_the_general_way() {
        let output = |id: &str, seq: &str, stream: &str, chunk: &str| {
            show(&format!(
                r#"{{"method":"process/output","params":{{"processId":"{id}","seq":{seq},"stream":"{stream}","chunk":"{chunk}"}}}}"#
            ))
        };
        for (text, expected) in [
            (
                output("p", "1", "pty", "a"),
                "exec-server notification handling failed: ",
            ),
            (
                output("p", "1", "pty", "aGVsbG8K\",\"chunk\":\"aGVsbG8K"),
                "failed to parse message: duplicate",
            ),
            (output("p", "01", "pty", ""), "failed to parse message: "),
            (
                output("p", "1", "tty", ""),
                "exec-server notification handling failed: unknown stream `tty`",
            ),
            (
                output("p", "-1", "pty", ""),
                "exec-server notification handling failed: ",
            ),
            (
                output("p", "99999999999999999999", "pty", ""),
                "exec-server notification handling failed: ",
            ),
            (
                output("\n", "1", "pty", ""),
                "failed to parse message: control character",
            ),
        ] {
            assert!(text.starts_with(expected), "{text}");
        }
    }

    #[test]
    fn long_strings_of_results_and_output_are_decoded_once() {
        let chunk = bytes_of(40_000);
        let output = format!(
            r#"{{"method":"process/output","params":{{"seq":1,"processId":"p","stream":"stderr","chunk":"{chunk}"}}}}"#
        );
        match understand(output.as_bytes(), "message") {
            Ok(Incoming::Output { chunk, .. }) => assert_eq!(chunk.len(), 40_000),
            other => panic!("{other:?}"),
        }
        let answer = format!(r#"{{"id":7,"result":{{"chunk":"{chunk}","eof":true}}}}"#);
        assert_eq!(show(&answer), r#"7: {"chunk":"","eof":true} + Some(40000)"#);
        let small = r#"{"id":7,"result":{"chunk":"aGVsbG8K","eof":true}}"#;
        assert_eq!(show(small), r#"7: {"chunk":"aGVsbG8K","eof":true} + None"#);
        // What is no base64 stays in the result, for the decoder of the result to refuse.
        let broken = answer.replacen("AAAA", "A*AA", 1);
        let shown = show(&broken);
        assert!(shown.starts_with(r#"7: {"chunk":"A*AAAA"#) && shown.ends_with("+ None"));
    }

    fn bytes_of(len: usize) -> String {
        let mut text = Vec::new();
        bytes::append(&vec![0; len], &mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn the_other_messages() {
        let table = [
            (
                r#"{"method":"process/exited","params":{"processId":"p","seq":3,"exitCode":-1}}"#,
                r#"Exited(Exited { process_id: "p", seq: 3, exit_code: -1, signal: None, sandbox_denied: None, ended_by: None })"#,
            ),
            (
                r#"{"method":"process/closed","params":{"processId":"p","seq":3,"more":[]}}"#,
                r#"Closed(Closed { process_id: "p", seq: 3 })"#,
            ),
            (
                r#"{"method":"fs/missingChanged","params":{"watchId":3}}"#,
                "MissingChanged { watch_id: 3 }",
            ),
            (r#"{"method":"http/more","params":7}"#, "Nothing"),
            (r#"{"id":"x","result":7}"#, "Nothing"),
            (r#"{"id":-1,"error":{"code":1,"message":"no"}}"#, "Nothing"),
            (r#"{"id":1,"error":{"code":1,"message":"no"}}"#, "1: 1 no None"),
            (
                r#"{"id":1,"error":{"code":1,"message":"no","data":{"errno":2}}}"#,
                "1: 1 no Some(ErrorData { errno: Some(2) })",
            ),
            (
                r#"{"id":1,"error":{"code":1,"message":"no","data":"text"}}"#,
                "1: 1 no None",
            ),
            (
                r#"{"id":"a","method":"network/policy"}"#,
                r#"Request { id: RequestId("\"a\""), method: "network/policy" }"#,
            ),
            ("[]", "failed to parse message: expected a JSON-RPC object"),
            (
                r#"{"method":"process/closed"}"#,
                "exec-server notification handling failed: invalid type: null, expected struct Closed",
            ),
        ];
        for (text, expected) in table {
            assert!(show(text).starts_with(expected), "{text}: {}", show(text));
        }
    }
}
