//! The gate: the init makes, in place of the program, each call that can give a file a name, unless it is a name that must
//! not come to be.
//!
//! The kernel stops such a call and tells of it on a *listener* (`seccomp_unotify(2)`). A caller's memory and directories
//! may change at any time, so that a call that was looked at and then let go on could be another one by then. Therefore it
//! never goes on: what was copied once from the caller is looked at and carried out, within the directory that was looked
//! at, and the caller gets what came of it. The init has the caller's user, groups, root and mounts, and takes its umask.
//!
//! What would make all others wait, or what the kernel makes depend on who asks, is done in a process *apart*: a copy of
//! the init, without its rights, for one call.

use super::caller::{Caller, Text};
use super::creation::Request;
use super::guard::{Guard, GuardedNames, NEW_NAME};
use super::mounts::{Failure, MountStep};
use crate::sys::raw::{self, Fd};
use nix::libc::{self, c_int, c_long};
use std::os::fd::RawFd;

/// How many calls can be under way apart from the others. The next one gets `EAGAIN`.
const MAX_APART: usize = 128;
/// How many calls are received before the first of them is carried out.
const MAX_RECEIVED: usize = 16;
/// After how many seconds somebody looks for what nobody tells of: callers that have ended while their calls were under
/// way apart, and new names where they can't be watched.
const LOOK_SECONDS: c_long = 1;

/// What the gate knows and holds.
pub(super) struct Gate {
    listener: RawFd,
    /// Tells of children that have ended, and of new names in guarded directories.
    signals: Fd,
    pub(super) proc: Fd,
    /// The program's terminal, not open but named.
    pub(super) terminal: Option<Fd>,
    pub(super) leader: c_int,
    pub(super) names: GuardedNames,
    /// A process and the call that it carries out.
    apart: [Option<(c_int, u64)>; MAX_APART],
    umask: Option<u32>,
}

/// A call as the kernel tells of it.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) number: c_long,
    pub(super) arguments: [u64; 6],
}

/// Where a call is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// In the init.
    Gate,
    /// In a process for it.
    Apart,
}

/// What came of a call.
pub(super) enum Done {
    /// A number for the caller.
    Value(usize),
    /// A descriptor for the caller, and whether it is to be closed at an execution.
    Opened(Fd, bool),
}

/// Why nothing came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// An error for the caller.
    Errno(c_int),
    /// It has to be done apart.
    Apart,
}

impl From<c_int> for Stop {
    fn from(errno: c_int) -> Stop {
        Stop::Errno(errno)
    }
}

/// `struct seccomp_notif`, and room for it to grow.
#[repr(C)]
struct Notice {
    id: u64,
    thread: u32,
    flags: u32,
    number: c_int,
    architecture: u32,
    at: u64,
    arguments: [u64; 6],
    room: [u64; 22],
}

/// `struct seccomp_notif_resp`, and room for it to grow.
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
    room: [u64; 5],
}

/// `struct seccomp_notif_addfd`
#[repr(C)]
struct NewDescriptor {
    id: u64,
    flags: u32,
    ours: u32,
    theirs: u32,
    their_flags: u32,
}

// From linux/seccomp.h.
const SIZES: usize = 3;
const RECEIVE: u32 = 0xc050_2100;
const SEND: u32 = 0xc018_2101;
const IS_VALID: u32 = 0x4008_2102;
const ADD_DESCRIPTOR: u32 = 0x4018_2103;
const SET_FLAGS: u32 = 0x4008_2104;
/// Since Linux 6.6: who is woken goes on where the other was, which takes half the time.
const WAKE_HERE: u64 = 1;

impl Gate {
    /// Prepares everything but the listener. The place in an error is a guard.
    pub(super) fn open(guards: &[Guard], has_terminal: bool) -> Result<Gate, Failure> {
        let step = MountStep::Guard;
        let failed = |errno| Failure {
            step,
            place: None,
            errno,
        };
        check_sizes().map_err(failed)?;
        let flags = raw::NAME | libc::O_DIRECTORY;
        let proc = raw::open(libc::AT_FDCWD, c"/proc", flags, 0).map_err(failed)?;
        // Where the kernel allows no new one there is something else, and nobody can be asked for their directories.
        if !raw::is_of_procfs(proc.0).map_err(failed)? {
            return Err(Failure {
                step: MountStep::Proc,
                ..failed(libc::EPERM)
            });
        }
        let terminal = has_terminal.then(|| raw::open(proc.0, c"self/fd/0", raw::NAME, 0));
        Ok(Gate {
            listener: -1,
            signals: signals().map_err(failed)?,
            proc,
            terminal: terminal.transpose().map_err(failed)?,
            leader: -1,
            names: GuardedNames::open(guards).map_err(|(n, errno)| Failure {
                place: Some(n),
                ..failed(errno)
            })?,
            apart: [None; MAX_APART],
            umask: None,
        })
    }

