//! The `process/*` methods.

use super::dispatcher::{Call, Context, decode};
use super::encode::{limit_name, signal_name};
use super::outbox::{Outgoing, Responder, Wire};
use super::params::Params;
use super::session::Session;
use super::{Present, Server, sandbox};
use crate::metrics::{self, Count};
use crate::process::env_policy::child_environment;
use crate::process::{
    self, Confine, Kin, Owner, Process, RunLimits, StartError, StartSpec, Started, Stdio, WriteStatus,
};
use crate::protocol::decode::{Decode, DecodeError, Fields};
use crate::protocol::error::{INTERNAL, RpcError};
use crate::protocol::first_wire;
use crate::protocol::json::Span;
use crate::protocol::path_uri;
use crate::protocol::process::{
    AckParams, ExecParams, ExecResponse, ListResponse, ListedProcess, Nothing, ProcessSignal, ReadParams, ResizeParams,
    SignalParams, TerminalSize, TerminateParams, TerminateResponse, WriteParams, WriteResponse,
};
use crate::sandbox::legacy;
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// `process/start`
pub(super) fn start(context: &Context, responder: Responder, params: Params) {
    let checked = decode::<ExecParams>(&params).and_then(|mut params| {
        let client = context.client("exec")?;
        let spec = start_spec(&context.server, client.session.kin().command(), &mut params)?;
        let mut limits = context.server.config.process(&context.server.totals);
        if params.ack_output || client.ack_output {
            limits.retention.ack_window = Some(context.server.config.ack_window_bytes);
        }
        Ok(Start {
            session: client.session,
            id: params.process_id,
            spec,
            limits,
            wire: Wire::Modern,
        })
    });
    launch(context, responder, checked);
}

/// A process to be started.
pub(super) struct Start {
    pub(super) session: Arc<Session>,
    pub(super) id: String,
    pub(super) spec: StartSpec,
    pub(super) limits: process::Limits,
    pub(super) wire: Wire,
}

/// Starts a process, unless something is wrong with that.
pub(super) fn launch(context: &Context, responder: Responder, start: Result<Start, RpcError>) {
    let Start {
        session,
        id,
        spec,
        limits,
        wire,
    } = match start {
        Ok(start) => start,
        Err(error) => return responder.fail(&error),
    };
    let server = &context.server;
    let present = match server.admit_process() {
        Ok(present) => present,
        Err(error) => return responder.fail(&error),
    };
    let mut responder = Some(responder);
    let added = session.add_process(&id, server.config.max_processes, |outbox| {
        let starter = Starter {
            id: id.clone(),
            session: session.clone(),
            server: Arc::downgrade(server),
            responder: responder.take(),
            wire,
            begun: metrics::now(),
            _present: present,
        };
        let audience = outbox.map(|outbox| outbox.audience(wire));
        Process::new(&id, spec.stdio, limits, audience, Box::new(starter))
    });
    match (added, responder) {
        (Ok(process), _) => process.launch(spec),
        (Err(error), Some(responder)) => responder.fail(&error),
        (Err(_), None) => {}
    }
}

/// What a process means to its session and the client that started it.
struct Starter {
    id: String,
    session: Arc<Session>,
    server: Weak<Server>,
    responder: Option<Responder>,
    wire: Wire,
    begun: Option<Instant>,
    /// Counts it among the server's live processes.
    _present: Present,
}

impl Owner for Starter {
    fn started(&mut self, outcome: Result<Started, StartError>) {
        if outcome.is_err() {
            metrics::add(Count::NotStarted, 1);
            self.session.remove_process(&self.id);
        } else {
            metrics::add(Count::Started, 1);
            metrics::STARTS.took(self.begun);
        }
        if let Some(responder) = self.responder.take() {
            match outcome {
                Err(e) => responder.fail(&start_error(&self.id, &e)),
                Ok(started) if self.wire == Wire::First => {
                    responder.ok(&first_wire::ExecResponse::new(&self.id, started.pid))
                }
                Ok(started) => responder.ok(&ExecResponse {
                    process_id: &self.id,
                    sandbox_type: if started.is_confined { "linuxSeccomp" } else { "none" },
                }),
            }
        }
    }

    fn settled(&mut self) {
        self.session.start_settled();
    }

    fn exited(&mut self, process: &Arc<Process>) {
        if self.wire == Wire::First {
            self.session.release_name(process);
        }
    }

