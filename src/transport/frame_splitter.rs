//! Cuts what comes in on a WebSocket into messages and control frames (RFC 6455, section 5).

pub use super::frame_header::{FrameViolation, mask, masked_header};

use super::frame_header::{
    BINARY, CLOSE, CONTINUATION, Expected, FrameHeader, MAX_HEADER, PING, Sender, TEXT, close_payload,
};
use super::large_memory::LargeMemory;
use super::line_buffer::LineBuffer;
use crate::protocol::base64_run::Base64Run;
use std::ops::Range;
use tungstenite::Bytes;

/// How much memory a splitter has for frames to share, in bytes: little while little comes, so that many idle connections
/// take little, and more while reads fill it.
const LEAST: usize = 2 * 1024;

/// The most that a server has per client. A longer frame gets memory of its own, which its message takes along.
const MOST_FOR_SERVER: usize = 64 * 1024;

/// The most that a client has: a few of the largest events at a time.
const MOST_FOR_CLIENT: usize = 256 * 1024;

/// A frame of more than this many bytes gets large memory.
const LONG_AFTER: usize = 512 * 1024;

/// The most that is read at a time of a frame with its own memory, in bytes: it is still in the processor's cache when it
/// is unmasked and checked.
const PIECE: usize = 128 * 1024;

/// After this many reads in a row that took little of the shared memory most of it is given back.
const QUIET_READS: u8 = 8;

/// Base64 is looked for when this much of a long frame is there, in bytes: as far as it is looked for.
const BASE64_HEAD: usize = 8 * 1024;

