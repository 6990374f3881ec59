//! `fs/createDirectory` and `fs/readDirectory`.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fstatat, mkdirat};
use nix::unistd::mkdir;

use super::bounds::{Bounds, End, Found, find};
use super::error::FilesError;
use super::place::{HOLD_DIRECTORY, Links, Place, file_type, stat_entry, stat_target};
use super::read::open_place;
use crate::protocol::files::{FsReadDirectoryEntry, FsReadDirectoryResponse};
use crate::protocol::path_uri;

/// Makes a directory with mode 0777 less the umask.
///
/// `recursive` makes the missing parents as well, and is content with a directory that exists.
///
/// # Errors
/// EEXIST when there is something else, or anything if not `recursive`; ENOTDIR below a file, and for a
/// link that is not to be followed; NotFound when a parent is missing and not to be made.
pub fn create_directory(path: &Path, recursive: bool, links: Links<'_>) -> Result<(), FilesError> {
    let mode = Mode::from_bits_truncate(0o777);
    match (links, recursive) {
        (Links::Follow, false) => mkdir(path, mode)?,
        (Links::Follow, true) => create_with_parents(path, mode)?,
        (Links::Refuse, false) => {
            let place = Place::without_links(path)?;
            mkdirat(&place.parent, place.name.as_os_str(), mode)?;
        }
        (Links::Refuse, true) => create_without_links(path, mode)?,
        (Links::Within { bounds, follow }, _) => create_within(path, recursive, follow, bounds, mode)?,
    }
    Ok(())
}

fn create_with_parents(path: &Path, mode: Mode) -> Result<(), Errno> {
    // Up to the first that can be made, and down again. A name for which this was done already and that
    // still can't be made never will be, as in /proc.
    let mut missing = vec![(path, false)];
    while let Some((next, tried)) = missing.last_mut() {
        match mkdir(*next, mode) {
            Ok(()) => {
                missing.pop();
            }
            Err(Errno::ENOENT) => match next.parent() {
                Some(parent) if !*tried => {
                    *tried = true;
                    missing.push((parent, false));
                }
                _ => return Err(Errno::ENOENT),
            },
            Err(errno) => {
                let found = stat_target(next);
                if !found.is_ok_and(|stat| file_type(&stat) == SFlag::S_IFDIR) {
                    return Err(errno);
                }
                missing.pop();
            }
        }
    }
    Ok(())
}

fn create_without_links(path: &Path, mode: Mode) -> Result<(), Errno> {
    let mut here = open("/", HOLD_DIRECTORY, Mode::empty())?;
    let names = || {
        path.components()
            .filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir))
    };
    let count = names().count();
    for (index, component) in names().enumerate() {
        let name = component.as_os_str();
        match mkdirat(&here, name, mode) {
            Err(Errno::EEXIST) if index + 1 == count => {
                return match file_type(&stat_entry(&here, name)?) {
                    SFlag::S_IFDIR => Ok(()),
                    SFlag::S_IFLNK => Err(Errno::ENOTDIR),
                    _ => Err(Errno::EEXIST),
                };
            }
            Ok(()) | Err(Errno::EEXIST) => {}
            // Those that exist may be in a place where nothing can be made.
            Err(errno) => {
                stat_entry(&here, name).map_err(|_| errno)?;
            }
        }
        let flags = HOLD_DIRECTORY | OFlag::O_NOFOLLOW;
        here = openat(&here, name, flags, Mode::empty())?;
    }
    Ok(())
}

