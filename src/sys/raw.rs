//! System calls without the C library.
//!
//! For processes that have given back the memory that the library keeps its errors and buffers in. What is here touches no
//! memory but its arguments, and an error is the number that the kernel gave.

use nix::libc::{self, c_int, c_long};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// An open descriptor, closed when dropped.
#[derive(Debug)]
pub(super) struct Fd(pub(super) RawFd);

impl Fd {
    /// The number of what stays open.
    pub(super) fn into_raw(self) -> RawFd {
        std::mem::ManuallyDrop::new(self).0
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: an integer.
        let _ = unsafe { call(libc::SYS_close, [self.0 as usize, 0, 0, 0, 0, 0]) };
    }
}

/// Makes a system call; what it gave, or the number of the error.
///
/// # Safety
/// What the call itself asks for.
pub(super) unsafe fn call(number: c_long, arguments: [usize; 6]) -> Result<usize, c_int> {
    // SAFETY: as the caller promises.
    match unsafe { system_call(number, arguments.map(|argument| argument as c_long)) } {
        error @ -4095..=-1 => Err(-error as c_int),
        result => Ok(result as usize),
    }
}

fn address<T>(value: &T) -> usize {
    std::ptr::from_ref(value) as usize
}

fn address_mut<T>(value: &mut T) -> usize {
    std::ptr::from_mut(value) as usize
}

fn text(text: &CStr) -> usize {
    text.as_ptr() as usize
}

/// Opens a file.
pub(super) fn open(directory: RawFd, path: &CStr, flags: c_int, mode: u32) -> Result<Fd, c_int> {
    let arguments = [directory as usize, text(path), flags as usize, mode as usize, 0, 0];
    // SAFETY: a C string and integers.
    unsafe { call(libc::SYS_openat, arguments) }.map(|fd| Fd(fd as RawFd))
}

/// Names a file, without opening it.
pub(super) const NAME: c_int = libc::O_PATH | libc::O_CLOEXEC;

/// Names a directory, without following what only the kernel can follow: the links of procfs. Those are `ELOOP`.
pub(super) fn name_directory(from: RawFd, path: &CStr) -> Result<Fd, c_int> {
    /// `RESOLVE_NO_MAGICLINKS`
    const NO_MAGIC: u64 = 2;
    // `struct open_how`: flags, mode, resolve.
    let how = [(NAME | libc::O_DIRECTORY) as u64, 0, NO_MAGIC];
    let arguments = [from as usize, text(path), address(&how), size_of_val(&how), 0, 0];
    // SAFETY: a C string, integers, and a live local of that size.
    unsafe { call(libc::SYS_openat2, arguments) }.map(|fd| Fd(fd as RawFd))
}

/// Reads what there is, up to the length of `bytes`.
pub(super) fn read(fd: RawFd, bytes: &mut [u8]) -> Result<usize, c_int> {
    let arguments = [fd as usize, bytes.as_mut_ptr() as usize, bytes.len(), 0, 0, 0];
    // SAFETY: memory of that length.
    unsafe { call(libc::SYS_read, arguments) }
}

/// Writes, at most all of `bytes`.
pub(super) fn write(fd: RawFd, bytes: &[u8]) -> Result<usize, c_int> {
    let arguments = [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0];
    // SAFETY: memory of that length.
    unsafe { call(libc::SYS_write, arguments) }
}

/// The target of a link, cut to the length of `bytes`. An empty path is `directory` itself.
pub(super) fn read_link(directory: RawFd, path: &CStr, bytes: &mut [u8]) -> Result<usize, c_int> {
    let place = bytes.as_mut_ptr() as usize;
    let arguments = [directory as usize, text(path), place, bytes.len(), 0, 0];
    // SAFETY: a C string, and memory of that length.
    unsafe { call(libc::SYS_readlinkat, arguments) }
}

/// What a file is, without following a link. An empty path is `directory` itself.
pub(super) fn stat(directory: RawFd, path: &CStr) -> Result<libc::statx, c_int> {
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW | libc::AT_NO_AUTOMOUNT | libc::AT_STATX_DONT_SYNC;
    let what = libc::STATX_TYPE | libc::STATX_INO;
    let place = found.as_mut_ptr() as usize;
    let arguments = [directory as usize, text(path), flags as usize, what as usize, place, 0];
    // SAFETY: a C string, and room for a whole `statx`, of which zeroes are a valid one.
    unsafe { call(libc::SYS_statx, arguments).map(|_| found.assume_init()) }
}

