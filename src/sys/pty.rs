//! Pseudo-terminals.

use super::ioctl::set_terminal_size;
use nix::fcntl::OFlag;
use nix::libc;
use nix::pty::{grantpt, posix_openpt, unlockpt};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// The two ends of a new pseudo-terminal, both close-on-exec.
pub struct Pty {
    /// Our end; non-blocking.
    pub master: OwnedFd,
    /// The child's end; not yet anybody's controlling terminal.
    pub slave: OwnedFd,
}

/// Opens a pseudo-terminal of the given size.
///
/// # Errors
/// What the system said: no `/dev/ptmx` or devpts, or too many terminals.
pub fn open(rows: u16, cols: u16) -> io::Result<Pty> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    set_terminal_size(master.as_fd(), rows, cols)?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // By descriptor and not by name: right in whatever mount namespace, and no race for the name.
    // SAFETY: TIOCGPTPEER takes open flags by value and returns a new descriptor or -1.
    let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER as _, flags) };
    if slave < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nothing else owns it.
    let slave = unsafe { OwnedFd::from_raw_fd(slave) };
    Ok(Pty {
        master: master.into(),
        slave,
    })
}
