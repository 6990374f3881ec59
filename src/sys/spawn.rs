//! Starting a program as leader of a session or a process group.

use super::confine::StatusSocket;
use super::mark::Kin;
use super::pages::Pages;
use super::pidfd;
use nix::errno::Errno;
use nix::libc::{self, c_int, c_void, sock_filter, sock_fprog};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A program to be started.
pub struct Program<'a> {
    /// The files to try in turn, as `execvp(3)` does with the directories of `PATH`. A relative one counts from `cwd`.
    pub candidates: &'a [CString],
    /// The arguments, the program's own name first.
    pub argv: &'a [CString],
    /// The whole environment, as `NAME=value`.
    pub envp: &'a [CString],
    /// The working directory.
    pub cwd: &'a CStr,
    /// What become descriptors 0, 1 and 2. Each must be 3 or above.
    pub stdio: [BorrowedFd<'a>; 3],
    /// What it is the leader of.
    pub leads: Leads,
    /// The mark that it and all that it starts are to bear. It is not refused if it can't.
    pub mark: Option<Kin>,
}

/// What a program is the leader of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leads {
    /// A process group of the caller's session. It outlives the thread that starts it.
    Group,
    /// A new session, without a terminal.
    Session,
    /// A new session with descriptor 0 as its controlling terminal.
    Terminal,
}

/// A started program, to be reaped by its owner.
#[derive(Debug)]
pub struct Child {
    /// Its process id, which is also that of its process group, and of its session if it leads one.
    pub pid: Pid,
    /// A descriptor that becomes readable when it has ended.
    pub pidfd: OwnedFd,
    /// Of a confined one: the first process of its namespace, which ends after it and is what there is to reap.
    pub(super) init: Option<(Pid, StatusSocket)>,
    /// Whether it has given up rights by Landlock.
    pub(super) has_landlock: bool,
}

impl Child {
    /// Waits for its end and reaps it.
    ///
    /// # Errors
    /// What `waitpid(2)` said: somebody else has reaped it.
    pub fn wait(&self) -> Result<WaitStatus, Errno> {
        match &self.init {
            None => wait(self.pid),
            Some((init, status)) => {
                let ended = wait(*init)?;
                // Without a word of the program it was killed together with it.
                Ok(status.exit(self.pid).unwrap_or(ended))
            }
        }
    }

    /// Whether there is something that it may not do, by namespaces of its own or by Landlock; see
    /// [`confine`](super::confine) and [`landlock`](super::landlock).
    pub fn is_confined(&self) -> bool {
        self.init.is_some() || self.has_landlock
    }

    /// Whether it was started in namespaces of its own.
    pub fn has_namespaces(&self) -> bool {
        self.init.is_some()
    }

    /// Kills one that has namespaces with all that it has started, which the kernel knows.
    pub fn kill_namespace(&self) {
        // It can only fail when it has been reaped.
        let _ = pidfd::send_signal(self.pidfd.as_fd(), libc::SIGKILL);
    }
}

/// Waits for the end of a child and reaps it.
pub(super) fn wait(pid: Pid) -> Result<WaitStatus, Errno> {
    loop {
        match waitpid(pid, None) {
            Ok(ended @ (WaitStatus::Exited(..) | WaitStatus::Signaled(..))) => return Ok(ended),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// What was being done when starting failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Making the new process.
    Clone,
    /// Making it the leader of a session or a group.
    Session,
    /// Giving it its controlling terminal.
    Terminal,
    /// Giving it its standard input, output and error.
    Descriptors,
    /// Entering its working directory.
    Directory,
    /// Giving up what a confined program may not do.
    Rights,
    /// Having the calls checked that make files.
    Listener,
    /// Executing the program.
    Execute,
}

impl Step {
    const ALL: [Step; 8] = [
        Step::Clone,
        Step::Session,
        Step::Terminal,
        Step::Descriptors,
        Step::Directory,
        Step::Rights,
        Step::Listener,
        Step::Execute,
    ];

    pub(super) fn from_number(number: i32) -> Option<Step> {
        Step::ALL.into_iter().find(|step| *step as i32 == number)
    }
}

/// Why a program could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpawnError {
    /// What was being done.
    pub step: Step,
    /// What the system said.
    pub errno: Errno,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.step {
            Step::Clone => "create a process",
            Step::Session => "start a session",
            Step::Terminal => "set the controlling terminal",
            Step::Descriptors => "set up the standard streams",
            Step::Directory => "enter the working directory",
            Step::Rights => "give up rights",
            Step::Listener => "have the calls checked that make files (seccomp user notification)",
            Step::Execute => "execute the program",
        };
        write!(f, "failed to {what}: {}", std::io::Error::from(self.errno))
    }
}

