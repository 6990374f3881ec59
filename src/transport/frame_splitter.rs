//! Cuts what a WebSocket server sends into messages and control frames (RFC 6455, section 5).

use super::line_buffer::LineBuffer;
use crate::sys::memory;

/// How much memory a splitter keeps between messages, in bytes: a few of the largest events at a time.
const RESTING: usize = 256 * 1024;

/// A frame of more than this many bytes gets memory of its own, which is given back after it.
const LONG_AFTER: usize = 4 * RESTING;

/// The most a control frame may have.
const MAX_CONTROL: usize = 125;

/// What a server has sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A whole message, text or binary. It is not checked that a text is UTF-8.
    Message(&'a [u8]),
    /// To be answered with a pong that has the same payload.
    Ping(&'a [u8]),
    /// The answer to a ping.
    Pong,
    /// The last frame: its code, 1005 if it has none, and its reason.
    Close(u16, &'a [u8]),
}

/// The server broke the framing; nothing can be made of what follows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameViolation {
    /// More than a message may have.
    #[error("message of {len} bytes exceeds the limit of {max_bytes} bytes")]
    TooLong {
        /// What it has, or has so far.
        len: u64,
        /// The limit.
        max_bytes: usize,
    },
    /// Anything else.
    #[error("{0}")]
    Broken(&'static str),
}

/// Takes bytes in pieces of any size and gives the messages in them. Bytes are read straight into its buffer, and
/// messages of one frame are handed out from there.
#[derive(Debug)]
pub struct FrameSplitter {
    /// Read so far: `start..end`.
    buffer: LineBuffer,
    start: usize,
    end: usize,
    max_bytes: usize,
    /// The frames so far of a message of several, and whether its last one is still to come.
    fragments: Vec<u8>,
    is_fragmented: bool,
}

/// The parts of a frame's header that matter.
struct Header {
    is_final: bool,
    opcode: u8,
    len: usize,
    payload: usize,
}

impl FrameSplitter {
    /// A splitter for messages of up to `max_bytes`. `early` is what was received behind the answer to the upgrade.
    pub fn new(early: &[u8], max_bytes: usize) -> FrameSplitter {
        let mut buffer = vec![0; RESTING.max(early.len())];
        buffer[..early.len()].copy_from_slice(early);
        FrameSplitter {
            buffer: LineBuffer::Heap(buffer),
            start: 0,
            end: early.len(),
            max_bytes,
            fragments: Vec::new(),
            is_fragmented: false,
        }
    }

    /// Where to read to; never empty. To be asked for when [`next_frame`](Self::next_frame) has nothing more.
    pub fn spare(&mut self) -> &mut [u8] {
        let held = self.end - self.start;
        let needed = match self.header() {
            Some(Ok(header)) => header.payload - self.start + header.len,
            _ => 0,
        };
        if self.buffer.len() > RESTING && needed <= RESTING && held <= RESTING / 2 {
            let mut resting = vec![0; RESTING];
            resting[..held].copy_from_slice(&self.buffer[self.start..self.end]);
            self.place(LineBuffer::Heap(resting));
        } else if needed > self.buffer.len() {
            let len = needed.next_multiple_of(4096);
            let held = &self.buffer[self.start..self.end];
            let larger = if needed > LONG_AFTER {
                LineBuffer::long(held, len, len)
            } else {
                let mut larger = vec![0; len];
                larger[..held.len()].copy_from_slice(held);
                LineBuffer::Heap(larger)
            };
            self.place(larger);
        } else if self.start + needed > self.buffer.len() || self.buffer.len() - self.end < RESTING / 4 || held == 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, held);
        }
        self.buffer.provide(self.end);
        &mut self.buffer[self.end..]
    }

    fn place(&mut self, buffer: LineBuffer) {
        self.buffer = buffer;
        (self.start, self.end) = (0, self.end - self.start);
    }

    /// The first `n` bytes of [`spare`](Self::spare) have been filled.
    ///
    /// # Panics
    /// If there was no room for as many.
    pub fn filled(&mut self, n: usize) {
        assert!(n <= self.buffer.len() - self.end, "filled more than spare");
        self.end += n;
    }

    /// The next whole message or control frame there is.
    ///
    /// # Errors
    /// The server broke the framing. To be taken for the end.
    pub fn next_frame(&mut self) -> Option<Result<Frame<'_>, FrameViolation>> {
        if !self.is_fragmented && !self.fragments.is_empty() {
            self.fragments = Vec::new();
        }
        loop {
            let header = match self.header()? {
                Ok(header) => header,
                Err(violation) => return Some(Err(violation)),
            };
            let range = header.payload..header.payload + header.len;
            if range.end > self.end {
                return None;
            }
            self.start = range.end;
            match (header.opcode, header.is_final) {
                (0, is_final) => {
                    self.fragments.extend_from_slice(&self.buffer[range]);
                    self.is_fragmented = !is_final;
                    if is_final {
                        return Some(Ok(Frame::Message(&self.fragments)));
                    }
                }
                (1 | 2, true) => return Some(Ok(Frame::Message(&self.buffer[range]))),
                (1 | 2, false) => {
                    self.fragments.extend_from_slice(&self.buffer[range]);
                    self.is_fragmented = true;
                }
                (8, _) => {
                    let payload = &self.buffer[range];
                    return Some(Ok(match payload.split_first_chunk::<2>() {
                        Some((code, reason)) => Frame::Close(u16::from_be_bytes(*code), reason),
                        None => Frame::Close(1005, &[]),
                    }));
                }
                (9, _) => return Some(Ok(Frame::Ping(&self.buffer[range]))),
                _ => return Some(Ok(Frame::Pong)),
            }
        }
    }

    /// The header at `start`, if all of it is there.
    fn header(&self) -> Option<Result<Header, FrameViolation>> {
        let bytes = &self.buffer[self.start..self.end];
        let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
        let (len, header_len) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*rest.first_chunk()?), 10),
            len => (u64::from(len), 2),
        };
        Some(self.check(first, second, len).map(|()| Header {
            is_final: first & 0x80 != 0,
            opcode: first & 0x0f,
            len: len as usize,
            payload: self.start + header_len,
        }))
    }

    fn check(&self, first: u8, second: u8, len: u64) -> Result<(), FrameViolation> {
        let broken = |what| Err(FrameViolation::Broken(what));
        let is_final = first & 0x80 != 0;
        if first & 0x70 != 0 {
            return broken("a reserved bit of a frame is set");
        }
        if second & 0x80 != 0 {
            return broken("a frame from the server is masked");
        }
        match first & 0x0f {
            0 if !self.is_fragmented => return broken("a continuation continues nothing"),
            1 | 2 if self.is_fragmented => return broken("a message begins within another"),
            0..=2 => {}
            8..=10 if !is_final || len > MAX_CONTROL as u64 => {
                return broken("a control frame is in pieces or too long");
            }
            8..=10 => return Ok(()),
            _ => return broken("a frame is of no known kind"),
        }
        let whole = len.saturating_add(self.fragments.len() as u64);
        if self.is_fragmented && whole > self.max_bytes as u64 || len > self.max_bytes as u64 {
            return Err(FrameViolation::TooLong {
                len: whole,
                max_bytes: self.max_bytes,
            });
        }
        Ok(())
    }
}

