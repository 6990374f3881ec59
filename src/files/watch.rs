//! `fs/watchMissing`: telling once that something that wasn't there may be there now.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::stat::lstat;

use super::error::FilesError;
use super::place::stat_target;

/// How many paths one watch takes, as in Codex's exec-server.
const MAX_PATHS: usize = 64;

/// A connection's one watch for missing paths.
///
/// Poll its descriptor for reading, and when it is readable ask [`changed`](Self::changed).
#[derive(Debug)]
pub struct MissingWatch {
    epoll: Epoll,
    last_id: u64,
    armed: Option<Armed>,
}

#[derive(Debug)]
struct Armed {
    id: u64,
    inotify: Inotify,
    /// Which entries of which directories matter.
    names: Vec<(WatchDescriptor, OsString)>,
    /// The mount table, if there is one to be had.
    mounts: Option<File>,
}

impl AsFd for MissingWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl MissingWatch {
    /// A watch that watches nothing yet.
    ///
    /// # Errors
    /// When the process or the system is out of descriptors.
    pub fn new() -> Result<Self, FilesError> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            last_id: 0,
            armed: None,
        })
    }

    /// Starts watching, in place of whatever was watched, and says whether it does.
    ///
    /// It does if `watch_id` is greater than every earlier one (0 never is), there are 1 to 64 `missing`
    /// paths of which none exists, and `present`, if given, exists. An id that is not greater changes
    /// nothing; a greater one ends the former watch even if it comes to nothing.
    pub fn start(&mut self, watch_id: u64, missing: &[PathBuf], present: Option<&Path>) -> bool {
        if watch_id <= self.last_id {
            return false;
        }
        self.last_id = watch_id;
        // Closing its descriptors takes them out of the epoll set.
        self.armed = None;
        if !(1..=MAX_PATHS).contains(&missing.len()) {
            return false;
        }
        let Ok(Some(armed)) = Armed::new(watch_id, missing, present) else {
            return false;
        };
        let readable = EpollEvent::new(EpollFlags::EPOLLIN, 0);
        if self.epoll.add(&armed.inotify, readable).is_err() {
            return false;
        }
        if let Some(mounts) = &armed.mounts {
            // Without it only mounts go unnoticed.
            let _ = self.epoll.add(mounts, EpollEvent::new(EpollFlags::EPOLLPRI, 1));
        }
        self.armed = Some(armed);
        true
    }

    /// Works off what made the descriptor readable. When a missing path or one of its missing parents was
    /// made, `present` was renamed or removed, or the mount table changed, the watch is over and its id is
    /// returned. That may happen for less, too.
    pub fn changed(&mut self) -> Option<u64> {
        let fired = self.armed.as_ref()?.has_fired(&self.epoll);
        if fired {
            self.armed.take().map(|armed| armed.id)
        } else {
            None
        }
    }

    /// Ends the watch, if there is one, and returns its id.
    pub fn give_up(&mut self) -> Option<u64> {
        self.armed.take().map(|armed| armed.id)
    }
}

