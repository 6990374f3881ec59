//! The only thread that writes to a connection.

use super::answer_text::AnswerText;
use super::outbox::{News, Outbox, Outflow, Outgoing, Wire};
use crate::process::{Audience, Event, Process, Replay};
use crate::protocol::message::RequestId;
use crossbeam_channel::Select;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long nothing must have been written before a sink's memory is given back.
const IDLE_BEFORE_SHRINKING: Duration = Duration::from_secs(1);

/// Where a connection's messages go: a stream of bytes or a channel. An error ends the connection.
pub(super) trait Sink: Send {
    /// Writes an answer, or a notification that is not of a process.
    fn message(&mut self, message: AnswerText) -> io::Result<()>;
    /// Writes WebSocket frames as they are.
    fn frames(&mut self, frames: &[u8]) -> io::Result<()>;
    /// Writes the answer to a `process/read`. If `raw`, the client takes bytes as they are.
    fn replay(&mut self, id: &RequestId, replay: Replay, raw: bool) -> io::Result<()>;
    /// Writes the notification of an event.
    fn event(&mut self, process: &Process, wire: Wire, seq: u64, event: Event) -> io::Result<()>;
    /// There is nothing more for now: what was held back goes out.
    fn flush(&mut self) -> io::Result<()>;
    /// Whether it keeps memory that [`shrink`](Sink::shrink) gives back.
    fn is_large(&self) -> bool;
    /// Nothing was written for a while.
    fn shrink(&mut self);
}

/// Moves what an [`Outbox`] has to a [`Sink`].
pub(super) struct Writer {
    sink: Box<dyn Sink>,
    outbox: Arc<Outbox>,
    flow: Outflow,
    quantum_bytes: usize,
    events: Vec<(u64, Event)>,
    finishing: bool,
}

impl Writer {
    pub(super) fn new(sink: Box<dyn Sink>, outbox: Arc<Outbox>, flow: Outflow, quantum_bytes: usize) -> Writer {
        Writer {
            sink,
            outbox,
            flow,
            quantum_bytes,
            events: Vec::new(),
            finishing: false,
        }
    }

    /// Writes until [`Outgoing::Finish`], and then what there is by then.
    ///
    /// # Errors
    /// What the sink said; it is of no use any more then.
    pub(super) fn run(mut self) -> io::Result<()> {
        loop {
            while self.write_next()? {}
            self.sink.flush()?;
            if self.finishing {
                return Ok(());
            }
            self.wait();
        }
    }

    /// Writes the next thing there is; whether there was one.
    fn write_next(&mut self) -> io::Result<bool> {
        if let Ok(outgoing) = self.flow.answers.try_recv() {
            self.write(outgoing)?;
            return Ok(true);
        }
        let Ok(news) = self.flow.news.try_recv() else {
            return Ok(false);
        };
        // The answer to a start was put in its lane before the process had news; so it is there by now, even if it was
        // not above.
        while let Ok(outgoing) = self.flow.answers.try_recv() {
            self.write(outgoing)?;
        }
        self.write_news(news)?;
        Ok(true)
    }

    fn write(&mut self, outgoing: Outgoing) -> io::Result<()> {
        match outgoing {
            Outgoing::Message(message) => {
                self.outbox.written(message.len());
                self.sink.message(message)
            }
            Outgoing::Frames(frames) => {
                self.outbox.written(frames.len());
                self.sink.frames(&frames)
            }
            Outgoing::Replay {
                id,
                process,
                after,
                max_bytes,
                raw,
            } => {
                self.outbox.written(0);
                self.sink.replay(&id, process.replay(after, max_bytes), raw)
            }
            Outgoing::Finish => {
                self.outbox.written(0);
                self.finishing = true;
                Ok(())
            }
        }
    }

    fn write_news(&mut self, news: News) -> io::Result<()> {
        let News { process, wire } = &news;
        let more = process.take_events(self.outbox.id(), self.quantum_bytes, &mut self.events);
        for (seq, event) in self.events.drain(..) {
            // The first wire has no word for that.
            if *wire == Wire::Modern || !matches!(event, Event::Closed) {
                self.sink.event(process, *wire, seq, event)?;
            }
        }
        if more {
            self.outbox.queue(news);
        }
        Ok(())
    }

    fn wait(&mut self) {
        let mut select = Select::new();
        select.recv(&self.flow.answers);
        select.recv(&self.flow.news);
        if self.sink.is_large() && select.ready_timeout(IDLE_BEFORE_SHRINKING).is_err() {
            self.sink.shrink();
        }
        select.ready();
    }
}
