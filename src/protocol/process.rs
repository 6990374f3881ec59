//! `initialize` and the `process/*` methods.

use super::environment::{EnvPolicy, EnvironmentInfo};
use super::sandbox::Sandbox;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Params of `initialize`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InitializeParams {
    /// Who is calling; for the log.
    pub client_name: String,
    /// The session to take up again after a lost connection.
    #[serde(default)]
    pub resume_session_id: Option<String>,
    /// Whether `process/signal` takes more than `interrupt`, which is all that Codex's exec-server knows.
    #[serde(default)]
    pub extended_signals: bool,
    /// Whether all processes are started with `ackOutput`.
    #[serde(default)]
    pub ack_output: bool,
}

/// Result of `initialize`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InitializeResponse<'a> {
    /// What to resume this session with.
    pub session_id: &'a str,
    /// Of the first wire, whose clients ask for it.
    pub protocol_version: &'a str,
    /// What `environment/info` answers.
    pub environment_info: &'a EnvironmentInfo,
}

/// Params of `process/start`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecParams {
    /// The client's name for the process.
    pub process_id: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The working directory.
    pub cwd: String,
    /// The environment, or what is laid over what `env_policy` lets through.
    pub env: BTreeMap<String, String>,
    /// What of the server's environment the process inherits; nothing if absent.
    #[serde(default)]
    pub env_policy: Option<EnvPolicy>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// The terminal's size.
    #[serde(default)]
    pub size: Option<TerminalSize>,
    /// Whether it gets a pipe for input.
    #[serde(default)]
    pub pipe_stdin: bool,
    /// What it sees as `argv[0]`.
    #[serde(default)]
    pub arg0: Option<String>,
    /// Whether the client tells with `process/ack` what it has done with.
    #[serde(default)]
    pub ack_output: bool,
    /// What it may do.
    #[serde(default)]
    pub sandbox: Option<Sandbox>,
    /// Whether it must not reach the network but through a managed proxy.
    #[serde(default)]
    pub enforce_managed_network: bool,
    /// A proxy to be started for it.
    #[serde(default)]
    pub network_proxy: Option<IgnoredAny>,
}

/// The size of a terminal, in character cells; both at least 1.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub cols: u16,
}

/// Result of `process/start`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecResponse<'a> {
    /// As asked.
    pub process_id: &'a str,
    /// What holds it back.
    pub sandbox_type: &'static str,
}

/// Params of `process/ack`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AckParams<'a> {
    /// Which process.
    #[serde(borrow)]
    pub process_id: Cow<'a, str>,
    /// The client has done with all events up to this one.
    pub seq: u64,
}

/// Params of `process/read`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadParams<'a> {
    /// Which process.
    #[serde(borrow)]
    pub process_id: Cow<'a, str>,
    /// Output with higher sequence numbers is wanted.
    #[serde(default)]
    pub after_seq: Option<u64>,
    /// How much output at most; the first chunk is always whole.
    #[serde(default)]
    pub max_bytes: Option<usize>,
    /// How long to wait for something to happen, in milliseconds.
    #[serde(default)]
    pub wait_ms: Option<u64>,
}

/// Params of `process/write`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WriteParams<'a> {
    /// Which process.
    #[serde(borrow)]
    pub process_id: Cow<'a, str>,
    /// The input, in base64.
    #[serde(borrow, default)]
    pub chunk: Option<Cow<'a, str>>,
    /// Tells a retry from a new write.
    #[serde(borrow)]
    pub write_id: Cow<'a, str>,
    /// Whether the input ends after this.
    #[serde(default)]
    pub close_stdin: bool,
}

/// Result of `process/write`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "camelCase")]
pub enum WriteResponse {
    /// It will be read if the process reads.
    Accepted,
    /// There is no such process.
    UnknownProcess,
    /// Nobody will read it.
    StdinClosed,
}

/// Params of methods that only name a process.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SignalParams<'a> {
    /// Which process.
    #[serde(borrow)]
    pub process_id: Cow<'a, str>,
    /// Which signal.
    pub signal: ProcessSignal,
}

/// The signals of `process/signal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub enum ProcessSignal {
    Interrupt,
    Hangup,
    Quit,
    Kill,
    Usr1,
    Usr2,
    Terminate,
}

/// Params of `process/terminate`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TerminateParams<'a> {
    /// Which process.
    #[serde(borrow)]
    pub process_id: Cow<'a, str>,
    /// How long it may go on after SIGTERM before it is killed, in milliseconds; 0 kills at once.
    #[serde(default)]
    pub grace_ms: Option<u64>,
}

/// Result of `process/terminate`.
#[derive(Debug, Serialize)]
pub struct TerminateResponse {
    /// Whether it had not ended yet.
    pub running: bool,
}

/// The result of methods that have none: `{}`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Nothing {}

/// Params of `process/resize`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResizeParams<'a> {
    /// Which process.
    #[serde(borrow)]
    pub process_id: Cow<'a, str>,
    /// The new size.
    pub size: TerminalSize,
}

/// Result of `process/list`.
#[derive(Debug, Serialize)]
pub struct ListResponse {
    /// Those of the session that run or whose output is retained, by name.
    pub processes: Vec<ListedProcess>,
}

/// A process of the session.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedProcess {
    /// The client's name for it.
    pub process_id: String,
    /// The system's number for it, while it runs.
    pub pid: Option<i32>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether it has ended.
    pub exited: bool,
    /// How, if it has.
    pub exit_code: Option<i32>,
    /// Which signal ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Whether there will be no more events.
    pub closed: bool,
    /// The number its next event will get.
    pub next_seq: u64,
    /// Bytes of output that can be read.
    pub retained_bytes: usize,
}
