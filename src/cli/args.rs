//! The arguments of `exec-server`, and those of the server.
//!
//! Flags that `codex exec-server` has as well mean the same here, and what is wrong with them
//! is said in the same words.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::fd::RawFd;
use std::time::Duration;

use exec_server::server::ServerConfig;
use exec_server::transport::address::Address;
use log::LevelFilter;

use super::auth::{AuthArgs, GivenAuth};
#[cfg(feature = "client")]
use super::client::{CLIENT_COMMANDS, ClientCommand, parse_client};
use super::flags::{Args, Flag, Page, UsageError, read_args, wrong};
use super::help::{SANDBOX, SERVE};
use super::limits::GivenLimits;
use super::log_output::LogFormat;
use super::ways::is_open;

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
    /// Where clients connect; a free port of the loopback address by default. Standard input and output stand alone.
    pub(crate) listen: Vec<Listen>,
    /// What they must present.
    pub(crate) auth: AuthArgs,
    /// Whether they may come from anywhere without that.
    pub(crate) insecure_no_auth: bool,
    /// Users who may connect by a socket file, beside root and our own.
    pub(crate) uids: Vec<u32>,
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    /// One client, on standard input and output.
    Stdio,
    /// Any number of clients.
    At(Address),
    /// A socket that this program was started with, which listens or is connected.
    Inherited(RawFd),
    /// Those that systemd has passed, all or those of a name.
    Systemd(Option<String>),
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
    listen: Vec<Listen>,
    concurrent_requests: Option<usize>,
    auth: GivenAuth,
    insecure_no_auth: Option<()>,
    uids: Vec<u32>,
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
                self.listen.push(listen);
                Ok(())
            }
            "--allow-uid" => {
                let uid = flag.parsed("the number of a user", |text| text.parse().ok())?;
                self.uids.push(uid);
                Ok(())
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

    fn serve_args(mut self) -> Result<ServeArgs, UsageError> {
        if self.listen.is_empty() {
            self.listen
                .push(Listen::At(Address::Tcp((Ipv4Addr::LOCALHOST, 0).into())));
        }
        let insecure_no_auth = self.insecure_no_auth.is_some();
        let config = self.limits.config()?;
        let log_level = self.log_level.unwrap_or(LevelFilter::Warn);
        let auth = self.auth.auth_args()?;
        let has_auth = !matches!(auth, AuthArgs::None);
        if self.listen.contains(&Listen::Stdio) {
            if self.listen.len() > 1 {
                return wrong(
                    "--listen stdio serves one client and ends with it: it cannot be given with another --listen",
                );
            }
            if has_auth {
                return wrong("WebSocket auth requires a WebSocket listener, not stdio");
            }
            if self.metrics.is_some() {
                return wrong("--metrics requires a WebSocket listener, not stdio");
            }
        } else if has_auth && insecure_no_auth {
            return wrong("--insecure-no-auth and --ws-auth are mutually exclusive");
        }
        for listen in &self.listen {
            if let Listen::At(address) = listen
                && !(address.is_local() || has_auth || insecure_no_auth)
            {
                return wrong(is_open(&format_args!("--listen {address}")));
            }
        }
        Ok(ServeArgs {
            listen: self.listen,
            auth,
            insecure_no_auth,
            uids: self.uids,
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
    if let Some(passed) = url.strip_prefix("systemd") {
        match passed.strip_prefix("://") {
            None if passed.is_empty() => return Ok(Listen::Systemd(None)),
            Some(name) if !name.is_empty() => return Ok(Listen::Systemd(Some(name.to_owned()))),
            _ => {}
        }
    }
    let invalid = |expected: &str| wrong(format!("invalid --listen URL `{url}`; {expected}"));
    if let Some(number) = url.strip_prefix("fd://") {
        return match number.parse() {
            Ok(number @ 0..) => Ok(Listen::Inherited(number)),
            _ => invalid("expected `fd://NUMBER`"),
        };
    }
    if let Some(address) = Address::parse(url) {
        return address.map(Listen::At).or_else(invalid);
    }
    match url.strip_prefix("ws://") {
        None => wrong(format!(
            "unsupported --listen URL `{url}`; expected `ws://IP:PORT`, `stdio`, `unix:///PATH`, `vsock://CID:PORT`, \
             `fd://NUMBER` or `systemd`"
        )),
        Some(address) => match address.parse() {
            Ok(address) => Ok(Listen::At(Address::Tcp(address))),
            Err(_) => wrong(format!(
                "invalid websocket --listen URL `{url}`; expected `ws://IP:PORT`"
            )),
        },
    }
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
