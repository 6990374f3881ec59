//! `fs/walk`.

use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};

use super::bounds::{Bounds, End, find};
use super::directory::{is_self_or_parent, readable_target};
use super::error::FilesError;
use super::place::{Links, Place, file_type, identity, stat_entry, stat_target};
use super::read::open_place;
use crate::protocol::files::{FsWalkEntry, FsWalkEntryKind, FsWalkError, FsWalkOptions, FsWalkResponse};
use crate::protocol::path_uri;

// The limits are those of Codex's exec-server.
const MAX_DEPTH: u64 = 64;
const MAX_DIRECTORIES: u64 = 10_000;
const MAX_ENTRIES: u64 = 50_000;
/// What an answer may hold: the lengths of its URIs plus [`ITEM_OVERHEAD`] each, in bytes.
const MAX_ANSWER: usize = 4 << 20;
const ITEM_OVERHEAD: usize = 64;

/// Lists what is below a directory, level by level and by name within each directory: files, directories,
/// and with `followDirectorySymlinks` links to directories. Nothing else, nor the root itself, is listed.
///
/// Each real directory is entered once, so that links can't make it go in circles. A directory that can't
/// be read is an entry of `errors`. Anything but a directory as the root, and without
/// `followDirectorySymlinks` a link, gives an empty answer.
///
/// Within bounds the same goes for a directory that is hidden, and for a link to one that it leads nowhere. What is not to
/// be seen is not listed. Whether links are followed is for `options` to say.
///
/// # Errors
/// NotFound for a missing root, InvalidRequest for limits out of bounds.
pub fn walk(root: &Path, options: &FsWalkOptions, links: Links<'_>) -> Result<FsWalkResponse, FilesError> {
    check_limits(options)?;
    let (top, state) = top(root, options, links)?;
    let mut walk = Walk {
        options,
        bounds: match links {
            Links::Within { bounds, .. } => Some(bounds),
            Links::Follow | Links::Refuse => None,
        },
        answer: FsWalkResponse::default(),
        room: MAX_ANSWER,
        queue: VecDeque::new(),
        directories: 0,
        seen: HashSet::new(),
    };
    if file_type(&state) == SFlag::S_IFDIR {
        walk.enqueue(top, 0, Some(&state));
    }
    while let Some((directory, depth)) = walk.queue.pop_front() {
        if !walk.visit(&directory, depth) {
            walk.answer.truncated = true;
            break;
        }
    }
    Ok(walk.answer)
}

fn top(root: &Path, options: &FsWalkOptions, links: Links<'_>) -> Result<(Directory, FileStat), FilesError> {
    let mut top = Directory {
        path: root.to_owned(),
        real: None,
    };
    if let Links::Within { bounds, .. } = links {
        let end = match options.follow_directory_symlinks {
            true => End::Target,
            false => End::Itself,
        };
        let found = find(root, true, end, bounds)?;
        bounds.may_read(&found.path)?;
        let state = found.existing()?.stat;
        top.real = Some(found.path);
        return Ok((top, state));
    }
    let mut state = fstatat(AT_FDCWD, root, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if file_type(&state) == SFlag::S_IFLNK && options.follow_directory_symlinks {
        state = stat_target(root)?;
    }
    Ok((top, state))
}

fn check_limits(options: &FsWalkOptions) -> Result<(), FilesError> {
    if options.max_directories == 0 || options.max_entries == 0 {
        return Err(FilesError::invalid_request(
            "filesystem walk limits must be greater than zero",
        ));
    }
    if options.max_depth > MAX_DEPTH || options.max_directories > MAX_DIRECTORIES || options.max_entries > MAX_ENTRIES {
        return Err(FilesError::invalid_request(format!(
            "filesystem walk limits exceed maximums: depth={MAX_DEPTH}, \
             directories={MAX_DIRECTORIES}, entries={MAX_ENTRIES}"
        )));
    }
    Ok(())
}

struct Walk<'a> {
    options: &'a FsWalkOptions,
    bounds: Option<&'a dyn Bounds>,
    answer: FsWalkResponse,
    /// What is left of [`MAX_ANSWER`].
    room: usize,
    /// Directories to visit, with their depth; the root's is 0.
    queue: VecDeque<(Directory, u64)>,
    /// How many were ever in the queue.
    directories: u64,
    /// Those that were, if links are followed.
    seen: HashSet<(u64, u64)>,
}

