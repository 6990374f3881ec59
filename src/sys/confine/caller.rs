//! The process that has made a call: what its memory, its descriptors and its directory say of what it wants.

use crate::sys::raw::{self, Fd};
use nix::libc::{self, c_int};
use std::ffi::CStr;
use std::os::fd::RawFd;

/// `PATH_MAX`: the longest path, with the NUL at its end.
const MAX_PATH: usize = 4096;
/// What a path may grow by when it is made to mean its caller's descriptors.
const ROOM: usize = 32;

/// A path, changed while it is followed.
pub(super) struct Text {
    bytes: [u8; MAX_PATH + ROOM],
    /// Without the NUL behind it.
    len: usize,
}

impl Text {
    pub(super) const EMPTY: Text = Text {
        bytes: [0; MAX_PATH + ROOM],
        len: 0,
    };

    /// Takes over what there is up to the first NUL, as far as there is room.
    pub(super) fn set(&mut self, path: &[u8]) {
        let path = path.split(|b| *b == 0).next().unwrap_or_default();
        self.len = path.len().min(MAX_PATH - 1);
        self.bytes[..self.len].copy_from_slice(&path[..self.len]);
        self.bytes[self.len] = 0;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn is_absolute(&self) -> bool {
        self.bytes[0] == b'/'
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        self.from(0)
    }

    /// The directory of the last name, if one is named, and where the last name begins. That has the slashes behind it; the
    /// one before it is gone then.
    pub(super) fn split(&mut self) -> (Option<&CStr>, usize) {
        let end = self.len - self.bytes[..self.len].iter().rev().take_while(|b| **b == b'/').count();
        match self.bytes[..end].iter().rposition(|b| *b == b'/') {
            // The root itself.
            None if self.len > 0 && end == 0 => (Some(c"/"), 0),
            None => (None, 0),
            Some(0) => (Some(c"/"), 1),
            Some(slash) => {
                self.bytes[slash] = 0;
                (Some(c_str(&self.bytes)), slash + 1)
            }
        }
    }

    /// What begins there.
    pub(super) fn from(&self, start: usize) -> &CStr {
        c_str(&self.bytes[start..])
    }

    /// Takes over the target of a link.
    pub(super) fn read_link(&mut self, link: RawFd) -> Result<(), c_int> {
        let len = raw::read_link(link, c"", &mut self.bytes[..MAX_PATH])?;
        if len == MAX_PATH {
            return Err(libc::ENAMETOOLONG);
        }
        self.bytes[len] = 0;
        self.len = len;
        Ok(())
    }

    /// Puts `new` in the place of the first `old` bytes.
    fn replace_start(&mut self, old: usize, new: &[u8]) {
        let rest = old..self.len + 1;
        if new.len() + rest.len() <= self.bytes.len() {
            self.len = new.len() + rest.len() - 1;
            self.bytes.copy_within(rest, new.len());
            self.bytes[..new.len()].copy_from_slice(new);
        }
    }
}

/// Up to the first NUL.
fn c_str(bytes: &[u8]) -> &CStr {
    CStr::from_bytes_until_nul(bytes).unwrap_or_default()
}

/// A short path, made of words and numbers.
pub(super) struct Name {
    bytes: [u8; 48],
    len: usize,
}

impl Name {
    pub(super) fn of(word: &str) -> Name {
        let empty = Name { bytes: [0; 48], len: 0 };
        empty.and(word.as_bytes())
    }

    /// Leaves out what there is no room for, which is never needed.
    fn and(mut self, word: &[u8]) -> Name {
        let room = self.bytes.len() - 1 - self.len;
        let word = &word[..word.len().min(room)];
        self.bytes[self.len..self.len + word.len()].copy_from_slice(word);
        self.len += word.len();
        self
    }

    pub(super) fn number(self, number: c_int) -> Name {
        let mut digits = [0; 10];
        let (mut left, mut at) = (number.unsigned_abs(), digits.len());
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                return self.and(&digits[at..]);
            }
        }
    }

    pub(super) fn word(self, word: &str) -> Name {
        self.and(word.as_bytes())
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        c_str(&self.bytes)
    }
}

/// A thread that waits for the answer to a call.
#[derive(Clone, Copy)]
pub(super) struct Caller {
    pub(super) thread: c_int,
    /// The `/proc` of the sandbox.
    pub(super) proc: RawFd,
}

