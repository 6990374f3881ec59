//! New content for a file: written beside the old and renamed over it, or if that can't be, in place.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};

use super::bounds::{Bounds, End, Found, find};
use super::error::FilesError;
use super::patience::Patience;
use super::place::{Links, Place, file_type, identity, permissions, stat_entry};
use super::read::open_place;

/// What a file is to become.
pub(super) struct NewContent<'a> {
    /// Length in bytes, as far as it is known beforehand.
    pub(super) length: u64,
    /// Where the mode comes from.
    pub(super) mode: ModeSource<'a>,
    /// Write a file that has several names in place, so that all of them get the content.
    pub(super) keep_hard_links: bool,
    /// Writes everything to a file standing at its beginning; may be called twice, for different files.
    pub(super) fill: &'a mut dyn FnMut(Target<'_>) -> Result<(), FilesError>,
    /// How long whoever reads slowly is waited for.
    pub(super) patience: &'a Patience,
}

/// What content is written to.
pub(super) enum Target<'a> {
    /// A regular file.
    File(&'a mut File),
    /// Something that may take its time.
    Special(&'a mut dyn Write),
}

/// Where the mode of a replaced file comes from.
#[derive(Clone, Copy)]
pub(super) enum ModeSource<'a> {
    /// From the file that is replaced; a new one gets 0666 less the umask.
    Replaced,
    /// From another file, of which this is a copy.
    Original(&'a FileStat),
}

/// The file that another took the place of, if there was one.
///
/// Closing it may be what ends it, and that can take longer than writing the new one did: the kernel waits for what is on
/// its way to the disk (measured on ext4: 23 of 70 ms, for 32 MiB). Who has something else to do does that first.
#[derive(Debug)]
#[must_use = "dropping it may take long"]
pub struct Replaced(#[expect(dead_code, reason = "only to be closed")] Option<File>);

/// Opening for writing without waiting for a FIFO's reader and without becoming a terminal's owner.
const FOR_WRITING: OFlag = OFlag::O_WRONLY
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_NOCTTY)
    .union(OFlag::O_CLOEXEC);

/// What is written to when a path is.
pub(super) enum Destination {
    /// This entry, which is no link.
    Entry(Place),
    /// What can be written to only as it lies there: behind a link that only the kernel can follow, like `/dev/stdout`, or
    /// where the entry has to stay as it is.
    Open(File),
}

impl Destination {
    /// Goes along a path to its end, which need not exist. A link at the end that is not to be followed is ELOOP.
    pub(super) fn of(path: &Path, links: Links<'_>) -> Result<Self, FilesError> {
        match links {
            Links::Follow => Self::followed(path),
            Links::Refuse => {
                let place = Place::without_links(path)?;
                if matches!(place.stat(), Ok(own) if file_type(&own) == SFlag::S_IFLNK) {
                    return Err(Errno::ELOOP.into());
                }
                Ok(Self::Entry(place))
            }
            Links::Within { bounds, follow } => {
                let found = find(path, follow, End::Target, bounds)?;
                if found.file_type() == SFlag::S_IFLNK {
                    return Err(Errno::ELOOP.into());
                }
                Self::permitted(found, bounds)
            }
        }
    }

    /// What was found, if it may be written.
    fn permitted(found: Found, bounds: &dyn Bounds) -> Result<Self, FilesError> {
        bounds.may_write(&found.path)?;
        found.check_device()?;
        match bounds.may_change(&found.path) {
            Ok(()) => Ok(Self::Entry(found.place)),
            Err(_) if found.there.is_some() => Ok(Self::Open(open_place(&found.place, FOR_WRITING)?.into())),
            Err(errno) => Err(errno.into()),
        }
    }

    fn followed(path: &Path) -> Result<Self, FilesError> {
        let place = Place::of(path)?;
        if !matches!(place.stat(), Ok(own) if file_type(&own) == SFlag::S_IFLNK) {
            return Ok(Self::Entry(place));
        }
        let end = place.try_clone()?.without_final_link();
        match place.stat_target() {
            Ok(target) => {
                if let Ok(end) = end
                    && matches!(end.stat(), Ok(found) if identity(&found) == identity(&target))
                {
                    return Ok(Self::Entry(end));
                }
                let name = place.name.as_os_str();
                Ok(Self::Open(
                    openat(&place.parent, name, FOR_WRITING, Mode::empty())?.into(),
                ))
            }
            Err(Errno::ENOENT) => Ok(Self::Entry(end?)),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What lies there now.
    pub(super) fn stat(&self) -> Result<FileStat, Errno> {
        match self {
            Self::Entry(place) => place.stat(),
            Self::Open(file) => fstat(file),
        }
    }

    pub(super) fn write(self, content: &mut NewContent<'_>) -> Result<Replaced, FilesError> {
        match self {
            Self::Entry(place) => replace(place.parent.as_fd(), &place.name, content),
            Self::Open(file) => {
                let before = fstat(&file)?;
                overwrite(file, &before, content).map(|()| Replaced(None))
            }
        }
    }
}

/// Gives an entry of a directory new content, all or nothing wherever the directory allows it.
///
/// A regular file keeps its owner, and needs to be writable although it is not written to. Devices and
/// FIFOs are written to; so is, in place, a file that can't be replaced: one whose directory is not
/// writable, that is a mount point, or whose owner can't be kept. A link is replaced itself.
pub(super) fn replace(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    content: &mut NewContent<'_>,
) -> Result<Replaced, FilesError> {
    let flags = FOR_WRITING | OFlag::O_NOFOLLOW;
    let (old, before) = match openat(directory, name, flags, Mode::empty()) {
        Ok(fd) => {
            let before = fstat(&fd)?;
            (Some(File::from(fd)), Some(before))
        }
        Err(Errno::ENOENT | Errno::ELOOP) => (None, None),
        // A program that is running can't be written to, but it can be replaced.
        Err(Errno::ETXTBSY) => (None, Some(stat_entry(directory, name)?)),
        Err(errno) => return Err(errno.into()),
    };
    if let Some(before) = &before
        && (file_type(before) != SFlag::S_IFREG || content.keep_hard_links && before.st_nlink > 1)
    {
        let old = old.ok_or(Errno::ETXTBSY)?;
        return overwrite(old, before, content).map(|()| Replaced(None));
    }
    match rename_over(directory, name, before.as_ref(), content) {
        Ok(()) => Ok(Replaced(old)),
        Err(Refusal::Content(error)) => Err(error),
        Err(Refusal::Directory(errno)) => match (old, &before, errno) {
            (Some(old), Some(before), errno) if !matches!(errno, Errno::ENOSPC | Errno::EDQUOT) => {
                overwrite(old, before, content).map(|()| Replaced(None))
            }
            _ => Err(errno.into()),
        },
    }
}

/// Why there is no file beside the old one that could take its place.
enum Refusal {
    /// The content couldn't be had or written: final.
    Content(FilesError),
    /// The directory, or the wish to keep the owner, is in the way.
    Directory(Errno),
}

fn rename_over(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    before: Option<&FileStat>,
    content: &mut NewContent<'_>,
) -> Result<(), Refusal> {
    // The umask can't be read without changing it for all threads: leave a new file's mode to the kernel.
    let mode = match (before, content.mode) {
        (None, ModeSource::Replaced) => 0o666,
        _ => 0o600,
    };
    let (mut file, mut temporary) = Temporary::create(directory, mode).map_err(Refusal::Directory)?;
    (content.fill)(Target::File(&mut file)).map_err(Refusal::Content)?;
    let made = fstat(&file).map_err(Refusal::Directory)?;
    if let Some(before) = before
        && (before.st_uid, before.st_gid) != (made.st_uid, made.st_gid)
    {
        let owner = (before.st_uid != made.st_uid).then(|| Uid::from_raw(before.st_uid));
        fchown(&file, owner, Some(Gid::from_raw(before.st_gid))).map_err(Refusal::Directory)?;
    }
    let mode = match (content.mode, before) {
        (ModeSource::Original(original), _) => {
            let owned_like = before.unwrap_or(&made);
            Some(mode_of_copy(original, owned_like))
        }
        (ModeSource::Replaced, Some(before)) => Some(permissions_mode(before)),
        (ModeSource::Replaced, None) => None,
    };
    if let Some(mode) = mode {
        fchmod(&file, mode).map_err(Refusal::Directory)?;
    }
    renameat(directory, temporary.name.as_os_str(), directory, name).map_err(Refusal::Directory)?;
    temporary.is_there = false;
    Ok(())
}

/// Writes to a file as it lies there.
fn overwrite(mut file: File, before: &FileStat, content: &mut NewContent<'_>) -> Result<(), FilesError> {
    if file_type(before) != SFlag::S_IFREG {
        return (content.fill)(Target::Special(&mut content.patience.writer(&file)));
    }
    // A full disk is to be noticed while the old content is still whole.
    if content.length > 0
        && let Ok(length) = i64::try_from(content.length)
        && let Err(errno @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG)) =
            fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length)
    {
        return Err(errno.into());
    }
    (content.fill)(Target::File(&mut file))?;
    let end = file.stream_position()?;
    if file.metadata()?.len() > end {
        file.set_len(end)?;
    }
    if let ModeSource::Original(original) = content.mode {
        fchmod(&file, mode_of_copy(original, before))?;
    }
    Ok(())
}

/// The mode for a copy: set-user-ID and its like only where the copy has the original's owner and group.
fn mode_of_copy(original: &FileStat, copy: &FileStat) -> Mode {
    let same_owner = (original.st_uid, original.st_gid) == (copy.st_uid, copy.st_gid);
    let mode = permissions_mode(original);
    if same_owner {
        mode
    } else {
        mode & Mode::from_bits_truncate(0o777)
    }
}

fn permissions_mode(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(permissions(stat))
}

/// A file beside the one to be replaced; removed unless it has taken that one's place.
struct Temporary<'a> {
    directory: BorrowedFd<'a>,
    name: OsString,
    is_there: bool,
}

impl<'a> Temporary<'a> {
    fn create(directory: BorrowedFd<'a>, mode: u32) -> Result<(File, Self), Errno> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        loop {
            let name = temporary_name();
            match openat(directory, name.as_os_str(), flags, Mode::from_bits_truncate(mode)) {
                Ok(fd) => {
                    let temporary = Self {
                        directory,
                        name,
                        is_there: true,
                    };
                    return Ok((fd.into(), temporary));
                }
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if self.is_there {
            let _ = unlinkat(self.directory, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// A hidden name that nothing else has, most likely: other processes may well have the same number in
/// another PID namespace, and may have left files behind.
pub(super) fn temporary_name() -> OsString {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos());
    format!(".exec-server-{}-{now:x}-{number:x}", std::process::id()).into()
}
