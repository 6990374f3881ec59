//! `initialize` and the `process/*` methods.

use super::decode::{Decode, DecodeError, Fields, one_of};
use super::environment::{EnvPolicy, EnvironmentInfo};
use super::json::Span;
use super::sandbox::Sandbox;
use serde::Serialize;
use serde::de::IgnoredAny;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Params of `initialize`.
#[derive(Debug)]
pub struct InitializeParams {
    /// Who is calling; for the log.
    pub client_name: String,
    /// The session to take up again after a lost connection.
    pub resume_session_id: Option<String>,
    /// Whether `process/signal` takes more than `interrupt`, which is all that Codex's exec-server knows.
    pub extended_signals: bool,
    /// Whether all processes are started with `ackOutput`.
    pub ack_output: bool,
}

impl Decode<'_> for InitializeParams {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct InitializeParams")?;
        Ok(Self {
            client_name: fields.required("clientName")?,
            resume_session_id: fields.optional("resumeSessionId")?,
            extended_signals: fields.or_default("extendedSignals")?,
            ack_output: fields.or_default("ackOutput")?,
        })
    }
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
#[derive(Debug)]
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
    pub env_policy: Option<EnvPolicy>,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// The terminal's size.
    pub size: Option<TerminalSize>,
    /// Whether it gets a pipe for input.
    pub pipe_stdin: bool,
    /// What it sees as `argv[0]`.
    pub arg0: Option<String>,
    /// Whether the client tells with `process/ack` what it has done with.
    pub ack_output: bool,
    /// How long it may run, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// How long it may go without output and input, in milliseconds.
    pub idle_timeout_ms: Option<u64>,
    /// How much it may write.
    pub output_limit_bytes: Option<u64>,
    /// How long it may go on after SIGTERM when it has met one of these limits, in milliseconds; 0 kills at once.
    pub grace_ms: Option<u64>,
    /// What it may do.
    pub sandbox: Option<Box<Sandbox>>,
    /// Whether it must not reach the network but through a managed proxy.
    pub enforce_managed_network: bool,
    /// A proxy to be started for it.
    pub network_proxy: Option<IgnoredAny>,
}

impl Decode<'_> for ExecParams {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct ExecParams")?;
        Ok(Self {
            process_id: fields.required("processId")?,
            argv: fields.required("argv")?,
            cwd: fields.required("cwd")?,
            env: fields.required("env")?,
            env_policy: fields.optional("envPolicy")?,
            tty: fields.required("tty")?,
            size: fields.optional("size")?,
            pipe_stdin: fields.or_default("pipeStdin")?,
            arg0: fields.optional("arg0")?,
            ack_output: fields.or_default("ackOutput")?,
            timeout_ms: fields.optional("timeoutMs")?,
            idle_timeout_ms: fields.optional("idleTimeoutMs")?,
            output_limit_bytes: fields.optional("outputLimitBytes")?,
            grace_ms: fields.optional("graceMs")?,
            sandbox: fields.optional("sandbox")?,
            enforce_managed_network: fields.or_default("enforceManagedNetwork")?,
            network_proxy: fields.optional("networkProxy")?,
        })
    }
}

/// The size of a terminal, in character cells; both at least 1.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub cols: u16,
}

impl Decode<'_> for TerminalSize {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct TerminalSize")?;
        Ok(Self {
            rows: fields.required("rows")?,
            cols: fields.required("cols")?,
        })
    }
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
#[derive(Debug)]
pub struct AckParams<'a> {
    /// Which process.
    pub process_id: Cow<'a, str>,
    /// The client has done with all events up to this one.
    pub seq: u64,
}

impl<'a> Decode<'a> for AckParams<'a> {
    fn decode(value: Span<'a>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct AckParams")?;
        Ok(Self {
            process_id: fields.required("processId")?,
            seq: fields.required("seq")?,
        })
    }
}

