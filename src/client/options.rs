//! How a client connects.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Who the client is, and how patient.
#[derive(Clone, Debug)]
pub struct ExecServerClientConnectOptions {
    /// For the server's log. `exec-server-client` by default.
    pub client_name: String,
    /// How long `initialize` may take. 10 s, as with Codex.
    pub initialize_timeout: Duration,
    /// The session to take up again; `None` for a new one.
    pub resume_session_id: Option<String>,
    /// How long a lost session is tried to be resumed, and one of [`resume_session_id`] that is still in use; zero: not
    /// at all, or once. 25 s, as with Codex's first clients: less than servers keep a session. Only over WebSocket.
    ///
    /// [`resume_session_id`]: ExecServerClientConnectOptions::resume_session_id
    pub recovery_timeout: Duration,
    /// How long to wait between two tries. 100 ms, as with Codex.
    pub recovery_interval: Duration,
    /// A WebSocket server that has been silent for so long is pinged. 15 s: several times within what routers remember.
    pub ping_interval: Duration,
    /// One that has been silent for so long is gone, as is any that takes nothing for so long. 30 s.
    pub silence_limit: Duration,
    /// How long any call may take; `None`: as long as the connection lives. None by default.
    pub call_timeout: Option<Duration>,
    /// The largest message that is received. 768 MiB: room for the largest file of `fs/readFile` in base64.
    pub max_message_bytes: usize,
    /// Bytes of a process's output that wait for their reader when the server cannot wait for acknowledgements; what
    /// comes beyond that is lost. 64 MiB.
    pub max_queued_bytes: usize,
}

impl Default for ExecServerClientConnectOptions {
    fn default() -> ExecServerClientConnectOptions {
        ExecServerClientConnectOptions {
            client_name: "exec-server-client".into(),
            initialize_timeout: Duration::from_secs(10),
            resume_session_id: None,
            recovery_timeout: Duration::from_secs(25),
            recovery_interval: Duration::from_millis(100),
            ping_interval: Duration::from_secs(15),
            silence_limit: Duration::from_secs(30),
            call_timeout: None,
            max_message_bytes: 768 * 1024 * 1024,
            max_queued_bytes: 64 * 1024 * 1024,
        }
    }
}

/// A WebSocket server, and how to connect to it.
#[derive(Clone)]
pub struct RemoteExecServerConnectArgs {
    /// `ws://HOST:PORT`, or, where it listens there, `unix:///PATH` or `vsock://CID:PORT`.
    pub websocket_url: String,
    /// What `Authorization: Bearer` presents; `None` if the server asks for nothing.
    pub auth_token: Option<String>,
    /// How long the connection may take, until it is a WebSocket. 10 s, as with Codex.
    pub connect_timeout: Duration,
    /// All else.
    pub options: ExecServerClientConnectOptions,
}

impl RemoteExecServerConnectArgs {
    /// The server at a URL, without a token and with the defaults.
    pub fn new(websocket_url: impl Into<String>) -> RemoteExecServerConnectArgs {
        RemoteExecServerConnectArgs {
            websocket_url: websocket_url.into(),
            auth_token: None,
            connect_timeout: Duration::from_secs(10),
            options: ExecServerClientConnectOptions::default(),
        }
    }
}

/// Without the token.
impl std::fmt::Debug for RemoteExecServerConnectArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteExecServerConnectArgs")
            .field("websocket_url", &self.websocket_url)
            .field("has_auth_token", &self.auth_token.is_some())
            .field("connect_timeout", &self.connect_timeout)
            .field("options", &self.options)
            .finish()
    }
}

/// A command that is a server on its standard streams, such as `exec-server --listen stdio`, perhaps through `ssh`.
#[derive(Clone, Debug, Default)]
pub struct ExecServerLaunchCommand {
    /// What to run; looked up in `PATH` if it has no slash.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables on top of this program's own.
    pub env: Vec<(OsString, OsString)>,
    /// Where it runs; `None` for this program's own directory.
    pub cwd: Option<PathBuf>,
}
