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

/// Combines `bytes` with `key`, over and over again, by exclusive or. Eight bytes at a time.
pub fn xor(bytes: &mut [u8], key: [u8; 4]) {
    let [a, b, c, d] = key;
    let eight = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ eight).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::{find, provide, xor};

    #[test]
    fn every_byte_meets_its_part_of_the_key() {
        let mut bytes: Vec<u8> = (0..29).collect();
        xor(&mut bytes, [1, 2, 4, 8]);
        assert!(
            bytes
                .iter()
                .enumerate()
                .all(|(i, b)| *b == i as u8 ^ [1, 2, 4, 8][i % 4])
        );
    }

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
