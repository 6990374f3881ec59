//! Page-aligned pieces of memory, many to a mapping.
//!
//! To map and unmap takes the lock of the whole address space, which all threads of a process share; with a hundred
//! threads that read output into mappings of their own they waited for each other more than they read. Here only every
//! sixteenth piece maps anything.

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
use std::io;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The size of a piece, in bytes.
pub const PIECE_BYTES: usize = 64 * 1024;

/// The pieces of a slab, one a bit of a `u16`.
const PIECES: usize = u16::BITS as usize;

const SLAB: NonZeroUsize = NonZeroUsize::new(PIECES * PIECE_BYTES).expect("a constant above zero");

/// A free piece keeps the memory that it has as long as there are no more of them than this.
const WARM_PIECES: usize = 2;

static SLABS: Mutex<Slabs> = Mutex::new(Slabs {
    open: Vec::new(),
    warm: Vec::new(),
});

struct Slabs {
    /// Those with free pieces.
    open: Vec<Arc<Slab>>,
    /// Free pieces that count as taken.
    warm: Vec<Piece>,
}

struct Slab {
    start: NonNull<u8>,
    /// Changed under the lock of [`SLABS`] only.
    taken: AtomicU16,
}

// SAFETY: the mapping is this value's own, and it gives no access to it; the pieces do, each to its own part.
unsafe impl Send for Slab {}
// SAFETY: as above.
unsafe impl Sync for Slab {}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made by `Piece::take`, to which no reference is left: pieces keep their slab.
        let _ = unsafe { munmap(self.start.cast(), SLAB.get()) };
    }
}

/// [`PIECE_BYTES`] bytes at the start of a page. What is in them at first is anything. Dropped, it gives its memory back
/// to the kernel, or to the next one.
pub struct Piece {
    slab: Arc<Slab>,
    index: usize,
}

impl Piece {
    /// Takes a piece.
    ///
    /// # Errors
    /// What `mmap(2)` said: out of memory or address space.
    pub fn take() -> io::Result<Piece> {
        let mut slabs = slabs();
        if let Some(warm) = slabs.warm.pop() {
            return Ok(warm);
        }
        let slab = match slabs.open.last() {
            Some(slab) => slab.clone(),
            None => {
                super::reserve::renew()?;
                let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
                // SAFETY: an anonymous private mapping at an address the kernel chooses touches no existing memory.
                let start = unsafe { mmap_anonymous(None, SLAB, access, MapFlags::MAP_PRIVATE)? }.cast();
                let taken = AtomicU16::new(0);
                let slab = Arc::new(Slab { start, taken });
                slabs.open.push(slab.clone());
                slab
            }
        };
        let taken = slab.taken.load(Ordering::Relaxed);
        let index = taken.trailing_ones() as usize;
        let taken = taken | 1 << index;
        slab.taken.store(taken, Ordering::Relaxed);
        if taken == u16::MAX {
            slabs.open.pop();
        }
        Ok(Piece { slab, index })
    }

    fn start(&self) -> NonNull<u8> {
        // SAFETY: `index` is below `PIECES`, so this is inside of the slab.
        unsafe { self.slab.start.add(self.index * PIECE_BYTES) }
    }
}

impl Deref for Piece {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the part of the mapping that is this piece's alone; readable, initialized, there as long as the slab.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), PIECE_BYTES) }
    }
}

impl DerefMut for Piece {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as `deref`, and `&mut self` makes the reference unique.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), PIECE_BYTES) }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let mut slabs = slabs();
        if slabs.warm.len() < WARM_PIECES {
            let (slab, index) = (self.slab.clone(), self.index);
            return slabs.warm.push(Piece { slab, index });
        }
        drop(slabs);
        // SAFETY: this piece's own part of the mapping, to which no reference is left. What was in it is of no use any
        // more.
        let _ = unsafe { madvise(self.start().cast(), PIECE_BYTES, MmapAdvise::MADV_DONTNEED) };
        let mut slabs = self::slabs();
        let taken = self.slab.taken.load(Ordering::Relaxed);
        if taken == u16::MAX {
            slabs.open.push(self.slab.clone());
        }
        let taken = taken & !(1 << self.index);
        self.slab.taken.store(taken, Ordering::Relaxed);
        let unused = slabs
            .open
            .iter()
            .position(|slab| taken == 0 && Arc::ptr_eq(slab, &self.slab));
        let unused = unused.map(|place| slabs.open.swap_remove(place));
        // Without the lock: it unmaps.
        drop(slabs);
        drop(unused);
    }
}

fn slabs() -> MutexGuard<'static, Slabs> {
    SLABS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn pieces_are_aligned_and_their_own() {
        let mut pieces: Vec<Piece> = (0..3 * PIECES).map(|_| Piece::take().unwrap()).collect();
        for (i, piece) in pieces.iter_mut().enumerate() {
            assert_eq!((piece.len(), piece.as_ptr().align_offset(4096)), (PIECE_BYTES, 0));
            piece.fill(i as u8);
        }
        // Some go and others come, in an order that empties and fills slabs.
        for round in 0..200 {
            let gone = pieces.swap_remove(round * 7 % pieces.len());
            let value = gone[0];
            drop(gone);
            let mut piece = Piece::take().unwrap();
            piece.fill(value);
            pieces.push(piece);
        }
        let mut values: Vec<u8> = Vec::new();
        for piece in &pieces {
            assert!(piece.iter().all(|byte| *byte == piece[0]));
            values.push(piece[0]);
        }
        values.sort_unstable();
        assert!(values.iter().enumerate().all(|(i, value)| usize::from(*value) == i));
    }

    #[test]
    fn threads_do_not_get_in_each_others_way() {
        let threads: Vec<_> = (0..8u8)
            .map(|n| {
                thread::spawn(move || {
                    for round in 0..200 {
                        let mut held: Vec<Piece> = (0..round % 20).map(|_| Piece::take().unwrap()).collect();
                        held.iter_mut().for_each(|piece| piece[..64].fill(n));
                        assert!(held.iter().all(|piece| piece[..64] == [n; 64]));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
