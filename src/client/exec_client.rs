//! The client itself: connecting, and what is left when it is dropped.

use super::connection::{Connection, Wire};
use super::error::{ExecServerError, Result};
use super::exec_process::ExecServerProcess;
use super::handshake::initialize;
use super::keeper::Keeper;
use super::lock;
use super::memory_wire::MemoryWire;
use super::options::{ExecServerClientConnectOptions, ExecServerLaunchCommand, RemoteExecServerConnectArgs};
use super::pending::CallError;
use super::process_calls::{decode, member};
use super::reader::{self, Entrance};
use super::recovery::{Stopped, is_attached, persist};
use super::remote::Remote;
use super::server_command::ServerCommand;
use super::server_environment::ServerEnvironment;
use super::session::{Duty, Session};
use super::start_options::StartOptions;
use super::stream_wire::{Exit, StreamWire};
use crate::sys::thread::Thread;
use crate::transport::memory::ClientEnd;
use crossbeam_channel::unbounded;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

/// How long `environment/info` may take, as with Codex.
const INFO_LIMIT: Duration = Duration::from_secs(30);

/// How long `environment/status` may take, as with Codex.
const STATUS_LIMIT: Duration = Duration::from_secs(10);

/// A client of a server, with a session of its own. Clones are the same client.
///
/// It may be used by any number of threads. No call hangs once the connection is gone: over WebSocket it is first tried
/// to resume the session, and calls wait for that; then, and with the other transports at once, they fail, and so do
/// the processes.
///
/// When the last clone is dropped, and all handles of processes and files, the connection is closed. A command that
/// is the server is ended then, for which it has two seconds; a server reached by WebSocket keeps the session for a while.
#[derive(Clone)]
pub struct ExecServerClient {
    handle: Arc<Handle>,
}

/// What ends the client when it is dropped.
struct Handle {
    session: Arc<Session>,
    keeper: Mutex<Option<Thread>>,
}

/// A connection and the thread that reads from it.
pub(super) struct Connected {
    pub(super) connection: Arc<Connection>,
    pub(super) reader: Thread,
}

impl ExecServerClient {
    /// Connects to a WebSocket server, over TCP, by a socket file or over vsock, and opens a session, or resumes one. One that is still in use is asked for again,
    /// every [`recovery_interval`](ExecServerClientConnectOptions::recovery_interval) until
    /// [`recovery_timeout`](ExecServerClientConnectOptions::recovery_timeout): its server may not have noticed yet that
    /// the client before is gone.
    ///
    /// # Errors
    /// [`ExecServerError::WebSocketConnect`] or [`ExecServerError::WebSocketConnectTimeout`] with the URL;
    /// [`ExecServerError::InitializeTimedOut`]; [`ExecServerError::Server`] if there is no such session (-32600), or
    /// it is in use all the time (-32010).
    pub fn connect_websocket(args: RemoteExecServerConnectArgs) -> Result<ExecServerClient> {
        let remote = Remote::find(&args)?;
        let mut keeper = new_keeper(args.options, Some(remote))?;
        let mut is_first = true;
        let opened = persist(&mut keeper, is_attached, &mut |keeper, left| {
            // The first try has its own limits, also where there shall be no second.
            let limit = if std::mem::take(&mut is_first) {
                Duration::MAX
            } else {
                left
            };
            let connected = connect_remote(&keeper.session, limit)?;
            open(keeper, connected, limit)
        });
        opened.map_err(|stopped| match stopped {
            Stopped::Closed => ExecServerError::Closed,
            Stopped::Refused(e) | Stopped::TimedOut(e) => e,
        })?;
        ExecServerClient::keep(keeper)
    }

    /// Runs a command that is a server on its standard streams, and opens a session. What it writes to standard error
    /// goes to the log.
    ///
    /// # Errors
    /// [`ExecServerError::Spawn`], or as [`connect_websocket`](ExecServerClient::connect_websocket).
    pub fn connect_stdio_command(
        command: &ExecServerLaunchCommand,
        options: ExecServerClientConnectOptions,
    ) -> Result<ExecServerClient> {
        let mut keeper = new_keeper(options, None)?;
        let (command, exit) = ServerCommand::start(command).map_err(ExecServerError::Spawn)?;
        let entrance = Entrance::Command(command);
        let label = "JSON-RPC message from exec-server stdio";
        let connected = connect_stream(&keeper.session, exit, label, entrance)?;
        open(&mut keeper, connected, Duration::MAX)?;
        ExecServerClient::keep(keeper)
    }