/// What has come in.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a, M = &'a [u8]> {
    /// A whole message, text or binary.
    Message(M),
    /// To be answered with a pong that has the same payload.
    Ping(&'a [u8]),
    /// The answer to a ping.
    Pong,
    /// The last frame: its code, 1005 if it has none, and its reason. A code that may not be sent counts as 1002.
    Close(u16, &'a [u8]),
}

/// The same, with a message to keep, and what part of it was found to be base64.
pub type TakenFrame<'a> = Frame<'a, (Bytes, Range<usize>)>;

/// Takes bytes in pieces of any size and gives the messages in them.
///
/// Bytes are read straight into its buffer, and unmasked there as they come. Short messages are handed out from there; a
/// long frame gets memory of its own, and reads end where it ends.
#[derive(Debug)]
pub struct FrameSplitter {
    sender: Sender,
    max_bytes: usize,
    /// Where the memory for long frames comes from.
    memory: LargeMemory,
    /// Read so far: `start..end`.
    buffer: LineBuffer,
    start: usize,
    end: usize,
    /// How far the next read goes at most.
    limit: usize,
    /// The buffer is that of the one frame in it.
    is_own: bool,
    /// How large a buffer that is shared is to be, and the most it may be.
    room: usize,
    most_room: usize,
    /// The last read into it has filled it.
    is_full: bool,
    quiet_reads: u8,
    /// The frame at `start`, if its header is there.
    arriving: Option<Arriving>,
    /// The frames so far of a message of several, and its kind while the last one is still to come.
    fragments: Vec<u8>,
    fragmented: Option<u8>,
    /// How much of the fragments was found to be UTF-8.
    valid: usize,
}

/// A frame that is coming in.
#[derive(Debug)]
struct Arriving {
    header: FrameHeader,
    /// How much of the payload is unmasked.
    unmasked: usize,
    base64: Base64,
}

/// What is known of base64 in a frame.
#[derive(Debug)]
enum Base64 {
    Unsought,
    Growing(Base64Run),
    Found(Range<usize>),
}

/// Something whole, and where it lies.
enum Found {
    /// A message of one frame, and the base64 in it.
    Single(Range<usize>, Range<usize>),
    /// A message that is put together in `fragments`.
    Fragments,
    Control(u8, Range<usize>),
}

impl FrameSplitter {
    /// A splitter for what a server sends, messages of up to `max_bytes`. It is not checked that texts are UTF-8. `early` is
    /// what was received behind the answer to the upgrade.
    pub fn new(early: &[u8], max_bytes: usize) -> FrameSplitter {
        let memory = LargeMemory::keeping_nothing();
        FrameSplitter::of(Sender::Server, early.to_vec(), max_bytes, memory, MOST_FOR_CLIENT)
    }

    /// A splitter for what a client sends, messages of up to `max_bytes`. Long ones lie in `memory`. `early` is what was
    /// received behind the request for the upgrade.
    pub fn for_server(early: Vec<u8>, max_bytes: usize, memory: LargeMemory) -> FrameSplitter {
        FrameSplitter::of(Sender::Client, early, max_bytes, memory, MOST_FOR_SERVER)
    }

    fn of(sender: Sender, early: Vec<u8>, max_bytes: usize, memory: LargeMemory, most_room: usize) -> FrameSplitter {
        FrameSplitter {
            sender,
            max_bytes,
            memory,
            start: 0,
            end: early.len(),
            limit: early.len(),
            buffer: LineBuffer::Heap(early),
            is_own: false,
            room: LEAST,
            most_room,
            is_full: false,
            quiet_reads: 0,
            arriving: None,
            fragments: Vec::new(),
            fragmented: None,
            valid: 0,
        }
    }

    /// Where to read to; never empty. To be asked for when there is no next frame. What is left of a long frame's memory is
    /// given back here.
    pub fn spare(&mut self) -> &mut [u8] {
        let frame = self.arriving.as_ref();
        let needed = frame.map_or(0, |frame| frame.header.header_len + frame.header.len);
        if needed > self.most_room {
            if !self.is_own {
                self.place(needed);
                self.is_own = true;
                self.is_full = false;
            }
            self.limit = (self.end + PIECE).min(needed);
        } else {
            // A read that filled all of it is a sign of more to come.
            let least = needed.max(if self.is_full { self.room + 1 } else { 0 });
            self.is_full = false;
            while self.room < least.min(self.most_room) {
                self.room = (self.room * 4).min(self.most_room);
            }
            let held = self.end - self.start;
            // There is room for it: what is held is less than a header, or part of the frame.
            if self.is_own || self.buffer.len() != self.room {
                self.place(self.room);
                self.is_own = false;
            } else if held == 0
                || self.start + needed > self.buffer.len()
                || self.buffer.len() - self.end < self.buffer.len() / 4
            {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, held);
            }
            self.limit = self.buffer.len();
        }
        self.buffer.provide(self.end);
        &mut self.buffer[self.end..self.limit]
    }

    /// Moves what was not handled yet into a new buffer.
    fn place(&mut self, len: usize) {
        let held = &self.buffer[self.start..self.end];
        let buffer = if len > LONG_AFTER {
            // As much as any frame may need: what is kept fits whatever comes next.
            let longest = self.max_bytes.saturating_add(MAX_HEADER);
            LineBuffer::long(&self.memory, held, longest, len)
        } else {
            let mut buffer = vec![0; len];
            buffer[..held.len()].copy_from_slice(held);
            LineBuffer::Heap(buffer)
        };
        self.end = held.len();
        self.start = 0;
        self.buffer = buffer;
    }

    /// The first `n` bytes of [`spare`](Self::spare) have been filled.
    ///
    /// # Panics
    /// If there was no room for as many.
    pub fn filled(&mut self, n: usize) {
        let offered = self.limit - self.end;
        assert!(n <= offered, "filled more than spare");
        self.end += n;
        self.limit = self.end;
        if self.is_own {
            return;
        }
        self.is_full = n == offered;
        if n < self.room / 8 {
            self.quiet_reads += 1;
        } else {
            self.quiet_reads = 0;
        }
        if self.quiet_reads == QUIET_READS {
            self.room = (self.room / 4).max(LEAST);
            self.quiet_reads = 0;
        }
    }

    /// The next whole message or control frame there is.
    ///
    /// # Errors
    /// The other side broke the framing. To be taken for the end.
    pub fn next_frame(&mut self) -> Option<Result<Frame<'_>, FrameViolation>> {
        Some(self.find_next()?.and_then(|found| match found {
            Found::Single(range, _) => Ok(Frame::Message(&self.buffer[range])),
            Found::Fragments => Ok(Frame::Message(&self.fragments)),
            Found::Control(opcode, range) => control_frame(opcode, &self.buffer[range]),
        }))
    }

    /// The same, to keep. A long message takes the memory with it that it was received in.
    ///
    /// # Errors
    /// As above.
    pub fn take_frame(&mut self) -> Option<Result<TakenFrame<'_>, FrameViolation>> {
        Some(self.find_next()?.and_then(|found| match found {
            Found::Single(range, base64) if self.is_own => {
                let buffer = std::mem::replace(&mut self.buffer, LineBuffer::Heap(Vec::new()));
                (self.start, self.end, self.limit, self.is_own) = (0, 0, 0, false);
                Ok(Frame::Message((buffer.keep(range), base64)))
            }
            Found::Single(range, base64) => Ok(Frame::Message((Bytes::copy_from_slice(&self.buffer[range]), base64))),
            Found::Fragments => Ok(Frame::Message((std::mem::take(&mut self.fragments).into(), 0..0))),
            Found::Control(opcode, range) => control_frame(opcode, &self.buffer[range]),
        }))
    }

    /// The next whole thing, which counts as handled from now on.
    fn find_next(&mut self) -> Option<Result<Found, FrameViolation>> {
        if self.fragmented.is_none() && !self.fragments.is_empty() {
            self.fragments = Vec::new();
        }
        loop {
            let mut frame = match self.arriving.take() {
                Some(frame) => frame,
                None => match self.arrive()? {
                    Ok(frame) => frame,
                    Err(violation) => return Some(Err(violation)),
                },
            };
            let payload = self.start + frame.header.header_len;
            let range = payload..payload + frame.header.len;
            let come = &mut self.buffer[payload..self.end.min(range.end)];
            if self.sender == Sender::Client {
                mask(&mut come[frame.unmasked..], frame.header.key, frame.unmasked);
                frame.unmasked = come.len();
                if self.is_own {
                    frame.base64.go_on(come);
                }
            }
            if come.len() < frame.header.len {
                self.arriving = Some(frame);
                return None;
            }
            self.start = range.end;
            return Some(match frame.header.opcode {
                opcode @ CLOSE.. => Ok(Found::Control(opcode, range)),
                opcode @ (TEXT | BINARY) if frame.header.is_final => {
                    let base64 = frame.base64.range();
                    let text = &self.buffer[range.clone()];
                    if opcode == TEXT && self.sender == Sender::Client && !is_text_around(text, &base64) {
                        return Some(Err(FrameViolation::NotText));
                    }
                    Ok(Found::Single(range, base64))
                }
                opcode => match self.add_fragment(opcode, range, frame.header.is_final) {
                    Ok(()) if !frame.header.is_final => continue,
                    Ok(()) => Ok(Found::Fragments),
                    Err(violation) => Err(violation),
                },
            });
        }
    }

    /// The frame at `start`, if its header is there.
    fn arrive(&self) -> Option<Result<Arriving, FrameViolation>> {
        let expected = Expected {
            sender: self.sender,
            max_bytes: self.max_bytes,
            unfinished: self.fragmented.map(|_| self.fragments.len()),
        };
        let header = FrameHeader::parse(&self.buffer[self.start..self.end], &expected)?;
        Some(header.map(|header| Arriving {
            base64: match header.len {
                LONG_AFTER.. if header.is_final && header.opcode != CONTINUATION => Base64::Unsought,
                _ => Base64::Found(0..0),
            },
            header,
            unmasked: 0,
        }))
    }

    fn add_fragment(&mut self, opcode: u8, range: Range<usize>, is_final: bool) -> Result<(), FrameViolation> {
        self.fragments.extend_from_slice(&self.buffer[range]);
        let kind = self.fragmented.unwrap_or(opcode);
        if kind == TEXT && self.sender == Sender::Client {
            self.valid += match str::from_utf8(&self.fragments[self.valid..]) {
                Ok(text) => text.len(),
                Err(e) if e.error_len().is_none() && !is_final => e.valid_up_to(),
                Err(_) => return Err(FrameViolation::NotText),
            };
        }
        self.fragmented = Some(kind);
        if is_final {
            self.fragmented = None;
            self.valid = 0;
        }
        Ok(())
    }
}

