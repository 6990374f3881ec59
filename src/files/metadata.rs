//! `fs/getMetadata`.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{FileStat, SFlag, fstatat};

use super::bounds::{End, find};
use super::error::FilesError;
use super::place::{Links, Place, file_type};
use crate::protocol::files::FsGetMetadataResponse;
use crate::sys::statx::{Described, birth_time};

/// Kind, size and times of what a path leads to, and whether the path itself is a link.
///
/// # Errors
/// NotFound for a missing path or a dangling link; InvalidRequest for a link that is not to be followed.
pub fn metadata(path: &Path, links: Links<'_>) -> Result<FsGetMetadataResponse, FilesError> {
    match links {
        Links::Follow => {
            let own = fstatat(AT_FDCWD, path, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            let is_symlink = file_type(&own) == SFlag::S_IFLNK;
            let target = if is_symlink {
                fstatat(AT_FDCWD, path, AtFlags::empty())?
            } else {
                own
            };
            let name = path_text(path.as_os_str().as_bytes())?;
            Ok(describe(&target, is_symlink, birth_time(AT_FDCWD, &name)))
        }
        Links::Refuse => {
            let place = Place::without_links(path)?;
            let own = place.stat()?;
            if file_type(&own) == SFlag::S_IFLNK {
                return Err(is_a_link());
            }
            let name = path_text(place.name.as_bytes())?;
            Ok(describe(&own, false, birth_time(&place.parent, &name)))
        }
        Links::Within { bounds, follow } => {
            let found = find(path, follow, End::Target, bounds)?;
            bounds.may_read(&found.path)?;
            let there = found.existing()?;
            if found.is_link && !follow {
                return Err(is_a_link());
            }
            Ok(describe(&there.stat, found.is_link, birth_time(&there.fd, c"")))
        }
    }
}

pub(super) fn is_a_link() -> FilesError {
    FilesError::invalid_request("path contains a symbolic link")
}

fn path_text(bytes: &[u8]) -> Result<CString, Errno> {
    CString::new(bytes).map_err(|_| Errno::EINVAL)
}

fn describe(stat: &FileStat, is_symlink: bool, born: Option<(i64, u32)>) -> FsGetMetadataResponse {
    let kind = file_type(stat);
    // The width of these differs between architectures.
    #[allow(clippy::unnecessary_cast)]
    let (size, seconds, nanoseconds) = (stat.st_size as i64, stat.st_mtime as i64, stat.st_mtime_nsec as i64);
    FsGetMetadataResponse {
        is_directory: kind == SFlag::S_IFDIR,
        is_file: kind == SFlag::S_IFREG,
        is_symlink,
        size: u64::try_from(size).unwrap_or(0),
        created_at_ms: born.map_or(0, |(s, ns)| milliseconds(s, i64::from(ns))),
        modified_at_ms: milliseconds(seconds, nanoseconds),
    }
}

/// What there is to say of a file that is no link.
pub(super) fn description(found: &Described) -> FsGetMetadataResponse {
    let kind = SFlag::from_bits_truncate(found.mode) & SFlag::S_IFMT;
    let milliseconds = |(seconds, nanoseconds): (i64, u32)| milliseconds(seconds, nanoseconds.into());
    FsGetMetadataResponse {
        is_directory: kind == SFlag::S_IFDIR,
        is_file: kind == SFlag::S_IFREG,
        is_symlink: false,
        size: found.size,
        created_at_ms: found.born.map_or(0, milliseconds),
        modified_at_ms: milliseconds(found.modified),
    }
}

fn milliseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1000).saturating_add(nanoseconds / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::fixture::TempDir;
    use crate::files::{FilesErrorKind, Links::*};
    use std::fs::{self, File};
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn kinds_and_sizes() {
        let dir = TempDir::new();
        dir.put("f", "12345");
        dir.link("f", "lf");
        dir.link(".", "ld");
        dir.fifo("p");
        for links in [Follow, Refuse] {
            let f = metadata(&dir.path("f"), links).unwrap();
            assert_eq!(
                (f.is_file, f.is_directory, f.is_symlink, f.size),
                (true, false, false, 5)
            );
            let d = metadata(dir.root(), links).unwrap();
            assert_eq!((d.is_file, d.is_directory), (false, true));
            let p = metadata(&dir.path("p"), links).unwrap();
            assert_eq!((p.is_file, p.is_directory, p.size), (false, false, 0));
            assert!(metadata(Path::new("/"), links).unwrap().is_directory);
        }
        let lf = metadata(&dir.path("lf"), Follow).unwrap();
        assert!(lf.is_file && lf.is_symlink && lf.size == 5);
        let ld = metadata(&dir.path("ld"), Follow).unwrap();
        assert!(ld.is_directory && ld.is_symlink);
    }

    #[test]
    fn times() {
        let dir = TempDir::new();
        let path = dir.put("f", "");
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_millis(1_700_000_000_123))
            .unwrap();
        let found = metadata(&path, Follow).unwrap();
        assert_eq!(found.modified_at_ms, 1_700_000_000_123);
        assert_eq!(found, metadata(&path, Refuse).unwrap());
        if let Ok(born) = fs::metadata(&path).unwrap().created() {
            let born = born.duration_since(UNIX_EPOCH).unwrap();
            assert_eq!(found.created_at_ms, born.as_millis() as i64);
        }
        file.set_modified(UNIX_EPOCH - Duration::from_millis(1500)).unwrap();
        assert_eq!(metadata(&path, Follow).unwrap().modified_at_ms, -1500);
    }

    #[test]
    fn refusals() {
        let dir = TempDir::new();
        dir.put("d/f", "");
        dir.link("nowhere", "dang");
        dir.link("loop", "loop");
        dir.link("d", "ld");
        let kind = |name, links| metadata(&dir.path(name), links).unwrap_err();
        for links in [Follow, Refuse] {
            assert_eq!(kind("nope", links).kind, FilesErrorKind::NotFound);
            assert!(kind("d/f/x", links).is(Errno::ENOTDIR));
        }
        assert_eq!(kind("dang", Follow).kind, FilesErrorKind::NotFound);
        assert!(kind("loop", Follow).is(Errno::ELOOP));
        for name in ["dang", "loop", "ld"] {
            assert_eq!(kind(name, Refuse).message, "path contains a symbolic link");
        }
        assert!(kind("ld/f", Refuse).is(Errno::ENOTDIR));
    }
}