    /// Serves until `leader` has ended, whose wait status it returns.
    pub(super) fn serve(&mut self, listener: RawFd, leader: c_int) -> c_int {
        (self.listener, self.leader) = (listener, leader);
        let arguments = [listener as usize, SET_FLAGS as usize, WAKE_HERE as usize, 0, 0, 0];
        // SAFETY: integers. An older kernel does not know it.
        let _ = unsafe { raw::call(libc::SYS_ioctl, arguments) };
        // What was made before it was watched.
        self.names.cover();
        let mut texts = [Text::EMPTY, Text::EMPTY];
        let are_watched = self.names.are_watched();
        let mut all = [polled(self.signals.0), polled(listener)];
        let mut looked = 0;
        loop {
            let is_looking = !are_watched || self.apart.iter().any(Option::is_some);
            // It can't fail but for what the results show.
            let _ = raw::poll(&mut all, is_looking.then_some(LOOK_SECONDS));
            let [signalled, called] = all.map(|polled| polled.revents);
            if signalled != 0
                && let Some(status) = self.heed_signal()
            {
                return status;
            }
            if called & libc::POLLIN != 0 {
                self.serve_all(&mut texts);
            } else if called != 0 {
                // Nobody is left that could call.
                all[1].fd = -1;
            }
            if is_looking && raw::seconds() - looked >= LOOK_SECONDS {
                looked = raw::seconds();
                self.end_forsaken();
                if !are_watched {
                    self.names.cover();
                }
            }
        }
    }

    /// Does what a signal is about. The wait status of the leader, if that has ended.
    fn heed_signal(&mut self) -> Option<c_int> {
        // `struct signalfd_siginfo`, which begins with the signal's number.
        let mut signal = [0; 128];
        let _ = raw::read(self.signals.0, &mut signal);
        let number = signal.first_chunk().map(|number| c_int::from_ne_bytes(*number));
        if number == Some(NEW_NAME) {
            self.names.cover();
        }
        self.reap()
    }

    /// Reaps all children that have ended. The wait status of the leader, if it is among them.
    fn reap(&mut self) -> Option<c_int> {
        loop {
            match raw::reap(libc::WNOHANG) {
                Ok((0, _)) => return None,
                Ok((child, status)) if child == self.leader => return Some(status),
                Ok((child, _)) => {
                    let place =
                        (self.apart.iter_mut()).find(|apart| apart.is_some_and(|(process, _)| process == child));
                    if let Some((_, id)) = place.and_then(Option::take) {
                        // It may have been killed before it could answer. Otherwise nobody waits for this any more.
                        self.answer(id, Err(libc::EIO));
                    }
                }
                Err(libc::EINTR) => {}
                // There is no child, which can't be while the leader was not seen.
                Err(_) => return Some(libc::SIGKILL),
            }
        }
    }

    /// Ends what is done apart for callers that do not wait any more.
    fn end_forsaken(&self) {
        for (process, id) in self.apart.iter().flatten() {
            if !self.is_waiting(*id) {
                raw::kill(*process);
            }
        }
    }

    /// Carries out what there is. All is received first: a caller can be interrupted by a signal until then.
    fn serve_all(&mut self, texts: &mut [Text; 2]) {
        let mut calls = [None; MAX_RECEIVED];
        for place in &mut calls {
            *place = self.receive();
            if !self.is_called() {
                break;
            }
        }
        for (mut from, call) in calls.into_iter().flatten() {
            let done = match self.carry_out(&from, &call, texts) {
                Ok(done) => Ok(done),
                Err(Stop::Errno(errno)) => Err(errno),
                Err(Stop::Apart) => {
                    from.side = Side::Apart;
                    match self.carry_out_apart(&from, &call, texts) {
                        Ok(()) => continue,
                        Err(errno) => Err(errno),
                    }
                }
            };
            self.answer(from.id, done);
        }
    }

    /// Whether there is a call to receive.
    fn is_called(&self) -> bool {
        let mut polled = [polled(self.listener)];
        raw::poll(&mut polled, Some(0)).is_ok() && polled[0].revents & libc::POLLIN != 0
    }

    /// A call, unless its caller was killed meanwhile.
    fn receive(&self) -> Option<(Request, Call)> {
        let mut notice = Notice {
            id: 0,
            thread: 0,
            flags: 0,
            number: 0,
            architecture: 0,
            at: 0,
            arguments: [0; 6],
            room: [0; 22],
        };
        // SAFETY: the request is about a notice.
        unsafe { raw::ioctl(self.listener, RECEIVE, &mut notice) }.ok()?;
        let from = Request {
            caller: Caller {
                thread: notice.thread as c_int,
                proc: self.proc.0,
            },
            id: notice.id,
            side: Side::Gate,
        };
        let call = Call {
            number: notice.number.into(),
            arguments: notice.arguments,
        };
        Some((from, call))
    }