impl Base64 {
    /// More of the payload has come, of which `come` is all there is.
    fn go_on(&mut self, come: &[u8]) {
        if matches!(self, Base64::Unsought) && come.len() >= BASE64_HEAD {
            *self = Base64Run::find(come).map_or(Base64::Found(0..0), Base64::Growing);
        }
        if let Base64::Growing(run) = self
            && !run.extend(come)
        {
            *self = Base64::Found(run.range());
        }
    }

    fn range(self) -> Range<usize> {
        match self {
            Base64::Unsought => 0..0,
            Base64::Growing(run) => run.range(),
            Base64::Found(range) => range,
        }
    }
}

/// Whether bytes are UTF-8, of which a part is known to be base64.
fn is_text_around(bytes: &[u8], base64: &Range<usize>) -> bool {
    str::from_utf8(&bytes[..base64.start]).is_ok() && str::from_utf8(&bytes[base64.end..]).is_ok()
}

fn control_frame<M>(opcode: u8, payload: &[u8]) -> Result<Frame<'_, M>, FrameViolation> {
    Ok(match opcode {
        CLOSE => {
            let (code, reason) = close_payload(payload)?;
            Frame::Close(code, reason)
        }
        PING => Frame::Ping(payload),
        _ => Frame::Pong,
    })
}

#[cfg(test)]
#[path = "frame_splitter_tests.rs"]
mod tests;
