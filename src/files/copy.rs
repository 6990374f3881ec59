//! `fs/copy`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use super::bounds::{Bounds, End, find};
use super::directory::is_self_or_parent;
use super::error::FilesError;
use super::patience::Patience;
use super::place::{HOLD_DIRECTORY, Links, Place, file_type, identity, permissions, stat_entry};
use super::remove::leave;
use super::replace::{Destination, ModeSource, NewContent, Target, replace, temporary_name};

/// What [`copy`] left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Devices, sockets and FIFOs of the source tree.
    pub skipped: Vec<PathBuf>,
}

/// Copies a regular file, a link (as a link), or with `recursive` a directory with all that is in it.
///
/// Files and directories get the mode of their originals, a directory that exists already keeps its own
/// and is merged into. Every file appears complete or not at all. A file or link takes the place of a link,
/// except that a single file, like any written one, goes through a link to where it leads. A file copied onto itself, by
/// whatever name, is left alone. A tree may be of any depth.
///
/// # Errors
/// NotFound for a missing source or a missing parent of the destination. InvalidRequest for a directory
/// without `recursive`, one to be copied into itself, and a source of any other kind. EISDIR for a file onto a
/// directory, EEXIST for any other change of kind. Within bounds, EACCES for a directory in which anything may not be
/// read, before anything is copied. What was copied before an error stays.
pub fn copy(
    source: &Path,
    destination: &Path,
    recursive: bool,
    links: Links<'_>,
    patience: &Patience,
) -> Result<Copied, FilesError> {
    let from = place_of(source, links, |bounds, path| match recursive {
        true => bounds.may_read_tree(path),
        false => bounds.may_read(path),
    })?;
    let original = from.stat()?;
    match file_type(&original) {
        SFlag::S_IFREG => copy_single_file(&from, destination, links, patience)?,
        SFlag::S_IFLNK => {
            let to = place_of(destination, links, |bounds, path| bounds.may_change(path))?;
            copy_link(from.parent.as_fd(), &from.name, to.parent.as_fd(), &to.name)?;
        }
        SFlag::S_IFDIR if !recursive => {
            return Err(FilesError::invalid_request(
                "fs/copy requires recursive: true when sourcePath is a directory",
            ));
        }
        SFlag::S_IFDIR => return copy_tree(&from, source, destination, links),
        _ => {
            return Err(FilesError::invalid_request(
                "fs/copy only supports regular files, directories, and symlinks",
            ));
        }
    }
    Ok(Copied::default())
}

/// The entry that a path leads to, if that is permitted.
fn place_of(
    path: &Path,
    links: Links<'_>,
    permit: impl FnOnce(&dyn Bounds, &Path) -> Result<(), Errno>,
) -> Result<Place, Errno> {
    match links {
        Links::Follow => Place::of(path),
        Links::Refuse => Place::without_links(path),
        Links::Within { bounds, follow } => {
            let found = find(path, follow, End::Itself, bounds)?;
            permit(bounds, &found.path)?;
            Ok(found.place)
        }
    }
}

fn copy_single_file(from: &Place, destination: &Path, links: Links<'_>, patience: &Patience) -> Result<(), FilesError> {
    let mut original = Original::open(from.parent.as_fd(), &from.name)?;
    let destination = Destination::of(destination, links)?;
    if matches!(destination.stat(), Ok(there) if original.is(&there)) {
        return Ok(());
    }
    original.write_to(patience, |content| destination.write(content).map(drop))
}

/// A regular file being copied.
struct Original {
    file: File,
    stat: FileStat,
}

impl Original {
    fn open(directory: BorrowedFd<'_>, name: &OsStr) -> Result<Self, FilesError> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let fd = openat(directory, name, flags, Mode::empty())?;
        let stat = fstat(&fd)?;
        if file_type(&stat) != SFlag::S_IFREG {
            // It was a regular file a moment ago.
            return Err(Errno::ESTALE.into());
        }
        Ok(Self { file: fd.into(), stat })
    }

    fn is(&self, other: &FileStat) -> bool {
        identity(&self.stat) == identity(other)
    }

