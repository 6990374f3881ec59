//! A connection's messages as bytes on a stream.

use super::answer_text::AnswerText;
use super::encode::{self, Batch};
use super::outbox::Wire;
use super::writer::Sink;
use crate::process::{Event, Process, Replay};
use crate::protocol::message::RequestId;
use crate::transport::Framing;
use std::io::{self, Write};

/// Frames messages and writes them to a stream, many small ones in one go.
pub(super) struct StreamSink {
    stream: Box<dyn Write + Send>,
    framing: Framing,
    batch: Batch,
    batch_bytes: usize,
}

impl StreamSink {
    /// A sink that writes once it has `batch_bytes`, or nothing more comes.
    pub(super) fn new(stream: Box<dyn Write + Send>, framing: Framing, batch_bytes: usize) -> StreamSink {
        StreamSink {
            stream,
            framing,
            batch: Batch::new(framing),
            batch_bytes,
        }
    }

    fn write_batch(&mut self) -> io::Result<()> {
        if !self.batch.is_empty() {
            self.stream.write_all(self.batch.bytes())?;
            self.batch.clear();
        }
        Ok(())
    }

    fn write_full_batch(&mut self) -> io::Result<()> {
        if self.batch.len() >= self.batch_bytes {
            self.write_batch()?;
        }
        Ok(())
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
        if message.len() >= self.batch_bytes {
            return self.write_large(message);
        }
        self.batch.message(message.bytes());
        self.write_full_batch()
    }

    fn frames(&mut self, frames: &[u8]) -> io::Result<()> {
        self.batch.raw(frames);
        self.write_full_batch()
    }

    fn replay(&mut self, id: &RequestId, replay: Replay, _: bool) -> io::Result<()> {
        encode::replay(&mut self.batch, id, &replay, false);
        self.write_full_batch()
    }

    fn event(&mut self, process: &Process, wire: Wire, seq: u64, event: Event) -> io::Result<()> {
        encode::event(&mut self.batch, process.id(), wire, seq, &event);
        self.write_full_batch()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.write_batch()?;
        self.stream.flush()
    }

    fn is_large(&self) -> bool {
        self.batch.is_large()
    }

    fn shrink(&mut self) {
        self.batch.shrink();
    }
}
