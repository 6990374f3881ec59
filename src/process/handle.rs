//! The handle to one process.

use super::family;
use super::output_log::{Event, Exit, OutputLog, Replay, Retention};
use super::run_limits::LimitMet;
use super::start::{StartError, StartSpec, Stdio, TerminalSize};
use super::stdin::Stdin;
use super::stdin_queue::Reply;
use super::supervisor;
use super::totals::{Share, Totals};
use crate::sys::mark::Kin;
use crate::sys::{ioctl, thread};
use log::error;
use nix::errno::Errno;
use nix::sys::eventfd::EventFd;
use nix::sys::signal as unix;
use nix::unistd::{Pid, tcgetpgrp};
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Output of no more than that is brief: an echo, a prompt, a line.
const BRIEF_BYTES: usize = 4096;

/// Who is to be told that a process has events to take.
pub trait Audience: Send + Sync {
    /// A number that no other audience has.
    fn id(&self) -> u64;
    /// `process` has events; it does not say so again until [`Process::take_events`] has taken all it could. `is_brief`
    /// says that it has not much to tell, or tells something for the first time.
    fn news(&self, process: &Arc<Process>, is_brief: bool);
    /// Whether so many processes have news that none should run ahead: each is to be heard soon.
    fn is_crowded(&self) -> bool {
        false
    }
}

/// Who has started a process and is told how it goes on. Called on the process's own thread, in this order.
pub trait Owner: Send {
    /// It runs, or could not be started and nothing is left of it. Comes before any event.
    fn started(&mut self, outcome: Result<Started, StartError>);
    /// All that had to wait for the start was done.
    fn settled(&mut self);
    /// It was reaped. Comes before the event that says so.
    fn exited(&mut self, process: &Arc<Process>);
    /// Its last event has been numbered. Not called if it could not be started.
    fn ended(&mut self, process: &Arc<Process>);
}

/// What there is to say of a process that runs.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// Its process id.
    pub pid: i32,
    /// Whether it is confined to a sandbox.
    pub is_confined: bool,
}

/// The bounds of one process.
#[derive(Clone)]
pub struct Limits {
    /// Of its output.
    pub retention: Retention,
    /// Bytes of queued input from which on writes are answered late.
    pub stdin_soft: usize,
    /// Bytes of queued input from which on writes are refused.
    pub stdin_hard: usize,
    /// Of all processes together.
    pub totals: Option<Arc<Totals>>,
}

/// A signal that a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGHUP
    Hangup,
    /// SIGINT
    Interrupt,
    /// SIGQUIT
    Quit,
    /// SIGKILL
    Kill,
    /// SIGUSR1
    Usr1,
    /// SIGUSR2
    Usr2,
    /// SIGTERM
    Terminate,
}

impl From<Signal> for unix::Signal {
    fn from(signal: Signal) -> unix::Signal {
        match signal {
            Signal::Hangup => unix::Signal::SIGHUP,
            Signal::Interrupt => unix::Signal::SIGINT,
            Signal::Quit => unix::Signal::SIGQUIT,
            Signal::Kill => unix::Signal::SIGKILL,
            Signal::Usr1 => unix::Signal::SIGUSR1,
            Signal::Usr2 => unix::Signal::SIGUSR2,
            Signal::Terminate => unix::Signal::SIGTERM,
        }
    }
}

/// What can be told of a process at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its process id, once it runs.
    pub pid: Option<i32>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// How it ended.
    pub exit: Option<Exit>,
    /// Whether there will be no more events.
    pub closed: bool,
    /// The number its next event will get.
    pub next_seq: u64,
    /// Bytes of output that are retained.
    pub retained_bytes: usize,
    /// The limit that it was ended for.
    pub limit_met: Option<LimitMet>,
}

/// What [`Process::wait`] made of its call-back.
pub enum WaitOutcome {
    /// There is news already: here is the call-back again.
    Ready(Box<dyn FnOnce() + Send>),
    /// It will be called once there is news.
    Waiting,
}

