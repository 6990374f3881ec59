//! Everything that leaves a connection.

use super::answer_text::AnswerText;
use super::config::ServerConfig;
use crate::metrics::{self, Count};
use crate::process::{Audience, Process};
use crate::protocol::error::RpcError;
use crate::protocol::message::{self, RequestId};
use crate::transport::websocket::{self, Companion};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use serde::Serialize;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Something that is to be written, before any process's news.
pub(super) enum Outgoing {
    /// A message.
    Message(AnswerText),
    /// The answer to a `process/read`, which is put together when it is written.
    Replay {
        id: RequestId,
        process: Arc<Process>,
        after: u64,
        max_bytes: Option<usize>,
        raw: bool,
    },
    /// WebSocket frames as they are.
    Frames(Vec<u8>),
    /// The last thing: after this, and the news there is by then, nothing is written.
    Finish,
}

/// What is to leave one connection: a lane for answers, and the processes that have news.
///
/// Nothing waits here. The writer takes what it can write; output itself stays in the processes' logs until then. It
/// sleeps while there is nothing, and is woken by a bell; but not for the answers that the thread has that reads from
/// the connection: these it writes itself, see [`answers_on_this_thread`](Outbox::answers_on_this_thread).
pub struct Outbox {
    id: u64,
    answers: Sender<Outgoing>,
    brief_news: Sender<News>,
    news: Sender<News>,
    bell: Sender<()>,
    is_websocket: bool,
    /// Bytes and number of answers that are not written yet.
    unread_bytes: AtomicUsize,
    unread_answers: AtomicUsize,
    max_unread_bytes: usize,
    max_unread_answers: usize,
    /// Set when the bounds above were met, or the connection is to end for another reason.
    broken: AtomicBool,
    on_broken: Box<dyn Fn() + Send + Sync>,
    /// It was asked for a sign of life because its session is wanted.
    is_probed: AtomicBool,
    has_session: AtomicBool,
    /// Nothing more is received.
    is_ending: AtomicBool,
    /// Requests whose answer is still being worked on.
    unanswered: Mutex<usize>,
    /// Nobody waits for those answers.
    awaits_nothing: AtomicBool,
    all_answered: Condvar,
    /// When the other side was last heard of, in milliseconds since `epoch`.
    heard: AtomicU64,
    epoch: Instant,
}

/// A process that has events to be told, and how.
pub(super) struct News {
    pub(super) process: Arc<Process>,
    pub(super) wire: Wire,
}

/// In which words the events of a process are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wire {
    /// `command/exec/…`, see [`first_wire`](super::first_wire).
    First,
    /// `process/…`
    Modern,
}

/// The writer's end of an [`Outbox`].
pub(super) struct Outflow {
    pub(super) answers: Receiver<Outgoing>,
    /// Of processes that have little to say, or say something for the first time.
    pub(super) brief_news: Receiver<News>,
    pub(super) news: Receiver<News>,
}

thread_local! {
    /// The outbox whose answers this thread writes.
    static WRITES_ANSWERS_OF: Cell<u64> = const { Cell::new(0) };
}

/// With so many processes waiting for their turn none reads ahead of it. What they would read then has to be held, and
/// reading it would keep the others from running.
const CROWD: usize = 8;

/// So many bytes of answers are worth waking the writer for.
const WORTH_WAKING: usize = 64 * 1024;

impl Outbox {
    /// An outbox, the writer's end of it, and the writer's bell. `on_broken` is to cut the connection.
    pub(super) fn new(
        config: &ServerConfig,
        is_websocket: bool,
        on_broken: Box<dyn Fn() + Send + Sync>,
    ) -> (Arc<Outbox>, Outflow, Receiver<()>) {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let (answers, answers_out) = unbounded();
        let (brief_news, brief_news_out) = unbounded();
        let (news, news_out) = unbounded();
        let (bell, bell_out) = bounded(1);
        let outbox = Outbox {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            answers,
            brief_news,
            news,
            bell,
            is_websocket,
            unread_bytes: AtomicUsize::new(0),
            unread_answers: AtomicUsize::new(0),
            max_unread_bytes: config.max_unread_bytes,
            max_unread_answers: config.max_unread_answers,
            broken: AtomicBool::new(false),
            on_broken,
            is_probed: AtomicBool::new(false),
            has_session: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            unanswered: Mutex::new(0),
            awaits_nothing: AtomicBool::new(false),
            all_answered: Condvar::new(),
            heard: AtomicU64::new(0),
            epoch: Instant::now(),
        };
        (
            Arc::new(outbox),
            Outflow {
                answers: answers_out,
                brief_news: brief_news_out,
                news: news_out,
            },
            bell_out,
        )
    }

    /// Sends a message.
    pub(super) fn send(&self, message: Vec<u8>) {
        self.put(Outgoing::Message(AnswerText::Small(message)));
    }

