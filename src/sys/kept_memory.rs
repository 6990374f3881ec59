//! The memory of a copy of this process that never executes anything.
//!
//! It gives back what it was a copy of, all memory but the program text and a stack, and from then on makes system calls
//! by its own means ([`raw`]), because the C library's need memory that is not there any more.

use super::raw;
use nix::libc::{self, c_int, c_void};

/// How many pieces of memory a process keeps at most.
const MAX_PIECES: usize = 16;

/// The memory that a process keeps: the program, its libraries, which are where the compiler has memory copied and
/// compared, and a stack. In a static program that is two pieces.
#[derive(Clone, Copy)]
pub(super) struct KeptMemory {
    /// From where to where, in order.
    pieces: [(usize, usize); MAX_PIECES],
    len: usize,
}

/// The largest size of a page, on any architecture.
const PAGE: usize = 64 * 1024;

impl KeptMemory {
    /// Of a process whose stack lies in `stack`. To be called before it is made, where there is a C library.
    pub(super) fn of(stack: &[u8]) -> KeptMemory {
        let mut kept = KeptMemory {
            pieces: [(0, 0); MAX_PIECES],
            len: 0,
        };
        let range = stack.as_ptr_range();
        kept.add(range.start as usize, range.end as usize);
        // SAFETY: `add_loaded` takes what it is given here.
        unsafe { libc::dl_iterate_phdr(Some(add_loaded), (&raw mut kept).cast()) };
        kept
    }

    /// Adds a piece. Those that touch become one, and so does all that there is no room for.
    fn add(&mut self, from: usize, to: usize) {
        let at = self.pieces[..self.len].partition_point(|piece| piece.0 <= from);
        if at > 0 && (from <= self.pieces[at - 1].1 || self.len == MAX_PIECES) {
            let piece = &mut self.pieces[at - 1];
            piece.1 = piece.1.max(to);
        } else if self.len == MAX_PIECES {
            self.pieces[0].0 = from;
        } else {
            self.pieces.copy_within(at..self.len, at + 1);
            self.pieces[at] = (from, to);
            self.len += 1;
        }
    }
}

/// Adds what a program or library has in memory.
unsafe extern "C" fn add_loaded(object: *mut libc::dl_phdr_info, _: usize, kept: *mut c_void) -> c_int {
    // SAFETY: the C library describes an object that is loaded, and passes on what it was given.
    unsafe {
        let (object, kept) = (&*object, &mut *kept.cast::<KeptMemory>());
        for n in 0..usize::from(object.dlpi_phnum) {
            let part = &*object.dlpi_phdr.add(n);
            if part.p_type == libc::PT_LOAD {
                let from = (object.dlpi_addr as usize).wrapping_add(part.p_vaddr as usize);
                let to = from + part.p_memsz as usize;
                kept.add(from & !(PAGE - 1), to.next_multiple_of(PAGE));
            }
        }
    }
    0
}

/// Gives all memory back but what is kept.
///
/// # Safety
/// To be called in a process that nothing else runs in, on a kept stack. From then on it must touch no other memory, make
/// system calls by [`raw`] only, and end itself.
pub(super) unsafe fn give_memory_back(kept: KeptMemory) {
    let mut from = PAGE;
    for (start, end) in &kept.pieces[..kept.len] {
        // SAFETY: what lies between is used by nobody any more.
        let _ = unsafe { unmap(from, *start) };
        from = from.max(*end);
    }
    // How far addresses go differs between machines, and asking for more is an error: so as much as there is, in pieces that
    // are each half as large as the one before.
    for bits in (PAGE.ilog2()..usize::BITS).rev() {
        let to = from.saturating_add(1 << bits);
        // SAFETY: as above.
        if unsafe { unmap(from, to) }.is_ok() {
            from = to;
        }
    }
}

unsafe fn unmap(from: usize, to: usize) -> Result<usize, c_int> {
    if from >= to {
        return Ok(0);
    }
    // SAFETY: as the caller promises.
    unsafe { raw::call(libc::SYS_munmap, [from, to - from, 0, 0, 0, 0]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_pieces_are_in_order_and_apart() {
        let mut kept = KeptMemory {
            pieces: [(0, 0); MAX_PIECES],
            len: 0,
        };
        for (from, to) in [(50, 60), (10, 20), (30, 40), (20, 25), (55, 70)] {
            kept.add(from, to);
        }
        assert_eq!(kept.pieces[..kept.len], [(10, 25), (30, 40), (50, 70)]);
        for n in 1..=20 {
            kept.add(100 * n, 100 * n + 10);
        }
        assert_eq!(kept.len, MAX_PIECES);
        assert_eq!(kept.pieces[MAX_PIECES - 1], (1300, 2010));
        kept.add(1, 2);
        assert_eq!(kept.pieces[0], (1, 25));
    }

    #[test]
    fn this_very_code_is_kept() {
        let stack = [0; 10];
        let kept = KeptMemory::of(&stack);
        let is_kept = |at: usize| {
            kept.pieces[..kept.len]
                .iter()
                .any(|(from, to)| (*from..*to).contains(&at))
        };
        assert!(is_kept(this_very_code_is_kept as fn() as usize));
        assert!(is_kept(libc::memcpy as *const () as usize));
        assert!(is_kept(stack.as_ptr() as usize));
    }
}
