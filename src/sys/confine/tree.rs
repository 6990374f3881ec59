//! Trees of mounts: cloned from the host's or made, restricted, and put in place. Of any file system call here the error is
//! the number that the kernel gave.

use crate::sys::raw::{self, Fd};
use nix::libc::{self, c_int};
use std::ffi::CStr;
use std::os::fd::RawFd;

// From linux/mount.h and linux/openat2.h.
/// What is in a tree may only be read.
pub(super) const RDONLY: u64 = 1;
const NOSUID: u64 = 2;
const NODEV: u64 = 4;
/// No program in a tree may be executed.
pub(super) const NOEXEC: u64 = 8;
/// No program in a tree gives rights to whoever executes it.
pub(super) const NO_RIGHTS: u64 = NOSUID;
/// What holds for all files of the host's: that, and devices are none.
pub(super) const LIMITED: u64 = NOSUID | NODEV;
const CLONE: c_int = 1;
const FROM_ITSELF: usize = 4;
const TO_ITSELF: usize = 0x40;
const NO_LINKS: u64 = 4;
const CLOEXEC: usize = 1;
const SET_TEXT: usize = 1;
const CREATE: usize = 6;
const RECURSIVE: c_int = 0x8000;

/// How much of a tree is meant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Its topmost mount.
    Top,
    /// All mounts in it.
    Whole,
}

impl Extent {
    fn flag(self) -> c_int {
        match self {
            Extent::Top => 0,
            Extent::Whole => RECURSIVE,
        }
    }
}

/// Names what is at a path, unless a link is on the way or at the end.
pub(super) fn name(directory: RawFd, path: &CStr) -> Result<Fd, c_int> {
    // `struct open_how`: flags, mode, how to go there.
    let how = [raw::NAME as u64, 0, NO_LINKS];
    let (path, place) = (path.as_ptr() as usize, how.as_ptr() as usize);
    let arguments = [directory as usize, path, place, size_of_val(&how), 0, 0];
    // SAFETY: a C string, integers, and a live local of that size.
    unsafe { raw::call(libc::SYS_openat2, arguments) }.map(|fd| Fd(fd as RawFd))
}

/// Clones the tree at a path; a link at its end is not followed. An empty path is `directory` itself.
pub(super) fn clone(directory: RawFd, path: &CStr, extent: Extent) -> Result<Fd, c_int> {
    let flags = CLONE | libc::O_CLOEXEC | libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH | extent.flag();
    let arguments = [directory as usize, path.as_ptr() as usize, flags as usize, 0, 0, 0];
    // SAFETY: a C string and integers.
    unsafe { raw::call(libc::SYS_open_tree, arguments) }.map(|fd| Fd(fd as RawFd))
}

/// Makes more hold for a tree.
pub(super) fn restrict(tree: RawFd, attributes: u64, extent: Extent) -> Result<(), c_int> {
    // `struct mount_attr`: set, clear, propagation, user namespace.
    let attributes = [attributes, 0, 0, 0];
    let flags = libc::AT_EMPTY_PATH | extent.flag();
    let (none, place) = (c"".as_ptr() as usize, attributes.as_ptr() as usize);
    let arguments = [tree as usize, none, flags as usize, place, size_of_val(&attributes), 0];
    // SAFETY: a C string, integers, and a live local of that size.
    unsafe { raw::call(libc::SYS_mount_setattr, arguments) }.map(drop)
}

/// Puts a tree in place. An empty path is `directory` itself.
pub(super) fn attach(tree: &Fd, directory: RawFd, path: &CStr) -> Result<(), c_int> {
    let flags = match path.is_empty() {
        true => FROM_ITSELF | TO_ITSELF,
        false => FROM_ITSELF,
    };
    let (from, to) = (c"".as_ptr() as usize, path.as_ptr() as usize);
    // SAFETY: C strings and integers.
    unsafe {
        raw::call(
            libc::SYS_move_mount,
            [tree.0 as usize, from, directory as usize, to, flags, 0],
        )
    }
    .map(drop)
}

/// Makes a file system.
pub(super) fn make(kind: &CStr, options: &[(&CStr, &CStr)], attributes: u64) -> Result<Fd, c_int> {
    let kind = kind.as_ptr() as usize;
    // SAFETY: C strings and integers.
    unsafe {
        let context = Fd(raw::call(libc::SYS_fsopen, [kind, CLOEXEC, 0, 0, 0, 0])? as RawFd);
        let of = context.0 as usize;
        for (key, value) in options {
            let (key, value) = (key.as_ptr() as usize, value.as_ptr() as usize);
            raw::call(libc::SYS_fsconfig, [of, SET_TEXT, key, value, 0, 0])?;
        }
        raw::call(libc::SYS_fsconfig, [of, CREATE, 0, 0, 0, 0])?;
        let made = raw::call(libc::SYS_fsmount, [of, CLOEXEC, attributes as usize, 0, 0, 0])?;
        Ok(Fd(made as RawFd))
    }
}

/// Cuts the ties of all mounts to those that they are copies of.
pub(super) fn cut_ties() -> Result<(), c_int> {
    let how = (libc::MS_REC | libc::MS_PRIVATE) as usize;
    // SAFETY: a C string and an integer.
    unsafe { raw::call(libc::SYS_mount, [0, c"/".as_ptr() as usize, 0, how, 0, 0]) }.map(drop)
}

/// Makes `root`, which lies over the root, the root, and forgets what was under it.
pub(super) fn enter(root: RawFd) -> Result<(), c_int> {
    raw::enter(root)?;
    let here = c".".as_ptr() as usize;
    // SAFETY: C strings and integers.
    unsafe {
        raw::call(libc::SYS_pivot_root, [here, here, 0, 0, 0, 0])?;
        raw::call(libc::SYS_umount2, [here, libc::MNT_DETACH as usize, 0, 0, 0, 0])?;
        raw::call(libc::SYS_chdir, [c"/".as_ptr() as usize, 0, 0, 0, 0, 0]).map(drop)
    }
}
