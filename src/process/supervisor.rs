//! The thread that does a process's whole life: start it, read and number what it says, feed it, reap it.

use super::block::{BLOCK_BYTES, Block};
use super::denial;
use super::family;
use super::handle::{Ending, Owner, Phase, Process, Started};
use super::output_log::{Exit, Failure, Stream};
use super::run_limits::{LimitMet, Watch};
use super::start::{self, StartError, StartSpec, Stdio, Streams};
use crate::metrics::{self, Count};
use crate::sys::mark::Kin;
use crate::sys::{defect, ioctl, spawn, thread};
use log::{debug, error};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::wait::WaitStatus;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The stack of a supervisor thread, of which it uses a tenth.
pub(super) const STACK_BYTES: usize = 128 * 1024;

/// A pipe read that brought less than this is not tried again before the next poll: the pipe was empty. One that
/// brought more comes from a process that writes much, so that there is more by now and fewer, larger events result.
const WORTH_ANOTHER_READ: usize = 4096;

/// An event of at least so many bytes shows that a command writes faster than it is read: then its pipe is made larger.
const WORTH_A_LARGER_PIPE: usize = BLOCK_BYTES / 2;

/// What a pipe may hold then. A command that need not wait so often is not woken so often, and what it has written is
/// read in larger pieces; the kernel takes the memory only for what is in the pipe. Where it may not be had, the pipe
/// stays as it is, with 64 KiB.
const LARGER_PIPE_BYTES: i32 = 256 * 1024;

/// A process that has written that much at a time, and has done so just before, is likely to write on. It gets some time
/// for that before what is there makes an event, unless that is large already: on a busy machine there would be an event
/// for each of its writes. The pipe does not fill meanwhile: at 2 GB/s it holds what is written in 100 us.
const WORTH_AN_EVENT: usize = 32 * 1024;
const JUST_BEFORE: Duration = Duration::from_micros(500);
const TIME_TO_WRITE_ON: Duration = Duration::from_micros(50);

/// The same for a terminal, which gives at most a page a read and often less.
const WORTH_ANOTHER_TERMINAL_READ: usize = 512;

/// What is read of a terminal after its process has ended, if others go on writing to it. More than the kernel keeps.
const TERMINAL_REST: usize = 256 * 1024;

/// Starts the thread, which starts the process.
pub(super) fn launch(process: &Arc<Process>, spec: StartSpec) {
    let supervised = process.clone();
    let run = Box::new(move || live(&supervised, spec));
    if let Err(source) = thread::start("supervisor", STACK_BYTES, run) {
        fail(
            process,
            StartError::Resource {
                what: "a thread",
                source,
            },
        );
    }
}

fn live(process: &Arc<Process>, spec: StartSpec) {
    let begun = catch_unwind(AssertUnwindSafe(|| begin(process, &spec))).unwrap_or_else(|_| {
        Err(StartError::Resource {
            what: "a supervisor",
            source: io::Error::other("it failed in an unforeseen way"),
        })
    });
    let supervisor = match begun {
        Ok((child, streams, wake, block)) => Supervisor::new(process.clone(), child, &spec, streams, wake, block),
        Err(e) => return fail(process, e),
    };
    drop(spec);
    let (kin, has_namespaces) = (supervisor.kin, supervisor.child.has_namespaces());
    let owner = supervisor.run();
    if process.retire() != Ending::None && !has_namespaces {
        family::kill(None, kin);
    }
    if let Some(mut owner) = owner {
        owner.ended(process);
    }
}

fn fail(process: &Arc<Process>, error: StartError) {
    process.retire();
    if let Some(mut owner) = process.take_owner() {
        owner.started(Err(error));
        process.settle_start();
        owner.settled();
    }
}

type Begun = (spawn::Child, Streams, Arc<EventFd>, Block);

