//! Calls that may not do everything: what they may do, and where a path leads within that.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::mem;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use super::place::{HOLD_DIRECTORY, MAX_LINKS, Place, file_type, open_without_links};

/// What a call may do, and where. Each path is absolute, and no link is in it. An error is what the system would say.
pub trait Bounds: fmt::Debug {
    /// To look up what is there, on the way to something else.
    ///
    /// # Errors
    /// ENOENT where nothing is to be seen, EACCES where something is hidden.
    fn may_pass(&self, path: &Path) -> Result<(), Errno>;

    /// To tell what is there, and to read it. Of a directory that is only passed that is the names of what may be read.
    ///
    /// # Errors
    /// As [`may_pass`](Self::may_pass).
    fn may_read(&self, path: &Path) -> Result<(), Errno>;

    /// To read it with all that is below.
    ///
    /// # Errors
    /// As [`may_pass`](Self::may_pass); EACCES if anything below may not be read.
    fn may_read_tree(&self, path: &Path) -> Result<(), Errno>;

    /// To change what is there, if it is a file its content.
    ///
    /// # Errors
    /// EROFS, or EACCES where something is hidden.
    fn may_write(&self, path: &Path) -> Result<(), Errno>;

    /// To make it, to put something else in its place, or to remove it with all that is below.
    ///
    /// # Errors
    /// As [`may_write`](Self::may_write); EBUSY if it, or something below, has to stay.
    fn may_change(&self, path: &Path) -> Result<(), Errno>;
}

/// The devices that any call may write to. Others are not opened within bounds, wherever they are.
pub const OPEN_DEVICES: [&str; 3] = ["/dev/null", "/dev/zero", "/dev/full"];

/// Which end of a path is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The entry itself, be it a link.
    Itself,
    /// What it leads to, if it is a link.
    Target,
    /// The same, and it may be the first of several directories that are missing.
    Made,
}

/// Where a path leads.
pub(super) struct Found {
    /// The way there, without links when it was gone.
    pub(super) path: PathBuf,
    /// The same as an open directory and a name. Whatever has become of the way since, it was gone along `path`.
    pub(super) place: Place,
    /// What is there.
    pub(super) there: Option<There>,
    /// Whether the path that was asked for is itself a link.
    pub(super) is_link: bool,
    /// The names that follow on one that is missing.
    pub(super) rest: Vec<OsString>,
}

/// Something that exists, held with O_PATH.
pub(super) struct There {
    pub(super) fd: OwnedFd,
    pub(super) stat: FileStat,
}

impl Found {
    /// What is there, which must be something.
    pub(super) fn existing(&self) -> Result<&There, Errno> {
        self.there.as_ref().ok_or(Errno::ENOENT)
    }

    /// Its S_IFMT part, none if there is nothing.
    pub(super) fn file_type(&self) -> SFlag {
        (self.there.as_ref()).map_or(SFlag::empty(), |there| file_type(&there.stat))
    }

    /// Refuses a device that is not for everybody, before it is opened: that alone may set it going.
    pub(super) fn check_device(&self) -> Result<(), Errno> {
        let is_device = matches!(self.file_type(), SFlag::S_IFCHR | SFlag::S_IFBLK);
        match is_device && !OPEN_DEVICES.iter().any(|device| self.path == Path::new(device)) {
            true => Err(Errno::EACCES),
            false => Ok(()),
        }
    }
}

/// Goes along a path as the kernel would, but no further than it may. What only the kernel can follow, like
/// `/proc/self/fd/1`, is taken for the path that it shows. Without `follow` a link is ENOTDIR, but for one at the end,
/// which is taken as it is.
pub(super) fn find(path: &Path, follow: bool, end: End, bounds: &dyn Bounds) -> Result<Found, Errno> {
    let mut way = Way {
        path: PathBuf::from("/"),
        here: open("/", HOLD_DIRECTORY, Mode::empty())?,
        steps: Vec::new(),
        of_link: usize::MAX,
        links: 0,
    };
    way.push(path);
    let mut is_link = false;
    while let Some(name) = way.steps.pop() {
        if name == ".." {
            way.path.pop();
            way.here = open_without_links(&way.path)?;
            continue;
        }
        let is_last = way.steps.is_empty();
        way.path.push(&name);
        bounds.may_pass(&way.path)?;
        let there = match way.look_up(&name) {
            Ok(there) => Some(there),
            Err(Errno::ENOENT) if is_last || end == End::Made => None,
            Err(errno) => return Err(errno),
        };
        let kind = there.as_ref().map(|there| file_type(&there.stat));
        match (kind, there) {
            (Some(SFlag::S_IFDIR), Some(there)) if !is_last => way.here = there.fd,
            (Some(SFlag::S_IFLNK), Some(there)) if !is_last || follow && end != End::Itself => {
                if !follow {
                    return Err(Errno::ENOTDIR);
                }
                is_link |= is_last;
                way.turn(&there.fd)?;
            }
            (Some(_), Some(_)) if !is_last => return Err(Errno::ENOTDIR),
            (_, there) => {
                let rest = match there {
                    Some(_) => Vec::new(),
                    None => way.rest(end)?,
                };
                let parent = way.here;
                return Ok(Found {
                    path: way.path,
                    place: Place { parent, name },
                    is_link: is_link || kind == Some(SFlag::S_IFLNK),
                    there,
                    rest,
                });
            }
        }
    }
    // A directory that was gone up to, or the root.
    let place = Place::without_links(&way.path)?;
    let stat = fstat(&way.here)?;
    Ok(Found {
        path: way.path,
        place,
        there: Some(There { fd: way.here, stat }),
        is_link,
        rest: Vec::new(),
    })
}

