//! Opening a file that may have to be made, for a caller.

use super::caller::{Caller, Name, Text};
use super::creation::{MAX_LINKS, PathArgument, Request, follow, locate, start};
use super::gate::{Done, Gate, Side, Stop};
use super::guard::Protection;
use crate::sys::raw::{self, Fd};
use nix::libc::{self, c_int};
use std::ffi::CStr;

/// How often a file may have changed while it was looked at.
const MAX_ATTEMPTS: usize = 1000;

/// What came of one attempt.
enum Attempt {
    Opened(Fd),
    /// A link is there, which this names.
    Link(Fd),
    /// It has changed meanwhile.
    Again,
}

impl Gate {
    /// Opens a file for the caller, with `O_CREAT` among the flags.
    pub(super) fn open_for(
        &mut self,
        from: &Request,
        path: PathArgument,
        flags: u64,
        mode: u64,
        [text, spare]: &mut [Text; 2],
    ) -> Result<Done, Stop> {
        let flags = flags as c_int;
        // Newer kernels refuse it; older make a file.
        if flags & libc::O_DIRECTORY != 0 {
            return Err(Stop::Errno(libc::EINVAL));
        }
        from.caller.read_path(path.1, text)?;
        let mut base = start(from, path.0, text)?;
        // All has been read from the caller; was it from who called?
        if !self.is_waiting(from.id) {
            return Err(Stop::Errno(libc::EINTR));
        }
        for _ in 0..=MAX_LINKS {
            let (directory, name) = locate(from.side, base.take(), text)?;
            let mut left = MAX_ATTEMPTS;
            let link = loop {
                match self.attempt(from, &directory, text.from(name), flags, mode as u32)? {
                    Attempt::Opened(fd) => return Ok(Done::Opened(fd, flags & libc::O_CLOEXEC != 0)),
                    Attempt::Link(link) => break link,
                    Attempt::Again if left == 0 => return Err(Stop::Errno(libc::EAGAIN)),
                    Attempt::Again => left -= 1,
                }
            };
            base = follow(from, directory, &link, text, spare)?;
        }
        Err(Stop::Errno(libc::ELOOP))
    }

    fn attempt(
        &mut self,
        from: &Request,
        directory: &Fd,
        name: &CStr,
        flags: c_int,
        mode: u32,
    ) -> Result<Attempt, Stop> {
        let open = |flags: c_int, mode| raw::open(directory.0, name, flags | libc::O_CLOEXEC, mode);
        if !is_plain(name) {
            // It names a directory, and the kernel says what is wrong with that.
            return Ok(Attempt::Opened(open(flags, mode)?));
        }
        let is_exclusive = flags & libc::O_EXCL != 0;
        let protection = self.names.protection(directory.0, name)?;
        if protection == Protection::Absent {
            return Err(Stop::Errno(libc::EROFS));
        }
        let found = match raw::open(directory.0, name, raw::NAME | libc::O_NOFOLLOW, 0) {
            Ok(_) if is_exclusive => return Err(Stop::Errno(libc::EEXIST)),
            Ok(found) => found,
            // Somebody else had made it, and it is gone again.
            Err(libc::ENOENT) if protection == Protection::Present => return Ok(Attempt::Again),
            Err(libc::ENOENT) => {
                self.take_umask(&from.caller)?;
                return match open(flags | libc::O_EXCL, mode) {
                    Err(libc::EEXIST) if !is_exclusive => Ok(Attempt::Again),
                    made => Ok(Attempt::Opened(made?)),
                };
            }
            Err(errno) => return Err(Stop::Errno(errno)),
        };
        // From here on it is opened as it is.
        let flags = flags & !(libc::O_CREAT | libc::O_EXCL);
        if raw::is_of_procfs(found.0)? {
            return self.open_of_procfs(from, directory, name, flags).map(Attempt::Opened);
        }
        let about = raw::stat(found.0, c"")?;
        let flags = match u32::from(about.stx_mode) & libc::S_IFMT {
            libc::S_IFLNK if flags & libc::O_NOFOLLOW != 0 => return Err(Stop::Errno(libc::ELOOP)),
            libc::S_IFLNK => return Ok(Attempt::Link(found)),
            libc::S_IFDIR => return Err(Stop::Errno(libc::EISDIR)),
            libc::S_IFCHR if (about.stx_rdev_major, about.stx_rdev_minor) == (5, 0) => {
                return Ok(Attempt::Opened(self.open_terminal(&from.caller, flags)?));
            }
            libc::S_IFCHR => flags | libc::O_NOCTTY,
            // It may have to wait for somebody to open the other end.
            libc::S_IFIFO if !waits(flags) || from.side == Side::Apart => flags,
            libc::S_IFIFO => return Err(Stop::Apart),
            _ => flags,
        };
        match open(flags | libc::O_NOFOLLOW, 0) {
            Err(libc::ENOENT | libc::ELOOP) => Ok(Attempt::Again),
            opened => Ok(Attempt::Opened(opened?)),
        }
    }

    /// What is in `/proc` depends on who asks. Nothing but what the links to descriptors lead to can be written there, since
    /// it is mounted read-only.
    fn open_of_procfs(&self, from: &Request, directory: &Fd, name: &CStr, flags: c_int) -> Result<Fd, Stop> {
        if from.side == Side::Gate {
            return Err(Stop::Apart);
        }
        if !self.is_of_another(directory)? {
            return Err(Stop::Errno(libc::EROFS));
        }
        Ok(raw::open(
            directory.0,
            name,
            flags | libc::O_NOCTTY | libc::O_CLOEXEC,
            0,
        )?)
    }

    /// Whether a directory of procfs is about a process, and not this one.
    pub(super) fn is_of_another(&self, directory: &Fd) -> Result<bool, c_int> {
        let (mut path, mut own) = ([0; 64], [0; 16]);
        let name = Name::of("self/fd/").number(directory.0);
        let len = raw::read_link(self.proc.0, name.as_c_str(), &mut path)?;
        let own_len = raw::read_link(self.proc.0, c"self", &mut own)?;
        let process = path[..len]
            .strip_prefix(b"/proc/")
            .and_then(|path| path.split(|b| *b == b'/').next());
        Ok(
            process
                .is_some_and(|process| process.first().is_some_and(u8::is_ascii_digit) && process != &own[..own_len]),
        )
    }

    /// The caller's controlling terminal. `/dev/tty` itself would be the init's, which has none.
    fn open_terminal(&self, caller: &Caller, flags: c_int) -> Result<Fd, c_int> {
        let (session, device) = caller.terminal()?;
        let flags = flags & !libc::O_NOFOLLOW | libc::O_NOCTTY | libc::O_CLOEXEC;
        match &self.terminal {
            _ if device == 0 => Err(libc::ENXIO),
            Some(terminal) if session == self.leader => {
                let name = Name::of("self/fd/").number(terminal.0);
                raw::open(self.proc.0, name.as_c_str(), flags, 0)
            }
            _ => {
                // The minor number, as the kernel packs it.
                let number = device & 0xff | device >> 12 & 0xf_ff00;
                let name = Name::of("/dev/pts/").number(number);
                raw::open(libc::AT_FDCWD, name.as_c_str(), flags, 0)
            }
        }
    }
}

/// Whether it is a name that a file can be made under.
fn is_plain(name: &CStr) -> bool {
    !matches!(name.to_bytes(), [.., b'/'] | b"." | b".." | b"")
}

/// Whether opening a FIFO waits for its other end.
fn waits(flags: c_int) -> bool {
    flags & libc::O_NONBLOCK == 0 && flags & libc::O_ACCMODE != libc::O_RDWR
}