fn begin(process: &Arc<Process>, spec: &StartSpec) -> Result<Begun, StartError> {
    defect::point("starter", || process.id());
    let block = Block::new().map_err(|e| StartError::Resource {
        what: "a buffer",
        source: e,
    })?;
    let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .map(Arc::new)
        .map_err(|e| StartError::Resource {
            what: "an event",
            source: e.into(),
        })?;
    process.attend(wake.clone());
    if process.state().ending != Ending::None {
        return Err(StartError::Cancelled);
    }
    let (child, streams) = start::start(spec)?;
    process.stdin().open(streams.stdin.clone(), spec.limits.idle.is_some());
    let mut state = process.state();
    state.started(child.pid, (!child.has_namespaces()).then_some(spec.kin));
    // Executing the program can take long, on a slow disk; long enough to be given up.
    if state.ending == Ending::Kill {
        // No more signals from now on, so that none can go to a pid that is another's already.
        state.phase = Phase::Reaped;
        drop(state);
        kill_all(&child, spec.kin);
        let _ = child.wait();
        family::kill(None, spec.kin);
        return Err(StartError::Cancelled);
    }
    Ok((child, streams, wake, block))
}

/// Kills a command that was not reaped yet and everything it has started.
fn kill_all(child: &spawn::Child, kin: Kin) {
    if child.has_namespaces() {
        child.kill_namespace();
    } else {
        family::kill(Some(child.pid), kin);
    }
}

/// The end of a process of which nothing else is known. The number is the one that Codex's exec-server gives then.
const UNKNOWN_EXIT: Exit = Exit {
    code: -1,
    signal: None,
    sandbox_denied: false,
    failure: None,
    limit_met: None,
};

fn reap(child: &spawn::Child) -> Exit {
    let mut exit = UNKNOWN_EXIT;
    match child.wait() {
        Ok(WaitStatus::Exited(_, code)) => exit.code = code,
        Ok(WaitStatus::Signaled(_, signal, _)) => (exit.code, exit.signal) = (128 + signal as i32, Some(signal as i32)),
        // Somebody else has reaped it.
        other => {
            let (what, errno) = ("failed to wait for its end", other.err());
            exit.failure = Some(Failure { what, errno });
            error!("failed to wait for process {}: {other:?}", child.pid);
        }
    }
    exit
}

struct Output {
    fd: Arc<OwnedFd>,
    stream: Stream,
    /// A pipe that was not made larger yet.
    is_small: bool,
    /// When the last read ended, if it brought much.
    busy_at: Option<Instant>,
}

struct Supervisor {
    process: Arc<Process>,
    owner: Option<Box<dyn Owner>>,
    child: spawn::Child,
    kin: Kin,
    watch: Option<Watch>,
    outputs: [Option<Output>; 2],
    wake: Arc<EventFd>,
    block: Option<Block>,
    /// Whether the process may write more than is read of it now.
    may_read_ahead: bool,
    /// The owner was told that it runs.
    settled: bool,
    reaped: bool,
    killed: bool,
    /// One of those it has left, when only their end is waited for.
    rest: Option<OwnedFd>,
    /// The first thing that has failed.
    failure: Option<Failure>,
}

/// What a round of polling found.
#[derive(Default)]
struct Ready {
    ended: bool,
    stdin: bool,
    outputs: [bool; 2],
}

impl Supervisor {
    fn new(
        process: Arc<Process>,
        child: spawn::Child,
        spec: &StartSpec,
        streams: Streams,
        wake: Arc<EventFd>,
        block: Block,
    ) -> Supervisor {
        let tty = matches!(spec.stdio, Stdio::Terminal(_));
        let stdout = Output {
            fd: streams.stdout,
            stream: if tty { Stream::Pty } else { Stream::Stdout },
            is_small: !tty,
            busy_at: None,
        };
        let stderr = streams.stderr.map(|fd| Output {
            fd,
            stream: Stream::Stderr,
            is_small: true,
            busy_at: None,
        });
        let outputs = [Some(stdout), stderr];
        Supervisor {
            owner: process.take_owner(),
            process,
            child,
            kin: spec.kin,
            watch: Watch::new(spec.limits, Instant::now()),
            outputs,
            wake,
            block: Some(block),
            may_read_ahead: true,
            settled: false,
            reaped: false,
            killed: false,
            rest: None,
            failure: None,
        }
    }

