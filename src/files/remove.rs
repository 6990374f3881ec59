//! `fs/remove`.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::bounds::{End, find};
use super::directory::is_self_or_parent;
use super::error::FilesError;
use super::metadata::is_a_link;
use super::place::{Links, Place, file_type, identity, stat_entry};

/// How [`remove`] goes about it.
#[derive(Clone, Copy, Debug)]
pub struct RemoveOptions<'a> {
    /// Remove a directory with all that is in it. Default true.
    pub recursive: bool,
    /// Be content when the path doesn't exist. Default true.
    pub force: bool,
    /// What to do about links within the path. Default [`Links::Follow`].
    pub links: Links<'a>,
}

impl Default for RemoveOptions<'_> {
    fn default() -> Self {
        Self {
            recursive: true,
            force: true,
            links: Links::Follow,
        }
    }
}

/// Removes a file, a link (never its target) or a directory.
///
/// No link put in the way meanwhile can lead it out of the tree, and a tree may be of any depth: three
/// descriptors are open at a time. Entries that others remove meanwhile are fine.
///
/// # Errors
/// NotFound for a missing path, unless `force`; ENOTEMPTY for a full directory, unless `recursive`; ENOTDIR
/// below a file even with `force`; InvalidRequest for the root directory, and for a link that is not to be
/// followed. What was removed before an error stays removed.
pub fn remove(path: &Path, options: RemoveOptions<'_>) -> Result<(), FilesError> {
    match remove_existing(path, options) {
        Err(error) if options.force && error.is(Errno::ENOENT) => Ok(()),
        result => result,
    }
}

fn remove_existing(path: &Path, options: RemoveOptions<'_>) -> Result<(), FilesError> {
    let (place, follow) = match options.links {
        Links::Follow => (Place::of(path)?, true),
        Links::Refuse => (Place::without_links(path)?, false),
        Links::Within { bounds, follow } => {
            let found = find(path, follow, End::Itself, bounds)?;
            found.existing()?;
            bounds.may_change(&found.path)?;
            (found.place, follow)
        }
    };
    if path.file_name().is_none() || is_self_or_parent(&place.name) {
        return Err(FilesError::invalid_request("refusing to remove the root directory"));
    }
    let name = CString::new(place.name.as_bytes()).map_err(|_| Errno::EINVAL)?;
    let parent = place.parent.as_fd();
    match file_type(&place.stat()?) {
        SFlag::S_IFLNK if !follow => return Err(is_a_link()),
        SFlag::S_IFDIR if options.recursive => remove_tree(parent, name)?,
        SFlag::S_IFDIR => unlinkat(parent, name.as_c_str(), UnlinkatFlags::RemoveDir)?,
        _ => unlinkat(parent, name.as_c_str(), UnlinkatFlags::NoRemoveDir)?,
    }
    Ok(())
}

/// How often a directory that isn't empty after all is gone through again: some file systems skip entries
/// while others are removed, and somebody may be adding to it.
const RESCANS: u8 = 8;

/// A directory on the way down to the one being emptied.
struct Level {
    name: CString,
    identity: (u64, u64),
    /// Directories in it that are still to be removed.
    children: Vec<CString>,
    rescans: u8,
}

/// Empties a directory and removes it, holding on only to the directory it is at: the way back is `..`,
/// and that it is the way it came is checked.
fn remove_tree(parent: BorrowedFd<'_>, name: CString) -> Result<(), Errno> {
    let Some(mut here) = enter(parent, &name)? else {
        return Ok(());
    };
    let mut levels = vec![Level::new(&here, name)?];
    while let Some(level) = levels.last_mut() {
        if let Some(child) = level.children.pop() {
            if let Some(below) = enter(here.as_fd(), &child)? {
                levels.push(Level::new(&below, child)?);
                here = below;
            }
            continue;
        }
        let name = level.name.clone();
        let above = match levels.iter().rev().nth(1) {
            Some(upper) => Some(leave(&here, upper.identity)?),
            None => None,
        };
        let from = above.as_ref().map_or(parent, |above| above.as_fd());
        match unlinkat(from, name.as_c_str(), UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {
                levels.pop();
            }
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => {
                let Some(level) = levels.last_mut().filter(|level| level.rescans > 0) else {
                    return Err(Errno::ENOTEMPTY);
                };
                level.rescans -= 1;
                level.children = sweep(&here)?;
                continue;
            }
            Err(errno) => return Err(errno),
        }
        if let Some(above) = above {
            here = above;
        }
    }
    Ok(())
}

