//! The `process/*` methods, one call each.

use super::error::Result;
use super::events::{ProcessOutputChunk, ReadResponse};
use super::exec_client::ExecServerClient;
use super::json_object::JsonObject;
use super::pending::Answer;
use super::start_options::{StartOptions, size_json};
use crate::protocol::bytes;
use crate::protocol::decode::{self, Decode, DecodeError, Fields, one_of};
use crate::protocol::json::Span;
use crate::protocol::process::{ProcessSignal, TerminalSize};
use std::borrow::Cow;
use std::time::Duration;

/// What became of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteStatus {
    /// It will be read if the process reads.
    Accepted,
    /// There is no such process.
    UnknownProcess,
    /// Nobody will read it.
    StdinClosed,
    /// The process is only being started. Not from this crate's server.
    Starting,
}

impl Decode<'_> for WriteStatus {
    fn decode(value: Span<'_>) -> std::result::Result<Self, DecodeError> {
        const WORDS: [(&str, WriteStatus); 4] = [
            ("accepted", WriteStatus::Accepted),
            ("unknownProcess", WriteStatus::UnknownProcess),
            ("stdinClosed", WriteStatus::StdinClosed),
            ("starting", WriteStatus::Starting),
        ];
        one_of(value, &WORDS)
    }
}

/// A process of the session, as `process/list` shows it.
#[derive(Clone, Debug)]
pub struct ListedProcess {
    /// The client's name for it.
    pub process_id: String,
    /// The system's number for it, while it runs.
    pub pid: Option<i32>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether it has ended.
    pub exited: bool,
    /// How, if it has.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<String>,
    /// Which limit it, or what it has left, was ended for, where the server tells: `timeout`, `idleTimeout` or `outputLimit`.
    pub ended_by: Option<String>,
    /// Whether there will be no more events.
    pub closed: bool,
    /// The number its next event will get.
    pub next_seq: u64,
    /// Bytes of output that can be read.
    pub retained_bytes: u64,
}

impl Decode<'_> for ListedProcess {
    fn decode(value: Span<'_>) -> std::result::Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct ListedProcess")?;
        Ok(Self {
            process_id: fields.required("processId")?,
            pid: fields.optional("pid")?,
            tty: fields.required("tty")?,
            exited: fields.required("exited")?,
            exit_code: fields.optional("exitCode")?,
            signal: fields.optional("signal")?,
            ended_by: fields.optional("endedBy")?,
            closed: fields.required("closed")?,
            next_seq: fields.required("nextSeq")?,
            retained_bytes: fields.required("retainedBytes")?,
        })
    }
}

impl ExecServerClient {
    /// `process/start`, and nothing else: its events are not received, its output can be had with
    /// [`read`](ExecServerClient::read). See [`start_process`](ExecServerClient::start_process). Returns its name.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn exec(&self, start: &StartOptions) -> Result<String> {
        let session = self.session();
        let id = start.process_id.clone().unwrap_or_else(|| session.new_name("process"));
        session.call("process/start", start.params(&id, false)?, None, None)?;
        Ok(id)
    }

    /// `process/read`: output that is retained after event `after_seq`, at most `max_bytes` of it (but a first chunk
    /// is whole); waits up to `wait` if there is none. Asked again when the connection was lost and the session is
    /// resumed.
    ///
    /// # Errors
    /// What the server has against it. That nothing can be had any more, because the client's connection is lost for
    /// good, is no error but the answer's `failure`.
    pub fn read(
        &self,
        process_id: &str,
        after_seq: Option<u64>,
        max_bytes: Option<u64>,
        wait: Duration,
    ) -> Result<ReadResponse> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let params = read_params(process_id, after_seq, max_bytes, Some(wait_ms));
        match self.session().call_until_answered("process/read", &params, None) {
            Ok(answer) => decode_read(&answer),
            Err(e) if e.is_disconnected() => Ok(ReadResponse {
                next_seq: after_seq.unwrap_or(0).saturating_add(1),
                exited: true,
                closed: true,
                failure: Some(e.to_string()),
                ..ReadResponse::default()
            }),
            Err(e) => Err(e),
        }
    }

    /// `process/write`: input for a process. `write_id` tells it from others, so that it can be sent again when the
    /// connection was lost; `close_stdin` ends the input behind it.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost for good.
    pub fn write(&self, process_id: &str, write_id: &str, input: &[u8], close_stdin: bool) -> Result<WriteStatus> {
        let params = write_params(process_id, write_id, close_stdin);
        let bulk = Some(("chunk", input));
        let answer = self.session().call_until_answered("process/write", &params, bulk)?;
        member(&answer, "status")
    }

    /// `process/signal`. Not repeated when the connection is lost.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn signal(&self, process_id: &str, signal: ProcessSignal) -> Result<()> {
        let params = JsonObject::new()
            .text("processId", process_id)
            .text("signal", signal_name(signal));
        self.session()
            .call("process/signal", params.done(), None, None)
            .map(drop)
    }

    /// `process/terminate`: kills a process and all that descends from it, at once or `grace` after SIGTERM. Returns
    /// whether it had not ended yet.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn terminate(&self, process_id: &str, grace: Duration) -> Result<bool> {
        let mut params = JsonObject::new().text("processId", process_id);
        if !grace.is_zero() {
            let ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
            params = params.number("graceMs", ms);
        }
        let answer = self.session().clean_up("process/terminate", params.done())?;
        member(&answer, "running")
    }

    /// `process/resize`: sets the size of a process's terminal.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn resize(&self, process_id: &str, size: TerminalSize) -> Result<()> {
        let params = JsonObject::new()
            .text("processId", process_id)
            .raw("size", &size_json(size));
        self.session()
            .call("process/resize", params.done(), None, None)
            .map(drop)
    }

    /// `process/list`: the processes of the session that run or can still be read.
    ///
    /// # Errors
    /// What the server has against it, such as that it does not know the method, or that the connection is lost.
    pub fn list(&self) -> Result<Vec<ListedProcess>> {
        let answer = self.session().call("process/list", Vec::new(), None, None)?;
        member(&answer, "processes")
    }
}

