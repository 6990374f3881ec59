//! Cuts a stream of bytes into lines, one message each.

use super::large_memory::LargeMemory;
use super::line_buffer::LineBuffer;
use crate::protocol::base64_run::Base64Run;
use crate::sys::memory;
use std::ops::Range;
use tungstenite::Bytes;

/// How much memory a splitter keeps between lines, in bytes: what a pipe hands over in one read.
const RESTING: usize = 64 * 1024;

/// A line of more than this many times [`RESTING`] gets memory of its own.
const LONG_AFTER: usize = 8;

/// The longest line by default, in bytes without its end: 64 MiB, as in Codex's exec-server.
pub const MAX_LINE: usize = 64 * 1024 * 1024;

/// A line was longer than the splitter allows; it is skipped up to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line exceeds the limit of {max_bytes} bytes")]
pub struct LineTooLong {
    /// The limit.
    pub max_bytes: usize,
}

/// Takes bytes in pieces of any size and gives lines, without their `\n` or `\r\n`.
///
/// Bytes are read straight into its buffer:
///
/// ```
/// use std::io::Read;
/// use exec_server::transport::line::LineSplitter;
///
/// let mut input: &[u8] = b"one\r\n\ntwo";
/// let mut splitter = LineSplitter::default();
/// let mut lines = Vec::new();
/// loop {
///     let n = input.read(splitter.spare())?;
///     match n {
///         0 => splitter.finish(),
///         _ => splitter.filled(n),
///     }
///     while let Some(line) = splitter.next_line() {
///         lines.push(line?.to_vec());
///     }
///     if n == 0 {
///         break;
///     }
/// }
/// assert_eq!(lines, [b"one", b"two"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Lines of nothing but JSON white space are left out. A line longer than the limit is reported
/// as soon as that is certain, and the rest of it is not stored. Every byte is looked at once,
/// however small the pieces are.
#[derive(Debug)]
pub struct LineSplitter {
    /// Read so far: `start..end`. All of it is initialized, so that a reader can fill the rest.
    buffer: LineBuffer,
    start: usize,
    end: usize,
    /// There is no newline before this place.
    searched: usize,
    max_bytes: usize,
    resting: usize,
    /// Where the memory for long lines comes from.
    memory: LargeMemory,
    /// In the long line that is at the front, and stays there until it is complete.
    base64: Option<Base64Run>,
    /// Inside a line that was too long.
    skipping: bool,
    finished: bool,
}

impl Default for LineSplitter {
    /// A splitter for lines of up to [`MAX_LINE`] bytes.
    fn default() -> Self {
        Self::new(MAX_LINE)
    }
}

impl LineSplitter {
    /// A splitter for lines of up to `max_bytes`, not counting the line's end.
    pub fn new(max_bytes: usize) -> Self {
        Self::with_memory(max_bytes, LargeMemory::keeping_nothing())
    }

    /// The same, with memory for long lines from `memory`.
    pub fn with_memory(max_bytes: usize, memory: LargeMemory) -> Self {
        Self {
            buffer: LineBuffer::Heap(Vec::new()),
            start: 0,
            end: 0,
            searched: 0,
            max_bytes,
            resting: RESTING,
            memory,
            base64: None,
            skipping: false,
            finished: false,
        }
    }

    /// Where to read to; never empty. To be asked for when [`next_line`](Self::next_line) has
    /// nothing more: what is left of a long line's memory is given back here.
    pub fn spare(&mut self) -> &mut [u8] {
        let held = self.end - self.start;
        let enough = self.resting / 4;
        if held == 0 || self.buffer.len() - self.end < enough {
            self.move_to_front();
        }
        if self.buffer.len() > self.resting && held <= self.resting / 2 {
            self.move_to_front();
            self.buffer = self.resting_buffer();
        } else if self.buffer.len() - self.end < enough {
            self.grow();
        }
        self.buffer.provide(self.end);
        &mut self.buffer[self.end..]
    }

    /// The first `n` bytes of [`spare`](Self::spare) have been filled.
    ///
    /// # Panics
    /// If there was no room for as many.
    pub fn filled(&mut self, n: usize) {
        assert!(n <= self.buffer.len() - self.end, "filled more than spare");
        self.end += n;
    }

    /// No more bytes will come: what is left is the last line.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// The next whole line there is.
    pub fn next_line(&mut self) -> Option<Result<&[u8], LineTooLong>> {
        match self.next_range()? {
            Ok(line) => Some(Ok(&self.buffer[line])),
            Err(error) => Some(Err(error)),
        }
    }

