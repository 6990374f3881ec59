//! Connecting to the server that was asked for.

use super::args::{Common, Place};
use super::failure::Failure;
use exec_server::client::{
    ExecServerClient, ExecServerClientConnectOptions, ExecServerLaunchCommand, RemoteExecServerConnectArgs,
};
use exec_server::host;
use exec_server::process::kill_descendants;
use exec_server::protocol::path_uri;
use exec_server::server::{Server, ServerConfig};
use exec_server::transport::auth::{TOKEN_VARIABLE, read_token_file};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Has `sh` run a command that does not inherit the token: that is for servers that are connected to.
const WITHOUT_TOKEN: &str = "unset EXEC_SERVER_TOKEN; exec sh -c \"$0\"";

/// A connection to a server, and the server if it is in this program.
pub(super) struct Connected {
    pub(super) client: ExecServerClient,
    server: Option<Arc<Server>>,
}

/// Connects to a server, and takes up the session `resume` if that is given.
pub(super) fn connect(common: &Common, resume: Option<&str>) -> Result<Connected, Failure> {
    let options = ExecServerClientConnectOptions {
        client_name: "exec-server".into(),
        resume_session_id: resume.map(str::to_owned),
        ..ExecServerClientConnectOptions::default()
    };
    let (client, server) = match &common.place {
        Place::Here => {
            let (server, end) = host::connect(ServerConfig::default())
                .map_err(|e| Failure::system("failed to start a server in this program", e))?;
            (ExecServerClient::connect_memory(end, options)?, Some(server))
        }
        Place::Spawned(command) => {
            let command = ExecServerLaunchCommand {
                program: "sh".into(),
                args: vec!["-c".into(), WITHOUT_TOKEN.into(), command.clone()],
                ..ExecServerLaunchCommand::default()
            };
            (ExecServerClient::connect_stdio_command(&command, options)?, None)
        }
        Place::Remote(url, token_file) => {
            let mut remote = RemoteExecServerConnectArgs::new(url);
            remote.auth_token = token(token_file.as_deref())?;
            remote.options = options;
            (ExecServerClient::connect_websocket(remote)?, None)
        }
    };
    Ok(Connected { client, server })
}

fn token(file: Option<&Path>) -> Result<Option<String>, Failure> {
    let token = match file {
        Some(file) => {
            let token = read_token_file(file).map_err(|e| Failure::new(e.to_string()))?;
            String::from_utf8(token).map_err(|_| OsString::new())
        }
        None => match std::env::var_os(TOKEN_VARIABLE) {
            None => return Ok(None),
            Some(token) => token.into_string(),
        },
    };
    token.map(Some).map_err(|_| Failure::new("the token is not UTF-8"))
}

impl Connected {
    /// A path on the server; a relative one counts from the directory in which the server was started.
    pub(super) fn path(&self, path: &Path) -> Result<PathBuf, Failure> {
        if path.is_absolute() {
            return Ok(path.to_owned());
        }
        let base = match &self.server {
            Some(_) => {
                std::env::current_dir().map_err(|e| Failure::system("failed to find the working directory", e))?
            }
            None => match self.client.environment_info()?.cwd {
                Some(cwd) => path_uri::parse(&cwd).map_err(|e| Failure::new(e.to_string()))?,
                None => "/".into(),
            },
        };
        // `.` is only there to be left out.
        Ok(base.components().chain(path.components()).collect())
    }

    /// Ends the connection, and what was started in this program.
    pub(super) fn end(&self) {
        match &self.server {
            // All that it has started descends from this program, which is about to end; the server need not look for it.
            Some(_) => kill_descendants(),
            None => self.client.close(),
        }
    }
}
