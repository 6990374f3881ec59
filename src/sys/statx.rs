//! A file's time of birth, which only `statx(2)` tells.
//!
//! The standard library asks for it with glibc, but not with musl.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;

/// When the target of `name`, looked up in `directory`, was born, or `directory` itself if the name is empty: seconds and
/// nanoseconds since 1970.
///
/// `None` if the file system doesn't keep it, the kernel can't tell (before Linux 4.11), or there is no
/// such file.
pub fn birth_time(directory: impl AsFd, name: &CStr) -> Option<(i64, u32)> {
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `name` ends with NUL and `found` has room for a whole `statx`; both outlive the call.
    let result = unsafe {
        libc::statx(
            directory.as_fd().as_raw_fd(),
            name.as_ptr(),
            libc::AT_STATX_DONT_SYNC | libc::AT_EMPTY_PATH,
            libc::STATX_BTIME,
            found.as_mut_ptr(),
        )
    };
    if result != 0 {
        return None;
    }
    // SAFETY: it was zeroed, which is a valid `statx`, whatever the kernel then filled in.
    let found = unsafe { found.assume_init() };
    (found.stx_mask & libc::STATX_BTIME != 0).then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
}
