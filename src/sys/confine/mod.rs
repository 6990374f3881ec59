//! Starting a program in namespaces of its own, from which it sees and reaches only what it may.
//!
//! Three processes are made, one by the other. The *messenger* borrows our memory, enters the [`Ground`] and makes the
//! *init*, which is the first process of its own process, mount and IPC namespaces and a child of ours; then it ends. The
//! init makes the mounts, makes the *leader*, which becomes the program, and stays to wait for it: a program that is the
//! first process itself would be deaf to signals, and what it leaves behind would never be reaped. A socket tells us how
//! far it has come, and in the end how the program ended.
//!
//! Where there are names that must not come to be, the init is the gate as well: it makes the calls that
//! could, in the program's place.

mod caller;
mod creation;
mod devices;
mod filter;
mod gate;
mod ground;
mod guard;
mod init;
mod mounts;
mod open;
mod status;
mod tree;
mod unshared;

pub(super) use devices::DEVICES;
pub use filter::{Calls, filter, filter_without_namespaces};
pub use ground::{Ground, GroundError, GroundStep};
pub use mounts::{Base, MountStep, Mounts, PlaceKind};

use super::kept_memory::{KeptMemory, give_memory_back};
use super::raw;
use super::spawn::{CHILD_STACK, Child, Leads, Plan, Program, SpawnError, Step, child_stack, give_up_rights};
use super::spawn::{child, wait, with_signals_blocked};
use gate::Gate;
use mounts::Failure;
use nix::errno::Errno;
use nix::libc::{self, c_int, c_void, sock_filter};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::unistd::Pid;
use status::Message;
pub(super) use status::StatusSocket;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, LazyLock};

/// What a program is confined to.
pub struct Confinement {
    /// Where it happens.
    pub ground: Arc<Ground>,
    /// Whether it keeps the network.
    pub has_network: bool,
    /// What it sees of the files.
    pub mounts: Mounts,
    /// The calls it may not make; see [`filter`].
    pub filter: Vec<sock_filter>,
}

/// Why a program could not be started confined. Nothing is left behind then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfineError {
    /// A namespace could not be had.
    #[error("failed to {what}: {}", std::io::Error::from(*errno))]
    Namespace {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        errno: Errno,
    },
    /// The mounts could not be made.
    #[error("failed to {}{}: {}", step.describe(), place.as_ref().map(|p| format!(" at `{p}`")).unwrap_or_default(),
        std::io::Error::from(*errno))]
    Mount {
        /// What was being done.
        step: MountStep,
        /// Where, if at one of the places.
        place: Option<String>,
        /// What the system said.
        errno: Errno,
    },
    /// There are too many directories with names that must not come to be.
    #[error("cannot guard names in {0} directories: the most is {max}", max = guard::MAX_DIRECTORIES)]
    TooManyGuarded(usize),
    /// A name that must not come to be is none that can be guarded.
    #[error("cannot guard the name of `{0}`")]
    Unguardable(String),
    /// The program could not be started in there.
    #[error(transparent)]
    Spawn(SpawnError),
    /// The first process was killed before it had started the program.
    #[error("the process that sets up the sandbox was killed")]
    Killed,
}

