//! Writes to the input of a process that are sent, and not answered yet.

use super::connection::Connection;
use super::error::{ExecServerError, Result};
use super::lock;
use super::outgoing::Outgoing;
use super::pending::{Answer, CallError};
use super::process_calls::{WriteStatus, member, write_params};
use super::session::Session;
use crate::protocol::error::RpcError;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
use tungstenite::Bytes;

/// The most that one write has. A quarter of the window, so that one is on its way while others are taken; and little
/// enough to keep `process/terminate` and others from waiting for long on the wire.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// Bytes that may be unanswered: some round trips' worth on a fast wire, and what is kept to be sent again.
const MAX_BYTES: usize = 256 * 1024;

/// Writes that may be unanswered, however small. Servers remember the ids of many more.
const MAX_WRITES: usize = 64;

/// The writes to one process. They are numbered, and sent in that order.
///
/// The session keeps it while anything is unanswered, so that this is sent again on the next connection even if nobody
/// has the input in hand any more.
pub(super) struct WriteWindow {
    process_id: Arc<str>,
    /// What the ids of its writes begin with.
    prefix: Box<str>,
    session: Weak<Session>,
    /// Held while a write waits for room and is sent.
    turn: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    last_number: u64,
    unanswered: VecDeque<Write>,
    unanswered_bytes: usize,
    /// What the first write that was refused was refused with. Those behind it would leave a gap, so there are no more.
    refusal: Option<Refusal>,
    is_refusal_told: bool,
    waiting: usize,
}

struct Write {
    number: u64,
    len: usize,
    /// What was written, if it can be sent again.
    input: Bytes,
    close: bool,
}

#[derive(Clone)]
enum Refusal {
    Status(WriteStatus),
    Error(RpcError),
    /// The answer cannot be understood.
    Unclear(String),
}