    /// Runs a server on its standard streams, with the default options: see
    /// [`connect_stdio_command`](ExecServerClient::connect_stdio_command).
    ///
    /// # Errors
    /// As there.
    pub fn spawn(command: &ExecServerLaunchCommand) -> Result<ExecServerClient> {
        ExecServerClient::connect_stdio_command(command, ExecServerClientConnectOptions::default())
    }

    /// Connects to a server within this program, and opens a session.
    ///
    /// # Errors
    /// [`ExecServerError::Disconnected`] if the server is gone, [`ExecServerError::InitializeTimedOut`] if nobody serves
    /// the other end.
    pub fn connect_memory(end: ClientEnd, options: ExecServerClientConnectOptions) -> Result<ExecServerClient> {
        let mut keeper = new_keeper(options, None)?;
        let limit = keeper.session.options.silence_limit;
        let connected = connect(
            &keeper.session,
            |on_blocked| Wire::Memory(MemoryWire::new(end.outgoing, limit, on_blocked)),
            "JSON-RPC message from exec-server in process".into(),
            Entrance::Memory(end.incoming),
        )?;
        open(&mut keeper, connected, Duration::MAX)?;
        ExecServerClient::keep(keeper)
    }

    /// Has the session looked after by a thread, until the client is closed.
    fn keep(keeper: Keeper) -> Result<ExecServerClient> {
        let session = keeper.session.clone();
        let keeper = reader::spawn("client keeper", move || keeper.run()).map_err(|e| {
            session.close();
            system("start a thread", e)
        })?;
        let handle = Handle {
            session,
            keeper: Mutex::new(Some(keeper)),
        };
        Ok(ExecServerClient {
            handle: Arc::new(handle),
        })
    }

    pub(super) fn session(&self) -> &Arc<Session> {
        &self.handle.session
    }

    /// The session's name, with which it can be resumed.
    pub fn session_id(&self) -> &str {
        self.session().id.get().map_or("", String::as_str)
    }

    /// Whether the server has said that it can do something, such as `processList`.
    pub fn has_capability(&self, name: &str) -> bool {
        self.session().can(name)
    }

    /// Starts a process whose events are received from the first on.
    ///
    /// # Errors
    /// [`ExecServerError::Protocol`] if a process of that name is waited for already, what the server has against it, or
    /// that the connection is lost. If it was lost before the answer came, the process may run; it is terminated once
    /// the session is resumed.
    pub fn start_process(&self, start: &StartOptions) -> Result<ExecServerProcess> {
        let session = self.session();
        let id = start.process_id.clone();
        let id: Arc<str> = id.unwrap_or_else(|| session.new_name("process")).into();
        let acknowledges = session.can("processAck");
        let params = start.params(&id, acknowledges)?;
        let (state, events) = session.register(&id, acknowledges, start.replay)?;
        session.start(&state, params)?;
        Ok(ExecServerProcess::new(
            self.clone(),
            state,
            events,
            start.kill_on_drop,
            Box::default(),
        ))
    }

    /// `environment/info`: where the commands run. What `initialize` has said, if it has.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn environment_info(&self) -> Result<ServerEnvironment> {
        if let Some(environment) = self.session().environment.get() {
            return Ok(environment.clone());
        }
        let answer = self
            .session()
            .call("environment/info", Vec::new(), None, Some(INFO_LIMIT))?;
        let environment: ServerEnvironment = decode(&answer)?;
        Ok(self.session().environment.get_or_init(|| environment).clone())
    }

    /// `environment/status`: `ready`.
    ///
    /// # Errors
    /// That the connection is lost, or is being recovered.
    pub fn environment_status(&self) -> Result<String> {
        if self.session().connection_now().is_none() && !self.session().is_over() {
            return Err(ExecServerError::Disconnected(
                "exec-server environment is recovering".into(),
            ));
        }
        let answer = self
            .session()
            .call("environment/status", Vec::new(), None, Some(STATUS_LIMIT))?;
        member(&answer, "status")
    }

    /// `environmentConfig/read`: the server's answer as JSON text, which means something to Codex only.
    ///
    /// # Errors
    /// What the server has against it, or that the connection is lost.
    pub fn environment_config(
        &self,
        params: &crate::protocol::environment::EnvironmentConfigParams,
    ) -> Result<Vec<u8>> {
        let params = serde_json::to_vec(params)?;
        let answer = self.session().call("environmentConfig/read", params, None, None)?;
        Ok(answer.json)
    }

    /// Cuts the connection, as a network may at any time: the session is then resumed over a new one, if it can be.
    pub fn drop_connection(&self) {
        if let Some(connection) = self.session().connection_now() {
            connection.cut("the connection was dropped".into());
        }
    }

    /// Ends the client now, for all clones: calls that wait fail with [`ExecServerError::Closed`], processes with the same
    /// words. What was written to processes before is waited for, for up to a second. Returns when its threads have ended, and
    /// the command that is the server.
    pub fn close(&self) {
        self.handle.close();
    }
}

