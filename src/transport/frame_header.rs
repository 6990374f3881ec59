//! The headers of WebSocket frames, and what may not come in (RFC 6455, sections 5.2 and 7.4).

use super::websocket::text_frame_header;
use crate::sys::memory;

/// The last frame of its message.
pub(super) const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// More of a message that has begun.
pub(super) const CONTINUATION: u8 = 0;
/// A message that is UTF-8.
pub(super) const TEXT: u8 = 1;
/// A message of any bytes.
pub(super) const BINARY: u8 = 2;
/// The last frame.
pub(super) const CLOSE: u8 = 8;
/// To be answered.
pub(super) const PING: u8 = 9;
/// The answer.
pub(super) const PONG: u8 = 10;

/// The most a control frame may have.
const MAX_CONTROL: u64 = 125;

/// The most bytes that a header has.
pub(super) const MAX_HEADER: usize = 14;

/// The other side broke the framing; nothing can be made of what follows.
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
    /// A text, or the reason of a close frame, is something else.
    #[error("text message is not valid UTF-8")]
    NotText,
    /// Anything else.
    #[error("{0}")]
    Broken(&'static str),
}

impl FrameViolation {
    /// The close code that tells the other side so.
    pub fn code(&self) -> u16 {
        match self {
            FrameViolation::TooLong { .. } => 1009,
            FrameViolation::NotText => 1007,
            FrameViolation::Broken(_) => 1002,
        }
    }
}

/// Who sends the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// They must be masked.
    Client,
    /// They must not be.
    Server,
}

/// What decides whether a frame may come next.
pub(super) struct Expected {
    pub(super) sender: Sender,
    /// The most that a message may have.
    pub(super) max_bytes: usize,
    /// What there is of a message that goes on, if one does.
    pub(super) unfinished: Option<usize>,
}

/// What a header says.
#[derive(Debug)]
pub(super) struct FrameHeader {
    pub(super) is_final: bool,
    pub(super) opcode: u8,
    /// Bytes of the payload.
    pub(super) len: usize,
    pub(super) header_len: usize,
    /// Zero for a frame that is not masked.
    pub(super) key: [u8; 4],
}

impl FrameHeader {
    /// The header that `bytes` begin with, if all of it is there. One that may not come is refused as soon as its length
    /// is known, and before anything is done about that.
    pub(super) fn parse(bytes: &[u8], expected: &Expected) -> Option<Result<FrameHeader, FrameViolation>> {
        let (&[first, second], rest) = bytes.split_first_chunk::<2>()?;
        let (len, mut header_len) = match second & !MASKED {
            126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
            127 => (u64::from_be_bytes(*rest.first_chunk()?), 10),
            len => (u64::from(len), 2),
        };
        if let Err(violation) = expected.check(first, second, len) {
            return Some(Err(violation));
        }
        let mut key = [0; 4];
        if expected.sender == Sender::Client {
            key = *bytes[header_len..].first_chunk()?;
            header_len += key.len();
        }
        Some(Ok(FrameHeader {
            is_final: first & FINAL != 0,
            opcode: first & 0x0f,
            len: len as usize,
            header_len,
            key,
        }))
    }
}

impl Expected {
    fn check(&self, first: u8, second: u8, len: u64) -> Result<(), FrameViolation> {
        let broken = |what| Err(FrameViolation::Broken(what));
        let too_long = |len| {
            Err(FrameViolation::TooLong {
                len,
                max_bytes: self.max_bytes,
            })
        };
        let opcode = first & 0x0f;
        if !matches!(opcode, CONTINUATION..=BINARY | CLOSE..=PONG) {
            return broken("a frame is of no known kind");
        }
        if len > self.max_bytes as u64 {
            return too_long(len);
        }
        match (self.sender, second & MASKED != 0) {
            (Sender::Client, false) => return broken("a frame from the client is not masked"),
            (Sender::Server, true) => return broken("a frame from the server is masked"),
            _ => {}
        }
        if first & RESERVED != 0 {
            return broken("a reserved bit of a frame is set");
        }
        if opcode >= CLOSE && (first & FINAL == 0 || len > MAX_CONTROL) {
            return broken("a control frame is in pieces or too long");
        }
        match (opcode, self.unfinished) {
            (CONTINUATION, None) => broken("a continuation continues nothing"),
            (TEXT | BINARY, Some(_)) => broken("a message begins within another"),
            (CONTINUATION, Some(before)) if len + before as u64 > self.max_bytes as u64 => {
                too_long(len + before as u64)
            }
            _ => Ok(()),
        }
    }
}

/// The code and the reason in a close frame; 1005 if it has none. A code that may not be sent counts as 1002.
pub(super) fn close_payload(payload: &[u8]) -> Result<(u16, &[u8]), FrameViolation> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload {
            [] => Ok((1005, &[])),
            _ => Err(FrameViolation::Broken("a close frame has half a code")),
        };
    };
    if str::from_utf8(reason).is_err() {
        return Err(FrameViolation::NotText);
    }
    Ok(match u16::from_be_bytes(*code) {
        code @ (1000..=1003 | 1007..=1013 | 3000..=4999) => (code, reason),
        _ => (1002, b"Protocol violation"),
    })
}

/// The header of a masked frame, the only kind that a client may send.
pub fn masked_header(opcode: u8, len: usize, key: [u8; 4], out: &mut Vec<u8>) {
    let mut room = [0; 10];
    let header = text_frame_header(len, &mut room);
    let at = out.len();
    out.extend_from_slice(header);
    out[at] = FINAL | opcode;
    out[at + 1] |= MASKED;
    out.extend_from_slice(&key);
}

/// Masks, or unmasks, the part of a payload that begins `offset` bytes into it.
pub fn mask(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    let mut key = key;
    key.rotate_left(offset % 4);
    memory::xor(bytes, key);
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn codes_that_may_not_be_sent_count_as_a_violation() {
        use tungstenite::protocol::frame::coding::CloseCode;
        for code in 0..=u16::MAX {
            let payload = [&code.to_be_bytes()[..], b"why"].concat();
            let expected = if CloseCode::from(code).is_allowed() {
                (code, &b"why"[..])
            } else {
                (1002, &b"Protocol violation"[..])
            };
            assert_eq!(close_payload(&payload), Ok(expected));
        }
        assert_eq!(close_payload(b""), Ok((1005, &b""[..])));
        assert!(matches!(close_payload(b"\x03"), Err(FrameViolation::Broken(_))));
        assert_eq!(close_payload(b"\x03\xe8\xff"), Err(FrameViolation::NotText));
    }
}
