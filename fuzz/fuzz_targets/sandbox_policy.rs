//! The plan of a sandbox against somebody who follows the policy word by word.

#![no_main]

#[path = "../../tests/checks/sandbox_policy.rs"]
mod sandbox_policy;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    sandbox_policy::check_input(input);
});
