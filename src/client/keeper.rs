//! The client's second thread: what has to be done at a certain time, and what nobody else may wait for.

use super::connection::{Connection, Wire};
use super::json_object::JsonObject;
use super::lock;
use super::outgoing::Outgoing;
use super::pending::{CallError, Purpose};
use super::recovery::recover;
use super::session::{Duty, Session};
use crate::sys::defect;
use crate::sys::thread::Thread;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// How long the answer to a background call is waited for; other duties wait meanwhile.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(5);

/// What the thread has in hand.
pub(super) struct Keeper {
    pub(super) session: Arc<Session>,
    pub(super) duties: Receiver<Duty>,
    /// The thread of the newest connection.
    pub(super) reader: Option<Thread>,
}

impl Keeper {
    /// Works until the client is closed. Then its reader has ended as well. A defect ends the session: nobody would resume
    /// it any more.
    pub(super) fn run(mut self) {
        if catch_unwind(AssertUnwindSafe(|| self.work())).is_err() {
            let reason = "the client has failed in an unforeseen way";
            log::error!("{reason}; its session is given up");
            self.session.abandon(reason);
        }
        self.join_reader();
    }

    fn work(&mut self) {
        // Also looked at here, as `Duty::Stop` may have been met in a recovery.
        while !self.session.is_closed() {
            let connection = self.session.connection_now();
            let sleep = connection.as_ref().and_then(|connection| self.keep_alive(connection));
            drop(connection);
            let duty = match sleep {
                Some(sleep) => self.duties.recv_timeout(sleep),
                None => self.duties.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            defect::point("client keeper", || self.session.id.get().map_or("", String::as_str));
            match duty {
                Ok(Duty::Flush(connection)) => {
                    if let Some(connection) = connection.upgrade() {
                        connection.flush();
                    }
                }
                Ok(Duty::Recover(reason)) => recover(self, &reason),
                Ok(Duty::Terminate(process_id)) => {
                    match self.session.connection_now() {
                        Some(connection) => drop(self.terminate(&connection, &process_id)),
                        None => lock(&self.session.orphans).push(process_id),
                    }
                    self.session.condemned_done();
                }
                Ok(Duty::KeepAlive) | Err(RecvTimeoutError::Timeout) => {}
                Ok(Duty::Stop) | Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    }

    /// Waits for the end of the newest connection's thread.
    pub(super) fn join_reader(&mut self) {
        if let Some(reader) = self.reader.take()
            && reader.join().is_err()
        {
            log::error!("a client's reader has panicked");
        }
    }

    /// Ends a process that nobody has any use for; if the connection does not let it, on the next one.
    pub(super) fn terminate(&self, connection: &Arc<Connection>, process_id: &Arc<str>) -> Result<(), CallError> {
        let message = Outgoing {
            id: None,
            method: "process/terminate",
            params: JsonObject::new().text("processId", process_id).done(),
            bulk: None,
        };
        match connection.call(Purpose::CleanUp, Some(BACKGROUND_LIMIT), message) {
            Ok(_) => Ok(()),
            Err(CallError::Failed(e)) => {
                log::warn!("failed to terminate process {process_id}: {e}");
                Ok(())
            }
            Err(e) => {
                lock(&self.session.orphans).push(process_id.clone());
                Err(e)
            }
        }
    }

    /// Pings a server that is silent, and cuts it off when it stays so. Returns when to look again.
    fn keep_alive(&self, connection: &Arc<Connection>) -> Option<Duration> {
        if !matches!(&connection.wire, Wire::Stream(wire) if wire.is_websocket()) {
            return None;
        }
        let options = &self.session.options;
        let silence = connection.silence();
        if silence >= options.silence_limit {
            connection.cut(format!("nothing was heard for {:?}", options.silence_limit));
            return None;
        }
        let left = options.silence_limit - silence;
        if silence >= options.ping_interval {
            connection.post(|posted| posted.ping = true);
            return Some(left.min(options.ping_interval));
        }
        Some(left.min(options.ping_interval - silence))
    }
}