fn create_within(path: &Path, recursive: bool, follow: bool, bounds: &dyn Bounds, mode: Mode) -> Result<(), Errno> {
    let end = if recursive { End::Made } else { End::Itself };
    let mut found = find(path, follow, end, bounds)?;
    if found.there.is_some() {
        bounds.may_read(&found.path)?;
        return match found.file_type() {
            SFlag::S_IFDIR if recursive => Ok(()),
            SFlag::S_IFLNK if recursive => Err(Errno::ENOTDIR),
            _ => Err(Errno::EEXIST),
        };
    }
    let mut place = found.place;
    bounds.may_change(&found.path)?;
    make_one(&place, mode, recursive)?;
    for name in found.rest {
        found.path.push(&name);
        bounds.may_change(&found.path)?;
        let flags = HOLD_DIRECTORY | OFlag::O_NOFOLLOW;
        place.parent = openat(&place.parent, place.name.as_os_str(), flags, Mode::empty())?;
        place.name = name;
        make_one(&place, mode, recursive)?;
    }
    Ok(())
}

/// Makes a directory that was not there a moment ago.
fn make_one(place: &Place, mode: Mode, recursive: bool) -> Result<(), Errno> {
    match mkdirat(&place.parent, place.name.as_os_str(), mode) {
        Err(Errno::EEXIST) if recursive && file_type(&place.stat()?) == SFlag::S_IFDIR => Ok(()),
        made => made,
    }
}

/// Lists a directory in the order of the file system, with what each entry, or the target of it, is.
///
/// A link that leads nowhere, or out of bounds, is listed as neither file nor directory; so are devices, sockets and pipes.
/// What is hidden is listed like the rest; what is not to be seen at all is not.
///
/// # Errors
/// NotFound for a missing directory, ENOTDIR for anything else that is none.
pub fn read_directory(path: &Path, links: Links<'_>) -> Result<FsReadDirectoryResponse, FilesError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let (directory, sight) = match links {
        Links::Follow => (open(path, flags, Mode::empty())?, None),
        Links::Refuse => (open_place(&Place::without_links(path)?, flags)?, None),
        Links::Within { bounds, follow } => {
            let found = find(path, follow, End::Target, bounds)?;
            bounds.may_read(&found.path)?;
            (open_place(&found.place, flags)?, Some((found.path, bounds)))
        }
    };
    let mut listing = Dir::openat(&directory, ".", flags, Mode::empty())?;
    let mut entries = Vec::new();
    for entry in listing.iter() {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if is_self_or_parent(name) {
            continue;
        }
        let kind = match (entry.file_type(), &sight) {
            (_, Some((path, bounds))) if bounds.may_read(&path.join(name)) == Err(Errno::ENOENT) => continue,
            (Some(Type::Directory), _) => SFlag::S_IFDIR,
            (Some(Type::File), _) => SFlag::S_IFREG,
            (Some(Type::Symlink) | None, None) => target_type(&directory, name),
            (Some(Type::Symlink) | None, Some((path, bounds))) => {
                readable_target(&path.join(name), *bounds).map_or(SFlag::empty(), |found| found.file_type())
            }
            (Some(_), _) => SFlag::empty(),
        };
        entries.push(FsReadDirectoryEntry {
            file_name: name.to_string_lossy().into_owned(),
            is_directory: kind == SFlag::S_IFDIR,
            is_file: kind == SFlag::S_IFREG,
            uri: name.to_str().is_none().then(|| path_uri::format(&path.join(name))),
        });
    }
    Ok(FsReadDirectoryResponse { entries })
}

/// What a path leads to, if that may be read.
pub(super) fn readable_target(path: &Path, bounds: &dyn Bounds) -> Result<Found, Errno> {
    let found = find(path, true, End::Target, bounds)?;
    bounds.may_read(&found.path)?;
    Ok(found)
}

pub(super) fn is_self_or_parent(name: &OsStr) -> bool {
    matches!(name.as_bytes(), b"." | b"..")
}