impl Armed {
    /// `None` if the paths aren't as they should be.
    fn new(id: u64, missing: &[PathBuf], present: Option<&Path>) -> Result<Option<Self>, Errno> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let mut armed = Self {
            id,
            inotify: Inotify::init(flags)?,
            names: Vec::new(),
            // Opened before the paths are looked at: what is mounted from now on is noticed.
            mounts: File::open("/proc/self/mounts").ok(),
        };
        for path in missing {
            if !armed.expect(path)? {
                return Ok(None);
            }
        }
        if let Some(present) = present {
            if let (Some(parent), Some(name)) = (present.parent(), present.file_name()) {
                armed.watch(parent, name.to_owned())?;
            }
            if stat_target(present).is_err() {
                return Ok(None);
            }
        }
        Ok(Some(armed))
    }

    fn watch(&mut self, directory: &Path, name: OsString) -> Result<(), Errno> {
        // One mask for all: a directory watched for two reasons has only one watch.
        let mask = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let descriptor = self.inotify.add_watch(directory, mask)?;
        self.names.push((descriptor, name));
        Ok(())
    }

    /// Watches the nearest directory there is above a path for what comes next. False if the path exists,
    /// or can't be watched for: there is a file or a link to nowhere on the way.
    fn expect(&mut self, path: &Path) -> Result<bool, Errno> {
        // Every round but the last follows a directory that was made meanwhile.
        for _ in 0..path.components().count() {
            let mut next = path;
            let directory = loop {
                let Some(parent) = next.parent() else {
                    return Ok(false);
                };
                if stat_target(parent).is_ok() {
                    break parent;
                }
                next = parent;
            };
            let Some(name) = next.file_name() else {
                return Ok(false);
            };
            self.watch(directory, name.to_owned())?;
            match lstat(next) {
                Err(Errno::ENOENT) => return Ok(true),
                Ok(_) if next != path && stat_target(next).is_ok() => {}
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    fn has_fired(&self, epoll: &Epoll) -> bool {
        let mut any_event = false;
        loop {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => continue,
                // It is of no use any more; the client had better look again.
                Err(_) => return true,
            };
            any_event = true;
            // Without a name: the directory itself is gone or moved, or events were lost.
            if events.iter().any(|event| match &event.name {
                Some(name) => self
                    .names
                    .iter()
                    .any(|(descriptor, known)| *descriptor == event.wd && known == name),
                None => true,
            }) {
                return true;
            }
        }
        // Polling the epoll descriptor from outside may have used up the mount table's event, so that
        // only the lack of any other one tells.
        let mut ready = [EpollEvent::empty(); 2];
        let count = epoll.wait(&mut ready, 0u8).unwrap_or(0);
        !any_event || ready[..count].iter().any(|event| event.data() == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::fixture::TempDir;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::fs;

    /// What comes within ten seconds, or that nothing is there now.
    fn next(watch: &mut MissingWatch, expected: Option<u64>) {
        loop {
            let timeout = match expected {
                Some(_) => PollTimeout::from(10_000u16),
                None => PollTimeout::ZERO,
            };
            let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
            let count = poll(&mut fds, timeout).unwrap();
            if count == 0 {
                assert_eq!(expected, None);
                return;
            }
            if let Some(id) = watch.changed() {
                assert_eq!(Some(id), expected);
                return;
            }
        }
    }

    #[test]
    fn a_missing_path_or_its_parent_is_made() {
        let dir = TempDir::new();
        let mut watch = MissingWatch::new().unwrap();
        let paths = [dir.path("q"), dir.path("a/b/c")];
        assert!(watch.start(3, &paths, None));
        dir.put("unrelated", "");
        next(&mut watch, None);
        fs::create_dir(dir.path("a")).unwrap();
        next(&mut watch, Some(3));
        assert!(watch.start(4, &paths, None));
        fs::create_dir(dir.path("a/b")).unwrap();
        next(&mut watch, Some(4));
        fs::create_dir(dir.path("a/b/x")).unwrap();
        dir.put("q", "");
        next(&mut watch, None);
    }

    #[test]
    fn present_is_renamed() {
        let dir = TempDir::new();
        let present = dir.put(".git", "1");
        let mut watch = MissingWatch::new().unwrap();
        assert!(watch.start(1, &[dir.path("q")], Some(&present)));
        dir.put(".git", "2");
        next(&mut watch, None);
        fs::rename(&present, dir.path("other")).unwrap();
        next(&mut watch, Some(1));
    }

    #[test]
    fn refusals() {
        let dir = TempDir::new();
        let q = [dir.path("q")];
        let present = dir.put("f", "");
        dir.link("nowhere", "dang");
        let mut watch = MissingWatch::new().unwrap();
        assert!(!watch.start(0, &q, None));
        assert!(watch.start(5, &q, Some(&present)));
        assert!(!watch.start(5, &q, None));
        assert!(!watch.start(4, &q, None));
        dir.put("q", "");
        next(&mut watch, Some(5));
        assert!(!watch.start(6, &q, None));
        fs::remove_file(&q[0]).unwrap();
        assert!(!watch.start(7, &[], None));
        let many: Vec<_> = (0..65).map(|n| dir.path(format!("m{n}"))).collect();
        assert!(!watch.start(8, &many, None));
        assert!(watch.start(9, &many[1..], None));
        assert!(!watch.start(10, &q, Some(&dir.path("nope"))));
        assert!(!watch.start(11, &[dir.path("dang")], None));
        assert!(!watch.start(12, &[dir.path("f/x")], None));
        // The refused ones have ended the watch that was on.
        dir.put("m5", "");
        next(&mut watch, None);
    }
}
