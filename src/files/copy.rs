//! `fs/copy`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};

use super::bounds::{Bounds, End, find};
use super::copy_tree::copy_tree;
use super::error::FilesError;
use super::patience::Patience;
use super::place::{Links, Place, file_type, identity, stat_entry};
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
pub(super) fn copy_file(from: BorrowedFd<'_>, name: &OsStr, to: BorrowedFd<'_>) -> Result<(), FilesError> {
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

/// Makes the same link again, in the place of any other.
pub(super) fn copy_link(
    from: BorrowedFd<'_>,
    from_name: &OsStr,
    to: BorrowedFd<'_>,
    to_name: &OsStr,
) -> Result<(), Errno> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::FilesErrorKind;
    use crate::files::fixture::TempDir;
    use crate::files::place::HOLD_DIRECTORY;
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
            nix::sys::stat::mkdirat(&here, "d", Mode::S_IRWXU).unwrap();
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
