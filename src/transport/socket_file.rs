//! Listening on a socket file: nobody else's, nobody else gets in, and nothing is left of it.

use super::address::Address;
use nix::errno::Errno;
use nix::sys::socket::{Backlog, SockFlag, bind, connect, listen};
use nix::sys::stat::{Mode, fchmod};
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long another server that listens in the same directory, or ends there, is waited for. It takes a moment.
const LOCK_LIMIT: Duration = Duration::from_secs(1);

/// A socket file that clients connect by. Dropped, it is removed, if it is still the same.
///
/// Two servers that want the same file, or one that comes while another goes, would see each other halfway. So whatever
/// is done about the file is done with a lock on its directory; which leaves nothing behind, as a file of its own would.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Its device and number. Nothing else can have that number as long as the socket is open.
    id: (u64, u64),
}

impl SocketFile {
    /// Listens on a new file at `path`. It has `mode` from its first moment but for what the umask takes away, and all of
    /// it before anybody can connect. A socket file that is there is replaced if nobody listens on it.
    ///
    /// # Errors
    /// A server listens there already, there is something else, or what the system said.
    pub fn listen(path: &Path, mode: u32) -> io::Result<(OwnedFd, SocketFile)> {
        let _lock = lock_directory(path)?;
        let file = Address::File(path.to_owned());
        let (socket, address) = file.socket(SockFlag::empty())?;
        // What is bound gets the mode of its socket.
        fchmod(&socket, Mode::from_bits_truncate(mode))?;
        match bind(socket.as_raw_fd(), &*address) {
            Err(Errno::EADDRINUSE) => {
                make_room(path, &file)?;
                bind(socket.as_raw_fd(), &*address)?;
            }
            bound => bound?,
        }
        let listens = || {
            let made = fs::symlink_metadata(path)?;
            if made.mode() & 0o777 != mode {
                fs::set_permissions(path, PermissionsExt::from_mode(mode))?;
            }
            listen(&socket, Backlog::MAXCONN)?;
            Ok((made.dev(), made.ino()))
        };
        match listens() {
            Ok(id) => {
                let path = path.to_owned();
                Ok((socket, SocketFile { path, id }))
            }
            Err(e) => {
                let _ = fs::remove_file(path);
                Err(e)
            }
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let lock = lock_directory(&self.path);
        let is_ours = |found: fs::Metadata| (found.dev(), found.ino()) == self.id;
        if lock.is_ok() && fs::symlink_metadata(&self.path).is_ok_and(is_ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes a socket file on which nobody listens.
fn make_room(path: &Path, file: &Address) -> io::Result<()> {
    let refused = |text: &str| Err(io::Error::new(ErrorKind::AddrInUse, text));
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return refused("there is something else, which is no socket");
    }
    let (socket, address) = file.socket(SockFlag::SOCK_NONBLOCK)?;
    match connect(socket.as_raw_fd(), &*address) {
        Err(Errno::ECONNREFUSED) => fs::remove_file(path),
        // With many who wait to be accepted.
        Ok(()) | Err(Errno::EAGAIN) => refused("a server is already listening there"),
        Err(e) => refused(&format!(
            "there is a socket, and whether anybody listens could not be found out: {e}"
        )),
    }
}

/// Keeps other servers from the files of a directory, as long as what is returned.
fn lock_directory(path: &Path) -> io::Result<File> {
    let failed = |e: &dyn std::fmt::Display| io::Error::other(format!("failed to lock its directory: {e}"));
    let directory = File::open(path.parent().unwrap_or(path)).map_err(|e| failed(&e))?;
    let deadline = Instant::now() + LOCK_LIMIT;
    loop {
        match directory.try_lock() {
            Ok(()) => return Ok(directory),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(e) => return Err(failed(&e)),
        }
    }
}
