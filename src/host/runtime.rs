//! The thread between a client and its server: never waits for either alone.

use super::event_queue::{EventQueue, InProcessServerEvent, ProcessOutput, Refused, ServerNotification, ServerRequest};
use super::{JsonText, OVERLOADED};
use crate::protocol::error::RpcError;
use crate::protocol::message::{self, Limits, Message, RequestId};
use crate::server::Server;
use crate::sys::defect;
use crate::transport::memory::{ClientEnd, ToClient, ToServer};
use crossbeam_channel::{Receiver, Select, Sender, TryRecvError, TrySendError};
use log::{error, warn};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tungstenite::Bytes;

/// How long a server that does not read may take for the answers to its requests when the host ends.
const LAST_ANSWERS_LIMIT: Duration = Duration::from_millis(250);

/// How long the end of the connection may take after everything in it has ended.
const LAST_THREADS_LIMIT: Duration = Duration::from_millis(250);

/// The result of a request, or the error with which it was refused.
pub(super) type Answered = Result<JsonText, RpcError>;

/// What a client wants.
pub(super) enum Command {
    Request {
        id: RequestId,
        method: Box<str>,
        params: Bytes,
        bulk: Option<(&'static str, Bytes)>,
        reply: Sender<Answered>,
    },
    Notify {
        method: Box<str>,
        params: Bytes,
    },
    Respond {
        id: RequestId,
        result: Result<Bytes, RpcError>,
    },
}

/// The server, where it is the host's own.
pub(super) struct Embedded {
    pub(super) server: Arc<Server>,
    /// Told when the connection is over.
    pub(super) ended: Receiver<()>,
}

/// Moves what comes from either side to the other, by the rules of [`super`].
pub(super) struct Runtime {
    server: ClientEnd,
    commands: Receiver<Command>,
    events: Arc<EventQueue>,
    /// Told when the consumer has taken what is to be acknowledged.
    consumed: Receiver<()>,
    /// Closes when the host is to end.
    open: Receiver<()>,
    /// Requests that the server has not answered.
    pending: HashMap<RequestId, Sender<Answered>>,
    /// Requests of the server's that the consumer has not answered.
    asked: HashSet<RequestId>,
    /// What must arrive at the server and did not find room yet. While there is something nothing more is taken from
    /// the server, so that this grows by no more than the consumer sends.
    held: VecDeque<ToServer>,
}

/// Why the host ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is told to, or nobody is left to tell it anything.
    Asked,
    /// The server is gone.
    ServerGone,
}

impl Runtime {
    pub(super) fn new(
        server: ClientEnd,
        commands: Receiver<Command>,
        events: Arc<EventQueue>,
        consumed: Receiver<()>,
        open: Receiver<()>,
    ) -> Runtime {
        Runtime {
            server,
            commands,
            events,
            consumed,
            open,
            pending: HashMap::new(),
            asked: HashSet::new(),
            held: VecDeque::new(),
        }
    }

    /// Runs until one side is gone, and then ends the other. A defect here ends both.
    pub(super) fn run(mut self, embedded: Option<Embedded>) {
        let end = loop {
            let stepped = catch_unwind(AssertUnwindSafe(|| self.step()));
            if let Err(end) = stepped.unwrap_or_else(|_| {
                error!("an in-process host has failed in an unforeseen way; it ends");
                Err(End::ServerGone)
            }) {
                break end;
            }
        };
        self.finish(end);
        if let Some(Embedded { server, ended }) = embedded {
            server.shut_down();
            let _ = ended.recv_timeout(LAST_THREADS_LIMIT);
        }
    }

