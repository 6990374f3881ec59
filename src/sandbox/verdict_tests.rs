//! What a plan answers about each path.

use super::plan_tests::{planned, sandbox};
use crate::files::Bounds;
use nix::errno::Errno::{self, *};
use std::path::Path;

const FINE: Result<(), Errno> = Ok(());

/// To pass, to read, to read with all below, to write, to change.
type Row = (&'static str, [Result<(), Errno>; 5]);

#[track_caller]
fn check(policy: &str, nodes: &str, rows: &[Row]) {
    let plan = planned(&sandbox(policy), nodes).unwrap();
    for (path, expected) in rows {
        let path = Path::new(path);
        let told = [
            plan.may_pass(path),
            plan.may_read(path),
            plan.may_read_tree(path),
            plan.may_write(path),
            plan.may_change(path),
        ];
        assert_eq!(told, *expected, "{path:?} of {:?}", plan.files);
    }
}

const ALL: [Result<(), Errno>; 5] = [FINE; 5];
const TO_READ: [Result<(), Errno>; 5] = [FINE, FINE, FINE, Err(EROFS), Err(EROFS)];
const MOUNTED: [Result<(), Errno>; 5] = [FINE, FINE, FINE, FINE, Err(EBUSY)];
const HIDDEN: [Result<(), Errno>; 5] = [Err(EACCES); 5];
const UNSEEN: [Result<(), Errno>; 5] = [Err(ENOENT), Err(ENOENT), Err(ENOENT), Err(EROFS), Err(EROFS)];

#[test]
fn nothing_is_restricted() {
    check("root=w", "/ws/", &[("/", ALL), ("/etc/passwd", ALL), ("/ws/.git", ALL)]);
}

#[test]
fn a_writable_workspace() {
    let absent = [FINE, Err(ENOENT), Err(ENOENT), Err(EROFS), Err(EROFS)];
    check(
        "root=r roots=w",
        "/ws/ /ws/.git/ /ws/sub/ /ws/sub/.git/",
        &[
            ("/", [FINE, FINE, FINE, Err(EROFS), Err(EBUSY)]),
            ("/etc/passwd", TO_READ),
            ("/wsx", TO_READ),
            ("/ws", MOUNTED),
            ("/ws/new/deep", ALL),
            ("/ws/sub", ALL),
            ("/ws/sub/.git", ALL),
            ("/ws/.git", [FINE, FINE, FINE, Err(EROFS), Err(EBUSY)]),
            ("/ws/.git/config", TO_READ),
            ("/ws/.codex", absent),
            ("/ws/.codex/config", absent),
            ("/ws/.codexx", ALL),
            ("/proc/self/status", TO_READ),
            ("/dev/sda", TO_READ),
            ("/dev/null", MOUNTED),
            ("/dev/zero", MOUNTED),
            ("/dev/full", MOUNTED),
        ],
    );
}

#[test]
fn what_leads_to_something_restricted_stays() {
    check(
        "root=r roots=w /ws/a/b/c=r /ws/d/e=w",
        "/ws/ /ws/a/ /ws/a/b/ /ws/a/b/c /ws/d/ /ws/d/e/",
        &[
            ("/ws/a", MOUNTED),
            ("/ws/a/x", ALL),
            ("/ws/a/b", MOUNTED),
            ("/ws/a/b/c", [FINE, FINE, FINE, Err(EROFS), Err(EBUSY)]),
            // In it there are names that must not come to be.
            ("/ws/d", MOUNTED),
            ("/ws/d/e", MOUNTED),
            ("/ws/d/e/.git", [FINE, Err(ENOENT), Err(ENOENT), Err(EROFS), Err(EROFS)]),
        ],
    );
}

#[test]
fn what_is_hidden() {
    let around = [FINE, FINE, Err(EACCES), FINE, Err(EBUSY)];
    let to_read = [FINE, FINE, Err(EACCES), Err(EROFS), Err(EBUSY)];
    check(
        "root=r roots=w /ws/secret=d /ws/key=d",
        "/ws/ /ws/secret/ /ws/secret/f /ws/key /ws/a/",
        &[
            ("/", to_read),
            ("/ws", around),
            (
                "/ws/secret",
                [Err(EACCES), Err(EACCES), Err(EACCES), Err(EACCES), Err(EBUSY)],
            ),
            ("/ws/secret/f", HIDDEN),
            ("/ws/secret/none", HIDDEN),
            ("/ws/key", HIDDEN),
            ("/ws/a", ALL),
            // The host's processes lead to everything.
            ("/proc", [FINE, FINE, Err(EACCES), Err(EROFS), Err(EROFS)]),
            ("/proc/1/root/ws/key", UNSEEN),
        ],
    );
}

#[test]
fn what_is_granted_in_a_hidden_place() {
    let passed = [FINE, Err(EACCES), Err(EACCES), Err(EACCES), Err(EBUSY)];
    let above = [FINE, FINE, Err(EACCES), Err(EROFS), Err(EROFS)];
    check(
        "root=r /h=d /h/a/b=w",
        "/h/ /h/x /h/a/ /h/a/b/",
        &[
            ("/h", passed),
            ("/h/x", [Err(ENOENT); 5]),
            ("/h/a", above),
            ("/h/a/x", [Err(ENOENT); 5]),
            ("/h/a/b", MOUNTED),
            ("/h/a/b/x", ALL),
        ],
    );
}

#[test]
fn what_is_not_granted_is_not_there() {
    let root = [FINE, FINE, Err(EACCES), Err(EROFS), Err(EBUSY)];
    let private = [FINE, FINE, Err(EACCES), Err(EROFS), Err(EROFS)];
    check(
        "minimal=r /data/ws=w",
        "/data/ /data/ws/ /data/f /usr/ /usr/bin/ /bin->usr/bin /etc/",
        &[
            ("/", root),
            ("/data", private),
            ("/data/f", UNSEEN),
            ("/data/ws", MOUNTED),
            ("/data/ws/f", ALL),
            ("/etc", [FINE, FINE, FINE, Err(EROFS), Err(EBUSY)]),
            ("/etc/passwd", TO_READ),
            ("/bin", TO_READ),
            ("/home", UNSEEN),
            ("/proc", private),
            ("/proc/self", UNSEEN),
            ("/dev", private),
            ("/dev/sda", UNSEEN),
            ("/dev/null", [FINE, FINE, Err(EACCES), FINE, Err(EBUSY)]),
        ],
    );
    check("", "/ws/", &[("/", root), ("/ws", UNSEEN)]);
}

#[test]
fn writing_everywhere_is_not_writing_to_the_system() {
    check(
        "root=w /a=r",
        "/a/ /ws/ /dev/ /dev/shm/ /proc/",
        &[
            ("/ws", ALL),
            ("/a", [FINE, FINE, FINE, Err(EROFS), Err(EBUSY)]),
            ("/dev", TO_READ),
            ("/dev/sda", TO_READ),
            ("/dev/shm", MOUNTED),
            ("/dev/shm/f", ALL),
            ("/proc/sys/kernel/core_pattern", TO_READ),
            ("/.git", [FINE, Err(ENOENT), Err(ENOENT), Err(EROFS), Err(EROFS)]),
        ],
    );
    // Unless the policy names it.
    check(
        "root=r /proc=w",
        "/proc/",
        &[("/proc", TO_READ), ("/proc/sys", TO_READ)],
    );
}

#[test]
fn of_what_is_private_in_a_sandbox_no_rule_gives_the_host_s() {
    check(
        "minimal=r /proc=r /dev/sda=w /dev/shm/x=w",
        "/proc/ /proc/1/ /proc/1/environ /dev/ /dev/sda /dev/shm/ /dev/shm/x/",
        &[
            ("/proc/1/environ", UNSEEN),
            ("/dev/sda", UNSEEN),
            ("/dev/shm/x/new", ALL),
        ],
    );
    // But what is denied is.
    check(
        "root=w /proc=d",
        "/proc/ /proc/1/ /proc/1/environ",
        &[("/proc/1/environ", HIDDEN), ("/etc/x", ALL)],
    );
}
