//! The only thread that writes to a connection.

use super::answer_text::AnswerText;
use super::config::ServerConfig;
use super::encode::{self, Batch};
use super::outbox::{Outbox, Outflow, Outgoing};
use crate::process::{Audience, Event, Process};
use crate::transport::Framing;
use crossbeam_channel::Select;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

/// How long nothing must have been written before the memory of a large batch is given back.
const IDLE_BEFORE_SHRINKING: Duration = Duration::from_secs(1);

/// Writes what an [`Outbox`] has to a stream.
pub(super) struct Writer<W> {
    stream: W,
    framing: Framing,
    outbox: Arc<Outbox>,
    flow: Outflow,
    batch: Batch,
    batch_bytes: usize,
    quantum_bytes: usize,
    events: Vec<(u64, Event)>,
    finishing: bool,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(stream: W, framing: Framing, outbox: Arc<Outbox>, flow: Outflow, config: &ServerConfig) -> Self {
        Writer {
            stream,
            framing,
            outbox,
            flow,
            batch: Batch::new(framing),
            batch_bytes: config.batch_bytes,
            quantum_bytes: config.quantum_bytes,
            events: Vec::new(),
            finishing: false,
        }
    }

    /// Writes until [`Outgoing::Finish`], and then what there is by then.
    ///
    /// # Errors
    /// What the stream said; it is of no use any more then.
    pub(super) fn run(mut self) -> io::Result<()> {
        loop {
            while self.fill()? {}
            self.flush()?;
            if self.finishing {
                return self.stream.flush();
            }
            self.wait();
        }
    }

    /// Puts the next thing there is into the batch; whether there was one.
    fn fill(&mut self) -> io::Result<bool> {
        if self.batch.len() >= self.batch_bytes {
            self.flush()?;
        }
        if let Ok(outgoing) = self.flow.answers.try_recv() {
            self.encode(outgoing)?;
            return Ok(true);
        }
        let Ok(process) = self.flow.news.try_recv() else {
            return Ok(false);
        };
        // The answer to a start was put in its lane before the process had news; so it is there by now, even if it was
        // not above.
        while let Ok(outgoing) = self.flow.answers.try_recv() {
            self.encode(outgoing)?;
        }
        self.encode_news(process)?;
        Ok(true)
    }

    fn encode(&mut self, outgoing: Outgoing) -> io::Result<()> {
        match outgoing {
            Outgoing::Message(message) if message.len() >= self.batch_bytes => {
                self.flush()?;
                self.outbox.written(message.len());
                self.write_large(message)?;
            }
            Outgoing::Message(message) => {
                self.outbox.written(message.len());
                self.batch.message(message.bytes());
            }
            Outgoing::Frames(frames) => {
                self.outbox.written(frames.len());
                self.batch.raw(&frames);
            }
            Outgoing::Replay {
                id,
                process,
                after,
                max_bytes,
            } => {
                self.outbox.written(0);
                let replay = process.replay(after, max_bytes);
                encode::replay(&mut self.batch, &id, &replay);
            }
            Outgoing::Finish => {
                self.outbox.written(0);
                self.finishing = true;
            }
        }
        if self.batch.len() >= self.batch_bytes {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn encode_news(&mut self, process: Arc<Process>) -> io::Result<()> {
        let more = process.take_events(self.outbox.id(), self.quantum_bytes, &mut self.events);
        for (seq, event) in self.events.drain(..) {
            encode::event(&mut self.batch, process.id(), seq, &event);
        }
        if more {
            self.outbox.requeue(process);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.batch.is_empty() {
            self.stream.write_all(self.batch.bytes())?;
            self.batch.clear();
        }
        Ok(())
    }

    /// Writes a message without copying it into the batch.
    fn write_large(&mut self, mut message: AnswerText) -> io::Result<()> {
        let mut room = [0; 10];
        self.stream.write_all(self.framing.header(message.len(), &mut room))?;
        message.push(self.framing.trailer());
        self.stream.write_all(message.bytes())
    }

    fn wait(&mut self) {
        let mut select = Select::new();
        select.recv(&self.flow.answers);
        select.recv(&self.flow.news);
        if self.batch.is_large() && select.ready_timeout(IDLE_BEFORE_SHRINKING).is_err() {
            self.batch.shrink();
        }
        select.ready();
    }
}