    /// Sends an answer, a message or what becomes one.
    pub(super) fn put(&self, outgoing: Outgoing) {
        let bytes = match &outgoing {
            Outgoing::Message(message) => message.len(),
            Outgoing::Frames(frames) => frames.len(),
            Outgoing::Replay { .. } | Outgoing::Finish => 0,
        };
        let before = self.unread_bytes.fetch_add(bytes, Ordering::Relaxed);
        let answers = self.unread_answers.fetch_add(1, Ordering::Relaxed);
        if (before > self.max_unread_bytes || answers > self.max_unread_answers)
            && !self.broken.swap(true, Ordering::Relaxed)
        {
            metrics::limit_met("max-unread-bytes");
            log::warn!(conn = self.id; "a client reads no answers: {answers} of {before} bytes wait; its connection is closed");
            self.cut();
        }
        // A broken connection needs nothing more, but its writer must end.
        let is_last = matches!(outgoing, Outgoing::Finish);
        if !self.broken.load(Ordering::Relaxed) || is_last {
            // It can only fail when the writer has ended, and then nobody is there to read it.
            let _ = self.answers.send(outgoing);
            if is_last || before + bytes >= WORTH_WAKING || WRITES_ANSWERS_OF.get() != self.id {
                self.ring();
            }
        }
    }

    /// From now on this thread looks itself, before it waits for anything, after the answers it has put here: with
    /// [`has_answers`](Outbox::has_answers).
    pub(super) fn answers_on_this_thread(&self) {
        WRITES_ANSWERS_OF.set(self.id);
    }

    /// Whether there are answers that nobody has taken.
    pub(super) fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Wakes the writer.
    pub(super) fn ring(&self) {
        // If it has been rung before, the writer has yet to look.
        let _ = self.bell.try_send(());
    }

    /// The writer has taken something of that many bytes.
    pub(super) fn written(&self, bytes: usize) {
        self.unread_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.unread_answers.fetch_sub(1, Ordering::Relaxed);
    }

    /// Sends an error that answers no particular request.
    pub(super) fn complain(&self, error: &RpcError) {
        let mut message = Vec::new();
        message::write_error(&mut message, None, error);
        self.send(message);
    }

    /// Tells a WebSocket client why its connection ends, if it still reads. Nothing else is sent after that.
    pub(super) fn close(&self, code: u16, reason: &str) {
        if self.is_websocket {
            self.put(Outgoing::Frames(websocket::close_frame(code, reason)));
        }
        self.finish();
    }

    /// Lets the writer end once everything there is now is written.
    pub(super) fn finish(&self) {
        self.put(Outgoing::Finish);
    }

    /// Asks a WebSocket client for a sign of life.
    pub(super) fn ping(&self) {
        if self.is_websocket {
            self.put(Outgoing::Frames(websocket::ping_frame()));
        }
    }

    /// How long nothing has been heard of the other side.
    pub(super) fn silence(&self) -> Duration {
        self.epoch
            .elapsed()
            .saturating_sub(Duration::from_millis(self.heard.load(Ordering::Relaxed)))
    }

    /// Whether it is that of a WebSocket.
    pub(super) fn is_websocket(&self) -> bool {
        self.is_websocket
    }

    /// Whether a probe begins now; false for a client that cannot be probed, or is.
    pub(super) fn begin_probe(&self) -> bool {
        self.is_websocket && !self.is_probed.swap(true, Ordering::Relaxed)
    }

    /// The probe is over.
    pub(super) fn end_probe(&self) {
        self.is_probed.store(false, Ordering::Relaxed);
    }

    /// Cuts the connection.
    pub(super) fn cut(&self) {
        self.broken.store(true, Ordering::Relaxed);
        (self.on_broken)();
        self.await_nothing();
    }

    /// The other side reads no more answers: nobody waits for those that are still worked on.
    pub(super) fn await_nothing(&self) {
        let unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        self.awaits_nothing.store(true, Ordering::Relaxed);
        drop(unanswered);
        self.all_answered.notify_all();
    }

    /// All that was received is carried out, and nothing more is received.
    pub(super) fn set_ending(&self) {
        self.is_ending.store(true, Ordering::Release);
    }

