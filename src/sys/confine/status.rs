//! How an init tells the process that has made it how far it has come.

use super::{ConfineError, MountStep, Mounts};
use crate::sys::spawn::{SpawnError, Step};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};

/// What is told through the status socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
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
pub(super) type Words = [i32; 4];

impl Message {
    pub(super) fn words(self) -> Words {
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
pub struct StatusSocket(OwnedFd);

impl StatusSocket {
    pub(super) fn new(socket: OwnedFd) -> StatusSocket {
        StatusSocket(socket)
    }

    /// Waits until the program runs, and returns its process id.
    pub(super) fn start(&self, mounts: &Mounts) -> Result<Pid, ConfineError> {
        let mut leader = None;
        loop {
            let received = self.receive(MsgFlags::empty());
            let message = received.map_err(|errno| ConfineError::Namespace {
                what: "hear of its first process",
                errno,
            })?;
            match (message, leader) {
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
    pub fn exit(&self, leader: Pid) -> Option<WaitStatus> {
        match self.receive(MsgFlags::MSG_DONTWAIT) {
            Ok(Some((Message::Ended { status }, _))) => WaitStatus::from_raw(leader, status).ok(),
            _ => None,
        }
    }

    /// The next message and who has sent it; `None` if there is no more.
    fn receive(&self, flags: MsgFlags) -> Result<Option<(Message, Pid)>, Errno> {
        let mut bytes = [0; size_of::<Words>()];
        let mut sender = None;
        loop {
            let mut room = [IoSliceMut::new(&mut bytes)];
            let mut control = cmsg_space!(UnixCredentials);
            match recvmsg::<()>(self.0.as_raw_fd(), &mut room, Some(&mut control), flags) {
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
                Ok(received) if received.bytes != size_of::<Words>() => return Ok(None),
                Ok(received) => {
                    for message in received.cmsgs()? {
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
        Ok(Message::of(words).zip(sender))
    }
}
