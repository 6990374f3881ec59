//! Descriptors whose number is all that is known of them.

use nix::libc::{self, c_int};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Accepts a connection, whatever the family of the socket. The standard library's listeners insist on theirs.
///
/// # Errors
/// What `accept4(2)` said.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let none = std::ptr::null_mut();
    // SAFETY: an open descriptor; no address is asked for.
    own(unsafe { libc::accept4(listener.as_raw_fd(), none, none.cast(), libc::SOCK_CLOEXEC) })
}

/// Takes a descriptor that this program was started with; commands do not inherit it. Where it was one of the standard
/// streams, and where others of these were the same, there is `/dev/null` then.
///
/// # Errors
/// It is not open, or is this program's own: all of those are close-on-exec from birth, so each can be taken once.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: it is only asked about.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    if flags & libc::FD_CLOEXEC != 0 {
        return Err(io::Error::other("it was not inherited, or is in use already"));
    }
    if number > libc::STDERR_FILENO {
        // SAFETY: it is open, and nobody has it yet: what this program has is close-on-exec.
        return unsafe {
            libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC);
            Ok(OwnedFd::from_raw_fd(number))
        };
    }
    // SAFETY: the number of an open descriptor.
    let taken = own(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, libc::STDERR_FILENO + 1) })?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    for stream in 0..=libc::STDERR_FILENO {
        if is_same(taken.as_fd(), stream) {
            // SAFETY: numbers of descriptors; the standard streams are nobody's.
            unsafe { libc::dup2(null.as_raw_fd(), stream) };
        }
    }
    Ok(taken)
}

fn is_same(one: BorrowedFd<'_>, other: RawFd) -> bool {
    // SAFETY: it is only asked about, and the call fails if it is closed.
    let other = unsafe { BorrowedFd::borrow_raw(other) };
    let file = |fd| nix::sys::stat::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    file(one).is_ok_and(|one| file(other) == Ok(one))
}

/// What a call has returned that makes a descriptor.
fn own(number: c_int) -> io::Result<OwnedFd> {
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor, which nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
