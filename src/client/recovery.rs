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
    let options = &session.options;
    let deadline = Instant::now() + options.recovery_timeout;
    session.wait_starts();
    let mut last = None;
    let failure = loop {
        keeper.join_reader();
        if session.is_closed() {
            return;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let tried = last.map_or_else(String::new, |e: ExecServerError| format!(" ({e})"));
            break format!("recovery timed out after {:?}{tried}", options.recovery_timeout);
        }
        match resume(keeper, left) {
            Ok(()) => return log::info!("the session is resumed"),
            Err(e) if is_worth_another_try(&e) => last = Some(e),
            Err(e) => break e.to_string(),
        }
        if !pause(keeper, options.recovery_interval.min(left)) {
            return;
        }
    };
    if !session.is_closed() {
        session.fail(&format!("{reason}; failed to resume exec-server session: {failure}"));
    }
    keeper.join_reader();
}

/// Whether it may go better next time: the server is away, or has not noticed yet that the old connection is.
fn is_worth_another_try(error: &ExecServerError) -> bool {
    match error {
        ExecServerError::Server { code, .. } => *code == SESSION_ATTACHED,
        ExecServerError::WebSocketConnect { .. }
        | ExecServerError::WebSocketConnectTimeout { .. }
        | ExecServerError::InitializeTimedOut { .. }
        | ExecServerError::Disconnected(_) => true,
        _ => false,
    }
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
        .and_then(|()| end_orphans(keeper, &connection));
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
