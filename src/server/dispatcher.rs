//! Which method is which, and in what order they may be called.

use super::connection::Received;
use super::environment;
use super::file_calls::FileCalls;
use super::long_poll::LongPolls;
use super::outbox::{Outbox, Responder};
use super::params::Params;
use super::session::{ResumeError, Session};
use super::{Server, first_wire, process_calls};
use crate::metrics;
use crate::process::Audience;
use crate::protocol::decode::{self, Decode};
use crate::protocol::environment::{EnvironmentConfigParams, EnvironmentStatus};
use crate::protocol::error::RpcError;
use crate::protocol::first_wire::PROTOCOL_VERSION;
use crate::protocol::message::RequestId;
use crate::protocol::process::{InitializeParams, InitializeResponse};
use crate::sys::defect;
use crate::transport::auth::Identity;
use log::info;
use std::sync::Arc;

/// What every published Codex calls itself.
const CODEX: &str = "codex-environment";

/// Why a connection cannot go on, as a WebSocket close code and in words.
pub(super) type Violation = (u16, String);

/// Carries out the requests of one connection. Nothing here blocks: what takes time goes to other threads and is
/// answered from there.
pub(super) struct Dispatcher {
    outbox: Arc<Outbox>,
    /// Who the client is.
    identity: Identity,
    files: FileCalls,
    context: Context,
    /// The client has called a method of the first wire.
    speaks_first_wire: bool,
}

/// What the methods have to do with. Cheap to clone, for what is carried out later.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) server: Arc<Server>,
    pub(super) long_polls: Arc<LongPolls>,
    handshake: Handshake,
}

/// How far the handshake has come.
#[derive(Clone)]
enum Handshake {
    /// Nothing but `initialize` is answered.
    New,
    /// The session is there; the client has yet to say that it knows.
    Initialized(Client),
    Ready(Client),
}

/// Who is served.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) session: Arc<Session>,
    /// It has asked for signals beyond `interrupt`.
    pub(super) extended_signals: bool,
    /// It acknowledges the output of all processes.
    pub(super) ack_output: bool,
    /// It may write without a `writeId`, as Codex did before 0.142.0, whose versions can't be told apart before that.
    /// From anyone else it is an error, because a write that is sent again would be written twice.
    pub(super) unnamed_writes: bool,
}

impl Dispatcher {
    pub(super) fn new(server: Arc<Server>, outbox: Arc<Outbox>, identity: Identity) -> Dispatcher {
        let long_polls = LongPolls::new(server.config.max_long_polls, server.janitor.clone());
        let files = FileCalls::new(&server, outbox.clone());
        Dispatcher {
            outbox,
            identity,
            files,
            context: Context {
                server,
                long_polls,
                handshake: Handshake::New,
            },
            speaks_first_wire: false,
        }
    }

    /// Carries out what was received.
    ///
    /// # Errors
    /// When the connection cannot go on after that.
    pub(super) fn carry_out(&mut self, received: Received) -> Result<(), Violation> {
        match received {
            Received::Request { id, method, params } => {
                self.request(id, &method, params);
                Ok(())
            }
            Received::Notification { method, params } => self.notification(&method, &params),
            // The first server did not mind.
            Received::Answer if self.speaks_first_wire => Ok(()),
            Received::Answer => {
                self.outbox
                    .complain(&RpcError::invalid_request("unexpected answer: nothing was asked"));
                Ok(())
            }
            Received::Violation { code, reason } => Err((code, reason)),
        }
    }

    /// The session of the connection, if it has one.
    pub(super) fn session(&self) -> Option<Arc<Session>> {
        match &self.context.handshake {
            Handshake::New => None,
            Handshake::Initialized(client) | Handshake::Ready(client) => Some(client.session.clone()),
        }
    }

    /// Whether the session can be taken up again: the first wire has no word for that.
    pub(super) fn can_be_resumed(&self) -> bool {
        !self.speaks_first_wire
    }

    /// Nothing of what still waits is of interest any more.
    pub(super) fn end(&mut self) {
        self.context.long_polls.cancel_all();
        self.files.end();
    }