impl Caller {
    /// Reads a path from its memory, as the kernel would.
    pub(super) fn read_path(&self, from: u64, text: &mut Text) -> Result<(), c_int> {
        let mut len = 0;
        while len < MAX_PATH {
            // Not over the end of a page: what is behind may not be there.
            let at = from.wrapping_add(len as u64);
            let piece = (MAX_PATH - at as usize % MAX_PATH).min(MAX_PATH - len);
            let read = self.read_memory(at, &mut text.bytes[len..len + piece])?;
            let bytes = &text.bytes[len..len + read];
            if let Some(nul) = bytes.iter().position(|b| *b == 0) {
                text.len = len + nul;
                return Ok(());
            }
            if read == 0 {
                return Err(libc::EFAULT);
            }
            len += read;
        }
        Err(libc::ENAMETOOLONG)
    }

    /// Reads its memory.
    pub(super) fn read_memory(&self, from: u64, bytes: &mut [u8]) -> Result<usize, c_int> {
        match raw::read_memory(self.thread, from, bytes) {
            Err(libc::EPERM) => raw::with_right(raw::LOOK_RIGHT, || raw::read_memory(self.thread, from, bytes)),
            read => read,
        }
    }

    /// What its paths count from that begin at `directory`, a descriptor or its working directory.
    pub(super) fn base(&self, directory: c_int) -> Result<Fd, c_int> {
        if directory == libc::AT_FDCWD {
            return self.open("/cwd", raw::NAME | libc::O_DIRECTORY);
        }
        let name = self.descriptor(directory)?;
        match self.open_name(name.as_c_str(), raw::NAME | libc::O_DIRECTORY) {
            // That of a process into which nobody may look, whatever his rights.
            Err(libc::EACCES) => self.take_descriptor(directory),
            opened => opened,
        }
    }

    /// A copy of one of its descriptors.
    pub(super) fn take_descriptor(&self, fd: c_int) -> Result<Fd, c_int> {
        let process = self.process()?;
        match raw::take_descriptor(process, fd) {
            Err(libc::EPERM) => raw::with_right(raw::LOOK_RIGHT, || raw::take_descriptor(process, fd)),
            taken => taken,
        }
    }

    /// The name of one of its descriptors in `/proc`.
    pub(super) fn descriptor(&self, fd: c_int) -> Result<Name, c_int> {
        let name = Name::of("").number(self.thread).word("/fd/").number(fd);
        match raw::stat(self.proc, name.as_c_str()) {
            _ if fd < 0 => Err(libc::EBADF),
            Err(libc::ENOENT) => Err(libc::EBADF),
            _ => Ok(name),
        }
    }

    fn open(&self, file: &str, flags: c_int) -> Result<Fd, c_int> {
        let name = Name::of("").number(self.thread).word(file);
        self.open_name(name.as_c_str(), flags)
    }

    fn open_name(&self, name: &CStr, flags: c_int) -> Result<Fd, c_int> {
        match raw::open(self.proc, name, flags, 0) {
            Err(libc::EACCES) => raw::with_right(raw::LOOK_RIGHT, || raw::open(self.proc, name, flags, 0)),
            opened => opened,
        }
    }

    /// The mask of the modes of files that it makes.
    pub(super) fn umask(&self) -> Result<u32, c_int> {
        let mut bytes = [0; 256];
        let status = self.read("/status", &mut bytes)?;
        let mask = field(status, b"Umask:\t").ok_or(libc::ESRCH)?;
        let digits = mask.iter().take_while(|b| b.is_ascii_digit());
        Ok(digits.fold(0, |mask, digit| mask << 3 | u32::from(digit & 7)))
    }

    /// The number of the process that the thread is of.
    pub(super) fn process(&self) -> Result<c_int, c_int> {
        let mut bytes = [0; 256];
        let status = self.read("/status", &mut bytes)?;
        field(status, b"Tgid:\t").and_then(number).ok_or(libc::ESRCH)
    }

    /// Its session, and the device number of its controlling terminal or 0.
    pub(super) fn terminal(&self) -> Result<(c_int, c_int), c_int> {
        let mut bytes = [0; 256];
        let stat = self.read("/stat", &mut bytes)?;
        // Behind the name, which can be anything: state, parent, process group, session, terminal.
        let name_end = stat.iter().rposition(|b| *b == b')').unwrap_or(0);
        let mut words = stat[name_end..].split(|b| *b == b' ').skip(4);
        let mut next = || words.next().and_then(number).ok_or(libc::ESRCH);
        Ok((next()?, next()?))
    }

