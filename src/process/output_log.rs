//! What a process has said and how it ended, numbered and retained within bounds.

use super::block::{Block, Bytes};
use super::run_limits::LimitMet;
use crate::metrics::{self, Count};
use nix::errno::Errno;
use std::collections::VecDeque;
use std::fmt;

/// Where output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output on a pipe.
    Stdout,
    /// Standard error on a pipe.
    Stderr,
    /// The terminal.
    Pty,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The code it gave, or 128 + n after signal n.
    pub code: i32,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
    /// Whether a sandbox has likely refused it something; see [`StartSpec::confine`](super::StartSpec).
    pub sandbox_denied: bool,
    /// What has failed meanwhile that was to be done for it, if something has: not all of its output may be there, or it was
    /// ended because of that.
    pub failure: Option<Failure>,
    /// The limit that it was ended for.
    pub limit_met: Option<LimitMet>,
}

/// Something that the server could not do for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What failed, such as `failed to read its output`.
    pub what: &'static str,
    /// What the system said; nothing where the server itself has a defect.
    pub errno: Option<Errno>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)?;
        match self.errno {
            Some(errno) => write!(f, ": {}", std::io::Error::from(errno)),
            None => Ok(()),
        }
    }
}

/// One numbered event of a process.
#[derive(Clone)]
pub enum Event {
    /// Some output.
    Output(Stream, Bytes),
    /// The process was reaped.
    Exited(Exit),
    /// No more events: it was reaped and its streams have ended or were given up.
    Closed,
}

/// What the log keeps of an event: how the process has ended it knows anyway.
#[derive(Clone)]
enum Entry {
    Output(Stream, Bytes),
    Exited,
    Closed,
}

impl Entry {
    /// Bytes of output.
    fn bytes(&self) -> usize {
        if let Entry::Output(_, bytes) = self {
            bytes.len()
        } else {
            0
        }
    }
}

/// The bounds of an [`OutputLog`].
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// Bytes of output that are kept.
    pub bytes: usize,
    /// Events that are kept, whatever their size.
    pub events: usize,
    /// Bytes that may wait to be taken by an attached client before reading pauses.
    pub credit: usize,
    /// Bytes that may be taken beyond what was acknowledged. With `None` nothing is: what was taken counts as received.
    pub ack_window: Option<usize>,
}

/// What [`OutputLog::replay`] found.
pub struct Replay {
    /// Sequence number of the first chunk in `chunks`, and the chunks with theirs.
    pub chunks: Vec<(u64, Stream, Bytes)>,
    /// Where the next read continues.
    pub next_seq: u64,
    /// The lowest sequence number whose event is still retained, or the next one to be given.
    pub first_seq: u64,
    /// Output bytes after the asked sequence number that are no longer retained; never understated.
    pub lost_bytes: u64,
    /// How it ended, if it did by now.
    pub exit: Option<Exit>,
    /// The limit that it was ended for, or what it has left.
    pub limit_met: Option<LimitMet>,
    /// Whether there will be no more events.
    pub closed: bool,
}

/// How many places in the evicted past are remembered to count what a reader has lost from there on.
const MARKS: usize = 512;

/// The blocks of evicted output that are kept for the next reads.
const SPARE_BLOCKS: usize = 2;

/// What an event takes beside its bytes, about.
const EVENT_BYTES: usize = 64;

/// The events of one process, numbered 1, 2, 3 …: output, exited, closed.
///
/// Bounded by [`Retention`]. While a client is attached, output that it has not taken is never evicted; instead
/// [`has_credit`](OutputLog::has_credit) turns false and the owner is to append no more. Detached, the oldest goes
/// first and what is lost is counted. With [`Retention::ack_window`] nothing is evicted that was not acknowledged,
/// attached or not, and credit ends when that fills the log. Plain data: no I/O, no threads, no clock.
pub struct OutputLog {
    limits: Retention,
    /// The retained events; the first has number `base`.
    events: VecDeque<Entry>,
    base: u64,
    bytes: usize,
    /// The last number an attached client has taken; `None` while detached.
    taken: Option<u64>,
    untaken_bytes: usize,
    /// Where output is acknowledged: the last number that was, and the bytes after it.
    acked: u64,
    unacked_bytes: usize,
    exit: Option<Exit>,
    limit_met: Option<LimitMet>,
    closed: bool,
    evicted: Option<Box<Evicted>>,
}

/// What is left of the output that was evicted.
#[derive(Default)]
struct Evicted {
    bytes: u64,
    /// For some events: their number, and the output bytes up to and with it.
    marks: VecDeque<(u64, u64)>,
    spare: Vec<Block>,
}