impl std::error::Error for SpawnError {}

/// Room for the child's few calls between its birth and `execve`: the C library's largest frame there takes some hundred
/// bytes, a debug build's own some thousand. It is a mapping of its own and not part of the caller's stack, whose pages
/// would stay in memory as long as the caller waits for the program.
pub(super) const CHILD_STACK: NonZeroUsize = NonZeroUsize::new(32 * 1024).expect("a constant above zero");

/// A stack for a child. Its lowest page can't be touched, so that one that is too small ends the child and changes nothing.
pub(super) fn child_stack(len: NonZeroUsize) -> Result<Pages, SpawnError> {
    /// The largest pages that there are; a guard may be more than one.
    const GUARD: usize = 64 * 1024;
    let failed = |errno| SpawnError {
        step: Step::Clone,
        errno,
    };
    let mut stack = Pages::map(len.saturating_add(GUARD))
        .map_err(|e| failed(Errno::from_raw(e.raw_os_error().unwrap_or(libc::ENOMEM))))?;
    // SAFETY: a part of a mapping that is ours, of which nobody reads or writes that part.
    match unsafe { libc::mprotect(stack.as_mut_ptr().cast(), GUARD, libc::PROT_NONE) } {
        0 => Ok(stack),
        _ => Err(failed(Errno::last())),
    }
}

/// What the new process needs; it shares our memory until it executes the program.
pub(super) struct Plan {
    candidates: Vec<*const c_char>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    cwd: *const c_char,
    pub(super) stdio: [RawFd; 3],
    leads: Leads,
    /// The limits that are its mark.
    mark: Option<[u64; 2]>,
    /// The calls that a confined program may not make.
    filter: Option<sock_fprog>,
    /// Whether somebody is asked about some of those calls.
    is_asked: bool,
    /// The descriptor on which they are.
    pub(super) listener: RawFd,
    /// The Landlock ruleset that is to hold for it.
    ruleset: Option<RawFd>,
    pub(super) failed: Option<(Step, c_int)>,
}

impl Plan {
    /// Holds as long as what it is made from.
    pub(super) fn new(program: &Program<'_>, filter: Option<&[sock_filter]>) -> Plan {
        Plan {
            candidates: pointers(program.candidates),
            argv: pointers(program.argv),
            envp: pointers(program.envp),
            cwd: program.cwd.as_ptr(),
            stdio: program.stdio.map(|fd| fd.as_raw_fd()),
            leads: program.leads,
            mark: program.mark.map(Kin::limits),
            filter: filter.map(|filter| sock_fprog {
                len: filter.len() as u16,
                filter: filter.as_ptr().cast_mut(),
            }),
            is_asked: false,
            listener: -1,
            ruleset: None,
            failed: None,
        }
    }

