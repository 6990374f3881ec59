//! The system calls that a confined program may not make, as a seccomp filter.
//!
//! The filter is a table: each row is a call, what its arguments must be for the row to count, and what happens then: an
//! error that the program gets, or that the [gate](super::gate) is asked. It is made into instructions of the kernel's
//! classic BPF by hand; there is no loop in it and nothing of it depends on what a program says.

use super::unshared::UNSHARED;
use nix::libc::{self, c_long, sock_filter};
use std::mem::offset_of;

/// Which calls are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Those that lead out of any sandbox, or to parts of the kernel that no file policy knows of.
    Dangerous,
    /// Those, and all that reach other machines or other programs of this one.
    DangerousAndNetwork,
}

/// A call that is not let through.
pub(super) struct Row {
    call: c_long,
    when: When,
    verdict: u32,
}

/// What the arguments must be.
pub(super) enum When {
    Always,
    /// The low half of argument `.0`, masked by `.1`, is one of those.
    Is(usize, u32, &'static [u32]),
    /// It is none of those.
    IsNot(usize, u32, &'static [u32]),
    /// It has one of these bits.
    Has(usize, u32),
    /// It has one of the first bits and none of the others.
    HasOnly(usize, u32, u32),
}

use When::{Always, Has, HasOnly, Is, IsNot};

pub(super) const EPERM: u16 = libc::EPERM as u16;
const ENOSYS: u16 = libc::ENOSYS as u16;
const ENOTSOCK: u16 = libc::ENOTSOCK as u16;
const ENOTTY: u16 = libc::ENOTTY as u16;

pub(super) const ANY: u32 = u32::MAX;
const UNIX: &[u32] = &[libc::AF_UNIX as u32];
/// The type of a socket without its flags.
const SOCKET_TYPE: u32 = 0xf;
/// A datagram socket can send to any address without having connected; a raw one is the same within `AF_UNIX`.
const DATAGRAM: &[u32] = &[libc::SOCK_DGRAM as u32, libc::SOCK_RAW as u32];
const NEW_USER: u32 = libc::CLONE_NEWUSER as u32;

pub(super) const fn row(call: c_long, when: When, errno: u16) -> Row {
    let verdict = libc::SECCOMP_RET_ERRNO | errno as u32;
    Row { call, when, verdict }
}

const fn asked(call: c_long, when: When) -> Row {
    let verdict = libc::SECCOMP_RET_USER_NOTIF;
    Row { call, when, verdict }
}

/// Refused to all.
const DANGEROUS: &[Row] = &[
    row(libc::SYS_socket, Is(0, ANY, &[libc::AF_VSOCK as u32]), EPERM),
    row(libc::SYS_socketpair, Is(0, ANY, &[libc::AF_VSOCK as u32]), EPERM),
    // What is done through a ring is not seen here.
    row(libc::SYS_io_uring_setup, Always, EPERM),
    row(libc::SYS_io_uring_enter, Always, EPERM),
    row(libc::SYS_io_uring_register, Always, EPERM),
    // Typing into a terminal as its user would.
    row(
        libc::SYS_ioctl,
        Is(1, ANY, &[libc::TIOCSTI as u32, libc::TIOCLINUX as u32]),
        EPERM,
    ),
    // In a user namespace of its own a program would have all rights again, and the kernel many more ways to fail.
    row(libc::SYS_unshare, Has(0, NEW_USER), EPERM),
    row(libc::SYS_clone, Has(CLONE_FLAGS, NEW_USER), EPERM),
    // Its flags lie in memory, where they can't be looked at; the C library falls back to clone.
    row(libc::SYS_clone3, Always, ENOSYS),
    // Secrets that the kernel keeps for the user, whichever program asks.
    row(libc::SYS_add_key, Always, EPERM),
    row(libc::SYS_request_key, Always, EPERM),
    row(libc::SYS_keyctl, Always, EPERM),
    row(libc::SYS_bpf, Always, EPERM),
    row(libc::SYS_perf_event_open, Always, EPERM),
    row(libc::SYS_userfaultfd, Always, EPERM),
];

/// Which argument of `clone` the flags are.
const CLONE_FLAGS: usize = if cfg!(target_arch = "s390x") { 1 } else { 0 };

/// Refused where the network is.
const NETWORK: &[Row] = &[
    row(libc::SYS_socket, IsNot(0, ANY, UNIX), EPERM),
    row(libc::SYS_socket, Is(1, SOCKET_TYPE, DATAGRAM), EPERM),
    row(libc::SYS_socketpair, IsNot(0, ANY, UNIX), EPERM),
    row(libc::SYS_socketpair, Is(1, SOCKET_TYPE, DATAGRAM), EPERM),
    row(libc::SYS_connect, Always, EPERM),
    row(libc::SYS_bind, Always, EPERM),
    row(libc::SYS_listen, Always, EPERM),
    row(libc::SYS_accept, Always, EPERM),
    row(libc::SYS_accept4, Always, EPERM),
    #[cfg(target_arch = "arm")]
    row(libc::SYS_send, Always, EPERM),
    row(libc::SYS_sendto, Always, EPERM),
    row(libc::SYS_sendmmsg, Always, EPERM),
    row(libc::SYS_recvmmsg, Always, EPERM),
    #[cfg(target_arch = "arm")]
    row(SYS_RECVMMSG_TIME64, Always, EPERM),
    row(libc::SYS_getsockopt, Always, EPERM),
    row(libc::SYS_setsockopt, Always, EPERM),
    row(libc::SYS_shutdown, Always, EPERM),
    // Shells ask this of their input to find out whether they were started by a network daemon; any other error than
    // this one they take for a yes.
    row(libc::SYS_getpeername, Always, ENOTSOCK),
    row(libc::SYS_getsockname, Always, ENOTSOCK),
    row(libc::SYS_ptrace, Always, EPERM),
    row(libc::SYS_process_vm_readv, Always, EPERM),
    row(libc::SYS_process_vm_writev, Always, EPERM),
    row(libc::SYS_pidfd_getfd, Always, EPERM),
];

/// Not in the C library's headers yet.
#[cfg(target_arch = "arm")]
const SYS_RECVMMSG_TIME64: c_long = 417;

/// A file may be made by that. Nothing is made where the file is only named, and nothing is done for it then.
const CREATE: u32 = libc::O_CREAT as u32;
const NAME_ONLY: u32 = libc::O_PATH as u32;

/// Where names are guarded: all that can give a file a name.
const GUARDED: &[Row] = &[
    #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
    asked(libc::SYS_open, HasOnly(1, CREATE, NAME_ONLY)),
    #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
    asked(libc::SYS_creat, Always),
    asked(libc::SYS_openat, HasOnly(2, CREATE, NAME_ONLY)),
    // Its flags lie in memory; programs fall back to openat.
    row(libc::SYS_openat2, Always, ENOSYS),
    #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
    asked(libc::SYS_mkdir, Always),
    asked(libc::SYS_mkdirat, Always),
    #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
    asked(libc::SYS_mknod, Always),
    asked(libc::SYS_mknodat, Always),
    #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
    asked(libc::SYS_symlink, Always),
    asked(libc::SYS_symlinkat, Always),
    #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
    asked(libc::SYS_link, Always),
    asked(libc::SYS_linkat, Always),
    #[cfg(any(target_arch = "x86_64", target_arch = "arm"))]
    asked(libc::SYS_rename, Always),
    #[cfg(not(target_arch = "riscv64"))]
    asked(libc::SYS_renameat, Always),
    asked(libc::SYS_renameat2, Always),
    asked(libc::SYS_bind, Always),
    row(libc::SYS_ioctl, Is(1, ANY, NAMING_REQUESTS), ENOTTY),
    // What a program forbids itself so would not hold for what the gate does in its place.
    row(libc::SYS_landlock_create_ruleset, Always, ENOSYS),
];

/// What makes files of particular file systems: BTRFS_IOC_SNAP_CREATE, BTRFS_IOC_SUBVOL_CREATE, BTRFS_IOC_SNAP_CREATE_V2,
/// BTRFS_IOC_SUBVOL_CREATE_V2, OCFS2_IOC_REFLINK, BCH_IOCTL_SUBVOLUME_CREATE.
const NAMING_REQUESTS: &[u32] = &[
    0x5000_9401,
    0x5000_940e,
    0x5000_9417,
    0x5000_9418,
    0x4018_6f04,
    0x4020_bc10,
];

/// Of the architecture this is built for, from linux/audit.h: only its calls have the numbers of the table.
#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;
#[cfg(target_arch = "arm")]
const AUDIT_ARCH: u32 = 0x4000_0028;
#[cfg(target_arch = "riscv64")]
const AUDIT_ARCH: u32 = 0xc000_00f3;

/// Calls from this number on are those of x32, another way to make the same ones. Other architectures have none there.
const FOREIGN_CALLS: u32 = 0x4000_0000;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const JUMP_IF_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;

/// The filter as the kernel takes it.
pub fn filter(calls: Calls) -> Vec<sock_filter> {
    assemble(calls, &[])
}

/// The filter for a program that is in the host's namespaces. What Landlock does not know of, and what reaches programs
/// that are not its own, is refused as well.
pub fn filter_without_namespaces(calls: Calls) -> Vec<sock_filter> {
    assemble(calls, UNSHARED)
}

fn assemble(calls: Calls, more: &[Row]) -> Vec<sock_filter> {
    let kill = libc::SECCOMP_RET_KILL_PROCESS;
    let mut program = vec![
        load(offset_of!(libc::seccomp_data, arch)),
        step(JUMP_IF_EQUAL, AUDIT_ARCH, 1, 0),
        step(RETURN, kill, 0, 0),
        load(offset_of!(libc::seccomp_data, nr)),
        step(JUMP_IF_AT_LEAST, FOREIGN_CALLS, 0, 1),
        step(RETURN, kill, 0, 0),
    ];
    let network = if calls == Calls::Dangerous { &[] } else { NETWORK };
    for row in DANGEROUS.iter().chain(network).chain(more) {
        row.append_to(&mut program);
    }
    program.push(step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    program
}

/// A filter that [`filter`] has made, with the calls added that the [gate](super::gate) is asked about.
pub(super) fn with_gate(filter: &[sock_filter]) -> Vec<sock_filter> {
    // All jumps are relative, and what was allowed comes last.
    let (allow, refuse) = filter
        .split_last()
        .map_or((None, filter), |(last, rest)| (Some(*last), rest));
    let mut program = refuse.to_vec();
    for row in GUARDED {
        row.append_to(&mut program);
    }
    program.extend(allow);
    program
}

impl Row {
    /// Goes on behind its instructions unless it counts. What was loaded before does not matter.
    fn append_to(&self, program: &mut Vec<sock_filter>) {
        let mut when = Vec::new();
        match self.when {
            Always => {}
            Is(argument, mask, values) => {
                when.extend([load(argument_offset(argument)), step(AND, mask, 0, 0)]);
                for (i, value) in values.iter().enumerate() {
                    // Over the others and the jump to the end.
                    when.push(step(JUMP_IF_EQUAL, *value, (values.len() - i) as u8, 0));
                }
                when.push(step(JUMP, 1, 0, 0));
            }
            IsNot(argument, mask, values) => {
                when.extend([load(argument_offset(argument)), step(AND, mask, 0, 0)]);
                for (i, value) in values.iter().enumerate() {
                    when.push(step(JUMP_IF_EQUAL, *value, (values.len() - i) as u8, 0));
                }
            }
            Has(argument, bits) => {
                when.extend([load(argument_offset(argument)), step(JUMP_IF_BITS, bits, 0, 1)]);
            }
            HasOnly(argument, bits, others) => {
                when.extend([
                    load(argument_offset(argument)),
                    step(JUMP_IF_BITS, bits, 0, 2),
                    step(JUMP_IF_BITS, others, 1, 0),
                ]);
            }
        }
        program.push(load(offset_of!(libc::seccomp_data, nr)));
        program.push(step(JUMP_IF_EQUAL, self.call as u32, 0, when.len() as u8 + 1));
        program.append(&mut when);
        program.push(step(RETURN, self.verdict, 0, 0));
    }
}

fn load(offset: usize) -> sock_filter {
    step(LOAD, offset as u32, 0, 0)
}

/// Where the low half of an argument is.
fn argument_offset(argument: usize) -> usize {
    let half = if cfg!(target_endian = "big") { 4 } else { 0 };
    offset_of!(libc::seccomp_data, args) + 8 * argument + half
}

fn step(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel does with a program, for the instructions that are used.
    fn run(program: &[sock_filter], arch: u32, call: u32, args: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            0 => call,
            4 => arch,
            offset => {
                let argument = args[(offset as usize - 16) / 8];
                if offset % 8 == 0 {
                    argument as u32
                } else {
                    (argument >> 32) as u32
                }
            }
        };
        let (mut at, mut a) = (0, 0);
        loop {
            let i = program[at];
            at += 1;
            let jump = |condition: bool| usize::from(if condition { i.jt } else { i.jf });
            match i.code {
                LOAD => a = word(i.k),
                AND => a &= i.k,
                JUMP => at += i.k as usize,
                JUMP_IF_EQUAL => at += jump(a == i.k),
                JUMP_IF_AT_LEAST => at += jump(a >= i.k),
                JUMP_IF_BITS => at += jump(a & i.k != 0),
                RETURN => return i.k,
                code => panic!("unknown instruction {code:#x}"),
            }
        }
    }

    fn verdict(calls: Calls, call: c_long, args: [u64; 3]) -> u32 {
        let [a, b, c] = args;
        run(&filter(calls), AUDIT_ARCH, call as u32, [a, b, c, 0, 0, 0])
    }

    const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
    const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

    #[test]
    fn each_row_counts_for_its_arguments_only() {
        let network = Calls::DangerousAndNetwork;
        let (unix, inet) = (libc::AF_UNIX as u64, libc::AF_INET as u64);
        let (stream, datagram) = (libc::SOCK_STREAM as u64, libc::SOCK_DGRAM as u64);
        let cloexec = libc::SOCK_CLOEXEC as u64;
        for (call, args, expected) in [
            (libc::SYS_socket, [unix, stream | cloexec, 0], ALLOWED),
            (libc::SYS_socket, [unix, datagram | cloexec, 0], REFUSED),
            (libc::SYS_socket, [inet, stream, 0], REFUSED),
            (libc::SYS_socket, [1 << 32 | inet, stream, 0], REFUSED),
            (libc::SYS_connect, [3, 0, 0], REFUSED),
            (
                libc::SYS_getpeername,
                [0, 0, 0],
                libc::SECCOMP_RET_ERRNO | libc::ENOTSOCK as u32,
            ),
            (libc::SYS_recvmsg, [3, 0, 0], ALLOWED),
            (libc::SYS_read, [0, 0, 0], ALLOWED),
            (libc::SYS_ioctl, [0, u64::from(libc::TIOCSTI as u32), 0], REFUSED),
            (libc::SYS_ioctl, [0, u64::from(libc::TIOCGWINSZ as u32), 0], ALLOWED),
            (libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0], ALLOWED),
            (
                libc::SYS_clone,
                [(libc::CLONE_NEWUSER | libc::SIGCHLD) as u64, 0, 0],
                REFUSED,
            ),
            (libc::SYS_unshare, [libc::CLONE_NEWNS as u64, 0, 0], ALLOWED),
        ] {
            assert_eq!(verdict(network, call, args), expected, "{call} {args:?}");
        }
        let open = Calls::Dangerous;
        assert_eq!(verdict(open, libc::SYS_socket, [inet, stream, 0]), ALLOWED);
        assert_eq!(
            verdict(open, libc::SYS_socket, [libc::AF_VSOCK as u64, stream, 0]),
            REFUSED
        );
        assert_eq!(verdict(open, libc::SYS_connect, [3, 0, 0]), ALLOWED);
        assert_eq!(verdict(open, libc::SYS_io_uring_setup, [0, 0, 0]), REFUSED);
    }

    #[test]
    fn what_can_make_a_name_is_asked_about_only_where_names_are_guarded() {
        const ASKED: u32 = libc::SECCOMP_RET_USER_NOTIF;
        const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
        let plain = filter(Calls::Dangerous);
        let guarded = with_gate(&plain);
        let (create, name) = (libc::O_CREAT as u64, libc::O_PATH as u64);
        for (call, args, expected) in [
            (libc::SYS_openat, [0, 0, create | libc::O_RDWR as u64], ASKED),
            (libc::SYS_openat, [0, create, libc::O_RDWR as u64], ALLOWED),
            (libc::SYS_openat, [0, 0, create | name], ALLOWED),
            (libc::SYS_openat2, [0; 3], UNKNOWN),
            (libc::SYS_mkdirat, [0; 3], ASKED),
            (libc::SYS_bind, [0; 3], ASKED),
            (libc::SYS_unlinkat, [0; 3], ALLOWED),
            (libc::SYS_socket, [libc::AF_VSOCK as u64, 0, 0], REFUSED),
            (libc::SYS_read, [create; 3], ALLOWED),
        ] {
            let [a, b, c] = args;
            let verdict = |filter| run(filter, AUDIT_ARCH, call as u32, [a, b, c, 0, 0, 0]);
            assert_eq!(verdict(&guarded), expected, "{call} {args:?}");
            let otherwise = if expected == REFUSED { REFUSED } else { ALLOWED };
            assert_eq!(verdict(&plain), otherwise, "{call} {args:?}");
        }
        let network = with_gate(&filter(Calls::DangerousAndNetwork));
        assert_eq!(run(&network, AUDIT_ARCH, libc::SYS_bind as u32, [0; 6]), REFUSED);
    }

    #[test]
    fn calls_of_another_architecture_end_the_program() {
        let program = filter(Calls::Dangerous);
        assert_eq!(run(&program, AUDIT_ARCH ^ 1, 0, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
        assert_eq!(
            run(&program, AUDIT_ARCH, FOREIGN_CALLS, [0; 6]),
            libc::SECCOMP_RET_KILL_PROCESS
        );
    }

    #[test]
    fn without_namespaces_others_and_the_attributes_of_files_are_out_of_reach() {
        let verdict = |call: c_long, args: [u64; 3]| {
            let program = filter_without_namespaces(Calls::Dangerous);
            run(&program, AUDIT_ARCH, call as u32, [args[0], args[1], args[2], 0, 0, 0])
        };
        let no_such_request = libc::SECCOMP_RET_ERRNO | libc::ENOTTY as u32;
        let request = |kind: char, number: u64| 0x4008_0000 | (kind as u64) << 8 | number;
        for (call, args, expected) in [
            (libc::SYS_fchmodat, [0, 0, 0], REFUSED),
            (libc::SYS_shmat, [0, 0, 0], REFUSED),
            (libc::SYS_ioctl, [0, request('f', 2), 0], no_such_request),
            (libc::SYS_ioctl, [0, request('X', 32), 0], no_such_request),
            (libc::SYS_ioctl, [0, 1 << 32 | request('f', 2), 0], no_such_request),
            (libc::SYS_ioctl, [0, 0x5413_u64, 0], ALLOWED),
            (libc::SYS_ioctl, [0, 0x8927, 0], ALLOWED),
            (libc::SYS_ioctl, [0, 0x5412, 0], REFUSED),
            (libc::SYS_setpriority, [0, 0, 5], ALLOWED),
            (libc::SYS_setpriority, [0, 1, 5], REFUSED),
            (libc::SYS_setpriority, [2, 0, 5], REFUSED),
            (libc::SYS_prlimit64, [0, 7, 1], ALLOWED),
            (libc::SYS_prlimit64, [1, 7, 1], REFUSED),
            (libc::SYS_read, [0, 0, 0], ALLOWED),
        ] {
            assert_eq!(verdict(call, args), expected, "{call} {args:?}");
        }
        let shared = run(&filter(Calls::Dangerous), AUDIT_ARCH, libc::SYS_fchmodat as u32, [0; 6]);
        assert_eq!(shared, ALLOWED);
    }

    #[test]
    fn no_jump_leaves_the_program() {
        for program in [
            with_gate(&filter(Calls::DangerousAndNetwork)),
            filter_without_namespaces(Calls::DangerousAndNetwork),
        ] {
            for (at, i) in program.iter().enumerate() {
                let furthest = match i.code {
                    JUMP => i.k as usize,
                    JUMP_IF_EQUAL | JUMP_IF_AT_LEAST | JUMP_IF_BITS => usize::from(i.jt.max(i.jf)),
                    _ => 0,
                };
                assert!(at + 1 + furthest < program.len() || i.code == RETURN);
            }
            assert!(program.len() < 4096);
        }
    }
}
