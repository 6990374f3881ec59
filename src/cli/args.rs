//! The arguments of `exec-server`.
//!
//! Flags that `codex exec-server` has as well mean the same here, and what is wrong with them
//! is said in the same words.

use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use log::LevelFilter;

use super::auth::{AuthArgs, GivenAuth};

/// What `--help` prints.
pub(crate) const HELP: &str = "\
Runs commands and touches files for a client that lives elsewhere.

Usage: exec-server [FLAGS]

Where to listen:
  --listen URL              ws://IP:PORT or stdio [default: ws://127.0.0.1:0]
                            Port 0 takes a free one. The URL in use is the first
                            line on standard output.
  --concurrent-requests N   Accepted for compatibility; requests never wait for
                            each other here.

Who may connect (WebSocket only):
  --ws-auth KIND            capability-token: the token in --ws-token-file, or
                            the one with the digest --ws-token-sha256
                            signed-bearer-token (*): a JSON Web Token, HS256
  --ws-token-file PATH      File with the token, mode 0600 or less
  --ws-token-sha256 HEX     SHA-256 digest of the token (*)
  --ws-shared-secret-file PATH
                            File with the key of signed tokens, 32 bytes or
                            more, mode 0600 or less (*)
  --ws-issuer TEXT          What a signed token must have as issuer (*)
  --ws-audience TEXT        What a signed token must have as audience (*)
  --ws-max-clock-skew-seconds N
                            How far clocks may be apart [default: 30] (*)
  --insecure-no-auth        Listen on an address other machines can reach
                            without asking for a token: whoever reaches it can
                            run anything

  (*) needs a build with the feature signed-tokens

What to keep:
  --session-ttl SECONDS     How long a session waits for its client to come
                            back [default: 80]
  --retain-bytes N          Output kept per process, in bytes, or with the
                            suffix k, KiB, m or MiB [default: 1MiB]

Other:
  --log-level LEVEL         off, error, warn, info, debug or trace, to standard
                            error [default: warn]
  -h, --help                Print this page
  -V, --version             Print the version

A flag takes its value as `--flag value` or `--flag=value`.
";

/// The session lifetime that clients of Codex's exec-server are used to.
const SESSION_TTL: Duration = Duration::from_secs(80);

/// A year: longer than any server runs, and far from the end of any clock.
const MAX_SECONDS: u64 = 365 * 24 * 60 * 60;

/// What Codex's exec-server keeps of a process's output: 1 MiB.
const RETAIN_BYTES: usize = 1024 * 1024;

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Command {
    /// Print [`HELP`].
    Help,
    /// Print the version.
    Version,
    /// Run the server.
    Serve(ServeArgs),
}

/// How to serve.
#[derive(Debug)]
pub(crate) struct ServeArgs {
    /// Where clients connect; a free port of the loopback address by default.
    pub(crate) listen: Listen,
    /// What they must present.
    pub(crate) auth: AuthArgs,
    /// How long a session without a connection lives; 80 s by default.
    pub(crate) session_ttl: Duration,
    /// How much output is kept per process, in bytes; 1 MiB by default, at least 1.
    pub(crate) retain_bytes: usize,
    /// What is logged; warnings and errors by default.
    pub(crate) log_level: LevelFilter,
}

/// Where clients connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listen {
    /// One client, on standard input and output.
    Stdio,
    /// Any number of clients over WebSocket; port 0 stands for a free one.
    WebSocket(SocketAddr),
}

/// What is wrong with the command line, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(String);

/// Says what is wrong, in one line whatever was quoted from the arguments.
pub(super) fn wrong<T>(text: impl Into<String>) -> Result<T, UsageError> {
    let text = text.into();
    if text.contains(char::is_control) {
        return Err(UsageError(text.escape_debug().to_string()));
    }
    Err(UsageError(text))
}

/// Parses the arguments, without the program's own name.
pub(crate) fn parse(args: impl Iterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut given = Given::default();
    let mut args = args.peekable();
    while let Some(arg) = args.next() {
        let bytes = arg.as_bytes();
        let (name, inline) = match bytes.iter().position(|&byte| byte == b'=') {
            Some(at) if bytes.starts_with(b"--") => {
                let inline = OsStr::from_bytes(&bytes[at + 1..]).to_owned();
                (OsStr::from_bytes(&bytes[..at]), Some(inline))
            }
            _ => (arg.as_os_str(), None),
        };
        let name = name.to_string_lossy();
        // A flag where a value should be means that the value was forgotten.
        let mut next = || args.next_if(|next| !next.as_bytes().starts_with(b"-"));
        let mut flag = Flag {
            name: &name,
            inline,
            next: &mut next,
        };
        match &*name {
            "-h" | "--help" => return flag.alone().map(|()| Command::Help),
            "-V" | "--version" => return flag.alone().map(|()| Command::Version),
            _ => given.take(&mut flag)?,
        }
    }
    given.serve_args().map(Command::Serve)
}

