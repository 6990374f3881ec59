//! The memory that lines are received in.

use crate::sys::pages::Pages;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut, Range};
use tungstenite::Bytes;

/// Bytes of a mapping that are provided ahead of being filled, at a time.
const AHEAD: usize = 1024 * 1024;

/// Initialized bytes: a vector for what is usual, a mapping of its own for long lines.
///
/// A mapping can be made for the longest line there may be, because only what is filled takes memory; so a long line is
/// not copied from one buffer to the next larger one again and again.
#[derive(Debug)]
pub(super) enum LineBuffer {
    Heap(Vec<u8>),
    Mapped { pages: Mapping, provided: usize },
}

/// Pages that can be debugged and shared.
pub(super) struct Mapping(Pages);

impl std::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} pages' bytes", self.0.len())
    }
}

impl AsRef<[u8]> for Mapping {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl LineBuffer {
    /// A mapping of `len` bytes that begins with `start`; if there is no room for that, a vector of `fallback` bytes.
    pub(super) fn long(start: &[u8], len: usize, fallback: usize) -> LineBuffer {
        let mut buffer = match NonZeroUsize::new(len).and_then(|len| Pages::map(len).ok()) {
            Some(pages) => LineBuffer::Mapped {
                pages: Mapping(pages),
                provided: 0,
            },
            None => LineBuffer::Heap(vec![0; fallback]),
        };
        buffer.provide(start.len());
        buffer[..start.len()].copy_from_slice(start);
        buffer
    }

    /// Gets a mapping ready to be filled for some way from `end`.
    pub(super) fn provide(&mut self, end: usize) {
        if let LineBuffer::Mapped {
            pages: Mapping(pages),
            provided,
        } = self
            && *provided < end + AHEAD / 4
        {
            let to = (end + AHEAD).next_multiple_of(AHEAD).min(pages.len());
            if let Some(next) = pages.get_mut(*provided..to) {
                crate::sys::memory::provide(next);
            }
            *provided = to;
        }
    }

    /// Some of it to keep, with all its memory.
    pub(super) fn keep(self, range: Range<usize>) -> Bytes {
        match self {
            LineBuffer::Heap(mut bytes) => {
                bytes.truncate(range.end);
                Bytes::from(bytes).slice(range)
            }
            LineBuffer::Mapped { pages, .. } => Bytes::from_owner(pages).slice(range),
        }
    }
}

impl Deref for LineBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            LineBuffer::Heap(bytes) => bytes,
            LineBuffer::Mapped { pages, .. } => &pages.0,
        }
    }
}

impl DerefMut for LineBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            LineBuffer::Heap(bytes) => bytes,
            LineBuffer::Mapped { pages, .. } => &mut pages.0,
        }
    }
}