impl std::fmt::Debug for ExecServerClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecServerClient")
            .field("session_id", &self.session_id())
            .finish()
    }
}

impl Handle {
    fn close(&self) {
        self.session.close();
        let keeper = lock(&self.keeper).take();
        if keeper.is_some_and(|keeper| keeper.join().is_err()) {
            log::error!("a client's keeper has panicked");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.close();
    }
}

fn system(what: &str, error: io::Error) -> ExecServerError {
    ExecServerError::Spawn(io::Error::new(
        error.kind(),
        format!("failed to {what} for a client: {error}"),
    ))
}

/// What looks after a session that has no connection yet.
fn new_keeper(options: ExecServerClientConnectOptions, remote: Option<Remote>) -> Result<Keeper> {
    let closed = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map_err(|e| system("make an event", e.into()))?;
    let (sender, duties) = unbounded();
    Ok(Keeper {
        session: Arc::new(Session::new(options, remote, sender, closed)),
        duties,
        reader: None,
    })
}

/// Opens the session on its first connection, or resumes an earlier client's.
fn open(keeper: &mut Keeper, connected: Connected, limit: Duration) -> Result<()> {
    let Connected { connection, reader } = connected;
    keeper.reader = Some(reader);
    let session = &keeper.session;
    let resume = session.options.resume_session_id.as_deref();
    let limit = session.options.initialize_timeout.min(limit);
    let error = match initialize(session, &connection, resume, limit) {
        Ok(()) if session.install(&connection) || session.recover_at_once(&connection) => return Ok(()),
        Ok(()) => CallError::Lost,
        Err(CallError::Lost) => {
            // Its reader says why, once it has ended.
            session.wait_ended(&connection);
            CallError::Lost
        }
        Err(e) => e,
    };
    let error = session.explain(&connection, error);
    connection.post(|posted| posted.close = true);
    connection.cut("the session could not be opened".into());
    keeper.join_reader();
    Err(error)
}

/// Connects to the session's WebSocket server.
pub(super) fn connect_remote(session: &Arc<Session>, limit: Duration) -> Result<Connected> {
    let remote = session.remote.as_ref().ok_or(ExecServerError::Closed)?;
    let (stream, early) = remote.connect(limit, session.closed.as_fd())?;
    let to_write = stream.try_clone().map_err(|source| ExecServerError::WebSocketConnect {
        url: remote.url().to_owned(),
        source,
    })?;
    let label = format!("websocket JSON-RPC message from {}", remote.url());
    connect_stream(
        session,
        Exit::Socket(to_write),
        &label,
        Entrance::WebSocket(stream, early),
    )
}

fn connect_stream(session: &Arc<Session>, exit: Exit, label: &str, entrance: Entrance) -> Result<Connected> {
    let limit = session.options.silence_limit;
    connect(
        session,
        |on_blocked| Wire::Stream(StreamWire::new(exit, limit, on_blocked).into()),
        label.to_owned(),
        entrance,
    )
}

fn connect(
    session: &Arc<Session>,
    wire: impl FnOnce(Box<dyn Fn() + Send + Sync>) -> Wire,
    label: String,
    entrance: Entrance,
) -> Result<Connected> {
    let duties = session.duties.clone();
    let connection = Arc::new_cyclic(|connection: &Weak<Connection>| {
        let connection = connection.clone();
        let on_blocked = Box::new(move || drop(duties.send(Duty::Flush(connection.clone()))));
        Connection::new(wire(on_blocked), label)
    });
    if !session.try_out(&connection) {
        return Err(ExecServerError::Closed);
    }
    let reader =
        reader::start(session.clone(), connection.clone(), entrance).map_err(|e| system("start a thread", e))?;
    Ok(Connected { connection, reader })
}
