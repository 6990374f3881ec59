//! A command in the foreground: its output goes to ours, our input and signals go to it.
//!
//! The main thread waits for signals and for the time to be over. One thread connects, starts the command and writes
//! its output; one reads standard input; and one makes the calls that signals ask for, so that nobody else waits for a
//! server that may be away.

use super::failure::Failure;
use super::place::Connected;
use super::signals::{Caught, Signals};
use super::terminal::{self, Terminal};
use super::{input, lock, output};
use crossbeam_channel::{Sender, bounded};
use exec_server::client::ExecServerProcess;
use exec_server::process::{kill_descendants, reap_orphans};
use exec_server::protocol::error::INVALID_PARAMS;
use exec_server::protocol::process::ProcessSignal;
use exec_server::sys::thread;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The exit code after `--timeout`, that of timeout(1).
const TIMED_OUT: u8 = 124;

/// The exit code of a command that was killed: 128 and SIGKILL.
const KILLED: u8 = 137;

/// How long the command may take after SIGTERM when its time is over.
pub(super) const GRACE: Duration = Duration::from_secs(5);

/// How long the end of a command that was killed is waited for: the server may be away, or nobody reads our output.
const END_LIMIT: Duration = Duration::from_secs(2);

/// So many SIGINT or SIGTERM within so much time kill the command.
const URGENT: (u32, Duration) = (3, Duration::from_secs(2));

/// Calls that wait to be made; if there are more, the server is away, and they are given up.
const MAX_CALLS: usize = 64;

/// How to wait for a command.
pub(super) struct Patience {
    /// How long it may take altogether.
    pub(super) timeout: Option<Duration>,
    /// Whether SIGHUP leaves it alone and only ends this program.
    pub(super) hangup_leaves: bool,
}

/// A command that was started, or attached to.
pub(super) struct Started {
    pub(super) connected: Connected,
    pub(super) process: ExecServerProcess,
    /// Whether it has a terminal.
    pub(super) tty: bool,
    /// Whether it gets input from here.
    pub(super) has_input: bool,
}

/// Starts a command.
pub(super) type Start = Box<dyn FnOnce(&Terminal) -> Result<Started, Failure> + Send>;

struct Foreground {
    terminal: Terminal,
    started: OnceLock<Started>,
    /// Readable once the command has ended.
    exited: EventFd,
    /// Readable once there is an outcome.
    ended: EventFd,
    outcome: Mutex<Option<Result<u8, Failure>>>,
}

/// Runs what `start` starts, to its end, and returns its exit code. To be called from the main thread, while there is no
/// other.
pub(super) fn run(patience: &Patience, start: Start) -> Result<u8, Failure> {
    let signals = Signals::block()?;
    let event =
        || EventFd::from_flags(EfdFlags::EFD_CLOEXEC).map_err(|e| Failure::system("failed to make an event", e));
    let foreground = Arc::new(Foreground {
        terminal: Terminal::default(),
        started: OnceLock::new(),
        exited: event()?,
        ended: event()?,
        outcome: Mutex::new(None),
    });
    let _restored = Restored(foreground.clone());
    let working = foreground.clone();
    spawn("output", move || working.work(start))?;
    let outcome = foreground.attend(&signals, patience);
    foreground.terminal.restore();
    match foreground.started.get() {
        Some(started) => started.connected.end(),
        // It may be just about to be started, in this program.
        None => kill_descendants(),
    }
    outcome
}

/// The stacks of this program's own threads, which do nothing deep.
const STACK_BYTES: usize = 256 * 1024;

pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    thread::start(name, STACK_BYTES, Box::new(run))
        .map(drop)
        .map_err(|e| Failure::system("failed to start a thread", e))
}

/// Restores the terminal also if the main thread panics.
struct Restored(Arc<Foreground>);

impl Drop for Restored {
    fn drop(&mut self) {
        self.0.terminal.restore();
    }
}

/// Tells the main thread that there is an outcome, or, after a panic, that there will be none.
struct Ended(Arc<Foreground>);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.ended.write(1);
    }
}

impl Foreground {
    fn work(self: Arc<Foreground>, start: Start) {
        let _ended = Ended(self.clone());
        let outcome = start(&self.terminal).and_then(|started| self.serve(self.started.get_or_init(|| started)));
        *lock(&self.outcome) = Some(outcome);
    }

    /// Input and output.
    fn serve(self: &Arc<Foreground>, started: &Started) -> Result<u8, Failure> {
        let process = &started.process;
        let taken = process.events();
        let mut events = taken.ok_or_else(|| Failure::new("the output of the command was taken"))?;
        if started.has_input {
            let this = self.clone();
            spawn("input", move || {
                if let Some(started) = this.started.get() {
                    input::forward(&started.connected.client, &started.process, this.exited.as_fd());
                }
            })?;
        }
        output::forward(process, &mut events, &|| {
            let _ = self.exited.write(1);
        })
    }