    /// The same, to keep, and what part of it was found to be base64. A long line takes the memory with it that it was
    /// received in.
    pub fn take_line(&mut self) -> Option<Result<(Bytes, Range<usize>), LineTooLong>> {
        let line = match self.next_range()? {
            Ok(line) => line,
            Err(error) => return Some(Err(error)),
        };
        if line.len() <= self.resting {
            self.base64 = None;
            return Some(Ok((Bytes::copy_from_slice(&self.buffer[line]), 0..0)));
        }
        let base64 = self.base64.take().map_or(0..0, |run| run.range());
        let rest = self.resting_buffer();
        let taken = std::mem::replace(&mut self.buffer, rest);
        (self.start, self.end, self.searched) = (0, self.end - self.start, self.searched - self.start);
        Some(Ok((taken.keep(line), base64)))
    }

    /// A buffer of the usual size, or larger if need be, with what was not handled yet.
    fn resting_buffer(&self) -> LineBuffer {
        let held = &self.buffer[self.start..self.end];
        let mut buffer = vec![0; self.resting.max(held.len())];
        buffer[..held.len()].copy_from_slice(held);
        LineBuffer::Heap(buffer)
    }

    /// Where the next whole line lies, which counts as handled from now on.
    fn next_range(&mut self) -> Option<Result<Range<usize>, LineTooLong>> {
        if self.start > 0 {
            self.base64 = None;
        }
        if let Some(run) = &mut self.base64 {
            run.extend(&self.buffer[..self.end]);
            // There is no newline in base64.
            self.searched = self.searched.max(run.range().end);
        }
        loop {
            let rest = &self.buffer[self.searched..self.end];
            let Some(length) = memory::find(b'\n', rest) else {
                self.searched = self.end;
                return self.unfinished_line();
            };
            let newline = self.searched + length;
            let line = without_return(&self.buffer, self.start, newline);
            self.start = newline + 1;
            self.searched = self.start;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if line.len() > self.max_bytes {
                return Some(Err(self.too_long()));
            }
            if !is_blank(&self.buffer[line.clone()]) {
                return Some(Ok(line));
            }
        }
    }

    /// What to make of bytes without a newline after them.
    fn unfinished_line(&mut self) -> Option<Result<Range<usize>, LineTooLong>> {
        let line = without_return(&self.buffer, self.start, self.end);
        let too_long = line.len() > self.max_bytes;
        if self.skipping || self.finished || too_long {
            self.start = self.end;
        }
        if self.skipping {
            None
        } else if too_long {
            self.skipping = true;
            Some(Err(self.too_long()))
        } else if self.finished && !is_blank(&self.buffer[line.clone()]) {
            Some(Ok(line))
        } else {
            None
        }
    }

    fn too_long(&self) -> LineTooLong {
        LineTooLong {
            max_bytes: self.max_bytes,
        }
    }

    /// A line is moved once at most: it is at the front until it is complete.
    fn move_to_front(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.searched -= self.start;
            self.start = 0;
            self.base64 = None;
        }
    }

    /// Doubles the buffer, and from a certain length on makes it as large as it can ever need to be.
    fn grow(&mut self) {
        let longest = self.max_bytes.saturating_add("\r\n".len()).saturating_add(self.resting);
        let double = (self.buffer.len() * 2).min(longest).max(self.end + self.resting);
        self.buffer = if double > LONG_AFTER * self.resting {
            self.base64 = Base64Run::find(&self.buffer[..self.end]);
            LineBuffer::long(&self.memory, &self.buffer[..self.end], longest.max(double), double)
        } else {
            let mut larger = vec![0; double];
            larger[..self.end].copy_from_slice(&self.buffer[..self.end]);
            LineBuffer::Heap(larger)
        };
    }
}

