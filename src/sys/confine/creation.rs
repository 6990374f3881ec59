//! The calls that give a file a name, carried out for their caller. That of `open` is in [`open`](super::open).

use super::caller::{Caller, Text};
use super::gate::{Call, Done, Gate, Side, Stop};
use super::guard::Protection;
use crate::sys::raw::{self, Fd};
use nix::libc::{self, c_int};
use std::ffi::CStr;

/// Who wants something, and where it is done.
#[derive(Clone, Copy)]
pub(super) struct Request {
    pub(super) caller: Caller,
    pub(super) id: u64,
    pub(super) side: Side,
}

/// A path as a call has it: a descriptor of the caller's and an address in its memory.
pub(super) type PathArgument = (u64, u64);

/// How many links are followed, as in the kernel.
pub(super) const MAX_LINKS: usize = 40;

/// `RENAME_EXCHANGE`
const EXCHANGE: u32 = 2;

/// The descriptor in calls that have none.
const HERE: u64 = libc::AT_FDCWD as u64;

/// What is made.
enum New {
    Directory { mode: u64 },
    Node { mode: u64, device: u64 },
}

impl Gate {
    /// Carries a call out.
    pub(super) fn carry_out(&mut self, from: &Request, call: &Call, texts: &mut [Text; 2]) -> Result<Done, Stop> {
        let [a, b, c, d, e, _] = call.arguments;
        let value = match call.number {
            #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
            libc::SYS_open => return self.open_for(from, (HERE, a), b, c, texts),
            #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
            libc::SYS_creat => {
                let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC;
                return self.open_for(from, (HERE, a), flags as u64, b, texts);
            }
            libc::SYS_openat => return self.open_for(from, (a, b), c, d, texts),
            #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
            libc::SYS_mkdir => self.make(from, (HERE, a), New::Directory { mode: b }, texts),
            libc::SYS_mkdirat => self.make(from, (a, b), New::Directory { mode: c }, texts),
            #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
            libc::SYS_mknod => self.make(from, (HERE, a), New::Node { mode: b, device: c }, texts),
            libc::SYS_mknodat => self.make(from, (a, b), New::Node { mode: c, device: d }, texts),
            #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
            libc::SYS_symlink => self.make_symlink(from, a, (HERE, b), texts),
            libc::SYS_symlinkat => self.make_symlink(from, a, (b, c), texts),
            #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
            libc::SYS_link => self.make_link(from, (HERE, a), (HERE, b), 0, texts),
            libc::SYS_linkat => self.make_link(from, (a, b), (c, d), e, texts),
            #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
            libc::SYS_rename => self.rename(from, (HERE, a), (HERE, b), 0, texts),
            #[cfg(not(target_arch = "riscv64"))]
            libc::SYS_renameat => self.rename(from, (a, b), (c, d), 0, texts),
            libc::SYS_renameat2 => self.rename(from, (a, b), (c, d), e, texts),
            libc::SYS_bind => self.bind(from, a, (b, c), texts),
            _ => Err(Stop::Errno(libc::ENOSYS)),
        };
        value.map(Done::Value)
    }

    fn make(&mut self, from: &Request, path: PathArgument, new: New, texts: &mut [Text; 2]) -> Result<usize, Stop> {
        let (directory, name) = pin(from, path, &mut texts[0])?;
        self.check(from, &directory, name, libc::EEXIST)?;
        self.take_umask(&from.caller)?;
        Ok(match new {
            New::Directory { mode } => raw::make_directory(directory.0, name, mode as u32),
            New::Node { mode, device } => raw::make_node(directory.0, name, mode as u32, device as usize),
        }?)
    }

    fn make_symlink(
        &self,
        from: &Request,
        target: u64,
        path: PathArgument,
        [first, second]: &mut [Text; 2],
    ) -> Result<usize, Stop> {
        from.caller.read_path(target, first)?;
        let (directory, name) = pin(from, path, second)?;
        self.check(from, &directory, name, libc::EEXIST)?;
        Ok(raw::make_symlink(first.as_c_str(), directory.0, name)?)
    }