    /// Waits for one thing to happen and deals with it.
    fn step(&mut self) -> Result<(), End> {
        let mut select = Select::new();
        let open = select.recv(&self.open);
        let commands = select.recv(&self.commands);
        let consumed = select.recv(&self.consumed);
        let server = if self.held.is_empty() {
            select.recv(&self.server.incoming)
        } else {
            select.send(&self.server.outgoing)
        };
        match select.ready() {
            // Nothing is ever sent there.
            i if i == open => Err(End::Asked),
            i if i == commands => match self.commands.try_recv() {
                Ok(command) => self.carry_out(command),
                Err(TryRecvError::Empty) => Ok(()),
                Err(TryRecvError::Disconnected) => Err(End::Asked),
            },
            i if i == consumed => {
                let _ = self.consumed.try_recv();
                self.acknowledge()
            }
            i if i == server && !self.held.is_empty() => self.send_held(),
            _ => match self.server.incoming.try_recv() {
                Ok(message) => self.receive(message),
                Err(TryRecvError::Empty) => Ok(()),
                Err(TryRecvError::Disconnected) => Err(End::ServerGone),
            },
        }
    }

    fn carry_out(&mut self, command: Command) -> Result<(), End> {
        match command {
            Command::Request {
                id,
                method,
                params,
                bulk,
                reply,
            } => {
                defect::point("host", || method.as_bytes());
                if self.pending.contains_key(&id) {
                    let error = format!("duplicate request id: {id}");
                    let _ = reply.send(Err(RpcError::invalid_request(error)));
                    return Ok(());
                }
                // Its output is not acknowledged, so nothing would hold it back from where events wait.
                if method.starts_with("command/exec") {
                    let error = format!("`{method}` is not for clients within the server's program: use process/start");
                    let _ = reply.send(Err(RpcError::method_not_found(error)));
                    return Ok(());
                }
                let request = ToServer::Request {
                    id: id.clone(),
                    method,
                    params,
                    bulk,
                    // Answers are given out as JSON text.
                    raw: false,
                };
                let (error, outcome) = match self.server.outgoing.try_send(request) {
                    Ok(()) => {
                        self.pending.insert(id, reply);
                        return Ok(());
                    }
                    Err(TrySendError::Full(_)) => {
                        let error = RpcError::new(OVERLOADED, "in-process exec-server request queue is full");
                        (error, Ok(()))
                    }
                    Err(TrySendError::Disconnected(_)) => (processor_closed(), Err(End::ServerGone)),
                };
                let _ = reply.send(Err(error));
                outcome
            }
            Command::Notify { method, params } => {
                match self.server.outgoing.try_send(ToServer::Notification { method, params }) {
                    Err(TrySendError::Full(_)) => warn!("a notification is dropped: the server's queue is full"),
                    Err(TrySendError::Disconnected(_)) => return Err(End::ServerGone),
                    Ok(()) => {}
                }
                Ok(())
            }
            Command::Respond { id, result } => {
                if self.asked.remove(&id) {
                    self.answer_server(&id, &result)?;
                }
                Ok(())
            }
        }
    }

    fn receive(&mut self, message: ToClient) -> Result<(), End> {
        let text = match message {
            ToClient::Message(text) => {
                defect::point("host", || &text);
                text
            }
            ToClient::Answer { .. } => {
                warn!("the server answers with bytes that were asked for in base64");
                return Ok(());
            }
            ToClient::Output {
                process_id,
                seq,
                stream,
                chunk,
            } => {
                let output = InProcessServerEvent::Output(ProcessOutput {
                    process_id,
                    seq,
                    stream,
                    chunk,
                });
                return self.events.deliver(output, None).map_err(|_| End::Asked);
            }
        };
        // The server is part of this program: its messages may be as long as they are.
        let limits = Limits {
            max_values: usize::MAX,
            ..Limits::default()
        };
        match message::parse(&text, &limits) {
            Err(e) => warn!("failed to parse a message of the server: {e}"),
            Ok(Message::Response { id, result }) => self.settle(&id, Ok(part(&text, Some(result)))),
            Ok(Message::Error { id, error }) => {
                let error = serde_json::from_slice(error);
                self.settle(&id, Err(error.unwrap_or_else(|e| RpcError::internal(e.to_string()))));
            }
            Ok(Message::Notification { method, params }) => {
                let params = part(&text, params);
                return self.tell(method.into_owned(), params);
            }
            Ok(Message::Request { id, method, params }) => {
                let request = ServerRequest {
                    id: id.clone(),
                    method: method.into_owned(),
                    params: part(&text, params),
                };
                return self.ask(id, request);
            }
        }
        Ok(())
    }

