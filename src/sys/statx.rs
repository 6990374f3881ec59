//! What only `statx(2)` tells of a file: its time of birth, and anything without asking a network.
//!
//! The standard library asks for the first with glibc, but not with musl.

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
    birth(&known(directory, name, libc::STATX_BTIME)?)
}

/// A file as the kernel knows it.
pub struct Described {
    /// Its type and permissions, as in `st_mode`.
    pub mode: u32,
    /// Its length in bytes.
    pub size: u64,
    /// When its content was changed: seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
    /// When it was born, if its file system keeps that.
    pub born: Option<(i64, u32)>,
    /// The major and minor number of its device.
    pub device: (u32, u32),
}

/// What the kernel knows of an open file without asking anybody, such as the server of a network's file system; `None` if
/// that is not all of [`Described`].
pub fn describe_known(file: impl AsFd) -> Option<Described> {
    let found = known(file, c"", libc::STATX_BASIC_STATS | libc::STATX_BTIME)?;
    (found.stx_mask & libc::STATX_BASIC_STATS == libc::STATX_BASIC_STATS).then(|| Described {
        mode: found.stx_mode.into(),
        size: found.stx_size,
        modified: (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
        born: birth(&found),
        device: (found.stx_dev_major, found.stx_dev_minor),
    })
}

fn birth(found: &libc::statx) -> Option<(i64, u32)> {
    (found.stx_mask & libc::STATX_BTIME != 0).then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec))
}

fn known(directory: impl AsFd, name: &CStr, mask: u32) -> Option<libc::statx> {
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: `name` ends with NUL and `found` has room for a whole `statx`; both outlive the call.
    let result = unsafe {
        libc::statx(
            directory.as_fd().as_raw_fd(),
            name.as_ptr(),
            libc::AT_STATX_DONT_SYNC | libc::AT_EMPTY_PATH,
            mask,
            found.as_mut_ptr(),
        )
    };
    // SAFETY: it was zeroed, which is a valid `statx`, whatever the kernel then filled in.
    (result == 0).then(|| unsafe { found.assume_init() })
}