/// Why the terminal of a process could not be resized.
#[derive(Debug, thiserror::Error)]
pub enum ResizeError {
    /// It was started with pipes.
    #[error("it has no terminal")]
    NoTerminal,
    /// It has ended.
    #[error("it has ended")]
    Ended,
    /// What the system said.
    #[error(transparent)]
    System(#[from] io::Error),
}

/// One process: its output, its input, its life. Shared between its supervisor thread and whoever uses it.
///
/// Lock order: `state`, then nothing; `stdin`, then nothing. Neither is held while something else is waited for.
pub struct Process {
    id: Arc<str>,
    stdio: Stdio,
    state: Mutex<State>,
    stdin: Mutex<Stdin>,
}

pub(super) struct State {
    pub(super) log: OutputLog,
    pub(super) phase: Phase,
    /// What the supervisor is to do about its end.
    pub(super) ending: Ending,
    /// The supervisor reads no output until a client has taken some.
    pub(super) stalled: bool,
    wake: Option<Arc<EventFd>>,
    audience: Option<Arc<dyn Audience>>,
    /// The audience was told and has not taken everything yet.
    announced: bool,
    waiters: Vec<Waiter>,
    /// Until the start has succeeded or failed.
    launch: Option<Box<Launch>>,
    /// By which what it leaves is found, if the kernel does not know.
    kin: Option<Kin>,
    totals: Option<Arc<Totals>>,
    /// What the log has of the total.
    share: Share,
}

/// What is of use until a process is started.
struct Launch {
    /// Until the supervisor has it.
    owner: Option<Box<dyn Owner>>,
    /// What is to be done then.
    to_do: Vec<Box<dyn FnOnce() + Send>>,
}

pub(super) enum Phase {
    Starting,
    /// Runs, or is a zombie: the pid is its own.
    Running(Pid),
    /// Was reaped: the pid may be another's.
    Reaped,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// It may run.
    None,
    /// It was asked to end and is to be killed then.
    Graceful(Instant),
    /// It is to be killed now.
    Kill,
}

struct Waiter {
    token: u64,
    after: u64,
    then: Box<dyn FnOnce() + Send>,
}

impl Process {
    /// A process that is yet to be launched. An `audience` is attached from the beginning.
    pub fn new(
        id: &str,
        stdio: Stdio,
        limits: Limits,
        audience: Option<Arc<dyn Audience>>,
        owner: Box<dyn Owner>,
    ) -> Arc<Process> {
        let mut log = OutputLog::new(limits.retention);
        if audience.is_some() {
            log.attach();
        }
        Arc::new(Process {
            id: id.into(),
            stdio,
            state: Mutex::new(State {
                log,
                phase: Phase::Starting,
                ending: Ending::None,
                stalled: false,
                wake: None,
                audience,
                announced: false,
                waiters: Vec::new(),
                launch: Some(Box::new(Launch {
                    owner: Some(owner),
                    to_do: Vec::new(),
                })),
                kin: None,
                share: Share::of_retained(limits.totals.as_ref()),
                totals: limits.totals.clone(),
            }),
            stdin: Mutex::new(Stdin::new(stdio, &limits)),
        })
    }

    /// Starts it, on a thread of its own; the owner is told the outcome. To be called once, and `spec` is to have the
    /// `stdio` that [`new`](Process::new) was given.
    pub fn launch(self: &Arc<Process>, spec: StartSpec) {
        supervisor::launch(self, spec);
    }

    /// The name its client gave it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The same, to be kept.
    pub fn shared_id(&self) -> Arc<str> {
        self.id.clone()
    }

    /// What it is now.
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state();
        Snapshot {
            pid: if let Phase::Running(pid) = state.phase {
                Some(pid.as_raw())
            } else {
                None
            },
            tty: matches!(self.stdio, Stdio::Terminal(_)),
            exit: state.log.exit(),
            closed: state.log.is_closed(),
            next_seq: state.log.next_seq(),
            retained_bytes: state.log.retained_bytes(),
            limit_met: state.log.limit_met(),
        }
    }

    /// Has `then` called once the start has succeeded or failed, after all that were to be called before it. False, and
    /// it is not called, if that has happened already.
    pub fn once_started(&self, then: Box<dyn FnOnce() + Send>) -> bool {
        match &mut self.state().launch {
            Some(launch) => launch.to_do.push(then),
            None => return false,
        }
        true
    }

    /// The start has succeeded or failed, and its outcome was told.
    pub(super) fn settle_start(&self) {
        loop {
            let mut state = self.state();
            let list = match &mut state.launch {
                Some(launch) if !launch.to_do.is_empty() => std::mem::take(&mut launch.to_do),
                _ => {
                    state.launch = None;
                    return;
                }
            };
            drop(state);
            for then in list {
                then();
            }
        }
    }

    /// Attaches a client: it is told of the events from now on, and reading waits for it to take them.
    pub fn attach(&self, audience: Arc<dyn Audience>) {
        let mut state = self.state();
        state.log.attach();
        state.count();
        state.announced = false;
        state.audience = Some(audience);
    }