    /// Gives an answer to whoever waits for it.
    fn settle(&mut self, id: &RequestId, answer: Answered) {
        match (self.pending.remove(id), answer) {
            // Nobody waits if the thread that asked is gone.
            (Some(reply), answer) => drop(reply.send(answer)),
            (None, Ok(_)) => warn!("the server answers a request {id} that there is not"),
            (None, Err(error)) => warn!("the server says: {error}"),
        }
    }

    fn tell(&mut self, method: String, params: JsonText) -> Result<(), End> {
        let is_of_process = matches!(&*method, "process/output" | "process/exited" | "process/closed");
        let closes = if method == "process/closed" {
            process_of(&params)
        } else {
            None
        };
        let notification = InProcessServerEvent::ServerNotification(ServerNotification { method, params });
        let queued = if is_of_process {
            self.events.deliver(notification, closes)
        } else {
            self.events.offer(notification)
        };
        match queued {
            Ok(()) => Ok(()),
            Err(Refused::Full) => {
                self.events.skip();
                Ok(())
            }
            Err(Refused::Closed) => Err(End::Asked),
        }
    }

    fn ask(&mut self, id: RequestId, request: ServerRequest) -> Result<(), End> {
        let error = match self.events.offer(InProcessServerEvent::ServerRequest(request)) {
            Ok(()) => {
                self.asked.insert(id);
                return Ok(());
            }
            Err(Refused::Full) => RpcError::new(OVERLOADED, "in-process server request queue is full"),
            Err(Refused::Closed) => RpcError::internal("in-process server request consumer is closed"),
        };
        self.answer_server(&id, &Err(error))
    }

    fn answer_server(&mut self, id: &RequestId, result: &Result<Bytes, RpcError>) -> Result<(), End> {
        let mut text = Vec::new();
        match result {
            Ok(result) => message::write_raw_result(&mut text, id, result),
            Err(error) => message::write_error(&mut text, Some(id), error),
        }
        self.hold(ToServer::Answer(text.into()))
    }

