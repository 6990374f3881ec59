//! Standard input, on its way to the command.

use exec_server::client::{ExecServerClient, ExecServerProcess};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat, major, minor};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

/// What is read at a time: what a pipe holds.
const PIECE_BYTES: usize = 64 * 1024;

/// Whether there is anything to forward: standard input is not `/dev/null`.
pub(super) fn is_wanted() -> bool {
    let null = |stat: nix::sys::stat::FileStat| {
        let is_device = SFlag::from_bits_truncate(stat.st_mode).contains(SFlag::S_IFCHR);
        is_device && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3)
    };
    !fstat(io::stdin()).is_ok_and(null)
}

/// Forwards standard input to a process, to its end. Once `exited` is readable nothing is read any more, so that what
/// the command has no use for is left to others.
pub(super) fn forward(client: &ExecServerClient, process: &ExecServerProcess, exited: BorrowedFd<'_>) {
    let mut stdin = process.stdin();
    let mut piece = vec![0; PIECE_BYTES];
    let outcome = loop {
        match read(&mut piece, exited) {
            None => return,
            Some(0) if !client.has_capability("processCloseStdin") => {
                log::warn!("the server cannot close the input of a command: it waits for more");
                return;
            }
            Some(0) => break stdin.close().map_err(io::Error::from),
            Some(len) => {
                if let Err(e) = stdin.write_all(&piece[..len]) {
                    break Err(e);
                }
            }
        }
    };
    // If the connection is lost, whoever waits for the command says so.
    if let Err(e) = outcome {
        log::debug!("failed to forward standard input: {e}");
    }
}

/// Waits for input and reads some; 0 at its end. `None` if there is nobody to read for.
fn read(piece: &mut [u8], exited: BorrowedFd<'_>) -> Option<usize> {
    let input = io::stdin();
    loop {
        let mut fds = [
            PollFd::new(exited, PollFlags::POLLIN),
            PollFd::new(input.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) if fds[0].any() == Some(true) => return None,
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(_) => return None,
        }
        match nix::unistd::read(&input, piece) {
            Ok(len) => return Some(len),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            // Such as a terminal that was hung up.
            Err(e) => {
                log::debug!("failed to read standard input: {e}");
                return Some(0);
            }
        }
    }
}
