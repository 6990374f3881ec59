//! The keeper: a process that waits for this one to end, and then kills what its commands have left.
//!
//! Whoever ends in an orderly way does that itself; the keeper is there for a SIGKILL or a crash. It is a copy of this
//! process that has given its memory back, in a session of its own and deaf to all signals that can
//! be ignored, so that what ends this process and its group does not end the keeper too.

use super::kept_memory::{KeptMemory, give_memory_back};
use super::mark::{Kin, Table};
use super::spawn::{CHILD_STACK, SpawnError, child_stack, wait, with_signals_blocked};
use super::{pidfd, raw};
use nix::errno::Errno;
use nix::libc::{self, c_int, c_void};
use nix::unistd::Pid;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The stack of the keeper; only what is touched of it takes memory.
const STACK: NonZeroUsize = NonZeroUsize::new(64 * 1024).expect("a constant above zero");

/// How long it waits between two searches, in milliseconds; and after how many that found nothing it is done, since a
/// command that was just being started may get its mark a moment after the server has died.
const PAUSE: i64 = 20;
const QUIET_SEARCHES: usize = 3;

/// How often it searches at most, for what lives on though it was killed: ten seconds.
const SEARCHES: usize = 500;

/// What the keeper needs.
struct Orders {
    process: RawFd,
    table: Table,
    kin: Kin,
    memory: KeptMemory,
    /// The end of its stack.
    stack: *mut c_void,
    /// Its number, or that of the error.
    made: c_int,
}

/// Starts a keeper that will kill all `kin` that are left when this process has ended. It is a child of this process.
///
/// # Errors
/// There is no process to be had, or no `/proc`.
pub fn start(kin: Kin) -> io::Result<Pid> {
    let process: OwnedFd = pidfd::open(Pid::this())?;
    let failed = |e: SpawnError| io::Error::from(e.errno);
    let mut stack = child_stack(STACK).map_err(failed)?;
    let mut messenger_stack = child_stack(CHILD_STACK).map_err(failed)?;
    // Looked up while there is a C library.
    kin.limits();
    let mut orders = Orders {
        process: process.as_raw_fd(),
        table: Table::open()?,
        kin,
        memory: KeptMemory::of(&stack),
        stack: stack.as_mut_ptr_range().end.cast(),
        made: -1,
    };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the messenger uses its stack alone and has ended when the call returns, because of CLONE_VFORK; so nobody
    // else uses the orders meanwhile. It makes system calls only.
    let (messenger, errno) = unsafe {
        with_signals_blocked(|| {
            let top = messenger_stack.as_mut_ptr_range().end.cast::<c_void>();
            libc::clone(carry_message, top, flags, (&raw mut orders).cast())
        })
    };
    if messenger < 0 {
        return Err(errno.into());
    }
    let _ = wait(Pid::from_raw(messenger));
    // SAFETY: a live local, which the messenger has written; the compiler cannot know.
    match unsafe { (&raw const orders.made).read_volatile() } {
        pid @ 1.. => Ok(Pid::from_raw(pid)),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// Makes the keeper. Between it and this process there has to be one that shares this memory: what a thread has registered
/// with the kernel (`rseq(2)`), and the kernel writes to, is handed on to a copy but not to such a one.
extern "C" fn carry_message(orders: *mut c_void) -> c_int {
    // SAFETY: live Orders, and a stack that is the keeper's alone, of which it gets copies. System calls only.
    unsafe {
        let stack = (*orders.cast::<Orders>()).stack;
        let made = match libc::clone(keep, stack, libc::CLONE_PARENT | libc::SIGCHLD, orders) {
            -1 => -Errno::last_raw(),
            pid => pid,
        };
        (&raw mut (*orders.cast::<Orders>()).made).write_volatile(made);
        libc::_exit(0)
    }
}

/// System calls only: it is a copy of one thread of several.
extern "C" fn keep(orders: *mut c_void) -> c_int {
    // SAFETY: a copy of live Orders, which is this process's own; they lie on another stack, so they are copied to this one.
    let orders = unsafe { orders.cast::<Orders>().read() };
    // SAFETY: integers and a C string; then nothing but what this stack holds is touched.
    unsafe {
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, c"exec-keeper".as_ptr());
        libc::chdir(c"/".as_ptr());
        // Should this process be part of a command of another server, the keeper is to outlive it for a moment.
        let limits = orders.kin.limits();
        let _ = raw::limits(0, libc::RLIMIT_LOCKS as usize, Some(&[limits[1]; 2]), None);
        close_others(orders.process, orders.table.descriptor());
        give_memory_back(orders.memory);
    }
    while !raw::is_readable(orders.process) {
        let mut ended = [libc::pollfd {
            fd: orders.process,
            events: libc::POLLIN,
            revents: 0,
        }];
        let _ = raw::poll(&mut ended, None);
    }
    let mut quiet = 0;
    for _ in 0..SEARCHES {
        let mut found = false;
        // What is stopped forks no more.
        for signal in [libc::SIGSTOP, libc::SIGSTOP, libc::SIGKILL] {
            orders.table.each(&mut |pid| {
                found |= orders.table.signal(pid, orders.kin, signal) == Ok(true);
            });
        }
        quiet = if found { 0 } else { quiet + 1 };
        if quiet == QUIET_SEARCHES {
            break;
        }
        raw::pause(PAUSE);
    }
    raw::exit(0)
}

/// Closes all descriptors but two: somebody may be waiting for their last copies to be closed.
unsafe fn close_others(a: RawFd, b: RawFd) {
    let (low, high) = (a.min(b), a.max(b));
    for (first, last) in [(0, low - 1), (low + 1, high - 1), (high + 1, RawFd::MAX)] {
        // SAFETY: integers, of descriptors that nobody uses in this process.
        unsafe {
            if first <= last && libc::syscall(libc::SYS_close_range, first, last, 0) < 0 {
                // Before Linux 5.9. More than 65 536 are had by nobody who does not ask for it.
                for fd in first..=last.min(0x1_0000) {
                    libc::close(fd);
                }
            }
        }
    }
}
