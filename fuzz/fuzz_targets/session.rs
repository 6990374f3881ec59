//! Whole sessions with real commands: all requests answered once, all events in order, nothing left behind.

#![no_main]

#[path = "../../tests/checks/session.rs"]
mod session;

use nix::sys::signal::{SigHandler, Signal, signal};

libfuzzer_sys::fuzz_target!(
    // As in every Rust program, but for one whose `main` is a fuzzer's.
    // SAFETY: no handler of ours is called.
    init: unsafe {
        let _ = signal(Signal::SIGPIPE, SigHandler::SigIgn);
    },
    |input: &[u8]| session::check_input(input)
);
