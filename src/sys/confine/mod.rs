//! Starting a program in namespaces of its own, from which it sees and reaches only what it may.
//!
//! Three processes are made, one by the other. The *messenger* borrows our memory, enters the [`Ground`] and makes the
//! *init*, which is the first process of its own process, mount and IPC namespaces and a child of ours; then it ends. The
//! init makes the mounts, makes the *leader*, which becomes the program, and stays to wait for it: a program that is the
//! first process itself would be deaf to signals, and what it leaves behind would never be reaped. A socket tells us how
//! far it has come, and in the end how the program ended.

mod filter;
mod ground;
mod init;
mod mounts;

pub use filter::{Calls, filter};
pub use ground::{Ground, GroundError, GroundStep};
pub use mounts::{Base, MountStep, Mounts, PlaceKind};

use super::spawn::{Child, Plan, Program, SpawnError, Step, child_stack, give_up_rights};
use super::spawn::{child, wait, with_signals_blocked};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{self, c_int, c_void, sock_filter};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixCredentials, recvmsg, setsockopt, socketpair,
    sockopt,
};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

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
    let status = |errno| ConfineError::Namespace {
        what: "make a socket for the status of the program",
        errno,
    };
    let kind = SockType::SeqPacket;
    let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).map_err(status)?;
    // The program's number is different in there; the kernel translates that of who sends.
    setsockopt(&ours, sockopt::PassCred, &true).map_err(status)?;
    let status = StatusSocket(ours);
    let init_stack = child_stack().map_err(ConfineError::Spawn)?;
    let mut messenger_stack = child_stack().map_err(ConfineError::Spawn)?;
    let mut leader_stack = child_stack().map_err(ConfineError::Spawn)?;
    let mut chain = Chain {
        plan: Plan::new(program, Some(&confinement.filter)),
        mounts: &raw const confinement.mounts,
        user: confinement.ground.user.as_raw_fd(),
        network: if confinement.has_network {
            -1
        } else {
            confinement.ground.network.as_raw_fd()
        },
        status: theirs.as_raw_fd(),
        init_stack: (init_stack.as_ptr() as usize, init_stack.len()),
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
        }),
        Err(e) => {
            let _ = wait(init);
            Err(e)
        }
    }
}

/// What the three processes need.
struct Chain {
    plan: Plan,
    mounts: *const Mounts,
    user: RawFd,
    /// -1 to keep the network.
    network: RawFd,
    status: RawFd,
    /// Where it is, and its length.
    init_stack: (usize, usize),
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
        let top = (chain.init_stack.0 + chain.init_stack.1) as *mut c_void;
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
        let leader = match set_up(chain) {
            Ok(leader) => leader,
            Err(message) => {
                init::send(STATUS_FD, &message.words());
                init::exit(1);
            }
        };
        init::send(STATUS_FD, &Message::Started.words());
        for fd in 0..STATUS_FD {
            libc::close(fd);
        }
        let status = init::wait_alone(chain.init_stack, leader);
        init::send(STATUS_FD, &Message::Ended { status }.words());
        init::exit(0)
    }
}

