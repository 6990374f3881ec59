//! A WebSocket's bytes, fed in arbitrary pieces, against the same bytes fed at once.

use exec_server::transport::websocket::{Companion, WebSocketSource};
use exec_server::transport::{Ended, Incoming, Source};
use std::io::{self, Read};
use std::sync::{Arc, Mutex};

/// What came of the bytes: messages, what was to be sent back, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    messages: Vec<Vec<u8>>,
    sent: Vec<u8>,
    violation: Option<u16>,
}

/// The limit of a message, small enough to be met.
const MAX_BYTES: usize = 300;

#[derive(Default)]
struct Sent(Mutex<Vec<u8>>);

impl Companion for Sent {
    fn heard(&self) {}
    fn send_frames(&self, frames: Vec<u8>) {
        self.0.lock().unwrap().extend(frames);
    }
}

/// Hands out bytes in pieces of the given sizes, over and over.
struct Pieces<'a> {
    bytes: &'a [u8],
    sizes: &'a [u8],
    next: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let size = self
            .sizes
            .get(self.next)
            .map_or(usize::MAX, |size| usize::from(*size) % 40 + 1);
        self.next = (self.next + 1) % self.sizes.len().max(1);
        let n = size.min(self.bytes.len()).min(room.len());
        let (piece, rest) = self.bytes.split_at(n);
        room[..n].copy_from_slice(piece);
        self.bytes = rest;
        Ok(n)
    }
}

fn outcome(bytes: &[u8], early: usize, sizes: &[u8]) -> Outcome {
    let sent = Arc::new(Sent::default());
    let (early, rest) = bytes.split_at(early.min(bytes.len()));
    let pieces = Pieces {
        bytes: rest,
        sizes,
        next: 0,
    };
    let mut source = WebSocketSource::new(pieces, early.to_vec(), MAX_BYTES, sent.clone());
    let mut messages = Vec::new();
    let violation = loop {
        match source.next() {
            Incoming::Message { text: message, .. } => {
                assert!(message.len() <= MAX_BYTES);
                messages.push(message.to_vec());
            }
            Incoming::Refused(reason) => panic!("a WebSocket message is never refused, but: {reason}"),
            Incoming::Ended(Ended::ByPeer) => break None,
            Incoming::Ended(Ended::Violation { code, .. }) => break Some(code),
        }
    };
    let sent = std::mem::take(&mut *sent.0.lock().unwrap());
    Outcome {
        messages,
        sent,
        violation,
    }
}

/// The first byte says how much has come with the request, the next four the sizes of the pieces, the rest is the wire.
pub fn check(data: &[u8]) {
    let Some((head, bytes)) = data.split_at_checked(5) else {
        return;
    };
    let whole = outcome(bytes, 0, &[]);
    let pieces = outcome(bytes, usize::from(head[0]), &head[1..]);
    assert_eq!(whole, pieces);
    assert!(whole.violation.is_none_or(|code| matches!(code, 1002 | 1007 | 1009)));
}

/// A masked frame as a client sends it.
#[allow(dead_code)]
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![first];
    match payload.len() {
        n @ 0..126 => frame.push(0x80 | n as u8),
        n => {
            frame.push(0x80 | 126);
            frame.extend((n as u16).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}