/// Starts `program` confined. What [`spawn`](super::spawn::spawn) says holds here as well, and when the program ends,
/// whatever it has started and left ends with it.
///
/// # Errors
/// What could not be done, and what the system said.
pub fn spawn(program: &Program<'_>, confinement: &Confinement) -> Result<Child, ConfineError> {
    let guards = confinement.mounts.guards().map_err(ConfineError::Unguardable)?;
    if guards.len() > guard::MAX_DIRECTORIES {
        return Err(ConfineError::TooManyGuarded(guards.len()));
    }
    let gate_filter = (!guards.is_empty()).then(|| filter::with_gate(&confinement.filter));
    LazyLock::force(&WAS_DUMPABLE);
    let status = |errno| ConfineError::Namespace {
        what: "make a socket for the status of the program",
        errno,
    };
    let kind = SockType::SeqPacket;
    let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).map_err(status)?;
    // The program's number is different in there; the kernel translates that of who sends.
    setsockopt(&ours, sockopt::PassCred, &true).map_err(status)?;
    let status = StatusSocket::new(ours);
    let init_stack = child_stack(INIT_STACK).map_err(ConfineError::Spawn)?;
    let mut messenger_stack = child_stack(CHILD_STACK).map_err(ConfineError::Spawn)?;
    let mut leader_stack = child_stack(CHILD_STACK).map_err(ConfineError::Spawn)?;
    let mut chain = Chain {
        plan: match &gate_filter {
            None => Plan::new(program, Some(&confinement.filter)),
            Some(filter) => Plan::with_listener(program, filter),
        },
        mounts: &raw const confinement.mounts,
        has_terminal: program.leads == Leads::Terminal,
        is_gate: gate_filter.is_some(),
        user: confinement.ground.user.as_raw_fd(),
        network: if confinement.has_network {
            -1
        } else {
            confinement.ground.network.as_raw_fd()
        },
        status: theirs.as_raw_fd(),
        init_stack: init_stack.as_ptr_range().end as usize,
        init_memory: KeptMemory::of(&init_stack),
        leader_stack: leader_stack.as_mut_ptr_range().end as usize,
        made: Err(("make a process", libc::EAGAIN)),
    };
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | libc::SIGCHLD;
    // SAFETY: the stacks are the children's alone. The messenger has ended when the call returns, because of
    // CLONE_VFORK; it makes system calls only. It shares our descriptors, so that the init's pidfd is ours.
    let (messenger, errno) = unsafe {
        with_signals_blocked(|| {
            let top = messenger_stack.as_mut_ptr_range().end.cast::<c_void>();
            libc::clone(carry_message, top, flags, (&raw mut chain).cast())
        })
    };
    if messenger < 0 {
        return Err(ConfineError::Spawn(SpawnError {
            step: Step::Clone,
            errno,
        }));
    }
    let _ = wait(Pid::from_raw(messenger));
    drop(theirs);
    // The messenger has entered another user namespace, after which the kernel takes its memory, which is ours, for secret:
    // nobody could trace this process any more, nor get a dump of it.
    let _ = nix::sys::prctl::set_dumpable(*WAS_DUMPABLE);
    // SAFETY: a live local, which the child has written; the compiler cannot know.
    let made = unsafe { (&raw const chain.made).read_volatile() };
    let (init, pidfd) = made.map_err(|(what, errno)| ConfineError::Namespace {
        what,
        errno: Errno::from_raw(errno),
    })?;
    let init = Pid::from_raw(init);
    // SAFETY: the kernel has just made this descriptor (close-on-exec), and nothing else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    match status.start(&confinement.mounts) {
        Ok(leader) => Ok(Child {
            pid: leader,
            pidfd,
            init: Some((init, status)),
            has_landlock: false,
        }),
        Err(e) => {
            // It has ended or is about to, unless it is only that it could not be heard.
            let _ = super::pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL);
            let _ = wait(init);
            Err(e)
        }
    }
}

/// Tries everything that `start` does to confine a program, with one that is not there.
///
/// # Errors
/// What could not be done.
pub fn probe(start: &dyn Fn(&Program<'_>) -> Result<Child, ConfineError>) -> Result<(), ConfineError> {
    let null = std::fs::File::open("/dev/null").map_err(|e| ConfineError::Namespace {
        what: "open /dev/null",
        errno: Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)),
    })?;
    let program = Program {
        candidates: &[c"".to_owned()],
        argv: &[],
        envp: &[],
        cwd: c"/",
        stdio: [null.as_fd(); 3],
        leads: Leads::Session,
        mark: None,
    };
    match start(&program) {
        Err(ConfineError::Spawn(SpawnError {
            step: Step::Execute,
            errno: Errno::ENOENT,
        })) => Ok(()),
        Err(e) => Err(e),
        Ok(child) => {
            child.kill_namespace();
            let _ = child.wait();
            Ok(())
        }
    }
}