    /// The same, with a filter that has the new process's parent asked about some calls. The parent has to share its
    /// descriptors with the new process, and finds the [`listener`](Plan::listener) among them.
    pub(super) fn with_listener(program: &Program<'_>, filter: &[sock_filter]) -> Plan {
        Plan {
            is_asked: true,
            ..Plan::new(program, Some(filter))
        }
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Calls `clone`, which makes a new process that shares our memory, with all signals blocked: a handler must not run in
/// the child, whose memory is ours. They wait until it has executed. Returns what `clone` did, and the error number.
///
/// # Safety
/// `clone` is to make no other calls.
pub(super) unsafe fn with_signals_blocked(clone: impl FnOnce() -> c_int) -> (c_int, Errno) {
    // SAFETY: `all` and `old` are valid for the calls.
    unsafe {
        let (mut all, mut old) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        let pid = clone();
        let errno = Errno::last();
        libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut());
        (pid, errno)
    }
}

/// Starts `program` as leader of a new process group, with default signal dispositions, an empty signal mask, and no
/// descriptor but 0 to 2. As leader of a session it is killed when the calling thread ends, so that thread must live as
/// long as the program is meant to.
///
/// The cost does not grow with the caller's memory: the new process borrows it until it has executed the program
/// (`CLONE_VM | CLONE_VFORK`, which is how `posix_spawn(3)` works too). It is not `posix_spawn` itself because that
/// can neither name the step that failed, nor set the death signal, nor give a pidfd without a race.
///
/// # Errors
/// Which step failed and what the system said. Nothing is left behind then.
pub fn spawn(program: &Program<'_>) -> Result<Child, SpawnError> {
    start(Plan::new(program, None))
}

/// The same with a Landlock ruleset and a filter of system calls.
pub(super) fn spawn_restricted(
    program: &Program<'_>,
    ruleset: BorrowedFd<'_>,
    filter: &[sock_filter],
) -> Result<Child, SpawnError> {
    let mut plan = Plan::new(program, Some(filter));
    plan.ruleset = Some(ruleset.as_raw_fd());
    start(plan)
}

fn start(mut plan: Plan) -> Result<Child, SpawnError> {
    let mut stack = child_stack(CHILD_STACK)?;
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: The clone's stack is exclusively the child's and outlives it, because CLONE_VFORK suspends this thread
    // until the child has executed or ended; the same makes `plan`, which only the child touches meanwhile, outlive it.
    // `child` makes only async-signal-safe calls.
    let (pid, errno) = unsafe {
        with_signals_blocked(|| {
            let top = stack.as_mut_ptr().add(stack.len()).cast::<c_void>();
            let mut make = |flags| libc::clone(child, top, flags, (&raw mut plan).cast(), &raw mut pidfd);
            match make(flags | libc::CLONE_PIDFD) {
                // What only plays Linux, such as qemu-user, may not know of that flag.
                -1 if Errno::last() == Errno::EINVAL => make(flags),
                pid => pid,
            }
        })
    };
    if pid < 0 {
        return Err(SpawnError {
            step: Step::Clone,
            errno,
        });
    }
    let pid = Pid::from_raw(pid);
    let pidfd = match pidfd {
        // It has not been reaped, so its number is its own.
        -1 => pidfd::open(pid),
        // SAFETY: the kernel has just made this descriptor (close-on-exec), and nothing else owns it.
        pidfd => Ok(unsafe { OwnedFd::from_raw_fd(pidfd) }),
    };
    // The child wrote this while it borrowed our memory; the compiler cannot know.
    // SAFETY: a live local.
    let failed = unsafe { (&raw const plan.failed).read_volatile() };
    let failed = match (failed, pidfd) {
        (None, Ok(pidfd)) => {
            return Ok(Child {
                pid,
                pidfd,
                init: None,
                has_landlock: plan.ruleset.is_some(),
            });
        }
        (Some((step, errno)), _) => SpawnError {
            step,
            errno: Errno::from_raw(errno),
        },
        // A kernel before 5.3, or there are too many descriptors.
        (None, Err(e)) => {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            SpawnError {
                step: Step::Clone,
                errno: Errno::from_raw(e.raw_os_error().unwrap_or(libc::ENOSYS)),
            }
        }
    };
    let _ = wait(pid);
    Err(failed)
}

/// Becomes the program of the [`Plan`] that it is given, or says in there why not.
pub(super) extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: the caller passes a live Plan that nobody else touches until this process has executed or ended, and whose
    // pointers lead to null-terminated arrays of C strings.
    unsafe {
        let plan = &mut *plan.cast::<Plan>();
        let Err(failed) = become_program(plan);
        (&raw mut plan.failed).write_volatile(Some(failed));
        libc::_exit(127)
    }
}

