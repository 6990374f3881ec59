//! The queue of a process's input against a model that keeps everything.

#![no_main]

#[path = "../../tests/checks/stdin_queue.rs"]
mod stdin_queue;

libfuzzer_sys::fuzz_target!(|input: &[u8]| stdin_queue::check_input(input));
