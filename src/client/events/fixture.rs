//! Short names for events in tests.

use super::{AckSink, ExecOutputStream, ExecProcessEvent, ProcessOutputChunk};
use std::sync::{Arc, Mutex};
use tungstenite::Bytes;

pub(super) fn chunk(seq: u64, stream: ExecOutputStream, text: &str) -> ProcessOutputChunk {
    let chunk = Bytes::copy_from_slice(text.as_bytes());
    ProcessOutputChunk { seq, stream, chunk }
}

pub(super) fn output(seq: u64, text: &str) -> ExecProcessEvent {
    ExecProcessEvent::Output(chunk(seq, ExecOutputStream::Stdout, text))
}

pub(super) fn error_output(seq: u64, text: &str) -> ExecProcessEvent {
    ExecProcessEvent::Output(chunk(seq, ExecOutputStream::Stderr, text))
}

pub(super) fn zeros(seq: u64, len: usize) -> ExecProcessEvent {
    let chunk = Bytes::from(vec![0; len]);
    let stream = ExecOutputStream::Stdout;
    ExecProcessEvent::Output(ProcessOutputChunk { seq, stream, chunk })
}

pub(super) fn exited(seq: u64) -> ExecProcessEvent {
    ExecProcessEvent::Exited {
        seq,
        exit_code: 3,
        signal: None,
        sandbox_denied: Some(false),
        ended_by: None,
    }
}

pub(super) fn closed(seq: u64) -> ExecProcessEvent {
    ExecProcessEvent::Closed { seq }
}

/// No acknowledgements.
pub(super) const NONE: [u64; 0] = [];

/// Remembers what was acknowledged.
#[derive(Default)]
pub(super) struct Acked(Mutex<Vec<u64>>);

impl Acked {
    pub(super) fn new() -> Arc<Acked> {
        Arc::default()
    }

    /// What was acknowledged since the last call.
    pub(super) fn take(&self) -> Vec<u64> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl AckSink for Acked {
    fn ack(&self, process_id: &str, seq: u64) {
        assert_eq!(process_id, "p");
        self.0.lock().unwrap().push(seq);
    }
}