    fn make_link(
        &self,
        from: &Request,
        old: PathArgument,
        new: PathArgument,
        flags: u64,
        [first, second]: &mut [Text; 2],
    ) -> Result<usize, Stop> {
        let flags = flags as c_int;
        if flags & !(libc::AT_SYMLINK_FOLLOW | libc::AT_EMPTY_PATH) != 0 {
            return Err(Stop::Errno(libc::EINVAL));
        }
        from.caller.read_path(old.1, first)?;
        if first.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
            let (directory, name) = pin(from, new, second)?;
            self.check(from, &directory, name, libc::EEXIST)?;
            if old.0 as c_int == libc::AT_FDCWD {
                return Err(Stop::Errno(libc::EPERM));
            }
            // As a program does it that has no right to the other way.
            let old = from.caller.descriptor(old.0 as c_int)?;
            let old = (self.proc.0, old.as_c_str());
            return Ok(raw::make_link(old, (directory.0, name), libc::AT_SYMLINK_FOLLOW)?);
        }
        let (old_directory, old_name, flags) = match flags & libc::AT_SYMLINK_FOLLOW {
            0 => {
                let (directory, name) = pin_text(from, old.0, first)?;
                (directory, name, 0)
            }
            _ => self.pin_followed(from, old.0, first, second)?,
        };
        let (directory, name) = pin(from, new, second)?;
        self.check(from, &directory, name, libc::EEXIST)?;
        Ok(raw::make_link((old_directory.0, old_name), (directory.0, name), flags)?)
    }

    /// Follows links in the last name, but for those of procfs, which the kernel has to follow: the flags say so.
    fn pin_followed<'t>(
        &self,
        from: &Request,
        base: u64,
        text: &'t mut Text,
        spare: &mut Text,
    ) -> Result<(Fd, &'t CStr, c_int), Stop> {
        let mut base = start(from, base, text)?;
        for _ in 0..=MAX_LINKS {
            let (directory, name) = locate(from.side, base.take(), text)?;
            let found = raw::open(directory.0, text.from(name), raw::NAME | libc::O_NOFOLLOW, 0)?;
            if !is_link(&found)? {
                return Ok((directory, text.from(name), 0));
            }
            if raw::is_of_procfs(found.0)? {
                let (side, of_another) = (from.side, self.is_of_another(&directory)?);
                return match (side, of_another) {
                    (Side::Gate, _) => Err(Stop::Apart),
                    (Side::Apart, true) => Ok((directory, text.from(name), libc::AT_SYMLINK_FOLLOW)),
                    (Side::Apart, false) => Err(Stop::Errno(libc::EACCES)),
                };
            }
            base = follow(from, directory, &found, text, spare)?;
        }
        Err(Stop::Errno(libc::ELOOP))
    }

    fn rename(
        &self,
        from: &Request,
        old: PathArgument,
        new: PathArgument,
        flags: u64,
        [first, second]: &mut [Text; 2],
    ) -> Result<usize, Stop> {
        let flags = flags as u32;
        let (old_directory, old_name) = pin(from, old, first)?;
        let (directory, name) = pin(from, new, second)?;
        self.check(from, &directory, name, libc::EBUSY)?;
        if flags & EXCHANGE != 0 {
            self.check(from, &old_directory, old_name, libc::EBUSY)?;
        }
        Ok(raw::rename((old_directory.0, old_name), (directory.0, name), flags)?)
    }

    /// Binding a socket of the file system makes a file. What kind of address it is can only be seen in memory, and so all
    /// sockets are bound here, through a copy of the caller's descriptor.
    fn bind(
        &mut self,
        from: &Request,
        socket: u64,
        (address, len): (u64, u64),
        [text, _]: &mut [Text; 2],
    ) -> Result<usize, Stop> {
        /// Where the path is in a `struct sockaddr_un`, and its end.
        const PATH: usize = 2;
        const END: usize = 110;
        // `struct sockaddr_storage`
        let mut bytes = [0; 128];
        let bytes = bytes.get_mut(..len as u32 as usize).ok_or(libc::EINVAL)?;
        if !bytes.is_empty() && from.caller.read_memory(address, bytes)? < bytes.len() {
            return Err(Stop::Errno(libc::EFAULT));
        }
        let socket = from.caller.take_descriptor(socket as c_int)?;
        let family = bytes.first_chunk().map(|family| u16::from_ne_bytes(*family).into());
        let is_path = family == Some(libc::AF_UNIX) && bytes.get(PATH).is_some_and(|first| *first != 0);
        if !is_path {
            return match self.is_waiting(from.id) {
                true => Ok(raw::bind(socket.0, bytes)?),
                false => Err(Stop::Errno(libc::EINTR)),
            };
        }
        if bytes.len() > END {
            return Err(Stop::Errno(libc::EINVAL));
        }
        text.set(&bytes[PATH..]);
        let (directory, name) = pin_text(from, HERE, text)?;
        self.check(from, &directory, name, libc::EADDRINUSE)?;
        self.take_umask(&from.caller)?;
        // It has to be relative to the working directory, for there is no other way to give a directory.
        let name = name.to_bytes();
        bytes[PATH..PATH + name.len()].copy_from_slice(name);
        raw::enter(directory.0)?;
        let bound = raw::bind(socket.0, &bytes[..PATH + name.len()]);
        raw::enter(self.proc.0)?;
        Ok(bound?)
    }

    /// Whether a name may be made. One that is guarded but there gets the error that it gets otherwise.
    fn check(&self, from: &Request, directory: &Fd, name: &CStr, is_there: c_int) -> Result<(), Stop> {
        // All has been read from the caller; was it from who called?
        if !self.is_waiting(from.id) {
            return Err(Stop::Errno(libc::EINTR));
        }
        match self.names.protection(directory.0, name)? {
            Protection::None => Ok(()),
            Protection::Absent => Err(Stop::Errno(libc::EROFS)),
            Protection::Present => Err(Stop::Errno(is_there)),
        }
    }
}