    /// Runs until the last event, and returns whom to tell. A defect here ends this process, not the server.
    fn run(mut self) -> Option<Box<dyn Owner>> {
        if catch_unwind(AssertUnwindSafe(|| self.supervise())).is_err() {
            self.fail("its supervisor failed in an unforeseen way; it is ended", None);
            // What still waits for the start is given up.
            let _ = catch_unwind(AssertUnwindSafe(|| self.settle()));
            let exit = if self.reaped {
                UNKNOWN_EXIT
            } else {
                kill_all(&self.child, self.kin);
                self.reap()
            };
            if self.process.snapshot().exit.is_none() {
                self.number_exit(exit);
            }
        }
        self.process.record(|state| state.log.close());
        debug!(process = self.process.id(), pid = self.child.pid.as_raw(); "process {} closed", self.child.pid);
        self.owner
    }

    /// Tells the owner that it runs, and does all that has waited for that.
    fn announce(&mut self) {
        let started = Started {
            pid: self.child.pid.as_raw(),
            is_confined: self.child.is_confined(),
        };
        debug!(process = self.process.id(), pid = started.pid; "process {} runs", started.pid);
        if let Some(owner) = &mut self.owner {
            owner.started(Ok(started));
        }
        defect::point("settling", || self.process.id());
        self.settle();
    }

    fn settle(&mut self) {
        if self.settled {
            return;
        }
        self.process.settle_start();
        self.settled = true;
        if let Some(owner) = &mut self.owner {
            owner.settled();
        }
    }

    /// Something has failed that was to be done for the process: it is logged, and told with its end.
    fn fail(&mut self, what: &'static str, errno: Option<Errno>) {
        let failure = Failure { what, errno };
        error!(process = self.process.id(), pid = self.child.pid.as_raw(); "process {}: {failure}", self.child.pid);
        self.failure.get_or_insert(failure);
    }

    fn supervise(&mut self) {
        self.announce();
        family::keep();
        defect::point("supervisor", || self.process.id());
        while !self.reaped || (!self.killed && (self.outputs.iter().any(Option::is_some) || self.is_awaited())) {
            let (may_read, timeout) = self.orders();
            let ready = match self.wait(may_read, timeout) {
                Ok(ready) => ready,
                Err(e) => {
                    self.fail("failed to wait for its output (poll); it is ended", Some(e));
                    self.kill();
                    Ready {
                        ended: true,
                        ..Ready::default()
                    }
                }
            };
            if ready.stdin {
                self.process.stdin().drain();
                self.touch();
            }
            for i in 0..self.outputs.len() {
                if ready.outputs[i] {
                    self.read(i);
                }
            }
            if ready.ended && !self.reaped {
                self.finish_leader();
            }
        }
    }

    /// Whether what it has left has some time yet to end by itself. Then it is known by whose end that goes on.
    fn is_awaited(&mut self) -> bool {
        let is_asked = matches!(self.process.state().ending, Ending::Graceful(_));
        self.rest = (is_asked && !self.child.has_namespaces())
            .then(|| family::living(self.kin))
            .flatten();
        self.rest.is_some()
    }

