//! What the queue of a process's input must do, told by a model that keeps everything.

use exec_server::process::{StdinQueue, WriteStatus};
use std::collections::{HashSet, VecDeque};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex};

/// How many accepted ids are remembered.
const REMEMBERED: usize = 4096;

/// Writes by their place, and what became of each.
type Replies = Vec<(usize, WriteStatus)>;

struct Checked {
    queue: StdinQueue,
    soft: usize,
    hard: usize,
    /// Since the last comparison.
    replies: Arc<Mutex<Replies>>,
    expected: Replies,
    writes: usize,
    answered: usize,
    /// The remembered ids, the oldest first, and to be looked up.
    ids: VecDeque<String>,
    known: HashSet<String>,
    accepted: Vec<u8>,
    written: Vec<u8>,
    /// Which write waits, and how many bytes must be gone for it to be answered.
    waiting: VecDeque<(usize, usize)>,
    ending: bool,
    closed: bool,
}

/// Carries out what `input` describes, a byte for each limit and then a byte or two for each step, and panics where the
/// queue and the model disagree.
pub(crate) fn check_input(input: &[u8]) {
    let [soft, hard, steps @ ..] = input else {
        return;
    };
    let (soft, hard) = (usize::from(*soft), usize::from(*hard) * 3);
    let mut checked = Checked {
        queue: StdinQueue::new(soft, hard),
        soft,
        hard,
        replies: Arc::default(),
        expected: Vec::new(),
        writes: 0,
        answered: 0,
        ids: VecDeque::new(),
        known: HashSet::new(),
        accepted: Vec::new(),
        written: Vec::new(),
        waiting: VecDeque::new(),
        ending: false,
        closed: false,
    };
    let mut steps = steps.iter();
    while let Some(step) = steps.next() {
        let mut argument = || steps.next().copied().unwrap_or_default();
        match step % 16 {
            0..=5 => {
                let id = format!("new {}", checked.writes);
                checked.push(&id, argument().into(), false);
            }
            6 | 7 => checked.push(&format!("some {}", step / 16), argument().into(), false),
            8 => (0..usize::from(argument()) * 20).for_each(|n| checked.push(&format!("many {n}"), 0, false)),
            9 if step / 16 > 11 => checked.push("last", argument().into(), true),
            10..=12 => {
                // The pipe takes a little and is full, or is interrupted, or broken.
                let mut answers = vec![argument(), argument(), argument()];
                answers.truncate(usize::from(step / 64));
                checked.drain(&answers, step / 16 == 0 && step % 16 == 12);
            }
            13 => checked.drain(&[255; 30], false),
            14 if *step == 14 => checked.close(),
            _ => checked.settle(),
        }
        checked.compare();
    }
    checked.close();
    checked.compare();
    assert_eq!(checked.answered, checked.writes, "a write has no answer, or two");
}

impl Checked {
    fn push(&mut self, id: &str, len: usize, end: bool) {
        let write = self.writes;
        self.writes += 1;
        let queued = self.accepted.len() - self.written.len();
        if self.known.contains(id) {
            self.expected.push((write, WriteStatus::Accepted));
        } else if self.closed || self.ending {
            self.expected.push((write, WriteStatus::StdinClosed));
        } else if queued + len > self.hard {
            self.expected.push((write, WriteStatus::Full));
        } else {
            self.ids.push_back(id.to_owned());
            self.known.insert(id.to_owned());
            if self.ids.len() > REMEMBERED
                && let Some(oldest) = self.ids.pop_front()
            {
                self.known.remove(&oldest);
            }
            self.accepted.resize(self.accepted.len() + len, write as u8);
            self.ending = end;
            self.waiting
                .push_back((write, self.accepted.len().saturating_sub(self.soft)));
        }
        let replies = self.replies.clone();
        let reply = move |status| replies.lock().expect("replies").push((write, status));
        self.queue.push(id, vec![write as u8; len], end, Box::new(reply));
    }

    /// The pipe takes as many bytes at a time as `answers` say, 0 being an interruption; then it is full, or broken.
    fn drain(&mut self, answers: &[u8], breaks: bool) {
        let mut answers = answers.iter();
        let (mut taken, mut broken) = (Vec::new(), false);
        self.queue.drain(|bytes| {
            assert!(!bytes.is_empty(), "an empty write");
            match answers.next() {
                Some(0) => Err(ErrorKind::Interrupted.into()),
                Some(most) => {
                    let n = bytes.len().min(usize::from(*most));
                    taken.extend_from_slice(&bytes[..n]);
                    Ok(n)
                }
                None if breaks => {
                    broken = true;
                    Err(io::Error::from(ErrorKind::BrokenPipe))
                }
                None => Err(ErrorKind::WouldBlock.into()),
            }
        });
        self.written.extend_from_slice(&taken);
        if broken { self.closed() } else { self.settled() }
    }

    fn settle(&mut self) {
        self.queue.settle();
        self.settled();
    }

    fn close(&mut self) {
        self.queue.close();
        self.closed();
    }

    fn settled(&mut self) {
        while let Some((write, due)) = self.waiting.front().copied()
            && due <= self.written.len()
        {
            self.expected.push((write, WriteStatus::Accepted));
            self.waiting.pop_front();
        }
    }

    fn closed(&mut self) {
        self.closed = true;
        self.accepted.truncate(self.written.len());
        for (write, _) in std::mem::take(&mut self.waiting) {
            self.expected.push((write, WriteStatus::StdinClosed));
            if let Some(newest) = self.ids.pop_back() {
                self.known.remove(&newest);
            }
        }
    }

    fn compare(&mut self) {
        let replies = std::mem::take(&mut *self.replies.lock().expect("replies"));
        assert_eq!(replies, self.expected);
        self.answered += replies.len();
        self.expected.clear();
        assert!(self.accepted.starts_with(&self.written), "the order of bytes");
        let queued = self.accepted.len() - self.written.len();
        assert_eq!(self.queue.queued(), queued);
        assert!(queued <= self.hard);
        assert_eq!(self.queue.wants_writing(), !self.closed && (queued > 0 || self.ending));
        assert_eq!(self.queue.is_at_end(), self.ending && queued == 0);
    }
}