/// The header of a masked frame, the only kind that a client may send.
pub fn masked_header(opcode: u8, len: usize, key: [u8; 4], out: &mut Vec<u8>) {
    let mut room = [0; 10];
    let header = super::websocket::text_frame_header(len, &mut room);
    let at = out.len();
    out.extend_from_slice(header);
    out[at] = 0x80 | opcode;
    out[at + 1] |= 0x80;
    out.extend_from_slice(&key);
}

/// Masks the part of a payload that begins `offset` bytes into it.
pub fn mask(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    let mut key = key;
    key.rotate_left(offset % 4);
    memory::xor(bytes, key);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut room = [0; 10];
        let mut frame = super::super::websocket::text_frame_header(payload.len(), &mut room).to_vec();
        frame[0] = first;
        frame.extend_from_slice(payload);
        frame
    }

    /// What a splitter makes of bytes that come in pieces of `size`.
    fn split(bytes: &[u8], size: usize, max_bytes: usize) -> (Vec<String>, Option<FrameViolation>) {
        let mut splitter = FrameSplitter::new(&[], max_bytes);
        let mut seen = Vec::new();
        for mut piece in bytes.chunks(size) {
            while !piece.is_empty() {
                let spare = splitter.spare();
                let n = piece.len().min(spare.len());
                spare[..n].copy_from_slice(&piece[..n]);
                splitter.filled(n);
                piece = &piece[n..];
                while let Some(frame) = splitter.next_frame() {
                    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                    match frame {
                        Ok(Frame::Message(payload)) if payload.len() > 100 => {
                            assert!(payload.iter().all(|b| *b == payload[0]));
                            seen.push(format!("{} x {}", payload.len(), payload[0]));
                        }
                        Ok(Frame::Message(payload)) => seen.push(text(payload)),
                        Ok(Frame::Ping(payload)) => seen.push(format!("ping {}", text(payload))),
                        Ok(Frame::Pong) => seen.push("pong".into()),
                        Ok(Frame::Close(code, reason)) => seen.push(format!("close {code} {}", text(reason))),
                        Err(violation) => return (seen, Some(violation)),
                    }
                }
            }
        }
        (seen, None)
    }

    #[test]
    fn messages_are_put_together_whatever_the_pieces() {
        let bytes = [
            frame(0x81, b"one"),
            frame(0x82, b""),
            frame(0x01, b"tw"),
            frame(0x89, b"hey"),
            frame(0x00, b""),
            frame(0x80, b"o"),
            frame(0x8a, b""),
            frame(0x81, &[7; 70_000]),
            frame(0x81, &[8; 300_000]),
            frame(0x81, b"small"),
            frame(0x81, &[9; 1_500_000]),
            frame(0x02, &[5; 200_000]),
            frame(0x80, &[5; 200_000]),
            frame(0x81, b"last"),
            frame(0x88, b"\x03\xe8bye"),
            frame(0x88, b""),
        ]
        .concat();
        let expected = [
            "one",
            "",
            "ping hey",
            "two",
            "pong",
            "70000 x 7",
            "300000 x 8",
            "small",
            "1500000 x 9",
            "400000 x 5",
            "last",
            "close 1000 bye",
            "close 1005 ",
        ];
        for size in [1, 7, 1000, 100_000, bytes.len()] {
            assert_eq!(
                split(&bytes, size, 2_000_000),
                (expected.map(str::to_owned).to_vec(), None)
            );
        }
    }

    #[test]
    fn memory_of_a_long_message_is_given_back() {
        let mut splitter = FrameSplitter::new(&frame(0x81, &[1; 3_000_000]), 4_000_000);
        assert!(splitter.next_frame().is_some() && splitter.next_frame().is_none());
        assert_eq!(splitter.spare().len(), RESTING);
    }

    #[test]
    fn a_broken_framing_is_told() {
        let long = |len, max_bytes| Some(FrameViolation::TooLong { len, max_bytes });
        let broken = |what| Some(FrameViolation::Broken(what));
        let table = [
            (frame(0xc1, b"x"), broken("a reserved bit of a frame is set")),
            (vec![0x81, 0x81], broken("a frame from the server is masked")),
            (frame(0x80, b"x"), broken("a continuation continues nothing")),
            (
                [frame(0x01, b"x"), frame(0x81, b"y")].concat(),
                broken("a message begins within another"),
            ),
            (frame(0x09, b"x"), broken("a control frame is in pieces or too long")),
            (
                frame(0x89, &[0; 126]),
                broken("a control frame is in pieces or too long"),
            ),
            (frame(0x83, b""), broken("a frame is of no known kind")),
            (frame(0x81, &[0; 11]), long(11, 10)),
            ([frame(0x01, &[0; 6]), frame(0x80, &[0; 5])].concat(), long(11, 10)),
            ([&[0x81, 127][..], &[0xff; 8]].concat(), long(u64::MAX, 10)),
        ];
        for (bytes, expected) in table {
            assert_eq!(split(&bytes, 1, 10), (Vec::new(), expected), "{bytes:?}");
        }
    }

    #[test]
    fn masked_frames_are_what_a_server_understands() {
        use tungstenite::protocol::Role;
        let key = [1, 2, 3, 250];
        for len in [0, 1, 9, 125, 126, 70_000] {
            let payload: Vec<u8> = (0..len).map(|i| b'a' + (i % 26) as u8).collect();
            let mut frame = Vec::new();
            masked_header(1, len, key, &mut frame);
            let start = frame.len();
            frame.extend_from_slice(&payload);
            for (i, piece) in frame[start..].chunks_mut(13).enumerate() {
                mask(piece, key, i * 13);
            }
            let stream = std::io::Cursor::new(frame);
            let mut socket = tungstenite::WebSocket::from_raw_socket(stream, Role::Server, None);
            assert_eq!(socket.read().unwrap().into_data().as_ref(), payload);
        }
    }
}