    /// Detaches the client with that [`Audience::id`], if it is the attached one.
    pub fn detach(&self, audience: u64) {
        let mut state = self.state();
        if state.audience.as_ref().is_some_and(|a| a.id() == audience) {
            state.audience = None;
            state.announced = false;
            state.log.detach();
            state.count();
            state.resume_reading();
        }
    }

    /// Takes the next events for the attached client with that [`Audience::id`], until about `max_bytes` of output.
    /// Returns whether there are more, which will not be announced.
    pub fn take_events(&self, audience: u64, max_bytes: usize, events: &mut Vec<(u64, Event)>) -> bool {
        let mut state = self.state();
        if state.audience.as_ref().is_none_or(|a| a.id() != audience) {
            return false;
        }
        let mut bytes = 0;
        while bytes < max_bytes {
            let Some((seq, event)) = state.log.take() else { break };
            if let Event::Output(_, output) = &event {
                bytes += output.len();
            }
            events.push((seq, event));
        }
        state.count();
        if state.has_credit() {
            state.resume_reading();
        }
        state.announced = state.log.has_untaken();
        state.announced
    }

    /// The client has done with the events up to number `seq`; see [`OutputLog::acknowledge`].
    pub fn acknowledge(self: &Arc<Process>, seq: u64) {
        self.record(|state| {
            state.log.acknowledge(seq);
            if state.log.has_credit() {
                state.resume_reading();
            }
        });
    }

    /// Whether it may be forgotten once it has ended; see [`OutputLog::is_told`].
    pub fn is_told(&self) -> bool {
        self.state().log.is_told()
    }

    /// Nobody will ask again for what the client has taken: it is not kept any more.
    pub fn keep_nothing(&self) {
        let mut state = self.state();
        state.log.keep_nothing();
        state.count();
    }

    /// Gives up the older half of what may be kept; see [`OutputLog::halve`].
    pub fn halve(&self) {
        let mut state = self.state();
        state.log.halve();
        state.count();
    }

    /// The retained output after number `after`; see [`OutputLog::replay`].
    pub fn replay(&self, after: u64, max_bytes: Option<usize>) -> Replay {
        self.state().log.replay(after, max_bytes)
    }

    /// Calls `then` once there is an event after number `after`, or no more will come, unless
    /// [`stop_waiting`](Process::stop_waiting) was called with the same `token` before.
    pub fn wait(&self, token: u64, after: u64, then: Box<dyn FnOnce() + Send>) -> WaitOutcome {
        let mut state = self.state();
        if state.log.has_news(after) {
            return WaitOutcome::Ready(then);
        }
        state.waiters.push(Waiter { token, after, then });
        WaitOutcome::Waiting
    }

    /// Gives the call-back of a [`wait`](Process::wait) back, if it was not called yet.
    pub fn stop_waiting(&self, token: u64) -> Option<Box<dyn FnOnce() + Send>> {
        let mut state = self.state();
        let i = state.waiters.iter().position(|w| w.token == token)?;
        Some(state.waiters.swap_remove(i).then)
    }

    /// Writes to its input; see [`StdinQueue::push`](super::StdinQueue::push). `end` closes a pipe after that, and types
    /// the end-of-file character on a terminal.
    pub fn write(&self, id: &str, bytes: Vec<u8>, end: bool, reply: Reply) {
        let is_left = self.stdin().write(id, bytes, end, reply);
        if is_left {
            self.state().wake();
        }
    }