impl WriteWindow {
    pub(super) fn new(session: &Arc<Session>, process_id: Arc<str>, prefix: Box<str>) -> Arc<WriteWindow> {
        Arc::new(WriteWindow {
            process_id,
            prefix,
            session: Arc::downgrade(session),
            turn: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    /// Sends a write, at most [`PIECE_BYTES`], once there is room for it. Returns its number.
    ///
    /// # Errors
    /// What an earlier write was refused with, unless the input is to be closed; that the connection is lost for good, or
    /// that there was no room in time.
    pub(super) fn put(self: &Arc<Self>, session: &Session, input: &[u8], close: bool) -> Result<u64> {
        // Only of this crate's server is it known that it keeps the writes of one process in order.
        let max_writes = if session.can("processCloseStdin") {
            MAX_WRITES
        } else {
            1
        };
        let _turn = lock(&self.turn);
        loop {
            let state = self.wait(session, &|state| {
                let has_room = state.unanswered.len() < max_writes && state.unanswered_bytes + input.len() <= MAX_BYTES;
                has_room || state.refusal.is_some()
            })?;
            if !close {
                self.check(state, false)?;
            } else {
                drop(state);
            }
            let connection = session.connection()?;
            let Some((id, number)) = self.enter(session, &connection, input, close) else {
                session.wait_beyond(&connection);
                continue;
            };
            if connection.send(&self.message(id, number, input, close)).is_err() {
                // It is sent again with the others, if there is a next connection.
                session.wait_beyond(&connection);
                if let Some(error) = session.failure() {
                    return Err(error);
                }
            }
            return Ok(number);
        }
    }

    /// Notes a write that is about to be sent. `None` if the connection has ended.
    fn enter(
        self: &Arc<Self>,
        session: &Session,
        connection: &Connection,
        input: &[u8],
        close: bool,
    ) -> Option<(i64, u64)> {
        let copy = match session.can_recover() {
            true => Bytes::copy_from_slice(input),
            false => Bytes::new(),
        };
        // While it is locked: what is entered on a connection is seen by whoever sends it again on the next.
        let mut state = lock(&self.state);
        let number = state.last_number + 1;
        let id = self.expect(connection, number)?;
        state.last_number = number;
        state.unanswered_bytes += input.len();
        state.unanswered.push_back(Write {
            number,
            len: input.len(),
            input: copy,
            close,
        });
        if state.unanswered.len() == 1 {
            lock(&session.windows).push(self.clone());
        }
        Some((id, number))
    }

    /// Waits until all writes up to one are answered.
    ///
    /// # Errors
    /// What any was refused with; that the connection is lost for good, or that the answers did not come in time.
    pub(super) fn settle(&self, session: &Session, number: u64) -> Result<()> {
        let state = self.wait_answered(session, number)?;
        self.check(state, false)
    }

    /// The same for one that closes the input.
    ///
    /// # Errors
    /// As [`settle`](WriteWindow::settle), but not that it was closed already, unless that is news.
    pub(super) fn settle_close(&self, session: &Session, number: u64) -> Result<()> {
        let state = self.wait_answered(session, number)?;
        self.check(state, true)
    }

    /// The number of the last write.
    pub(super) fn last_number(&self) -> u64 {
        lock(&self.state).last_number
    }

    /// Has those who wait look at the session again.
    pub(super) fn wake(&self) {
        drop(lock(&self.state));
        self.changed.notify_all();
    }

    /// Waits until a time for all to be answered. Whether they are.
    pub(super) fn drain(&self, session: &Session, deadline: Instant) -> bool {
        self.wait_until(session, &|state| state.unanswered.is_empty(), Some(deadline))
            .is_ok_and(|state| state.is_some())
    }

    /// Sends again what is unanswered, on a new connection.
    pub(super) fn repeat(self: &Arc<Self>, connection: &Connection) -> std::result::Result<(), CallError> {
        let writes: Option<Vec<_>> = {
            let state = lock(&self.state);
            let expected = |write: &Write| {
                let id = self.expect(connection, write.number)?;
                Some((id, write.number, write.input.clone(), write.close))
            };
            state.unanswered.iter().map(expected).collect()
        };
        for (id, number, input, close) in writes.ok_or(CallError::Lost)? {
            connection.send(&self.message(id, number, &input, close))?;
        }
        Ok(())
    }

    fn expect(self: &Arc<Self>, connection: &Connection, number: u64) -> Option<i64> {
        let this = self.clone();
        connection
            .pending
            .expect(Box::new(move |outcome| this.answered(number, outcome)))
    }

    fn message<'a>(&self, id: i64, number: u64, input: &'a [u8], close: bool) -> Outgoing<'a> {
        let write_id = format!("{}{number}", self.prefix);
        Outgoing {
            id: Some(id),
            method: "process/write",
            params: write_params(&self.process_id, &write_id, close),
            bulk: Some(("chunk", input)),
        }
    }

    fn answered(&self, number: u64, outcome: std::result::Result<Answer, RpcError>) {
        let mut state = lock(&self.state);
        let at = state.unanswered.iter().position(|write| write.number == number);
        let Some(write) = at.and_then(|at| state.unanswered.remove(at)) else {
            return;
        };
        state.unanswered_bytes -= write.len;
        let refusal = match outcome {
            Err(error) => Some(Refusal::Error(error)),
            Ok(answer) => match member(&answer, "status") {
                Ok(WriteStatus::Accepted) => None,
                // It is closed all the same.
                Ok(WriteStatus::StdinClosed) if write.close => None,
                Ok(status) => Some(Refusal::Status(status)),
                Err(e) => Some(Refusal::Unclear(e.to_string())),
            },
        };
        if state.refusal.is_none() {
            state.refusal = refusal;
        }
        if state.unanswered.is_empty()
            && let Some(session) = self.session.upgrade()
        {
            lock(&session.windows).retain(|window| !std::ptr::eq(&**window, self));
        }
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }

    /// Tells what was refused. Whoever closes the input is not told again that it is closed.
    fn check(&self, mut state: MutexGuard<'_, State>, closes: bool) -> Result<()> {
        let Some(refusal) = state.refusal.clone() else {
            return Ok(());
        };
        let was_told = std::mem::replace(&mut state.is_refusal_told, true);
        drop(state);
        let process = &self.process_id;
        Err(match refusal {
            Refusal::Status(WriteStatus::StdinClosed) if closes && was_told => return Ok(()),
            Refusal::Status(WriteStatus::Accepted) => return Ok(()),
            Refusal::Status(WriteStatus::StdinClosed) => {
                ExecServerError::Protocol(format!("stdin of process {process} is closed"))
            }
            Refusal::Status(WriteStatus::UnknownProcess) => {
                ExecServerError::Protocol(format!("unknown process id {process}"))
            }
            Refusal::Status(WriteStatus::Starting) => {
                ExecServerError::Protocol(format!("process id {process} is starting"))
            }
            Refusal::Error(error) => error.into(),
            Refusal::Unclear(text) => ExecServerError::Json(text),
        })
    }

    fn wait_answered(&self, session: &Session, number: u64) -> Result<MutexGuard<'_, State>> {
        self.wait(session, &|state| {
            state.unanswered.front().is_none_or(|write| write.number > number)
        })
    }

    /// Waits for as long as a call may take.
    fn wait(&self, session: &Session, is_due: &dyn Fn(&State) -> bool) -> Result<MutexGuard<'_, State>> {
        let limit = session.options.call_timeout;
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        match (self.wait_until(session, is_due, deadline)?, limit) {
            (Some(state), _) => Ok(state),
            (None, limit) => Err(ExecServerError::timed_out("process/write", limit.unwrap_or_default())),
        }
    }

    /// `None` when the time is over.
    fn wait_until(
        &self,
        session: &Session,
        is_due: &dyn Fn(&State) -> bool,
        deadline: Option<Instant>,
    ) -> Result<Option<MutexGuard<'_, State>>> {
        let mut state = lock(&self.state);
        while !is_due(&state) {
            if let Some(error) = session.failure() {
                return Err(error);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
            state.waiting += 1;
            state = match left {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    let waited = self.changed.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.waiting -= 1;
        }
        Ok(Some(state))
    }
}
