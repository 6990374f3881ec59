//! Calls of the C library that fail on demand.
//!
//! The functions here have the names of the C library's and so take their places in this program, for the standard
//! library and all packages too. Each calls the one whose place it takes, unless it is its turn to fail. What the C library
//! calls by itself, such as for its memory, is not among it. Nor are calls that cannot fail as the server makes them:
//! `kill(2)` for its own commands, `fdopendir(3)` but for want of memory (nix 0.31 does not close the descriptor then).
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc::{self, c_char, c_int, c_long, c_uint, c_void, mode_t, off_t, size_t, ssize_t};
use std::cell::Cell;
use std::ffi::CStr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicUsize, Ordering};

/// What is to happen to which call.
static CALL: AtomicPtr<u8> = AtomicPtr::new(std::ptr::null_mut());
static ERRNO: AtomicI64 = AtomicI64::new(0);
/// How many are still to go before the one that fails.
static LEFT: AtomicI64 = AtomicI64::new(0);
/// The number of this program's main thread, and of the program.
static PROCESS: AtomicI64 = AtomicI64::new(0);
static HAS_FAILED: AtomicBool = AtomicBool::new(false);
/// Bytes that reads and writes take at most.
static AT_MOST: AtomicUsize = AtomicUsize::new(usize::MAX);

thread_local! {
    /// Whether the calls of this thread always succeed.
    static IS_EXEMPT: Cell<bool> = const { Cell::new(false) };
}

/// From now on no call of this thread fails.
pub(crate) fn exempt_this_thread() {
    IS_EXEMPT.with(|exempt| exempt.set(true));
}

/// Has the `n`-th call of a function from now on fail, the first is 1.
pub(crate) fn fail(call: &'static CStr, n: i64, errno: Errno) {
    PROCESS.store(std::process::id().into(), Ordering::SeqCst);
    HAS_FAILED.store(false, Ordering::SeqCst);
    ERRNO.store(errno as i64, Ordering::SeqCst);
    LEFT.store(n, Ordering::SeqCst);
    CALL.store(call.as_ptr().cast_mut().cast(), Ordering::SeqCst);
}

/// Has nothing fail any more. Whether something has.
pub(crate) fn stop() -> bool {
    CALL.store(std::ptr::null_mut(), Ordering::SeqCst);
    HAS_FAILED.load(Ordering::SeqCst)
}

/// Has reads and writes take no more than so many bytes at a time.
pub(crate) fn shorten(at_most: usize) {
    AT_MOST.store(at_most, Ordering::SeqCst);
}

fn is_exempt() -> bool {
    // The main thread belongs to the test harness. A thread that is about to end may have no such variable any more.
    // Not asked for now: a new process that shares our memory is not exempt.
    let main = PROCESS.load(Ordering::Relaxed);
    // SAFETY: it takes nothing.
    let is_main = || unsafe { libc::syscall(libc::SYS_gettid) == main };
    IS_EXEMPT.try_with(Cell::get).unwrap_or(true) || is_main()
}

/// Whether it is this call's turn; the error number is set then.
fn is_due(name: &CStr) -> bool {
    let call = CALL.load(Ordering::Relaxed);
    if call.is_null() {
        return false;
    }
    // SAFETY: it was made from a `&'static CStr`.
    if unsafe { CStr::from_ptr(call.cast::<c_char>()) } != name
        || is_exempt()
        || LEFT.fetch_sub(1, Ordering::SeqCst) != 1
    {
        return false;
    }
    HAS_FAILED.store(true, Ordering::SeqCst);
    Errno::from_raw(ERRNO.load(Ordering::SeqCst) as i32).set();
    true
}

/// How much of `len` bytes is read or written. Only of files, pipes, sockets and devices: what is read of an event has its
/// size.
fn shortened(fd: c_int, len: size_t) -> size_t {
    let at_most = AT_MOST.load(Ordering::Relaxed);
    if at_most >= len || is_exempt() {
        return len;
    }
    // SAFETY: a `struct stat` of zeroes is valid, and the kernel fills it.
    let kind = unsafe {
        let mut found: libc::stat = std::mem::zeroed();
        libc::syscall(libc::SYS_fstat, fd, &mut found);
        found.st_mode & libc::S_IFMT
    };
    if kind == 0 { len } else { at_most }
}

