//! Input that a process has not read yet.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::io;

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteStatus {
    /// It will reach the process, after everything written before, as long as the process reads.
    Accepted,
    /// The process has no input, has closed it, or has ended.
    StdinClosed,
    /// More is queued than is allowed.
    Full,
    /// More is queued of all processes together than is allowed.
    AllFull,
}

/// How many write ids are remembered per process, the newest. The number Codex's exec-server remembers.
const REMEMBERED_IDS: usize = 4096;

/// Small writes are put together up to so many bytes: each by itself would take several times its size.
const SMALL_BYTES: usize = 4096;

/// Called once with the outcome of a write.
pub type Reply = Box<dyn FnOnce(WriteStatus) + Send>;

/// The input of one process: bytes in order, then perhaps the end.
///
/// A write up to `soft_limit` queued bytes is answered at once, one beyond it when enough has been read, so that a
/// client that waits for its answers is slowed down to the pace of the process; one beyond `hard_limit` is refused.
/// Plain data: the owner does the writing, through [`drain`](StdinQueue::drain).
pub struct StdinQueue {
    soft_limit: usize,
    hard_limit: usize,
    pieces: VecDeque<Vec<u8>>,
    /// Bytes of the first piece that are written already.
    written: usize,
    queued: usize,
    ending: bool,
    closed: bool,
    /// Writes without an answer, and how many bytes must have been drained for it.
    waiting: VecDeque<(u64, Reply)>,
    /// Bytes ever drained, and ever queued.
    drained: u64,
    total: u64,
    ids: WriteIds,
}

impl StdinQueue {
    /// An empty queue.
    pub fn new(soft_limit: usize, hard_limit: usize) -> StdinQueue {
        StdinQueue {
            soft_limit,
            hard_limit,
            pieces: VecDeque::new(),
            written: 0,
            queued: 0,
            ending: false,
            closed: false,
            waiting: VecDeque::new(),
            drained: 0,
            total: 0,
            ids: WriteIds::default(),
        }
    }

    /// Takes input. What is refused is answered at once, the rest by the next [`settle`](StdinQueue::settle) or
    /// [`drain`](StdinQueue::drain) for which there is room. An id that was accepted before is accepted again and its
    /// bytes are not written twice; an empty one is no id, so that every such write is a new one. `end` closes the input
    /// after everything queued.
    pub fn push(&mut self, id: &str, bytes: Vec<u8>, end: bool, reply: Reply) {
        if self.ids.contains(id) {
            return reply(WriteStatus::Accepted);
        }
        if self.closed || self.ending {
            return reply(WriteStatus::StdinClosed);
        }
        if self.queued + bytes.len() > self.hard_limit {
            return reply(WriteStatus::Full);
        }
        self.ids.insert(id);
        self.ending = end;
        if !bytes.is_empty() {
            self.queued += bytes.len();
            self.total += bytes.len() as u64;
            match self.pieces.back_mut() {
                Some(last) if last.len() + bytes.len() <= SMALL_BYTES => last.extend_from_slice(&bytes),
                _ => self.pieces.push_back(bytes),
            }
        }
        self.waiting
            .push_back((self.total.saturating_sub(self.soft_limit as u64), reply));
    }

