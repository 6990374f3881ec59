//! The namespaces that all confined programs of this process share: a user namespace, in which they may be confined
//! though this process has no rights, and a network with nothing in it.
//!
//! They are made once, because a network namespace takes longer to make than a program to start. Nobody in one confined
//! program meets those of another in them: they hold no processes and no files, no program has rights in the user
//! namespace, and none may listen on a socket where its network is restricted.

use super::super::spawn::{CHILD_STACK, child_stack, wait, with_signals_blocked};
use nix::errno::Errno;
use nix::libc::{self, c_int, c_void};
use nix::unistd::{Pid, getegid, geteuid};
use std::ffi::{CStr, CString};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The namespaces.
#[derive(Debug)]
pub struct Ground {
    pub(super) user: OwnedFd,
    pub(super) network: OwnedFd,
}

/// Why there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to {}: {}", step.describe(), std::io::Error::from(*errno))]
pub struct GroundError {
    /// What was being done.
    pub step: GroundStep,
    /// What the system said.
    pub errno: Errno,
}

/// What was being done when the namespaces could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroundStep {
    /// Making them.
    Create,
    /// Saying which user they are for.
    Map,
    /// Keeping them.
    Keep,
}

impl GroundStep {
    fn describe(self) -> &'static str {
        match self {
            GroundStep::Create => "make a user namespace and a network namespace",
            GroundStep::Map => "map the user into a user namespace",
            GroundStep::Keep => "open a namespace in /proc",
        }
    }
}

/// What the new process works with; it shares our memory until it ends.
struct Making {
    user_map: CString,
    group_map: CString,
    user: RawFd,
    network: RawFd,
    failed: Option<(GroundStep, c_int)>,
}

impl Ground {
    /// Makes the namespaces. The user and group of this process are themselves in there, and there are no others.
    ///
    /// # Errors
    /// Where user namespaces are forbidden, or `/proc` is not mounted.
    pub fn new() -> Result<Ground, GroundError> {
        let failed = |step, errno| GroundError { step, errno };
        let map = |id: u32| CString::new(format!("{id} {id} 1")).unwrap_or_default();
        let mut making = Making {
            user_map: map(geteuid().as_raw()),
            group_map: map(getegid().as_raw()),
            user: -1,
            network: -1,
            failed: None,
        };
        let mut stack = child_stack(CHILD_STACK).map_err(|e| failed(GroundStep::Create, e.errno))?;
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | libc::SIGCHLD;
        let flags = flags | libc::CLONE_NEWUSER | libc::CLONE_NEWNET;
        // SAFETY: the stack and `making` are the child's alone until it has ended, for which CLONE_VFORK waits; it makes
        // system calls only. It shares our descriptors, so that what it opens stays.
        let (pid, errno) = unsafe {
            with_signals_blocked(|| {
                let top = stack.as_mut_ptr().add(stack.len()).cast::<c_void>();
                libc::clone(make, top, flags, (&raw mut making).cast())
            })
        };
        if pid < 0 {
            return Err(failed(GroundStep::Create, errno));
        }
        let _ = wait(Pid::from_raw(pid));
        // SAFETY: descriptors that the child has opened in our table, and that nothing else owns.
        let own = |fd: RawFd| (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) });
        // SAFETY: live locals, which the child has written; the compiler cannot know.
        let (user, network, failure) = unsafe {
            let making = &raw const making;
            (
                (&raw const (*making).user).read_volatile(),
                (&raw const (*making).network).read_volatile(),
                (&raw const (*making).failed).read_volatile(),
            )
        };
        match (own(user), own(network), failure) {
            (Some(user), Some(network), None) => Ok(Ground { user, network }),
            (.., Some((step, errno))) => Err(failed(step, Errno::from_raw(errno))),
            _ => Err(failed(GroundStep::Keep, Errno::EIO)),
        }
    }
}

extern "C" fn make(making: *mut c_void) -> c_int {
    // SAFETY: `Ground::new` passes a live Making, which nobody else touches until this process has ended.
    unsafe {
        let making = &mut *making.cast::<Making>();
        if let Err(failed) = carry_out(making) {
            making.failed = Some(failed);
        }
        libc::_exit(0)
    }
}

/// System calls only: it shares the memory of another thread that stands still.
unsafe fn carry_out(making: &mut Making) -> Result<(), (GroundStep, c_int)> {
    // SAFETY: as above.
    unsafe {
        // Without this a group can't be mapped by a user without rights. Where there is no such file there is no need.
        let _ = write(c"/proc/self/setgroups", c"deny");
        write(c"/proc/self/uid_map", &making.user_map).map_err(|e| (GroundStep::Map, e))?;
        write(c"/proc/self/gid_map", &making.group_map).map_err(|e| (GroundStep::Map, e))?;
        making.user = open(c"/proc/self/ns/user", libc::O_RDONLY).map_err(|e| (GroundStep::Keep, e))?;
        making.network = open(c"/proc/self/ns/net", libc::O_RDONLY).map_err(|e| (GroundStep::Keep, e))?;
    }
    Ok(())
}

unsafe fn open(path: &CStr, how: c_int) -> Result<RawFd, c_int> {
    // SAFETY: a C string and integers.
    match unsafe { libc::open(path.as_ptr(), how | libc::O_CLOEXEC) } {
        -1 => Err(Errno::last_raw()),
        fd => Ok(fd),
    }
}

unsafe fn write(path: &CStr, text: &CStr) -> Result<(), c_int> {
    // SAFETY: a C string, integers, and memory of that length.
    unsafe {
        let fd = open(path, libc::O_WRONLY)?;
        let written = libc::write(fd, text.as_ptr().cast(), text.count_bytes());
        let errno = Errno::last_raw();
        libc::close(fd);
        if written < 0 { Err(errno) } else { Ok(()) }
    }
}
