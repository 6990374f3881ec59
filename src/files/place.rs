//! Where a path leads: an open directory and the name of an entry in it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open, openat, readlinkat};
use nix::libc;
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};

use super::bounds::Bounds;

/// How many links the kernel follows in one path (MAXSYMLINKS), and so do we.
pub(super) const MAX_LINKS: usize = 40;

/// What a call does about symbolic links in the path it is given.
#[derive(Clone, Copy, Debug, Default)]
pub enum Links<'a> {
    /// Go through them.
    #[default]
    Follow,
    /// Fail on the first, wherever in the path it is.
    Refuse,
    /// Do one or the other, but only what the bounds permit where the path really leads. A link that is put in the way
    /// meanwhile makes the call fail.
    Within {
        /// What is permitted.
        bounds: &'a dyn Bounds,
        /// Whether to go through links.
        follow: bool,
    },
}

impl<'a> Links<'a> {
    /// From the `followSymlinks` param, and the bounds if there are any.
    pub fn new(follow: bool, bounds: Option<&'a dyn Bounds>) -> Self {
        match bounds {
            Some(bounds) => Self::Within { bounds, follow },
            None if follow => Self::Follow,
            None => Self::Refuse,
        }
    }
}

/// An entry of an open directory; it need not exist.
pub(super) struct Place {
    /// Opened with O_PATH: good for `*at` calls, not for listing.
    pub(super) parent: OwnedFd,
    /// One component, or `.` for a path without a name: the root.
    pub(super) name: OsString,
}

pub(super) const HOLD_DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

impl Place {
    /// Opens the directory a path leads to. The last component itself is not looked at.
    pub(super) fn of(path: &Path) -> Result<Self, Errno> {
        Self::from(AT_FDCWD, path)
    }

    /// The same for an absolute path, where a link on the way is ENOTDIR.
    pub(super) fn without_links(path: &Path) -> Result<Self, Errno> {
        let (directory, name) = split(path);
        Ok(Self {
            parent: open_without_links(directory)?,
            name: name.to_owned(),
        })
    }

    fn from(start: BorrowedFd<'_>, path: &Path) -> Result<Self, Errno> {
        let (directory, name) = split(path);
        Ok(Self {
            parent: openat(start, directory, HOLD_DIRECTORY, Mode::empty())?,
            name: name.to_owned(),
        })
    }

    /// The same entry, or if that is a link, the one its chain of links ends at, be it there or not.
    ///
    /// Links that only the kernel can follow, like `/proc/self/fd/1`, come out wrong: compare
    /// [`stat`](Self::stat) with that of the path.
    pub(super) fn without_final_link(mut self) -> Result<Self, Errno> {
        for _ in 0..MAX_LINKS {
            let target = match readlinkat(&self.parent, self.name.as_os_str()) {
                Ok(target) => target,
                Err(Errno::EINVAL | Errno::ENOENT) => return Ok(self),
                Err(errno) => return Err(errno),
            };
            if matches!(target.as_bytes(), [.., b'/'] | [.., b'/', b'.']) {
                return Err(Errno::EISDIR);
            }
            self = Self::from(self.parent.as_fd(), Path::new(&target))?;
        }
        Err(Errno::ELOOP)
    }

    /// The entry's own state, a link's if it is one.
    pub(super) fn stat(&self) -> Result<FileStat, Errno> {
        stat_entry(&self.parent, &self.name)
    }

    /// The state of what it leads to, if it is a link.
    pub(super) fn stat_target(&self) -> Result<FileStat, Errno> {
        fstatat(&self.parent, self.name.as_os_str(), AtFlags::empty())
    }

    /// The same place, held once more.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            parent: self.parent.try_clone()?,
            name: self.name.clone(),
        })
    }
}

fn split(path: &Path) -> (&Path, &OsStr) {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if parent.as_os_str().is_empty() => (Path::new("."), name),
        (Some(parent), Some(name)) => (parent, name),
        _ => (path, OsStr::new(".")),
    }
}

/// The state of an entry of a directory, a link's if it is one.
pub(super) fn stat_entry(directory: impl AsFd, name: &OsStr) -> Result<FileStat, Errno> {
    fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// The state of what a path leads to.
pub(super) fn stat_target(path: &Path) -> Result<FileStat, Errno> {
    fstatat(AT_FDCWD, path, AtFlags::empty())
}

/// Which inode it is.
pub(super) fn identity(stat: &FileStat) -> (u64, u64) {
    // The width of both differs between architectures.
    #[allow(clippy::unnecessary_cast)]
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// The S_IFMT part.
pub(super) fn file_type(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Mode bits without the type.
pub(super) fn permissions(stat: &FileStat) -> libc::mode_t {
    stat.st_mode & 0o7777
}

/// Opens a directory, component by component; a link on the way is ENOTDIR.
pub(super) fn open_without_links(path: &Path) -> Result<OwnedFd, Errno> {
    let mut here = open("/", HOLD_DIRECTORY, Mode::empty())?;
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
            Component::ParentDir | Component::Normal(_) => {
                here = openat(
                    &here,
                    component.as_os_str(),
                    HOLD_DIRECTORY | OFlag::O_NOFOLLOW,
                    Mode::empty(),
                )?;
            }
        }
    }
    Ok(here)
}