    fn notification(&mut self, method: &str, params: &Params) -> Result<(), Violation> {
        defect::point("dispatcher", || method);
        match (method, &self.context.handshake) {
            ("initialized", Handshake::New) => {
                let reason = "client must call initialize before sending initialized";
                self.outbox.complain(&RpcError::invalid_request(reason));
                Err((1002, reason.into()))
            }
            ("initialized", Handshake::Initialized(client)) => {
                self.context.handshake = Handshake::Ready(client.clone());
                Ok(())
            }
            ("initialized", Handshake::Ready(_)) => Ok(()),
            ("process/ack", _) => {
                if let Err(error) = process_calls::acknowledge(&self.context, params) {
                    self.outbox.complain(&error);
                }
                Ok(())
            }
            _ => {
                let error = format!("unexpected notification method: {method}");
                self.outbox.complain(&RpcError::invalid_request(error));
                Ok(())
            }
        }
    }

    fn request(&mut self, id: RequestId, method: &str, params: Params) {
        let (responder, unanswered) = self.outbox.responder(id);
        defect::point("dispatcher", || method);
        let limit = self.context.server.config.max_requests;
        if unanswered > limit && !is_answered_at_once(method) {
            metrics::limit_met("max-requests");
            let error = format!("too many requests are unanswered: a connection may have {limit}");
            return responder.fail(&RpcError::internal(error));
        }
        if method == "initialize" {
            return match (&self.context.handshake, decode(&params)) {
                // On the first wire it may be repeated, with any params.
                (Handshake::Ready(client), _) if self.speaks_first_wire => self.welcome(responder, &client.session),
                (_, Ok(params)) => self.initialize(responder, params),
                (_, Err(e)) => responder.fail(&e),
            };
        }
        let call: Call = match method {
            "process/start" => process_calls::start,
            "process/read" => process_calls::read,
            "process/write" => process_calls::write,
            "process/signal" => process_calls::signal,
            "process/terminate" => process_calls::terminate,
            "process/resize" => process_calls::resize,
            "process/list" => process_calls::list,
            "command/exec" => first_wire::exec,
            "command/exec/write" => first_wire::write,
            "command/exec/terminate" => first_wire::terminate,
            "environment/info" => environment_info,
            "environment/status" => environment_status,
            "environmentConfig/read" => environment_config,
            _ if FileCalls::knows(method) => {
                let checked = self.context.client("filesystem").map(drop);
                return self.files.call(method, params, responder, checked);
            }
            _ if self.speaks_first_wire => {
                return responder.fail(&RpcError::invalid_request(format!("unknown method: {method}")));
            }
            _ => {
                let error = format!("exec-server stub does not implement `{method}` yet");
                return responder.fail(&RpcError::method_not_found(error));
            }
        };
        if method.starts_with("command/")
            && let Err(error) = self.speak_first_wire()
        {
            return responder.fail(&error);
        }
        // These have to do with one process, which may still be starting; the other methods need not wait for that.
        let waits = matches!(
            method,
            "process/read"
                | "process/write"
                | "process/signal"
                | "process/resize"
                | "command/exec/write"
                | "command/exec/terminate"
        );
        let ready = if waits {
            process_calls::once_started(&self.context, call, responder, params)
        } else {
            Some((responder, params))
        };
        if let Some((responder, params)) = ready {
            call(&self.context, responder, params);
        }
    }

    /// A method of the first wire is called. That wire has no handshake that must be done, so what is missing of it is
    /// done now.
    fn speak_first_wire(&mut self) -> Result<(), RpcError> {
        self.speaks_first_wire = true;
        let client = match &self.context.handshake {
            Handshake::Ready(_) => return Ok(()),
            Handshake::Initialized(client) => client.clone(),
            Handshake::New => {
                let session = self.open_session()?;
                info!(conn = self.outbox.id(), session = session.id(); "a client without a handshake opens session {}", session.id());
                Client {
                    session,
                    extended_signals: false,
                    ack_output: false,
                    unnamed_writes: false,
                }
            }
        };
        self.outbox.set_session();
        self.context.handshake = Handshake::Ready(client);
        Ok(())
    }

    fn open_session(&self) -> Result<Arc<Session>, RpcError> {
        let server = &self.context.server;
        server.check_not_draining()?;
        let limit = server.config.max_sessions;
        server.sessions.open(&self.outbox, self.identity.clone(), limit)
    }