impl Level {
    fn new(directory: &OwnedFd, name: CString) -> Result<Self, Errno> {
        Ok(Self {
            name,
            identity: identity(&fstat(directory)?),
            children: sweep(directory)?,
            rescans: RESCANS,
        })
    }
}

/// Opens a directory to empty it; `None` if it could be removed right away, or is gone.
fn enter(parent: BorrowedFd<'_>, name: &CStr) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let (errno, kind) = match openat(parent, name, flags, Mode::empty()) {
        Ok(fd) => return Ok(Some(fd)),
        Err(Errno::ENOENT) => return Ok(None),
        // Somebody put something else there.
        Err(errno @ (Errno::ENOTDIR | Errno::ELOOP)) => (errno, UnlinkatFlags::NoRemoveDir),
        // It can't be listed; it may be empty all the same.
        Err(errno @ Errno::EACCES) => (errno, UnlinkatFlags::RemoveDir),
        Err(errno) => return Err(errno),
    };
    match unlinkat(parent, name, kind) {
        Ok(()) | Err(Errno::ENOENT) => Ok(None),
        Err(_) => Err(errno),
    }
}

/// Goes up, if that is where it came from.
pub(super) fn leave(here: &OwnedFd, expected: (u64, u64)) -> Result<OwnedFd, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let above = openat(here, "..", flags, Mode::empty())?;
    if identity(&fstat(&above)?) == expected {
        Ok(above)
    } else {
        // The directory was moved elsewhere: what lies there is none of ours.
        Err(Errno::ESTALE)
    }
}

