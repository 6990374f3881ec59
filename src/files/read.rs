//! `fs/readFile`, and opening files for reading.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::bounds::{End, find};
use super::error::FilesError;
use super::place::{Links, Place, file_type};
use crate::protocol::bytes;

/// The longest file that is read in one answer, in bytes: what Codex's exec-server allows.
pub const READ_LIMIT: u64 = 512 << 20;

/// A regular file that is open for reading, and how long it was then.
pub struct ReadableFile {
    file: File,
    size: u64,
}

/// Bytes handled at a time. A multiple of 3, so that only the last piece is padded; small enough to stay
/// in a core's own cache between being read and being encoded.
pub(super) const PIECE: usize = 48 * 1024;

/// A text from here on is worth memory of its own.
const LARGE_TEXT: usize = 256 * 1024;

impl ReadableFile {
    /// The length of the file's base64, if it is large and known beforehand.
    pub fn large_text_len(&self) -> Option<usize> {
        let len = bytes::encoded_len(usize::try_from(self.size).ok()?);
        (len >= LARGE_TEXT).then_some(len)
    }

    /// All of the file: as long as it was when it was opened if it is large, otherwise to its end.
    ///
    /// # Errors
    /// There is not that much memory; what the system said.
    pub fn read(self) -> Result<Vec<u8>, FilesError> {
        let is_large = self.large_text_len().is_some();
        // More than it can have, so that one without a size is read to its end.
        let limit = if is_large { self.size } else { READ_LIMIT + 1 };
        let mut content = Vec::new();
        let room = usize::try_from(self.size).map_err(|_| io::ErrorKind::OutOfMemory);
        let reserved = room.map(|room| content.try_reserve_exact(room));
        if !matches!(reserved, Ok(Ok(()))) {
            return Err(io::Error::from(io::ErrorKind::OutOfMemory).into());
        }
        self.file.take(limit).read_to_end(&mut content)?;
        if content.len() as u64 > READ_LIMIT {
            return Err(too_large(READ_LIMIT));
        }
        Ok(content)
    }

    /// Writes the base64 of the file, as long as it was when it was opened, to the beginning of `room`, and returns its
    /// length. A file that has become shorter ends early.
    ///
    /// # Errors
    /// What the system said.
    pub fn encode_into(mut self, room: &mut [u8]) -> Result<usize, FilesError> {
        let mut piece = vec![0; PIECE];
        let (mut left, mut written) = (self.size, 0);
        while left > 0 {
            let wanted = usize::try_from(left).map_or(piece.len(), |left| left.min(piece.len()));
            let length = fill(&mut piece[..wanted], |rest, _| self.file.read(rest))?;
            let text = bytes::encoded_len(length);
            bytes::encode_into(&piece[..length], &mut room[written..written + text]);
            written += text;
            left -= length as u64;
            if length < wanted {
                break;
            }
        }
        Ok(written)
    }

    /// Appends the base64 of the file to `out`, reading it to its end; one in `/proc` does not tell its length. On an
    /// error `out` is as it was.
    ///
    /// # Errors
    /// InvalidRequest if it turns out to be longer than [`READ_LIMIT`].
    pub fn append_base64(mut self, out: &mut Vec<u8>) -> Result<(), FilesError> {
        let start = out.len();
        let result = append_all(&mut self.file, READ_LIMIT, out);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }
}

/// Opens a regular file, to read all of it.
///
/// # Errors
/// InvalidRequest for anything but a regular file, which is found out without waiting for it, and for one
/// longer than [`READ_LIMIT`]. With [`Links::Refuse`] a link is ELOOP at the end of the path and ENOTDIR
/// within it.
pub fn open_for_reading(path: &Path, links: Links<'_>) -> Result<ReadableFile, FilesError> {
    let file = open_regular(path, links)?;
    let size = file.metadata()?.len();
    if size > READ_LIMIT {
        return Err(too_large(READ_LIMIT));
    }
    Ok(ReadableFile { file, size })
}

fn too_large(limit: u64) -> FilesError {
    FilesError::invalid_request(format!("file is too large to read: limit is {limit} bytes"))
}

/// Opens a regular file for reading; anything else is refused at once.
pub(super) fn open_regular(path: &Path, links: Links<'_>) -> Result<File, FilesError> {
    // Without O_NONBLOCK a FIFO would wait for a writer; regular files ignore it.
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let fd: OwnedFd = match links {
        Links::Follow => open(path, flags, Mode::empty())?,
        Links::Refuse => open_place(&Place::without_links(path)?, flags)?,
        Links::Within { bounds, follow } => {
            let found = find(path, follow, End::Target, bounds)?;
            bounds.may_read(&found.path)?;
            found.check_device()?;
            open_place(&found.place, flags)?
        }
    };
    if file_type(&fstat(&fd)?) != SFlag::S_IFREG {
        return Err(match links {
            Links::Follow | Links::Within { follow: true, .. } => not_a_file(path),
            Links::Refuse | Links::Within { follow: false, .. } => {
                FilesError::invalid_request("path is not a regular file")
            }
        });
    }
    Ok(File::from(fd))
}

/// Opens an entry that must be no link.
pub(super) fn open_place(place: &Place, flags: OFlag) -> Result<OwnedFd, Errno> {
    openat(
        &place.parent,
        place.name.as_os_str(),
        flags | OFlag::O_NOFOLLOW,
        Mode::from_bits_truncate(0o666),
    )
}

