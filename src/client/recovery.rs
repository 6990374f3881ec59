//! Taking up a session again whose connection was lost.

use super::connection::Connection;
use super::error::{ExecServerError, Result};
use super::events::{ProcessState, Recovery};
use super::exec_client::{Connected, connect_remote};
use super::handshake::initialize;
use super::keeper::Keeper;
use super::lock;
use super::outgoing::Outgoing;
use super::pending::{CallError, Purpose};
use super::process_calls::{decode_read, read_params};
use super::session::Duty;
use crate::protocol::error::SESSION_ATTACHED;
use crossbeam_channel::RecvTimeoutError;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connects again and again until the session is resumed or the time is over, and then lets everyone go on: with what
/// was missed, or with the reason why there is nothing more. `reason` is why the connection was lost.
pub(super) fn recover(keeper: &mut Keeper, reason: &str) {
    let session = keeper.session.clone();
    session.wait_starts();
    let failure = match persist(keeper, is_worth_another_try, &mut resume) {
        Ok(()) => return log::info!("the session is resumed"),
        Err(Stopped::Closed) => return,
        Err(Stopped::Refused(e)) => e.to_string(),
        Err(Stopped::TimedOut(last)) => {
            format!(
                "recovery timed out after {:?} ({last})",
                session.options.recovery_timeout
            )
        }
    };
    if !session.is_closed() {
        session.fail(&format!("{reason}; failed to resume exec-server session: {failure}"));
    }
    keeper.join_reader();
}

/// Why there is no session.
pub(super) enum Stopped {
    /// The client was closed.
    Closed,
    /// It would not go better next time.
    Refused(ExecServerError),
    /// The time is over. Why the last whole try failed.
    TimedOut(ExecServerError),
}

/// Tries until it goes well, each time on a new connection: for `recovery_timeout`, with `recovery_interval` between, as
/// long as the error is worth it. A try is told how much time is left.
pub(super) fn persist(
    keeper: &mut Keeper,
    is_worth_another: fn(&ExecServerError) -> bool,
    attempt: &mut dyn FnMut(&mut Keeper, Duration) -> Result<()>,
) -> std::result::Result<(), Stopped> {
    let session = keeper.session.clone();
    let deadline = Instant::now() + session.options.recovery_timeout;
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut last = None;
    loop {
        keeper.join_reader();
        if session.is_closed() {
            return Err(Stopped::Closed);
        }
        let Err(error) = attempt(keeper, left()) else {
            return Ok(());
        };
        // One that had too little time says nothing.
        if let Some(last) = last.take()
            && left().is_zero()
        {
            return Err(Stopped::TimedOut(last));
        }
        if !is_worth_another(&error) {
            return Err(Stopped::Refused(error));
        }
        if !pause(keeper, session.options.recovery_interval.min(left())) {
            return Err(Stopped::Closed);
        }
        if left().is_zero() {
            return Err(Stopped::TimedOut(error));
        }
        last = Some(error);
    }
}

/// Whether it may go better next time: the server is away, or has not noticed yet that the old connection is.
fn is_worth_another_try(error: &ExecServerError) -> bool {
    match error {
        ExecServerError::Server { .. } => is_attached(error),
        ExecServerError::WebSocketConnect { .. }
        | ExecServerError::WebSocketConnectTimeout { .. }
        | ExecServerError::InitializeTimedOut { .. }
        | ExecServerError::Disconnected(_) => true,
        _ => false,
    }
}

/// Whether the session is in use on another connection, perhaps one that is dead.
pub(super) fn is_attached(error: &ExecServerError) -> bool {
    error.code() == Some(SESSION_ATTACHED)
}

/// Lets some time pass. What is to be done meanwhile is done on the next connection. False if the client was closed.
fn pause(keeper: &Keeper, time: Duration) -> bool {
    let end = Instant::now() + time;
    loop {
        match keeper.duties.recv_deadline(end) {
            Err(RecvTimeoutError::Timeout) => return true,
            Ok(Duty::Terminate(process_id)) => {
                lock(&keeper.session.orphans).push(process_id);
                keeper.session.condemned_done();
            }
            // Of connections that are gone.
            Ok(Duty::Flush(_) | Duty::Recover(_) | Duty::KeepAlive) => {}
            Ok(Duty::Stop) | Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// One try.
fn resume(keeper: &mut Keeper, limit: Duration) -> Result<()> {
    let session = keeper.session.clone();
    let deadline = Instant::now() + limit;
    let id = session
        .id
        .get()
        .ok_or_else(|| ExecServerError::Protocol("missing session id".into()))?;
    let processes = session.started_processes();
    for process in &processes {
        process.begin_recovery();
    }
    let Connected { connection, reader } = connect_remote(&session, limit)?;
    keeper.reader = Some(reader);
    let left = || deadline.saturating_duration_since(Instant::now());
    let limit = session.options.initialize_timeout.min(left());
    let result = initialize(&session, &connection, Some(id), limit)
        .and_then(|()| {
            processes
                .iter()
                .try_for_each(|process| refill(keeper, &connection, process, left()))
        })
        .and_then(|()| end_orphans(keeper, &connection))
        .and_then(|()| {
            // Before anybody writes more.
            let windows = lock(&session.windows).clone();
            windows.iter().try_for_each(|window| window.repeat(&connection))
        });
    match result {
        Ok(()) if session.install(&connection) => {
            for process in &processes {
                process.repeat_ack();
            }
            Ok(())
        }
        Ok(()) => Err(give_up(&connection, CallError::Lost)),
        Err(e) => Err(give_up(&connection, e)),
    }
}

fn give_up(connection: &Connection, error: CallError) -> ExecServerError {
    connection.cut("the session could not be resumed".into());
    match error {
        CallError::Lost => ExecServerError::Disconnected("exec-server transport disconnected".into()),
        CallError::Failed(error) | CallError::TimedOut(error) => error,
    }
}

/// Ends the processes that nobody knows of.
fn end_orphans(keeper: &Keeper, connection: &Arc<Connection>) -> std::result::Result<(), CallError> {
    let next = || lock(&keeper.session.orphans).pop();
    while let Some(process_id) = next() {
        keeper.terminate(connection, &process_id)?;
    }
    Ok(())
}

/// Fetches what a process has done since its last event that arrived. If that is not to be had, the process fails, and
/// only that one.
fn refill(
    keeper: &Keeper,
    connection: &Arc<Connection>,
    process: &Arc<ProcessState>,
    limit: Duration,
) -> std::result::Result<(), CallError> {
    let id = process.process_id();
    let failure = loop {
        let message = Outgoing {
            id: None,
            method: "process/read",
            params: read_params(id, Some(process.last_published()), None, Some(0)),
            bulk: None,
        };
        let limit = limit.min(keeper.session.options.silence_limit);
        let snapshot = match connection.call(Purpose::Regular, Some(limit), message) {
            Err(CallError::Failed(e)) => Err(e),
            // Nobody looks after this connection yet, so it is up to here to find out that it is dead.
            Err(_) => return Err(CallError::Lost),
            Ok(answer) => decode_read(&answer),
        };
        match snapshot {
            Err(e) => break e.to_string(),
            Ok(read) => match process.recover(read) {
                Ok(Recovery::Again) => {}
                Ok(Recovery::Complete) => {
                    if process.is_closed() {
                        keeper.session.unregister(process);
                    }
                    return Ok(());
                }
                Err(e) => break e.to_string(),
            },
        }
    };
    process.fail(format!("failed to recover process {id}: {failure}"));
    keeper.session.unregister(process);
    keeper.terminate(connection, id)
}
