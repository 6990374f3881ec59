//! The input of one process: what it is written through, and what waits for that.

use super::handle::Limits;
use super::start::Stdio;
use super::stdin_queue::{Reply, StdinQueue, WriteStatus};
use super::totals::Share;
use crate::metrics::{self, Count};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

pub(super) struct Stdin {
    /// As long as it is open.
    fd: Option<Arc<OwnedFd>>,
    is_terminal: bool,
    /// Of a process that has an input; after its end only where there are writes to be remembered.
    queue: Option<Box<StdinQueue>>,
    /// When there was input last, where it matters.
    written: Option<Instant>,
    /// What the queue has of the total.
    share: Share,
}

impl Stdin {
    /// The input of a process that is yet to be started.
    pub(super) fn new(stdio: Stdio, limits: &Limits) -> Stdin {
        let has_queue = stdio != Stdio::Pipes { stdin: false };
        Stdin {
            fd: None,
            is_terminal: matches!(stdio, Stdio::Terminal(_)),
            queue: has_queue.then(|| Box::new(StdinQueue::new(limits.stdin_soft, limits.stdin_hard))),
            written: None,
            share: Share::of_stdin(limits.totals.as_ref()),
        }
    }

    /// The process runs: it is written through `fd`, if it has an input.
    pub(super) fn open(&mut self, fd: Option<Arc<OwnedFd>>, is_timed: bool) {
        self.fd = fd;
        self.written = is_timed.then(Instant::now);
    }

    /// What it is written through, as long as it is open.
    pub(super) fn fd(&self) -> Option<Arc<OwnedFd>> {
        self.fd.clone()
    }

    /// The same, if something waits to be written.
    pub(super) fn fd_to_write(&self) -> Option<Arc<OwnedFd>> {
        self.fd().filter(|_| self.wants_writing())
    }

    /// When there was input last, where it was asked for.
    pub(super) fn written(&self) -> Option<Instant> {
        self.written
    }

    /// Writes to it; see [`StdinQueue::push`]. `end` closes a pipe after that, and types the end-of-file character on a
    /// terminal. Returns whether something waits to be written that did not before.
    pub(super) fn write(&mut self, id: &str, mut bytes: Vec<u8>, end: bool, reply: Reply) -> bool {
        let has_accepted = self.queue.as_ref().is_some_and(|queue| queue.has_accepted(id));
        let (Some(fd), Some(queue)) = (&self.fd, &mut self.queue) else {
            // After the end of the input, one that is repeated is told again what it was told before.
            reply(if has_accepted {
                WriteStatus::Accepted
            } else {
                WriteStatus::StdinClosed
            });
            return false;
        };
        if end && self.is_terminal {
            let end_of_file = nix::sys::termios::tcgetattr(fd).map_or(4, |t| t.control_chars[nix::libc::VEOF]);
            bytes.push(end_of_file);
        }
        if self.written.is_some() {
            self.written = Some(Instant::now());
        }
        if !has_accepted && !self.share.try_add(bytes.len()) {
            reply(WriteStatus::AllFull);
            return false;
        }
        let was_idle = !queue.wants_writing();
        queue.push(id, bytes, end && !self.is_terminal, reply);
        if was_idle {
            // Straight to the process, without waking the supervisor, as long as it keeps up.
            self.drain();
            return self.wants_writing();
        }
        queue.settle();
        self.count();
        false
    }

    /// Writes what the process takes now, and closes it when the end is reached.
    pub(super) fn drain(&mut self) {
        let (Some(fd), Some(queue)) = (&self.fd, &mut self.queue) else {
            return;
        };
        queue.drain(|bytes| {
            let written = nix::unistd::write(fd, bytes)?;
            metrics::add(Count::StdinBytes, written);
            Ok(written)
        });
        // After an error the command is to see the end, too.
        if queue.is_at_end() || queue.is_closed() {
            self.fd = None;
        }
        self.count();
    }

    /// Closes it: what waits to be written is given up.
    pub(super) fn close(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.close();
        }
        self.queue.take_if(|queue| queue.remembers_nothing());
        self.fd = None;
        self.count();
    }

    fn wants_writing(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.wants_writing())
    }

    fn count(&mut self) {
        self.share.set(self.queue.as_ref().map_or(0, |queue| queue.queued()));
    }
}