    /// Whether a write of that id was accepted, and is remembered.
    pub fn has_accepted(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Whether it remembers no write that was accepted.
    pub fn remembers_nothing(&self) -> bool {
        self.ids.order.is_empty()
    }

    /// Whether nothing is taken any more: it was closed, or nobody reads.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Bytes that wait to be written.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Whether there is something to do for [`drain`](StdinQueue::drain).
    pub fn wants_writing(&self) -> bool {
        !self.closed && (self.queued > 0 || self.ending)
    }

    /// Whether the end was asked for and everything before it is written.
    pub fn is_at_end(&self) -> bool {
        self.ending && self.queued == 0
    }

    /// Writes what is queued with `write` until it would block, which it says with `WouldBlock`, and answers the writes
    /// for which there is room then. Any other error means that nobody reads any more, and closes the queue.
    pub fn drain(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) {
        while let Some(piece) = self.pieces.front() {
            match write(&piece[self.written..]) {
                // It says neither that it takes something nor that it will.
                Ok(0) => return self.close(),
                Ok(n) => {
                    self.written += n;
                    self.queued -= n;
                    self.drained += n as u64;
                    if self.written == piece.len() {
                        self.pieces.pop_front();
                        self.written = 0;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return self.close(),
            }
        }
        self.settle();
    }

    /// Answers the writes for which there is room.
    pub fn settle(&mut self) {
        while self.waiting.front().is_some_and(|(due, _)| *due <= self.drained) {
            if let Some((_, reply)) = self.waiting.pop_front() {
                reply(WriteStatus::Accepted);
            }
        }
    }

    /// Drops what is queued; writes that wait, and all later ones, are answered that the input is closed. One that is
    /// repeated is still told that it was accepted.
    pub fn close(&mut self) {
        self.closed = true;
        self.pieces = VecDeque::new();
        self.queued = 0;
        self.written = 0;
        for (_, reply) in std::mem::take(&mut self.waiting) {
            // Those that wait came last.
            self.ids.forget_newest();
            reply(WriteStatus::StdinClosed);
        }
        self.ids.shrink();
    }
}

/// The newest ids, by a keyed hash: an id may be of any length, and a client cannot make two of its own collide.
#[derive(Default)]
struct WriteIds {
    hasher: RandomState,
    order: VecDeque<u64>,
    known: HashSet<u64>,
    /// How many had none.
    unnamed: u64,
}

impl WriteIds {
    fn contains(&self, id: &str) -> bool {
        !id.is_empty() && !self.known.is_empty() && self.known.contains(&self.hasher.hash_one(id))
    }

    fn insert(&mut self, id: &str) {
        if self.order.len() == REMEMBERED_IDS
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        let hash = if id.is_empty() {
            // One of its own, because it may have to be forgotten like any other.
            self.unnamed += 1;
            self.hasher.hash_one(self.unnamed)
        } else {
            self.hasher.hash_one(id)
        };
        if self.known.insert(hash) {
            self.order.push_back(hash);
        }
    }

    fn forget_newest(&mut self) {
        if let Some(newest) = self.order.pop_back() {
            self.known.remove(&newest);
        }
    }

    fn shrink(&mut self) {
        self.order.shrink_to_fit();
        self.known.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Replies(Arc<Mutex<Vec<(u32, WriteStatus)>>>);

    impl Replies {
        fn expect(&self, n: u32) -> Reply {
            let replies = self.0.clone();
            Box::new(move |status| replies.lock().unwrap().push((n, status)))
        }

        fn taken(&self) -> Vec<(u32, WriteStatus)> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    use WriteStatus::{Accepted, Full, StdinClosed};

    #[test]
    fn bytes_keep_their_order_through_partial_writes() {
        let (mut queue, replies) = (StdinQueue::new(100, 1000), Replies::default());
        for (i, text) in ["one ", "", "two ", "three"].iter().enumerate() {
            queue.push(
                &i.to_string(),
                text.as_bytes().to_vec(),
                i == 3,
                replies.expect(i as u32),
            );
        }
        let (mut written, mut room) = (Vec::new(), 6);
        let mut pipe = |bytes: &[u8], room: &mut usize| {
            let n = bytes.len().min(*room).min(3);
            *room -= n;
            written.extend_from_slice(&bytes[..n]);
            if n == 0 {
                Err(io::ErrorKind::WouldBlock.into())
            } else {
                Ok(n)
            }
        };
        queue.drain(|b| pipe(b, &mut room));
        assert!(queue.wants_writing() && !queue.is_at_end() && queue.queued() == 7);
        room = 100;
        queue.drain(|b| pipe(b, &mut room));
        assert!(queue.is_at_end());
        assert_eq!(written, b"one two three");
        assert_eq!(
            replies.taken(),
            [(0, Accepted), (1, Accepted), (2, Accepted), (3, Accepted)]
        );
    }

    #[test]
    fn a_write_beyond_the_soft_limit_is_answered_when_there_is_room() {
        let (mut queue, replies) = (StdinQueue::new(10, 40), Replies::default());
        queue.push("a", vec![0; 10], false, replies.expect(0));
        queue.push("b", vec![0; 10], false, replies.expect(1));
        queue.push("c", vec![0; 20], false, replies.expect(2));
        queue.push("d", vec![0; 1], false, replies.expect(3));
        queue.settle();
        assert_eq!(replies.taken(), [(3, Full), (0, Accepted)]);
        let mut room = 10;
        queue.drain(|b| {
            let n = b.len().min(room);
            room -= n;
            if n == 0 {
                Err(io::ErrorKind::WouldBlock.into())
            } else {
                Ok(n)
            }
        });
        assert_eq!(replies.taken(), [(1, Accepted)]);
        queue.drain(|b| Ok(b.len()));
        assert_eq!(replies.taken(), [(2, Accepted)]);
        queue.push("d", vec![0; 1], false, replies.expect(4));
        queue.settle();
        assert_eq!(replies.taken(), [(4, Accepted)]);
    }

    #[test]
    fn a_closed_queue_says_so_to_those_who_wait_and_those_who_come() {
        let (mut queue, replies) = (StdinQueue::new(1, 40), Replies::default());
        queue.push("a", vec![0; 10], false, replies.expect(0));
        queue.drain(|_| Err(io::ErrorKind::BrokenPipe.into()));
        queue.push("b", vec![0; 1], false, replies.expect(1));
        assert_eq!(replies.taken(), [(0, StdinClosed), (1, StdinClosed)]);
        assert!(!queue.wants_writing());
    }

    #[test]
    fn nothing_follows_the_end() {
        let (mut queue, replies) = (StdinQueue::new(10, 40), Replies::default());
        queue.push("a", Vec::new(), true, replies.expect(0));
        queue.push("b", vec![0; 1], false, replies.expect(1));
        queue.push("a", Vec::new(), true, replies.expect(2));
        queue.settle();
        assert_eq!(replies.taken(), [(1, StdinClosed), (2, Accepted), (0, Accepted)]);
    }

    #[test]
    fn an_id_counts_once_among_the_newest() {
        let (mut queue, replies) = (StdinQueue::new(1 << 20, 1 << 20), Replies::default());
        for _ in 0..3 {
            queue.push("same", vec![1], false, replies.expect(0));
        }
        assert_eq!(queue.queued(), 1);
        for i in 0..REMEMBERED_IDS {
            queue.push(&i.to_string(), Vec::new(), false, replies.expect(0));
        }
        queue.push("1", vec![1], false, replies.expect(0));
        assert_eq!(queue.queued(), 1);
        queue.push("same", vec![1], false, replies.expect(0));
        assert_eq!(queue.queued(), 2);
    }

    #[test]
    fn small_writes_take_little_more_than_their_bytes() {
        let (mut queue, replies) = (StdinQueue::new(1 << 20, 1 << 20), Replies::default());
        for i in 0..100_000_u32 {
            queue.push("", vec![i as u8], false, replies.expect(i));
        }
        assert!(queue.pieces.len() <= 2 * 100_000 / SMALL_BYTES);
        let mut written = Vec::new();
        queue.drain(|bytes| {
            written.extend_from_slice(&bytes[..bytes.len().min(1000)]);
            Ok(bytes.len().min(1000))
        });
        assert!(written.iter().copied().eq((0..100_000_u32).map(|i| i as u8)));
    }

    #[test]
    fn writes_without_an_id_are_all_different() {
        let (mut queue, replies) = (StdinQueue::new(1, 40), Replies::default());
        for n in 0..3 {
            queue.push("", vec![0; 10], false, replies.expect(n));
        }
        assert_eq!(queue.queued(), 30);
        queue.close();
        assert_eq!(replies.taken(), [(0, StdinClosed), (1, StdinClosed), (2, StdinClosed)]);
        assert!(!queue.has_accepted(""));
    }
}
