//! What all handles and threads of a client share.

mod processes;

use super::connection::Connection;
use super::error::{ExecServerError, Result};
use super::events::ProcessState;
use super::lock;
use super::options::ExecServerClientConnectOptions;
use super::outgoing::Outgoing;
use super::pending::{Answer, CallError, Purpose};
use super::remote::Remote;
use super::server_environment::ServerEnvironment;
use super::write_window::WriteWindow;
use crossbeam_channel::Sender;
use nix::sys::eventfd::EventFd;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// How long a client that is closed waits for processes to be ended that were dropped before, and for the answers to what
/// was written.
const LAST_LIMIT: Duration = Duration::from_secs(1);

/// A session with a server, over one connection after the other.
pub(super) struct Session {
    pub(super) options: ExecServerClientConnectOptions,
    /// Where to connect again; `None` if that is not possible.
    pub(super) remote: Option<Remote>,
    pub(super) id: OnceLock<String>,
    pub(super) environment: OnceLock<ServerEnvironment>,
    link: Mutex<Link>,
    link_changed: Condvar,
    processes: Mutex<HashMap<Arc<str>, Registered>>,
    /// Processes that may have been started without an answer, and are to be terminated on the next connection.
    pub(super) orphans: Mutex<Vec<Arc<str>>>,
    /// The processes with writes that are not answered yet.
    pub(super) windows: Mutex<Vec<Arc<WriteWindow>>>,
    /// What the second thread has to do.
    pub(super) duties: Sender<Duty>,
    /// Readable once the client is closed.
    pub(super) closed: EventFd,
    /// Who waits for `fs/missingChanged`, and for which watch.
    watch: Mutex<Option<(u64, Sender<()>)>>,
    names: AtomicU64,
}

/// A process whose events are waited for.
struct Registered {
    state: Arc<ProcessState>,
    /// The server has answered its start; only then does it know it for sure.
    is_started: bool,
}

/// The state of the connection.
struct Link {
    state: LinkState,
    /// The newest connection, in use or not yet.
    newest: Option<Arc<Connection>>,
    /// Starts that wait for their answers.
    starts: usize,
    /// Processes that the second thread is to end.
    condemned: usize,
    is_closed: bool,
}

enum LinkState {
    /// In use.
    Up(Arc<Connection>),
    /// There is none yet, or it is lost and may come back.
    Down,
    /// There will be none, and why.
    Failed(String),
}

impl Link {
    fn failed(&self, reason: &str) -> ExecServerError {
        match self.is_closed {
            true => ExecServerError::Closed,
            false => ExecServerError::Disconnected(reason.to_owned()),
        }
    }
}

/// What the second thread of a client is asked to do.
pub(super) enum Duty {
    /// Look after the connection that is in use from now on.
    KeepAlive,
    /// Write what was posted and found no room.
    Flush(Weak<Connection>),
    /// Resume the session; what it was lost for.
    Recover(String),
    /// End a process that nobody has any use for.
    Terminate(Arc<str>),
    /// Nothing more.
    Stop,
}

impl Session {
    pub(super) fn new(
        options: ExecServerClientConnectOptions,
        remote: Option<Remote>,
        duties: Sender<Duty>,
        closed: EventFd,
    ) -> Session {
        let link = Link {
            state: LinkState::Down,
            newest: None,
            starts: 0,
            condemned: 0,
            is_closed: false,
        };
        Session {
            options,
            remote,
            id: OnceLock::new(),
            environment: OnceLock::new(),
            link: Mutex::new(link),
            link_changed: Condvar::new(),
            processes: Mutex::default(),
            orphans: Mutex::default(),
            windows: Mutex::default(),
            duties,
            closed,
            watch: Mutex::default(),
            names: AtomicU64::new(1),
        }
    }

    /// A name that nothing of this session has yet.
    pub(super) fn new_name(&self, kind: &str) -> String {
        // With the process's own number, so that it is new in a resumed session as well, as far as that is likely.
        let n = self.names.fetch_add(1, Ordering::Relaxed);
        format!("{kind}-{}-{n}", std::process::id())
    }

    /// Whether the server has said that it can do something.
    pub(super) fn can(&self, capability: &str) -> bool {
        let environment = self.environment.get();
        environment.is_some_and(|environment| environment.capabilities.get(capability) == Some(&true))
    }

    // The connection.

