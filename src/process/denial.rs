//! Whether a sandbox has stopped a command: a guess from how it ended, for clients that offer to try again without.
//!
//! The kernel tells nobody that it has refused a confined program something, but for the calls that end it. So, as in
//! Codex's exec-server, what counts is what the program says of it, which is what the C library calls the error.

use super::block::Bytes;
use super::output_log::{Exit, Stream};
use nix::libc::SIGSYS;

/// What programs say that were refused something, in small letters. The list of Codex's exec-server.
const PHRASES: [&[u8]; 7] = [
    b"operation not permitted",
    b"permission denied",
    b"read-only file system",
    b"seccomp",
    b"sandbox",
    b"landlock",
    b"failed to write file",
];

/// The longest of the phrases but one byte: what may be at the end of one chunk and go on in the next.
const OVERLAP: usize = 22;

/// Whether a confined command that ended so, and has said that, was likely refused something.
pub(super) fn is_likely(exit: Exit, output: &[(u64, Stream, Bytes)]) -> bool {
    if exit.code == 0 {
        return false;
    }
    exit.signal == Some(SIGSYS) || exit.code == 128 + SIGSYS || {
        [Stream::Stdout, Stream::Stderr, Stream::Pty].into_iter().any(|stream| {
            has_phrase(
                output
                    .iter()
                    .filter(|chunk| chunk.1 == stream)
                    .map(|chunk| &chunk.2[..]),
            )
        })
    }
}

fn has_phrase<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut seam = Vec::new();
    for chunk in chunks {
        seam.extend_from_slice(&chunk[..chunk.len().min(OVERLAP)]);
        if begins_somewhere(&seam) || begins_somewhere(chunk) {
            return true;
        }
        if chunk.len() >= OVERLAP {
            seam.clear();
            seam.extend_from_slice(&chunk[chunk.len() - OVERLAP..]);
        } else {
            seam.drain(..seam.len().saturating_sub(OVERLAP));
        }
    }
    false
}

fn begins_somewhere(text: &[u8]) -> bool {
    let first = |b: &u8| matches!(b | 0x20, b'o' | b'p' | b'r' | b's' | b'l' | b'f');
    let begins = |i: usize| {
        PHRASES.iter().any(|phrase| {
            text[i..]
                .get(..phrase.len())
                .is_some_and(|t| t.eq_ignore_ascii_case(phrase))
        })
    };
    (0..text.len()).any(|i| first(&text[i]) && begins(i))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phrase_is_found_wherever_it_begins_and_however_it_is_cut() {
        let longest = PHRASES.iter().map(|phrase| phrase.len()).max();
        assert_eq!(longest, Some(OVERLAP + 1));
        let text = b"sh: 1: cannot create /etc/x: Read-only file system\n";
        assert!(has_phrase([&text[..]].into_iter()));
        for at in 0..text.len() {
            let (a, b) = text.split_at(at);
            assert!(has_phrase([a, b].into_iter()), "{at}");
        }
        assert!(has_phrase(text.chunks(1)));
        assert!(has_phrase(text.chunks(7)));
        assert!(!has_phrase([&b"read-only"[..], b"file system"].into_iter()));
        assert!(!has_phrase([&b"no such file or directory, permission"[..]].into_iter()));
    }

    #[test]
    fn success_is_no_denial_and_a_forbidden_call_is() {
        let exit = |code, signal| Exit {
            code,
            signal,
            sandbox_denied: false,
            failure: None,
            limit_met: None,
        };
        assert!(!is_likely(exit(0, None), &[]));
        assert!(!is_likely(exit(1, None), &[]));
        assert!(is_likely(exit(159, None), &[]));
        assert!(is_likely(exit(159, Some(SIGSYS)), &[]));
    }
}
