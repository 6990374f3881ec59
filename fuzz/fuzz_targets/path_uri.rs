//! Path URIs against the state machine of the URL standard, and every path there and back.

#![no_main]

#[path = "../../tests/checks/path_uri.rs"]
mod path_uri;

libfuzzer_sys::fuzz_target!(|input: &[u8]| path_uri::check(input));
