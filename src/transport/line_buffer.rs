//! The memory that lines are received in.

use super::large_memory::{Large, LargeMemory};
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut, Range};
use tungstenite::Bytes;

/// Initialized bytes: a vector for what is usual, large memory for long lines.
///
/// Large memory can be had for the longest line there may be, because only what is filled of it takes any; so a long line is
/// not copied from one buffer to the next larger one again and again.
#[derive(Debug)]
pub(super) enum LineBuffer {
    Heap(Vec<u8>),
    Large(Large),
}

impl LineBuffer {
    /// Large memory of `len` bytes that begins with `start`; if there is no room for that, a vector of `fallback` bytes.
    pub(super) fn long(memory: &LargeMemory, start: &[u8], len: usize, fallback: usize) -> LineBuffer {
        let mut buffer = match NonZeroUsize::new(len).and_then(|len| memory.get(len).ok()) {
            Some(large) => LineBuffer::Large(large),
            None => LineBuffer::Heap(vec![0; fallback]),
        };
        buffer.provide(start.len());
        buffer[..start.len()].copy_from_slice(start);
        buffer
    }

    /// Gets large memory ready to be filled for some way from `end`.
    pub(super) fn provide(&mut self, end: usize) {
        if let LineBuffer::Large(large) = self {
            large.provide(end);
        }
    }

    /// Some of it to keep, with all its memory.
    pub(super) fn keep(self, range: Range<usize>) -> Bytes {
        match self {
            LineBuffer::Heap(mut bytes) => {
                bytes.truncate(range.end);
                Bytes::from(bytes).slice(range)
            }
            LineBuffer::Large(large) => Bytes::from_owner(large).slice(range),
        }
    }
}

impl Deref for LineBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            LineBuffer::Heap(bytes) => bytes,
            LineBuffer::Large(large) => large,
        }
    }
}

impl DerefMut for LineBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            LineBuffer::Heap(bytes) => bytes,
            LineBuffer::Large(large) => large,
        }
    }
}
