//! The text of one answer, small or large.

use crate::sys::pages::Pages;
use std::io;
use std::num::NonZeroUsize;
use tungstenite::Bytes;

/// The text of a message that is put together piece by piece.
///
/// It begins as an ordinary vector. One whose length is known to be large can move to memory of its own, mapped at that
/// length: it is zeroed by nobody and copied by nobody, what is not filled costs nothing, too little memory is an error
/// and not the end of the program, and all of it goes back to the kernel when it is written.
pub(super) enum AnswerText {
    Small(Vec<u8>),
    Large { pages: Pages, len: usize },
}

/// Room after a large text for what ends the message.
const TAIL: usize = 64;

impl AnswerText {
    /// Makes room for `more` bytes in large memory, and a few for what follows them.
    ///
    /// # Errors
    /// There is not that much memory.
    pub(super) fn expect(&mut self, more: usize) -> io::Result<()> {
        let head = self.bytes();
        let room = head
            .len()
            .checked_add(more)
            .and_then(|room| room.checked_add(TAIL))
            .and_then(NonZeroUsize::new);
        let mut pages = Pages::map(room.ok_or(io::ErrorKind::OutOfMemory)?)?;
        pages.provide();
        pages[..head.len()].copy_from_slice(head);
        *self = AnswerText::Large { len: head.len(), pages };
        Ok(())
    }

    /// The rest of large memory, to be written to; nothing in a small text.
    pub(super) fn spare(&mut self) -> &mut [u8] {
        match self {
            AnswerText::Small(_) => &mut [],
            AnswerText::Large { pages, len } => &mut pages[*len..],
        }
    }

    /// The first `n` bytes of [`spare`](AnswerText::spare) have been written to.
    pub(super) fn written(&mut self, n: usize) {
        if let AnswerText::Large { pages, len } = self {
            *len = (*len + n).min(pages.len());
        }
    }

    /// Adds to the text.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        match self {
            AnswerText::Small(text) => text.extend_from_slice(bytes),
            AnswerText::Large { pages, len } if pages.len() - *len >= bytes.len() => {
                pages[*len..*len + bytes.len()].copy_from_slice(bytes);
                *len += bytes.len();
            }
            AnswerText::Large { .. } => *self = AnswerText::Small([self.bytes(), bytes].concat()),
        }
    }

    /// The text so far.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            AnswerText::Small(text) => text,
            AnswerText::Large { pages, len } => &pages[..*len],
        }
    }

    /// The text as shared bytes.
    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            AnswerText::Small(text) => text.into(),
            large @ AnswerText::Large { .. } => Bytes::from_owner(large),
        }
    }

    /// Its length.
    pub(super) fn len(&self) -> usize {
        self.bytes().len()
    }
}

impl AsRef<[u8]> for AnswerText {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl io::Write for AnswerText {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_can_become_large_and_larger_than_expected() {
        let mut text = AnswerText::Small(b"head ".to_vec());
        text.expect(100_000).unwrap();
        text.spare()[..6].copy_from_slice(b"middle");
        text.written(6);
        text.push(b" tail");
        assert_eq!(text.bytes(), b"head middle tail");
        text.push(&[b'x'; 200_000]);
        assert_eq!(text.len(), 200_016);
        assert!(text.bytes().starts_with(b"head middle tailxxx"));
        assert!(AnswerText::Small(Vec::new()).expect(usize::MAX).is_err());
    }
}
