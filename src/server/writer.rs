//! What writes to a connection: the thread that is there for it, or, for small answers, the one that reads.

use super::answer_text::AnswerText;
use super::outbox::{News, Outbox, Outflow, Outgoing, Wire};
use crate::process::{Audience, Event, Process, Replay};
use crate::protocol::message::RequestId;
use crate::sys::defect;
use crossbeam_channel::Receiver;
use log::error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// How long nothing must have been written before a sink's memory is given back.
const IDLE_BEFORE_SHRINKING: Duration = Duration::from_secs(1);

/// Answers of no more than this, one and all together, are written by the thread that reads. More is worth waking the
/// writer for, which copies and writes it while requests are read.
const AT_ONCE_BYTES: usize = 64 * 1024;

/// So many processes with brief news are written for before one with much has its turn.
const BRIEF_IN_A_ROW: usize = 16;

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
    /// Whether so much is held back that it is to go out.
    fn is_full(&self) -> bool {
        false
    }
    /// What was held back goes out.
    fn flush(&mut self) -> io::Result<()>;
    /// The same, as far as that needs no waiting; whether that was all.
    fn flush_at_once(&mut self) -> io::Result<bool> {
        Ok(false)
    }
    /// Whether it keeps memory that [`shrink`](Sink::shrink) gives back.
    fn is_large(&self) -> bool;
    /// Nothing was written for a while.
    fn shrink(&mut self);
}

/// Moves what an [`Outbox`] has to a [`Sink`].
struct Writer {
    sink: Box<dyn Sink>,
    outbox: Arc<Outbox>,
    flow: Outflow,
    /// An answer that was not for writing at once.
    put_off: Option<Outgoing>,
    quantum_bytes: usize,
    brief_in_a_row: usize,
    events: Vec<(u64, Event)>,
    finishing: bool,
}

/// The writer of a connection. Whoever has the lock writes; it is the one lock that is held across I/O, and only the
/// writer's thread waits for it.
#[derive(Clone)]
pub(super) struct SharedWriter(Arc<Mutex<Writer>>);

impl SharedWriter {
    pub(super) fn new(sink: Box<dyn Sink>, outbox: Arc<Outbox>, flow: Outflow, quantum_bytes: usize) -> SharedWriter {
        SharedWriter(Arc::new(Mutex::new(Writer {
            sink,
            outbox,
            flow,
            put_off: None,
            quantum_bytes,
            brief_in_a_row: 0,
            events: Vec::new(),
            finishing: false,
        })))
    }

    /// Writes until [`Outgoing::Finish`], and then what there is by then; whenever `bell` says that there is something.
    ///
    /// # Errors
    /// What the sink said; it is of no use any more then.
    pub(super) fn run(&self, bell: &Receiver<()>) -> io::Result<()> {
        loop {
            let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            writer.write_all()?;
            if writer.finishing {
                return Ok(());
            }
            let is_large = writer.sink.is_large();
            drop(writer);
            if is_large && bell.recv_timeout(IDLE_BEFORE_SHRINKING).is_err() {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).sink.shrink();
            } else if is_large {
                continue;
            }
            let _ = bell.recv();
        }
    }

    /// Writes the answers there are, if they are small, nobody else writes, and it needs no waiting. Whether all are
    /// written; if not, the bell is to be rung.
    pub(super) fn write_answers_at_once(&self) -> bool {
        let mut writer: MutexGuard<'_, Writer> = match self.0.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return false,
        };
        match catch_unwind(AssertUnwindSafe(|| writer.write_answers_at_once())) {
            // The writer's thread meets the same error, and deals with it.
            Ok(written) => written.unwrap_or(false),
            Err(_) => {
                error!("writing to a client failed in an unforeseen way; its connection is cut");
                writer.outbox.cut();
                false
            }
        }
    }
}

impl Writer {
    fn write_all(&mut self) -> io::Result<()> {
        while self.write_next()? {
            if self.sink.is_full() {
                self.sink.flush()?;
            }
        }
        self.sink.flush()
    }

    /// Writes the next thing there is; whether there was one.
    fn write_next(&mut self) -> io::Result<bool> {
        if let Some(outgoing) = self.next_answer() {
            self.write(outgoing)?;
            return Ok(true);
        }
        let Some(news) = self.next_news() else {
            return Ok(false);
        };
        // The answer to a start was put in its lane before the process had news; so it is there by now, even if it was
        // not above.
        while let Some(outgoing) = self.next_answer() {
            self.write(outgoing)?;
        }
        self.write_news(news)?;
        Ok(true)
    }

    fn next_answer(&mut self) -> Option<Outgoing> {
        self.put_off.take().or_else(|| self.flow.answers.try_recv().ok())
    }

    /// Brief news first: nobody waits long behind those. But not for ever.
    fn next_news(&mut self) -> Option<News> {
        let brief = || self.flow.brief_news.try_recv().ok();
        let other = || self.flow.news.try_recv().ok();
        let is_their_turn = self.brief_in_a_row < BRIEF_IN_A_ROW;
        let next = if is_their_turn { brief() } else { None };
        self.brief_in_a_row = if next.is_some() { self.brief_in_a_row + 1 } else { 0 };
        next.or_else(other).or_else(brief)
    }

    fn write_answers_at_once(&mut self) -> io::Result<bool> {
        let mut bytes = 0;
        while let Some(outgoing) = self.next_answer() {
            bytes += match &outgoing {
                Outgoing::Message(message) => message.len(),
                Outgoing::Frames(frames) => frames.len(),
                Outgoing::Replay { .. } | Outgoing::Finish => AT_ONCE_BYTES,
            };
            if bytes >= AT_ONCE_BYTES {
                self.put_off = Some(outgoing);
                self.sink.flush_at_once()?;
                return Ok(false);
            }
            self.write(outgoing)?;
        }
        self.sink.flush_at_once()
    }

    fn write(&mut self, outgoing: Outgoing) -> io::Result<()> {
        match outgoing {
            Outgoing::Message(message) => {
                defect::point("writer", || &message);
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
}
