//! Where the bytes of a connection go.

use super::address::StreamSocket;
use crate::metrics::{self, Count};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::sys::stat::{Mode, SFlag, fstat};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;

/// A stream to write to, and, where the system has a way, to write to without ever waiting.
pub enum Outlet {
    /// One that can only be waited for.
    Stream(Box<dyn Write + Send>),
    /// A file of any other kind.
    File {
        /// As it was given.
        waiting: File,
        /// A pipe that was opened a second time, if it may be, as not by another user than its maker: whether writing waits
        /// belongs to an open file, and others may have ours too.
        at_once: Option<File>,
    },
    /// A connected socket that is read from elsewhere.
    Shared(Arc<StreamSocket>),
    /// A connected socket of its own.
    Socket(File),
}

impl Outlet {
    /// An outlet to what `file` is.
    pub fn of_file(file: File) -> Outlet {
        let kind = fstat(&file).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
        match kind {
            Ok(SFlag::S_IFSOCK) => Outlet::Socket(file),
            Ok(SFlag::S_IFIFO) => {
                let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
                let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
                Outlet::File {
                    waiting: file,
                    at_once: open(&path, flags, Mode::empty()).ok().map(File::from),
                }
            }
            _ => Outlet::File {
                waiting: file,
                at_once: None,
            },
        }
    }

    /// Writes what can be written without waiting, and returns how many bytes that was.
    ///
    /// # Errors
    /// What the system said, but for that it would have to wait.
    pub fn write_at_once(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self {
            Outlet::Stream(_) | Outlet::File { at_once: None, .. } => return Ok(0),
            Outlet::File {
                at_once: Some(at_once), ..
            } => nix::unistd::write(at_once, bytes),
            Outlet::Shared(socket) => send_at_once(socket.as_fd(), bytes),
            Outlet::Socket(socket) => send_at_once(socket.as_fd(), bytes),
        };
        let written = match written {
            Err(Errno::EAGAIN | Errno::EINTR) => 0,
            written => written?,
        };
        metrics::add(Count::SentBytes, written);
        Ok(written)
    }
}

/// Waits until something can be done with `file`.
///
/// # Errors
/// What `poll(2)` said, other than an interruption.
pub fn wait_for(file: BorrowedFd<'_>, events: PollFlags) -> io::Result<()> {
    match poll(&mut [PollFd::new(file, events)], PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

impl Outlet {
    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let mut file = match self {
                Outlet::Stream(stream) => return stream.write(bytes),
                Outlet::Shared(socket) => return (&**socket).write(bytes),
                Outlet::File { waiting: file, .. } | Outlet::Socket(file) => &*file,
            };
            match file.write(bytes) {
                // Somebody who shares it has made it so that it does not wait.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => wait_for(file.as_fd(), PollFlags::POLLOUT)?,
                written => return written,
            }
        }
    }
}

fn send_at_once(socket: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<usize> {
    send(
        socket.as_raw_fd(),
        bytes,
        MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
    )
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.write_some(bytes)?;
        metrics::add(Count::SentBytes, written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Outlet::Stream(stream) => stream.flush(),
            // The system keeps nothing back.
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, fcntl};
    use nix::unistd::pipe;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    /// Writes until nothing more fits, and returns how much that was.
    fn fill(outlet: &mut Outlet) -> usize {
        let mut total = 0;
        loop {
            match outlet.write_at_once(&[7; 100_000]).unwrap() {
                0 => return total,
                n => total += n,
            }
        }
    }

    #[test]
    fn a_full_pipe_is_not_waited_for_and_loses_nothing() {
        let (reader, writer) = pipe().unwrap();
        let mut outlet = Outlet::of_file(writer.into());
        assert!(matches!(outlet, Outlet::File { at_once: Some(_), .. }));
        let mut expected = fill(&mut outlet);
        assert!(expected >= 4096);
        let mut reader = File::from(reader);
        let mut some = vec![0; 5000];
        reader.read_exact(&mut some).unwrap();
        expected += outlet.write_at_once(b"more").unwrap();
        drop(outlet);
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!(some.len() + rest.len(), expected);
    }

    #[test]
    fn a_pipe_as_it_was_given_still_waits() {
        let (_reader, writer) = pipe().unwrap();
        let other = writer.try_clone().unwrap();
        let _outlet = Outlet::of_file(writer.into());
        let flags = OFlag::from_bits_truncate(fcntl(&other, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK));
    }

    #[test]
    fn a_full_socket_is_not_waited_for() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let mut outlet = Outlet::of_file(OwnedFd::from(writer).into());
        assert!(matches!(outlet, Outlet::Socket(_)));
        let expected = fill(&mut outlet);
        drop(outlet);
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), expected);
    }

    #[test]
    fn what_can_only_be_waited_for_is_left_alone() {
        let file = File::options().write(true).open("/dev/null").unwrap();
        assert_eq!(Outlet::of_file(file).write_at_once(b"x").unwrap(), 0);
    }
}