/// Defines functions that take the places of the C library's. All arguments are passed in registers or, from the seventh, on
/// the stack, which is the same for functions that take any number of them.
macro_rules! calls {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $result:ty = $failed:expr;)*) => {
        /// All that can be made to fail.
        pub(crate) const CALLS: &[&CStr] = &[$(calls!(@text $name)),*];
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($argument: $kind),*) -> $result {
                static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
                if is_due(calls!(@text $name)) {
                    return $failed;
                }
                // SAFETY: it has the type of the function of that name, and gets what this one was given.
                unsafe {
                    let real: unsafe extern "C" fn($($kind),*) -> $result = std::mem::transmute(next(&REAL, calls!(@text $name)));
                    calls!(@call $name real $($argument),*)
                }
            }
        )*
    };
    (@text $name:ident) => {
        // The names are plain.
        match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
            Ok(text) => text,
            Err(_) => panic!(),
        }
    };
    (@call read $real:ident $fd:ident, $bytes:ident, $len:ident) => { $real($fd, $bytes, shortened($fd, $len)) };
    (@call write $real:ident $fd:ident, $bytes:ident, $len:ident) => { $real($fd, $bytes, shortened($fd, $len)) };
    (@call recv $real:ident $fd:ident, $bytes:ident, $len:ident, $flags:ident) => { $real($fd, $bytes, shortened($fd, $len), $flags) };
    (@call send $real:ident $fd:ident, $bytes:ident, $len:ident, $flags:ident) => { $real($fd, $bytes, shortened($fd, $len), $flags) };
    (@call pread64 $real:ident $fd:ident, $bytes:ident, $len:ident, $at:ident) => { $real($fd, $bytes, shortened($fd, $len), $at) };
    (@call pwrite64 $real:ident $fd:ident, $bytes:ident, $len:ident, $at:ident) => { $real($fd, $bytes, shortened($fd, $len), $at) };
    (@call copy_file_range $real:ident $from:ident, $a:ident, $to:ident, $b:ident, $len:ident, $flags:ident) => {
        $real($from, $a, $to, $b, shortened($from, $len), $flags)
    };
    (@call $name:ident $real:ident $($argument:ident),*) => { $real($($argument),*) };
}

/// The function of that name whose place one of ours has taken.
fn next(known: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    let mut real = known.load(Ordering::Relaxed);
    if real.is_null() {
        // SAFETY: a name that ends with NUL.
        real = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
        assert!(!real.is_null(), "the C library has no {name:?}");
        known.store(real, Ordering::Relaxed);
    }
    real
}

/// What `mmap` returns.
const FAILED: *mut c_void = libc::MAP_FAILED;
const NONE: *mut c_void = std::ptr::null_mut();
type Pointer = *mut c_void;
type Text = *const c_char;

