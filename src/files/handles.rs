//! `fs/open`, `fs/readBlock`, `fs/writeBlock` and `fs/close`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::bounds::{End, find};
use super::error::{FilesError, FilesErrorKind};
use super::place::{Links, Place, file_type};
use super::read::{PIECE, fill, not_a_file, open_place, open_regular};
use crate::metrics;
use crate::protocol::bytes::{self, Content};
use crate::protocol::files::FsOpenMode;

/// The longest block, in bytes, as in Codex's exec-server.
pub const MAX_BLOCK: usize = 1 << 20;
const MAX_ID: usize = 32;

/// In which form bytes are given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As base64.
    Base64,
    /// As they are.
    Plain,
}

/// The open files of a connection, by the names the client gave them.
///
/// Calls may come from several threads: opening, reading and writing happen without the table's lock, and
/// a file closed meanwhile lives until the last block on its way is done.
#[derive(Debug)]
pub struct FileHandles {
    limit: usize,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    slots: HashMap<String, Slot>,
    tickets: u64,
}

#[derive(Debug)]
enum Slot {
    /// Being opened, by the holder of this ticket.
    Taken(u64),
    Open(Arc<File>),
}

impl FileHandles {
    /// No open files, and room for `limit` of them.
    pub fn new(limit: usize) -> Self {
        FileHandles {
            limit,
            table: Mutex::default(),
        }
    }

    /// Opens a regular file under a name.
    ///
    /// [`FsOpenMode::Replace`] creates the file, mode 0666 less the umask, or empties it at once, keeping
    /// its mode; it goes through links, a dangling one too, and the handle is for writing only. What is permitted is
    /// decided here, and holds for all blocks.
    ///
    /// # Errors
    /// InvalidRequest, before the file is touched, for a name that is in use or longer than 32 bytes and
    /// for one more open file than there is room for; InvalidRequest for anything but a regular file, at once.
    pub fn open(&self, id: &str, path: &Path, mode: FsOpenMode, links: Links<'_>) -> Result<(), FilesError> {
        self.open_with(id, || match mode {
            FsOpenMode::Read => open_regular(path, links),
            FsOpenMode::Replace => open_for_replacing(path, links),
        })
    }

    /// Keeps under a name whatever file `opened` gives; it is called only if the name can be had.
    ///
    /// # Errors
    /// As [`open`](Self::open), and those of `opened`.
    pub fn open_with(&self, id: &str, opened: impl FnOnce() -> Result<File, FilesError>) -> Result<(), FilesError> {
        let ticket = self.take(id)?;
        let result = opened();
        let mut table = self.lock();
        let mine = matches!(table.slots.get(id), Some(Slot::Taken(other)) if *other == ticket);
        let file = match result {
            Ok(file) => file,
            Err(error) => {
                if mine {
                    table.slots.remove(id);
                }
                return Err(error);
            }
        };
        // If not, it was closed before it was open.
        if mine {
            table.slots.insert(id.to_owned(), Slot::Open(Arc::new(file)));
        }
        Ok(())
    }

    fn take(&self, id: &str) -> Result<u64, FilesError> {
        if id.len() > MAX_ID {
            return Err(FilesError::invalid_request(format!(
                "file handle ID must not exceed {MAX_ID} bytes"
            )));
        }
        let mut table = self.lock();
        let Table { slots, tickets } = &mut *table;
        let is_full = slots.len() >= self.limit;
        match slots.entry(id.to_owned()) {
            Entry::Occupied(_) => Err(FilesError::invalid_request(format!(
                "file handle `{id}` already exists"
            ))),
            Entry::Vacant(_) if is_full => {
                metrics::limit_met("max-file-handles");
                Err(FilesError::invalid_request(format!(
                    "at most {} file handles may be open per connection",
                    self.limit
                )))
            }
            Entry::Vacant(slot) => {
                *tickets += 1;
                slot.insert(Slot::Taken(*tickets));
                Ok(*tickets)
            }
        }
    }