/// Whether this process could be traced before it confined anything.
static WAS_DUMPABLE: LazyLock<bool> = LazyLock::new(|| nix::sys::prctl::get_dumpable().unwrap_or(true));

/// The stack of the init. As the gate it has two paths there and what it knows of directories; a debug build takes several
/// times that. Only what is touched of it takes memory.
const INIT_STACK: NonZeroUsize = NonZeroUsize::new(256 * 1024).expect("a constant above zero");

/// What the three processes need.
struct Chain {
    plan: Plan,
    mounts: *const Mounts,
    user: RawFd,
    /// -1 to keep the network.
    network: RawFd,
    status: RawFd,
    has_terminal: bool,
    is_gate: bool,
    /// Its end.
    init_stack: usize,
    init_memory: KeptMemory,
    /// Its end.
    leader_stack: usize,
    /// The init and its pidfd, or what the messenger could not do.
    made: Result<(c_int, RawFd), (&'static str, c_int)>,
}

/// The messenger; see [`Chain`].
extern "C" fn carry_message(chain: *mut c_void) -> c_int {
    // SAFETY: `spawn` passes a live Chain, which nobody else touches until this process has ended.
    unsafe {
        let chain = &mut *chain.cast::<Chain>();
        let made = make_init(chain);
        (&raw mut chain.made).write_volatile(made);
        libc::_exit(0)
    }
}

/// System calls only: it shares the memory of another thread that stands still.
unsafe fn make_init(chain: &mut Chain) -> Result<(c_int, RawFd), (&'static str, c_int)> {
    let mut pidfd: RawFd = -1;
    // SAFETY: integers, and pointers to what lives longer. The init gets copies.
    unsafe {
        if libc::setns(chain.user, libc::CLONE_NEWUSER) < 0 {
            return Err(("enter the user namespace", Errno::last_raw()));
        }
        if chain.network >= 0 && libc::setns(chain.network, libc::CLONE_NEWNET) < 0 {
            return Err(("enter the empty network", Errno::last_raw()));
        }
        let namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC;
        let flags = namespaces | libc::CLONE_PARENT | libc::CLONE_PIDFD | libc::SIGCHLD;
        let top = chain.init_stack as *mut c_void;
        let pid = libc::clone(be_init, top, flags, std::ptr::from_mut(chain).cast(), &raw mut pidfd);
        match pid {
            0.. => Ok((pid, pidfd)),
            _ => Err(("make the namespaces of a process", Errno::last_raw())),
        }
    }
}

/// Where the init keeps its end of the status socket, next to the program's standard streams.
const STATUS_FD: RawFd = 3;

/// The init; see [`Chain`]. System calls only: it is a copy of one thread of several.
extern "C" fn be_init(chain: *mut c_void) -> c_int {
    // SAFETY: a copy of a live Chain, which is this process's own.
    unsafe {
        let chain = &mut *chain.cast::<Chain>();
        // Should this process be killed. And nobody in the namespace may look into a copy of its memory.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
        // All other descriptors at once: somebody may be waiting for their last copies to be closed.
        for (target, fd) in chain.plan.stdio.iter().enumerate() {
            libc::dup2(*fd, target as c_int);
        }
        libc::dup2(chain.status, STATUS_FD);
        libc::fcntl(STATUS_FD, libc::F_SETFD, libc::FD_CLOEXEC);
        libc::syscall(libc::SYS_close_range, STATUS_FD + 1, u32::MAX, 0);
        chain.plan.stdio = [0, 1, 2];
        let ended = match chain.is_gate {
            false => run(chain),
            true => run_gated(chain),
        };
        match ended {
            Ok(status) => {
                init::send(STATUS_FD, &Message::Ended { status }.words());
                // For whoever has not heard that.
                raw::exit(match libc::WIFEXITED(status) {
                    true => libc::WEXITSTATUS(status),
                    false => 128 + libc::WTERMSIG(status),
                })
            }
            Err(message) => {
                init::send(STATUS_FD, &message.words());
                raw::exit(1)
            }
        }
    }
}

/// Runs the program until it has ended with this wait status.
#[inline(never)]
unsafe fn run(chain: &mut Chain) -> Result<c_int, Message> {
    // SAFETY: as `be_init`.
    unsafe {
        make_mounts(chain)?;
        let leader = make_leader(chain, 0)?;
        give_up_rights(0).map_err(spawn_failed)?;
        be_alone(chain);
        Ok(init::wait_for(leader))
    }
}

/// The same where names are guarded. A function of its own because the gate lies on the stack, which is larger then.
#[inline(never)]
unsafe fn run_gated(chain: &mut Chain) -> Result<c_int, Message> {
    // SAFETY: as `be_init`.
    unsafe {
        make_mounts(chain)?;
        let mounts = &*chain.mounts;
        let gate = Gate::open(mounts.guards().unwrap_or_default(), chain.has_terminal);
        let mut gate = gate.map_err(|failed| {
            let place = failed.place.map(|guard| mounts.guard_index(guard));
            mount_failed(Failure { place, ..failed })
        })?;
        // The listener that the leader gets is ours too by this. Before it touches another descriptor they are apart.
        let leader = make_leader(chain, libc::CLONE_FILES)?;
        let listener = (&raw const chain.plan.listener).read_volatile();
        give_up_rights(raw::LOOK_RIGHT | raw::MOUNT_RIGHT).map_err(spawn_failed)?;
        be_alone(chain);
        Ok(gate.serve(listener, leader))
    }
}

unsafe fn make_mounts(chain: &Chain) -> Result<(), Message> {
    // SAFETY: as `be_init`.
    unsafe {
        (*chain.mounts).set_up(chain.has_terminal).map_err(mount_failed)?;
        // Nothing that leads out of there.
        libc::syscall(libc::SYS_close_range, STATUS_FD + 1, u32::MAX, 0);
    }
    Ok(())
}

unsafe fn make_leader(chain: &mut Chain, sharing: c_int) -> Result<c_int, Message> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD | sharing;
    let top = chain.leader_stack as *mut c_void;
    // SAFETY: as `be_init`. The leader borrows this process's memory until it has executed the program.
    unsafe {
        let leader = libc::clone(lead, top, flags, std::ptr::from_mut(chain).cast());
        if leader < 0 {
            return Err(spawn_failed((Step::Clone, Errno::last_raw())));
        }
        match (&raw const chain.plan.failed).read_volatile() {
            Some(why) => Err(spawn_failed(why)),
            None => Ok(leader),
        }
    }
}

