//! The envelope parser against a slow reference: the same verdict, the same content.

#![no_main]

#[path = "../../tests/checks/message.rs"]
mod message;

libfuzzer_sys::fuzz_target!(|text: &[u8]| message::check(text));
