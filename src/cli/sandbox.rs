//! `exec-server sandbox --check`.

use exec_server::sandbox::{Enforcer, Means};
use std::process::ExitCode;

/// Says whether sandboxes can be enforced here.
pub(crate) fn check() -> ExitCode {
    match Enforcer::default().check() {
        Ok(Means::Namespaces) => {
            super::print("sandboxes can be enforced here: files, network, processes, system calls\n")
        }
        Ok(Means::Landlock(why)) => super::print(&format!(
            "read-only sandboxes can be enforced here, with Landlock; no others, without namespaces: {why}\n"
        )),
        Err(e) => super::fail(1, &e.to_string()),
    }
}
