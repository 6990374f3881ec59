//! What to start, and how.

use super::json_object::JsonObject;
use crate::protocol::environment::EnvPolicy;
use crate::protocol::process::TerminalSize;
use crate::protocol::sandbox::Sandbox;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A command for `process/start`.
///
/// ```
/// use exec_server::client::StartOptions;
///
/// let start = StartOptions::new(["/bin/sh", "-c", "echo $GREETING"]).env("GREETING", "hello").cwd("/tmp");
/// assert_eq!(start.argv.len(), 3);
/// ```
#[derive(Clone, Debug)]
pub struct StartOptions {
    /// The client's name for the process; `None` for a new one.
    pub process_id: Option<String>,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Where it runs; `/` by default.
    pub cwd: PathBuf,
    /// Its environment, or what is laid over what `env_policy` lets through.
    pub env: BTreeMap<String, String>,
    /// What of the server's environment it inherits; nothing if `None`.
    pub env_policy: Option<EnvPolicy>,
    /// Whether it gets a terminal. Then its output is all on [`ExecOutputStream::Pty`](super::events::ExecOutputStream).
    pub tty: bool,
    /// The terminal's size; 24 × 80 if `None`.
    pub size: Option<TerminalSize>,
    /// Whether it gets a pipe for input, if it has no terminal. False by default.
    pub pipe_stdin: bool,
    /// What it sees as `argv[0]`.
    pub arg0: Option<String>,
    /// What it may do. Everything if `None`; a server that can't keep it from the rest refuses to start it.
    pub sandbox: Option<Sandbox>,
    /// How long it may run before the server ends it. Of what a server without the capability `processLimits` is asked, these
    /// four are ignored.
    pub timeout: Option<Duration>,
    /// How long it may go without output and without input.
    pub idle_timeout: Option<Duration>,
    /// How many bytes it may write. The server keeps no more.
    pub output_limit_bytes: Option<u64>,
    /// How long it may go on after SIGTERM once it has met one of these limits; killed at once if `None`.
    pub limit_grace: Option<Duration>,
    /// Whether it is killed when its [`ExecServerProcess`](super::ExecServerProcess) is dropped. False by default.
    pub kill_on_drop: bool,
    /// Whether its newest output is kept for those who [`subscribe`](super::ExecServerProcess::subscribe) late, up to
    /// 1 MiB. True by default. If false, they are told how much there was, and begin with what comes; and output from a
    /// server in this program is handed over without a copy. What the readers hold then is the server's own memory,
    /// which it uses again once they have dropped it.
    pub replay: bool,
}

impl StartOptions {
    /// A command with pipes for output, no input and no environment, in `/`.
    pub fn new<A: Into<String>>(argv: impl IntoIterator<Item = A>) -> StartOptions {
        StartOptions {
            process_id: None,
            argv: argv.into_iter().map(Into::into).collect(),
            cwd: PathBuf::from("/"),
            env: BTreeMap::new(),
            env_policy: None,
            tty: false,
            size: None,
            pipe_stdin: false,
            arg0: None,
            sandbox: None,
            timeout: None,
            idle_timeout: None,
            output_limit_bytes: None,
            limit_grace: None,
            kill_on_drop: false,
            replay: true,
        }
    }

    /// Names the process.
    pub fn process_id(mut self, id: impl Into<String>) -> StartOptions {
        self.process_id = Some(id.into());
        self
    }

    /// Sets where it runs.
    pub fn cwd(mut self, cwd: impl Into<PathBuf>) -> StartOptions {
        self.cwd = cwd.into();
        self
    }

    /// Adds a variable.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> StartOptions {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Gives it a pipe for input.
    pub fn pipe_stdin(mut self) -> StartOptions {
        self.pipe_stdin = true;
        self
    }

    /// Gives it a terminal of that size.
    pub fn terminal(mut self, rows: u16, cols: u16) -> StartOptions {
        self.tty = true;
        self.size = Some(TerminalSize { rows, cols });
        self
    }

    /// Restricts what it may do.
    pub fn sandbox(mut self, sandbox: Sandbox) -> StartOptions {
        self.sandbox = Some(sandbox);
        self
    }

    /// Ends it after so long.
    pub fn timeout(mut self, timeout: Duration) -> StartOptions {
        self.timeout = Some(timeout);
        self
    }

