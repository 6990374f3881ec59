//! Whole sessions with real commands: all requests answered once, all events in order, nothing left behind.

#![no_main]

#[path = "../../tests/checks/session.rs"]
mod session;

libfuzzer_sys::fuzz_target!(|input: &[u8]| session::check_input(input));
