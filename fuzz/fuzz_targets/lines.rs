//! The line splitter, fed in pieces, against splitting the whole.

#![no_main]

#[path = "../../tests/checks/lines.rs"]
mod lines;

libfuzzer_sys::fuzz_target!(|input: &[u8]| lines::check_input(input));
