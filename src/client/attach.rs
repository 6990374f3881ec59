//! Going on with a process that an earlier client of the session has started.

use super::error::{ExecServerError, Result};
use super::events::{ProcessState, Recovery};
use super::exec_client::ExecServerClient;
use super::exec_process::ExecServerProcess;
use super::process_calls::{decode_read, read_params};
use super::session::Session;
use crate::sys::random;
use std::sync::Arc;

impl ExecServerClient {
    /// Takes up a process of a session that was resumed: its events begin with the oldest output that the server
    /// retains, and go on. Returns also how many bytes of older output are gone.
    ///
    /// Input that is written to it has ids that no earlier client has used, as the server takes none twice.
    ///
    /// # Errors
    /// [`ExecServerError::Protocol`] if its events are received already; what the server has against it, such as that
    /// there is no such process; that the connection is lost for good.
    pub fn attach_process(&self, process_id: &str) -> Result<(ExecServerProcess, u64)> {
        let session = self.session();
        // Servers ignore acknowledgements of processes that were started without.
        let (state, events) = session.register(&process_id.into(), session.can("processAck"), true)?;
        state.begin_recovery();
        match take_up(session, &state) {
            Ok(lost_bytes) => {
                session.mark_started(process_id);
                if state.is_closed() {
                    session.unregister(&state);
                }
                let prefix = random::uuid().unwrap_or_else(|_| std::process::id().to_string()) + "-";
                let process = ExecServerProcess::new(self.clone(), state, events, false, prefix.into());
                Ok((process, lost_bytes))
            }
            Err(e) => {
                session.unregister(&state);
                Err(e)
            }
        }
    }
}

fn take_up(session: &Session, state: &Arc<ProcessState>) -> Result<u64> {
    let mut lost_bytes = 0;
    loop {
        let params = read_params(state.process_id(), Some(state.last_published()), None, Some(0));
        let answer = session.call_until_answered("process/read", &params, None)?;
        let read = decode_read(&answer)?;
        lost_bytes += read.lost_bytes;
        let recovery = state.take_up(read);
        match recovery
            .map_err(|e| ExecServerError::Protocol(format!("taking up process {}: {e}", state.process_id())))?
        {
            Recovery::Complete => return Ok(lost_bytes),
            Recovery::Again => {}
        }
    }
}
