//! The processes of a session, and what comes in for them.

use super::{Duty, LinkState, Registered, Session};
use crate::client::error::{ExecServerError, Result};
use crate::client::events::{
    AckSink, ExecOutputStream, ExecProcessEvent, ProcessEvents, ProcessOptions, ProcessOutputChunk, ProcessState,
    Progress,
};
use crate::client::incoming::{Closed, Exited};
use crate::client::lock;
use crate::client::pending::{CallError, Purpose};
use crossbeam_channel::{Receiver, bounded};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use tungstenite::Bytes;

impl Session {
    /// Gets ready for the events of a process that is about to be started.
    pub(in crate::client) fn register(
        self: &Arc<Session>,
        process_id: &Arc<str>,
        acknowledges: bool,
        replay: bool,
    ) -> Result<(Arc<ProcessState>, ProcessEvents)> {
        let options = ProcessOptions {
            max_queued_bytes: self.options.max_queued_bytes,
            replay,
            ..ProcessOptions::default()
        };
        let sink: Option<Arc<dyn AckSink>> = match acknowledges {
            true => Some(Arc::new(Acknowledger(Arc::downgrade(self)))),
            false => None,
        };
        let (state, events) = ProcessState::new(process_id.clone(), &options, sink);
        let mut processes = lock(&self.processes);
        if processes.contains_key(process_id) {
            return Err(ExecServerError::Protocol(format!(
                "session already registered for process {process_id}"
            )));
        }
        let registered = Registered {
            state: state.clone(),
            is_started: false,
        };
        processes.insert(process_id.clone(), registered);
        drop(processes);
        // It may have failed before the process was there to be told.
        let failure = match &lock(&self.link).state {
            LinkState::Failed(reason) => Some(reason.clone()),
            _ => None,
        };
        if let Some(reason) = failure {
            state.fail(reason);
        }
        Ok((state, events))
    }

    /// The server knows a process for sure.
    pub(in crate::client) fn mark_started(&self, process_id: &str) {
        if let Some(registered) = lock(&self.processes).get_mut(process_id) {
            registered.is_started = true;
        }
    }

    pub(in crate::client) fn unregister(&self, state: &Arc<ProcessState>) {
        let mut processes = lock(&self.processes);
        if processes
            .get(state.process_id())
            .is_some_and(|registered| Arc::ptr_eq(&registered.state, state))
        {
            processes.remove(state.process_id());
        }
    }

    fn process(&self, process_id: &str) -> Option<Arc<ProcessState>> {
        lock(&self.processes)
            .get(process_id)
            .map(|registered| registered.state.clone())
    }

    /// The processes whose events are waited for, and which the server knows.
    pub(in crate::client) fn started_processes(&self) -> Vec<Arc<ProcessState>> {
        let processes = lock(&self.processes);
        let started = processes.values().filter(|registered| registered.is_started);
        started.map(|registered| registered.state.clone()).collect()
    }

    /// Starts a process that was registered. If that fails, it is no more.
    pub(in crate::client) fn start(&self, state: &Arc<ProcessState>, params: Vec<u8>) -> Result<()> {
        let mut link = lock(&self.link);
        // Counted while the connection is in use: so it is not recovered before the start has ended.
        let connection = loop {
            if let LinkState::Up(connection) = &link.state {
                break connection.clone();
            }
            drop(link);
            if let Err(e) = self.connection() {
                self.unregister(state);
                return Err(e);
            }
            link = lock(&self.link);
        };
        link.starts += 1;
        drop(link);
        let started = self.call_on(&connection, Purpose::Regular, None, "process/start", params, None);
        match &started {
            Err(_) => self.unregister(state),
            Ok(_) => self.mark_started(state.process_id()),
        }
        // It may run all the same; with the connection lost, it is ended on the next.
        let process_id = state.process_id().clone();
        match &started {
            Ok(_) | Err(CallError::Failed(ExecServerError::Server { .. })) => {}
            Err(CallError::Lost) => lock(&self.orphans).push(process_id),
            Err(_) => self.condemn(process_id),
        }
        lock(&self.link).starts -= 1;
        self.link_changed.notify_all();
        started.map(drop).map_err(|e| self.explain(&connection, e))
    }