    fn ended(&mut self, process: &Arc<Process>) {
        metrics::add(Count::Ended, 1);
        if let Some(server) = self.server.upgrade() {
            self.session.process_ended(process, &server);
        }
    }
}

fn start_spec(server: &Server, kin: Kin, params: &mut ExecParams) -> Result<StartSpec, RpcError> {
    if params.argv.is_empty() {
        return Err(RpcError::invalid_params("argv must not be empty"));
    }
    let mut cwd = working_directory(&params.cwd)?;
    // Clients to 0.141.0 wrap a command themselves, in a program that is on their machine.
    if let Some(unwrapped) = legacy::unwrap(&params.argv, params.arg0.as_deref()) {
        let unwrapped = unwrapped.map_err(|e| sandbox::error(&e.into()))?;
        if params.sandbox.is_some() {
            return Err(RpcError::invalid_params(
                "a wrapped command cannot have a sandbox beside",
            ));
        }
        (params.argv, params.arg0) = (unwrapped.argv, None);
        params.sandbox = Some(Box::new(unwrapped.sandbox));
        cwd = unwrapped.cwd.unwrap_or(cwd);
    }
    if params.enforce_managed_network || params.network_proxy.is_some() {
        return Err(RpcError::internal(
            "a managed network cannot be enforced by this exec-server",
        ));
    }
    let stdio = match (params.tty, params.size) {
        (true, Some(size)) => Stdio::Terminal(terminal_size(size)?),
        (true, None) => Stdio::Terminal(process::TerminalSize::default()),
        (false, _) => Stdio::Pipes {
            stdin: params.pipe_stdin,
        },
    };
    let confine = params.sandbox.take().map(|sandbox| {
        let enforcer = server.sandboxes.clone();
        let surroundings = sandbox::surroundings(cwd.clone(), true);
        Confine(Arc::new(move || enforcer.enforcement(&sandbox, &surroundings)))
    });
    Ok(StartSpec {
        argv: params.argv.iter().map(Into::into).collect(),
        arg0: params.arg0.as_ref().map(Into::into),
        cwd,
        env: child_environment(std::env::vars_os(), params.env_policy.as_ref(), &params.env),
        stdio,
        limits: RunLimits {
            timeout: params.timeout_ms.map(Duration::from_millis),
            idle: params.idle_timeout_ms.map(Duration::from_millis),
            output_bytes: params.output_limit_bytes,
            grace: Duration::from_millis(params.grace_ms.unwrap_or(0)),
        },
        kin,
        confine,
    })
}

fn working_directory(cwd: &str) -> Result<PathBuf, RpcError> {
    path_uri::parse(cwd).map_err(|e| match e.kind {
        path_uri::PathUriErrorKind::InvalidParams => RpcError::invalid_params(e.to_string()),
        path_uri::PathUriErrorKind::InvalidRequest => {
            RpcError::invalid_params(format!("cwd URI `{cwd}` is not valid on this exec-server host: {e}"))
        }
    })
}

fn terminal_size(size: TerminalSize) -> Result<process::TerminalSize, RpcError> {
    if size.rows == 0 || size.cols == 0 {
        return Err(RpcError::invalid_params(
            "size must have at least one row and one column",
        ));
    }
    Ok(process::TerminalSize {
        rows: size.rows,
        cols: size.cols,
    })
}

fn start_error(id: &str, error: &StartError) -> RpcError {
    match error {
        StartError::Cancelled => RpcError::invalid_request(format!("process {id} start was cancelled")),
        // So that a client can tell a program that is missing from one that cannot be executed.
        StartError::Execute { source, .. } => RpcError::with_errno(INTERNAL, error.to_string(), source.raw_os_error()),
        StartError::Sandbox(error) => sandbox::error(error),
        _ => RpcError::internal(error.to_string()),
    }
}

