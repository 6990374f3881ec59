//! A WebSocket's bytes, fed in pieces, against what the tungstenite library makes of them.

#![no_main]

#[path = "../../tests/checks/frames.rs"]
mod frames;

libfuzzer_sys::fuzz_target!(|input: &[u8]| frames::check(input));