/// `start..end` of `bytes` without the carriage return of a line's end.
fn without_return(bytes: &[u8], start: usize, end: usize) -> Range<usize> {
    if end > start && bytes[end - 1] == b'\r' {
        start..end - 1
    } else {
        start..end
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a splitter makes of the pieces; `None` is a line that was too long.
    fn split(mut splitter: LineSplitter, pieces: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
        let mut lines = Vec::new();
        let mut drain = |splitter: &mut LineSplitter| {
            while let Some(line) = splitter.next_line() {
                lines.push(line.ok().map(<[u8]>::to_vec));
            }
        };
        for piece in pieces {
            let mut piece = *piece;
            while !piece.is_empty() {
                let spare = splitter.spare();
                assert!(!spare.is_empty());
                let n = piece.len().min(spare.len());
                spare[..n].copy_from_slice(&piece[..n]);
                splitter.filled(n);
                piece = &piece[n..];
                drain(&mut splitter);
            }
        }
        splitter.finish();
        drain(&mut splitter);
        lines
    }

    fn small(max_bytes: usize) -> LineSplitter {
        LineSplitter {
            resting: 8,
            ..LineSplitter::new(max_bytes)
        }
    }

    fn lines(of: &[&str]) -> Vec<Option<Vec<u8>>> {
        let bytes = |line: &&str| (*line != "TOO LONG").then(|| line.as_bytes().to_vec());
        of.iter().map(bytes).collect()
    }

    #[test]
    fn lines_lose_their_ends() {
        let table: [(&str, &[&str]); 12] = [
            ("", &[]),
            ("a\n", &["a"]),
            ("a\r\nb\n", &["a", "b"]),
            ("a\r\r\n", &["a\r"]),
            ("a\rb\n", &["a\rb"]),
            (" a \n", &[" a "]),
            ("\n \n\t\r\n\r\n", &[]),
            ("a", &["a"]),
            ("a\nb", &["a", "b"]),
            ("a\nb\r", &["a", "b"]),
            ("a\n  ", &["a"]),
            ("\u{b}\n\u{a0}\n", &["\u{b}", "\u{a0}"]),
        ];
        for (text, expected) in table {
            assert_eq!(split(small(20), &[text.as_bytes()]), lines(expected), "{text:?}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(split(small(20), &bytes), lines(expected), "{text:?}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_reported_once_and_skipped() {
        let table: [(&str, &[&str]); 8] = [
            ("12345\n", &["12345"]),
            ("12345\r\n", &["12345"]),
            ("12345", &["12345"]),
            ("123456\nok\n", &["TOO LONG", "ok"]),
            ("123456", &["TOO LONG"]),
            ("a\n123456789012345678901234567890\nok", &["a", "TOO LONG", "ok"]),
            ("          \nok\n", &["TOO LONG", "ok"]),
            ("1234567\n1234567\n", &["TOO LONG", "TOO LONG"]),
        ];
        for (text, expected) in table {
            for size in 1..text.len() {
                let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
                assert_eq!(split(small(5), &pieces), lines(expected), "{text:?}");
            }
        }
        let error = LineTooLong { max_bytes: 5 };
        assert_eq!(error.to_string(), "line exceeds the limit of 5 bytes");
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let max = 4 * 1024 * 1024;
        let mut splitter = LineSplitter::new(max);
        let mut feed = |length: usize, byte: u8, end: &[u8], most: usize| {
            let mut left = length;
            while left > 0 {
                let spare = splitter.spare();
                let n = left.min(spare.len()).min(10_000);
                spare[..n].fill(byte);
                splitter.filled(n);
                left -= n;
                if let Some(line) = splitter.next_line() {
                    assert!(line.is_err() && length > max);
                }
                assert!(splitter.buffer.len() <= most);
            }
            splitter.spare()[..end.len()].copy_from_slice(end);
            splitter.filled(end.len());
            let line = splitter.next_line().map(|line| line.map(<[u8]>::len));
            splitter.spare();
            assert!(splitter.buffer.len() <= RESTING);
            line
        };
        let most = max + 2 + RESTING;
        assert_eq!(feed(max, b'x', b"\r\n", most), Some(Ok(max)));
        assert_eq!(feed(100, b'x', b"\n", RESTING), Some(Ok(100)));
        assert_eq!(feed(20 * max, b'x', b"\n", most), None);
        assert_eq!(feed(100, b'x', b"\ny", RESTING), Some(Ok(100)));
        assert_eq!(feed(max - 1, b'y', b"\nz", most), Some(Ok(max)));
    }

    #[test]
    fn a_long_line_in_small_pieces_is_searched_once() {
        let mut splitter = LineSplitter::default();
        for _ in 0..200_000 {
            splitter.spare()[..7].copy_from_slice(b"7 bytes");
            splitter.filled(7);
            assert!(splitter.next_line().is_none());
        }
        splitter.finish();
        let last = splitter.next_line().map(|line| line.map(<[u8]>::len));
        assert_eq!(last, Some(Ok(1_400_000)));
        assert!(splitter.next_line().is_none());
    }
}
