//! A new connection's bytes, from the HTTP request to the last frame, against what tungstenite makes of them.

#![no_main]

#[path = "../../tests/checks/frames.rs"]
mod frames;
#[path = "../../tests/checks/upgrade.rs"]
mod upgrade;

libfuzzer_sys::fuzz_target!(|input: &[u8]| upgrade::check(input));