/// Removes everything in a directory but directories, whose names it returns.
fn sweep(directory: &OwnedFd) -> Result<Vec<CString>, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut listing = Dir::openat(directory, ".", flags, Mode::empty())?;
    let mut directories = Vec::new();
    for entry in listing.iter() {
        let entry = entry?;
        let name = entry.file_name();
        let text = OsStr::from_bytes(name.to_bytes());
        if is_self_or_parent(text) {
            continue;
        }
        let is_directory = match entry.file_type() {
            Some(kind) => kind == Type::Directory,
            None => matches!(stat_entry(directory, text), Ok(s) if file_type(&s) == SFlag::S_IFDIR),
        };
        if is_directory {
            directories.push(name.to_owned());
            continue;
        }
        match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(Errno::EISDIR) => directories.push(name.to_owned()),
            Err(errno) => return Err(errno),
        }
    }
    Ok(directories)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::FilesErrorKind;
    use crate::files::fixture::TempDir;
    use nix::fcntl::AT_FDCWD;
    use nix::sys::stat::mkdirat;
    use nix::unistd::Uid;
    use std::fs;

    const PLAIN: RemoveOptions<'_> = RemoveOptions {
        recursive: false,
        force: false,
        links: Links::Follow,
    };

    #[test]
    fn files_links_and_trees() {
        let dir = TempDir::new();
        dir.put("f", "");
        dir.put("d/a/b", "");
        dir.put("d/a/c/e/f", "");
        dir.put("t/keep", "");
        dir.link("../t", "d/lt");
        dir.link("t", "l");
        dir.fifo("d/p");
        for name in ["f", "d", "l"] {
            remove(dir.path(name).as_path(), RemoveOptions::default()).unwrap();
        }
        assert_eq!(dir.names(""), ["t"]);
        assert_eq!(dir.names("t"), ["keep"]);
    }

    #[test]
    fn refusing_links_works_for_trees_too() {
        let dir = TempDir::new();
        dir.put("d/a/b", "");
        dir.put("t/keep", "");
        dir.link("../t", "d/lt");
        dir.link("t", "l");
        let options = RemoveOptions {
            links: Links::Refuse,
            ..RemoveOptions::default()
        };
        remove(&dir.path("d"), options).unwrap();
        for recursive in [false, true] {
            let options = RemoveOptions { recursive, ..options };
            let error = remove(&dir.path("l"), options).unwrap_err();
            assert_eq!(error.message, "path contains a symbolic link");
            assert_eq!(error.kind, FilesErrorKind::InvalidRequest);
            let error = remove(&dir.path("l/keep"), options).unwrap_err();
            assert!(error.is(Errno::ENOTDIR));
        }
        assert_eq!(dir.names("t"), ["keep"]);
    }

    #[test]
    fn options() {
        let dir = TempDir::new();
        dir.put("d/f", "");
        fs::create_dir(dir.path("e")).unwrap();
        let force = RemoveOptions { force: true, ..PLAIN };
        let missing = remove(&dir.path("nope"), PLAIN).unwrap_err();
        assert_eq!(missing.kind, FilesErrorKind::NotFound);
        remove(&dir.path("nope"), force).unwrap();
        remove(&dir.path("no/pe"), force).unwrap();
        assert!(remove(&dir.path("d/f/x"), force).unwrap_err().is(Errno::ENOTDIR));
        assert!(remove(&dir.path("d"), force).unwrap_err().is(Errno::ENOTEMPTY));
        remove(&dir.path("e"), PLAIN).unwrap();
        remove(&dir.path("d/f"), PLAIN).unwrap();
        let root = remove(Path::new("/"), RemoveOptions::default()).unwrap_err();
        assert_eq!(root.kind, FilesErrorKind::InvalidRequest);
    }

    #[test]
    fn a_tree_of_two_thousand_levels_on_a_small_stack() {
        let dir = TempDir::new();
        let mut here = Place::of(&dir.path("d")).unwrap().parent;
        for _ in 0..2000 {
            mkdirat(&here, "d", Mode::S_IRWXU).unwrap();
            here = openat(&here, "d", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        }
        let path = dir.path("d");
        std::thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(move || remove(&path, RemoveOptions::default()))
            .unwrap()
            .join()
            .unwrap()
            .unwrap();
        assert!(dir.names("").is_empty());
    }

    #[test]
    fn a_wide_tree() {
        let dir = TempDir::new();
        for index in 0..100 {
            dir.put(&format!("d/{index}/f"), "");
            dir.put(&format!("d/file{index}"), "");
        }
        remove(&dir.path("d"), RemoveOptions::default()).unwrap();
        assert!(dir.names("").is_empty());
    }

    #[test]
    fn directories_that_cannot_be_listed() {
        let dir = TempDir::new();
        fs::create_dir_all(dir.path("d/empty")).unwrap();
        dir.put("full/f", "");
        dir.set_mode("d/empty", 0);
        dir.set_mode("full", 0);
        remove(&dir.path("d"), RemoveOptions::default()).unwrap();
        if !Uid::effective().is_root() {
            let error = remove(&dir.path("full"), RemoveOptions::default()).unwrap_err();
            assert!(error.is(Errno::EACCES));
        }
        dir.set_mode("full", 0o700);
    }

    #[test]
    fn a_link_put_in_the_place_of_a_directory_is_not_followed() {
        let dir = TempDir::new();
        dir.put("t/keep", "");
        dir.link("t", "l");
        // What happens when the swap comes after the directory was seen as one.
        remove_tree(
            openat(AT_FDCWD, dir.root(), OFlag::O_PATH, Mode::empty())
                .unwrap()
                .as_fd(),
            CString::new("l").unwrap(),
        )
        .unwrap();
        assert_eq!(dir.names(""), ["t"]);
        assert_eq!(dir.names("t"), ["keep"]);
    }

    #[test]
    fn a_directory_moved_away_is_not_left_for_another() {
        let dir = TempDir::new();
        dir.put("a/b/f", "");
        fs::create_dir(dir.path("other")).unwrap();
        let open = |name| {
            let path = dir.path(name);
            openat(AT_FDCWD, path.as_path(), OFlag::O_PATH, Mode::empty()).unwrap()
        };
        let came_from = identity(&fstat(open("a")).unwrap());
        let here = open("a/b");
        assert!(leave(&here, came_from).is_ok());
        fs::rename(dir.path("a/b"), dir.path("other/b")).unwrap();
        assert_eq!(leave(&here, came_from).unwrap_err(), Errno::ESTALE);
    }
}
