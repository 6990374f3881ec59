//! The text of one answer, small or large, or with bytes beside it.

use crate::transport::large_memory::{Large, LargeMemory};
use std::io;
use std::num::NonZeroUsize;
use tungstenite::Bytes;

/// The text of a message that is put together piece by piece.
///
/// It begins as an ordinary vector. One whose length is known to be large can move to memory of that length: it is not
/// copied from one place to the next larger one, and too little memory is an error and not the end of the program.
pub(super) enum AnswerText {
    Small(Vec<u8>),
    Large {
        memory: Large,
        len: usize,
    },
    /// A text with an empty string in it that stands for the bytes, for a client in this program.
    Raw {
        text: Vec<u8>,
        bulk: Bytes,
    },
}

/// Room after a large text for what ends the message.
const TAIL: usize = 64;

impl AnswerText {
    /// Makes room for `more` bytes in large memory, and a few for what follows them.
    ///
    /// # Errors
    /// There is not that much memory.
    pub(super) fn expect(&mut self, more: usize, memory: &LargeMemory) -> io::Result<()> {
        let head = self.bytes();
        let room = head
            .len()
            .checked_add(more)
            .and_then(|room| room.checked_add(TAIL))
            .and_then(NonZeroUsize::new);
        let room = room.ok_or(io::ErrorKind::OutOfMemory)?;
        let mut memory = memory.get(room)?;
        memory.provide(room.get());
        memory[..head.len()].copy_from_slice(head);
        let len = head.len();
        *self = AnswerText::Large { memory, len };
        Ok(())
    }

    /// The rest of large memory, to be written to; nothing in a small text.
    pub(super) fn spare(&mut self) -> &mut [u8] {
        match self {
            AnswerText::Small(_) | AnswerText::Raw { .. } => &mut [],
            AnswerText::Large { memory, len } => &mut memory[*len..],
        }
    }

    /// The first `n` bytes of [`spare`](AnswerText::spare) have been written to.
    pub(super) fn written(&mut self, n: usize) {
        if let AnswerText::Large { memory, len } = self {
            *len = (*len + n).min(memory.len());
        }
    }

    /// Adds to the text.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        match self {
            AnswerText::Small(text) | AnswerText::Raw { text, .. } => text.extend_from_slice(bytes),
            AnswerText::Large { memory, len } if memory.len() - *len >= bytes.len() => {
                memory[*len..*len + bytes.len()].copy_from_slice(bytes);
                *len += bytes.len();
            }
            AnswerText::Large { .. } => *self = AnswerText::Small([self.bytes(), bytes].concat()),
        }
    }

    /// Takes the text, as an ordinary vector, and leaves none.
    pub(super) fn take(&mut self) -> Vec<u8> {
        match std::mem::replace(self, AnswerText::Small(Vec::new())) {
            AnswerText::Small(text) | AnswerText::Raw { text, .. } => text,
            large @ AnswerText::Large { .. } => large.bytes().to_vec(),
        }
    }

    /// Has bytes beside the text, for which an empty string was just begun.
    pub(super) fn attach(&mut self, bulk: Bytes) {
        let text = self.take();
        *self = AnswerText::Raw { text, bulk };
    }

    /// The text so far.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            AnswerText::Small(text) | AnswerText::Raw { text, .. } => text,
            AnswerText::Large { memory, len } => &memory[..*len],
        }
    }

    /// The text as shared bytes.
    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            AnswerText::Small(text) | AnswerText::Raw { text, .. } => text.into(),
            large @ AnswerText::Large { .. } => Bytes::from_owner(large),
        }
    }

    /// How many bytes it is, with those beside the text.
    pub(super) fn len(&self) -> usize {
        let beside = match self {
            AnswerText::Raw { bulk, .. } => bulk.len(),
            AnswerText::Small(_) | AnswerText::Large { .. } => 0,
        };
        self.bytes().len() + beside
    }
}

impl AsRef<[u8]> for AnswerText {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_can_become_large_and_larger_than_expected() {
        let memory = LargeMemory::keeping_nothing();
        let mut text = AnswerText::Small(b"head ".to_vec());
        text.expect(100_000, &memory).unwrap();
        text.spare()[..6].copy_from_slice(b"middle");
        text.written(6);
        text.push(b" tail");
        assert_eq!(text.bytes(), b"head middle tail");
        text.push(&[b'x'; 200_000]);
        assert_eq!(text.len(), 200_016);
        assert!(text.bytes().starts_with(b"head middle tailxxx"));
        assert!(AnswerText::Small(Vec::new()).expect(usize::MAX, &memory).is_err());
    }

    #[test]
    fn a_text_can_have_bytes_beside_it() {
        let mut text = AnswerText::Small(b"head \"".to_vec());
        text.attach(Bytes::from_static(b"bytes"));
        text.push(b"\" tail");
        assert_eq!((text.bytes(), text.len()), (&b"head \"\" tail"[..], 17));
        let AnswerText::Raw { bulk, .. } = &text else {
            panic!("no bytes");
        };
        assert_eq!(bulk, "bytes");
    }
}