    /// Sends a signal: to the foreground job of its terminal, else to its process group. One that was reaped gets none.
    ///
    /// # Errors
    /// What the system said.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let terminal = match self.stdio {
            Stdio::Terminal(_) => self.stdin().fd(),
            Stdio::Pipes { .. } => None,
        };
        let state = self.state();
        // Under the lock, so that it cannot be reaped, and its pid given to another, meanwhile.
        let Phase::Running(pid) = state.phase else {
            return Ok(());
        };
        let foreground = terminal
            .and_then(|fd| tcgetpgrp(fd).ok())
            .filter(|group| group.as_raw() > 0);
        Ok(family::signal_group(foreground.unwrap_or(pid), signal.into())?)
    }

    /// Ends it and everything it has started: at once, or after it had some time to react to SIGTERM. Returns whether
    /// it had not been reaped yet; if it had, what it left behind is ended.
    pub fn terminate(&self, grace: Duration) -> bool {
        let ending = if grace.is_zero() {
            Ending::Kill
        } else {
            Ending::Graceful(Instant::now() + grace)
        };
        let state = self.end(ending);
        let Phase::Reaped = state.phase else { return true };
        let (kin, is_over) = (state.kin, state.wake.is_none());
        drop(state);
        let Some(kin) = kin else { return false };
        if !grace.is_zero() {
            family::ask_to_end(kin);
        }
        // Nobody is there to be woken any more.
        if is_over {
            let kill = Box::new(move || {
                family::wait(kin, grace);
                family::kill(None, kin);
            });
            if let Err(e) = thread::start("killer", supervisor::STACK_BYTES, kill) {
                error!(
                    process = self.id();
                    "failed to start a thread that kills what process {} has left: {e}",
                    self.id
                );
            }
        }
        false
    }

    /// Ends it and everything it has started at once, but for what it has left if all is over with it.
    pub fn kill(&self) {
        drop(self.end(Ending::Kill));
    }

    fn end(&self, ending: Ending) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.ending = match (state.ending, ending) {
            (Ending::Kill, _) => Ending::Kill,
            (Ending::Graceful(a), Ending::Graceful(b)) => Ending::Graceful(a.min(b)),
            (_, ending) => ending,
        };
        if let (Phase::Running(pid), Ending::Graceful(_)) = (&state.phase, ending) {
            let _ = family::signal_group(*pid, unix::Signal::SIGTERM);
        }
        state.wake();
        state
    }

    /// Sets the size of its terminal.
    ///
    /// # Errors
    /// When it has no terminal or has ended.
    pub fn resize(&self, size: TerminalSize) -> Result<(), ResizeError> {
        if !matches!(self.stdio, Stdio::Terminal(_)) {
            return Err(ResizeError::NoTerminal);
        }
        let fd = self.stdin().fd().ok_or(ResizeError::Ended)?;
        Ok(ioctl::set_terminal_size(fd.as_fd(), size.rows, size.cols)?)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stdin(&self) -> MutexGuard<'_, Stdin> {
        self.stdin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the log, and tells whom it concerns.
    pub(super) fn record(self: &Arc<Process>, change: impl FnOnce(&mut State)) {
        let mut due = Vec::new();
        let mut crowded = None;
        let audience = {
            let mut state = self.state();
            change(&mut state);
            if state.count() {
                crowded = state.totals.clone();
            }
            let State { waiters, log, .. } = &mut *state;
            if !waiters.is_empty() {
                due.extend(waiters.extract_if(.., |w| log.has_news(w.after)));
            }
            let tell = !state.announced && state.log.has_untaken();
            state.announced |= tell;
            let is_brief = state.log.untaken_bytes() <= BRIEF_BYTES || state.log.has_taken_nothing();
            state
                .audience
                .clone()
                .filter(|_| tell)
                .map(|audience| (audience, is_brief))
        };
        if crowded.is_some_and(|totals| !totals.make_room()) {
            self.halve();
        }
        if let Some((audience, is_brief)) = audience {
            audience.news(self, is_brief);
        }
        for waiter in due {
            (waiter.then)();
        }
    }

    /// Hands the owner to the supervisor.
    pub(super) fn take_owner(&self) -> Option<Box<dyn Owner>> {
        self.state().launch.as_mut()?.owner.take()
    }

    /// The supervisor is there and can be woken.
    pub(super) fn attend(&self, wake: Arc<EventFd>) {
        self.state().wake = Some(wake);
    }

    /// The supervisor is done: what is only of use while it runs goes. Returns what it may have been told too late.
    pub(super) fn retire(&self) -> Ending {
        self.stdin().close();
        let mut state = self.state();
        state.wake = None;
        state.ending
    }
}

impl State {
    pub(super) fn started(&mut self, pid: Pid, kin: Option<Kin>) {
        self.phase = Phase::Running(pid);
        self.kin = kin;
    }

    /// Whether output may be read: not while the client has too much of it to take yet.
    pub(super) fn has_credit(&self) -> bool {
        let is_in_turn = || self.log.untaken_bytes() == 0 || !self.is_crowded();
        self.log.has_credit() && is_in_turn()
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.audience.as_ref().is_some_and(|audience| audience.is_crowded())
    }

    /// Counts what is retained. Returns whether there is too much altogether.
    fn count(&mut self) -> bool {
        self.share.set(self.log.weight());
        self.share.is_of_too_much()
    }

    fn wake(&self) {
        if let Some(wake) = &self.wake {
            // Otherwise it can only fail when it is about to be read anyway.
            while wake.write(1) == Err(Errno::EINTR) {}
        }
    }

    fn resume_reading(&mut self) {
        if std::mem::take(&mut self.stalled) {
            self.wake();
        }
    }
}

#[cfg(test)]
#[path = "handle_tests.rs"]
mod tests;