struct Way {
    /// Where it has got to, without links.
    path: PathBuf,
    /// The directory that the next step starts from.
    here: OwnedFd,
    /// The names that are left, the next one last.
    steps: Vec<OsString>,
    /// Those from here on come from a link.
    of_link: usize,
    links: usize,
}

impl Way {
    fn push(&mut self, path: &Path) {
        let before = self.steps.len();
        let names = path.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name),
            Component::ParentDir => Some(OsStr::new("..")),
            _ => None,
        });
        self.steps.extend(names.map(OsStr::to_owned));
        self.steps[before..].reverse();
    }

    fn look_up(&self, name: &OsStr) -> Result<There, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.here, name, flags, Mode::empty())?;
        let stat = fstat(&fd)?;
        Ok(There { fd, stat })
    }

    /// Goes where a link says.
    fn turn(&mut self, link: &OwnedFd) -> Result<(), Errno> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::ELOOP);
        }
        let target = PathBuf::from(readlinkat(link, "")?);
        if target.as_os_str().is_empty() {
            return Err(Errno::ENOENT);
        }
        self.path.pop();
        if target.is_absolute() {
            self.path = PathBuf::from("/");
            self.here = open("/", HOLD_DIRECTORY, Mode::empty())?;
        }
        if self.steps.len() < self.of_link {
            self.of_link = self.steps.len();
        }
        self.push(&target);
        Ok(())
    }

    /// What is left after something that is missing.
    fn rest(&mut self, end: End) -> Result<Vec<OsString>, Errno> {
        // As mkdir(2) has it: a link that leads nowhere is something all the same.
        if end == End::Made && self.steps.len() >= self.of_link {
            return Err(Errno::EEXIST);
        }
        let mut rest = mem::take(&mut self.steps);
        rest.reverse();
        match rest.iter().any(|name| name == "..") {
            true => Err(Errno::ENOENT),
            false => Ok(rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Links;
    use crate::files::fixture::TempDir;

    /// Nothing but what is in one directory, of which one part may be read only, one has to stay, and one is hidden.
    #[derive(Debug)]
    struct Only {
        root: PathBuf,
    }

    impl Bounds for Only {
        fn may_pass(&self, path: &Path) -> Result<(), Errno> {
            match self.root.starts_with(path) {
                true => Ok(()),
                false => self.may_read(path),
            }
        }

        fn may_read(&self, path: &Path) -> Result<(), Errno> {
            match path.strip_prefix(&self.root) {
                Ok(name) if name.starts_with("hidden") => Err(Errno::EACCES),
                Ok(_) => Ok(()),
                Err(_) => Err(Errno::ENOENT),
            }
        }

        fn may_read_tree(&self, path: &Path) -> Result<(), Errno> {
            self.may_read(path)
        }

        fn may_write(&self, path: &Path) -> Result<(), Errno> {
            self.may_read(path)?;
            match path.starts_with(self.root.join("fixed")) {
                true => Err(Errno::EROFS),
                false => Ok(()),
            }
        }

        fn may_change(&self, path: &Path) -> Result<(), Errno> {
            self.may_write(path)?;
            match path.starts_with(self.root.join("held")) {
                true => Err(Errno::EBUSY),
                false => Ok(()),
            }
        }
    }

    fn tree() -> (TempDir, Only) {
        let dir = TempDir::new();
        for file in ["d/e/f", "fixed/f", "hidden/f"] {
            dir.put(file, "");
        }
        for (target, link) in [
            ("d", "ld"),
            ("../ld/e", "d/le"),
            ("nowhere", "dang"),
            ("loop", "loop"),
            ("hidden/none", "lh"),
            ("/etc/passwd", "out"),
            ("/etc", "lo"),
        ] {
            dir.link(target, link);
        }
        dir.link(dir.path("d/e/f"), "abs");
        let root = dir.root().to_owned();
        (dir, Only { root })
    }

    fn found(bounds: &Only, name: &str, end: End) -> Result<(String, bool, bool), Errno> {
        let found = find(&bounds.root.join(name), true, end, bounds)?;
        let path = found.path.strip_prefix(&bounds.root).unwrap();
        let there = found.there.is_some();
        assert_eq!(found.place.stat().is_ok(), there);
        Ok((path.to_str().unwrap().to_owned(), there, found.is_link))
    }

    #[test]
    fn paths_lead_to_real_ones() {
        let (_dir, bounds) = tree();
        for (name, target, path, there, is_link) in [
            ("", true, "", true, false),
            ("d/e/f", true, "d/e/f", true, false),
            ("ld/le/f", true, "d/e/f", true, false),
            ("d/le", true, "d/e", true, true),
            ("d/le", false, "d/le", true, true),
            ("ld/le/..", true, "d", true, false),
            ("abs", true, "d/e/f", true, true),
            ("dang", true, "nowhere", false, true),
            ("dang", false, "dang", true, true),
            ("d/new", true, "d/new", false, false),
        ] {
            let end = if target { End::Target } else { End::Itself };
            assert_eq!(
                found(&bounds, name, end),
                Ok((path.to_owned(), there, is_link)),
                "{name}"
            );
        }
    }

    #[test]
    fn paths_end_where_they_may_not_go_on() {
        let (_dir, bounds) = tree();
        for (name, errno) in [
            ("loop", Errno::ELOOP),
            ("d/e/f/x", Errno::ENOTDIR),
            ("no/f", Errno::ENOENT),
            ("hidden", Errno::EACCES),
            ("hidden/f", Errno::EACCES),
            // It is not told what is there.
            ("hidden/none/f", Errno::EACCES),
            ("lh", Errno::EACCES),
            ("out", Errno::ENOENT),
            ("lo/passwd", Errno::ENOENT),
            ("lo/none/x", Errno::ENOENT),
            ("../other", Errno::ENOENT),
        ] {
            assert_eq!(found(&bounds, name, End::Target), Err(errno), "{name}");
        }
        let refused = |name: &str| find(&bounds.root.join(name), false, End::Target, &bounds).err();
        assert_eq!(refused("ld/e"), Some(Errno::ENOTDIR));
        assert_eq!(refused("abs"), None);
    }

    #[test]
    fn directories_to_be_made() {
        let (dir, bounds) = tree();
        let made = |name: &str| find(&bounds.root.join(name), true, End::Made, &bounds);
        let found = made("ld/x/y/z").ok().unwrap();
        assert_eq!(found.path, dir.path("d/x"));
        assert_eq!(found.rest, ["y", "z"]);
        for (name, errno) in [
            ("dang", Errno::EEXIST),
            ("dang/x", Errno::EEXIST),
            ("x/../y", Errno::ENOENT),
            ("out/x", Errno::ENOENT),
        ] {
            assert_eq!(made(name).err(), Some(errno), "{name}");
        }
    }

    #[test]
    fn links_that_only_the_kernel_can_follow_are_taken_at_their_word() {
        /// Everything.
        #[derive(Debug)]
        struct All;
        impl Bounds for All {
            fn may_pass(&self, _: &Path) -> Result<(), Errno> {
                Ok(())
            }
            fn may_read(&self, _: &Path) -> Result<(), Errno> {
                Ok(())
            }
            fn may_read_tree(&self, _: &Path) -> Result<(), Errno> {
                Ok(())
            }
            fn may_write(&self, _: &Path) -> Result<(), Errno> {
                Ok(())
            }
            fn may_change(&self, _: &Path) -> Result<(), Errno> {
                Ok(())
            }
        }
        use std::os::fd::AsRawFd;
        let (dir, _) = tree();
        let end = |path: &str| find(Path::new(path), true, End::Target, &All).map(|found| found.path);
        assert_eq!(end("/proc/self/root/etc/."), Ok("/etc".into()));
        let file = std::fs::File::open(dir.path("d/e/f")).unwrap();
        let descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
        assert_eq!(end(&descriptor), Ok(dir.path("d/e/f")));
        let (reader, _writer) = std::io::pipe().unwrap();
        let descriptor = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let found = find(Path::new(&descriptor), true, End::Target, &All).ok().unwrap();
        assert!(found.there.is_none());
        assert!(found.path.starts_with("/proc"));
    }

    #[test]
    fn what_has_to_stay_is_written_in_place_and_not_made() {
        let (dir, bounds) = tree();
        let path = dir.put("held/f", "long and old");
        let links = Links::new(true, Some(&bounds));
        let write = |path: &Path| {
            let content = crate::protocol::bytes::Content::Plain(b"new");
            crate::files::write_file(path, content, links, &Default::default()).map(drop)
        };
        let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());
        let before = inode();
        write(&path).unwrap();
        assert_eq!((dir.get("held/f"), inode()), (b"new".into(), before));
        assert!(write(&dir.path("held/none")).unwrap_err().is(Errno::EBUSY));
        assert_eq!(dir.names("held"), ["f"]);
    }

    #[test]
    fn devices_are_not_opened() {
        let found = |path: &str| {
            let all = Only { root: "/".into() };
            find(Path::new(path), true, End::Target, &all)
                .ok()
                .unwrap()
                .check_device()
        };
        assert_eq!(found("/dev/null"), Ok(()));
        assert_eq!(found("/dev/random"), Err(Errno::EACCES));
        assert_eq!(found("/etc/passwd"), Ok(()));
        let all = Only { root: "/".into() };
        let links = Links::new(true, Some(&all));
        let random = crate::files::open_for_reading(Path::new("/dev/random"), links)
            .err()
            .unwrap();
        assert!(random.is(Errno::EACCES));
    }
}
