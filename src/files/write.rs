//! `fs/writeFile`.

use std::io::Write;
use std::path::Path;

use super::error::FilesError;
use super::patience::Patience;
use super::place::Links;
use super::replace::{Destination, ModeSource, NewContent, Replaced, Target};
use crate::protocol::bytes::Content;

/// Gives a file new content, creating the file if need be.
///
/// Readers see the old content or the new, and a failure leaves the old: the new is written to a file
/// beside it, which is renamed over it and gets its mode and owner. Files with several hard links,
/// devices, FIFOs and files that can't be replaced are written in place. It is not synced to the disk, and
/// extended attributes of a replaced file are lost. Beside `content` it takes 24 KiB of memory.
///
/// # Errors
/// EISDIR for a directory, ENXIO for a FIFO nobody reads, NotFound for a missing parent. A link not to be followed is
/// ELOOP at the end of the path and ENOTDIR within it. Other for a FIFO or a terminal whose reader kept it waiting until
/// `patience` ended.
pub fn write_file(
    path: &Path,
    content: Content<'_>,
    links: Links<'_>,
    patience: &Patience,
) -> Result<Replaced, FilesError> {
    let destination = Destination::of(path, links)?;
    let mut fill = |target: Target<'_>| {
        let out: &mut dyn Write = match target {
            Target::File(file) => file,
            Target::Special(writer) => writer,
        };
        Ok(content.pieces(|piece| out.write_all(piece))?)
    };
    destination.write(&mut NewContent {
        length: content.len() as u64,
        mode: ModeSource::Replaced,
        keep_hard_links: true,
        fill: &mut fill,
        patience,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::FilesErrorKind;
    use crate::files::Links::*;
    use crate::files::fixture::TempDir;
    use crate::protocol::bytes::Base64;
    use nix::errno::Errno;
    use nix::unistd::{Uid, mkfifo};
    use std::fs::{self, File};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

    fn write(path: &Path, data: &[u8], links: Links<'_>) -> Result<(), FilesError> {
        write_file(path, Content::Plain(data), links, &Patience::default()).map(drop)
    }

    #[test]
    fn base64_is_written_as_what_it_stands_for() {
        let dir = TempDir::new();
        for data in [&b""[..], b"x", &[b'y'; 100_000]] {
            let mut text = Vec::new();
            crate::protocol::bytes::append(data, &mut text);
            let content = Content::Base64(Base64::check(&text).unwrap());
            drop(write_file(&dir.path("f"), content, Follow, &Patience::default()).unwrap());
            assert!(dir.get("f") == data);
        }
    }

    #[test]
    fn creates_replaces_and_truncates() {
        let dir = TempDir::new();
        let long: Vec<u8> = (0..500_000).map(|i| (i % 241) as u8).collect();
        for links in [Follow, Refuse] {
            for data in [&b"long text first"[..], b"short", b"", &long] {
                write(&dir.path("f"), data, links).unwrap();
                assert_eq!(dir.get("f"), data);
            }
            fs::remove_file(dir.path("f")).unwrap();
        }
        assert!(dir.names("").is_empty());
    }

    #[test]
    fn mode_is_kept_and_a_new_file_gets_the_usual_one() {
        let dir = TempDir::new();
        dir.put("usual", "");
        write(&dir.path("new"), b"x", Follow).unwrap();
        assert_eq!(dir.mode("new"), dir.mode("usual"));
        for mode in [0o751, 0o600, 0o666] {
            dir.set_mode("new", mode);
            write(&dir.path("new"), b"y", Follow).unwrap();
            assert_eq!(dir.mode("new"), mode);
        }
    }

    #[test]
    fn it_is_another_file_that_takes_the_place() {
        let dir = TempDir::new();
        let path = dir.put("f", "old");
        let reader = File::open(&path).unwrap();
        write(&path, b"new!", Follow).unwrap();
        assert_eq!(std::io::read_to_string(&reader).unwrap(), "old");
        assert_ne!(reader.metadata().unwrap().ino(), fs::metadata(&path).unwrap().ino());
        assert_eq!(dir.names(""), ["f"]);
    }

    #[test]
    fn owner_is_kept() {
        let dir = TempDir::new();
        let path = dir.put("f", "old");
        if std::os::unix::fs::chown(&path, Some(12345), Some(54321)).is_err() {
            return;
        }
        dir.set_mode("f", 0o4750);
        write(&path, b"new", Follow).unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid()), (12345, 54321));
        assert_eq!(dir.mode("f"), 0o4750);
    }

    #[test]
    fn links_are_gone_through() {
        let dir = TempDir::new();
        dir.put("sub/f", "old");
        dir.link("sub/f", "l1");
        dir.link(dir.path("l1"), "l2");
        write(&dir.path("l2"), b"new", Follow).unwrap();
        assert_eq!(dir.get("sub/f"), b"new");
        assert!(dir.path("l1").is_symlink() && dir.path("l2").is_symlink());
        dir.link("sub/made", "dang");
        write(&dir.path("dang"), b"made", Follow).unwrap();
        assert_eq!(dir.get("sub/made"), b"made");
        dir.link("no/dir", "lost");
        let lost = write(&dir.path("lost"), b"", Follow).unwrap_err();
        assert_eq!(lost.kind, FilesErrorKind::NotFound);
        dir.link("loop", "loop");
        let around = write(&dir.path("loop"), b"", Follow).unwrap_err();
        assert!(around.is(Errno::ELOOP));
        for name in ["l1", "dang", "loop"] {
            let error = write(&dir.path(name), b"", Refuse).unwrap_err();
            assert!(error.is(Errno::ELOOP));
        }
        dir.link("sub", "ld");
        let within = write(&dir.path("ld/f"), b"", Refuse).unwrap_err();
        assert!(within.is(Errno::ENOTDIR));
        assert_eq!(dir.get("sub/f"), b"new");
    }

    #[test]
    fn hard_links_stay() {
        let dir = TempDir::new();
        dir.put("a", "old and long");
        fs::hard_link(dir.path("a"), dir.path("b")).unwrap();
        write(&dir.path("a"), b"new", Follow).unwrap();
        assert_eq!(dir.get("b"), b"new");
        assert_eq!(fs::metadata(dir.path("a")).unwrap().nlink(), 2);
    }

    #[test]
    fn refusals() {
        let dir = TempDir::new();
        fs::create_dir(dir.path("d")).unwrap();
        dir.put("f", "");
        dir.fifo("p");
        let error = |name: &str| write(&dir.path(name), b"x", Follow).unwrap_err();
        assert!(error("d").is(Errno::EISDIR));
        assert_eq!(error("no/f").kind, FilesErrorKind::NotFound);
        assert!(error("f/x").is(Errno::ENOTDIR));
        assert!(error("p").is(Errno::ENXIO));
        assert_eq!(dir.names(""), ["d", "f", "p"]);
        let root = write(Path::new("/"), b"", Follow).unwrap_err();
        assert!(root.is(Errno::EISDIR));
    }

    #[test]
    fn devices_are_written_to() {
        write(Path::new("/dev/null"), b"x", Follow).unwrap();
        let full = write(Path::new("/dev/full"), b"x", Follow).unwrap_err();
        assert!(full.is(Errno::ENOSPC));
        assert!(fs::metadata("/dev/null").unwrap().rdev() != 0);
    }

    #[test]
    fn a_fifo_with_a_reader_and_a_descriptor_are_written_to() {
        let dir = TempDir::new();
        let path = dir.path("p");
        mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let reader = File::options()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open(&path)
            .unwrap();
        write(&path, b"hello", Follow).unwrap();
        assert_eq!(std::io::read_to_string(&reader).unwrap(), "hello");

        let (reader, writer) = std::io::pipe().unwrap();
        let descriptor = format!("/proc/self/fd/{}", writer.as_raw_fd());
        write(Path::new(&descriptor), b"there", Follow).unwrap();
        drop(writer);
        assert_eq!(std::io::read_to_string(reader).unwrap(), "there");
    }

    #[test]
    fn a_file_in_a_closed_directory_is_written_in_place() {
        let dir = TempDir::new();
        let path = dir.put("d/f", "old and long");
        dir.set_mode("d", 0o555);
        write(&path, b"new", Follow).unwrap();
        assert_eq!(dir.get("d/f"), b"new");
        dir.set_mode("d/f", 0o444);
        if !Uid::effective().is_root() {
            let error = write(&path, b"newer", Follow).unwrap_err();
            assert!(error.is(Errno::EACCES));
            let error = write(&dir.path("d/g"), b"", Follow).unwrap_err();
            assert!(error.is(Errno::EACCES));
        }
        dir.set_mode("d", 0o755);
        assert_eq!(dir.names("d"), ["f"]);
    }

    #[test]
    fn a_running_program_is_replaced() {
        let dir = TempDir::new();
        fs::copy("/bin/cat", dir.path("program")).unwrap();
        let mut child = loop {
            // Another test's child may hold the copy open for writing until it execs.
            match std::process::Command::new(dir.path("program"))
                .stdin(std::process::Stdio::piped())
                .spawn()
            {
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
                child => break child.unwrap(),
            }
        };
        let result = write(&dir.path("program"), b"new", Follow);
        drop(child.stdin.take());
        child.wait().unwrap();
        result.unwrap();
        assert_eq!(dir.get("program"), b"new");
        assert_ne!(dir.mode("program") & 0o111, 0);
    }

    #[test]
    fn a_pseudo_file_is_written_in_place() {
        let path = Path::new("/proc/self/comm");
        if let Ok(before) = fs::read(path) {
            write(path, &before, Follow).unwrap();
        }
    }
}