    /// Ends it when there was no output and no input for so long.
    pub fn idle_timeout(mut self, timeout: Duration) -> StartOptions {
        self.idle_timeout = Some(timeout);
        self
    }

    /// Ends it once it has written more than so many bytes.
    pub fn output_limit_bytes(mut self, bytes: u64) -> StartOptions {
        self.output_limit_bytes = Some(bytes);
        self
    }

    /// Has it killed when its handle is dropped.
    pub fn kill_on_drop(mut self) -> StartOptions {
        self.kill_on_drop = true;
        self
    }

    /// Keeps no output for those who subscribe late.
    pub fn without_replay(mut self) -> StartOptions {
        self.replay = false;
        self
    }

    /// The params of `process/start`.
    pub(super) fn params(&self, process_id: &str, acknowledges: bool) -> Result<Vec<u8>, serde_json::Error> {
        let mut params = JsonObject::new()
            .text("processId", process_id)
            .texts("argv", &mut self.argv.iter().map(String::as_str))
            .path("cwd", &self.cwd)
            .map("env", &mut self.env.iter().map(|(k, v)| (k.as_str(), v.as_str())))
            .flag("tty", self.tty)
            .flag("pipeStdin", self.pipe_stdin);
        if let Some(policy) = &self.env_policy {
            params = params.raw("envPolicy", &serde_json::to_vec(policy)?);
        }
        if let Some(size) = self.size {
            params = params.raw("size", &size_json(size));
        }
        if let Some(arg0) = &self.arg0 {
            params = params.text("arg0", arg0);
        }
        if let Some(sandbox) = &self.sandbox {
            params = params.raw("sandbox", &serde_json::to_vec(sandbox)?);
        }
        let milliseconds = |time: Option<Duration>| time.map(|time| time.as_millis().min(u64::MAX.into()) as u64);
        let limits = [
            ("timeoutMs", milliseconds(self.timeout)),
            ("idleTimeoutMs", milliseconds(self.idle_timeout)),
            ("outputLimitBytes", self.output_limit_bytes),
            ("graceMs", milliseconds(self.limit_grace)),
        ];
        for (name, limit) in limits {
            if let Some(limit) = limit {
                params = params.number(name, limit);
            }
        }
        if acknowledges {
            params = params.flag("ackOutput", true);
        }
        Ok(params.done())
    }
}

/// The wire's form of a size.
pub(super) fn size_json(size: TerminalSize) -> Vec<u8> {
    let object = JsonObject::new().number("rows", size.rows.into());
    object.number("cols", size.cols.into()).done()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::decode::decode;
    use crate::protocol::environment::EnvInherit;
    use crate::protocol::process::ExecParams;

    #[test]
    fn a_server_reads_what_is_written() {
        let mut start = StartOptions::new(["a", "b \""])
            .cwd("/a b")
            .env("K", "v\n")
            .terminal(5, 6)
            .timeout(Duration::from_secs(7))
            .idle_timeout(Duration::from_millis(8))
            .output_limit_bytes(9);
        start.limit_grace = Some(Duration::MAX);
        start.arg0 = Some("zero".into());
        start.env_policy = Some(EnvPolicy {
            inherit: EnvInherit::Core,
            ignore_default_excludes: true,
            exclude: vec!["A*".into()],
            set: BTreeMap::new(),
            include_only: Vec::new(),
        });
        let json = start.params("p", true).unwrap();
        let params: ExecParams = decode(&json).unwrap();
        assert_eq!(
            (params.process_id.as_str(), params.cwd.as_str()),
            ("p", "file:///a%20b")
        );
        assert_eq!((params.argv, params.env), (start.argv.clone(), start.env.clone()));
        assert_eq!(
            (params.env_policy, params.arg0),
            (start.env_policy.clone(), start.arg0.clone())
        );
        assert_eq!(params.size.map(|size| (size.rows, size.cols)), Some((5, 6)));
        assert_eq!((params.timeout_ms, params.idle_timeout_ms), (Some(7000), Some(8)));
        assert_eq!((params.output_limit_bytes, params.grace_ms), (Some(9), Some(u64::MAX)));
        assert!(params.tty && !params.pipe_stdin && params.ack_output);
        let json = StartOptions::new(["a"]).pipe_stdin().params("p", false).unwrap();
        let params: ExecParams = decode(&json).unwrap();
        assert!(params.pipe_stdin && !params.tty && !params.ack_output && params.size.is_none());
    }
}
