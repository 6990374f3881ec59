//! The hot messages, written by hand into one buffer that is used again and again.

use super::outbox::Wire;
use crate::process::{Event, Exit, LimitMet, Replay, Stream};
use crate::protocol::bytes;
use crate::protocol::message::{RequestId, write_json_string};
use crate::transport::Framing;
use std::borrow::Cow;
use std::io::{self, Write};

/// Framed messages that are to be written in one go.
pub(super) struct Batch {
    framing: Framing,
    /// Its length is what has ever been needed, so that nothing is zeroed twice; `len` bytes count.
    buffer: Vec<u8>,
    len: usize,
    /// Where the start of a message is put together.
    scratch: Vec<u8>,
}

/// A batch's memory above this is given back when it is idle.
const KEPT_BYTES: usize = 16 * 1024;

impl Batch {
    pub(super) fn new(framing: Framing) -> Batch {
        Batch {
            framing,
            buffer: Vec::new(),
            len: 0,
            scratch: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[..self.len]
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    /// What it has, out of it.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.buffer.truncate(self.len);
        self.len = 0;
        std::mem::take(&mut self.buffer)
    }

    pub(super) fn is_large(&self) -> bool {
        self.buffer.len() > KEPT_BYTES
    }

    /// Gives the memory back.
    pub(super) fn shrink(&mut self) {
        self.buffer = Vec::new();
        self.len = 0;
    }

    /// Adds a message.
    pub(super) fn message(&mut self, message: &[u8]) {
        self.frame(message.len(), |batch| batch.raw(message));
    }

    /// Adds bytes without framing.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
    }

    /// Adds a message of `len` bytes that `write` adds.
    fn frame(&mut self, len: usize, write: impl FnOnce(&mut Batch)) {
        self.reserve(len + 16);
        self.header(len);
        let start = self.len;
        write(self);
        debug_assert_eq!(self.len - start, len);
        self.trailer();
    }

    fn header(&mut self, len: usize) {
        let mut room = [0; 10];
        let header = self.framing.header(len, &mut room);
        self.raw(header);
    }

    fn trailer(&mut self) {
        self.raw(self.framing.trailer());
    }

    fn base64(&mut self, bytes: &[u8]) {
        let room = self.room(bytes::encoded_len(bytes.len()));
        bytes::encode_into(bytes, room);
    }

    fn reserve(&mut self, more: usize) {
        if self.buffer.len() - self.len < more {
            let needed = self.len + more;
            self.buffer
                .reserve_exact(needed.max(2 * self.buffer.len()) - self.buffer.len());
            self.buffer.resize(self.buffer.capacity(), 0);
        }
    }

    fn room(&mut self, len: usize) -> &mut [u8] {
        self.reserve(len);
        let start = self.len;
        self.len += len;
        &mut self.buffer[start..self.len]
    }
}