/// Makes the mounts and the leader.
unsafe fn set_up(chain: &mut Chain) -> Result<c_int, Message> {
    // SAFETY: as `be_init`. The leader borrows this process's memory until it has executed the program.
    unsafe {
        (*chain.mounts).set_up().map_err(|failed| Message::MountFailed {
            step: failed.step as i32,
            place: failed.place.map_or(-1, |i| i as i32),
            errno: failed.errno,
        })?;
        let failed = |(step, errno)| Message::SpawnFailed {
            step: step as i32,
            errno,
        };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let leader = libc::clone(
            lead,
            chain.leader_stack as *mut c_void,
            flags,
            std::ptr::from_mut(chain).cast(),
        );
        if leader < 0 {
            return Err(failed((Step::Clone, Errno::last_raw())));
        }
        if let Some(why) = (&raw const chain.plan.failed).read_volatile() {
            return Err(failed(why));
        }
        give_up_rights().map_err(failed)?;
        Ok(leader)
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

/// What is told through the status socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    /// By the leader, of itself.
    Leader,
    /// The program runs.
    Started,
    /// The init could not make the mounts.
    MountFailed { step: i32, place: i32, errno: i32 },
    /// The leader could not become the program.
    SpawnFailed { step: i32, errno: i32 },
    /// The program has ended, with this wait status.
    Ended { status: i32 },
}

/// A message as it is sent.
type Words = [i32; 4];

impl Message {
    fn words(self) -> Words {
        match self {
            Message::Leader => [1, 0, 0, 0],
            Message::Started => [2, 0, 0, 0],
            Message::MountFailed { step, place, errno } => [3, step, place, errno],
            Message::SpawnFailed { step, errno } => [4, step, errno, 0],
            Message::Ended { status } => [5, status, 0, 0],
        }
    }

    fn of(words: Words) -> Option<Message> {
        Some(match words {
            [1, ..] => Message::Leader,
            [2, ..] => Message::Started,
            [3, step, place, errno] => Message::MountFailed { step, place, errno },
            [4, step, errno, _] => Message::SpawnFailed { step, errno },
            [5, status, ..] => Message::Ended { status },
            _ => return None,
        })
    }
}

/// Our end of the socket through which an init tells of its program.
#[derive(Debug)]
pub(super) struct StatusSocket(OwnedFd);

impl StatusSocket {
    /// Waits until the program runs, and returns its process id.
    fn start(&self, mounts: &Mounts) -> Result<Pid, ConfineError> {
        let mut leader = None;
        loop {
            match (self.receive(MsgFlags::empty()), leader) {
                (Some((Message::Leader, pid)), _) => leader = Some(pid),
                (Some((Message::Started, _)), Some(leader)) => return Ok(leader),
                (Some((Message::MountFailed { step, place, errno }, _)), _) => {
                    let step = MountStep::from_number(step).ok_or(ConfineError::Killed)?;
                    let place = usize::try_from(place).ok().and_then(|i| mounts.path(i));
                    let errno = Errno::from_raw(errno);
                    return Err(ConfineError::Mount { step, place, errno });
                }
                (Some((Message::SpawnFailed { step, errno }, _)), _) => {
                    let step = Step::from_number(step).ok_or(ConfineError::Killed)?;
                    let errno = Errno::from_raw(errno);
                    return Err(ConfineError::Spawn(SpawnError { step, errno }));
                }
                _ => return Err(ConfineError::Killed),
            }
        }
    }

    /// How the program with that process id has ended, if its init could tell before it ended itself.
    pub(super) fn exit(&self, leader: Pid) -> Option<WaitStatus> {
        match self.receive(MsgFlags::MSG_DONTWAIT) {
            Some((Message::Ended { status }, _)) => WaitStatus::from_raw(leader, status).ok(),
            _ => None,
        }
    }

    /// The next message and who has sent it; `None` if there is no more.
    fn receive(&self, flags: MsgFlags) -> Option<(Message, Pid)> {
        let mut bytes = [0; size_of::<Words>()];
        let mut sender = None;
        loop {
            let mut room = [IoSliceMut::new(&mut bytes)];
            let mut control = cmsg_space!(UnixCredentials);
            match recvmsg::<()>(self.0.as_raw_fd(), &mut room, Some(&mut control), flags) {
                Err(Errno::EINTR) => continue,
                Err(_) => return None,
                Ok(received) if received.bytes != size_of::<Words>() => return None,
                Ok(received) => {
                    for message in received.cmsgs().ok()? {
                        if let ControlMessageOwned::ScmCredentials(credentials) = message {
                            sender = Some(Pid::from_raw(credentials.pid()));
                        }
                    }
                }
            }
            break;
        }
        let mut words = bytes
            .chunks_exact(4)
            .filter_map(|bytes| Some(i32::from_ne_bytes(bytes.try_into().ok()?)));
        let words = std::array::from_fn(|_| words.next().unwrap_or(0));
        Some((Message::of(words)?, sender?))
    }
}

#[cfg(test)]
#[path = "confine_tests.rs"]
mod tests;