/// Whether a file is one of procfs.
pub(super) fn is_of_procfs(fd: RawFd) -> Result<bool, c_int> {
    // More than any `struct statfs`, which begins with the type.
    let mut found = [0 as c_long; 32];
    // SAFETY: memory of that length.
    match unsafe { call(libc::SYS_fstatfs, [fd as usize, address_mut(&mut found), 0, 0, 0, 0]) } {
        Ok(_) => Ok(found[0] as u32 == libc::PROC_SUPER_MAGIC as u32),
        // One of so many blocks that they can't be told in 32 bits.
        Err(libc::EOVERFLOW) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Sets the mask of the modes of new files.
pub(super) fn set_umask(mask: u32) {
    // SAFETY: an integer. It cannot fail.
    let _ = unsafe { call(libc::SYS_umask, [mask as usize, 0, 0, 0, 0, 0]) };
}

/// Makes a directory.
pub(super) fn make_directory(directory: RawFd, name: &CStr, mode: u32) -> Result<usize, c_int> {
    // SAFETY: a C string and integers.
    unsafe {
        call(
            libc::SYS_mkdirat,
            [directory as usize, text(name), mode as usize, 0, 0, 0],
        )
    }
}

/// Makes a file of any kind but a directory or link.
pub(super) fn make_node(directory: RawFd, name: &CStr, mode: u32, device: usize) -> Result<usize, c_int> {
    let arguments = [directory as usize, text(name), mode as usize, device, 0, 0];
    // SAFETY: a C string and integers.
    unsafe { call(libc::SYS_mknodat, arguments) }
}

/// Makes a symbolic link.
pub(super) fn make_symlink(target: &CStr, directory: RawFd, name: &CStr) -> Result<usize, c_int> {
    let arguments = [text(target), directory as usize, text(name), 0, 0, 0];
    // SAFETY: C strings and integers.
    unsafe { call(libc::SYS_symlinkat, arguments) }
}

/// A directory and a name in it.
pub(super) type At<'a> = (RawFd, &'a CStr);

/// Makes a hard link.
pub(super) fn make_link(from: At<'_>, to: At<'_>, flags: c_int) -> Result<usize, c_int> {
    let arguments = [
        from.0 as usize,
        text(from.1),
        to.0 as usize,
        text(to.1),
        flags as usize,
        0,
    ];
    // SAFETY: C strings and integers.
    unsafe { call(libc::SYS_linkat, arguments) }
}

/// Renames a file.
pub(super) fn rename(from: At<'_>, to: At<'_>, flags: u32) -> Result<usize, c_int> {
    let arguments = [
        from.0 as usize,
        text(from.1),
        to.0 as usize,
        text(to.1),
        flags as usize,
        0,
    ];
    // SAFETY: C strings and integers.
    unsafe { call(libc::SYS_renameat2, arguments) }
}

/// Makes a directory the working directory.
pub(super) fn enter(directory: RawFd) -> Result<usize, c_int> {
    // SAFETY: an integer.
    unsafe { call(libc::SYS_fchdir, [directory as usize, 0, 0, 0, 0, 0]) }
}

/// Binds a socket to an address.
pub(super) fn bind(socket: RawFd, address: &[u8]) -> Result<usize, c_int> {
    let arguments = [socket as usize, address.as_ptr() as usize, address.len(), 0, 0, 0];
    // SAFETY: memory of that length.
    unsafe { call(libc::SYS_bind, arguments) }
}

/// A descriptor of another process; `process` is the number of the process, not of a thread of it.
pub(super) fn take_descriptor(process: c_int, fd: c_int) -> Result<Fd, c_int> {
    // SAFETY: integers.
    unsafe {
        let process = open_process(process)?;
        let taken = call(libc::SYS_pidfd_getfd, [process.0 as usize, fd as usize, 0, 0, 0, 0])?;
        Ok(Fd(taken as RawFd))
    }
}

/// Reads memory of another process, at most the length of `bytes`.
pub(super) fn read_memory(process: c_int, from: u64, bytes: &mut [u8]) -> Result<usize, c_int> {
    // `struct iovec`
    let ours = [bytes.as_mut_ptr() as usize, bytes.len()];
    let theirs = [from as usize, bytes.len()];
    let arguments = [process as usize, address(&ours), 1, address(&theirs), 1, 0];
    // SAFETY: memory of that length.
    unsafe { call(libc::SYS_process_vm_readv, arguments) }
}

/// Asks a device or the like something.
///
/// # Safety
/// `request` is one about a `T`.
pub(super) unsafe fn ioctl<T>(fd: RawFd, request: u32, about: &mut T) -> Result<usize, c_int> {
    let arguments = [fd as usize, request as usize, address_mut(about), 0, 0, 0];
    // SAFETY: as the caller promises.
    unsafe { call(libc::SYS_ioctl, arguments) }
}

/// Waits until one of `polled` has something, at most for so many seconds.
pub(super) fn poll(polled: &mut [libc::pollfd], seconds: Option<c_long>) -> Result<usize, c_int> {
    // `struct timespec`
    let limit = [seconds.unwrap_or(0), 0];
    let limit = seconds.map_or(0, |_| address(&limit));
    let arguments = [polled.as_mut_ptr() as usize, polled.len(), limit, 0, 0, 0];
    // SAFETY: memory of that length.
    unsafe { call(libc::SYS_ppoll, arguments) }
}

/// Whether a descriptor has something to read, or names a process that has ended.
pub(super) fn is_readable(fd: RawFd) -> bool {
    let mut polled = [libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    }];
    poll(&mut polled, Some(0)) == Ok(1)
}