    /// Appends `len` bytes from `offset` on to `out`, and says whether the file ended before
    /// them. The handle stays open whatever happens; on an error `out` is as it was.
    ///
    /// # Errors
    /// InvalidRequest for a `len` outside 1 to [`MAX_BLOCK`] and an offset no file can have, NotFound for
    /// an unknown handle.
    pub fn read_block(
        &self,
        id: &str,
        offset: u64,
        len: u64,
        form: Form,
        out: &mut Vec<u8>,
    ) -> Result<bool, FilesError> {
        let len = usize::try_from(len)
            .ok()
            .filter(|len| (1..=MAX_BLOCK).contains(len))
            .ok_or_else(|| block_length("read"))?;
        let file = self.get(id)?;
        if i64::try_from(offset).is_err() {
            return Err(Errno::EINVAL.into());
        }
        let start = out.len();
        let result = append_block(&file, offset, len, form, out);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    /// Writes `chunk` at `offset`; a gap before it becomes zeros.
    ///
    /// # Errors
    /// InvalidRequest for anything but 1 to [`MAX_BLOCK`] bytes and for a range no file can have; NotFound for an unknown
    /// handle; EBADF for one for reading.
    pub fn write_block(&self, id: &str, offset: u64, chunk: Content<'_>) -> Result<(), FilesError> {
        if !(1..=MAX_BLOCK).contains(&chunk.len()) {
            return Err(block_length("write"));
        }
        let end = offset.checked_add(chunk.len() as u64);
        if end.is_none_or(|end| i64::try_from(end).is_err()) {
            return Err(FilesError::invalid_request(
                "file write range exceeds the signed 64-bit file offset limit",
            ));
        }
        let file = self.get(id)?;
        let mut at = offset;
        chunk.pieces(|piece| {
            file.write_all_at(piece, at)?;
            at += piece.len() as u64;
            Ok(())
        })?;
        Ok(())
    }

    /// Closes a handle; an unknown one is closed already.
    pub fn close(&self, id: &str) {
        let slot = self.lock().slots.remove(id);
        // Closing may take its time, on a network file system: not under the lock.
        drop(slot);
    }

    fn get(&self, id: &str) -> Result<Arc<File>, FilesError> {
        match self.lock().slots.get(id) {
            Some(Slot::Open(file)) => Ok(Arc::clone(file)),
            Some(Slot::Taken(_)) | None => Err(FilesError {
                kind: FilesErrorKind::NotFound,
                errno: None,
                message: format!("unknown file handle `{id}`"),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing under it can leave the table half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn block_length(verb: &str) -> FilesError {
    FilesError::invalid_request(format!("file {verb} block length must be between 1 and {MAX_BLOCK}"))
}

fn open_for_replacing(path: &Path, links: Links<'_>) -> Result<File, FilesError> {
    // Without O_NONBLOCK a FIFO would wait for a reader; emptied only once it is known to be a file.
    let flags = OFlag::O_WRONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let create = flags | OFlag::O_CREAT;
    let fd = match links {
        Links::Follow => open(path, create, Mode::from_bits_truncate(0o666))?,
        Links::Refuse => open_place(&Place::without_links(path)?, create)?,
        Links::Within { bounds, follow } => {
            let found = find(path, follow, End::Target, bounds)?;
            match &found.there {
                Some(_) => bounds.may_write(&found.path)?,
                None => bounds.may_change(&found.path)?,
            }
            found.check_device()?;
            let is_new = found.there.is_none();
            open_place(&found.place, if is_new { create } else { flags })?
        }
    };
    if file_type(&fstat(&fd)?) != SFlag::S_IFREG {
        return Err(not_a_file(path));
    }
    let file = File::from(fd);
    file.set_len(0)?;
    Ok(file)
}

fn append_block(file: &File, offset: u64, len: usize, form: Form, out: &mut Vec<u8>) -> Result<bool, FilesError> {
    out.reserve(match form {
        Form::Base64 => bytes::encoded_len(len),
        Form::Plain => len,
    });
    let mut piece = vec![0; PIECE.min(len)];
    let mut done = 0;
    while done < len {
        let wanted = piece.len().min(len - done);
        let place = offset + done as u64;
        let count = fill(&mut piece[..wanted], |rest, before| {
            file.read_at(rest, place + before as u64)
        })?;
        match form {
            Form::Base64 => bytes::append(&piece[..count], out),
            Form::Plain => out.extend_from_slice(&piece[..count]),
        }
        done += count;
        if count < wanted {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::fixture::TempDir;
    use crate::protocol::bytes::Base64;
    use FsOpenMode::{Read, Replace};

    const MAX_HANDLES: usize = 128;

    fn encoded(data: &[u8]) -> String {
        let mut text = Vec::new();
        bytes::append(data, &mut text);
        String::from_utf8(text).unwrap()
    }

    fn read(handles: &FileHandles, id: &str, offset: u64, len: u64) -> Result<(String, bool), FilesError> {
        let mut out = b"x".to_vec();
        let result = handles.read_block(id, offset, len, Form::Base64, &mut out);
        let mut plain = b"x".to_vec();
        let again = handles.read_block(id, offset, len, Form::Plain, &mut plain);
        assert_eq!(again, result);
        if result.is_err() {
            assert_eq!((out.as_slice(), plain.as_slice()), (&b"x"[..], &b"x"[..]));
        } else {
            assert_eq!(encoded(&plain[1..]).as_bytes(), &out[1..]);
        }
        result.map(|eof| (String::from_utf8(out[1..].to_vec()).unwrap(), eof))
    }

    #[test]
    fn blocks_by_position() {
        let dir = TempDir::new();
        let data: Vec<u8> = (0..3 * MAX_BLOCK / 2).map(|i| (i % 251) as u8).collect();
        let path = dir.put("f", &data);
        let handles = FileHandles::new(MAX_HANDLES);
        handles.open("h", &path, Read, Links::Follow).unwrap();
        let end = data.len();
        for (offset, len, eof) in [
            (0, 1, false),
            (10, 3, false),
            (5, MAX_BLOCK, false),
            (end - 4, 4, false),
            (end - 4, 5, true),
            (end - 2 * PIECE, 2 * PIECE, false),
            (end - 2 * PIECE, 2 * PIECE + 1, true),
            (end, 1, true),
            (end + 1_000_000, 10, true),
        ] {
            let expected = &data[offset.min(end)..(offset + len).min(end)];
            let found = read(&handles, "h", offset as u64, len as u64).unwrap();
            assert_eq!(found, (encoded(expected), eof), "{offset} {len}");
        }
    }

    #[test]
    fn errors_leave_the_handle_open() {
        let dir = TempDir::new();
        let path = dir.put("f", "0123456789");
        let handles = FileHandles::new(MAX_HANDLES);
        handles.open("h", &path, Read, Links::Follow).unwrap();
        for len in [0, MAX_BLOCK as u64 + 1, u64::MAX] {
            let error = read(&handles, "h", 0, len).unwrap_err();
            assert_eq!(error.message, "file read block length must be between 1 and 1048576");
        }
        for offset in [i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX] {
            let error = read(&handles, "h", offset, 4).unwrap_err();
            assert_eq!(error.kind, FilesErrorKind::InvalidRequest);
        }
        assert!(
            handles
                .write_block("h", 0, Content::Plain(b"a"))
                .unwrap_err()
                .is(Errno::EBADF)
        );
        assert_eq!(read(&handles, "h", 0, 1).unwrap(), (encoded(b"0"), false));
        handles.open("w", &path, Replace, Links::Follow).unwrap();
        assert!(read(&handles, "w", 0, 1).unwrap_err().is(Errno::EBADF));
        handles.write_block("w", 0, Content::Plain(b"a")).unwrap();
        let unknown = read(&handles, "zz", 0, 4).unwrap_err();
        assert_eq!(unknown.message, "unknown file handle `zz`");
        assert_eq!(unknown.kind, FilesErrorKind::NotFound);
    }

    #[test]
    fn names_and_their_limits() {
        let dir = TempDir::new();
        let path = dir.put("f", "");
        let handles = FileHandles::new(MAX_HANDLES);
        let message = |id: &str| handles.open(id, &path, Read, Links::Follow).map_err(|e| e.message);
        assert_eq!(message(""), Ok(()));
        assert_eq!(message(&"x".repeat(32)), Ok(()));
        let long = Err("file handle ID must not exceed 32 bytes".to_owned());
        assert_eq!(message(&"x".repeat(33)), long);
        assert_eq!(message(&"\u{20ac}".repeat(11)), long);
        assert_eq!(message(""), Err("file handle `` already exists".into()));
        for number in 2..MAX_HANDLES {
            message(&number.to_string()).unwrap();
        }
        let full = "at most 128 file handles may be open per connection";
        assert_eq!(message("one more"), Err(full.into()));
        let untouched = dir.path("new");
        assert!(handles.open("one more", &untouched, Replace, Links::Follow).is_err());
        assert!(!untouched.exists());
        handles.close("");
        handles.close("");
        assert_eq!(message(""), Ok(()));
    }

    #[test]
    fn a_failed_open_leaves_the_name_free() {
        let dir = TempDir::new();
        let fifo = dir.fifo("p");
        let handles = FileHandles::new(MAX_HANDLES);
        let error = |path: &Path, mode| handles.open("h", path, mode, Links::Follow).unwrap_err();
        assert_eq!(error(&dir.path("nope"), Read).kind, FilesErrorKind::NotFound);
        assert_eq!(error(dir.root(), Read), not_a_file(dir.root()));
        assert_eq!(error(&fifo, Read), not_a_file(&fifo));
        assert!(error(&fifo, Replace).is(Errno::ENXIO));
        assert!(error(dir.root(), Replace).is(Errno::EISDIR));
        assert_eq!(error(&dir.path("no/x"), Replace).kind, FilesErrorKind::NotFound);
        let null = Path::new("/dev/null");
        assert_eq!(error(null, Replace), not_a_file(null));
        handles.open("h", &dir.put("f", ""), Read, Links::Follow).unwrap();
    }

    #[test]
    fn a_file_closed_while_it_is_being_opened_is_not_kept() {
        let dir = TempDir::new();
        let path = dir.put("f", "");
        let handles = FileHandles::new(MAX_HANDLES);
        handles
            .open_with("h", || {
                handles.close("h");
                handles.open("h", &path, Replace, Links::Follow)?;
                Ok(File::open(&path)?)
            })
            .unwrap();
        handles.write_block("h", 0, Content::Plain(b"a")).unwrap();
    }

    #[test]
    fn writing() {
        let dir = TempDir::new();
        dir.put("f", "old");
        dir.set_mode("f", 0o600);
        dir.link("f", "l");
        dir.link("made", "dang");
        let handles = FileHandles::new(MAX_HANDLES);
        handles.open("w", &dir.path("l"), Replace, Links::Follow).unwrap();
        assert_eq!((dir.get("f"), dir.mode("f")), (vec![], 0o600));
        handles.open("d", &dir.path("dang"), Replace, Links::Follow).unwrap();
        assert!(dir.path("made").exists());
        handles.write_block("w", 0, Content::Plain(b"hello")).unwrap();
        handles.write_block("w", 7, Content::Plain(b"Z")).unwrap();
        assert_eq!(dir.get("f"), b"hello\0\0Z");

        let block: Vec<u8> = (0..=MAX_BLOCK).map(|i| (i % 251) as u8).collect();
        let text = encoded(&block[1..]);
        let base64 = Content::Base64(Base64::check(text.as_bytes()).unwrap());
        handles.write_block("w", 3, base64).unwrap();
        assert!(dir.get("f")[..3] == *b"hel" && dir.get("f")[3..] == block[1..]);
        let error = |offset, chunk: &[u8]| handles.write_block("w", offset, Content::Plain(chunk)).unwrap_err();
        let length = "file write block length must be between 1 and 1048576";
        assert_eq!(error(0, b"").message, length);
        assert_eq!(error(0, &block).message, length);
        for offset in [i64::MAX as u64, u64::MAX] {
            assert_eq!(
                error(offset, b"a").message,
                "file write range exceeds the signed 64-bit file offset limit"
            );
        }
        handles.write_block("w", 0, Content::Plain(b"a")).unwrap();
        let unknown = handles.write_block("zz", 0, Content::Plain(b"a")).unwrap_err();
        assert_eq!(unknown.kind, FilesErrorKind::NotFound);
    }

    #[test]
    fn a_handle_stays_on_its_file() {
        let dir = TempDir::new();
        let path = dir.put("f", "first");
        let handles = FileHandles::new(MAX_HANDLES);
        handles.open("h", &path, Read, Links::Follow).unwrap();
        std::fs::rename(dir.put("g", "second"), &path).unwrap();
        assert_eq!(read(&handles, "h", 0, 9).unwrap(), (encoded(b"first"), true));
    }
}