    fn touch(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.touch(Instant::now());
        }
    }

    /// How long it may go on, if it has limits; ends it if it has met one.
    fn check_limits(&mut self, is_read: bool) -> Option<Duration> {
        let watch = self.watch.as_mut()?;
        let now = Instant::now();
        if !is_read {
            watch.touch(now);
        }
        let written = self.process.stdin().written();
        match watch.check(now, written) {
            Ok(left) => left,
            Err(limit) => {
                self.end_for(limit);
                None
            }
        }
    }

    fn end_for(&mut self, limit: LimitMet) {
        self.process.record(|state| state.log.meet_limit(limit));
        let grace = self.watch.as_ref().map_or(Duration::ZERO, Watch::grace);
        self.process.terminate(grace);
    }

    /// Carries out what was ordered, and says whether output may be read and how long to wait.
    fn orders(&mut self) -> (bool, PollTimeout) {
        let mut state = self.process.state();
        let may_read = state.has_credit();
        self.may_read_ahead = !state.is_crowded();
        state.stalled = !may_read;
        let mut ending = state.ending;
        drop(state);
        let mut left = None;
        if self.watch.is_some() {
            left = self.check_limits(may_read);
            ending = self.process.state().ending;
        }
        let left = match ending {
            _ if self.killed => None,
            Ending::None => left,
            Ending::Kill => Some(Duration::ZERO),
            Ending::Graceful(at) => Some(at.saturating_duration_since(Instant::now())),
        };
        let timeout = match left {
            None => PollTimeout::NONE,
            Some(Duration::ZERO) if ending != Ending::None => {
                self.kill();
                if self.reaped {
                    PollTimeout::ZERO
                } else {
                    PollTimeout::NONE
                }
            }
            Some(left) => {
                // Rounded up, so that it does not wake just before the time; a wait too long to be told is cut in pieces.
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            }
        };
        (may_read, timeout)
    }

    fn kill(&mut self) {
        self.killed = true;
        if self.reaped {
            self.kill_rest();
            // What was written until now is read; nobody is left to write more.
            self.read_rest();
        } else {
            kill_all(&self.child, self.kin);
        }
    }

    /// Kills what one that was reaped has left.
    fn kill_rest(&self) {
        if !self.child.has_namespaces() {
            family::kill(None, self.kin);
        }
    }

    fn wait(&mut self, may_read: bool, timeout: PollTimeout) -> nix::Result<Ready> {
        let stdin = self.process.stdin().fd_to_write();
        let mut fds: [PollFd; 5] = std::array::from_fn(|_| PollFd::new(self.wake.as_fd(), PollFlags::POLLIN));
        let mut n = 1;
        let mut watch = |fd, events| {
            fds[n] = PollFd::new(fd, events);
            n += 1;
        };
        if !self.reaped {
            watch(self.child.pidfd.as_fd(), PollFlags::POLLIN);
        } else if let Some(rest) = &self.rest {
            watch(rest.as_fd(), PollFlags::POLLIN);
        }
        if let Some(stdin) = &stdin {
            watch(stdin.as_fd(), PollFlags::POLLOUT);
        }
        for output in self.outputs.iter().flatten().filter(|_| may_read) {
            watch(output.fd.as_fd(), PollFlags::POLLIN);
        }
        let fds = &mut fds[..n];
        while let Err(e) = poll(fds, timeout) {
            if e != Errno::EINTR {
                return Err(e);
            }
        }
        let mut fds = fds
            .iter()
            .map(|fd| fd.revents().is_some_and(|events| !events.is_empty()));
        let mut next = || fds.next().unwrap_or(false);
        if next() {
            let _ = self.wake.read();
        }
        let mut ready = Ready {
            ended: (!self.reaped || self.rest.is_some()) && next(),
            stdin: stdin.is_some() && next(),
            outputs: [false; 2],
        };
        for (i, output) in self.outputs.iter().enumerate() {
            ready.outputs[i] = may_read && output.is_some() && next();
        }
        Ok(ready)
    }

    /// Reads what is there into one event. Returns how many bytes that was.
    fn read(&mut self, i: usize) -> usize {
        let Some(output) = &mut self.outputs[i] else { return 0 };
        let Some(mut block) = self.block.take() else { return 0 };
        let stream = output.stream;
        let worth_another = if stream == Stream::Pty {
            WORTH_ANOTHER_TERMINAL_READ
        } else {
            WORTH_ANOTHER_READ
        };
        let (mut len, mut ended, mut failed) = (0, false, None);
        let mut is_busy = output.busy_at.is_some_and(|at| at.elapsed() < JUST_BEFORE);
        while len < BLOCK_BYTES {
            match nix::unistd::read(&output.fd, &mut block.space()[len..]) {
                Ok(0) => ended = true,
                Ok(n) => {
                    len += n;
                    if n >= worth_another {
                        continue;
                    }
                }
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) if is_busy && (WORTH_ANOTHER_READ..WORTH_AN_EVENT).contains(&len) => {
                    is_busy = false;
                    std::thread::sleep(TIME_TO_WRITE_ON);
                    continue;
                }
                Err(Errno::EAGAIN) => {}
                Err(errno) => {
                    ended = true;
                    // A terminal says EIO when nobody has its other end open any more.
                    if (errno, stream) != (Errno::EIO, Stream::Pty) {
                        failed = Some(errno);
                    }
                }
            }
            break;
        }
        output.busy_at = (len >= WORTH_ANOTHER_READ && stream != Stream::Pty).then(Instant::now);
        if ended {
            self.outputs[i] = None;
        } else if output.is_small && self.may_read_ahead && len >= WORTH_A_LARGER_PIPE {
            let _ = fcntl(&output.fd, FcntlArg::F_SETPIPE_SZ(LARGER_PIPE_BYTES));
            output.is_small = false;
        }
        let (kept, limit) = match &mut self.watch {
            Some(watch) if len > 0 => {
                watch.touch(Instant::now());
                watch.count(len)
            }
            _ => (len, None),
        };
        if let Some(limit) = limit {
            self.end_for(limit);
        }
        if kept > 0 {
            metrics::add(Count::OutputBytes, kept);
            self.append(stream, block, kept);
        } else {
            self.block = Some(block);
        }
        if failed.is_some() {
            self.fail("failed to read its output", failed);
        }
        len
    }

    fn append(&mut self, stream: Stream, block: Block, len: usize) {
        let (bytes, mut spare) = block.take(len);
        self.process.record(|state| {
            state.log.append(stream, bytes);
            if spare.is_none() {
                spare = state.log.spare_block();
            }
        });
        self.block = spare.or_else(|| Block::provided().ok());
        if self.block.is_none() {
            self.fail("failed to get memory for its output; it is ended", Some(Errno::ENOMEM));
            self.outputs = [None, None];
            self.kill();
        }
    }

    /// The process has ended: reads what it had written by then, and numbers its end after that.
    fn finish_leader(&mut self) {
        let mut exit = self.reap();
        debug!(process = self.process.id(), pid = self.child.pid.as_raw(); "process {} exited with {}", self.child.pid, exit.code);
        self.process.stdin().close();
        if self.killed {
            // What it made as it was killed.
            self.kill_rest();
        }
        self.read_rest();
        if self.child.is_confined() && exit.code != 0 {
            exit.sandbox_denied = denial::is_likely(exit, &self.process.replay(0, None).chunks);
        }
        self.number_exit(exit);
    }

    fn number_exit(&mut self, mut exit: Exit) {
        exit.failure = self.failure.or(exit.failure);
        if let Some(owner) = &mut self.owner {
            owner.exited(&self.process);
        }
        self.process.record(|state| state.log.exited(exit));
    }

    /// The phase first: signals are only sent in another, under the lock, so none goes to a pid that is another's already.
    fn reap(&mut self) -> Exit {
        self.process.state().phase = Phase::Reaped;
        self.reaped = true;
        reap(&self.child)
    }

    /// Reads what is readable now, whether or not a client has room for it; that is at most what the kernel holds.
    fn read_rest(&mut self) {
        for i in 0..self.outputs.len() {
            let mut left = match &self.outputs[i] {
                Some(Output {
                    stream: Stream::Pty, ..
                }) => TERMINAL_REST,
                Some(output) => ioctl::readable_bytes(output.fd.as_fd()).unwrap_or(0),
                None => continue,
            };
            while left > 0 && self.outputs[i].is_some() {
                match self.read(i) {
                    0 => break,
                    n => left = left.saturating_sub(n),
                }
            }
        }
    }
}