/// Waits for so many milliseconds, less than a second.
pub(super) fn pause(milliseconds: i64) {
    // `struct timespec`
    let time = [0, milliseconds as c_long * 1_000_000];
    // SAFETY: a live local of that size, and no descriptors.
    let _ = unsafe { call(libc::SYS_ppoll, [0, 0, address(&time), 0, 0, 0]) };
}

/// Goes back to the first entry of a directory.
pub(super) fn rewind(directory: RawFd) -> Result<usize, c_int> {
    // SAFETY: integers.
    unsafe {
        call(
            libc::SYS_lseek,
            [directory as usize, 0, libc::SEEK_SET as usize, 0, 0, 0],
        )
    }
}

/// The next entries of a directory, as many as there is room for.
pub(super) fn list(directory: RawFd, entries: &mut [u8]) -> Result<usize, c_int> {
    let arguments = [
        directory as usize,
        entries.as_mut_ptr() as usize,
        entries.len(),
        0,
        0,
        0,
    ];
    // SAFETY: memory of that length.
    unsafe { call(libc::SYS_getdents64, arguments) }
}

/// Sets and gets a limit of a process, 0 for this one.
pub(super) fn limits(
    process: c_int,
    resource: usize,
    new: Option<&[u64; 2]>,
    old: Option<&mut [u64; 2]>,
) -> Result<usize, c_int> {
    let (new, old) = (new.map_or(0, address), old.map_or(0, address_mut));
    // SAFETY: integers, and `struct rlimit64`, or nothing.
    unsafe { call(libc::SYS_prlimit64, [process as usize, resource, new, old, 0, 0]) }
}

/// A descriptor that names a process.
pub(super) fn open_process(process: c_int) -> Result<Fd, c_int> {
    // SAFETY: integers.
    unsafe { call(libc::SYS_pidfd_open, [process as usize, 0, 0, 0, 0, 0]) }.map(|fd| Fd(fd as RawFd))
}

/// Sends a signal to the process that a descriptor names.
pub(super) fn send_signal(process: RawFd, signal: c_int) -> Result<usize, c_int> {
    let arguments = [process as usize, signal as usize, 0, 0, 0, 0];
    // SAFETY: integers; it is allowed to say nothing more about the signal.
    unsafe { call(libc::SYS_pidfd_send_signal, arguments) }
}

/// The seconds of a clock that only goes forward.
pub(super) fn seconds() -> c_long {
    // `struct timespec`
    let mut time = [0 as c_long; 2];
    // SAFETY: a live local of that size. It cannot fail.
    let _ = unsafe {
        call(
            libc::SYS_clock_gettime,
            [libc::CLOCK_MONOTONIC as usize, address_mut(&mut time), 0, 0, 0, 0],
        )
    };
    time[0]
}

