//! Landlock: rights that a program gives up for good, for itself and all that it starts.
//!
//! It serves where a program can't have namespaces of its own; see [`confine`](super::confine). A [`Ruleset`] says which
//! files may be opened for what. It also keeps the program from tracing those that don't live under the same rules, from
//! signalling them, and from their abstract sockets. What it does not keep from them is left to a filter of system calls,
//! [`filter_without_namespaces`](super::confine::filter_without_namespaces).

use super::confine::{ConfineError, DEVICES};
use super::spawn::{Child, Leads, Program, SpawnError, Step, spawn_restricted};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc::{self, c_int, c_long, sock_filter};
use nix::sys::stat::{SFlag, fstat};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Since this version signals stay among programs that live under the same rules (Linux 6.12).
const NEEDED_VERSION: i32 = 6;

/// How many entries of the root directory may be read in; more stay closed.
const MAX_ROOT_ENTRIES: usize = 1024;

// From linux/landlock.h
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const REMOVE_DIR: u64 = 1 << 4;
const REMOVE_FILE: u64 = 1 << 5;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_DIR: u64 = 1 << 7;
const MAKE_REG: u64 = 1 << 8;
const MAKE_SOCK: u64 = 1 << 9;
const MAKE_FIFO: u64 = 1 << 10;
const MAKE_BLOCK: u64 = 1 << 11;
const MAKE_SYM: u64 = 1 << 12;
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
const SCOPE_ABSTRACT_UNIX_SOCKET: u64 = 1;
const SCOPE_SIGNAL: u64 = 2;
const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: c_int = 1;

/// What can be allowed at something that is no directory.
const CHANGE_FILE: u64 = WRITE_FILE | TRUNCATE;
/// What can be allowed at a directory, and then holds below it. Not with it: device files that lie there.
const CHANGE_TREE: u64 =
    CHANGE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO | MAKE_SYM | REFER;
const USE_DEVICE: u64 = READ_FILE | WRITE_FILE | IOCTL_DEV;
/// What is forbidden where it is not allowed. Executing and listing directories never are.
const HANDLED: u64 = CHANGE_TREE | USE_DEVICE | MAKE_CHAR | MAKE_BLOCK;

/// `struct landlock_ruleset_attr`
#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`
#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

/// Why there are no rules.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LandlockError {
    /// The kernel has no Landlock, or it is not switched on.
    #[error("failed to ask for Landlock: {}", io::Error::from(*.0))]
    Missing(Errno),
    /// The kernel's is too old.
    #[error("Landlock has version {0} here, and the sandbox needs {NEEDED_VERSION} (Linux 6.12)")]
    Old(i32),
    /// The rules could not be made.
    #[error("failed to {what}{}: {}", path.as_ref().map(|p| format!(" `{}`", p.display())).unwrap_or_default(),
        io::Error::from(*errno))]
    Rules {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: Option<PathBuf>,
        /// What the system said.
        errno: Errno,
    },
    /// A program could not be started under them.
    #[error(transparent)]
    Start(ConfineError),
}

/// What a program may do with files.
#[derive(Debug)]
pub struct Ruleset(OwnedFd);

impl Ruleset {
    /// All files may be read and none changed. Of what is in `/dev` there are only the devices that are harmless, and
    /// the program's own terminal: the host's others lead to disks, to shared memory and to what is typed elsewhere.
    ///
    /// What comes to be in the root directory from now on can't be read.
    ///
    /// # Errors
    /// There is no Landlock, or it can't do that.
    pub fn read_only() -> Result<Ruleset, LandlockError> {
        let version = version().map_err(LandlockError::Missing)?;
        if version < NEEDED_VERSION {
            return Err(LandlockError::Old(version));
        }
        let ruleset = create(&RulesetAttr {
            handled_access_fs: HANDLED,
            handled_access_net: 0,
            scoped: SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL,
        });
        let ruleset = Ruleset(ruleset.map_err(|errno| LandlockError::Rules {
            what: "make a Landlock ruleset",
            path: None,
            errno,
        })?);
        let root = fs::read_dir("/").map_err(|e| failed("list", Path::new("/"))(Errno::from_raw(number(&e))))?;
        for entry in root.take(MAX_ROOT_ENTRIES).flatten() {
            // A link has no files of its own; and what can't be opened can't be read either.
            if entry.file_name() != "dev"
                && let Ok(file) = open(&entry.path())
            {
                ruleset
                    .allow(file.as_fd(), READ_FILE)
                    .map_err(failed("allow reading", &entry.path()))?;
            }
        }
        for (_, device) in DEVICES {
            let path = Path::new(OsStr::from_bytes(device.to_bytes()));
            if let Ok(file) = open(path)
                && has_type(&file, SFlag::S_IFCHR)
            {
                ruleset.allow(file.as_fd(), USE_DEVICE).map_err(failed("allow", path))?;
            }
        }
        Ok(ruleset)
    }

