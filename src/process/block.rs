//! The memory that output lies in.

use crate::sys::memory;
use crate::sys::slabs::{PIECE_BYTES, Piece};
use std::io;
use std::sync::Arc;

/// The size of a [`Block`], in bytes: what a pipe holds on Linux, so one read can empty it. Smaller blocks cost more
/// CPU per byte (measured over 4 to 64 KiB: 1.5 to 0.55 s/GiB for read, encode and write), larger ones hardly less.
pub const BLOCK_BYTES: usize = PIECE_BYTES;

/// A chunk that fills less of a block than this is copied to a place of its own size, so that what is retained never
/// takes more than twice its size.
const WORTH_A_BLOCK: usize = BLOCK_BYTES / 2;

/// Page-aligned memory that a descriptor is read into.
pub struct Block(Piece);

impl Block {
    /// A block of memory.
    ///
    /// # Errors
    /// What the system said: out of memory.
    pub fn new() -> io::Result<Block> {
        Piece::take().map(Block)
    }

    /// A block that will be filled: its pages are there from the beginning, which is cheaper than one by one.
    ///
    /// # Errors
    /// What the system said: out of memory.
    pub fn provided() -> io::Result<Block> {
        let mut block = Block::new()?;
        memory::provide(&mut block.0);
        Ok(block)
    }

    /// All of the block, to be read into.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.0
    }

    /// The first `len` bytes as shared bytes. The block itself is used up when they fill enough of it, and given back
    /// otherwise.
    pub fn take(self, len: usize) -> (Bytes, Option<Block>) {
        if len >= WORTH_A_BLOCK {
            (Bytes(Data::Block(Arc::new(self), len)), None)
        } else {
            (Bytes::from(&self.0[..len]), Some(self))
        }
    }
}

/// Some bytes of output: immutable, cheap to clone.
#[derive(Clone)]
pub struct Bytes(Data);

#[derive(Clone)]
enum Data {
    Own(Arc<[u8]>),
    Block(Arc<Block>, usize),
}

impl Bytes {
    /// The block they lie in, if they lie in one and nobody else holds them.
    pub fn into_block(self) -> Option<Block> {
        match self.0 {
            Data::Block(block, _) => Arc::into_inner(block),
            Data::Own(_) => None,
        }
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Bytes {
        Bytes(Data::Own(bytes.into()))
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::ops::Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Data::Own(bytes) => bytes,
            Data::Block(block, len) => &block.0[..*len],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_copied_and_much_is_not() {
        let mut block = Block::new().unwrap();
        block.space()[..3].copy_from_slice(b"abc");
        let (little, block) = block.take(3);
        assert_eq!(*little, *b"abc");
        assert!(little.into_block().is_none());
        let (much, none) = block.unwrap().take(WORTH_A_BLOCK);
        assert!(none.is_none() && much.len() == WORTH_A_BLOCK && much.starts_with(b"abc"));
        let shared = much.clone();
        assert!(much.into_block().is_none());
        assert!(shared.into_block().is_some());
    }
}