/// A directory to be visited.
struct Directory {
    /// The path that it is listed under.
    path: PathBuf,
    /// Within bounds: the path without links.
    real: Option<PathBuf>,
}

/// What an entry that is to be listed is. Ordered by name.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Child {
    name: OsString,
    is_directory: bool,
    /// Within bounds, of a link: the path without links.
    real: Option<PathBuf>,
}

impl Walk<'_> {
    /// Puts a directory into the queue, unless it was there already or the walk has had its share.
    fn enqueue(&mut self, directory: Directory, depth: u64, state: Option<&FileStat>) {
        if let Some(state) = state
            && self.options.follow_directory_symlinks
            && !self.seen.insert(identity(state))
        {
            return;
        }
        if self.directories >= self.options.max_directories {
            self.answer.truncated = true;
            return;
        }
        self.directories += 1;
        self.queue.push_back((directory, depth));
    }

    /// Lists a directory. False when the answer is full.
    fn visit(&mut self, directory: &Directory, depth: u64) -> bool {
        let (fd, children) = match self.children(directory) {
            Ok(listed) => listed,
            Err(errno) => return self.report(&directory.path, errno),
        };
        for child in children {
            let path = directory.path.join(&child.name);
            let kind = if child.is_directory {
                FsWalkEntryKind::Directory
            } else {
                FsWalkEntryKind::File
            };
            if !self.list(&path, kind) {
                return false;
            }
            let is_pruned = self.options.prune_hidden_directories && child.name.as_bytes().starts_with(b".");
            if !child.is_directory || depth >= self.options.max_depth || is_pruned {
                continue;
            }
            let through_link = child.real.is_some();
            let real = (directory.real.as_ref()).map(|real| child.real.unwrap_or_else(|| real.join(&child.name)));
            if !self.options.follow_directory_symlinks {
                self.enqueue(Directory { path, real }, depth + 1, None);
                continue;
            }
            let state = match &real {
                Some(real) if through_link => Place::without_links(real).and_then(|place| place.stat()),
                Some(_) => stat_entry(&fd, &child.name),
                None => fstatat(&fd, child.name.as_os_str(), AtFlags::empty()),
            };
            match state {
                Ok(state) => self.enqueue(Directory { path, real }, depth + 1, Some(&state)),
                Err(Errno::ENOENT) => {}
                Err(errno) => {
                    if !self.report(&path, errno) {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// The entries of a directory that are to be listed, by name; no more than could possibly be listed.
    fn children(&self, directory: &Directory) -> Result<(OwnedFd, Vec<Child>), Errno> {
        let mut flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        if !self.options.follow_directory_symlinks {
            flags |= OFlag::O_NOFOLLOW;
        }
        let within = directory.real.as_deref().zip(self.bounds);
        let fd = match within {
            Some((real, bounds)) => {
                bounds.may_read(real)?;
                open_place(&Place::without_links(real)?, flags)?
            }
            None => open(&directory.path, flags, Mode::empty())?,
        };
        let left = self.options.max_entries - self.answer.entries.len() as u64;
        // One more, to notice that there are more.
        let most = usize::try_from(left).unwrap_or(usize::MAX).saturating_add(1);
        let mut first = BinaryHeap::new();
        let mut listing = Dir::openat(&fd, ".", flags, Mode::empty())?;
        for entry in listing.iter() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if is_self_or_parent(name) {
                continue;
            }
            if let Some((real, bounds)) = within
                && bounds.may_read(&real.join(name)) == Err(Errno::ENOENT)
            {
                continue;
            }
            let mut real_target = None;
            let mut kind = match entry.file_type() {
                Some(Type::Directory) => SFlag::S_IFDIR,
                Some(Type::File) => SFlag::S_IFREG,
                Some(Type::Symlink) => SFlag::S_IFLNK,
                Some(_) => continue,
                None => type_or_none(stat_entry(&fd, name)),
            };
            if kind == SFlag::S_IFLNK {
                if !self.options.follow_directory_symlinks {
                    continue;
                }
                kind = match within {
                    Some((real, bounds)) => match readable_target(&real.join(name), bounds) {
                        Ok(found) => {
                            let kind = found.file_type();
                            real_target = Some(found.path);
                            kind
                        }
                        Err(_) => continue,
                    },
                    None => type_or_none(fstatat(&fd, name, AtFlags::empty())),
                };
                if kind != SFlag::S_IFDIR {
                    continue;
                }
            }
            if !matches!(kind, SFlag::S_IFDIR | SFlag::S_IFREG) {
                continue;
            }
            first.push(Child {
                name: name.to_owned(),
                is_directory: kind == SFlag::S_IFDIR,
                real: real_target,
            });
            if first.len() > most {
                first.pop();
            }
        }
        Ok((fd, first.into_sorted_vec()))
    }

    fn list(&mut self, path: &Path, kind: FsWalkEntryKind) -> bool {
        if self.answer.entries.len() as u64 >= self.options.max_entries {
            return false;
        }
        let Some(path) = self.take_room(path) else {
            return false;
        };
        self.answer.entries.push(FsWalkEntry { path, kind });
        true
    }

    fn report(&mut self, path: &Path, errno: Errno) -> bool {
        let Some(path) = self.take_room(path) else {
            return false;
        };
        let message = FilesError::from(errno).message;
        self.answer.errors.push(FsWalkError { path, message });
        true
    }

    /// The URI of a path, if the answer has room for it.
    fn take_room(&mut self, path: &Path) -> Option<String> {
        let uri = path_uri::format(path);
        self.room = self.room.checked_sub(uri.len() + ITEM_OVERHEAD)?;
        Some(uri)
    }
}

fn type_or_none(stat: Result<FileStat, Errno>) -> SFlag {
    stat.map_or(SFlag::empty(), |stat| file_type(&stat))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::FilesErrorKind;
    use crate::files::fixture::TempDir;
    use nix::unistd::Uid;
    use std::fs;

    const ALL: FsWalkOptions = FsWalkOptions {
        max_depth: 64,
        max_directories: 100,
        max_entries: 1000,
        follow_directory_symlinks: false,
        prune_hidden_directories: false,
    };

    /// Relative paths, directories with a slash.
    fn listed(dir: &TempDir, answer: &FsWalkResponse) -> Vec<String> {
        let relative = |entry: &FsWalkEntry| {
            let path = path_uri::parse(&entry.path).unwrap();
            let mut text = path.strip_prefix(dir.root()).unwrap().to_string_lossy().into_owned();
            if entry.kind == FsWalkEntryKind::Directory {
                text.push('/');
            }
            text
        };
        answer.entries.iter().map(relative).collect()
    }

    fn walked(dir: &TempDir, options: &FsWalkOptions) -> (Vec<String>, bool) {
        let answer = walk(dir.root(), options, Links::Follow).unwrap();
        assert_eq!(answer.errors, []);
        (listed(dir, &answer), answer.truncated)
    }

    fn tree() -> TempDir {
        let dir = TempDir::new();
        for file in [".hid/x", "a", "b/c", "b/d/e", "z/y/x"] {
            dir.put(file, "");
        }
        dir.link("b", "lb");
        dir.link(".", "loop");
        dir.link("a", "la");
        dir.link("nowhere", "dang");
        dir.fifo("p");
        dir
    }

    #[test]
    fn level_by_level_and_by_name() {
        let dir = tree();
        let expected = [
            ".hid/", "a", "b/", "z/", ".hid/x", "b/c", "b/d/", "z/y/", "b/d/e", "z/y/x",
        ];
        assert_eq!(walked(&dir, &ALL), (expected.map(String::from).into(), false));
    }

    #[test]
    fn links_to_directories() {
        let dir = tree();
        let follow = FsWalkOptions {
            follow_directory_symlinks: true,
            ..ALL
        };
        let expected = [
            ".hid/", "a", "b/", "lb/", "loop/", "z/", ".hid/x", "b/c", "b/d/", "z/y/", "b/d/e", "z/y/x",
        ];
        assert_eq!(walked(&dir, &follow), (expected.map(String::from).into(), false));
        let root = dir.path("lb");
        assert_eq!(walk(&root, &ALL, Links::Follow).unwrap(), FsWalkResponse::default());
        let below = walk(&root, &follow, Links::Follow).unwrap();
        assert_eq!(listed(&dir, &below), ["lb/c", "lb/d/", "lb/d/e"]);
    }

    #[test]
    fn limits() {
        let dir = tree();
        let depth = |max_depth| walked(&dir, &FsWalkOptions { max_depth, ..ALL });
        assert_eq!(depth(0).0, [".hid/", "a", "b/", "z/"]);
        assert!(!depth(0).1);
        assert_eq!(depth(1).0.len(), 8);
        let directories = |max_directories| walked(&dir, &FsWalkOptions { max_directories, ..ALL });
        assert_eq!(
            directories(1),
            (vec![".hid/".into(), "a".into(), "b/".into(), "z/".into()], true)
        );
        assert!(directories(5).1);
        assert!(!directories(6).1);
        let entries = |max_entries| walked(&dir, &FsWalkOptions { max_entries, ..ALL });
        assert_eq!(entries(3), (vec![".hid/".into(), "a".into(), "b/".into()], true));
        assert!(entries(9).1);
        assert!(!entries(10).1);
        let pruned = FsWalkOptions {
            prune_hidden_directories: true,
            ..ALL
        };
        assert_eq!(walked(&dir, &pruned).0.len(), 9);
    }

    #[test]
    fn limits_out_of_bounds() {
        let dir = TempDir::new();
        let message = |options| walk(dir.root(), &options, Links::Follow).map_err(|error| error.message);
        let zero = "filesystem walk limits must be greater than zero";
        let much = "filesystem walk limits exceed maximums: depth=64, directories=10000, entries=50000";
        let o = |max_depth, max_directories, max_entries| FsWalkOptions {
            max_depth,
            max_directories,
            max_entries,
            ..ALL
        };
        assert_eq!(message(o(1, 0, 1)), Err(zero.into()));
        assert_eq!(message(o(1, 1, 0)), Err(zero.into()));
        assert_eq!(message(o(65, 1, 1)), Err(much.into()));
        assert_eq!(message(o(1, 10_001, 1)), Err(much.into()));
        assert_eq!(message(o(1, 1, 50_001)), Err(much.into()));
        assert!(message(o(64, 10_000, 50_000)).is_ok());
    }

    #[test]
    fn roots() {
        let dir = tree();
        assert_eq!(
            walk(&dir.path("a"), &ALL, Links::Follow).unwrap(),
            FsWalkResponse::default()
        );
        let missing = walk(&dir.path("nope"), &ALL, Links::Follow).unwrap_err();
        assert_eq!(missing.kind, FilesErrorKind::NotFound);
    }

    #[test]
    fn names_that_are_not_utf8() {
        let dir = TempDir::new();
        let name = OsStr::from_bytes(b"bad\xff");
        fs::write(dir.path(name), "").unwrap();
        let answer = walk(dir.root(), &ALL, Links::Follow).unwrap();
        assert_eq!(answer.errors, []);
        assert_eq!(path_uri::parse(&answer.entries[0].path), Ok(dir.path(name)));
    }

    #[test]
    fn directories_that_cannot_be_read_are_reported() {
        let dir = TempDir::new();
        fs::create_dir(dir.path("closed")).unwrap();
        dir.set_mode("closed", 0);
        let answer = walk(dir.root(), &ALL, Links::Follow).unwrap();
        dir.set_mode("closed", 0o700);
        assert_eq!(listed(&dir, &answer), ["closed/"]);
        if !Uid::effective().is_root() {
            assert_eq!(answer.errors[0].message, FilesError::from(Errno::EACCES).message);
        }
        assert!(!answer.truncated);
    }

    #[test]
    fn an_answer_has_a_bounded_size() {
        let dir = TempDir::new();
        let options = FsWalkOptions {
            max_entries: 1000,
            ..ALL
        };
        for index in 0..10 {
            dir.put(&format!("{index}"), "");
        }
        let mut walk = Walk {
            options: &options,
            bounds: None,
            answer: FsWalkResponse::default(),
            room: 3 * (path_uri::format(&dir.path("0")).len() + ITEM_OVERHEAD),
            queue: VecDeque::new(),
            directories: 0,
            seen: HashSet::new(),
        };
        let top = Directory {
            path: dir.root().to_owned(),
            real: None,
        };
        assert!(!walk.visit(&top, 0));
        assert_eq!(walk.answer.entries.len(), 3);
    }
}