    /// Lets it change everything at `path` and below, which is absolute and without symbolic links.
    ///
    /// # Errors
    /// There is nothing there, or a link on the way.
    pub fn allow_writing(&self, path: &Path) -> Result<(), LandlockError> {
        let file = open(path).map_err(failed("open", path))?;
        let is_directory = has_type(&file, SFlag::S_IFDIR);
        let access = if is_directory { CHANGE_TREE } else { CHANGE_FILE };
        self.allow(file.as_fd(), access).map_err(failed("allow writing", path))
    }

    fn allow(&self, file: BorrowedFd<'_>, allowed_access: u64) -> Result<(), Errno> {
        let attr = PathBeneathAttr {
            allowed_access,
            parent_fd: file.as_raw_fd(),
        };
        let ruleset = self.0.as_raw_fd();
        // SAFETY: live descriptors, and a live local that the kernel only reads.
        let added = unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                ruleset,
                RULE_PATH_BENEATH,
                &raw const attr,
                0,
            )
        };
        Errno::result(added).map(drop)
    }
}

/// What a program is restricted to that shares our namespaces.
pub struct Restriction {
    /// What it may do with files.
    pub ruleset: Ruleset,
    /// The calls it may not make; see [`filter_without_namespaces`](super::confine::filter_without_namespaces).
    pub filter: Vec<sock_filter>,
}

/// Starts `program` restricted, and without capabilities. What
/// [`spawn`](super::spawn::spawn) says holds here as well.
///
/// # Errors
/// Which step failed and what the system said. Nothing is left behind then.
pub fn spawn(program: &Program<'_>, restriction: &Restriction) -> Result<Child, SpawnError> {
    let Restriction { ruleset, filter } = restriction;
    if program.leads == Leads::Terminal {
        let allowed = ruleset.allow(program.stdio[0], USE_DEVICE);
        allowed.map_err(|errno| SpawnError {
            step: Step::Rights,
            errno,
        })?;
    }
    spawn_restricted(program, ruleset.0.as_fd(), filter)
}

/// Which version of Landlock the kernel has.
fn version() -> Result<i32, Errno> {
    let none = std::ptr::null::<RulesetAttr>();
    // SAFETY: with this flag the call wants no memory.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0usize, CREATE_RULESET_VERSION) };
    Errno::result(version).map(|version| version as i32)
}

fn create(attr: &RulesetAttr) -> Result<OwnedFd, Errno> {
    let size = size_of::<RulesetAttr>();
    // SAFETY: memory of that size that the kernel only reads; then a descriptor that it has just made (close-on-exec),
    // and that nothing else owns.
    unsafe {
        let fd: c_long = libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::from_ref(attr), size, 0);
        Errno::result(fd).map(|fd| OwnedFd::from_raw_fd(fd as c_int))
    }
}

/// What is at `path`, which has no symbolic link in it.
fn open(path: &Path) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(AT_FDCWD, path, how)
}

fn has_type(file: &OwnedFd, kind: SFlag) -> bool {
    fstat(file).is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind)
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(Errno) -> LandlockError {
    move |errno| LandlockError::Rules {
        what,
        path: Some(path.to_owned()),
        errno,
    }
}

fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

#[cfg(test)]
#[path = "landlock_tests.rs"]
mod tests;