    fn acknowledge(&mut self) -> Result<(), End> {
        for (process_id, seq) in self.events.take_due() {
            let mut params = br#"{"processId":"#.to_vec();
            message::write_json_string(&mut params, &process_id);
            params.extend_from_slice(br#","seq":"#);
            params.extend_from_slice(seq.to_string().as_bytes());
            params.push(b'}');
            self.hold(ToServer::Notification {
                method: "process/ack".into(),
                params: params.into(),
            })?;
        }
        Ok(())
    }

    /// Sends what must arrive, now or when there is room.
    fn hold(&mut self, message: ToServer) -> Result<(), End> {
        self.held.push_back(message);
        self.send_held()
    }

    fn send_held(&mut self) -> Result<(), End> {
        while let Some(message) = self.held.pop_front() {
            match self.server.outgoing.try_send(message) {
                Ok(()) => {}
                Err(TrySendError::Full(message)) => {
                    self.held.push_front(message);
                    return Ok(());
                }
                Err(TrySendError::Disconnected(_)) => return Err(End::ServerGone),
            }
        }
        Ok(())
    }

    /// Leaves nobody waiting, and then the connection.
    fn finish(mut self, end: End) {
        if end == End::Asked {
            // What was sent before counts.
            let before: Vec<Command> = self.commands.try_iter().take(self.commands.len()).collect();
            for command in before {
                if self.carry_out(command).is_err() {
                    break;
                }
            }
            let error = Err(shutting_down());
            for id in std::mem::take(&mut self.asked) {
                let _ = self.answer_server(&id, &error);
            }
            let deadline = Instant::now() + LAST_ANSWERS_LIMIT;
            for message in std::mem::take(&mut self.held) {
                if self.server.outgoing.send_deadline(message, deadline).is_err() {
                    break;
                }
            }
        }
        for (_, reply) in self.pending.drain() {
            let error = match end {
                End::Asked => shutting_down(),
                End::ServerGone => processor_closed(),
            };
            let _ = reply.send(Err(error));
        }
        self.events.end();
    }
}

fn shutting_down() -> RpcError {
    RpcError::internal("in-process exec-server runtime is shutting down")
}

fn processor_closed() -> RpcError {
    RpcError::internal("in-process exec-server request processor is closed")
}

/// A part of a message, which it shares; `null` if there is none.
fn part(message: &Bytes, part: Option<&[u8]>) -> JsonText {
    JsonText(part.map_or(Bytes::from_static(b"null"), |part| message.slice_ref(part)))
}

/// The process that a notification is about.
fn process_of(params: &JsonText) -> Option<Box<str>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Named<'a> {
        #[serde(borrow)]
        process_id: Cow<'a, str>,
    }
    params.decode::<Named<'_>>().ok().map(|named| named.process_id.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::memory::{self, ServerEnd};
    use crossbeam_channel::bounded;
    use std::num::NonZeroUsize;

    fn runtime() -> (Runtime, ServerEnd) {
        let (end, server) = memory::pair(NonZeroUsize::MIN);
        let events = EventQueue::new(1, (1, 1), bounded(1).0);
        let runtime = Runtime::new(end, bounded(1).1, Arc::new(events), bounded(1).1, bounded(0).1);
        (runtime, server)
    }

    fn message(text: &'static str) -> ToClient {
        ToClient::Message(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_request_of_the_server_that_nobody_would_see_is_refused() {
        let (mut runtime, server) = runtime();
        runtime.events.close();
        assert!(runtime.receive(message(r#"{"id":5,"method":"ask"}"#)).is_ok());
        let Ok(ToServer::Answer(answer)) = server.incoming.try_recv() else {
            panic!("no answer");
        };
        let refusal = r#"{"error":{"code":-32603,"message":"in-process server request consumer is closed"},"id":5}"#;
        assert_eq!(answer, refusal);
        // And there is no use in going on.
        let told = runtime.receive(message(r#"{"method":"told"}"#));
        assert!(told == Err(End::Asked));
    }

    #[test]
    fn what_is_no_message_is_passed_over() {
        let (mut runtime, _server) = runtime();
        for text in [
            "",
            "[]",
            "{}",
            r#"{"id":1,"result":1}"#,
            r#"{"error":{"code":1,"message":"x"},"id":-1}"#,
        ] {
            assert!(runtime.receive(message(text)).is_ok());
        }
    }

    #[test]
    fn acknowledgements_wait_for_room() {
        let (mut runtime, server) = runtime();
        let output = |seq| ToClient::Output {
            process_id: "a\"b".into(),
            seq,
            stream: "stdout",
            chunk: Bytes::from_static(b"x"),
        };
        for seq in 1..=3 {
            assert!(runtime.receive(output(seq)).is_ok());
            runtime.events.next(None);
            assert!(runtime.acknowledge().is_ok());
        }
        assert_eq!(runtime.held.len(), 2);
        let mut acknowledged = Vec::new();
        while let Ok(ToServer::Notification { method, params }) = server.incoming.try_recv() {
            assert_eq!(&*method, "process/ack");
            acknowledged.push(String::from_utf8(params.to_vec()).unwrap());
            assert!(runtime.send_held().is_ok());
        }
        let expected: Vec<String> = (1..=3)
            .map(|seq| format!(r#"{{"processId":"a\"b","seq":{seq}}}"#))
            .collect();
        assert_eq!(acknowledged, expected);
    }
}