    fn write_to(
        &mut self,
        patience: &Patience,
        write: impl FnOnce(&mut NewContent<'_>) -> Result<(), FilesError>,
    ) -> Result<(), FilesError> {
        let file = &mut self.file;
        let mut fill = |copy: Target<'_>| {
            file.rewind()?;
            match copy {
                // In the kernel where it can: shared extents, copy_file_range.
                Target::File(copy) => io::copy(file, copy)?,
                Target::Special(mut copy) => io::copy(file, &mut copy)?,
            };
            Ok(())
        };
        write(&mut NewContent {
            length: u64::try_from(self.stat.st_size).unwrap_or(0),
            mode: ModeSource::Original(&self.stat),
            keep_hard_links: false,
            fill: &mut fill,
            patience,
        })
    }
}

/// Copies a file within a tree, never through a link or into a device.
fn copy_file(from: BorrowedFd<'_>, name: &OsStr, to: BorrowedFd<'_>) -> Result<(), FilesError> {
    let mut original = Original::open(from, name)?;
    match stat_entry(to, name) {
        Ok(there) if original.is(&there) => return Ok(()),
        Ok(there) => match file_type(&there) {
            SFlag::S_IFREG | SFlag::S_IFLNK => {}
            SFlag::S_IFDIR => return Err(Errno::EISDIR.into()),
            _ => return Err(Errno::EEXIST.into()),
        },
        Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    // Nothing but files and links is replaced here, which take no patience.
    original.write_to(&Patience::default(), |content| replace(to, name, content).map(drop))
}

fn copy_link(from: BorrowedFd<'_>, from_name: &OsStr, to: BorrowedFd<'_>, to_name: &OsStr) -> Result<(), Errno> {
    let target = readlinkat(from, from_name)?;
    match symlinkat(target.as_os_str(), to, to_name) {
        Err(Errno::EEXIST) => {}
        result => return result,
    }
    let there = stat_entry(to, to_name)?;
    if identity(&there) == identity(&stat_entry(from, from_name)?) {
        return Ok(());
    }
    if file_type(&there) != SFlag::S_IFLNK {
        return Err(Errno::EEXIST);
    }
    let temporary = temporary_name();
    symlinkat(target.as_os_str(), to, temporary.as_os_str())?;
    renameat(to, temporary.as_os_str(), to, to_name).inspect_err(|_| {
        let _ = unlinkat(to, temporary.as_os_str(), UnlinkatFlags::NoRemoveDir);
    })
}

const FOR_LISTING: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

fn copy_tree(from: &Place, source: &Path, destination: &Path, links: Links<'_>) -> Result<Copied, FilesError> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::FilesErrorKind;
    use crate::files::fixture::TempDir;
    use crate::files::{RemoveOptions, remove};
    use std::fs;

    fn copied(dir: &TempDir, from: &str, to: &str) -> Result<Copied, FilesError> {
        copy(
            &dir.path(from),
            &dir.path(to),
            true,
            Links::Follow,
            &Patience::default(),
        )
    }

    #[test]
    fn a_file() {
        let dir = TempDir::new();
        dir.put("f", "hello");
        dir.set_mode("f", 0o754);
        dir.put("old", "something longer");
        for name in ["g", "old"] {
            copy(
                &dir.path("f"),
                &dir.path(name),
                false,
                Links::Follow,
                &Patience::default(),
            )
            .unwrap();
            assert_eq!(dir.get(name), b"hello");
            assert_eq!(dir.mode(name), 0o754);
        }
        assert_eq!(dir.names(""), ["f", "g", "old"]);
        copy(
            Path::new("/proc/self/status"),
            &dir.path("s"),
            false,
            Links::Follow,
            &Patience::default(),
        )
        .unwrap();
        assert!(!dir.get("s").is_empty());
    }

    #[test]
    fn a_file_onto_itself() {
        let dir = TempDir::new();
        dir.put("f", "precious");
        fs::hard_link(dir.path("f"), dir.path("hard")).unwrap();
        dir.link("f", "soft");
        for name in ["f", "hard", "soft"] {
            copy(
                &dir.path("f"),
                &dir.path(name),
                false,
                Links::Follow,
                &Patience::default(),
            )
            .unwrap();
            assert_eq!(dir.get("f"), b"precious");
        }
        assert!(dir.path("soft").is_symlink());
        copied(&dir, "soft", "soft").unwrap();
        assert!(copied(&dir, "soft", "f").unwrap_err().is(Errno::EEXIST));
        assert_eq!(dir.get("f"), b"precious");
    }

    #[test]
    fn a_file_goes_through_a_link_and_into_a_device() {
        let dir = TempDir::new();
        dir.put("f", "new");
        dir.put("t", "old");
        dir.link("t", "l");
        dir.link("made", "dang");
        for name in ["l", "dang"] {
            copied(&dir, "f", name).unwrap();
            assert!(dir.path(name).is_symlink());
        }
        assert_eq!((dir.get("t"), dir.get("made")), (b"new".into(), b"new".into()));
        copy(
            &dir.path("f"),
            Path::new("/dev/null"),
            false,
            Links::Follow,
            &Patience::default(),
        )
        .unwrap();
    }

    #[test]
    fn other_names_of_a_replaced_file_keep_the_old_content() {
        let dir = TempDir::new();
        dir.put("f", "new");
        dir.put("a", "old");
        fs::hard_link(dir.path("a"), dir.path("b")).unwrap();
        copied(&dir, "f", "a").unwrap();
        assert_eq!((dir.get("a"), dir.get("b")), (b"new".into(), b"old".into()));
    }

    #[test]
    fn set_user_id_goes_with_the_owner() {
        let dir = TempDir::new();
        dir.put("f", "");
        dir.set_mode("f", 0o4755);
        copied(&dir, "f", "g").unwrap();
        assert_eq!(dir.mode("g"), 0o4755);
        if std::os::unix::fs::chown(dir.path("f"), Some(12345), None).is_ok() {
            dir.set_mode("f", 0o4755);
            copied(&dir, "f", "h").unwrap();
            assert_eq!(dir.mode("h"), 0o755);
        }
    }

    #[test]
    fn a_tree() {
        let dir = TempDir::new();
        dir.put("t/a/b", "1");
        dir.put("t/c", "2");
        dir.set_mode("t/c", 0o600);
        fs::create_dir(dir.path("t/e")).unwrap();
        dir.link("c", "t/l");
        dir.link("/no/where", "t/dang");
        dir.fifo("t/a/p");
        dir.set_mode("t/a", 0o700);
        dir.set_mode("t/e", 0o555);
        dir.set_mode("t", 0o751);
        let skipped = copied(&dir, "t", "u").unwrap().skipped;
        assert_eq!(skipped, [dir.path("t/a/p")]);
        assert_eq!((dir.get("u/a/b"), dir.get("u/c")), (b"1".into(), b"2".into()));
        let modes = ["u", "u/a", "u/e", "u/c"].map(|name| dir.mode(name));
        assert_eq!(modes, [0o751, 0o700, 0o555, 0o600]);
        assert_eq!(dir.names("u"), ["a", "c", "dang", "e", "l"]);
        assert_eq!(fs::read_link(dir.path("u/l")).unwrap(), Path::new("c"));
        assert_eq!(fs::read_link(dir.path("u/dang")).unwrap(), Path::new("/no/where"));

        // Once more over itself, now that everything exists, links too.
        dir.set_mode("u", 0o700);
        fs::remove_file(dir.path("t/l")).unwrap();
        dir.link("a/b", "t/l");
        copied(&dir, "t", "u").unwrap();
        assert_eq!(fs::read_link(dir.path("u/l")).unwrap(), Path::new("a/b"));
        assert_eq!(dir.mode("u"), 0o700);
        assert_eq!(dir.names("u"), ["a", "c", "dang", "e", "l"]);
    }

    #[test]
    fn nothing_in_a_tree_goes_through_a_link_of_the_destination() {
        let dir = TempDir::new();
        dir.put("t/f", "new");
        dir.put("outside", "old");
        fs::create_dir(dir.path("u")).unwrap();
        dir.link("../outside", "u/f");
        copied(&dir, "t", "u").unwrap();
        assert_eq!((dir.get("outside"), dir.get("u/f")), (b"old".into(), b"new".into()));
        assert!(!dir.path("u/f").is_symlink());

        dir.put("t/d/g", "");
        fs::create_dir(dir.path("elsewhere")).unwrap();
        dir.link("../elsewhere", "u/d");
        assert!(copied(&dir, "t", "u").unwrap_err().is(Errno::EEXIST));
        assert!(dir.names("elsewhere").is_empty());
        dir.link("elsewhere", "top");
        copied(&dir, "t/d", "top").unwrap();
        assert_eq!(dir.names("elsewhere"), ["g"]);
    }

    #[test]
    fn into_itself() {
        let dir = TempDir::new();
        dir.put("t/d/f", "");
        dir.link("t/d", "l");
        dir.link(".", "here");
        for to in ["t", "t/in", "t/d/in", "l", "l/in", "here/t/in", "here/t"] {
            let error = copied(&dir, "t", to).unwrap_err();
            assert_eq!(
                error.message, "fs/copy cannot copy a directory to itself or one of its descendants",
                "{to}"
            );
            assert_eq!(error.kind, FilesErrorKind::InvalidRequest);
        }
        assert_eq!((dir.names("t"), dir.names("t/d")), (vec!["d".into()], vec!["f".into()]));
        copied(&dir, "t", "t2").unwrap();
        copied(&dir, "t/d", "t").unwrap();
        assert_eq!(dir.names("t"), ["d", "f"]);
    }

    #[test]
    fn refusals() {
        let dir = TempDir::new();
        dir.put("t/f", "x");
        dir.put("f", "x");
        dir.fifo("p");
        let directory = copy(
            &dir.path("t"),
            &dir.path("u"),
            false,
            Links::Follow,
            &Patience::default(),
        )
        .unwrap_err();
        assert_eq!(directory.kind, FilesErrorKind::InvalidRequest);
        assert!(directory.message.contains("recursive: true"));
        let missing = |from, to| copied(&dir, from, to).unwrap_err().kind;
        assert_eq!(missing("nope", "u"), FilesErrorKind::NotFound);
        assert_eq!(missing("f", "no/u"), FilesErrorKind::NotFound);
        assert_eq!(missing("t", "no/u"), FilesErrorKind::NotFound);
        let special = copied(&dir, "p", "u").unwrap_err();
        assert_eq!(special.kind, FilesErrorKind::InvalidRequest);
        assert!(copied(&dir, "f", "t").unwrap_err().is(Errno::EISDIR));
        assert!(copied(&dir, "t", "f").unwrap_err().is(Errno::EEXIST));
        dir.link("f", "l");
        assert!(copied(&dir, "t", "l").unwrap_err().is(Errno::EEXIST));
        fs::create_dir_all(dir.path("v/f")).unwrap();
        assert!(copied(&dir, "t", "v").unwrap_err().is(Errno::EISDIR));
        fs::create_dir(dir.path("w")).unwrap();
        dir.fifo("w/f");
        assert!(copied(&dir, "t", "w").unwrap_err().is(Errno::EEXIST));
        assert_eq!(dir.names(""), ["f", "l", "p", "t", "v", "w"]);
    }

    #[test]
    fn a_tree_of_six_hundred_levels_on_a_small_stack() {
        let dir = TempDir::new();
        fs::create_dir(dir.path("d")).unwrap();
        let mut here = Place::of(&dir.path("d/d")).unwrap().parent;
        for _ in 0..600 {
            mkdirat(&here, "d", Mode::S_IRWXU).unwrap();
            here = openat(&here, "d", HOLD_DIRECTORY, Mode::empty()).unwrap();
        }
        let (from, to) = (dir.path("d"), dir.path("e"));
        std::thread::Builder::new()
            .stack_size(64 * 1024)
            .spawn(move || copy(&from, &to, true, Links::Follow, &Patience::default()))
            .unwrap()
            .join()
            .unwrap()
            .unwrap();
        let mut depth = 0;
        let mut here = Place::of(&dir.path("e/d")).unwrap().parent;
        while let Ok(below) = openat(&here, "d", HOLD_DIRECTORY, Mode::empty()) {
            depth += 1;
            here = below;
        }
        assert_eq!(depth, 600);
        for name in ["d", "e"] {
            remove(&dir.path(name), RemoveOptions::default()).unwrap();
        }
    }
}
