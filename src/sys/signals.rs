//! Waiting for signals, for a time.

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::time::TimeSpec;
use std::ptr;
use std::time::Duration;

/// Waits for one of `signals`, which are to be blocked, at most so long; `None` if there was none.
///
/// # Errors
/// What `sigtimedwait(2)` said.
pub fn wait(signals: &SigSet, limit: Option<Duration>) -> nix::Result<Option<Signal>> {
    let limit = limit.map(TimeSpec::from);
    let limit = limit
        .as_ref()
        .map_or(ptr::null(), |limit| ptr::from_ref(limit.as_ref()));
    // SAFETY: a live set, no information wanted, and a live time or null, which stands for none.
    match unsafe { libc::sigtimedwait(signals.as_ref(), ptr::null_mut(), limit) } {
        -1 => match Errno::last() {
            Errno::EAGAIN | Errno::EINTR => Ok(None),
            e => Err(e),
        },
        number => Signal::try_from(number).map(Some),
    }
}
