//! One message a line.

use super::large_memory::LargeMemory;
use super::line::LineSplitter;
use super::{Ended, Incoming, Source};
use log::warn;
use std::io::{ErrorKind, Read};

/// Messages from the lines of a byte stream.
pub struct LineSource<R> {
    stream: R,
    label: &'static str,
    lines: LineSplitter,
    at_end: bool,
}

impl<R: Read + Send> LineSource<R> {
    /// Reads lines of up to `max_bytes` from `stream`, which should not buffer by itself. Long ones lie in `memory`.
    pub fn new(stream: R, max_bytes: usize, memory: LargeMemory) -> LineSource<R> {
        LineSource {
            stream,
            label: "JSON-RPC message from exec-server stdio",
            lines: LineSplitter::with_memory(max_bytes, memory),
            at_end: false,
        }
    }

    /// The same, its messages called `label` in errors.
    pub fn called(self, label: &'static str) -> LineSource<R> {
        LineSource { label, ..self }
    }
}

impl<R: Read + Send> Source for LineSource<R> {
    fn describe(&self) -> &'static str {
        self.label
    }

    fn next(&mut self, before_waiting: &mut dyn FnMut()) -> Incoming {
        loop {
            match self.lines.take_line() {
                Some(Ok((text, base64))) => return Incoming::Message { text, base64 },
                Some(Err(e)) => return Incoming::Refused(e.to_string()),
                None if self.at_end => return Incoming::Ended(Ended::Input),
                None => {}
            }
            before_waiting();
            match self.stream.read(self.lines.spare()) {
                Ok(0) => {
                    self.at_end = true;
                    self.lines.finish();
                }
                Ok(n) => self.lines.filled(n),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    warn!("failed to read from the client: {e}");
                    self.at_end = true;
                    self.lines.finish();
                }
            }
        }
    }
}
