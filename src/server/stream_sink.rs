//! A connection's messages as bytes on a stream.

use super::answer_text::AnswerText;
use super::encode::{self, Batch};
use super::outbox::Wire;
use super::writer::Sink;
use crate::process::{Event, Process, Replay};
use crate::protocol::message::RequestId;
use crate::transport::Framing;
use crate::transport::outlet::Outlet;
use crate::transport::websocket;
use std::io::{self, Write};

/// Frames messages and writes them to a stream, many small ones in one go.
pub(super) struct StreamSink {
    stream: Outlet,
    framing: Framing,
    batch: Batch,
    /// How much of the batch is written.
    written: usize,
    batch_bytes: usize,
    /// The last frame was a close frame: nothing may follow (RFC 6455, section 5.5.1).
    is_closed: bool,
}

impl StreamSink {
    /// A sink that is full once it has `batch_bytes`.
    pub(super) fn new(stream: Outlet, framing: Framing, batch_bytes: usize) -> StreamSink {
        StreamSink {
            stream,
            framing,
            batch: Batch::new(framing),
            written: 0,
            batch_bytes,
            is_closed: false,
        }
    }

    fn write_batch(&mut self) -> io::Result<()> {
        let rest = &self.batch.bytes()[self.written..];
        if !rest.is_empty() {
            self.stream.write_all(rest)?;
        }
        self.clear();
        Ok(())
    }

    fn clear(&mut self) {
        self.batch.clear();
        self.written = 0;
    }

    /// Writes a message without copying it into the batch.
    fn write_large(&mut self, mut message: AnswerText) -> io::Result<()> {
        self.write_batch()?;
        let mut room = [0; 10];
        self.stream.write_all(self.framing.header(message.len(), &mut room))?;
        message.push(self.framing.trailer());
        self.stream.write_all(message.bytes())
    }
}

impl Sink for StreamSink {
    fn message(&mut self, message: AnswerText) -> io::Result<()> {
        if self.is_closed {
            return Ok(());
        }
        if message.len() >= self.batch_bytes {
            return self.write_large(message);
        }
        self.batch.message(message.bytes());
        Ok(())
    }

    fn frames(&mut self, frames: &[u8]) -> io::Result<()> {
        if !self.is_closed {
            self.batch.raw(frames);
            self.is_closed = websocket::is_close_frame(frames);
        }
        Ok(())
    }

    fn replay(&mut self, id: &RequestId, replay: Replay, _: bool) -> io::Result<()> {
        if self.is_closed {
            return Ok(());
        }
        let (stream, written) = (&mut self.stream, &mut self.written);
        encode::replay(&mut self.batch, id, &replay, false, &mut |batch| {
            if batch.len() >= self.batch_bytes {
                stream.write_all(&batch.bytes()[*written..])?;
                batch.clear();
                *written = 0;
            }
            Ok(())
        })
    }

    fn event(&mut self, process: &Process, wire: Wire, seq: u64, event: Event) -> io::Result<()> {
        if !self.is_closed {
            encode::event(&mut self.batch, process.id(), wire, seq, &event);
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.batch.len() >= self.batch_bytes
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_batch()?;
        self.stream.flush()
    }

    fn flush_at_once(&mut self) -> io::Result<bool> {
        self.written += self.stream.write_at_once(&self.batch.bytes()[self.written..])?;
        let all = self.written == self.batch.len();
        if all {
            self.clear();
        }
        Ok(all)
    }

    fn is_large(&self) -> bool {
        self.batch.is_large()
    }

    fn shrink(&mut self) {
        self.batch.shrink();
    }
}