/// Params of `process/read`.
#[derive(Debug)]
pub struct ReadParams<'a> {
    /// Which process.
    pub process_id: Cow<'a, str>,
    /// Output with higher sequence numbers is wanted.
    pub after_seq: Option<u64>,
    /// How much output at most; the first chunk is always whole.
    pub max_bytes: Option<usize>,
    /// How long to wait for something to happen, in milliseconds.
    pub wait_ms: Option<u64>,
}

impl<'a> Decode<'a> for ReadParams<'a> {
    fn decode(value: Span<'a>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct ReadParams")?;
        Ok(Self {
            process_id: fields.required("processId")?,
            after_seq: fields.optional("afterSeq")?,
            max_bytes: fields.optional("maxBytes")?,
            wait_ms: fields.optional("waitMs")?,
        })
    }
}

/// Params of `process/write`.
#[derive(Debug)]
pub struct WriteParams<'a> {
    /// Which process.
    pub process_id: Cow<'a, str>,
    /// The input, in base64.
    pub chunk: Option<Cow<'a, str>>,
    /// Tells a retry from a new write. Codex's clients before 0.142.0 have none.
    pub write_id: Option<Cow<'a, str>>,
    /// Whether the input ends after this.
    pub close_stdin: bool,
}

impl<'a> Decode<'a> for WriteParams<'a> {
    fn decode(value: Span<'a>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct WriteParams")?;
        Ok(Self {
            process_id: fields.required("processId")?,
            chunk: fields.optional("chunk")?,
            write_id: fields.optional("writeId")?,
            close_stdin: fields.or_default("closeStdin")?,
        })
    }
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
#[derive(Debug)]
pub struct SignalParams<'a> {
    /// Which process.
    pub process_id: Cow<'a, str>,
    /// Which signal.
    pub signal: ProcessSignal,
}

impl<'a> Decode<'a> for SignalParams<'a> {
    fn decode(value: Span<'a>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct SignalParams")?;
        Ok(Self {
            process_id: fields.required("processId")?,
            signal: fields.required("signal")?,
        })
    }
}

/// The signals of `process/signal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl Decode<'_> for ProcessSignal {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let signals = [
            ("interrupt", Self::Interrupt),
            ("hangup", Self::Hangup),
            ("quit", Self::Quit),
            ("kill", Self::Kill),
            ("usr1", Self::Usr1),
            ("usr2", Self::Usr2),
            ("terminate", Self::Terminate),
        ];
        one_of(value, &signals)
    }
}

/// Params of `process/terminate`.
#[derive(Debug)]
pub struct TerminateParams<'a> {
    /// Which process.
    pub process_id: Cow<'a, str>,
    /// How long it may go on after SIGTERM before it is killed, in milliseconds; 0 kills at once.
    pub grace_ms: Option<u64>,
}

impl<'a> Decode<'a> for TerminateParams<'a> {
    fn decode(value: Span<'a>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct TerminateParams")?;
        Ok(Self {
            process_id: fields.required("processId")?,
            grace_ms: fields.optional("graceMs")?,
        })
    }
}

/// Result of `process/terminate`.
#[derive(Debug, Serialize)]
pub struct TerminateResponse {
    /// Whether it had not ended yet.
    pub running: bool,
}

/// The result of methods that have none: `{}`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Nothing {}

/// Params of `process/resize`.
#[derive(Debug)]
pub struct ResizeParams<'a> {
    /// Which process.
    pub process_id: Cow<'a, str>,
    /// The new size.
    pub size: TerminalSize,
}

impl<'a> Decode<'a> for ResizeParams<'a> {
    fn decode(value: Span<'a>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct ResizeParams")?;
        Ok(Self {
            process_id: fields.required("processId")?,
            size: fields.required("size")?,
        })
    }
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
    /// Which limit it, or what it has left, was ended for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<&'static str>,
    /// Whether there will be no more events.
    pub closed: bool,
    /// The number its next event will get.
    pub next_seq: u64,
    /// Bytes of output that can be read.
    pub retained_bytes: usize,
}