fn signal_name(signal: ProcessSignal) -> &'static str {
    match signal {
        ProcessSignal::Interrupt => "interrupt",
        ProcessSignal::Hangup => "hangup",
        ProcessSignal::Quit => "quit",
        ProcessSignal::Kill => "kill",
        ProcessSignal::Usr1 => "usr1",
        ProcessSignal::Usr2 => "usr2",
        ProcessSignal::Terminate => "terminate",
    }
}

/// The params of `process/write`, without the chunk.
pub(super) fn write_params(process_id: &str, write_id: &str, close_stdin: bool) -> Vec<u8> {
    let mut params = JsonObject::new()
        .text("processId", process_id)
        .text("writeId", write_id);
    if close_stdin {
        params = params.flag("closeStdin", true);
    }
    params.done()
}

/// The params of `process/read`.
pub(super) fn read_params(
    process_id: &str,
    after_seq: Option<u64>,
    max_bytes: Option<u64>,
    wait_ms: Option<u64>,
) -> Vec<u8> {
    let mut params = JsonObject::new().text("processId", process_id);
    for (key, number) in [("afterSeq", after_seq), ("maxBytes", max_bytes), ("waitMs", wait_ms)] {
        if let Some(number) = number {
            params = params.number(key, number);
        }
    }
    params.done()
}

/// The result of `process/read`, its output decoded.
pub(super) fn decode_read(answer: &Answer) -> Result<ReadResponse> {
    let fields = fields(answer)?;
    let mut chunks: Vec<ProcessOutputChunk> = fields.required("chunks")?;
    for (chunk, bytes) in chunks.iter_mut().zip(&answer.bulk) {
        chunk.chunk = bytes.clone();
    }
    Ok(ReadResponse {
        chunks,
        next_seq: fields.required("nextSeq")?,
        exited: fields.required("exited")?,
        exit_code: fields.optional("exitCode")?,
        signal: fields.optional("signal")?,
        closed: fields.required("closed")?,
        failure: fields.optional("failure")?,
        sandbox_denied: fields.optional("sandboxDenied")?,
        ended_by: fields.optional("endedBy")?,
        lost_bytes: fields.or_default("lostBytes")?,
    })
}

impl Decode<'_> for ProcessOutputChunk {
    fn decode(value: Span<'_>) -> std::result::Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct ProcessOutputChunk")?;
        let base64: Cow<'_, str> = fields.required("chunk")?;
        Ok(Self {
            seq: fields.required("seq")?,
            stream: fields.required("stream")?,
            chunk: bytes::decode(base64.as_bytes())
                .map_err(|e| DecodeError::new(e.to_string()))?
                .into(),
        })
    }
}

/// A result without bulk.
pub(super) fn decode<'a, T: Decode<'a>>(answer: &'a Answer) -> Result<T> {
    Ok(decode::decode(&answer.json)?)
}

/// One member of a result.
pub(super) fn member<'a, T: Decode<'a>>(answer: &'a Answer, name: &str) -> Result<T> {
    Ok(fields(answer)?.required(name)?)
}

/// The members of a result.
pub(super) fn fields(answer: &Answer) -> Result<Fields<'_>> {
    Ok(Fields::of(Span::of_checked(&answer.json), "a result")?)
}
