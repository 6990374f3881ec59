//! One message a WebSocket text or binary message, of one or more frames.

use super::{Ended, Incoming, Source};
use log::debug;
use std::io::{self, Read, Write};
use std::sync::Arc;
use tungstenite::error::{CapacityError, Error};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

/// What a WebSocket source tells the outgoing side and the keeper of its liveness.
pub trait Companion: Send + Sync {
    /// Bytes have come in: the other side lives.
    fn heard(&self);
    /// Whole control frames to be sent: a pong, or the answer to a close frame.
    fn send_frames(&self, frames: Vec<u8>);
}

/// The bytes read at a time. Larger messages take several reads, straight into the buffer that becomes the message.
const READ_BYTES: usize = 16 * 1024;

/// Messages from a WebSocket whose upgrade is done.
pub struct WebSocketSource<R> {
    socket: WebSocket<Incomings<R>>,
}

impl<R: Read> WebSocketSource<R> {
    /// Reads messages of up to `max_bytes`, in one frame or several. `early` is what was received after the request.
    pub fn new(stream: R, early: Vec<u8>, max_bytes: usize, companion: Arc<dyn Companion>) -> WebSocketSource<R> {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(max_bytes))
            .max_frame_size(Some(max_bytes));
        let stream = Incomings { stream, companion };
        WebSocketSource {
            socket: WebSocket::from_partially_read(stream, early, Role::Server, Some(config)),
        }
    }
}

impl<R: Read + Send> Source for WebSocketSource<R> {
    fn describe(&self) -> &'static str {
        "websocket JSON-RPC message from exec-server websocket"
    }

    fn next(&mut self) -> Incoming {
        let violation = |code, reason: String| Incoming::Ended(Ended::Violation { code, reason });
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => return Incoming::whole(text.into()),
                Ok(Message::Binary(bytes)) => return Incoming::whole(bytes),
                // Answered by the library, through `Incomings::write`; a close by the next read, which then ends.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => {}
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Incoming::Ended(Ended::ByPeer),
                Err(Error::Capacity(CapacityError::MessageTooLong { size, max_size })) => {
                    return violation(
                        1009,
                        format!("message of {size} bytes exceeds the limit of {max_size} bytes"),
                    );
                }
                Err(Error::Utf8(_)) => return violation(1007, "text message is not valid UTF-8".into()),
                Err(Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
                    return Incoming::Ended(Ended::ByPeer);
                }
                Err(Error::Protocol(e)) => return violation(1002, e.to_string()),
                Err(e) => {
                    // The others are those of handshakes and of writing.
                    if let Error::Io(e) = e {
                        debug!("failed to read from a WebSocket client: {e}");
                    }
                    return Incoming::Ended(Ended::ByPeer);
                }
            }
        }
    }
}

/// The reading half of a connection. What the WebSocket library wants to write goes, in whole frames, to the thread
/// that does all writing.
struct Incomings<R> {
    stream: R,
    companion: Arc<dyn Companion>,
}

impl<R: Read> Read for Incomings<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(bytes) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(n) if n > 0 => {
                    self.companion.heard();
                    return Ok(n);
                }
                result => return result,
            }
        }
    }
}

impl<R> Write for Incomings<R> {
    fn write(&mut self, frames: &[u8]) -> io::Result<usize> {
        self.companion.send_frames(frames.to_vec());
        Ok(frames.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const FINAL: u8 = 0x80;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;

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
    vec![FINAL | PING, 0]
}

/// A close frame. The reason is cut to the 123 bytes that one may have.
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(123)];
    let mut frame = vec![FINAL | CLOSE, 2 + reason.len() as u8];
    frame.extend_from_slice(&code.to_be_bytes());
    frame.extend_from_slice(reason.as_bytes());
    frame
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
