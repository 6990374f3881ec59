//! The methods of the first wire, `exec-server.v0`: other words for what the `process/*` methods do.
//!
//! A connection speaks it from its first `command/exec…` on. Before that it cannot be told which wire it will be: the
//! handshake of the old clients is byte for byte one of today's. So today's rules hold until then, also for
//! `initialize`, which needs a `clientName` and may not be repeated: the old clients send one, once. After that nothing
//! of the handshake is enforced, `initialize` is answered whatever its params and however often, unknown methods have
//! the first server's error, and the session ends with the connection, since no old client could take it up again. The
//! `process/*` methods stay as they are beside it.
//!
//! Where it differs from the first server, it is what a client of that cannot mind:
//!
//! - A message that is no JSON is answered, and does not end the server.
//! - A name in use is found out before anything is started.
//! - `exited` comes behind everything that the process had written by then. What others go on writing to its streams is
//!   sent as it comes, after that: `exited` waits for nobody, and a client that has no use for the rest drops it. Once
//!   the name is given to another process, nothing more is told of the first.
//! - `terminate` and the end of the session reach all that a process has started.

use super::dispatcher::{Context, decode};
use super::outbox::{Responder, Wire};
use super::params::Params;
use super::process_calls::{Start, all_stdin_full, known_process, launch, stdin_full};
use crate::process::env_policy::child_environment;
use crate::process::{Process, RunLimits, StartSpec, Stdio, TerminalSize, WriteStatus};
use crate::protocol::error::RpcError;
use crate::protocol::first_wire::{ExecParams, WriteParams, WriteResponse};
use crate::protocol::process::{TerminateParams, TerminateResponse};
use std::sync::Arc;
use std::time::Duration;

/// `command/exec`
pub(super) fn exec(context: &Context, responder: Responder, params: Params) {
    let start = decode::<ExecParams>(&params).and_then(|params| {
        if params.argv.is_empty() {
            return Err(RpcError::invalid_params("argv must not be empty"));
        }
        let mut limits = context.server.config.process(&context.server.totals);
        limits.retention.bytes = limits.retention.bytes.min(params.output_bytes_cap);
        let stdio = if params.tty {
            Stdio::Terminal(TerminalSize::default())
        } else {
            Stdio::Pipes { stdin: false }
        };
        let session = context.client("exec")?.session;
        Ok(Start {
            spec: StartSpec {
                argv: params.argv.iter().map(Into::into).collect(),
                arg0: params.arg0.map(Into::into),
                cwd: params.cwd.into(),
                env: child_environment(std::env::vars_os(), None, &params.env),
                stdio,
                limits: RunLimits::default(),
                kin: session.kin().command(),
                confine: None,
            },
            session,
            id: params.process_id,
            limits,
            wire: Wire::First,
        })
    });
    launch(context, responder, start);
}

/// `command/exec/write`
pub(super) fn write(context: &Context, responder: Responder, params: Params) {
    let (process, input) = match try_write(context, &params) {
        Ok(write) => write,
        Err(error) => return responder.fail(&error),
    };
    let (id, tty) = (process.shared_id(), process.snapshot().tty);
    let config = &context.server.config;
    let (limit, total) = (config.stdin_hard_bytes, config.stdin_total_bytes);
    let reply = move |status| {
        responder.answer(match status {
            WriteStatus::Accepted => Ok(WriteResponse { accepted: true }),
            WriteStatus::StdinClosed if tty => Err(RpcError::internal("failed to write to process stdin")),
            WriteStatus::StdinClosed => Err(RpcError::invalid_request(format!("stdin is closed for process {id}"))),
            WriteStatus::Full => Err(stdin_full(&id, limit)),
            WriteStatus::AllFull => Err(all_stdin_full(total)),
        });
    };
    process.write("", input, false, Box::new(reply));
}

fn try_write(context: &Context, raw: &Params) -> Result<(Arc<Process>, Vec<u8>), RpcError> {
    let params: WriteParams<'_> = decode(raw)?;
    let mut room = Vec::new();
    let content = raw.content("chunk", &params.chunk, &mut room);
    let input = content.map_err(RpcError::invalid_params)?.to_vec();
    Ok((known_process(context, &params.process_id)?, input))
}

/// `command/exec/terminate`
pub(super) fn terminate(context: &Context, responder: Responder, params: Params) {
    let outcome = decode::<TerminateParams<'_>>(&params).and_then(|params| {
        let session = context.client("exec")?.session;
        let process = session.process(&params.process_id);
        let running = process.is_some_and(|process| {
            let running = process.terminate(Duration::ZERO);
            if running {
                session.release_name(&process);
            }
            running
        });
        Ok(TerminateResponse { running })
    });
    responder.answer(outcome);
}
