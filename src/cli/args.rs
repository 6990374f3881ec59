//! The arguments of `exec-server`, and those of the server.
//!
//! Flags that `codex exec-server` has as well mean the same here, and what is wrong with them
//! is said in the same words.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use exec_server::server::ServerConfig;
use log::LevelFilter;

use super::auth::{AuthArgs, GivenAuth};
#[cfg(feature = "client")]
use super::client::{CLIENT_COMMANDS, ClientCommand, parse_client};
use super::flags::{Args, Flag, Page, UsageError, read_args, wrong};
use super::help::{SANDBOX, SERVE};
use super::limits::GivenLimits;
use super::log_output::LogFormat;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Command {
    /// Print this page.
    Help(&'static str),
    /// Print the version.
    Version,
    /// Run the server.
    Serve(ServeArgs),
    /// Tell whether sandboxes can be enforced.
    CheckSandbox,
    /// Use a server.
    #[cfg(feature = "client")]
    Client(ClientCommand),
}

/// How to serve.
#[derive(Debug)]
pub(crate) struct ServeArgs {
    /// Where clients connect; a free port of the loopback address by default.
    pub(crate) listen: Listen,
    /// What they must present.
    pub(crate) auth: AuthArgs,
    /// The limits.
    pub(crate) config: Box<ServerConfig>,
    /// Whether there is `/metrics`.
    pub(crate) metrics: bool,
    /// How long commands may go on after SIGTERM; not at all by default.
    pub(crate) drain_timeout: Duration,
    /// What is logged; warnings and errors by default.
    pub(crate) log_level: LevelFilter,
    /// How; as text by default.
    pub(crate) log_format: LogFormat,
}

/// Where clients connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listen {
    /// One client, on standard input and output.
    Stdio,
    /// Any number of clients over WebSocket; port 0 stands for a free one.
    WebSocket(SocketAddr),
}

/// Parses the arguments, without the program's own name.
pub(crate) fn parse(args: &mut dyn Iterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut args = args.peekable();
    #[cfg(feature = "client")]
    if let Some(command) = args.next_if(|command| CLIENT_COMMANDS.iter().any(|name| command == name)) {
        return parse_client(&command.to_string_lossy(), &mut args);
    }
    if args.next_if(|command| command == "sandbox").is_some() {
        return parse_sandbox(&mut args);
    }
    args.next_if(|command| command == "serve");
    parse_serve(&mut args)
}

fn parse_sandbox(args: &mut Args<'_>) -> Result<Command, UsageError> {
    let mut check = None;
    let page = read_args(args, &mut |flag| match flag.name {
        "--check" => flag.switch(&mut check),
        _ => flag.unknown(),
    })?;
    match page {
        Some(Page::Help) => Ok(Command::Help(SANDBOX)),
        Some(Page::Version) => Ok(Command::Version),
        None if check.is_some() => Ok(Command::CheckSandbox),
        None => wrong("sandbox needs --check"),
    }
}

fn parse_serve(args: &mut Args<'_>) -> Result<Command, UsageError> {
    let mut given = Given::default();
    match read_args(args, &mut |flag| given.take(flag))? {
        Some(Page::Help) => Ok(Command::Help(SERVE)),
        Some(Page::Version) => Ok(Command::Version),
        None => given.serve_args().map(Command::Serve),
    }
}

/// The flags that were there.
#[derive(Default)]
struct Given {
    listen: Option<Listen>,
    concurrent_requests: Option<usize>,
    auth: GivenAuth,
    insecure_no_auth: Option<()>,
    limits: GivenLimits,
    metrics: Option<()>,
    drain_timeout: Option<Duration>,
    log_level: Option<LevelFilter>,
    log_format: Option<LogFormat>,
}

impl Given {
    fn take(&mut self, flag: &mut Flag<'_, '_>) -> Result<(), UsageError> {
        match flag.name {
            "--listen" => {
                let listen = listen(&flag.text()?)?;
                flag.put(&mut self.listen, listen)
            }
            "--concurrent-requests" => {
                let number = flag.number()?;
                flag.put(&mut self.concurrent_requests, number)
            }
            "--insecure-no-auth" => flag.switch(&mut self.insecure_no_auth),
            "--metrics" => flag.switch(&mut self.metrics),
            "--drain-timeout" => {
                let time = flag.time(Duration::ZERO)?;
                flag.put(&mut self.drain_timeout, time)
            }
            "--log-level" => {
                let what = "off, error, warn, info, debug or trace";
                let level = flag.parsed(what, |text| text.parse().ok())?;
                flag.put(&mut self.log_level, level)
            }
            "--log-format" => {
                let format = flag.parsed("text or json", |text| match text {
                    "text" => Some(LogFormat::Text),
                    "json" => Some(LogFormat::Json),
                    _ => None,
                })?;
                flag.put(&mut self.log_format, format)
            }
            name if name.starts_with("--ws-") => self.auth.take(flag),
            _ => self.limits.take(flag),
        }
    }

    fn serve_args(self) -> Result<ServeArgs, UsageError> {
        let listen = self
            .listen
            .unwrap_or(Listen::WebSocket((Ipv4Addr::LOCALHOST, 0).into()));
        let insecure = self.insecure_no_auth.is_some();
        let config = self.limits.config()?;
        let log_level = self.log_level.unwrap_or(LevelFilter::Warn);
        let auth = self.auth.auth_args()?;
        if listen == Listen::Stdio && self.metrics.is_some() {
            return wrong("--metrics requires a WebSocket listener, not stdio");
        }
        match (listen, &auth) {
            (_, AuthArgs::None) => {}
            (Listen::Stdio, _) => {
                return wrong("WebSocket auth requires a WebSocket listener, not stdio");
            }
            (Listen::WebSocket(_), _) if insecure => {
                return wrong("--insecure-no-auth and --ws-auth are mutually exclusive");
            }
            (Listen::WebSocket(_), _) => {}
        }
        if let (Listen::WebSocket(address), AuthArgs::None, false) = (listen, &auth, insecure)
            && !address.ip().to_canonical().is_loopback()
        {
            return wrong(format!(
                "--listen ws://{address} can be reached from other machines: \
                     it needs --ws-auth or --insecure-no-auth"
            ));
        }
        Ok(ServeArgs {
            listen,
            auth,
            config,
            metrics: self.metrics.is_some(),
            drain_timeout: self.drain_timeout.unwrap_or_default(),
            log_level,
            log_format: self.log_format.unwrap_or(LogFormat::Text),
        })
    }
}

fn listen(url: &str) -> Result<Listen, UsageError> {
    if let "stdio" | "stdio://" = url {
        return Ok(Listen::Stdio);
    }
    match url.strip_prefix("ws://") {
        None => wrong(format!(
            "unsupported --listen URL `{url}`; expected `ws://IP:PORT` or `stdio`"
        )),
        Some(address) => match address.parse() {
            Ok(address) => Ok(Listen::WebSocket(address)),
            Err(_) => wrong(format!(
                "invalid websocket --listen URL `{url}`; expected `ws://IP:PORT`"
            )),
        },
    }
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