    /// Has a call carried out, and answered, by a process for it.
    fn carry_out_apart(&mut self, from: &Request, call: &Call, texts: &mut [Text; 2]) -> Result<(), c_int> {
        let place = self.apart.iter().position(Option::is_none).ok_or(libc::EAGAIN)?;
        let process = raw::fork()?;
        if process != 0 {
            self.apart[place] = Some((process, from.id));
            return Ok(());
        }
        let done = match raw::set_rights(0, 0) {
            Err(errno) => Err(errno),
            Ok(_) => {
                // What it makes of its own links in `/proc` is then what the caller would.
                if let Ok(directory) = from.caller.base(libc::AT_FDCWD) {
                    let _ = raw::enter(directory.0);
                }
                match self.carry_out(from, call, texts) {
                    Ok(done) => Ok(done),
                    Err(Stop::Errno(errno)) => Err(errno),
                    Err(Stop::Apart) => Err(libc::EIO),
                }
            }
        };
        self.answer(from.id, done);
        raw::exit(0)
    }

    /// Whether the caller still waits, and so is who it was.
    pub(super) fn is_waiting(&self, mut id: u64) -> bool {
        // SAFETY: the request is about that number.
        unsafe { raw::ioctl(self.listener, IS_VALID, &mut id) }.is_ok()
    }

    /// Takes the caller's umask.
    pub(super) fn take_umask(&mut self, caller: &Caller) -> Result<(), c_int> {
        let mask = caller.umask()?;
        if self.umask != Some(mask) {
            raw::set_umask(mask);
            self.umask = Some(mask);
        }
        Ok(())
    }

    fn answer(&self, id: u64, done: Result<Done, c_int>) {
        let done = match done {
            Ok(Done::Value(value)) => Ok(value),
            Ok(Done::Opened(fd, close_on_execute)) => self.hand_over(id, fd, close_on_execute),
            Err(errno) => Err(errno),
        };
        let mut answer = Answer {
            id,
            value: done.map_or(0, |value| value as i64),
            error: done.map_or_else(|errno| -errno, |_| 0),
            flags: 0,
            room: [0; 5],
        };
        // SAFETY: the request is about an answer. It fails if nobody waits for it any more.
        let _ = unsafe { raw::ioctl(self.listener, SEND, &mut answer) };
    }

    /// Gives the caller a descriptor; its number there. Ours is closed before the caller goes on: it would keep a lock that
    /// the caller gives up, and the file from being executed.
    fn hand_over(&self, id: u64, fd: Fd, close_on_execute: bool) -> Result<usize, c_int> {
        let mut new = NewDescriptor {
            id,
            flags: 0,
            ours: fd.0 as u32,
            theirs: 0,
            their_flags: if close_on_execute { libc::O_CLOEXEC as u32 } else { 0 },
        };
        // SAFETY: the request is about a new descriptor.
        unsafe { raw::ioctl(self.listener, ADD_DESCRIPTOR, &mut new) }
    }
}

fn polled(fd: RawFd) -> libc::pollfd {
    libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    }
}

/// Whether what the kernel tells of calls fits.
fn check_sizes() -> Result<(), c_int> {
    // `struct seccomp_notif_sizes`
    let mut sizes = [0u16; 3];
    let place = sizes.as_mut_ptr() as usize;
    // SAFETY: a live local of that size.
    unsafe { raw::call(libc::SYS_seccomp, [SIZES, 0, place, 0, 0, 0])? };
    let fit = usize::from(sizes[0]) <= size_of::<Notice>() && usize::from(sizes[1]) <= size_of::<Answer>();
    if fit { Ok(()) } else { Err(libc::E2BIG) }
}

/// What becomes readable when a child has ended or there is a new name. The signals have to be blocked, and are made what
/// they are by default, because ignored ones are not told of.
fn signals() -> Result<Fd, c_int> {
    let default = [0u64; 8];
    let signals = 1u64 << (libc::SIGCHLD - 1) | 1u64 << (NEW_NAME - 1);
    let (default, signals) = (default.as_ptr() as usize, &raw const signals as usize);
    let flags = (libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) as usize;
    // SAFETY: live locals, of at least the sizes given.
    unsafe {
        for signal in [libc::SIGCHLD, NEW_NAME] {
            raw::call(libc::SYS_rt_sigaction, [signal as usize, default, 0, 8, 0, 0])?;
        }
        raw::call(libc::SYS_signalfd4, [usize::MAX, signals, 8, flags, 0, 0]).map(|fd| Fd(fd as RawFd))
    }
}