impl OutputLog {
    /// An empty log that nobody is attached to.
    pub fn new(limits: Retention) -> OutputLog {
        OutputLog {
            limits,
            events: VecDeque::new(),
            base: 1,
            bytes: 0,
            taken: None,
            untaken_bytes: 0,
            acked: 0,
            unacked_bytes: 0,
            exit: None,
            limit_met: None,
            closed: false,
            evicted: None,
        }
    }

    /// The number that the next event will get.
    pub fn next_seq(&self) -> u64 {
        self.base + self.events.len() as u64
    }

    /// How the process ended, once [`exited`](OutputLog::exited) was called.
    pub fn exit(&self) -> Option<Exit> {
        self.exit
    }

    /// Whether [`close`](OutputLog::close) was called.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Bytes of output that are retained.
    pub fn retained_bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that an attached client has yet to take.
    pub fn untaken_bytes(&self) -> usize {
        self.untaken_bytes
    }

    /// Whether no client has ever taken an event.
    pub fn has_taken_nothing(&self) -> bool {
        self.taken == Some(0)
    }

    /// Bytes of memory that the retained output takes, or somewhat fewer.
    pub fn weight(&self) -> usize {
        if self.bytes == 0 {
            0
        } else {
            self.bytes + self.events.len() * EVENT_BYTES
        }
    }

    /// Whether more output may be appended without running ahead of an attached client, or of what is acknowledged.
    pub fn has_credit(&self) -> bool {
        let Retention {
            bytes, events, credit, ..
        } = self.limits;
        let is_far_from_acked =
            self.unacked_bytes >= bytes.max(1) || self.next_seq() - 1 - self.acked >= events.max(1) as u64;
        self.untaken_bytes < credit
            && self.untaken_events() < events as u64
            && !(self.is_acknowledged() && is_far_from_acked)
    }

    /// Numbers some output. Nothing follows after `close`.
    pub fn append(&mut self, stream: Stream, bytes: Bytes) {
        self.bytes += bytes.len();
        if self.taken.is_some() {
            self.untaken_bytes += bytes.len();
        }
        if self.is_acknowledged() {
            self.unacked_bytes += bytes.len();
        }
        self.push(Entry::Output(stream, bytes));
    }

    /// The process is ended for that limit.
    pub fn meet_limit(&mut self, limit: LimitMet) {
        self.limit_met = Some(limit);
    }

    /// The limit that was met, if one was.
    pub fn limit_met(&self) -> Option<LimitMet> {
        self.limit_met
    }

    /// Numbers the end of the process.
    pub fn exited(&mut self, mut exit: Exit) {
        exit.limit_met = self.limit_met;
        self.exit = Some(exit);
        self.push(Entry::Exited);
    }

    /// Numbers the last event and gives back what is only of use while reading.
    pub fn close(&mut self) {
        self.closed = true;
        self.push(Entry::Closed);
        if let Some(evicted) = &mut self.evicted {
            evicted.spare = Vec::new();
            evicted.marks.shrink_to_fit();
        }
        self.events.shrink_to_fit();
    }

    /// A client is there: it gets the events from now on by [`take`](OutputLog::take), and those before by
    /// [`replay`](OutputLog::replay).
    pub fn attach(&mut self) {
        self.taken = Some(self.next_seq() - 1);
        self.untaken_bytes = 0;
        self.evict();
    }

    /// The client is gone: nothing waits for it any more.
    pub fn detach(&mut self) {
        self.taken = None;
        self.untaken_bytes = 0;
        self.evict();
    }

    /// Keeps no output any more but what an attached client has yet to take.
    pub fn keep_nothing(&mut self) {
        self.limits.bytes = 0;
        self.evict();
    }

    /// Gives up the older half of what may be kept, as far as it may be evicted.
    pub fn halve(&mut self) {
        let limits = self.limits;
        self.limits.bytes /= 2;
        self.limits.events /= 2;
        self.evict();
        self.limits = limits;
    }

    /// Whether an attached client has events to take, now: not while the window holds them back.
    pub fn has_untaken(&self) -> bool {
        self.next_to_take().is_some()
    }

    /// Whether an attached client has taken all events there are. Without one: whether none of them has to be
    /// acknowledged.
    pub fn is_told(&self) -> bool {
        match self.taken {
            Some(_) => self.untaken_events() == 0,
            None => !self.is_acknowledged(),
        }
    }

    /// The next event for the attached client, with its number.
    pub fn take(&mut self) -> Option<(u64, Event)> {
        let (seq, entry) = self.next_to_take()?;
        let bytes = entry.bytes();
        let event = match entry {
            Entry::Output(stream, bytes) => Event::Output(*stream, bytes.clone()),
            Entry::Exited => Event::Exited(self.exit?),
            Entry::Closed => Event::Closed,
        };
        self.taken = Some(seq);
        self.untaken_bytes -= bytes;
        self.evict();
        Some((seq, event))
    }

