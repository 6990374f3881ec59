//! Output as `std::io::Read`.

use super::queue::ENTRY_BYTES;
use super::stream::{Acks, ProcessEvents, Unacked};
use super::{ExecOutputStream, ExecProcessEvent, Lagged, RecvError};
use std::collections::VecDeque;
use std::io::{self, BufRead, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tungstenite::Bytes;

/// How much of one stream is put aside while the other is read: twice what a server sends before it wants to be
/// acknowledged, so that it is the server's window that holds the process up. Each chunk counts some 64 bytes more.
const MAX_PARKED_BYTES: usize = 1024 * 1024;

impl ProcessEvents {
    /// Standard output, with what a terminal shows, and standard error, each for itself and each for any thread.
    ///
    /// As with the pipes of a [`std::process::Child`], a program that reads only one of them stops the process once it has
    /// written much to the other: 512 KiB, the window of a server that takes acknowledgements, or else 1 MiB before
    /// reading stops here, and what follows waits within the bound of [`ProcessEvents`]. So read both, or drop one: then
    /// what comes on it is discarded.
    pub fn take_output(self) -> (ProcessReader, ProcessReader) {
        let output = Arc::new(Output::new(self, 2));
        (ProcessReader::new(&output, 0), ProcessReader::new(&output, 1))
    }

    /// Standard output and error, or what a terminal shows, in the order in which the server read it.
    pub fn merge_output(self) -> ProcessReader {
        ProcessReader::new(&Arc::new(Output::new(self, 1)), 0)
    }
}

/// The output of a process, or one stream of it.
///
/// The end of the file is when there will be no more events, not when the process has ended: its descendants may still
/// write. If the process fails, so does reading, after everything that arrived; if output was skipped, reading fails
/// once, with a [`Lagged`], and then goes on behind it.
pub struct ProcessReader {
    output: Arc<Output>,
    side: usize,
    chunk: Bytes,
}

/// The events of a process, shared by those who read its streams: whoever wants more takes the next event, also if it
/// is for the other.
struct Output {
    state: Mutex<State>,
    changed: Condvar,
    acks: Arc<Acks>,
}

struct State {
    /// Not here while somebody waits for the next one.
    events: Option<ProcessEvents>,
    /// One for both streams, or two.
    sides: Vec<Side>,
    /// The number of the last event that was taken.
    pulled: u64,
    unacked: Unacked,
    end: Option<Result<(), String>>,
    /// How many wait for `changed`: mostly nobody, and to wake nobody is a system call, too.
    waiting: usize,
}

#[derive(Default)]
struct Side {
    parked: VecDeque<Part>,
    bytes: usize,
    is_left: bool,
}

enum Part {
    Chunk(u64, Bytes),
    Lost(Lagged),
}

impl ProcessReader {
    fn new(output: &Arc<Output>, side: usize) -> ProcessReader {
        ProcessReader {
            output: output.clone(),
            side,
            chunk: Bytes::new(),
        }
    }
}

impl Read for ProcessReader {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(room)?;
        self.consume(n);
        Ok(n)
    }
}

/// Gives the chunks as they arrived, without a copy.
impl BufRead for ProcessReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() {
            match self.output.next_part(self.side)? {
                Some(Part::Chunk(_, chunk)) => self.chunk = chunk,
                Some(Part::Lost(lagged)) => return Err(io::Error::other(lagged)),
                None => break,
            }
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, n: usize) {
        let _ = self.chunk.split_to(n.min(self.chunk.len()));
    }
}

impl Drop for ProcessReader {
    fn drop(&mut self) {
        self.output.leave(self.side);
    }
}

impl Output {
    fn new(events: ProcessEvents, sides: usize) -> Output {
        let acks = events.acks.clone();
        Output {
            state: Mutex::new(State {
                events: Some(events),
                sides: (0..sides).map(|_| Side::default()).collect(),
                pulled: 0,
                unacked: Unacked::default(),
                end: None,
                waiting: 0,
            }),
            changed: Condvar::new(),
            acks,
        }
    }