/// Gives a request back if it need not wait for the start of its process. Otherwise it is carried out, in its turn,
/// once the process runs or could not be started; so a client need not wait for the answer to the start.
pub(super) fn once_started(
    context: &Context,
    call: Call,
    responder: Responder,
    params: Params,
) -> Option<(Responder, Params)> {
    struct Named<'a>(Cow<'a, str>);
    impl<'a> Decode<'a> for Named<'a> {
        fn decode(value: Span<'a>) -> Result<Self, DecodeError> {
            Fields::of(value, "struct Named")?.required("processId").map(Named)
        }
    }
    let starting = context
        .client("exec")
        .ok()
        .filter(|client| client.session.is_starting_something());
    let named = starting.and_then(|client| client.session.process(&decode::<Named<'_>>(&params).ok()?.0));
    let Some(process) = named else {
        return Some((responder, params));
    };
    // Shared, because the process gives the call-back up when it has started.
    let request = Arc::new(Mutex::new(Some((responder, params))));
    let take = |request: &Mutex<Option<_>>| request.lock().ok().and_then(|mut request| request.take());
    let waits = process.once_started({
        let (context, request) = (context.clone(), request.clone());
        Box::new(move || {
            if let Some((responder, params)) = take(&request) {
                call(&context, responder, params);
            }
        })
    });
    if waits { None } else { take(&request) }
}

/// `process/ack`. A process that is not known any more needs none.
pub(super) fn acknowledge(context: &Context, params: &Params) -> Result<(), RpcError> {
    let params: AckParams<'_> = decode(params)?;
    let session = context.client("exec")?.session;
    if let Some(process) = session.process(&params.process_id) {
        process.acknowledge(params.seq);
    }
    Ok(())
}

/// `process/read`
pub(super) fn read(context: &Context, responder: Responder, raw_params: Params) {
    let checked = decode::<ReadParams<'_>>(&raw_params)
        .and_then(|params| Ok((known_process(context, &params.process_id)?, params)));
    let (process, params) = match checked {
        Ok(checked) => checked,
        Err(error) => return responder.fail(&error),
    };
    let after = params.after_seq.unwrap_or(0);
    let max_bytes = params.max_bytes;
    let wait = Duration::from_millis(params.wait_ms.unwrap_or(0));
    let raw = raw_params.wants_raw();
    let answer = {
        let process = process.clone();
        move |responder: Responder| {
            responder.put(|id| Outgoing::Replay {
                id,
                process,
                after,
                max_bytes,
                raw,
            })
        }
    };
    if wait.is_zero() {
        return answer(responder);
    }
    // Its time is none of the server's.
    let responder = responder.untimed();
    // Shared, because a refused poll gives its call-back up.
    let responder = Arc::new(Mutex::new(Some(responder)));
    let take = |responder: &Mutex<Option<Responder>>| responder.lock().ok().and_then(|mut r| r.take());
    let parked = context.long_polls.park(&process, after, wait, {
        let responder = responder.clone();
        move || {
            if let Some(responder) = take(&responder) {
                answer(responder);
            }
        }
    });
    if let Some(responder) = (!parked).then(|| take(&responder)).flatten() {
        metrics::limit_met("max-long-polls");
        let limit = context.server.config.max_long_polls;
        responder.fail(&RpcError::internal(format!(
            "too many reads wait: a connection may have {limit}"
        )));
    }
}

/// `process/write`
pub(super) fn write(context: &Context, responder: Responder, params: Params) {
    match try_write(context, &params) {
        Err(error) => responder.fail(&error),
        Ok(Err(status)) => responder.ok(&status),
        Ok(Ok((process, params, input))) => {
            let id = params.process_id.as_ref().to_owned();
            let config = &context.server.config;
            let (limit, total) = (config.stdin_hard_bytes, config.stdin_total_bytes);
            let reply = move |status| match status {
                WriteStatus::Accepted => responder.ok(&WriteResponse::Accepted),
                WriteStatus::StdinClosed => responder.ok(&WriteResponse::StdinClosed),
                WriteStatus::Full => responder.fail(&stdin_full(&id, limit)),
                WriteStatus::AllFull => responder.fail(&all_stdin_full(total)),
            };
            let write_id = params.write_id.as_deref().unwrap_or_default();
            process.write(write_id, input, params.close_stdin, Box::new(reply));
        }
    }
}

/// That a process has as much unread input as is allowed.
pub(super) fn stdin_full(id: &str, limit: usize) -> RpcError {
    metrics::limit_met("stdin-hard-bytes");
    RpcError::internal(format!(
        "stdin of process {id} is full: it may have {limit} bytes that it has not read"
    ))
}

/// That all processes together have as much unread input as is allowed.
pub(super) fn all_stdin_full(limit: usize) -> RpcError {
    metrics::limit_met("stdin-total-bytes");
    RpcError::internal(format!(
        "the server is full of input: all processes together may have {limit} bytes that they have not read"
    ))
}

type Write<'a> = Result<(Arc<Process>, WriteParams<'a>, Vec<u8>), WriteResponse>;