    fn read<'a>(&self, file: &str, bytes: &'a mut [u8]) -> Result<&'a [u8], c_int> {
        let file = self.open(file, libc::O_RDONLY | libc::O_CLOEXEC)?;
        let len = raw::read(file.0, bytes)?;
        Ok(&bytes[..len])
    }

    /// Makes a path that means its reader's own process mean the caller's.
    pub(super) fn own(&self, text: &mut Text) {
        let own = Name::of("/proc/").number(self.thread);
        for (meant, rest) in [
            ("/proc/self", ""),
            ("/proc/thread-self", ""),
            ("/dev/fd", "/fd"),
            ("/dev/stdin", "/fd/0"),
            ("/dev/stdout", "/fd/1"),
            ("/dev/stderr", "/fd/2"),
        ] {
            let path = &text.bytes[..text.len];
            if path.starts_with(meant.as_bytes()) && matches!(path.get(meant.len()), None | Some(b'/')) {
                return text.replace_start(meant.len(), own.word(rest).as_bytes());
            }
        }
    }
}

/// What follows a word at the beginning of a line.
fn field<'a>(text: &'a [u8], word: &[u8]) -> Option<&'a [u8]> {
    text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(word))
}

/// The number at the beginning.
fn number(text: &[u8]) -> Option<c_int> {
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        digits => (1, digits),
    };
    let mut digits = digits.iter().take_while(|b| b.is_ascii_digit()).peekable();
    digits.peek()?;
    Some(digits.fold(0, |n: c_int, digit| {
        n.wrapping_mul(10).wrapping_add(sign * c_int::from(digit - b'0'))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str) -> Text {
        let mut text = Text::EMPTY;
        text.set(path.as_bytes());
        text
    }

    #[test]
    fn a_path_is_split_before_its_last_name() {
        for (path, directory, name) in [
            ("a", None, c"a"),
            ("a/", None, c"a/"),
            ("a/b", Some(c"a"), c"b"),
            ("a//b//", Some(c"a/"), c"b//"),
            ("/a", Some(c"/"), c"a"),
            ("//a", Some(c"/"), c"a"),
            ("/a/b", Some(c"/a"), c"b"),
            ("/", Some(c"/"), c"/"),
            ("//", Some(c"/"), c"//"),
            (".", None, c"."),
            ("a/..", Some(c"a"), c".."),
        ] {
            let mut text = text(path);
            let (found, start) = text.split();
            assert_eq!(found, directory, "{path}");
            assert_eq!(text.from(start), name, "{path}");
        }
    }

    #[test]
    fn what_means_the_reader_is_made_to_mean_the_caller() {
        let caller = Caller { thread: 1234, proc: -1 };
        for (path, expected) in [
            ("/proc/self/cwd/x", c"/proc/1234/cwd/x"),
            ("/proc/self", c"/proc/1234"),
            ("/proc/selfish", c"/proc/selfish"),
            ("/proc/thread-self/fd/7", c"/proc/1234/fd/7"),
            ("/dev/fd/12", c"/proc/1234/fd/12"),
            ("/dev/stderr", c"/proc/1234/fd/2"),
            ("/dev/stderr2", c"/dev/stderr2"),
            ("dev/stdin", c"dev/stdin"),
        ] {
            let mut text = text(path);
            caller.own(&mut text);
            assert_eq!((text.as_c_str(), text.len), (expected, expected.count_bytes()));
        }
        // There is room for the longest.
        let path = format!("/dev/fd/{}", "x".repeat(MAX_PATH - 9));
        let mut longest = text(&path);
        Caller {
            thread: c_int::MAX,
            proc: -1,
        }
        .own(&mut longest);
        assert!(longest.as_c_str().to_bytes().starts_with(b"/proc/2147483647/fd/x"));
        assert_eq!(longest.as_c_str().count_bytes(), longest.len);
    }

    #[test]
    fn the_reader_finds_out_about_itself() {
        let proc = raw::open(libc::AT_FDCWD, c"/proc", raw::NAME, 0).unwrap();
        let caller = Caller {
            thread: nix::unistd::gettid().as_raw(),
            proc: proc.0,
        };
        assert_eq!(caller.process(), Ok(nix::unistd::getpid().as_raw()));
        let session = nix::unistd::getsid(None).map(|pid| pid.as_raw());
        assert_eq!(
            caller.terminal().map(|(session, _)| session),
            session.map_err(|e| e as c_int)
        );
        assert!(caller.umask().is_ok_and(|mask| mask <= 0o777));
        let mut read = Text::EMPTY;
        assert_eq!(caller.read_path(c"some/path".as_ptr() as u64, &mut read), Ok(()));
        assert_eq!(read.as_c_str(), c"some/path");
        assert_eq!(caller.read_path(8, &mut read), Err(libc::EFAULT));
        assert_eq!(caller.base(-1).map(drop), Err(libc::EBADF));
        assert!(caller.base(libc::AT_FDCWD).is_ok());
    }
}