/// A flag and where its value comes from.
pub(super) struct Flag<'a> {
    pub(super) name: &'a str,
    inline: Option<OsString>,
    next: &'a mut dyn FnMut() -> Option<OsString>,
}

impl Flag<'_> {
    fn alone(&self) -> Result<(), UsageError> {
        match self.inline {
            None => Ok(()),
            Some(_) => wrong(format!("{} takes no value", self.name)),
        }
    }

    pub(super) fn value(&mut self) -> Result<OsString, UsageError> {
        match self.inline.take().or_else(&mut *self.next) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => wrong(format!("{} needs a value", self.name)),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, UsageError> {
        self.value()?
            .into_string()
            .or_else(|_| wrong(format!("the value of {} is not UTF-8", self.name)))
    }

    /// A value that `read` understands, or else is not `what`.
    pub(super) fn parsed<T>(&mut self, what: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, UsageError> {
        let text = self.text()?;
        match read(&text) {
            Some(value) => Ok(value),
            None => wrong(format!("{} must be {what}, not `{text}`", self.name)),
        }
    }

    pub(super) fn seconds(&mut self) -> Result<Duration, UsageError> {
        let what = format!("a number of seconds from 0 to {MAX_SECONDS}");
        self.parsed(&what, |text| {
            let seconds = text.parse().ok().filter(|&seconds| seconds <= MAX_SECONDS)?;
            Some(Duration::from_secs(seconds))
        })
    }

    /// Puts the value of a flag where it belongs; a flag may be given only once.
    pub(super) fn put<T>(&self, slot: &mut Option<T>, value: T) -> Result<(), UsageError> {
        match slot.replace(value) {
            None => Ok(()),
            Some(_) => wrong(format!("{} is given twice", self.name)),
        }
    }
}

/// The flags that were there.
#[derive(Default)]
struct Given {
    listen: Option<Listen>,
    concurrent_requests: Option<usize>,
    auth: GivenAuth,
    insecure_no_auth: Option<()>,
    session_ttl: Option<Duration>,
    retain_bytes: Option<usize>,
    log_level: Option<LevelFilter>,
}

impl Given {
    fn take(&mut self, flag: &mut Flag<'_>) -> Result<(), UsageError> {
        match flag.name {
            "--listen" => {
                let listen = listen(&flag.text()?)?;
                flag.put(&mut self.listen, listen)
            }
            "--concurrent-requests" => {
                let number = flag.parsed("a number of at least 1", |text| {
                    text.parse().ok().filter(|&number| number > 0)
                })?;
                flag.put(&mut self.concurrent_requests, number)
            }
            "--insecure-no-auth" => {
                flag.alone()?;
                flag.put(&mut self.insecure_no_auth, ())
            }
            "--session-ttl" => {
                let ttl = flag.seconds()?;
                flag.put(&mut self.session_ttl, ttl)
            }
            "--retain-bytes" => {
                let bytes = flag.parsed("a number of bytes, at least 1", bytes)?;
                flag.put(&mut self.retain_bytes, bytes)
            }
            "--log-level" => {
                let what = "off, error, warn, info, debug or trace";
                let level = flag.parsed(what, |text| text.parse().ok())?;
                flag.put(&mut self.log_level, level)
            }
            name if name.starts_with("--ws-") => self.auth.take(flag),
            name if name.starts_with('-') => wrong(format!("unknown flag `{name}`")),
            name => wrong(format!("unexpected argument `{name}`")),
        }
    }

    fn serve_args(self) -> Result<ServeArgs, UsageError> {
        let listen = self
            .listen
            .unwrap_or(Listen::WebSocket((Ipv4Addr::LOCALHOST, 0).into()));
        let insecure = self.insecure_no_auth.is_some();
        let session_ttl = self.session_ttl.unwrap_or(SESSION_TTL);
        let retain_bytes = self.retain_bytes.unwrap_or(RETAIN_BYTES);
        let log_level = self.log_level.unwrap_or(LevelFilter::Warn);
        let auth = self.auth.auth_args()?;
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
            session_ttl,
            retain_bytes,
            log_level,
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

/// A number of bytes, with or without a unit.
fn bytes(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale: usize = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" => 1,
        "k" | "kib" => 1024,
        "m" | "mib" => 1024 * 1024,
        _ => return None,
    };
    let number: usize = number.parse().ok()?;
    number.checked_mul(scale).filter(|&bytes| bytes > 0)
}

#[cfg(test)]
#[path = "args_tests.rs"]
mod tests;
