//! The calls that are refused to a program that has no namespaces of its own, besides those that are refused to all.
//!
//! Landlock keeps it from changing what is in files and directories, from other programs' memory and from signalling
//! them. It knows nothing of the attributes of files, which stay as they are even where the program may write, nor of
//! what here reaches other programs of the same user. What needs a capability is not in the table (mounts, quotas, swap,
//! accounting): there is none. Nor is what asks whether the other program may be traced (`kcmp`, `process_madvise`,
//! `move_pages`): Landlock says no.

use super::filter::When::{Always, IsNot};
use super::filter::{ANY, EPERM, Row, row};
use nix::libc::{self, c_long};

const ENOTTY: u16 = libc::ENOTTY as u16;

/// For the program itself, where a call takes the number of a process.
const ITSELF: &[u32] = &[0];

/// Which part of an ioctl request names the kind of file that it is for.
const IOCTL_KIND: u32 = 0xff00;

/// Terminals and what all files have (`T`), and sockets. Everything else is for devices, which Landlock knows of, or for
/// file systems: flags, versions, encryption, verity and whole subvolumes can be changed through a descriptor that was
/// opened to be read.
const IOCTL_KINDS: &[u32] = &[0x5400, 0x8900];

// From linux/resource.h and linux/ioprio.h
const PRIO_PROCESS: u32 = 0;
const IOPRIO_WHO_PROCESS: u32 = 1;

// Not in the C library's headers yet; the same on all architectures.
const SYS_FCHMODAT2: c_long = 452;
const SYS_SETXATTRAT: c_long = 463;
const SYS_REMOVEXATTRAT: c_long = 466;
const SYS_FILE_SETATTR: c_long = 469;
#[cfg(target_arch = "arm")]
const SYS_UTIMENSAT_TIME64: c_long = 412;
#[cfg(target_arch = "arm")]
const SYS_SEMTIMEDOP_TIME64: c_long = 420;

/// The table.
pub(super) const UNSHARED: &[Row] = &[
    // The attributes of files.
    #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
    row(libc::SYS_chmod, Always, EPERM),
    row(libc::SYS_fchmod, Always, EPERM),
    row(libc::SYS_fchmodat, Always, EPERM),
    row(SYS_FCHMODAT2, Always, EPERM),
    #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
    row(libc::SYS_chown, Always, EPERM),
    #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
    row(libc::SYS_lchown, Always, EPERM),
    row(libc::SYS_fchown, Always, EPERM),
    row(libc::SYS_fchownat, Always, EPERM),
    #[cfg(target_arch = "arm")]
    row(libc::SYS_chown32, Always, EPERM),
    #[cfg(target_arch = "arm")]
    row(libc::SYS_lchown32, Always, EPERM),
    #[cfg(target_arch = "arm")]
    row(libc::SYS_fchown32, Always, EPERM),
    #[cfg(target_arch = "x86_64")]
    row(libc::SYS_utime, Always, EPERM),
    #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
    row(libc::SYS_utimes, Always, EPERM),
    #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
    row(libc::SYS_futimesat, Always, EPERM),
    row(libc::SYS_utimensat, Always, EPERM),
    #[cfg(target_arch = "arm")]
    row(SYS_UTIMENSAT_TIME64, Always, EPERM),
    row(libc::SYS_setxattr, Always, EPERM),
    row(libc::SYS_lsetxattr, Always, EPERM),
    row(libc::SYS_fsetxattr, Always, EPERM),
    row(SYS_SETXATTRAT, Always, EPERM),
    row(libc::SYS_removexattr, Always, EPERM),
    row(libc::SYS_lremovexattr, Always, EPERM),
    row(libc::SYS_fremovexattr, Always, EPERM),
    row(SYS_REMOVEXATTRAT, Always, EPERM),
    row(SYS_FILE_SETATTR, Always, EPERM),
    row(libc::SYS_ioctl, IsNot(1, IOCTL_KIND, IOCTL_KINDS), ENOTTY),
    // The priorities and limits of others.
    row(libc::SYS_setpriority, IsNot(0, ANY, &[PRIO_PROCESS]), EPERM),
    row(libc::SYS_setpriority, IsNot(1, ANY, ITSELF), EPERM),
    row(libc::SYS_ioprio_set, IsNot(0, ANY, &[IOPRIO_WHO_PROCESS]), EPERM),
    row(libc::SYS_ioprio_set, IsNot(1, ANY, ITSELF), EPERM),
    row(libc::SYS_sched_setparam, IsNot(0, ANY, ITSELF), EPERM),
    row(libc::SYS_sched_setscheduler, IsNot(0, ANY, ITSELF), EPERM),
    row(libc::SYS_sched_setattr, IsNot(0, ANY, ITSELF), EPERM),
    row(libc::SYS_sched_setaffinity, IsNot(0, ANY, ITSELF), EPERM),
    row(libc::SYS_prlimit64, IsNot(0, ANY, ITSELF), EPERM),
    // Memory, semaphores and queues that the user's programs share by a name or number. A number can be guessed, so
    // getting one is not all.
    row(libc::SYS_shmget, Always, EPERM),
    row(libc::SYS_shmat, Always, EPERM),
    row(libc::SYS_shmctl, Always, EPERM),
    row(libc::SYS_semget, Always, EPERM),
    row(libc::SYS_semop, Always, EPERM),
    row(libc::SYS_semtimedop, Always, EPERM),
    #[cfg(target_arch = "arm")]
    row(SYS_SEMTIMEDOP_TIME64, Always, EPERM),
    row(libc::SYS_semctl, Always, EPERM),
    row(libc::SYS_msgget, Always, EPERM),
    row(libc::SYS_msgsnd, Always, EPERM),
    row(libc::SYS_msgrcv, Always, EPERM),
    row(libc::SYS_msgctl, Always, EPERM),
    row(libc::SYS_mq_open, Always, EPERM),
    row(libc::SYS_mq_unlink, Always, EPERM),
];
