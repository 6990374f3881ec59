//! Memory for the moment when there is no more.
//!
//! Where a program's memory is limited, what asks for much of it is refused with an error, and that is all: threads, the
//! memory that output lies in, large messages. A little that Rust's own collections ask for can't be refused; they end the
//! program. So some address space is kept back, which the former can't have and the latter get. Nothing is ever in it, so it
//! takes no memory.

use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::num::NonZeroUsize;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// How much is to be kept back; 0 for nothing.
static BYTES: AtomicUsize = AtomicUsize::new(0);
/// Where it is, if it is there.
static START: AtomicPtr<libc::c_void> = AtomicPtr::new(std::ptr::null_mut());

/// The allocator for a program that is not to end because it has no more memory.
pub struct Reserving;

// SAFETY: all that the system's own allocator promises; what it can't do is tried again.
unsafe impl GlobalAlloc for Reserving {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        again(&mut || unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises.
        again(&mut || unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises. What could not be made larger is as it was.
        again(&mut || unsafe { System.realloc(old, layout, size) })
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(old, layout) }
    }
}

fn again(attempt: &mut dyn FnMut() -> *mut u8) -> *mut u8 {
    match attempt() {
        none if none.is_null() => {
            give_up();
            attempt()
        }
        memory => memory,
    }
}

fn give_up() {
    if let Some(start) = NonNull::new(START.swap(std::ptr::null_mut(), Ordering::AcqRel)) {
        // SAFETY: the mapping that `renew` made, and that nobody else has taken.
        let _ = unsafe { munmap(start, BYTES.load(Ordering::Relaxed)) };
    }
}

/// Keeps back half of the address space that is left, from now on, if that is limited. What the limits of a server let the
/// collections have is less.
pub fn keep_back() {
    if let Some(left) = address_space_left() {
        BYTES.store(usize::try_from(left / 2).unwrap_or(0), Ordering::Relaxed);
        // Without it things are as they are.
        let _ = renew();
    }
}

fn address_space_left() -> Option<u64> {
    let limit = getrlimit(Resource::RLIMIT_AS).map_or(libc::RLIM_INFINITY, |limits| limits.0);
    (limit != libc::RLIM_INFINITY).then(|| {
        let used = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages: u64 = used.split(' ').next().and_then(|pages| pages.parse().ok()).unwrap_or(0);
        let page = sysconf(SysconfVar::PAGE_SIZE)
            .ok()
            .flatten()
            .map_or(4096, |bytes| bytes as u64);
        limit.saturating_sub(pages * page)
    })
}

/// Called before much memory is asked for: has what was kept back, and was needed, kept back again.
///
/// # Errors
/// `ENOMEM`: there is nothing else left.
pub(super) fn renew() -> io::Result<()> {
    let bytes = NonZeroUsize::new(BYTES.load(Ordering::Relaxed));
    if let Some(bytes) = bytes.filter(|_| START.load(Ordering::Relaxed).is_null()) {
        // SAFETY: a mapping at an address that the kernel chooses, which nobody may touch.
        let start = unsafe { mmap_anonymous(None, bytes, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE)? };
        let none = std::ptr::null_mut();
        let kept = START.compare_exchange(none, start.as_ptr(), Ordering::AcqRel, Ordering::Relaxed);
        if kept.is_err() {
            // SAFETY: what was just mapped; another thread was faster.
            let _ = unsafe { munmap(start, bytes.get()) };
        }
    }
    Ok(())
}

/// How much memory this program can have: what is left of its address space, what the machine has, and what its cgroup and
/// those above may have.
pub fn limit() -> u64 {
    let own = address_space_left().unwrap_or(u64::MAX);
    own.min(of_machine()).min(of_cgroup())
}

fn of_machine() -> u64 {
    let mut found = MaybeUninit::<libc::sysinfo>::zeroed();
    // SAFETY: room for a whole `sysinfo`, of which zeroes are a valid one.
    let found = unsafe {
        libc::sysinfo(found.as_mut_ptr());
        found.assume_init()
    };
    match (found.totalram as usize as u64).saturating_mul(found.mem_unit.into()) {
        0 => u64::MAX,
        bytes => bytes,
    }
}

fn of_cgroup() -> u64 {
    const ALL: &str = "/sys/fs/cgroup";
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap_or_default();
    let limits = Path::new(ALL).join(own);
    let limits = limits.ancestors().take_while(|group| group.starts_with(ALL));
    let limits = limits.filter_map(|group| {
        fs::read_to_string(group.join("memory.max"))
            .ok()?
            .trim_ascii()
            .parse()
            .ok()
    });
    limits.min().unwrap_or(u64::MAX)
}