calls! {
    accept4(fd: c_int, address: Pointer, len: Pointer, flags: c_int) -> c_int = -1;
    access(path: Text, mode: c_int) -> c_int = -1;
    chdir(path: Text) -> c_int = -1;
    clone(run: Pointer, stack: Pointer, flags: c_int, argument: Pointer, a: Pointer, b: Pointer, c: Pointer) -> c_int = -1;
    copy_file_range(from: c_int, a: Pointer, to: c_int, b: Pointer, len: size_t, flags: c_uint) -> ssize_t = -1;
    dup(fd: c_int) -> c_int = -1;
    dup2(fd: c_int, to: c_int) -> c_int = -1;
    epoll_create1(flags: c_int) -> c_int = -1;
    epoll_ctl(fd: c_int, what: c_int, about: c_int, event: Pointer) -> c_int = -1;
    epoll_wait(fd: c_int, events: Pointer, n: c_int, timeout: c_int) -> c_int = -1;
    eventfd(value: c_uint, flags: c_int) -> c_int = -1;
    execve(path: Text, argv: Pointer, envp: Pointer) -> c_int = -1;
    fchmod(fd: c_int, mode: mode_t) -> c_int = -1;
    fcntl(fd: c_int, what: c_int, argument: usize) -> c_int = -1;
    fstat(fd: c_int, found: Pointer) -> c_int = -1;
    fstat64(fd: c_int, found: Pointer) -> c_int = -1;
    fstatat(fd: c_int, path: Text, found: Pointer, flags: c_int) -> c_int = -1;
    ftruncate64(fd: c_int, len: off_t) -> c_int = -1;
    getrandom(bytes: Pointer, len: size_t, flags: c_uint) -> ssize_t = -1;
    inotify_add_watch(fd: c_int, path: Text, events: u32) -> c_int = -1;
    inotify_init1(flags: c_int) -> c_int = -1;
    ioctl(fd: c_int, request: usize, argument: usize) -> c_int = -1;
    lseek64(fd: c_int, to: off_t, from: c_int) -> off_t = -1;
    madvise(start: Pointer, len: size_t, what: c_int) -> c_int = -1;
    mkdirat(fd: c_int, path: Text, mode: mode_t) -> c_int = -1;
    mmap(at: Pointer, len: size_t, protection: c_int, flags: c_int, fd: c_int, offset: off_t) -> Pointer = FAILED;
    mprotect(start: Pointer, len: size_t, protection: c_int) -> c_int = -1;
    open64(path: Text, flags: c_int, mode: mode_t) -> c_int = -1;
    openat(fd: c_int, path: Text, flags: c_int, mode: mode_t) -> c_int = -1;
    opendir(path: Text) -> Pointer = NONE;
    pipe2(fds: Pointer, flags: c_int) -> c_int = -1;
    poll(fds: Pointer, n: usize, timeout: c_int) -> c_int = -1;
    posix_openpt(flags: c_int) -> c_int = -1;
    prctl(what: c_int, a: usize, b: usize, c: usize, d: usize) -> c_int = -1;
    pread64(fd: c_int, bytes: Pointer, len: size_t, at: off_t) -> ssize_t = -1;
    pthread_create(thread: Pointer, attributes: Pointer, run: Pointer, argument: Pointer) -> c_int = Errno::last_raw();
    pwrite64(fd: c_int, bytes: Pointer, len: size_t, at: off_t) -> ssize_t = -1;
    read(fd: c_int, bytes: Pointer, len: size_t) -> ssize_t = -1;
    readdir(directory: Pointer) -> Pointer = NONE;
    readdir64(directory: Pointer) -> Pointer = NONE;
    readlink(path: Text, bytes: Pointer, len: size_t) -> ssize_t = -1;
    readlinkat(fd: c_int, path: Text, bytes: Pointer, len: size_t) -> ssize_t = -1;
    realpath(path: Text, resolved: Pointer) -> Pointer = NONE;
    recv(fd: c_int, bytes: Pointer, len: size_t, flags: c_int) -> ssize_t = -1;
    recvmsg(fd: c_int, message: Pointer, flags: c_int) -> ssize_t = -1;
    renameat(from: c_int, old: Text, to: c_int, new: Text) -> c_int = -1;
    send(fd: c_int, bytes: Pointer, len: size_t, flags: c_int) -> ssize_t = -1;
    setns(fd: c_int, kind: c_int) -> c_int = -1;
    setsid() -> c_int = -1;
    setsockopt(fd: c_int, level: c_int, name: c_int, value: Pointer, len: c_uint) -> c_int = -1;
    shutdown(fd: c_int, how: c_int) -> c_int = -1;
    socketpair(domain: c_int, kind: c_int, protocol: c_int, fds: Pointer) -> c_int = -1;
    statx(fd: c_int, path: Text, flags: c_int, mask: c_uint, found: Pointer) -> c_int = -1;
    symlinkat(target: Text, fd: c_int, path: Text) -> c_int = -1;
    unlinkat(fd: c_int, path: Text, flags: c_int) -> c_int = -1;
    waitpid(pid: c_int, status: Pointer, flags: c_int) -> c_int = -1;
    write(fd: c_int, bytes: Pointer, len: size_t) -> ssize_t = -1;
}

/// What goes by number. Only those that have names below can fail.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long {
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
    let named = NUMBERED.iter().find(|(known, _)| *known == number);
    if named.is_some_and(|(_, name)| is_due(name)) {
        return -1;
    }
    type Syscall = unsafe extern "C" fn(c_long, usize, usize, usize, usize, usize, usize) -> c_long;
    // SAFETY: as for all others.
    unsafe {
        let real: Syscall = std::mem::transmute(next(&REAL, c"syscall"));
        real(number, a, b, c, d, e, f)
    }
}

/// The calls that go by number and can be made to fail.
pub(crate) const NUMBERED: &[(c_long, &CStr)] = &[
    (libc::SYS_close_range, c"close_range"),
    (libc::SYS_openat2, c"openat2"),
    (libc::SYS_pidfd_open, c"pidfd_open"),
];
