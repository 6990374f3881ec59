//! The first process of a confined program's process namespace: it waits for the program, adopts and reaps what that
//! leaves behind, and tells how the program ended. When it ends itself, the kernel ends all that is left in there.
//!
//! It is a copy of this process that never executes anything: that would take as long as the program's own start. So it
//! gives back at once what it was a copy of, all memory but the program text and a stack, and from then on makes system
//! calls by its own means, because the C library's need memory that is not there any more.

use nix::libc::{self, c_int, c_long};

/// Gives all memory back but what this very code needs, and waits for `leader`, whose wait status it returns. A stack
/// that is in use lies in `stack`.
///
/// # Safety
/// To be called in a process that nothing else runs in, which ends itself by [`exit`] then and touches no memory but its
/// stack.
pub(super) unsafe fn wait_alone(stack: (usize, usize), leader: c_int) -> c_int {
    // SAFETY: nothing else runs here, and what is in use stays.
    unsafe {
        give_memory_back(stack);
        loop {
            let mut status: c_int = 0;
            let pid = system_call(libc::SYS_wait4, [-1, (&raw mut status) as usize as c_long, 0, 0]);
            if pid == c_long::from(leader) {
                return status;
            }
            // EINTR goes on; that there is no child can't be while the leader was not seen.
            if pid < 0 && pid != -c_long::from(libc::EINTR) {
                return libc::SIGKILL;
            }
        }
    }
}

/// Sends a message on a socket.
///
/// # Safety
/// As [`wait_alone`].
pub(super) unsafe fn send(socket: c_int, message: &[i32; 4]) {
    // SAFETY: memory of that length, on the stack.
    unsafe {
        let start = message.as_ptr() as usize as c_long;
        system_call(
            libc::SYS_write,
            [socket.into(), start, size_of::<[i32; 4]>() as c_long, 0],
        );
    }
}

/// Ends this process.
///
/// # Safety
/// As [`wait_alone`].
pub(super) unsafe fn exit(code: c_int) -> ! {
    loop {
        // SAFETY: integers.
        unsafe { system_call(libc::SYS_exit_group, [code.into(), 0, 0, 0]) };
    }
}

unsafe extern "C" {
    // By the linker: where the program begins in memory, and where its last data end.
    static __executable_start: u8;
    static _end: u8;
}

unsafe fn give_memory_back((stack, stack_len): (usize, usize)) {
    const PAGE: usize = 64 * 1024;
    let start = (&raw const __executable_start) as usize & !(PAGE - 1);
    let end = ((&raw const _end) as usize).next_multiple_of(PAGE);
    let mut kept = [(start, end), (stack, stack + stack_len)];
    if kept[0].0 > kept[1].0 {
        kept.swap(0, 1);
    }
    // SAFETY: what lies between is used by nobody any more.
    unsafe {
        unmap(PAGE, kept[0].0);
        unmap(kept[0].1, kept[1].0);
        // How far addresses go differs between machines, and asking for more is an error.
        for bits in (30..usize::BITS.min(57)).rev() {
            let top = (1usize << bits) - PAGE;
            if top > kept[1].1 && unmap(kept[1].1, top) == 0 {
                break;
            }
        }
    }
}

unsafe fn unmap(from: usize, to: usize) -> c_long {
    if from >= to {
        return 0;
    }
    // SAFETY: as the caller promises.
    unsafe { system_call(libc::SYS_munmap, [from as c_long, (to - from) as c_long, 0, 0]) }
}

/// A system call of up to four arguments; an error is its negative number.
#[cfg(target_arch = "x86_64")]
unsafe fn system_call(number: c_long, [a, b, c, d]: [c_long; 4]) -> c_long {
    let mut result = number;
    // SAFETY: as the caller promises; the kernel changes no registers but these.
    unsafe {
        std::arch::asm!("syscall", inlateout("rax") result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// A system call of up to four arguments; an error is its negative number.
#[cfg(target_arch = "aarch64")]
unsafe fn system_call(number: c_long, [a, b, c, d]: [c_long; 4]) -> c_long {
    let mut result = a;
    // SAFETY: as the caller promises; the kernel changes no registers but these.
    unsafe {
        std::arch::asm!("svc 0", in("x8") number, inlateout("x0") result, in("x1") b, in("x2") c, in("x3") d,
            options(nostack));
    }
    result
}

/// A system call of up to four arguments; an error is its negative number.
#[cfg(target_arch = "arm")]
unsafe fn system_call(number: c_long, [a, b, c, d]: [c_long; 4]) -> c_long {
    let mut result = a;
    // SAFETY: as the caller promises; the kernel changes no registers but these. r7 can't be named, because it may be
    // the frame pointer, and so is put aside.
    unsafe {
        std::arch::asm!("mov {saved}, r7", "mov r7, {number}", "svc 0", "mov r7, {saved}",
            saved = out(reg) _, number = in(reg) number,
            inlateout("r0") result, in("r1") b, in("r2") c, in("r3") d, options(nostack));
    }
    result
}

/// A system call of up to four arguments; an error is its negative number.
#[cfg(target_arch = "riscv64")]
unsafe fn system_call(number: c_long, [a, b, c, d]: [c_long; 4]) -> c_long {
    let mut result = a;
    // SAFETY: as the caller promises; the kernel changes no registers but these.
    unsafe {
        std::arch::asm!("ecall", in("a7") number, inlateout("a0") result, in("a1") b, in("a2") c, in("a3") d,
            options(nostack));
    }
    result
}
