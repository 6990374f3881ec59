//! `fs/copy` of a directory with all that is in it, however deep it is.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat, mkdirat};

use super::bounds::{Bounds, End, find};
use super::copy::{Copied, copy_file, copy_link};
use super::directory::is_self_or_parent;
use super::error::FilesError;
use super::place::{HOLD_DIRECTORY, Links, Place, file_type, identity, permissions, stat_entry};
use super::remove::leave;

const FOR_LISTING: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

/// Copies a directory with all that is in it to a path.
///
/// # Errors
/// As [`copy`](super::copy::copy).
pub(super) fn copy_tree(
    from: &Place,
    source: &Path,
    destination: &Path,
    links: Links<'_>,
) -> Result<Copied, FilesError> {
    let flags = FOR_LISTING | OFlag::O_NOFOLLOW;
    let name = from.name.as_os_str();
    let here = openat(&from.parent, name, flags, Mode::empty())?;
    let (place, limits, final_link) = match links {
        Links::Follow => (Place::of(destination)?, None, OFlag::empty()),
        Links::Refuse => (Place::without_links(destination)?, None, OFlag::O_NOFOLLOW),
        Links::Within { bounds, follow } => {
            let found = find(destination, follow, End::Target, bounds)?;
            let limits = Limits {
                bounds,
                there: found.path,
            };
            limits.check_directory(found.place.parent.as_fd(), &found.place.name)?;
            (found.place, Some(limits), OFlag::O_NOFOLLOW)
        }
    };
    if is_within(&place, identity(&fstat(&here)?))? {
        return Err(FilesError::invalid_request(
            "fs/copy cannot copy a directory to itself or one of its descendants",
        ));
    }
    let (there, is_new) = open_copy(place.parent.as_fd(), &place.name, final_link)?;
    let mut tree = TreeCopy {
        here,
        there,
        limits,
        levels: Vec::new(),
        copied: Copied::default(),
    };
    tree.copy_level(source.as_os_str().to_owned(), is_new)?;
    while !tree.levels.is_empty() {
        tree.step()?;
    }
    Ok(tree.copied)
}

/// A tree being copied, holding on only to the directory it is at and that one's copy: the way back is
/// `..`, and that it is the way it came is checked.
struct TreeCopy<'a> {
    here: OwnedFd,
    there: OwnedFd,
    limits: Option<Limits<'a>>,
    /// The directories from the top down to here.
    levels: Vec<Level>,
    copied: Copied,
}

/// What the copy may become.
struct Limits<'a> {
    bounds: &'a dyn Bounds,
    /// The path of the directory that is copied to.
    there: PathBuf,
}

impl Limits<'_> {
    /// Whether an entry may be made, or replaced.
    fn check_entry(&self, name: &OsStr) -> Result<(), Errno> {
        self.bounds.may_change(&self.there.join(name))
    }

    /// Whether the directory at `there` may be made if it is not there, or filled if it is.
    fn check_directory(&self, parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
        match stat_entry(parent, name) {
            Ok(_) => self.bounds.may_write(&self.there),
            Err(_) => self.bounds.may_change(&self.there),
        }
    }
}

struct Level {
    /// Its name; the whole path of the top.
    name: OsString,
    from: (u64, u64),
    to: (u64, u64),
    /// The mode a directory made here gets when it is complete.
    final_mode: Option<Mode>,
    /// Directories in it that are still to be copied.
    children: Vec<OsString>,
}