/// Reads a path of the caller's, and opens the directory that its last name is in.
pub(super) fn pin<'t>(from: &Request, path: PathArgument, text: &'t mut Text) -> Result<(Fd, &'t CStr), Stop> {
    from.caller.read_path(path.1, text)?;
    pin_text(from, path.0, text)
}

/// The same for one that was read.
pub(super) fn pin_text<'t>(from: &Request, base: u64, text: &'t mut Text) -> Result<(Fd, &'t CStr), Stop> {
    let base = start(from, base, text)?;
    let (directory, name) = locate(from.side, base, text)?;
    Ok((directory, text.from(name)))
}

/// Makes a path mean what it does to the caller, and opens what it counts from unless it is absolute.
pub(super) fn start(from: &Request, base: u64, text: &mut Text) -> Result<Option<Fd>, Stop> {
    if text.is_empty() {
        return Err(Stop::Errno(libc::ENOENT));
    }
    from.caller.own(text);
    match text.is_absolute() {
        true => Ok(None),
        false => Ok(Some(from.caller.base(base as c_int)?)),
    }
}

/// Opens the directory that the last name in a path is in, and says where that begins. It counts from `base` unless it is
/// absolute.
pub(super) fn locate(side: Side, base: Option<Fd>, text: &mut Text) -> Result<(Fd, usize), Stop> {
    let (directory, name) = text.split();
    let Some(directory) = directory else {
        // Without a base it is absolute, and then there is a directory.
        return Ok((base.ok_or(libc::EBADF)?, name));
    };
    let base = base.as_ref().map_or(libc::AT_FDCWD, |base| base.0);
    let directory = match side {
        Side::Apart => raw::open(base, directory, raw::NAME | libc::O_DIRECTORY, 0)?,
        Side::Gate => match raw::name_directory(base, directory) {
            Err(libc::ELOOP) => return Err(Stop::Apart),
            named => named?,
        },
    };
    Ok((directory, name))
}

/// Puts the target of a link that is in `directory` in the place of its name, and gives what that counts from.
pub(super) fn follow(
    from: &Request,
    directory: Fd,
    link: &Fd,
    text: &mut Text,
    spare: &mut Text,
) -> Result<Option<Fd>, Stop> {
    spare.read_link(link.0)?;
    std::mem::swap(text, spare);
    from.caller.own(text);
    Ok(Some(directory).filter(|_| !text.is_absolute()))
}

fn is_link(file: &Fd) -> Result<bool, c_int> {
    let found = raw::stat(file.0, c"")?;
    Ok(u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFLNK)
}