/// Adds the notification of an event.
pub(super) fn event(batch: &mut Batch, process_id: &str, wire: Wire, seq: u64, event: &Event) {
    let is_modern = wire == Wire::Modern;
    let method = match event {
        Event::Output(..) if is_modern => "process/output",
        Event::Exited(_) if is_modern => "process/exited",
        Event::Output(..) => "command/exec/outputDelta",
        Event::Exited(_) => "command/exec/exited",
        Event::Closed => "process/closed",
    };
    let mut head = std::mem::take(&mut batch.scratch);
    head.clear();
    let _ = write!(head, r#"{{"method":"{method}","params":{{"processId":"#);
    write_json_string(&mut head, process_id);
    if is_modern {
        let _ = write!(head, r#","seq":{seq}"#);
    }
    match event {
        Event::Output(stream, output) => {
            let stream = match stream {
                Stream::Pty if !is_modern => Stream::Stdout,
                stream => *stream,
            };
            let _ = write!(head, r#","stream":"{}","chunk":""#, stream_name(stream));
            let tail = br#""}}"#;
            batch.frame(head.len() + bytes::encoded_len(output.len()) + tail.len(), |batch| {
                batch.raw(&head);
                batch.base64(output);
                batch.raw(tail);
            });
        }
        Event::Exited(exit) => {
            let _ = write!(head, r#","exitCode":{}"#, exit.code);
            if is_modern {
                let (denied, signal, ended) = (exit.sandbox_denied, signal_member(*exit), ended_member(exit.limit_met));
                let _ = write!(head, r#","sandboxDenied":{denied}{signal}{ended}"#);
                if let Some(failure) = exit.failure {
                    head.extend_from_slice(br#","failure":"#);
                    write_json_string(&mut head, &failure.to_string());
                }
            }
            head.extend_from_slice(b"}}");
            batch.message(&head);
        }
        Event::Closed => {
            head.extend_from_slice(b"}}");
            batch.message(&head);
        }
    }
    batch.scratch = head;
}

/// Adds the answer to a `process/read`. If `raw`, it has empty strings for the output. `between` is called after each
/// chunk and may take what there is by then: such an answer can be large, and its reader need not wait for all of it.
///
/// # Errors
/// Those of `between`.
pub(super) fn replay(
    batch: &mut Batch,
    id: &RequestId,
    replay: &Replay,
    raw: bool,
    between: &mut dyn FnMut(&mut Batch) -> io::Result<()>,
) -> io::Result<()> {
    let mut head = Vec::new();
    let _ = write!(head, r#"{{"id":{id},"result":{{"chunks":["#);
    let mut prefixes = Vec::with_capacity(replay.chunks.len());
    for (i, (seq, stream, _)) in replay.chunks.iter().enumerate() {
        let comma = if i > 0 { "," } else { "" };
        prefixes.push(format!(
            r#"{comma}{{"seq":{seq},"stream":"{}","chunk":""#,
            stream_name(*stream)
        ));
    }
    let mut tail = Vec::new();
    let (exited, code) = match replay.exit {
        Some(exit) => (true, Cow::from(exit.code.to_string())),
        None => (false, Cow::from("null")),
    };
    let mut failure = Vec::new();
    match replay.exit.and_then(|exit| exit.failure) {
        Some(why) => write_json_string(&mut failure, &why.to_string()),
        None => failure.extend_from_slice(b"null"),
    }
    let _ = write!(
        tail,
        r#"],"nextSeq":{},"exited":{exited},"exitCode":{code}{}{},"closed":{},"failure":{},"sandboxDenied":{},"firstSeq":{},"lostBytes":{}}}}}"#,
        replay.next_seq,
        replay.exit.map_or_else(String::new, signal_member),
        ended_member(replay.limit_met),
        replay.closed,
        String::from_utf8_lossy(&failure),
        replay.exit.is_some_and(|exit| exit.sandbox_denied),
        replay.first_seq,
        replay.lost_bytes,
    );
    let chunk_tail = br#""}"#;
    let outputs = replay
        .chunks
        .iter()
        .map(|(.., output)| if raw { &[][..] } else { &output[..] });
    let chunks = prefixes.iter().zip(outputs);
    let sizes = chunks
        .clone()
        .map(|(p, output)| p.len() + bytes::encoded_len(output.len()) + chunk_tail.len());
    batch.header(head.len() + sizes.sum::<usize>() + tail.len());
    batch.raw(&head);
    for (prefix, output) in chunks {
        batch.raw(prefix.as_bytes());
        batch.base64(output);
        batch.raw(chunk_tail);
        between(batch)?;
    }
    batch.raw(&tail);
    batch.trailer();
    Ok(())
}

/// What a stream is called.
pub(super) fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
        Stream::Pty => "pty",
    }
}

fn signal_member(exit: Exit) -> String {
    exit.signal
        .map_or_else(String::new, |n| format!(r#","signal":"{}""#, signal_name(n)))
}

fn ended_member(limit: Option<LimitMet>) -> String {
    limit.map_or_else(String::new, |limit| format!(r#","endedBy":"{}""#, limit_name(limit)))
}

/// What a limit is called.
pub(super) fn limit_name(limit: LimitMet) -> &'static str {
    match limit {
        LimitMet::Timeout => "timeout",
        LimitMet::Idle => "idleTimeout",
        LimitMet::Output => "outputLimit",
    }
}

/// The name of a signal, such as `SIGKILL`, or its number for one that has none.
pub(super) fn signal_name(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number).map_or_else(|_| number.to_string(), |s| s.as_str().to_owned())
}
