//! The signals that this program gets.

use super::failure::Failure;
use exec_server::protocol::process::ProcessSignal;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};

/// Those that are passed on to the command.
const PASSED_ON: [(Signal, ProcessSignal); 6] = [
    (Signal::SIGINT, ProcessSignal::Interrupt),
    (Signal::SIGTERM, ProcessSignal::Terminate),
    (Signal::SIGHUP, ProcessSignal::Hangup),
    (Signal::SIGQUIT, ProcessSignal::Quit),
    (Signal::SIGUSR1, ProcessSignal::Usr1),
    (Signal::SIGUSR2, ProcessSignal::Usr2),
];

/// What a signal means.
pub(super) enum Caught {
    /// Something for the command.
    PassOn(Signal, ProcessSignal),
    /// The size of the terminal has changed.
    Resized,
    /// This program was stopped and continues.
    Continued,
    /// A process has ended that this program has to reap.
    ChildEnded,
}

/// The signals as something to read from.
pub(super) struct Signals(SignalFd);

impl Signals {
    /// Takes them from all threads that are started from now on, and from the calling one.
    pub(super) fn block() -> Result<Signals, Failure> {
        let mut taken = SigSet::empty();
        let ignored = ignored();
        for (signal, _) in PASSED_ON {
            // Those that whoever started this wants to be ignored, as with `nohup`, stay so.
            if ignored & (1 << (signal as u32 - 1)) == 0 {
                taken.add(signal);
            }
        }
        for signal in [Signal::SIGWINCH, Signal::SIGCONT, Signal::SIGCHLD] {
            taken.add(signal);
        }
        let mut blocked = taken;
        // In the background the terminal can only be restored without this one.
        blocked.add(Signal::SIGTTOU);
        let made = blocked
            .thread_block()
            .and_then(|()| SignalFd::with_flags(&taken, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK));
        made.map(Signals)
            .map_err(|e| Failure::system("failed to take signals", e))
    }

    /// The next one that has come.
    pub(super) fn next(&self) -> Option<Caught> {
        loop {
            let info = self.0.read_signal().ok().flatten()?;
            let number = i32::try_from(info.ssi_signo).ok();
            match number.and_then(|number| Signal::try_from(number).ok()) {
                Some(Signal::SIGWINCH) => return Some(Caught::Resized),
                Some(Signal::SIGCONT) => return Some(Caught::Continued),
                Some(Signal::SIGCHLD) => return Some(Caught::ChildEnded),
                signal => {
                    let known = PASSED_ON.into_iter().find(|(known, _)| Some(*known) == signal);
                    if let Some((signal, meaning)) = known {
                        return Some(Caught::PassOn(signal, meaning));
                    }
                }
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The signals that this program was started to ignore, a bit each from the lowest on. Once they are blocked, the
/// system does not drop them any more.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}