pub(super) fn not_a_file(path: &Path) -> FilesError {
    FilesError::invalid_request(format!("path `{}` is not a file", path.display()))
}

fn append_all(file: &mut File, limit: u64, out: &mut Vec<u8>) -> Result<(), FilesError> {
    let mut piece = vec![0; PIECE];
    let mut total = 0;
    loop {
        let length = fill(&mut piece, |rest, _| file.read(rest))?;
        total += length as u64;
        if total > limit {
            return Err(too_large(limit));
        }
        bytes::append(&piece[..length], out);
        if length < piece.len() {
            return Ok(());
        }
    }
}

/// Reads until the buffer is full or the file ends. `read` is told where to put the next bytes and how many came before.
pub(super) fn fill(
    buffer: &mut [u8],
    mut read: impl FnMut(&mut [u8], usize) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match read(&mut buffer[length..], length) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Links::*;
    use crate::files::fixture::TempDir;

    fn text(path: &Path, links: Links<'_>) -> Result<String, FilesError> {
        let mut out = b"{".to_vec();
        open_for_reading(path, links)?.append_base64(&mut out)?;
        let len = open_for_reading(path, links)?.size as usize;
        let mut room = vec![0; bytes::encoded_len(len)];
        let written = open_for_reading(path, links)?.encode_into(&mut room)?;
        assert!(len == 0 || room[..written] == out[1..]);
        let mut plain = Vec::new();
        bytes::append(&open_for_reading(path, links)?.read()?, &mut plain);
        assert!(plain == out[1..] || len == 0);
        Ok(String::from_utf8(out[1..].to_vec()).unwrap())
    }

    #[test]
    fn whole_files() {
        let dir = TempDir::new();
        dir.put("f", "hello");
        dir.link("f", "l");
        assert_eq!(text(&dir.path("f"), Follow).unwrap(), "aGVsbG8=");
        assert_eq!(text(&dir.path("f"), Refuse).unwrap(), "aGVsbG8=");
        assert_eq!(text(&dir.path("l"), Follow).unwrap(), "aGVsbG8=");
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 7] {
            let data: Vec<u8> = (0..length).map(|i| (i % 253) as u8).collect();
            dir.put("g", &data);
            let mut expected = Vec::new();
            bytes::append(&data, &mut expected);
            assert_eq!(text(&dir.path("g"), Follow).unwrap().as_bytes(), expected);
        }
    }

    #[test]
    fn a_file_is_as_long_as_it_was_when_it_was_opened() {
        let dir = TempDir::new();
        let path = dir.put("f", vec![7; 1_000_000]);
        let file = open_for_reading(&path, Follow).unwrap();
        let len = file.large_text_len().unwrap();
        assert_eq!(len, bytes::encoded_len(1_000_000));
        dir.put("f", vec![7; 1_200_000]);
        let twin = open_for_reading(&path, Follow).unwrap();
        dir.put("f", vec![7; 1_400_000]);
        assert_eq!(file.encode_into(&mut vec![0; len]).unwrap(), len);
        assert_eq!(twin.read().unwrap().len(), 1_200_000);
        let file = open_for_reading(&path, Follow).unwrap();
        dir.put("f", "abc");
        assert_eq!(file.encode_into(&mut vec![0; 2_000_000]).unwrap(), 4);
        dir.put("f", "short");
        assert_eq!(open_for_reading(&path, Follow).unwrap().large_text_len(), None);
    }

    #[test]
    fn files_without_a_size_are_read_to_their_end() {
        let status = text(Path::new("/proc/self/status"), Follow).unwrap();
        assert!(status.len() > 100);
    }

    #[test]
    fn only_regular_files() {
        let dir = TempDir::new();
        let fifo = dir.fifo("p");
        for path in [dir.root(), &fifo, Path::new("/dev/zero")] {
            assert_eq!(text(path, Follow), Err(not_a_file(path)));
            assert_eq!(text(path, Refuse).unwrap_err().message, "path is not a regular file");
        }
        let missing = text(&dir.path("nope"), Follow).unwrap_err();
        assert!(missing.is(Errno::ENOENT));
    }

    #[test]
    fn links_refused() {
        let dir = TempDir::new();
        dir.put("d/f", "");
        dir.link("d/f", "l");
        dir.link("d", "ld");
        assert!(text(&dir.path("l"), Refuse).unwrap_err().is(Errno::ELOOP));
        assert!(text(&dir.path("ld/f"), Refuse).unwrap_err().is(Errno::ENOTDIR));
    }

    #[test]
    fn too_long() {
        let dir = TempDir::new();
        let path = dir.put("f", "12345");
        let mut out = Vec::new();
        let error = append_all(&mut File::open(&path).unwrap(), 4, &mut out).unwrap_err();
        assert_eq!(error.message, "file is too large to read: limit is 4 bytes");
        assert!(append_all(&mut File::open(&path).unwrap(), 5, &mut out).is_ok());
        File::options()
            .write(true)
            .open(&path)
            .and_then(|f| f.set_len(READ_LIMIT + 1))
            .unwrap();
        assert!(text(&path, Follow).unwrap_err().message.contains("536870912"));
    }
}
