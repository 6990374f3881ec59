//! The output of the command, on its way to ours.

use super::failure::Failure;
use exec_server::client::ExecServerProcess;
use exec_server::client::events::{ExecOutputStream, ExecProcessEvent, ProcessEvents, RecvError};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};
use tungstenite::Bytes;

/// How long output may still come after the command has ended, from what it has left running.
const LEFTOVERS_LIMIT: Duration = Duration::from_secs(1);

/// The exit code for one whose output nobody reads: 128 and SIGPIPE, as a shell would see it.
const NOBODY_READS: u8 = 141;

/// Chunks that are written in one go, if they are there: the less they have each, the more it matters.
const MAX_BATCH: usize = 16;

/// What our standard output may hold, if it is a pipe: then whoever reads it keeps nobody waiting for a while.
const PIPE_BYTES: i32 = 1024 * 1024;

/// Writes what the process writes, until there is no more of it. Returns its exit code; `on_exit` is called once that is
/// known.
pub(super) fn forward(
    process: &ExecServerProcess,
    events: &mut ProcessEvents,
    on_exit: &dyn Fn(),
) -> Result<u8, Failure> {
    // It has an effect on pipes only, and is of use but not needed.
    let _ = fcntl(io::stdout(), FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    let mut code = None;
    // When the leftovers are ended; `None` before the exit, and after that.
    let mut deadline: Option<Instant> = None;
    let mut held = None;
    loop {
        let received = match (held.take(), deadline) {
            (Some(received), _) => received,
            (None, None) => events.recv(),
            (None, Some(deadline)) => events.recv_timeout(deadline.saturating_duration_since(Instant::now())),
        };
        match received {
            Ok(ExecProcessEvent::Output(first)) => {
                let stream = first.stream;
                let mut batch = vec![first.chunk];
                while batch.len() < MAX_BATCH && held.is_none() {
                    match events.try_recv() {
                        Ok(ExecProcessEvent::Output(next)) if next.stream == stream => batch.push(next.chunk),
                        Err(RecvError::Empty) => break,
                        other => held = Some(other),
                    }
                }
                if let Err(e) = write_batch(stream, &batch) {
                    end(process);
                    return match e {
                        Errno::EPIPE => Ok(NOBODY_READS),
                        e => Err(Failure::system("failed to write the output of the command", e)),
                    };
                }
            }
            Ok(ExecProcessEvent::Exited { exit_code, .. }) => {
                // Codes are a byte; others than the system's are made up by servers.
                code = Some(u8::try_from(exit_code).unwrap_or(u8::MAX));
                deadline = Some(Instant::now() + LEFTOVERS_LIMIT);
                on_exit();
            }
            // Once it is known how the command has ended, all that it has written itself is here.
            Ok(ExecProcessEvent::Failed(reason)) => return code.ok_or_else(|| Failure::new(reason)),
            Ok(ExecProcessEvent::Closed { .. }) | Err(RecvError::Ended) => {
                return code.ok_or_else(|| Failure::new("the server does not say how the command has ended"));
            }
            Err(RecvError::Lagged(lagged)) => log::warn!("{} bytes of output are lost", lagged.bytes),
            Err(RecvError::Empty) => {
                deadline = None;
                end(process);
            }
        }
    }
}

fn write_batch(stream: ExecOutputStream, batch: &[Bytes]) -> nix::Result<()> {
    let (output, errors) = (io::stdout(), io::stderr());
    let stream = match stream {
        ExecOutputStream::Stderr => errors.as_fd(),
        ExecOutputStream::Stdout | ExecOutputStream::Pty => output.as_fd(),
    };
    let mut slices = [IoSlice::new(&[]); MAX_BATCH];
    for (slice, chunk) in slices.iter_mut().zip(batch) {
        *slice = IoSlice::new(chunk);
    }
    write_slices(stream, &mut slices[..batch.len().min(MAX_BATCH)])
}

/// Ends the process and all it has started. If the connection is lost meanwhile, its events say so.
fn end(process: &ExecServerProcess) {
    if let Err(e) = process.terminate(Duration::ZERO) {
        log::debug!("failed to end the command: {e}");
    }
}

/// Writes all of it.
pub(super) fn write_all(stream: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<()> {
    write_slices(stream, &mut [IoSlice::new(bytes)])
}

/// Writes all of it, also to what others have made non-blocking.
fn write_slices(stream: BorrowedFd<'_>, mut slices: &mut [IoSlice<'_>]) -> nix::Result<()> {
    // Those without bytes, too, are done with.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match nix::sys::uio::writev(stream, slices) {
            Ok(n) => IoSlice::advance_slices(&mut slices, n),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut fds = [PollFd::new(stream, PollFlags::POLLOUT)];
                match poll(&mut fds, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(e) => return Err(e),
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