    /// Waits for the outcome, and for signals and the end of the time.
    fn attend(self: &Arc<Foreground>, signals: &Signals, patience: &Patience) -> Result<u8, Failure> {
        let mut deadline = patience.timeout.map(|timeout| Instant::now() + timeout);
        let mut is_timed_out = false;
        // When not to wait any longer, and with which code to end then.
        let mut last: Option<(Instant, u8)> = None;
        let mut urgent = (0, Instant::now());
        let mut calls = None;
        loop {
            let until = deadline.into_iter().chain(last.map(|(at, _)| at)).min();
            if self.wait(signals, until)? {
                break;
            }
            let now = Instant::now();
            if let Some((at, code)) = last
                && now >= at
            {
                return Ok(code);
            }
            if deadline.is_some_and(|deadline| now >= deadline) {
                deadline = None;
                is_timed_out = true;
                last = Some((now + GRACE + END_LIMIT, TIMED_OUT));
                if self.started.get().is_none() {
                    return Ok(TIMED_OUT);
                }
                self.call(&mut calls, Call::End(GRACE))?;
            }
            while let Some(caught) = signals.next() {
                match caught {
                    Caught::ChildEnded => reap_orphans(),
                    Caught::Resized => self.call(&mut calls, Call::Resize)?,
                    Caught::Continued => {
                        self.terminal.continue_raw();
                        self.call(&mut calls, Call::Resize)?;
                    }
                    Caught::PassOn(signal, meaning) => {
                        let leaves = signal == Signal::SIGHUP && patience.hangup_leaves;
                        if leaves || self.started.get().is_none() {
                            return Ok(128 + signal as u8);
                        }
                        self.call(&mut calls, Call::Signal(meaning))?;
                        if matches!(signal, Signal::SIGINT | Signal::SIGTERM) {
                            if urgent.0 == 0 || now.duration_since(urgent.1) > URGENT.1 {
                                urgent = (0, now);
                            }
                            urgent.0 += 1;
                            if urgent.0 >= URGENT.0 {
                                self.call(&mut calls, Call::End(Duration::ZERO))?;
                                last = last.or(Some((now + END_LIMIT, KILLED)));
                            }
                        }
                    }
                }
            }
        }
        match lock(&self.outcome).take() {
            Some(Ok(_)) if is_timed_out => Ok(TIMED_OUT),
            Some(outcome) => outcome,
            None => Err(Failure::new("a thread has panicked")),
        }
    }

    /// Waits for a signal until a certain time. Whether there is an outcome.
    fn wait(&self, signals: &Signals, until: Option<Instant>) -> Result<bool, Failure> {
        let mut fds = [
            PollFd::new(self.ended.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        let timeout = match until {
            None => PollTimeout::NONE,
            Some(until) => {
                // Rounded up, so as not to look a fraction of a millisecond early again and again.
                let left = until.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
                PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
            }
        };
        match poll(&mut fds, timeout) {
            Ok(_) => Ok(fds[0].any() == Some(true)),
            Err(Errno::EINTR) => Ok(false),
            Err(e) => Err(Failure::system("failed to wait for signals", e)),
        }
    }

    /// Has a call made.
    fn call(self: &Arc<Foreground>, calls: &mut Option<Sender<Call>>, call: Call) -> Result<(), Failure> {
        if self.started.get().is_none() {
            return Ok(());
        }
        let sender = match calls {
            Some(sender) => sender,
            None => {
                let (sender, to_make) = bounded(MAX_CALLS);
                let this = self.clone();
                spawn("calls", move || {
                    for call in to_make {
                        this.started.get().into_iter().for_each(|started| started.make(&call));
                    }
                })?;
                calls.insert(sender)
            }
        };
        let _ = sender.try_send(call);
        Ok(())
    }
}

/// What a signal asks for.
enum Call {
    Signal(ProcessSignal),
    /// To the size that the terminal has by then.
    Resize,
    /// SIGTERM, and a kill after that time.
    End(Duration),
}

impl Started {
    fn make(&self, call: &Call) {
        let process = &self.process;
        let made = match *call {
            Call::Signal(signal) => match process.signal(signal) {
                // A server that knows SIGINT only.
                Err(e) if e.code() == Some(INVALID_PARAMS) && is_deadly(signal) => {
                    process.terminate(Duration::ZERO).map(drop)
                }
                made => made,
            },
            Call::Resize => match terminal::size().filter(|_| self.tty) {
                Some(size) => process.resize(size),
                None => Ok(()),
            },
            Call::End(grace) => process.terminate(grace).map(drop),
        };
        if let Err(e) = made {
            log::info!("failed to pass a signal on: {e}");
        }
    }
}

fn is_deadly(signal: ProcessSignal) -> bool {
    !matches!(signal, ProcessSignal::Usr1 | ProcessSignal::Usr2)
}
