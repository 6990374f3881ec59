//! Settings of the C library's allocator.

/// Keeps a many-threaded program's heap in few arenas.
///
/// glibc gives threads that contend an arena of their own, up to eight per CPU; each keeps what it once had, so that
/// a server that has run a thousand supervisor threads stays large for ever. Two arenas are enough for the little
/// that is allocated here. Other C libraries have one heap, and this does nothing.
pub fn limit_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets a parameter of the allocator, and has no preconditions.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        // Without this, freeing one large block raises the limit from which blocks are given back to the kernel.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * 1024);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 * 1024);
    }
}

/// Gives the system back what is free in the middle of the heap.
///
/// glibc does that by itself only at the heap's end, where after thousands of processes there is always something that
/// lives on. It takes some ten microseconds in a small heap and some milliseconds in a large one. Other C libraries need
/// it less, and this does nothing.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(target_env = "gnu")]
use nix::libc;