    /// The client has done with all events up to number `seq`, or to the last there is if that is less: it may know some
    /// that it has not taken yet from a replay. Those are still to be taken.
    pub fn acknowledge(&mut self, seq: u64) {
        if !self.is_acknowledged() {
            return;
        }
        let seq = seq.min(self.next_seq() - 1);
        while self.acked < seq {
            let bytes = self.events[(self.acked + 1 - self.base) as usize].bytes();
            self.acked += 1;
            self.unacked_bytes -= bytes;
        }
        self.evict();
    }

    /// Whether there was an event after number `after`, or there will be none.
    pub fn has_news(&self, after: u64) -> bool {
        self.closed || self.next_seq() - 1 > after
    }

    /// The retained output after number `after`, at most `max_bytes` of it but always one chunk if there is any.
    ///
    /// `next_seq` is where to continue: after the last chunk when `max_bytes` was given and there is a chunk, else the
    /// number that the next event will get.
    pub fn replay(&self, after: u64, max_bytes: Option<usize>) -> Replay {
        let first = after.saturating_add(1).max(self.base);
        let mut chunks = Vec::new();
        let mut total = 0;
        for (i, event) in self
            .events
            .iter()
            .enumerate()
            .skip((first - self.base).min(self.events.len() as u64) as usize)
        {
            let Entry::Output(stream, bytes) = event else { continue };
            total += bytes.len();
            if !chunks.is_empty() && max_bytes.is_some_and(|max| total > max) {
                break;
            }
            chunks.push((self.base + i as u64, *stream, bytes.clone()));
        }
        let next_seq = match (chunks.last(), max_bytes) {
            (Some((seq, ..)), Some(_)) => seq + 1,
            _ => self.next_seq(),
        };
        let evicted_up_to = |seq| self.evicted.as_ref().map_or(0, |evicted| evicted.up_to(seq));
        let lost_bytes = evicted_up_to(self.base - 1) - evicted_up_to(after.min(self.base - 1));
        Replay {
            chunks,
            next_seq,
            first_seq: self.base,
            lost_bytes,
            exit: self.exit,
            limit_met: self.limit_met,
            closed: self.closed,
        }
    }

    /// A block of evicted output for the next read, if there is one.
    pub fn spare_block(&mut self) -> Option<Block> {
        self.evicted.as_mut()?.spare.pop()
    }

    fn is_acknowledged(&self) -> bool {
        self.limits.ack_window.is_some()
    }

    /// The next event for the attached client, if the window has room for it. There always is for what has no bytes,
    /// and for one event, however large.
    fn next_to_take(&self) -> Option<(u64, &Entry)> {
        let seq = self.taken? + 1;
        let event = self.events.get((seq - self.base) as usize)?;
        let in_flight = self.unacked_bytes.saturating_sub(self.untaken_bytes);
        let bytes = event.bytes();
        let is_held_back = |window| bytes > 0 && in_flight > 0 && in_flight + bytes > window;
        (!self.limits.ack_window.is_some_and(is_held_back)).then_some((seq, event))
    }

    fn untaken_events(&self) -> u64 {
        self.taken.map_or(0, |taken| self.next_seq() - 1 - taken)
    }

    fn push(&mut self, event: Entry) {
        self.events.push_back(event);
        self.evict();
    }

    fn evict(&mut self) {
        let acked = if self.is_acknowledged() { self.acked } else { u64::MAX };
        let done_with = self.taken.unwrap_or(u64::MAX).min(acked);
        while self.base <= done_with && (self.bytes > self.limits.bytes || self.events.len() > self.limits.events) {
            let Some(event) = self.events.pop_front() else { break };
            if let Entry::Output(_, bytes) = event {
                self.bytes -= bytes.len();
                let evicted = self.evicted.get_or_insert_default();
                evicted.bytes += bytes.len() as u64;
                if self.taken.is_none() {
                    metrics::add(Count::EvictedBytes, bytes.len());
                }
                evicted.mark(self.base);
                if evicted.spare.len() < SPARE_BLOCKS && !self.closed {
                    evicted.spare.extend(bytes.into_block());
                }
            }
            self.base += 1;
        }
    }
}

impl Evicted {
    /// Remembers how many bytes there were up to the event `seq`. When there is no more room, every second mark goes:
    /// those that are left understate what was there before a number between them, so the loss is overstated.
    fn mark(&mut self, seq: u64) {
        if self.marks.len() == MARKS {
            let mut keep = false;
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.marks.push_back((seq, self.bytes));
    }

    /// The bytes with numbers up to `seq`, or somewhat fewer.
    fn up_to(&self, seq: u64) -> u64 {
        match self.marks.partition_point(|(marked, _)| *marked <= seq) {
            0 => 0,
            n => self.marks[n - 1].1,
        }
    }
}