    /// The connection in use; waits while it may come back.
    pub(super) fn connection(&self) -> Result<Arc<Connection>> {
        let mut link = lock(&self.link);
        loop {
            match &link.state {
                LinkState::Up(connection) => return Ok(connection.clone()),
                LinkState::Failed(reason) => return Err(link.failed(reason)),
                LinkState::Down => {
                    link = self.link_changed.wait(link).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Why there will be no connection any more.
    pub(super) fn failure(&self) -> Option<ExecServerError> {
        let link = lock(&self.link);
        match &link.state {
            LinkState::Failed(reason) => Some(link.failed(reason)),
            _ => None,
        }
    }

    /// The connection in use, if there is one.
    pub(super) fn connection_now(&self) -> Option<Arc<Connection>> {
        match &lock(&self.link).state {
            LinkState::Up(connection) => Some(connection.clone()),
            _ => None,
        }
    }

    /// A connection that is being made. False if the client is closed.
    pub(super) fn try_out(&self, connection: &Arc<Connection>) -> bool {
        let mut link = lock(&self.link);
        link.newest = Some(connection.clone());
        !link.is_closed
    }

    /// Uses a connection from now on. False if it has ended, or the client is closed.
    pub(super) fn install(&self, connection: &Arc<Connection>) -> bool {
        let mut link = lock(&self.link);
        if link.is_closed || connection.has_ended.load(Ordering::Relaxed) {
            return false;
        }
        link.state = LinkState::Up(connection.clone());
        self.link_changed.notify_all();
        let _ = self.duties.send(Duty::KeepAlive);
        true
    }

    /// The reader of a connection has nothing more to read. Whoever waited for it is told.
    pub(super) fn connection_ended(&self, connection: &Arc<Connection>, reason: &str) {
        let mut link = lock(&self.link);
        connection.has_ended.store(true, Ordering::Relaxed);
        self.link_changed.notify_all();
        let was_in_use = matches!(&link.state, LinkState::Up(current) if Arc::ptr_eq(current, connection));
        let recovers = self.can_recover();
        if was_in_use && recovers {
            link.state = LinkState::Down;
        }
        drop(link);
        if was_in_use && !recovers {
            self.fail(reason);
        }
        connection.pending.close();
        if was_in_use {
            *lock(&self.watch) = None;
        }
        if was_in_use && recovers {
            log::info!("{reason}; it is tried to resume the session");
            // The receiver is only gone when the client is closed.
            let _ = self.duties.send(Duty::Recover(reason.to_owned()));
        }
    }

    /// Whether a lost connection may come back.
    pub(super) fn can_recover(&self) -> bool {
        self.remote.is_some() && !self.options.recovery_timeout.is_zero()
    }

    /// Recovers a session whose first connection was lost as soon as it was opened. False if that is not possible.
    pub(super) fn recover_at_once(&self, connection: &Connection) -> bool {
        let recovers = self.can_recover() && !self.is_closed();
        if recovers {
            let _ = self.duties.send(Duty::Recover(connection.disconnected()));
        }
        recovers
    }

    /// There will be no connection any more.
    pub(super) fn fail(&self, reason: &str) {
        {
            let mut link = lock(&self.link);
            if !matches!(link.state, LinkState::Failed(_)) {
                link.state = LinkState::Failed(reason.to_owned());
            }
            self.link_changed.notify_all();
        }
        let processes = std::mem::take(&mut *lock(&self.processes));
        for process in processes.values() {
            process.state.fail(reason);
        }
        let windows = std::mem::take(&mut *lock(&self.windows));
        for window in windows {
            window.wake();
        }
        *lock(&self.watch) = None;
    }

    /// There will be no connection any more, and what there is of one is cut.
    pub(super) fn abandon(&self, reason: &str) {
        let newest = lock(&self.link).newest.clone();
        self.fail(reason);
        if let Some(connection) = newest {
            connection.cut(reason.to_owned());
        }
    }

    /// Closes the client. Nothing waits any more when this returns.
    pub(super) fn close(&self) {
        let deadline = Instant::now() + LAST_LIMIT;
        let has_condemned = |link: &mut Link| link.condemned > 0 && matches!(link.state, LinkState::Up(_));
        let waited = self
            .link_changed
            .wait_timeout_while(lock(&self.link), LAST_LIMIT, has_condemned);
        drop(waited);
        let windows = lock(&self.windows).clone();
        if !windows.iter().all(|window| window.drain(self, deadline)) {
            log::warn!("the client is closed before all input was taken");
        }
        let newest = {
            let mut link = lock(&self.link);
            if std::mem::replace(&mut link.is_closed, true) {
                return;
            }
            link.newest.take()
        };
        let _ = self.closed.write(1);
        self.fail(&ExecServerError::Closed.to_string());
        if let Some(connection) = newest {
            connection.post(|posted| posted.close = true);
            connection.cut("the client was closed".into());
        }
        let _ = self.duties.send(Duty::Stop);
    }

    /// Waits until the reader of a connection that is broken has ended.
    pub(super) fn wait_ended(&self, connection: &Connection) {
        let mut link = lock(&self.link);
        while !connection.has_ended.load(Ordering::Relaxed) {
            link = self.link_changed.wait(link).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Whether there will be no connection any more.
    pub(super) fn is_over(&self) -> bool {
        matches!(lock(&self.link).state, LinkState::Failed(_))
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.link).is_closed
    }

    // Calls.

    /// Makes a call once.
    pub(super) fn call(
        &self,
        method: &'static str,
        params: Vec<u8>,
        bulk: Option<(&'static str, &[u8])>,
        limit: Option<Duration>,
    ) -> Result<Answer> {
        let connection = self.connection()?;
        self.call_on(&connection, Purpose::Regular, limit, method, params, bulk)
            .map_err(|e| self.explain(&connection, e))
    }

    /// Makes a call about something that belongs to a connection.
    pub(super) fn call_over(
        &self,
        connection: &Arc<Connection>,
        method: &'static str,
        params: Vec<u8>,
        bulk: Option<(&'static str, &[u8])>,
    ) -> Result<Answer> {
        self.call_on(connection, Purpose::Regular, None, method, params, bulk)
            .map_err(|e| self.explain(connection, e))
    }

    /// The same for a call that frees something.
    pub(super) fn clean_up_over(
        &self,
        connection: &Arc<Connection>,
        method: &'static str,
        params: Vec<u8>,
    ) -> Result<Answer> {
        self.call_on(connection, Purpose::CleanUp, None, method, params, None)
            .map_err(|e| self.explain(connection, e))
    }

    /// Makes a call that frees something on the server.
    pub(super) fn clean_up(&self, method: &'static str, params: Vec<u8>) -> Result<Answer> {
        let connection = self.connection()?;
        self.clean_up_over(&connection, method, params)
    }

    /// Makes a call that may be made twice: again on the next connection, if this one is lost.
    pub(super) fn call_until_answered(
        &self,
        method: &'static str,
        params: &[u8],
        bulk: Option<(&'static str, &[u8])>,
    ) -> Result<Answer> {
        loop {
            let connection = self.connection()?;
            match self.call_on(&connection, Purpose::Regular, None, method, params.to_vec(), bulk) {
                Err(CallError::Lost) => self.wait_beyond(&connection),
                answered => return answered.map_err(|e| self.explain(&connection, e)),
            }
        }
    }

    fn call_on(
        &self,
        connection: &Connection,
        purpose: Purpose,
        limit: Option<Duration>,
        method: &'static str,
        params: Vec<u8>,
        bulk: Option<(&'static str, &[u8])>,
    ) -> std::result::Result<Answer, CallError> {
        let message = Outgoing {
            id: None,
            method,
            params,
            bulk,
        };
        connection.call(purpose, limit.or(self.options.call_timeout), message)
    }

    /// Waits until a connection that was found dead is not the one in use any more.
    pub(super) fn wait_beyond(&self, connection: &Arc<Connection>) {
        connection.cut("the connection is broken".into());
        let mut link = lock(&self.link);
        while matches!(&link.state, LinkState::Up(current) if Arc::ptr_eq(current, connection)) {
            link = self.link_changed.wait(link).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The error that a caller gets.
    pub(super) fn explain(&self, connection: &Arc<Connection>, error: CallError) -> ExecServerError {
        match error {
            CallError::Failed(error) | CallError::TimedOut(error) => error,
            CallError::Lost => {
                let link = lock(&self.link);
                match &link.state {
                    LinkState::Failed(reason) => link.failed(reason),
                    _ if link.is_closed => ExecServerError::Closed,
                    _ => ExecServerError::Disconnected(connection.disconnected()),
                }
            }
        }
    }
}