    fn welcome(&self, responder: Responder, session: &Session) {
        responder.ok(&InitializeResponse {
            session_id: session.id(),
            protocol_version: PROTOCOL_VERSION,
            environment_info: &self.context.server.environment,
        });
    }

    fn initialize(&mut self, responder: Responder, params: InitializeParams) {
        if !matches!(self.context.handshake, Handshake::New) {
            return responder.fail(&RpcError::invalid_request(
                "initialize may only be sent once per connection",
            ));
        }
        let session = match &params.resume_session_id {
            None => self.open_session(),
            Some(id) => self
                .context
                .server
                .sessions
                .resume(id, &self.outbox, &self.identity)
                .map_err(|e| match e {
                    ResumeError::Unknown => RpcError::invalid_request(format!("unknown session id {id}")),
                    ResumeError::Attached(outbox) => {
                        self.context.server.probe(&outbox);
                        RpcError::session_attached(format!("session {id} is already attached to another connection"))
                    }
                }),
        };
        let session = match session {
            Ok(session) => session,
            Err(error) => return responder.fail(&error),
        };
        let verb = if params.resume_session_id.is_some() {
            "resumes"
        } else {
            "opens"
        };
        info!(
            conn = self.outbox.id(), session = session.id();
            "client `{}` {verb} session {}",
            params.client_name.escape_debug(),
            session.id()
        );
        self.outbox.set_session();
        self.welcome(responder, &session);
        session.attach_processes(&self.outbox);
        self.context.handshake = Handshake::Initialized(Client {
            session,
            extended_signals: params.extended_signals,
            ack_output: params.ack_output,
            unnamed_writes: params.client_name == CODEX,
        });
    }
}

impl Context {
    /// The client, if it has done the handshake; `family` names the methods in the error.
    pub(super) fn client(&self, family: &str) -> Result<Client, RpcError> {
        let missing = match &self.handshake {
            Handshake::Ready(client) => return Ok(client.clone()),
            Handshake::New => "call initialize",
            Handshake::Initialized(_) => "send initialized",
        };
        Err(RpcError::invalid_request(format!(
            "client must {missing} before using {family} methods"
        )))
    }
}

/// What is wanted most when nothing else goes on, and adds nothing to that.
fn is_answered_at_once(method: &str) -> bool {
    matches!(
        method,
        "process/terminate" | "command/exec/terminate" | "process/list" | "environment/status"
    )
}

/// What carries out a request: decodes its parameters, checks the handshake, answers now or later.
pub(super) type Call = fn(&Context, Responder, Params);

/// Decodes parameters.
pub(super) fn decode<'a, T: Decode<'a>>(params: &'a Params) -> Result<T, RpcError> {
    Ok(decode::decode(params.as_json())?)
}

/// Checks that there are no parameters; an empty object is as good as none.
fn decode_none(params: &Params) -> Result<(), RpcError> {
    match params.as_json() {
        [b'{', ..] => Ok(()),
        _ => decode::<()>(params),
    }
}

fn environment_info(context: &Context, responder: Responder, params: Params) {
    let checked = decode_none(&params).and_then(|()| context.client("environment info"));
    responder.answer(checked.map(|_| context.server.whole_environment()));
}

fn environment_status(context: &Context, responder: Responder, params: Params) {
    let checked = decode_none(&params).and_then(|()| context.client("environment status"));
    responder.answer(checked.map(|_| EnvironmentStatus { status: "ready" }));
}

fn environment_config(context: &Context, responder: Responder, params: Params) {
    let checked = decode::<EnvironmentConfigParams>(&params).and_then(|params| {
        if params.config_paths.is_empty() && params.requirements_paths.is_empty() {
            return Err(RpcError::invalid_params(
                "at least one config or requirements path is required",
            ));
        }
        if params
            .config_paths
            .iter()
            .chain(&params.requirements_paths)
            .any(Vec::is_empty)
        {
            return Err(RpcError::invalid_params(
                "TOML paths must contain at least one key segment",
            ));
        }
        context.client("environment config")
    });
    responder.answer(checked.map(|_| environment::configuration(&context.server.environment)));
}