fn try_write<'a>(context: &Context, raw: &'a Params) -> Result<Write<'a>, RpcError> {
    let params: WriteParams<'_> = decode(raw)?;
    match params.write_id.as_deref() {
        Some("") => return Err(RpcError::invalid_params("writeId must not be empty")),
        None if !context.client("exec").is_ok_and(|client| client.unnamed_writes) => {
            return Err(RpcError::invalid_params("missing field `writeId`"));
        }
        _ => {}
    }
    let input = match &params.chunk {
        Some(chunk) => {
            let mut room = Vec::new();
            let content = raw.content("chunk", chunk, &mut room);
            content.map_err(RpcError::invalid_params)?.to_vec()
        }
        None if params.close_stdin => Vec::new(),
        None => return Err(RpcError::invalid_params("missing field `chunk`")),
    };
    let session = context.client("exec")?.session;
    Ok(match session.process(&params.process_id) {
        None => Err(WriteResponse::UnknownProcess),
        Some(process) => Ok((process, params, input)),
    })
}

/// `process/signal`
pub(super) fn signal(context: &Context, responder: Responder, params: Params) {
    let outcome = decode::<SignalParams<'_>>(&params).and_then(|params| {
        let client = context.client("exec")?;
        if params.signal != ProcessSignal::Interrupt && !client.extended_signals {
            return Err(RpcError::invalid_params(
                "signals other than `interrupt` are for clients that ask for extendedSignals in initialize",
            ));
        }
        let signal = match params.signal {
            ProcessSignal::Interrupt => process::Signal::Interrupt,
            ProcessSignal::Hangup => process::Signal::Hangup,
            ProcessSignal::Quit => process::Signal::Quit,
            ProcessSignal::Kill => process::Signal::Kill,
            ProcessSignal::Usr1 => process::Signal::Usr1,
            ProcessSignal::Usr2 => process::Signal::Usr2,
            ProcessSignal::Terminate => process::Signal::Terminate,
        };
        match client.session.process(&params.process_id) {
            Some(process) => process
                .signal(signal)
                .map_err(|e| RpcError::internal(format!("failed to signal process: {e}"))),
            None => Ok(()),
        }
    });
    responder.answer(outcome.map(|()| Nothing {}));
}

/// `process/terminate`
pub(super) fn terminate(context: &Context, responder: Responder, params: Params) {
    let outcome = decode::<TerminateParams<'_>>(&params).and_then(|params| {
        let session = context.client("exec")?.session;
        let grace = Duration::from_millis(params.grace_ms.unwrap_or(0));
        let process = session.process(&params.process_id);
        Ok(TerminateResponse {
            running: process.is_some_and(|process| process.terminate(grace)),
        })
    });
    responder.answer(outcome);
}

/// `process/resize`
pub(super) fn resize(context: &Context, responder: Responder, params: Params) {
    let outcome = decode::<ResizeParams<'_>>(&params).and_then(|params| {
        let size = terminal_size(params.size)?;
        let process = known_process(context, &params.process_id)?;
        process.resize(size).map_err(|e| {
            RpcError::invalid_request(format!(
                "failed to resize the terminal of process {}: {e}",
                params.process_id
            ))
        })
    });
    responder.answer(outcome.map(|()| Nothing {}));
}

/// `process/list`
pub(super) fn list(context: &Context, responder: Responder, _params: Params) {
    let outcome = context.client("exec").map(|client| {
        let mut processes: Vec<ListedProcess> = client.session.processes().iter().map(listed).collect();
        processes.sort_unstable_by(|a, b| a.process_id.cmp(&b.process_id));
        ListResponse { processes }
    });
    responder.answer(outcome);
}

fn listed(process: &Arc<Process>) -> ListedProcess {
    let snapshot = process.snapshot();
    ListedProcess {
        process_id: process.id().to_owned(),
        pid: snapshot.pid,
        tty: snapshot.tty,
        exited: snapshot.exit.is_some(),
        exit_code: snapshot.exit.map(|exit| exit.code),
        signal: snapshot.exit.and_then(|exit| exit.signal).map(signal_name),
        ended_by: snapshot.limit_met.map(limit_name),
        closed: snapshot.closed,
        next_seq: snapshot.next_seq,
        retained_bytes: snapshot.retained_bytes,
    }
}

pub(super) fn known_process(context: &Context, id: &str) -> Result<Arc<Process>, RpcError> {
    let session = context.client("exec")?.session;
    session
        .process(id)
        .ok_or_else(|| RpcError::invalid_request(format!("unknown process id {id}")))
}