    /// Has a process ended by the second thread.
    pub(in crate::client) fn condemn(&self, process_id: Arc<str>) {
        lock(&self.link).condemned += 1;
        let _ = self.duties.send(Duty::Terminate(process_id));
    }

    /// The second thread has done with one of them.
    pub(in crate::client) fn condemned_done(&self) {
        lock(&self.link).condemned -= 1;
        self.link_changed.notify_all();
    }

    /// Waits until no start waits for its answer. They all end with their connection.
    pub(in crate::client) fn wait_starts(&self) {
        let mut link = lock(&self.link);
        while link.starts > 0 {
            link = self.link_changed.wait(link).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(in crate::client) fn receive_output(&self, process_id: &str, seq: u64, stream: ExecOutputStream, chunk: Bytes) {
        let chunk = ProcessOutputChunk { seq, stream, chunk };
        self.receive(process_id, ExecProcessEvent::Output(chunk));
    }

    /// Receives output that lies in the memory of a server in this program.
    pub(in crate::client) fn receive_shared_output(
        &self,
        process_id: &str,
        seq: u64,
        stream: ExecOutputStream,
        mut chunk: Bytes,
    ) {
        let Some(state) = self.process(process_id) else { return };
        if state.has_replay() {
            // What is kept long would keep the server from reading into that memory again: to map new memory for each
            // chunk costs more than to copy it.
            chunk = Bytes::copy_from_slice(&chunk);
        }
        let chunk = ProcessOutputChunk { seq, stream, chunk };
        self.deliver(&state, ExecProcessEvent::Output(chunk));
    }

    pub(in crate::client) fn receive_exited(&self, exited: Exited) {
        let event = ExecProcessEvent::Exited {
            seq: exited.seq,
            exit_code: exited.exit_code,
            signal: exited.signal,
            sandbox_denied: exited.sandbox_denied,
            ended_by: exited.ended_by,
        };
        self.receive(&exited.process_id, event);
    }

    pub(in crate::client) fn receive_closed(&self, closed: &Closed) {
        self.receive(&closed.process_id, ExecProcessEvent::Closed { seq: closed.seq });
    }

    fn receive(&self, process_id: &str, event: ExecProcessEvent) {
        if let Some(state) = self.process(process_id) {
            self.deliver(&state, event);
        }
    }

    fn deliver(&self, state: &Arc<ProcessState>, event: ExecProcessEvent) {
        match state.on_event(event) {
            Progress::Open => {}
            Progress::Closed => self.unregister(state),
            Progress::Failed => {
                self.unregister(state);
                self.condemn(state.process_id().clone());
            }
        }
    }

    pub(in crate::client) fn receive_missing_changed(&self, watch_id: u64) {
        let mut watch = lock(&self.watch);
        if watch.as_ref().is_some_and(|(id, _)| *id == watch_id)
            && let Some((_, sender)) = watch.take()
        {
            let _ = sender.try_send(());
        }
    }

    /// The next watch of missing paths; the one before ends.
    pub(in crate::client) fn new_watch(&self) -> (u64, Receiver<()>) {
        let (sender, receiver) = bounded(1);
        let mut watch = lock(&self.watch);
        let id = self.names.fetch_add(1, Ordering::Relaxed);
        *watch = Some((id, sender));
        (id, receiver)
    }
}

/// Sends acknowledgements over the connection there is.
struct Acknowledger(Weak<Session>);

impl AckSink for Acknowledger {
    fn ack(&self, process_id: &str, seq: u64) {
        let Some(session) = self.0.upgrade() else { return };
        // Without a connection it is repeated on the next one.
        let Some(connection) = session.connection_now() else {
            return;
        };
        let process_id: Arc<str> = process_id.into();
        connection.post(|posted| posted.ack(&process_id, seq));
    }
}
