//! One message a WebSocket text or binary message, of one or more frames.

use super::frame_header::{CLOSE, FINAL, PING, PONG, TEXT};
use super::frame_splitter::{Frame, FrameSplitter};
use super::large_memory::LargeMemory;
use super::{Ended, Incoming, Source, log_end};
use std::io::{ErrorKind, Read};
use std::sync::Arc;

/// What a WebSocket source tells the outgoing side and the keeper of its liveness.
pub trait Companion: Send + Sync {
    /// Bytes have come in: the other side lives.
    fn heard(&self);
    /// Whole control frames to be sent: a pong, or the answer to a close frame.
    fn send_frames(&self, frames: Vec<u8>);
}

/// Messages from a WebSocket client whose upgrade is done.
pub struct WebSocketSource<R> {
    stream: R,
    frames: FrameSplitter,
    companion: Arc<dyn Companion>,
}

impl<R: Read> WebSocketSource<R> {
    /// Reads messages of up to `max_bytes`, in one frame or several; `stream` should not buffer by itself. `early` is what
    /// was received after the request. Long messages lie in `memory`.
    pub fn new(
        stream: R,
        early: Vec<u8>,
        max_bytes: usize,
        memory: LargeMemory,
        companion: Arc<dyn Companion>,
    ) -> WebSocketSource<R> {
        WebSocketSource {
            stream,
            frames: FrameSplitter::for_server(early, max_bytes, memory),
            companion,
        }
    }
}

impl<R: Read + Send> Source for WebSocketSource<R> {
    fn describe(&self) -> &'static str {
        "websocket JSON-RPC message from exec-server websocket"
    }

    fn next(&mut self, before_waiting: &mut dyn FnMut()) -> Incoming {
        loop {
            match self.frames.take_frame() {
                Some(Ok(Frame::Message((text, base64)))) => return Incoming::Message { text, base64 },
                Some(Ok(Frame::Ping(payload))) => {
                    self.companion.send_frames(control_frame(PONG, &[], payload));
                    continue;
                }
                Some(Ok(Frame::Pong)) => continue,
                Some(Ok(Frame::Close(code, reason))) => {
                    let code = code.to_be_bytes();
                    let code = if code == NO_CODE { &[][..] } else { &code };
                    self.companion.send_frames(control_frame(CLOSE, code, reason));
                    return Incoming::Ended(Ended::ByPeer);
                }
                Some(Err(violation)) => {
                    return Incoming::Ended(Ended::Violation {
                        code: violation.code(),
                        reason: violation.to_string(),
                    });
                }
                None => {}
            }
            before_waiting();
            match self.stream.read(self.frames.spare()) {
                Ok(0) => return Incoming::Ended(Ended::Input),
                Ok(n) => {
                    self.companion.heard();
                    self.frames.filled(n);
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    log_end("failed to read from a WebSocket client", &e);
                    return Incoming::Ended(Ended::ByPeer);
                }
            }
        }
    }
}

/// Stands for a close frame without a code; it is not sent.
const NO_CODE: [u8; 2] = 1005u16.to_be_bytes();

/// The header of an unmasked text frame with a payload of `len` bytes (RFC 6455, section 5.2).
pub fn text_frame_header(len: usize, room: &mut [u8; 10]) -> &[u8] {
    room[0] = FINAL | TEXT;
    let n = match len {
        0..126 => {
            room[1] = len as u8;
            2
        }
        126..65536 => {
            room[1] = 126;
            room[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            4
        }
        _ => {
            room[1] = 127;
            room[2..10].copy_from_slice(&(len as u64).to_be_bytes());
            10
        }
    };
    &room[..n]
}

/// A ping without a payload.
pub fn ping_frame() -> Vec<u8> {
    control_frame(PING, &[], &[])
}

/// A close frame. The reason is cut to the 123 bytes that one may have.
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(123)];
    control_frame(CLOSE, &code.to_be_bytes(), reason.as_bytes())
}

/// Whether frames, control frames as they are made here, begin with a close frame.
pub fn is_close_frame(frames: &[u8]) -> bool {
    frames.first() == Some(&(FINAL | CLOSE))
}

fn control_frame(opcode: u8, head: &[u8], tail: &[u8]) -> Vec<u8> {
    [&[FINAL | opcode, (head.len() + tail.len()) as u8], head, tail].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_the_shortest_form() {
        let mut room = [0; 10];
        assert_eq!(text_frame_header(0, &mut room), [0x81, 0]);
        assert_eq!(text_frame_header(125, &mut room), [0x81, 125]);
        assert_eq!(text_frame_header(126, &mut room), [0x81, 126, 0, 126]);
        assert_eq!(text_frame_header(65535, &mut room), [0x81, 126, 255, 255]);
        assert_eq!(text_frame_header(65536, &mut room), [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_close_reason_is_cut_between_characters() {
        assert_eq!(close_frame(1000, "bye"), [0x88, 5, 3, 232, b'b', b'y', b'e']);
        let long = close_frame(1002, &"é".repeat(100));
        assert_eq!((long.len(), long[1]), (126, 124));
        assert!(std::str::from_utf8(&long[4..]).is_ok());
    }
}
