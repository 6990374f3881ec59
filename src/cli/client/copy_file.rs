//! Copying one file in blocks, several of them on their way at a time.

use super::failure::Failure;
use super::lock;
use super::progress::Progress;
use exec_server::client::{ExecServerClient, ExecServerError};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The longest block of the protocol: 1 MiB.
const BLOCK_BYTES: usize = 1024 * 1024;

/// Blocks on their way at a time: while one is written, others are on the wire, read and encoded.
const IN_FLIGHT: usize = 4;

/// Why something was not copied.
pub(super) struct Problem {
    /// What was being done, and what the system or the server said.
    pub(super) message: String,
    /// The server is gone: nothing else can be copied either.
    pub(super) is_final: bool,
}

impl Problem {
    pub(super) fn of_server(path: &Path, error: &ExecServerError) -> Problem {
        let reason = match error {
            ExecServerError::Server { message, .. } => message.clone(),
            error => error.to_string(),
        };
        Problem {
            message: format!("remote:{}: {reason}", path.display()),
            is_final: error.is_disconnected(),
        }
    }

    pub(super) fn of_file(path: &Path, error: &io::Error) -> Problem {
        Problem::new(path, &error.to_string())
    }

    pub(super) fn new(path: &Path, reason: &str) -> Problem {
        Problem {
            message: format!("{}: {reason}", path.display()),
            is_final: false,
        }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Failure {
        Failure::new(problem.message).plain()
    }
}

/// Copies a file of `size` bytes, as far as is known, from the server to `to`, which has the new content all at once.
pub(super) fn fetch(client: &ExecServerClient, from: &Path, size: u64, to: &Path) -> Result<(), Problem> {
    let remote = client.fs_open(from).map_err(|e| Problem::of_server(from, &e))?;
    let target = Target::open(to).map_err(|e| Problem::of_file(to, &e))?;
    let progress = Progress::new(from, size);
    let end = each_block(target.is_seekable(), &|offset| {
        let mut len = 0;
        loop {
            let (block, is_end) = remote
                .read_block(offset + len as u64, BLOCK_BYTES - len)
                .map_err(|e| Problem::of_server(from, &e))?;
            let written = target.write(offset + len as u64, &block);
            written.map_err(|e| Problem::of_file(to, &e))?;
            progress.add(block.len());
            len += block.len();
            if is_end || block.is_empty() || len >= BLOCK_BYTES {
                return Ok(len);
            }
        }
    })?;
    target.finish(end).map_err(|e| Problem::of_file(to, &e))
}

/// Copies a file from here to the server.
pub(super) fn send(client: &ExecServerClient, from: &Path, to: &Path) -> Result<(), Problem> {
    let of_file = |e: io::Error| Problem::of_file(from, &e);
    let of_server = |e: ExecServerError| Problem::of_server(to, &e);
    let file = File::open(from).map_err(of_file)?;
    let metadata = file.metadata().map_err(of_file)?;
    let progress = Progress::new(from, metadata.len());
    if metadata.is_file() && metadata.len() < BLOCK_BYTES as u64 {
        let mut content = Vec::new();
        // A little more than is there, in case it grows: then it goes in blocks.
        let limit = (&file).take(BLOCK_BYTES as u64).read_to_end(&mut content);
        if limit.map_err(of_file)? < BLOCK_BYTES {
            return client.fs_write_file(to, &content).map_err(of_server);
        }
    }
    let remote = client.fs_create(to).map_err(of_server)?;
    each_block(metadata.is_file(), &|offset| {
        let mut block = vec![0; BLOCK_BYTES];
        let len = fill(&file, metadata.is_file().then_some(offset), &mut block).map_err(of_file)?;
        if len > 0 {
            remote.write_block(offset, &block[..len]).map_err(of_server)?;
            progress.add(len);
        }
        Ok(len)
    })?;
    remote.close().map_err(of_server)
}

/// Reads a whole block, or to the end of the file; from `offset`, or what comes next.
fn fill(mut file: &File, offset: Option<u64>, block: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < block.len() {
        let read = match offset {
            Some(offset) => file.read_at(&mut block[len..], offset + len as u64),
            None => file.read(&mut block[len..]),
        };
        match read {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(len)
}

/// Calls `copy` with the offset of each block until one is not full, in any order and from several threads unless it
/// must be one after the other. It returns how much it has copied. Returns where the file ends.
fn each_block(any_order: bool, copy: &(dyn Fn(u64) -> Result<usize, Problem> + Sync)) -> Result<u64, Problem> {
    let len = copy(0)?;
    if len < BLOCK_BYTES {
        return Ok(len as u64);
    }
    let (next, end) = (AtomicU64::new(BLOCK_BYTES as u64), AtomicU64::new(u64::MAX));
    let has_failed = AtomicBool::new(false);
    let problem = Mutex::new(None);
    let work = || {
        while !has_failed.load(Ordering::Relaxed) {
            let offset = next.fetch_add(BLOCK_BYTES as u64, Ordering::Relaxed);
            if offset >= end.load(Ordering::Relaxed) {
                return;
            }
            match copy(offset) {
                Ok(BLOCK_BYTES) => {}
                Ok(len) => drop(end.fetch_min(offset + len as u64, Ordering::Relaxed)),
                Err(e) => {
                    has_failed.store(true, Ordering::Relaxed);
                    lock(&problem).get_or_insert(e);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let others = if any_order { IN_FLIGHT - 1 } else { 0 };
        for _ in 0..others {
            // Without more threads it takes longer, and that is all.
            if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    match lock(&problem).take() {
        Some(problem) => Err(problem),
        None => Ok(end.into_inner()),
    }
}

/// A file that is being written here.
enum Target {
    /// Beside the one whose place it takes when it is whole.
    Partial(Partial),
    /// A device or a pipe, in its place.
    Stream(File),
}

/// A file that is removed if it does not get its name.
struct Partial {
    file: File,
    path: PathBuf,
    place: PathBuf,
}

impl Target {
    fn open(place: &Path) -> io::Result<Target> {
        // What a link leads to is replaced, not the link.
        let place = fs::canonicalize(place).unwrap_or_else(|_| place.to_owned());
        let before = fs::metadata(&place).ok();
        if before.as_ref().is_some_and(|before| !before.is_file()) {
            return Ok(Target::Stream(OpenOptions::new().write(true).open(&place)?));
        }
        let name = place.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        // Names are not longer than 255 bytes.
        if hidden.len() > 200 {
            hidden = ".exec-server".into();
        }
        hidden.push(format!(".{}.part", std::process::id()));
        let path = place.with_file_name(hidden);
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        let partial = Partial { file, path, place };
        if let Some(before) = before {
            partial.file.set_permissions(before.permissions())?;
        }
        Ok(Target::Partial(partial))
    }

    fn is_seekable(&self) -> bool {
        matches!(self, Target::Partial(_))
    }

    fn write(&self, offset: u64, block: &[u8]) -> io::Result<()> {
        match self {
            Target::Partial(partial) => partial.file.write_all_at(block, offset),
            Target::Stream(file) => (&*file).write_all(block),
        }
    }

    /// It is whole, and has this length.
    fn finish(self, len: u64) -> io::Result<()> {
        match &self {
            Target::Partial(partial) => {
                partial.file.set_len(len)?;
                fs::rename(&partial.path, &partial.place)
            }
            Target::Stream(_) => Ok(()),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // It is gone if it has got its name.
        let _ = fs::remove_file(&self.path);
    }
}