/// Reaps a child that has ended, and waits for one unless `flags` have `WNOHANG`: its number, or 0 if there is none, and
/// its wait status.
pub(super) fn reap(flags: c_int) -> Result<(c_int, c_int), c_int> {
    let mut status: c_int = 0;
    let arguments = [usize::MAX, address_mut(&mut status), flags as usize, 0, 0, 0];
    // SAFETY: a live local.
    let child = unsafe { call(libc::SYS_wait4, arguments)? };
    Ok((child as c_int, status))
}

/// Kills a process.
pub(super) fn kill(process: c_int) {
    // SAFETY: integers. It may have ended.
    let _ = unsafe { call(libc::SYS_kill, [process as usize, libc::SIGKILL as usize, 0, 0, 0, 0]) };
}

/// Copies this process; 0 in the copy.
pub(super) fn fork() -> Result<c_int, c_int> {
    // SAFETY: integers; without a stack given the copy goes on with a copy of this one.
    unsafe { call(libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0, 0, 0]) }.map(|child| child as c_int)
}

/// Ends this process.
pub(super) fn exit(code: c_int) -> ! {
    loop {
        // SAFETY: an integer.
        let _ = unsafe { call(libc::SYS_exit_group, [code as usize, 0, 0, 0, 0, 0]) };
    }
}

/// Which rights there are, as bits of the capabilities below 32, and which of those count now.
pub(super) fn set_rights(kept: u32, counting: u32) -> Result<usize, c_int> {
    let header = [0x2008_0522u32, 0];
    let sets = [counting, kept, 0, 0, 0, 0];
    // SAFETY: live locals of the sizes that this version has.
    unsafe { call(libc::SYS_capset, [address(&header), address(&sets), 0, 0, 0, 0]) }
}

/// Reading the memory and descriptors of others, whatever they are: `CAP_SYS_PTRACE`.
pub(super) const LOOK_RIGHT: u32 = 1 << 19;
/// Mounting: `CAP_SYS_ADMIN`.
pub(super) const MOUNT_RIGHT: u32 = 1 << 21;

/// Does something with one of the rights that were kept; otherwise none of them counts.
pub(super) fn with_right<T>(right: u32, act: impl FnOnce() -> Result<T, c_int>) -> Result<T, c_int> {
    set_rights(LOOK_RIGHT | MOUNT_RIGHT, right)?;
    let done = act();
    set_rights(LOOK_RIGHT | MOUNT_RIGHT, 0)?;
    done
}

/// A system call; an error is its negative number.
#[cfg(target_arch = "x86_64")]
unsafe fn system_call(number: c_long, [a, b, c, d, e, f]: [c_long; 6]) -> c_long {
    let mut result = number;
    // SAFETY: as the caller promises; the kernel changes no registers but these.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            in("r8") e, in("r9") f, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// A system call; an error is its negative number.
#[cfg(target_arch = "aarch64")]
unsafe fn system_call(number: c_long, [a, b, c, d, e, f]: [c_long; 6]) -> c_long {
    let mut result = a;
    // SAFETY: as the caller promises; the kernel changes no registers but these.
    unsafe {
        std::arch::asm!("svc 0", in("x8") number, inlateout("x0") result, in("x1") b, in("x2") c, in("x3") d,
            in("x4") e, in("x5") f, options(nostack));
    }
    result
}

/// A system call; an error is its negative number.
#[cfg(target_arch = "arm")]
unsafe fn system_call(number: c_long, [a, b, c, d, e, f]: [c_long; 6]) -> c_long {
    let mut result = a;
    // SAFETY: as the caller promises; the kernel changes no registers but these. r7 can't be named, because it may be
    // the frame pointer, and so is put aside.
    unsafe {
        std::arch::asm!("mov {saved}, r7", "mov r7, {number}", "svc 0", "mov r7, {saved}",
            saved = out(reg) _, number = in(reg) number,
            inlateout("r0") result, in("r1") b, in("r2") c, in("r3") d, in("r4") e, in("r5") f, options(nostack));
    }
    result
}

/// A system call; an error is its negative number.
#[cfg(target_arch = "riscv64")]
unsafe fn system_call(number: c_long, [a, b, c, d, e, f]: [c_long; 6]) -> c_long {
    let mut result = a;
    // SAFETY: as the caller promises; the kernel changes no registers but these.
    unsafe {
        std::arch::asm!("ecall", in("a7") number, inlateout("a0") result, in("a1") b, in("a2") c, in("a3") d,
            in("a4") e, in("a5") f, options(nostack));
    }
    result
}
