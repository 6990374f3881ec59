//! The few `ioctl`s that are needed.

use nix::libc;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

mod raw {
    nix::ioctl_read_bad!(fionread, nix::libc::FIONREAD, nix::libc::c_int);
    nix::ioctl_read_bad!(tiocgwinsz, nix::libc::TIOCGWINSZ, nix::libc::winsize);
    nix::ioctl_write_ptr_bad!(tiocswinsz, nix::libc::TIOCSWINSZ, nix::libc::winsize);
}

/// How many bytes can be read from `fd` now.
///
/// # Errors
/// What the system said, for descriptors that cannot tell.
pub fn readable_bytes(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut n: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int to the address of a live int.
    unsafe { raw::fionread(fd.as_raw_fd(), &mut n)? };
    Ok(usize::try_from(n).unwrap_or(0))
}

/// Sets the size of a terminal in character cells; the foreground job gets SIGWINCH when it changed.
///
/// # Errors
/// What the system said, for descriptors that are no terminal.
pub fn set_terminal_size(fd: BorrowedFd<'_>, rows: u16, cols: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: cols,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize from the address of a live one.
    unsafe { raw::tiocswinsz(fd.as_raw_fd(), &size)? };
    Ok(())
}

/// The size of a terminal in character cells: rows and columns. Either may be 0 where nobody has set it.
///
/// # Errors
/// What the system said, for descriptors that are no terminal.
pub fn terminal_size(fd: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes one winsize to the address of a live one.
    unsafe { raw::tiocgwinsz(fd.as_raw_fd(), &mut size)? };
    Ok((size.ws_row, size.ws_col))
}
