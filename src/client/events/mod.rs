//! What a client knows of one process: its events in order, each once, and those who read them.
//!
//! ```text
//! notifications ──► EventOrder ──► EventLog ──► EventSubscriber …   bounded, a slow one is told what it missed
//! process/read  ──►             └► ProcessEvents                    lossless, acknowledged as it is consumed
//! ```
//!
//! Whoever reads the wire calls [`ProcessState::on_event`] and is never held up by those who read the events. Plain
//! data, locks and condition variables: no sockets, no JSON, no threads.

mod deadline;
mod event_log;
#[cfg(test)]
mod fixture;
mod io;
mod order;
mod queue;
mod recover;
mod state;
mod stream;
mod wake;

pub use event_log::{EventLog, EventSubscriber};
pub use io::ProcessReader;
pub use order::{EventOrder, ReorderError};
pub use queue::{Lagged, RecvError};
pub use recover::{ReadResponse, RecoverError, Recovery};
pub use state::{ProcessExit, ProcessOptions, ProcessState, Progress, WaitError};
pub use stream::{AckSink, ProcessEvents};
pub use wake::Wake;

use tungstenite::Bytes;

/// Where output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecOutputStream {
    /// Standard output on a pipe.
    Stdout,
    /// Standard error on a pipe.
    Stderr,
    /// The terminal.
    Pty,
}

/// Some output of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessOutputChunk {
    /// The number of the event.
    pub seq: u64,
    /// Where it came from.
    pub stream: ExecOutputStream,
    /// What was written; may end within a character.
    pub chunk: Bytes,
}

/// One event of a process. All but `Failed` share one count from 1, without gaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecProcessEvent {
    /// It wrote something.
    Output(ProcessOutputChunk),
    /// It ended; output of its descendants may follow.
    Exited {
        /// The number of the event.
        seq: u64,
        /// The code it gave, or 128 + n after signal n.
        exit_code: i32,
        /// The name of the signal that ended it, where the server tells.
        signal: Option<String>,
        /// Whether its sandbox is thought to have stopped it; `None` from servers that do not tell.
        sandbox_denied: Option<bool>,
        /// Which limit it was ended for, where the server tells: `timeout`, `idleTimeout` or `outputLimit`.
        ended_by: Option<String>,
    },
    /// There will be no more events.
    Closed {
        /// The number of the event.
        seq: u64,
    },
    /// There will be no more events, because they cannot be had any more. Why.
    Failed(String),
}

impl ExecProcessEvent {
    /// The number of the event; a failure has none.
    pub fn seq(&self) -> Option<u64> {
        match self {
            ExecProcessEvent::Output(output) => Some(output.seq),
            ExecProcessEvent::Exited { seq, .. } | ExecProcessEvent::Closed { seq } => Some(*seq),
            ExecProcessEvent::Failed(_) => None,
        }
    }

    /// Bytes of output in it.
    pub fn output_len(&self) -> usize {
        match self {
            ExecProcessEvent::Output(output) => output.chunk.len(),
            _ => 0,
        }
    }

    /// Whether no event follows.
    pub fn is_last(&self) -> bool {
        matches!(self, ExecProcessEvent::Closed { .. } | ExecProcessEvent::Failed(_))
    }
}
