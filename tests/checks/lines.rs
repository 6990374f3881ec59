//! What the line splitter must do with any bytes in any pieces.

use exec_server::protocol::message::{self, Limits};
use exec_server::transport::line::LineSplitter;

/// Panics unless `text`, cut into pieces of the given sizes (the last one again and again),
/// comes out as the lines it has as a whole.
pub(crate) fn check(text: &[u8], sizes: &[usize], max_bytes: usize) {
    check_one_way(text, sizes, max_bytes, false);
    check_one_way(text, sizes, max_bytes, true);
}

/// Lines are looked at, or taken to be kept.
fn check_one_way(text: &[u8], sizes: &[usize], max_bytes: usize, take: bool) {
    let mut splitter = LineSplitter::new(max_bytes);
    let mut expected = whole(text, max_bytes).into_iter();
    let mut drain = |splitter: &mut LineSplitter| {
        loop {
            let line = match take {
                true => splitter
                    .take_line()
                    .map(|line| line.ok().map(|(line, base64)| checked(&line, base64))),
                false => splitter.next_line().map(|line| line.ok().map(<[u8]>::to_vec)),
            };
            let Some(line) = line else { break };
            assert_eq!(Some(line.as_deref()), expected.next());
        }
    };
    let mut rest = text;
    let mut sizes = sizes.iter();
    let mut size = 1;
    while !rest.is_empty() {
        size = sizes.next().map_or(size, |&size| size.max(1));
        let (mut piece, later) = rest.split_at(size.min(rest.len()));
        rest = later;
        while !piece.is_empty() {
            let spare = splitter.spare();
            let n = piece.len().min(spare.len());
            assert!(n > 0, "no room");
            spare[..n].copy_from_slice(&piece[..n]);
            splitter.filled(n);
            piece = &piece[n..];
            drain(&mut splitter);
        }
    }
    splitter.finish();
    drain(&mut splitter);
    assert_eq!(expected.next(), None, "a line is missing");
}

/// The lines of `text`, `None` for one that is too long.
fn whole(text: &[u8], max_bytes: usize) -> Vec<Option<&[u8]>> {
    text.split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter_map(|line| {
            if line.len() > max_bytes {
                Some(None)
            } else if line.iter().all(|byte| b" \t\r".contains(byte)) {
                None
            } else {
                Some(Some(line))
            }
        })
        .collect()
}

/// Checks what `input` describes: a byte for the limit, a byte for the number of pieces, a byte
/// for the size of each, a byte for how often the text is repeated, and the text.
pub(crate) fn check_input(input: &[u8]) {
    let [limit, count, rest @ ..] = input else {
        return;
    };
    // From nothing to more than a buffer, with all small limits.
    let max_bytes = match *limit {
        small @ 0..200 => usize::from(small),
        large => usize::from(large - 199) * 1500,
    };
    let count = usize::from(*count % 64).min(rest.len());
    let (sizes, rest) = rest.split_at(count);
    let sizes: Vec<usize> = sizes
        .iter()
        .map(|&size| match size {
            small @ 0..200 => usize::from(small),
            large => usize::from(large - 199) * 2000,
        })
        .collect();
    let [times, text @ ..] = rest else {
        return;
    };
    // Large texts in large pieces only, or else this takes for ever.
    let last_size = sizes.last().copied().unwrap_or_default().max(1);
    let longest = last_size.saturating_mul(500).min(150_000);
    let most = longest / text.len().max(1);
    let times = usize::from(*times).pow(2).clamp(1, most.max(1));
    check(&text.repeat(times), &sizes, max_bytes);
}

/// A line that was taken, of which what is said to be base64 must be that, and change nothing in how it is read.
fn checked(line: &[u8], base64: std::ops::Range<usize>) -> Vec<u8> {
    let run = &line[base64.clone()];
    assert!(run.len().is_multiple_of(4));
    assert!(run.iter().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(b)));
    let limits = Limits::default();
    assert_eq!(
        message::parse_with_bulk(line, base64, &limits),
        message::parse_with_bulk(line, 0..0, &limits)
    );
    line.to_vec()
}
