//! A process as whoever started it sees it.

use super::error::{ExecServerError, Result};
use super::events::ReadResponse;
use super::events::{
    EventSubscriber, ExecOutputStream, ExecProcessEvent, ProcessEvents, ProcessExit, ProcessReader, ProcessState,
    RecvError, WaitError, Wake,
};
use super::exec_client::ExecServerClient;
use super::lock;
use super::process_stdin::ProcessStdin;
use crate::protocol::process::{ProcessSignal, TerminalSize};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// A process that was started on a server.
///
/// Its events are received from the first on. One stream of them misses nothing: [`events`](ExecServerProcess::events),
/// or what is made of it: [`stdout_and_stderr`](ExecServerProcess::stdout_and_stderr),
/// [`output`](ExecServerProcess::output). If nobody takes and reads that, a process that writes much stops, like one
/// whose pipe is full.
///
/// When this is dropped, the process runs on and its output is discarded, unless it was started with
/// [`kill_on_drop`](super::StartOptions::kill_on_drop).
pub struct ExecServerProcess {
    client: ExecServerClient,
    state: Arc<ProcessState>,
    events: Mutex<Option<ProcessEvents>>,
    stdin: ProcessStdin,
    pid: OnceLock<i32>,
    kill_on_drop: bool,
}

/// All that a process has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessOutput {
    /// How it ended.
    pub exit: ProcessExit,
    /// What it wrote to standard output, or its terminal.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl ExecServerProcess {
    pub(super) fn new(
        client: ExecServerClient,
        state: Arc<ProcessState>,
        events: ProcessEvents,
        kill_on_drop: bool,
        write_prefix: Box<str>,
    ) -> ExecServerProcess {
        ExecServerProcess {
            stdin: ProcessStdin::new(client.clone(), state.process_id().clone(), write_prefix),
            client,
            state,
            events: Mutex::new(Some(events)),
            pid: OnceLock::new(),
            kill_on_drop,
        }
    }

    /// The client's name for it.
    pub fn id(&self) -> &str {
        self.state.process_id()
    }

    /// The system's number for it on the server; `None` if it had ended before anybody asked, or the server does not tell.
    pub fn pid(&self) -> Option<i32> {
        if let Some(pid) = self.pid.get() {
            return Some(*pid);
        }
        let listed = self.client.list().ok()?;
        let listed = listed.into_iter().find(|listed| listed.process_id == self.id())?;
        listed.pid.map(|pid| *self.pid.get_or_init(|| pid))
    }

    /// The stream of all events. It can be taken once, and then is whoever's who took it.
    pub fn events(&self) -> Option<ProcessEvents> {
        lock(&self.events).take()
    }

    /// Readers of standard output (and of what a terminal shows) and of standard error, if
    /// [`events`](ExecServerProcess::events) was not taken.
    pub fn stdout_and_stderr(&self) -> Option<(ProcessReader, ProcessReader)> {
        self.events().map(ProcessEvents::take_output)
    }

    /// A reader of all output in the order in which the server read it, if [`events`](ExecServerProcess::events) was not
    /// taken.
    pub fn merged_output(&self) -> Option<ProcessReader> {
        self.events().map(ProcessEvents::merge_output)
    }

    /// One more receiver of events: the newest that there were, unless the process was started
    /// [`without_replay`](super::StartOptions::without_replay), and those that follow. A slow one is told what it missed.
    /// Any number of them may be had, and they hold nobody up.
    pub fn subscribe(&self) -> EventSubscriber {
        self.state.subscribe()
    }

    /// What grows with each event that arrives.
    pub fn wake(&self) -> &Wake {
        self.state.wake()
    }

    /// The input, if the process was started with one.
    pub fn stdin(&self) -> ProcessStdin {
        self.stdin.clone()
    }

    /// Writes to the input: see [`ProcessStdin::send`].
    ///
    /// # Errors
    /// As there.
    pub fn write(&self, input: &[u8]) -> Result<()> {
        self.stdin.send(input)
    }

    /// Ends the input: see [`ProcessStdin::close`].
    ///
    /// # Errors
    /// As there.
    pub fn close_stdin(&self) -> Result<()> {
        self.stdin.close()
    }

    /// Reads what the server retains: see [`ExecServerClient::read`]. For a process that has failed, the answer's
    /// `failure` says why.
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, after_seq: Option<u64>, max_bytes: Option<u64>, wait: Duration) -> Result<ReadResponse> {
        match self.failure() {
            None => self.client.read(self.id(), after_seq, max_bytes, wait),
            Some(failure) => Ok(ReadResponse {
                next_seq: self.wake().seen().saturating_add(1),
                exited: true,
                closed: true,
                failure: Some(failure),
                ..ReadResponse::default()
            }),
        }
    }

    /// Sends a signal: see [`ExecServerClient::signal`].
    ///
    /// # Errors
    /// As there.
    pub fn signal(&self, signal: ProcessSignal) -> Result<()> {
        self.client.signal(self.id(), signal)
    }

    /// Sets the size of the terminal: see [`ExecServerClient::resize`].
    ///
    /// # Errors
    /// As there.
    pub fn resize(&self, size: TerminalSize) -> Result<()> {
        self.client.resize(self.id(), size)
    }

    /// Kills it and all that descends from it: see [`ExecServerClient::terminate`].
    ///
    /// # Errors
    /// As there.
    pub fn terminate(&self, grace: Duration) -> Result<bool> {
        self.client.terminate(self.id(), grace)
    }

    /// Whether it has ended. Its descendants may still write.
    pub fn has_exited(&self) -> bool {
        self.state.exit().is_some()
    }

    /// How it ended: the code it gave, or 128 + n after signal n.
    pub fn exit_code(&self) -> Option<i32> {
        self.exit().map(|exit| exit.exit_code)
    }

    /// How it ended.
    pub fn exit(&self) -> Option<ProcessExit> {
        self.state.exit()
    }

    /// Why nothing more can be known of it.
    pub fn failure(&self) -> Option<String> {
        self.state.failure()
    }

    /// Waits until it has ended, for at most `timeout`. If [`events`](ExecServerProcess::events) was not taken, its
    /// output is discarded from now on.
    ///
    /// # Errors
    /// The time is over, or the process has failed: the connection is lost for good.
    pub fn wait(&self, timeout: Option<Duration>) -> std::result::Result<ProcessExit, WaitError> {
        drop(self.events());
        self.state.wait_exit(timeout)
    }

    /// All its output, and how it ended; waits for its last event. If [`events`](ExecServerProcess::events) was taken, the
    /// output is empty.
    ///
    /// # Errors
    /// [`ExecServerError::Disconnected`] with the reason if the process has failed, or if some of its output was skipped.
    pub fn output(&self) -> Result<ProcessOutput> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        if let Some(mut events) = self.events() {
            loop {
                match events.recv() {
                    Ok(ExecProcessEvent::Output(output)) => match output.stream {
                        ExecOutputStream::Stderr => stderr.extend_from_slice(&output.chunk),
                        ExecOutputStream::Stdout | ExecOutputStream::Pty => stdout.extend_from_slice(&output.chunk),
                    },
                    Ok(ExecProcessEvent::Exited { .. }) | Err(RecvError::Empty) => {}
                    Ok(ExecProcessEvent::Closed { .. }) | Err(RecvError::Ended) => break,
                    Ok(ExecProcessEvent::Failed(failure)) => return Err(ExecServerError::Disconnected(failure)),
                    Err(RecvError::Lagged(lagged)) => return Err(ExecServerError::Disconnected(lagged.to_string())),
                }
            }
        }
        self.state
            .wait_closed(None)
            .and_then(|()| self.state.wait_exit(None))
            .map(|exit| ProcessOutput { exit, stdout, stderr })
            .map_err(|e| ExecServerError::Disconnected(e.to_string()))
    }
}

impl Drop for ExecServerProcess {
    fn drop(&mut self) {
        if self.kill_on_drop && !self.state.is_closed() {
            // In the background: whoever drops it need not wait for the wire.
            self.client.session().condemn(self.state.process_id().clone());
        }
    }
}
