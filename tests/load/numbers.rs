//! What the commands of a soak write, and what is written to them: numbers of ten digits, one a line, so that each byte
//! is known by its place, and a place can be found again after a loss.

/// The bytes of a line.
pub(crate) const LINE: u64 = 11;

/// How many numbers there are for one command.
const EACH: u64 = 1_000_000;

/// The numbers from one on, as lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) first: u64,
}

impl Numbers {
    /// The numbers of the n-th command: no others near it have the same.
    pub(crate) fn of(n: u64) -> Numbers {
        Numbers {
            first: 1_000_000_000 + n % 8000 * EACH,
        }
    }

    /// The last of so many numbers.
    pub(crate) fn last_of(self, lines: u64) -> u64 {
        self.first + lines - 1
    }

    /// The bytes from a place on.
    pub(crate) fn bytes(self, at: u64, len: usize) -> Vec<u8> {
        let skip = (at % LINE) as usize;
        let mut bytes = Vec::with_capacity(skip + len + LINE as usize);
        let mut number = self.first + at / LINE;
        while bytes.len() < skip + len {
            let (mut line, mut rest) = (*b"0000000000\n", number);
            for digit in line[..10].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            bytes.extend_from_slice(&line);
            number += 1;
        }
        bytes.truncate(skip + len);
        bytes.drain(..skip);
        bytes
    }

    /// The place that bytes are from, if that can be told.
    pub(crate) fn find(self, bytes: &[u8]) -> Option<u64> {
        let line = bytes.iter().position(|byte| *byte == b'\n')? + 1;
        let digits = str::from_utf8(bytes.get(line..line + 10)?).ok()?;
        let before = digits.parse::<u64>().ok()?.checked_sub(self.first)? * LINE;
        before.checked_sub(line as u64)
    }
}

#[test]
fn bytes_are_found_where_they_are_from() {
    let numbers = Numbers::of(3);
    assert_eq!(numbers.bytes(0, 22), b"1003000000\n1003000001\n");
    let all = numbers.bytes(0, 2000);
    for at in [1, 10, 11, 12, 500, 1005] {
        let bytes = numbers.bytes(at, 300);
        assert_eq!(bytes, all[at as usize..at as usize + 300]);
        assert_eq!(numbers.find(&bytes), Some(at));
    }
    assert_eq!(numbers.find(b"100\n1"), None);
}
