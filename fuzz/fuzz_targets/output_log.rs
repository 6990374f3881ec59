//! The output log against a model that keeps everything.

#![no_main]

#[path = "../../tests/checks/output_log.rs"]
mod output_log;

libfuzzer_sys::fuzz_target!(|input: &[u8]| output_log::check_input(input));
