//! The first process of a confined program's process namespace: it waits for the program, adopts and reaps what that
//! leaves behind, and tells how the program ended. When it ends itself, the kernel ends all that is left in there.
//!
//! It is a copy of this process that never executes anything: that would take as long as the program's own start. So it
//! [gives back](crate::sys::kept_memory) at once what it was a copy of.

use crate::sys::raw;
use nix::libc::{self, c_int};

/// Waits for `leader`, whose wait status it returns, and reaps all others.
pub(super) fn wait_for(leader: c_int) -> c_int {
    loop {
        match raw::reap(0) {
            Ok((child, status)) if child == leader => return status,
            Ok(_) | Err(libc::EINTR) => {}
            // There is no child, which can't be while the leader was not seen.
            Err(_) => return libc::SIGKILL,
        }
    }
}

/// Sends a message on a socket. Whether it was sent.
pub(super) fn send(socket: c_int, message: &[i32; 4]) -> bool {
    let mut bytes = [0; size_of::<[i32; 4]>()];
    for (place, word) in bytes.chunks_exact_mut(4).zip(message) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    loop {
        match raw::write(socket, &bytes) {
            Err(libc::EINTR) => {}
            sent => return sent == Ok(bytes.len()),
        }
    }
}
