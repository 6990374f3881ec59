//! What the operating system offers and no safe interface covers: the crate's only unsafe code.
//!
//! Each file wraps one facility in a safe type or function. Everything that the `nix` crate already offers safely is
//! used from there, not wrapped again.
#![allow(unsafe_code)]

pub mod allocator;
pub mod confine;
pub(crate) mod defect;
pub mod descriptor;
pub mod ioctl;
pub mod keeper;
mod kept_memory;
pub mod landlock;
pub mod mark;
pub mod memory;
pub mod pages;
pub mod pidfd;
pub mod pty;
pub mod random;
mod raw;
pub mod reserve;
pub mod signals;
pub mod slabs;
pub mod spawn;
pub mod statx;
pub mod thread;
