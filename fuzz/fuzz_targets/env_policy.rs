//! The environment of a command against somebody who reads the policy variable by variable.

#![no_main]

#[path = "../../tests/checks/env_policy.rs"]
mod env_policy;

libfuzzer_sys::fuzz_target!(|input: &[u8]| env_policy::check_input(input));