    /// What comes next on that side; nothing at the end.
    fn next_part(&self, side: usize) -> io::Result<Option<Part>> {
        let mut state = self.state();
        loop {
            if let Some(part) = state.unpark(side) {
                let due = state.unacked.take_due(&self.acks);
                // The other side may have waited for that.
                self.tell_others(state);
                self.send(due);
                return Ok(Some(part));
            }
            match &state.end {
                Some(Ok(())) => return Ok(None),
                Some(Err(failure)) => return Err(io::Error::other(failure.clone())),
                None => {}
            }
            let events = match state.is_parked_full() {
                true => None,
                false => state.events.take(),
            };
            state = match events {
                Some(events) => self.pull(events, state),
                None => {
                    state.waiting += 1;
                    let mut state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.waiting -= 1;
                    state
                }
            };
        }
    }

    /// Takes the next event and puts it where it belongs. Others may take what is parked meanwhile.
    fn pull<'a>(&'a self, events: ProcessEvents, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let mut received = events.pull(Some(Duration::ZERO));
        if received == Err(RecvError::Empty) {
            let due = state.unacked.take_worthwhile();
            drop(state);
            self.send(due);
            received = events.pull(None);
            state = self.state();
        }
        state.events = Some(events);
        state.park(received);
        if state.waiting > 0 {
            self.changed.notify_all();
        }
        state
    }

    fn leave(&self, side: usize) {
        let mut state = self.state();
        state.sides[side].is_left = true;
        let mut parked = Vec::new();
        while let Some(part) = state.unpark(side) {
            parked.push(part);
        }
        let due = state.unacked.take_due(&self.acks);
        self.tell_others(state);
        drop(parked);
        self.send(due);
    }

    fn tell_others(&self, state: MutexGuard<'_, State>) {
        let is_awaited = state.waiting > 0;
        drop(state);
        if is_awaited {
            self.changed.notify_all();
        }
    }

    fn send(&self, due: Option<u64>) {
        if let Some(seq) = due {
            self.acks.send(seq);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn park(&mut self, received: Result<ExecProcessEvent, RecvError>) {
        match received {
            Ok(ExecProcessEvent::Output(output)) => {
                let side = match output.stream {
                    ExecOutputStream::Stdout | ExecOutputStream::Pty => 0,
                    ExecOutputStream::Stderr => self.sides.len() - 1,
                };
                self.pulled = output.seq;
                let len = output.chunk.len();
                let side = &mut self.sides[side];
                if side.is_left {
                    self.unacked.add(len, self.consumed());
                } else {
                    side.bytes += ENTRY_BYTES + len;
                    side.parked.push_back(Part::Chunk(output.seq, output.chunk));
                }
            }
            Ok(ExecProcessEvent::Exited { seq, .. }) => self.pulled = seq,
            Ok(ExecProcessEvent::Closed { .. }) | Err(RecvError::Ended) => self.end = Some(Ok(())),
            Ok(ExecProcessEvent::Failed(message)) => self.end = Some(Err(message)),
            // Nobody knows whose it was.
            Err(RecvError::Lagged(lagged)) => {
                for side in self.sides.iter_mut().filter(|side| !side.is_left) {
                    side.parked.push_back(Part::Lost(lagged));
                }
            }
            Err(RecvError::Empty) => {}
        }
    }

    fn unpark(&mut self, side: usize) -> Option<Part> {
        let part = self.sides[side].parked.pop_front()?;
        if let Part::Chunk(_, chunk) = &part {
            self.sides[side].bytes -= ENTRY_BYTES + chunk.len();
            self.unacked.add(chunk.len(), self.consumed());
        }
        Some(part)
    }

    fn is_parked_full(&self) -> bool {
        self.sides.iter().any(|side| side.bytes >= MAX_PARKED_BYTES)
    }

    /// Everything up to this was taken, or discarded, on all sides.
    fn consumed(&self) -> u64 {
        let parked = self.sides.iter().filter_map(|side| side.parked.front());
        let before = parked.map(|part| match part {
            Part::Chunk(seq, _) => seq - 1,
            Part::Lost(lagged) => lagged.after_seq(),
        });
        before.min().unwrap_or(self.pulled)
    }
}

#[cfg(test)]
#[path = "io_tests.rs"]
mod tests;
