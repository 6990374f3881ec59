//! Large memory: searched and filled as fast as the system can.

use nix::libc;

/// The place of the first `byte` in `bytes`. Faster than a loop that is compiled for size by a factor of ten or more.
pub fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    // SAFETY: the pointer and the length are those of a live slice.
    let found = unsafe { libc::memchr(bytes.as_ptr().cast(), i32::from(byte), bytes.len()) };
    (!found.is_null()).then(|| found as usize - bytes.as_ptr() as usize)
}

/// Has the kernel provide all of `bytes`, which starts at a page, at once: a page fault for each page costs twice as much.
/// Does nothing on a kernel that cannot (before Linux 5.14), where the pages come one by one as ever.
pub fn provide(bytes: &mut [u8]) {
    // SAFETY: the range is that of a live, exclusive slice, and its content does not change.
    unsafe { libc::madvise(bytes.as_mut_ptr().cast(), bytes.len(), libc::MADV_POPULATE_WRITE) };
}

#[cfg(test)]
mod tests {
    use super::{find, provide};

    #[test]
    fn what_is_provided_is_unchanged() {
        let mut pages = crate::sys::pages::Pages::map(5_000_000.try_into().unwrap()).unwrap();
        pages.fill(7);
        provide(&mut pages);
        provide(&mut []);
        assert!(pages.iter().all(|b| *b == 7));
    }

    #[test]
    fn the_first_is_found() {
        assert_eq!(find(b'c', b"abcabc"), Some(2));
        assert_eq!(find(b'x', b"abc"), None);
        assert_eq!(find(b'x', b""), None);
    }
}