/// Runs in the child: only async-signal-safe calls, nothing that allocates, locks or unwinds.
unsafe fn become_program(plan: &mut Plan) -> Result<std::convert::Infallible, (Step, c_int)> {
    let check = |step: Step, result: c_int| {
        if result < 0 {
            Err((step, Errno::last_raw()))
        } else {
            Ok(())
        }
    };
    // SAFETY: system calls on integers and on pointers that `spawn` vouches for.
    unsafe {
        // First, so that it is found from here on should we die. A system without that limit has no such marks.
        if let Some(mark) = &plan.mark {
            let (resource, old) = (libc::RLIMIT_LOCKS, std::ptr::null_mut::<c_void>());
            libc::syscall(libc::SYS_prlimit64, 0, resource, mark.as_ptr(), old);
        }
        // Nothing that follows needs them; into the directory it could not go itself otherwise.
        if plan.filter.is_some() {
            give_up_rights(0)?;
        }
        // Before its descriptor is closed with the others.
        if let Some(ruleset) = plan.ruleset {
            let restricted = libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0);
            check(Step::Rights, restricted as c_int)?;
        }
        if let (Some(filter), true) = (&plan.filter, plan.is_asked) {
            let listener = listen(filter)?;
            (&raw mut plan.listener).write_volatile(listener);
            check(Step::Listener, libc::unshare(libc::CLONE_FILES))?;
        }
        if plan.leads == Leads::Group {
            check(Step::Session, libc::setpgid(0, 0))?;
        } else {
            check(Step::Session, libc::setsid())?;
            // For a server that is killed: it cannot end its children any more. Cleared by the kernel at the execution of
            // a set-user-id program.
            check(Step::Session, libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        }
        if plan.leads == Leads::Terminal {
            check(Step::Terminal, libc::ioctl(plan.stdio[0], libc::TIOCSCTTY as _, 0))?;
        }
        for (target, fd) in plan.stdio.iter().enumerate() {
            check(Step::Descriptors, libc::dup2(*fd, target as c_int))?;
        }
        // Ours are close-on-exec; those that our own parent left open need not be. Without the call (Linux 5.9) they
        // are what they would be in any other program.
        libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
        check(Step::Directory, libc::chdir(plan.cwd))?;
        // Handlers end with the execution, ignored signals stay ignored: a child would be deaf to SIGPIPE. The system
        // call itself, because the C library refuses the signals it keeps for its own use, which can be inherited as
        // ignored too; a kernel sigaction of zeroes is SIG_DFL on every architecture.
        let default = [0u64; 8];
        for signal in 1..=64 {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<c_void>(),
                8usize,
            );
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        if let (Some(filter), false) = (&plan.filter, plan.is_asked) {
            let filter = std::ptr::from_ref(filter);
            let mode = libc::SECCOMP_MODE_FILTER;
            check(Step::Rights, libc::prctl(libc::PR_SET_SECCOMP, mode, filter))?;
        }
        let mut errno = libc::ENOENT;
        for candidate in &plan.candidates {
            if candidate.is_null() {
                break;
            }
            libc::execve(*candidate, plan.argv.as_ptr(), plan.envp.as_ptr());
            match Errno::last_raw() {
                libc::ENOENT | libc::ENOTDIR if errno == libc::EACCES => {}
                e @ (libc::ENOENT | libc::ENOTDIR | libc::EACCES) => errno = e,
                e => return Err((Step::Execute, e)),
            }
        }
        Err((Step::Execute, errno))
    }
}

/// Has the calls checked by whoever reads from the descriptor that it returns.
unsafe fn listen(filter: &sock_fprog) -> Result<RawFd, (Step, c_int)> {
    /// `SECCOMP_FILTER_FLAG_NEW_LISTENER`
    const NEW_LISTENER: c_int = 1 << 3;
    /// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`, since Linux 5.19: a signal does not make a call be made twice.
    const WAIT_KILLABLE: c_int = 1 << 5;
    let filter = std::ptr::from_ref(filter);
    // SAFETY: integers, and a filter that lives.
    let install = |flags: c_int| unsafe {
        match libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, filter) {
            -1 => Err(Errno::last_raw()),
            listener => Ok(listener as RawFd),
        }
    };
    match install(NEW_LISTENER | WAIT_KILLABLE) {
        Err(libc::EINVAL) => install(NEW_LISTENER),
        installed => installed,
    }
    .map_err(|errno| (Step::Listener, errno))
}

