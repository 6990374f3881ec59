//! The `exec-server` command.

fn main() {}
