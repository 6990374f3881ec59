//! Names that must not come to be: which they are, and whether a name in a directory is one.
//!
//! What counts is the directory itself, by device and inode, not how a program got to it.

use super::tree::{self, Extent};
use crate::sys::raw::{self, Fd};
use nix::libc::{self, c_int};
use std::ffi::{CStr, CString};
use std::os::fd::RawFd;

/// The names that can be guarded. A directory's are a bit each, in this order.
const NAMES: [&CStr; 4] = [c".git", c".codex", c".agents", c".aws"];

/// The signal that tells of new names in a guarded directory. It has to be blocked.
pub(super) const NEW_NAME: c_int = libc::SIGIO;

/// In how many directories names can be guarded.
pub(super) const MAX_DIRECTORIES: usize = 64;

/// A directory, and the names that are not to come to be in it.
#[derive(Debug)]
pub(super) struct Guard {
    /// Absolute.
    pub(super) directory: CString,
    names: u8,
}

/// What names are to be guarded, as far as they can be.
#[derive(Debug, Default)]
pub(super) struct Guards {
    pub(super) list: Vec<Guard>,
    /// One that can't be.
    pub(super) impossible: Option<Vec<u8>>,
}

impl Guards {
    /// Adds the name at the end of an absolute path without links and without NUL.
    pub(super) fn add(&mut self, path: &[u8]) {
        let at = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
        let (directory, name) = (
            &path[..at.max(1).min(path.len())],
            path.get(at + 1..).unwrap_or_default(),
        );
        let bit = NAMES.iter().position(|known| known.to_bytes() == name);
        let (Some(bit), Ok(directory)) = (bit, CString::new(directory)) else {
            self.impossible = Some(path.to_vec());
            return;
        };
        match self.list.iter_mut().find(|guard| guard.directory == directory) {
            Some(guard) => guard.names |= 1 << bit,
            None => self.list.push(Guard {
                directory,
                names: 1 << bit,
            }),
        }
    }
}

/// A directory with guarded names in it, held open.
struct Directory {
    fd: Fd,
    id: FileId,
    names: u8,
    /// Has us told of new names. It may be that the directory can be written but not read.
    watch: Option<Fd>,
}

/// What makes two files the same.
type FileId = (u32, u32, u64);

fn id(found: &libc::statx) -> FileId {
    (found.stx_dev_major, found.stx_dev_minor, found.stx_ino)
}

/// What holds for a name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    /// Nothing.
    None,
    /// It is guarded and not there.
    Absent,
    /// It is guarded, and somebody else has made it.
    Present,
}

/// The guarded names of a sandbox.
pub(super) struct GuardedNames {
    directories: [Option<Directory>; MAX_DIRECTORIES],
}

impl GuardedNames {
    /// Opens the directories, as they are in the sandbox. Fails with the index of the one that it failed at.
    pub(super) fn open(guards: &[Guard]) -> Result<GuardedNames, (usize, c_int)> {
        let mut names = GuardedNames {
            directories: [const { None }; MAX_DIRECTORIES],
        };
        for (n, guard) in guards.iter().enumerate() {
            let failed = |errno| (n, errno);
            let place = names.directories.get_mut(n).ok_or((n, libc::E2BIG))?;
            let flags = raw::NAME | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            let fd = raw::open(libc::AT_FDCWD, &guard.directory, flags, 0).map_err(failed)?;
            let id = id(&raw::stat(fd.0, c"").map_err(failed)?);
            *place = Some(Directory {
                fd,
                id,
                names: guard.names,
                watch: watch(&guard.directory).ok(),
            });
        }
        Ok(names)
    }

    /// What holds for `name`, which may have slashes behind it.
    pub(super) fn protection(&self, directory: RawFd, name: &CStr) -> Result<Protection, c_int> {
        let Some(bit) = bit(name.to_bytes()) else {
            return Ok(Protection::None);
        };
        let id = id(&raw::stat(directory, c"")?);
        let is_guarded = |d: &Directory| d.id == id && d.names & 1 << bit != 0;
        if !self.directories.iter().flatten().any(is_guarded) {
            return Ok(Protection::None);
        }
        match raw::stat(directory, name) {
            Err(libc::ENOENT) => Ok(Protection::Absent),
            Err(e) => Err(e),
            Ok(_) => Ok(Protection::Present),
        }
    }