/// Gives up all capabilities for good but those in `kept`, a bit each, none of which counts until it is made to. And that
/// a program could give new ones.
///
/// # Safety
/// For a process of its own; makes system calls only.
pub(super) unsafe fn give_up_rights(kept: u32) -> Result<(), (Step, c_int)> {
    /// `_LINUX_CAPABILITY_VERSION_3`, of this process.
    const HEADER: [u32; 2] = [0x2008_0522, 0];
    // Three sets of twice 32 bits: those that count, those there are, those that are passed on.
    let sets = [0, kept, 0, 0, 0, 0];
    // SAFETY: integers, and memory that the calls only read.
    unsafe {
        let mut capability = 0;
        while libc::prctl(libc::PR_CAPBSET_DROP, capability) == 0 {
            capability += 1;
        }
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0
            || libc::syscall(libc::SYS_capset, HEADER.as_ptr(), sets.as_ptr()) < 0
        {
            return Err((Step::Rights, Errno::last_raw()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::OFlag;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::pipe2;
    use std::io::Read;
    use std::os::fd::AsFd;

    fn strings(words: &[&str]) -> Vec<CString> {
        words.iter().map(|w| CString::new(*w).unwrap()).collect()
    }

    fn run(candidates: &[&str], argv: &[&str], cwd: &str) -> Result<(String, WaitStatus), SpawnError> {
        let null = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap();
        let (output, input) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let child = spawn(&Program {
            candidates: &strings(candidates),
            argv: &strings(argv),
            envp: &strings(&["A=1"]),
            cwd: &CString::new(cwd).unwrap(),
            stdio: [null.as_fd(), input.as_fd(), null.as_fd()],
            leads: Leads::Session,
            mark: None,
        })?;
        drop(input);
        let mut text = String::new();
        std::fs::File::from(output).read_to_string(&mut text).unwrap();
        Ok((text, waitpid(child.pid, None).unwrap()))
    }

    #[test]
    fn a_program_gets_its_name_environment_and_directory() {
        let (text, status) = run(&["/bin/sh"], &["me", "-c", "echo $0 $A; pwd; exit 3"], "/usr").unwrap();
        assert_eq!(text, "me 1\n/usr\n");
        assert!(matches!(status, WaitStatus::Exited(_, 3)));
    }

    #[test]
    fn a_child_has_three_descriptors_and_no_ignored_signal() {
        let (text, _) = run(
            &["/bin/sh"],
            &["sh", "-c", "ls /proc/$$/fd; grep -E '^Sig(Blk|Ign)' /proc/self/status"],
            "/",
        )
        .unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(
            words,
            [
                "0",
                "1",
                "2",
                "SigBlk:",
                "0000000000000000",
                "SigIgn:",
                "0000000000000000"
            ]
        );
    }

    #[test]
    fn candidates_are_tried_in_turn() {
        let (text, _) = run(
            &["/nowhere/sh", "/etc/passwd/sh", "/bin/sh"],
            &["sh", "-c", "echo ok"],
            "/",
        )
        .unwrap();
        assert_eq!(text, "ok\n");
    }

    #[test]
    fn a_failure_names_its_step() {
        let failed = |candidates: &[&str], cwd| run(candidates, &["x"], cwd).unwrap_err();
        assert_eq!(
            failed(&["/nowhere/x"], "/"),
            SpawnError {
                step: Step::Execute,
                errno: Errno::ENOENT
            }
        );
        assert_eq!(
            failed(&["/tmp", "/nowhere/x"], "/"),
            SpawnError {
                step: Step::Execute,
                errno: Errno::EACCES
            }
        );
        assert_eq!(
            failed(&["/bin/sh"], "/nowhere"),
            SpawnError {
                step: Step::Directory,
                errno: Errno::ENOENT
            }
        );
        assert_eq!(
            failed(&["/bin/sh"], "/etc/passwd"),
            SpawnError {
                step: Step::Directory,
                errno: Errno::ENOTDIR
            }
        );
    }
}