    /// Whether nothing more is received.
    pub(super) fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Acquire)
    }

    /// A process has news.
    fn announce(&self, process: &Arc<Process>, wire: Wire, is_brief: bool) {
        let process = process.clone();
        let lane = if is_brief { &self.brief_news } else { &self.news };
        let _ = lane.send(News { process, wire });
        self.ring();
    }

    /// Puts a process that has more news, after its turn, at the end of the queue.
    pub(super) fn queue(&self, news: News) {
        let _ = self.news.send(news);
    }

    /// Itself, for a process whose events are to be told like that.
    pub(super) fn audience(self: Arc<Outbox>, wire: Wire) -> Arc<dyn Audience> {
        match wire {
            Wire::First => Arc::new(FirstWireAudience(self)),
            Wire::Modern => self,
        }
    }

    /// Waits until every request has its answer, for at most `limit`; not if nobody is there to read it.
    pub(super) fn wait_answered(&self, limit: Duration) {
        let unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.all_answered.wait_timeout_while(unanswered, limit, |n| {
            *n > 0 && !self.awaits_nothing.load(Ordering::Relaxed)
        });
    }

    /// A request to be answered later, and how many there are with it.
    pub(super) fn responder(self: &Arc<Outbox>, id: RequestId) -> (Responder, usize) {
        let mut unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        *unanswered += 1;
        metrics::add(Count::Requests, 1);
        let responder = Responder {
            outbox: self.clone(),
            id: Some(id),
            begun: metrics::now(),
        };
        (responder, *unanswered)
    }

    /// The client has a session.
    pub(super) fn set_session(&self) {
        self.has_session.store(true, Ordering::Relaxed);
    }

    /// Whether the client has a session.
    pub(super) fn has_session(&self) -> bool {
        self.has_session.load(Ordering::Relaxed)
    }
}

impl Audience for Outbox {
    fn id(&self) -> u64 {
        self.id
    }

    fn news(&self, process: &Arc<Process>, is_brief: bool) {
        self.announce(process, Wire::Modern, is_brief);
    }

    fn is_crowded(&self) -> bool {
        self.news.len() + self.brief_news.len() >= CROWD
    }
}

/// An [`Outbox`] for processes of the first wire.
struct FirstWireAudience(Arc<Outbox>);

impl Audience for FirstWireAudience {
    fn id(&self) -> u64 {
        self.0.id
    }

    fn news(&self, process: &Arc<Process>, is_brief: bool) {
        self.0.announce(process, Wire::First, is_brief);
    }

    fn is_crowded(&self) -> bool {
        self.0.is_crowded()
    }
}

impl Companion for Outbox {
    fn heard(&self) {
        self.heard
            .store(self.epoch.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn send_frames(&self, frames: Vec<u8>) {
        self.put(Outgoing::Frames(frames));
    }
}

/// The duty to answer one request, once.
pub(super) struct Responder {
    outbox: Arc<Outbox>,
    id: Option<RequestId>,
    begun: Option<Instant>,
}

impl Responder {
    /// The same, without looking at how long it takes.
    pub(super) fn untimed(mut self) -> Responder {
        self.begun = None;
        self
    }

    /// Answers with a result.
    pub(super) fn ok(mut self, result: &impl Serialize) {
        if let Some(id) = self.id.take() {
            let mut message = Vec::with_capacity(128);
            message::write_result(&mut message, &id, result);
            self.outbox.send(message);
        }
    }

    /// Answers with an error.
    pub(super) fn fail(mut self, error: &RpcError) {
        if let Some(id) = self.id.take() {
            let mut message = Vec::with_capacity(128);
            message::write_error(&mut message, Some(&id), error);
            self.outbox.send(message);
        }
    }

    /// Answers with the result that `write` appends, as JSON, or with its error.
    pub(super) fn write(mut self, write: impl FnOnce(&mut AnswerText) -> Result<(), RpcError>) {
        // It stays until there is an answer: if `write` panics, that is the answer.
        let Some(id) = &self.id else { return };
        let mut head = Vec::with_capacity(256);
        head.extend_from_slice(br#"{"id":"#);
        head.extend_from_slice(id.as_json().as_bytes());
        head.extend_from_slice(br#","result":"#);
        let mut text = AnswerText::Small(head);
        match write(&mut text) {
            Ok(()) => text.push(b"}"),
            Err(error) => {
                let mut message = Vec::new();
                message::write_error(&mut message, Some(id), &error);
                text = AnswerText::Small(message);
            }
        }
        self.id = None;
        self.outbox.put(Outgoing::Message(text));
    }

    /// Answers with either.
    pub(super) fn answer(self, outcome: Result<impl Serialize, RpcError>) {
        match outcome {
            Ok(result) => self.ok(&result),
            Err(error) => self.fail(&error),
        }
    }

    /// Answers with something that is put together when it is written.
    pub(super) fn put(mut self, outgoing: impl FnOnce(RequestId) -> Outgoing) {
        if let Some(id) = self.id.take() {
            self.outbox.put(outgoing(id));
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            let mut message = Vec::new();
            let why = match std::thread::panicking() {
                true => "the request failed in an unforeseen way",
                false => "the request was given up",
            };
            message::write_error(&mut message, Some(&id), &RpcError::internal(why));
            self.outbox.send(message);
        }
        metrics::REQUESTS.took(self.begun);
        let mut unanswered = self.outbox.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        *unanswered -= 1;
        if *unanswered == 0 {
            self.outbox.all_answered.notify_all();
        }
    }
}