    /// Whether a [`NEW_NAME`] tells of new names. If not, somebody has to look now and then.
    pub(super) fn are_watched(&self) -> bool {
        self.directories
            .iter()
            .flatten()
            .all(|directory| directory.watch.is_some())
    }

    /// Makes the guarded names that there are read-only, since not the program has made them.
    pub(super) fn cover(&self) {
        for directory in self.directories.iter().flatten() {
            let names = NAMES
                .iter()
                .enumerate()
                .filter(|(bit, _)| directory.names & 1 << bit != 0);
            for (_, name) in names {
                let found = raw::stat(directory.fd.0, name);
                if found.is_ok_and(|found| found.stx_attributes & MOUNT_ROOT == 0) {
                    // It may be gone again. If it can't be covered, it still can't be made by the program.
                    let _ = cover(directory.fd.0, name);
                }
            }
        }
    }
}

/// Which of the names it is. In small letters or not, since some file systems do not tell them apart.
fn bit(name: &[u8]) -> Option<usize> {
    let slashes = name.iter().rev().take_while(|b| **b == b'/').count();
    let name = &name[..name.len() - slashes];
    NAMES
        .iter()
        .position(|known| known.to_bytes().eq_ignore_ascii_case(name))
}

/// `STATX_ATTR_MOUNT_ROOT`, since Linux 5.8.
const MOUNT_ROOT: u64 = 0x2000;

/// Has this process told of each name that is made in a directory by [`NEW_NAME`], as long as what it returns is open.
///
/// That is `dnotify`, since to close an inotify descriptor takes some 15 ms, for which the end of a sandbox would wait.
fn watch(directory: &CStr) -> Result<Fd, c_int> {
    /// `F_NOTIFY`, `DN_CREATE | DN_RENAME | DN_MULTISHOT`
    const NOTIFY: usize = 1026;
    const OF_NEW_NAMES: usize = 0x8000_0014;
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let fd = raw::open(libc::AT_FDCWD, directory, flags, 0)?;
    // SAFETY: integers.
    unsafe { raw::call(libc::SYS_fcntl, [fd.0 as usize, NOTIFY, OF_NEW_NAMES, 0, 0, 0]) }?;
    Ok(fd)
}

/// Puts a read-only mount of what is there over it.
fn cover(directory: RawFd, name: &CStr) -> Result<(), c_int> {
    raw::with_right(raw::MOUNT_RIGHT, || {
        let there = tree::clone(directory, name, Extent::Whole)?;
        tree::restrict(there.0, tree::RDONLY | tree::LIMITED, Extent::Whole)?;
        tree::attach(&there, directory, name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_are_gathered_by_their_directories() {
        let mut guards = Guards::default();
        for path in [&b"/a/.git"[..], b"/.aws", b"/a/.codex", b"/a/b/.agents"] {
            guards.add(path);
        }
        let list: Vec<_> = (guards.list.iter())
            .map(|guard| (guard.directory.as_c_str(), guard.names))
            .collect();
        assert_eq!(list, [(c"/a", 0b11), (c"/", 0b1000), (c"/a/b", 0b100)]);
        assert_eq!(guards.impossible, None);
        guards.add(b"/a/.ssh");
        assert_eq!(guards.impossible.as_deref(), Some(&b"/a/.ssh"[..]));
    }

    #[test]
    fn a_name_is_guarded_as_a_file_system_may_take_it() {
        for (name, expected) in [
            (&b".git"[..], Some(0)),
            (b".git/", Some(0)),
            (b".AWS//", Some(3)),
            (b".gitignore", None),
            (b"git", None),
            (b".", None),
            (b"/", None),
            (b"", None),
        ] {
            assert_eq!(bit(name), expected, "{}", name.escape_ascii());
        }
    }
}