impl TreeCopy<'_> {
    /// Copies what is here, but for directories.
    fn copy_level(&mut self, name: OsString, is_new: bool) -> Result<(), FilesError> {
        let original = fstat(&self.here)?;
        let mut children = Vec::new();
        let specials = copy_entries(&self.here, &self.there, self.limits.as_ref(), &mut children)?;
        self.levels.push(Level {
            name,
            from: identity(&original),
            to: identity(&fstat(&self.there)?),
            final_mode: is_new.then(|| Mode::from_bits_truncate(permissions(&original))),
            children,
        });
        if !specials.is_empty() {
            let directory: PathBuf = self.levels.iter().map(|level| &level.name).collect();
            let paths = specials.iter().map(|name| directory.join(name));
            self.copied.skipped.extend(paths);
        }
        Ok(())
    }

    /// Copies one directory more, or goes up from one that is complete.
    fn step(&mut self) -> Result<(), FilesError> {
        let Some(level) = self.levels.last_mut() else {
            return Ok(());
        };
        if let Some(name) = level.children.pop() {
            let flags = FOR_LISTING | OFlag::O_NOFOLLOW;
            let below = openat(&self.here, name.as_os_str(), flags, Mode::empty())?;
            if let Some(limits) = &mut self.limits {
                limits.there.push(&name);
                limits.check_directory(self.there.as_fd(), &name)?;
            }
            let (copy, is_new) = open_copy(self.there.as_fd(), &name, OFlag::O_NOFOLLOW)?;
            (self.here, self.there) = (below, copy);
            return self.copy_level(name, is_new);
        }
        let final_mode = level.final_mode;
        self.levels.pop();
        if let Some(limits) = &mut self.limits {
            limits.there.pop();
        }
        // Before the mode is set: it may leave no way up.
        let above = match self.levels.last() {
            Some(upper) => Some((leave(&self.here, upper.from)?, leave(&self.there, upper.to)?)),
            None => None,
        };
        if let Some(mode) = final_mode {
            fchmod(&self.there, mode)?;
        }
        if let Some(above) = above {
            (self.here, self.there) = above;
        }
        Ok(())
    }
}

/// Opens the directory a directory is copied to, making it if need be: closed to others until it is
/// complete. Says whether it was made.
fn open_copy(parent: BorrowedFd<'_>, name: &OsStr, links: OFlag) -> Result<(OwnedFd, bool), Errno> {
    let is_new = match mkdirat(parent, name, Mode::S_IRWXU) {
        Ok(()) => true,
        Err(Errno::EEXIST) => false,
        Err(errno) => return Err(errno),
    };
    match openat(parent, name, FOR_LISTING | links, Mode::empty()) {
        Ok(fd) => Ok((fd, is_new)),
        Err(Errno::ENOTDIR | Errno::ELOOP) => Err(Errno::EEXIST),
        Err(errno) => Err(errno),
    }
}

/// Copies what is in a directory but for directories, whose names go to `directories`. Returns the names
/// of what can't be copied.
fn copy_entries(
    from: &OwnedFd,
    to: &OwnedFd,
    limits: Option<&Limits<'_>>,
    directories: &mut Vec<OsString>,
) -> Result<Vec<OsString>, FilesError> {
    let mut specials = Vec::new();
    let mut listing = Dir::openat(from, ".", FOR_LISTING, Mode::empty())?;
    for entry in listing.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if is_self_or_parent(name) {
            continue;
        }
        let kind = match entry.file_type() {
            Some(Type::Directory) => SFlag::S_IFDIR,
            Some(Type::File) => SFlag::S_IFREG,
            Some(Type::Symlink) => SFlag::S_IFLNK,
            Some(_) => SFlag::empty(),
            None => file_type(&stat_entry(from, name)?),
        };
        if let Some(limits) = limits
            && matches!(kind, SFlag::S_IFREG | SFlag::S_IFLNK)
        {
            limits.check_entry(name)?;
        }
        match kind {
            SFlag::S_IFDIR => directories.push(name.to_owned()),
            SFlag::S_IFREG => copy_file(from.as_fd(), name, to.as_fd())?,
            SFlag::S_IFLNK => copy_link(from.as_fd(), name, to.as_fd(), name)?,
            _ => specials.push(name.to_owned()),
        }
    }
    Ok(specials)
}

/// Whether a place is a certain directory or lies anywhere below it, by whatever way one gets there.
fn is_within(place: &Place, directory: (u64, u64)) -> Result<bool, Errno> {
    let name = place.name.as_os_str();
    let mut here = match openat(&place.parent, name, HOLD_DIRECTORY, Mode::empty()) {
        Ok(existing) => existing,
        Err(_) => openat(&place.parent, ".", HOLD_DIRECTORY, Mode::empty())?,
    };
    let mut own = identity(&fstat(&here)?);
    loop {
        if own == directory {
            return Ok(true);
        }
        let above = openat(&here, "..", HOLD_DIRECTORY, Mode::empty())?;
        let upper = identity(&fstat(&above)?);
        if upper == own {
            return Ok(false);
        }
        (here, own) = (above, upper);
    }
}
