//! The `command/exec` methods: the first wire, `exec-server.v0`.

use super::decode::{Decode, DecodeError, Fields};
use super::json::Span;
use serde::Serialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The version that the first wire calls itself.
pub const PROTOCOL_VERSION: &str = "exec-server.v0";

/// `outputBytesCap` of who does not say it: 1 MiB, as the first server had it.
pub const DEFAULT_OUTPUT_BYTES_CAP: usize = 1024 * 1024;

/// Params of `command/exec`.
#[derive(Debug)]
pub struct ExecParams {
    /// The client's name for the process.
    pub process_id: String,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The working directory, a path of this system; a relative one counts from the server's.
    pub cwd: String,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// Whether it gets a terminal; otherwise it has no input.
    pub tty: bool,
    /// How many bytes of output are kept; [`DEFAULT_OUTPUT_BYTES_CAP`] unless said. All output is sent whatever this is.
    pub output_bytes_cap: usize,
    /// What it sees as `argv[0]`.
    pub arg0: Option<String>,
}

impl Decode<'_> for ExecParams {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct ExecParams")?;
        Ok(Self {
            process_id: fields.required("processId")?,
            argv: fields.required("argv")?,
            cwd: fields.required("cwd")?,
            env: fields.required("env")?,
            tty: fields.required("tty")?,
            output_bytes_cap: fields.optional("outputBytesCap")?.unwrap_or(DEFAULT_OUTPUT_BYTES_CAP),
            arg0: fields.optional("arg0")?,
        })
    }
}

/// Result of `command/exec`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecResponse<'a> {
    process_id: &'a str,
    pid: i32,
    running: bool,
    exit_code: (),
    stdout: (),
    stderr: (),
}

impl<'a> ExecResponse<'a> {
    /// That a process runs with that `pid`. The other members are always the same: the answer comes at the start.
    pub fn new(process_id: &'a str, pid: i32) -> ExecResponse<'a> {
        ExecResponse {
            process_id,
            pid,
            running: true,
            exit_code: (),
            stdout: (),
            stderr: (),
        }
    }
}

/// Params of `command/exec/write`.
#[derive(Debug)]
pub struct WriteParams<'a> {
    /// Which process.
    pub process_id: Cow<'a, str>,
    /// The input, in base64.
    pub chunk: Cow<'a, str>,
}

impl<'a> Decode<'a> for WriteParams<'a> {
    fn decode(value: Span<'a>) -> Result<Self, DecodeError> {
        let fields = Fields::of(value, "struct WriteParams")?;
        Ok(Self {
            process_id: fields.required("processId")?,
            chunk: fields.required("chunk")?,
        })
    }
}

/// Result of `command/exec/write`.
#[derive(Debug, Serialize)]
pub struct WriteResponse {
    /// True; what is not accepted is an error.
    pub accepted: bool,
}