/// The type of what an entry leads to; none if it leads nowhere.
fn target_type(directory: impl AsFd, name: &OsStr) -> SFlag {
    fstatat(directory, name, AtFlags::empty()).map_or(SFlag::empty(), |stat| file_type(&stat))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::FilesErrorKind;
    use crate::files::Links::*;
    use crate::files::fixture::TempDir;
    use std::fs;

    #[test]
    fn directories_are_made() {
        let dir = TempDir::new();
        for links in [Follow, Refuse] {
            let root = if matches!(links, Follow) { "x" } else { "y" };
            let deep = dir.path(root).join("a/b/c");
            let missing = create_directory(&deep, false, links).unwrap_err();
            assert_eq!(missing.kind, FilesErrorKind::NotFound);
            create_directory(&deep, true, links).unwrap();
            create_directory(&deep, true, links).unwrap();
            assert!(deep.is_dir());
            let again = create_directory(&deep, false, links).unwrap_err();
            assert!(again.is(Errno::EEXIST));
            create_directory(&deep.join("d"), false, links).unwrap();
            create_directory(Path::new("/"), true, links).unwrap();
        }
    }

    #[test]
    fn files_and_links_in_the_way() {
        let dir = TempDir::new();
        dir.put("f", "");
        fs::create_dir(dir.path("d")).unwrap();
        dir.link("d", "ld");
        for links in [Follow, Refuse] {
            for recursive in [false, true] {
                let over = create_directory(&dir.path("f"), recursive, links).unwrap_err();
                assert!(over.is(Errno::EEXIST), "{over}");
                let under = create_directory(&dir.path("f/x"), recursive, links).unwrap_err();
                assert!(under.is(Errno::ENOTDIR), "{under}");
            }
        }
        create_directory(&dir.path("ld"), true, Follow).unwrap();
        create_directory(&dir.path("ld/in"), true, Follow).unwrap();
        assert!(dir.path("d/in").is_dir());
        for path in ["ld/x", "ld/x/y", "ld"] {
            let error = create_directory(&dir.path(path), true, Refuse).unwrap_err();
            assert!(error.is(Errno::ENOTDIR), "{error}");
        }
        let error = create_directory(Path::new("/proc/x/y"), true, Follow).unwrap_err();
        assert_eq!(error.kind, FilesErrorKind::NotFound);
    }

    #[test]
    fn a_path_of_many_components() {
        let dir = TempDir::new();
        let deep = dir.path("a/".repeat(200));
        create_directory(&deep, true, Follow).unwrap();
        assert!(deep.is_dir());
    }

    #[test]
    fn listing() {
        let dir = TempDir::new();
        dir.put("f", "");
        dir.put(".hidden", "");
        fs::create_dir(dir.path("sub")).unwrap();
        dir.link("f", "lf");
        dir.link("sub", "ld");
        dir.link("nowhere", "dang");
        dir.link("loop", "loop");
        dir.fifo("p");
        fs::write(dir.path(OsStr::from_bytes(b"bad\xff")), "").unwrap();
        let mut found = read_directory(dir.root(), Follow).unwrap().entries;
        found.sort_by(|a, b| a.file_name.cmp(&b.file_name));
        let seen: Vec<_> = found
            .iter()
            .map(|e| (e.file_name.as_str(), e.is_directory, e.is_file))
            .collect();
        assert_eq!(
            seen,
            [
                (".hidden", false, true),
                ("bad\u{fffd}", false, true),
                ("dang", false, false),
                ("f", false, true),
                ("ld", true, false),
                ("lf", false, true),
                ("loop", false, false),
                ("p", false, false),
                ("sub", true, false),
            ]
        );
        for entry in found {
            let uri = entry.uri.map(|uri| path_uri::parse(&uri).unwrap());
            let expected = entry
                .file_name
                .starts_with("bad")
                .then(|| dir.path(OsStr::from_bytes(b"bad\xff")));
            assert_eq!(uri, expected);
        }
    }

    #[test]
    fn listing_errors() {
        let dir = TempDir::new();
        dir.put("f", "");
        fs::create_dir(dir.path("e")).unwrap();
        let file = read_directory(&dir.path("f"), Follow).unwrap_err();
        assert!(file.is(Errno::ENOTDIR));
        let missing = read_directory(&dir.path("nope"), Follow).unwrap_err();
        assert_eq!(missing.kind, FilesErrorKind::NotFound);
        assert_eq!(read_directory(&dir.path("e"), Follow).unwrap().entries, []);
    }
}