/// Tells that the program runs, and lets go of all that is not needed to wait for it, the chain among it.
unsafe fn be_alone(chain: &Chain) {
    // SAFETY: as `be_init`.
    unsafe {
        // Nobody would wait for an end of that which they have not heard of.
        if !init::send(STATUS_FD, &Message::Started.words()) {
            raw::exit(1);
        }
        for fd in 0..STATUS_FD {
            libc::close(fd);
        }
        give_memory_back(chain.init_memory);
    }
}

fn mount_failed(failed: Failure) -> Message {
    Message::MountFailed {
        step: failed.step as i32,
        place: failed.place.map_or(-1, |i| i as i32),
        errno: failed.errno,
    }
}

fn spawn_failed((step, errno): (Step, c_int)) -> Message {
    Message::SpawnFailed {
        step: step as i32,
        errno,
    }
}

/// The leader: tells its number, and becomes the program.
extern "C" fn lead(chain: *mut c_void) -> c_int {
    // SAFETY: a live Chain, which its owner does not touch until this process has executed or ended.
    unsafe {
        let chain = chain.cast::<Chain>();
        init::send(STATUS_FD, &Message::Leader.words());
        child((&raw mut (*chain).plan).cast())
    }
}

#[cfg(test)]
#[path = "confine_tests.rs"]
mod tests;

#[cfg(test)]
mod gate_tests;
