//! Memory straight from the kernel.

use super::memory;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::io;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A page-aligned, zeroed piece of memory of its own mapping.
///
/// Against a `Vec` of that size: pages that were never touched cost nothing, dropping it gives the memory back to the
/// kernel at once whatever the allocator, and reads into it are as fast as the kernel can copy (a pipe read of 64 KiB
/// into a buffer at page offset 16 costs four times as much as at offset 0).
pub struct Pages {
    start: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: the mapping is private to this value; `&self` gives only `&[u8]`, `&mut self` the only `&mut [u8]`.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// Maps `len` bytes.
    ///
    /// # Errors
    /// What `mmap(2)` said: out of memory or address space.
    pub fn map(len: NonZeroUsize) -> io::Result<Pages> {
        super::reserve::renew()?;
        // SAFETY: an anonymous private mapping at an address the kernel chooses touches no existing memory.
        let start = unsafe {
            mmap_anonymous(
                None,
                len,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_PRIVATE,
            )?
        };
        Ok(Pages {
            start: start.cast(),
            len,
        })
    }

    /// Provides all of it now; see [`memory::provide`].
    pub fn provide(&mut self) {
        memory::provide(self);
    }
}

impl Deref for Pages {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping has `len` readable, initialised bytes and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len.get()) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as `deref`, and `&mut self` makes the reference unique.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len.get()) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made by `map`, to which no reference is left. It can only fail for arguments
        // that were not mapped.
        let _ = unsafe { munmap(self.start.cast(), self.len.get()) };
    }
}

#[cfg(test)]
mod tests {
    use super::Pages;

    #[test]
    fn pages_are_aligned_zeroed_and_writable() {
        let mut pages = Pages::map(70_000.try_into().unwrap()).unwrap();
        assert_eq!(pages.as_ptr().align_offset(4096), 0);
        assert!(pages.len() == 70_000 && pages.iter().all(|b| *b == 0));
        pages[69_999] = 7;
        assert_eq!(pages[69_999], 7);
    }
}
