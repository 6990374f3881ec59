//! Memory for the few messages that are large.

use crate::sys::memory;
use crate::sys::pages::Pages;
use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that are provided ahead of being filled, at a time.
const AHEAD: usize = 512 * 1024;

/// Gives out large pieces of memory, and keeps one that came back for whoever is next.
///
/// The kernel takes longer to provide and zero fresh pages than everything else takes that is done with a large message
/// (measured: 20 of 50 ms for 45 MB). What is kept must be given up again when there is no more use for it, see
/// [`tidy`](LargeMemory::tidy).
#[derive(Clone)]
pub struct LargeMemory(Arc<Shared>);

struct Shared {
    kept: Mutex<Kept>,
    /// The most that is kept, in bytes; 0 keeps nothing.
    most: usize,
    /// Called when something is kept and nobody is going to tidy yet.
    untidy: Box<dyn Fn(LargeMemory) + Send + Sync>,
}

#[derive(Default)]
struct Kept {
    /// The memory, and how much of its beginning was ever provided.
    piece: Option<(Pages, usize)>,
    in_use: bool,
    will_tidy: bool,
}

impl LargeMemory {
    /// Keeps pieces of which up to `most` bytes were used. `untidy` is told when somebody ought to call
    /// [`tidy`](LargeMemory::tidy) after a while.
    pub fn keeping(most: usize, untidy: impl Fn(LargeMemory) + Send + Sync + 'static) -> LargeMemory {
        LargeMemory(Arc::new(Shared {
            kept: Mutex::default(),
            most,
            untidy: Box::new(untidy),
        }))
    }

    /// Keeps nothing.
    pub fn keeping_nothing() -> LargeMemory {
        LargeMemory::keeping(0, |_| ())
    }

    /// At least `len` bytes, of which any may have been used before.
    ///
    /// # Errors
    /// What the system said: out of memory or address space.
    pub fn get(&self, len: NonZeroUsize) -> io::Result<Large> {
        let mut kept = self.kept();
        kept.in_use = true;
        let fitting = kept.piece.take_if(|(pages, _)| pages.len() >= len.get());
        drop(kept);
        let (pages, provided) = match fitting {
            Some(piece) => piece,
            None => (Pages::map(len)?, 0),
        };
        Ok(Large {
            pages: Some(pages),
            provided,
            home: self.clone(),
        })
    }

    /// Gives up what is kept, if it was not used since the last call. Whether to call again after a while.
    pub fn tidy(&self) -> bool {
        let mut kept = self.kept();
        if std::mem::take(&mut kept.in_use) {
            return true;
        }
        kept.will_tidy = false;
        let piece = kept.piece.take();
        drop(kept);
        drop(piece);
        false
    }

    fn put_back(&self, pages: Pages, provided: usize) {
        if provided > self.0.most {
            return;
        }
        let mut kept = self.kept();
        let other = kept.piece.replace((pages, provided));
        kept.in_use = true;
        let untidy = !std::mem::replace(&mut kept.will_tidy, true);
        drop(kept);
        drop(other);
        if untidy {
            (self.0.untidy)(self.clone());
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LargeMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "large memory of which up to {} bytes are kept", self.0.most)
    }
}

/// A large piece of memory. Only what is filled of it takes any.
pub struct Large {
    /// There until it goes back.
    pages: Option<Pages>,
    provided: usize,
    home: LargeMemory,
}

impl Large {
    /// Gets it ready to be filled for some way from `end`: a page fault for each page would cost twice as much.
    pub fn provide(&mut self, end: usize) {
        if self.provided >= end + AHEAD / 4 {
            return;
        }
        let to = (end + AHEAD).next_multiple_of(AHEAD).min(self.len());
        let from = self.provided;
        if let Some(next) = self.get_mut(from..to) {
            memory::provide(next);
        }
        self.provided = to;
    }
}

impl Deref for Large {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.pages.as_deref().unwrap_or_default()
    }
}

impl DerefMut for Large {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.pages.as_deref_mut().unwrap_or_default()
    }
}

impl AsRef<[u8]> for Large {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Drop for Large {
    fn drop(&mut self) {
        if let Some(pages) = self.pages.take() {
            self.home.put_back(pages, self.provided);
        }
    }
}

impl fmt::Debug for Large {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of large memory", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn len(len: usize) -> NonZeroUsize {
        NonZeroUsize::new(len).unwrap()
    }

    #[test]
    fn one_piece_is_kept_until_it_was_not_used_for_a_while() {
        let asked = Arc::new(AtomicUsize::new(0));
        let asking = asked.clone();
        let memory = LargeMemory::keeping(3 * AHEAD, move |_| {
            asking.fetch_add(1, Ordering::Relaxed);
        });
        let is_kept = |memory: &LargeMemory| memory.kept().piece.is_some();
        let mut first = memory.get(len(8 * AHEAD)).unwrap();
        first.provide(10);
        first[..4].copy_from_slice(b"used");
        drop(first);
        let again = memory.get(len(AHEAD)).unwrap();
        assert_eq!((&again[..4], again.len()), (&b"used"[..], 8 * AHEAD));
        let other = memory.get(len(AHEAD)).unwrap();
        assert_eq!(other[..4], [0; 4]);
        drop((again, other));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert!(memory.tidy() && is_kept(&memory));
        assert!(!memory.tidy() && !is_kept(&memory));
        let mut long = memory.get(len(8 * AHEAD)).unwrap();
        long.provide(4 * AHEAD);
        drop(long);
        assert!(!is_kept(&memory), "more than is to be kept");
        drop(memory.get(len(1)));
        assert!(is_kept(&memory) && asked.load(Ordering::Relaxed) == 2);
    }

    #[test]
    fn memory_is_provided_ahead() {
        let memory = LargeMemory::keeping_nothing();
        let mut large = memory.get(len(5 * AHEAD / 2)).unwrap();
        for (end, provided) in [
            (0, AHEAD),
            (AHEAD / 2, AHEAD),
            (AHEAD, 2 * AHEAD),
            (5 * AHEAD / 2, 5 * AHEAD / 2),
        ] {
            large.provide(end);
            assert_eq!(large.provided, provided);
        }
        drop(large);
        assert!(memory.kept().piece.is_none());
    }
}
