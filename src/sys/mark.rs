//! Marks: a number that a process bears with all that descends from it, by which they are found again.
//!
//! Who a process descends from is forgotten when its parent ends, and its group, session, environment and open files are
//! its own to change: a daemon changes all of them. The mark is what no program has a reason to change: the soft limit of
//! file locks (`RLIMIT_LOCKS`), which the kernel keeps, hands on at each `fork(2)` and over each `execve(2)`, also to
//! other users, and has not enforced since Linux 2.4.25. It costs one system call at the start of a program.
//!
//! A kernel of 32 bits keeps no more of a limit, so there the upper half of a mark is the hard limit. That can't be raised
//! again without rights: a server that is itself a command of another one, and not root, can't mark its own.
//!
//! It is no fence: a program that wants to be lost can set that limit itself.

use super::raw::{self, Fd};
use nix::libc::{self, c_int};
use std::ffi::CStr;
use std::io;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Which processes are meant: those whose marks agree in some bits.
///
/// A mark has a zero, so that it is never "unlimited", or three if it is split; 19 or 17 random bits of this program; 20 of
/// a group of commands; 24 of a command. Those of the last two are counted, and begin again after as many.
///
/// Two programs have the same 19 bits once in 524 288 times (17: 131 072); then the keeper of one that is killed takes the other's
/// commands for its own. The bits of the process id would not be safer: programs in different namespaces have the same one
/// all the time (1, in containers), and see each other's processes where one is in the other. To look at all processes for
/// bits that are free would take longer than all else at the start. More bits would have to be taken from those that are
/// counted, where to begin again does the same harm to a program that runs for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kin {
    value: u64,
    mask: u64,
}

const COMMAND_BITS: u32 = 24;
const GROUP_BITS: u32 = 20;

impl Kin {
    /// All that this program has started.
    pub fn all() -> Kin {
        static ALL: LazyLock<u64> = LazyLock::new(|| {
            let mut bytes = std::process::id().to_ne_bytes();
            // Without random bytes those of the process id have to do.
            let _ = super::random::fill(&mut bytes);
            u64::from(u32::from_ne_bytes(bytes)) << (COMMAND_BITS + GROUP_BITS)
                & (u64::MAX >> if IS_SPLIT { 3 } else { 1 })
        });
        Kin {
            value: *ALL,
            mask: u64::MAX << (COMMAND_BITS + GROUP_BITS),
        }
    }

    /// A new group of commands.
    pub fn group() -> Kin {
        static GROUPS: AtomicU32 = AtomicU32::new(0);
        Kin::all().part(&GROUPS, GROUP_BITS, COMMAND_BITS)
    }

    /// A new command of this group.
    #[must_use]
    pub fn command(self) -> Kin {
        static COMMANDS: AtomicU32 = AtomicU32::new(0);
        self.part(&COMMANDS, COMMAND_BITS, 0)
    }

    fn part(self, count: &AtomicU32, bits: u32, shift: u32) -> Kin {
        let number = u64::from(count.fetch_add(1, Ordering::Relaxed)) & ((1 << bits) - 1);
        Kin {
            value: self.value | number << shift,
            mask: self.mask | u64::MAX << shift,
        }
    }

    /// What to set to bear this mark: the soft limit, and the hard one as it is unless it has to have a part. If that is less,
    /// which nobody has a reason for, there is no mark, and what has lost its parent is found only at the end of this program.
    pub(super) fn limits(self) -> [u64; 2] {
        static HARD: LazyLock<u64> = LazyLock::new(|| limits_of(0).map_or(u64::MAX, |limits| limits[1]));
        if IS_SPLIT {
            split(self.value)
        } else {
            [self.value, *HARD]
        }
    }
}

/// Whether a mark is in both limits. A kernel of 64 bits could do without that also for a program of 32.
const IS_SPLIT: bool = cfg!(target_pointer_width = "32");

const HALF_BITS: u32 = 31;
const HALF: u64 = (1 << HALF_BITS) - 1;

/// The limits for a mark of up to 61 bits: both below "unlimited", which is all 32, and the hard one above the other.
fn split(mark: u64) -> [u64; 2] {
    [mark & HALF, 1 << HALF_BITS | mark >> HALF_BITS]
}

/// The mark that limits are; what nobody has set is none of any kin.
fn joined([soft, hard]: [u64; 2]) -> u64 {
    if soft > HALF {
        u64::MAX
    } else {
        (hard & HALF) << HALF_BITS | soft
    }
}

fn mark(limits: [u64; 2]) -> u64 {
    if IS_SPLIT { joined(limits) } else { limits[0] }
}

/// `prlimit(2)`: the limits of a process, 0 for this one.
fn limits_of(pid: c_int) -> Result<[u64; 2], c_int> {
    let mut limits = [0; 2];
    raw::limits(pid, libc::RLIMIT_LOCKS as usize, None, Some(&mut limits))?;
    Ok(limits)
}

/// The processes that there are, as `/proc` has them. Makes system calls only, and allocates nothing.
pub struct Table(Fd);

impl Table {
    /// Opens it.
    ///
    /// # Errors
    /// What `open(2)` said.
    pub fn open() -> io::Result<Table> {
        let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let proc = raw::open(libc::AT_FDCWD, c"/proc", flags, 0);
        proc.map(Table).map_err(io::Error::from_raw_os_error)
    }

    pub(super) fn descriptor(&self) -> c_int {
        self.0.0
    }

    /// Calls `each` with the number of every process.
    pub fn each(&self, each: &mut dyn FnMut(i32)) {
        let mut entries = [0; 2048];
        if raw::rewind(self.0.0).is_err() {
            return;
        }
        while let Ok(len @ 1..) = raw::list(self.0.0, &mut entries) {
            // `struct linux_dirent64`: two words of eight bytes, the length of all at 16, the kind, and the name at 19.
            let mut rest = entries.get(..len).unwrap_or_default();
            while let Some([a, b, _, name @ ..]) = rest.get(16..) {
                if let Some(pid) = number(name) {
                    each(pid as i32);
                }
                rest = rest
                    .get(usize::from(u16::from_ne_bytes([*a, *b]))..)
                    .unwrap_or_default();
            }
        }
    }

    /// Whether a process bears such a mark.
    pub fn is_of(&self, pid: i32, kin: Kin) -> bool {
        let mark = match limits_of(pid) {
            Ok(limits) => Some(mark(limits)),
            // One that has become another user's.
            Err(libc::EPERM) => self.read_mark(pid),
            Err(_) => None,
        };
        mark.is_some_and(|mark| mark & kin.mask == kin.value)
    }

    /// The mark as anybody may read it, which takes ten times as long.
    fn read_mark(&self, pid: i32) -> Option<u64> {
        const LINE: &[u8] = b"Max file locks";
        // "PID/limits", from the end.
        let mut path = *b"0000000000/limits\0";
        let mut at = 10;
        let mut left = pid as u32;
        while left > 0 {
            at -= 1;
            *path.get_mut(at)? = b'0' + (left % 10) as u8;
            left /= 10;
        }
        let path = CStr::from_bytes_until_nul(path.get(at..)?).ok()?;
        let file = raw::open(self.0.0, path, libc::O_RDONLY | libc::O_CLOEXEC, 0).ok()?;
        let mut text = [0; 2048];
        let len = raw::read(file.0, &mut text).ok()?;
        let mut rest = text.get(..len)?;
        while !rest.starts_with(LINE) {
            rest = rest.get(1..)?;
        }
        let mut words = rest
            .get(LINE.len()..)?
            .split(|byte| *byte == b' ')
            .filter(|word| !word.is_empty());
        let soft = number(words.next()?)?;
        Some(mark([soft, words.next().and_then(number).unwrap_or(u64::MAX)]))
    }

    /// Sends a signal to a process that lives and bears such a mark; whether there is one. By a pidfd, so that no other gets
    /// it that was given the number meanwhile.
    ///
    /// # Errors
    /// The number of what `pidfd_send_signal(2)` said.
    pub(super) fn signal(&self, pid: i32, kin: Kin, signal: c_int) -> Result<bool, c_int> {
        let Ok(process) = raw::open_process(pid) else {
            return Ok(false);
        };
        if !self.is_of(pid, kin) || raw::is_readable(process.0) {
            return Ok(false);
        }
        raw::send_signal(process.0, signal).map(|_| true)
    }
}

/// The number that a text begins with.
fn number(text: &[u8]) -> Option<u64> {
    let mut number = None;
    for byte in text.iter().take_while(|byte| byte.is_ascii_digit()) {
        number = Some(
            number
                .unwrap_or(0u64)
                .wrapping_mul(10)
                .wrapping_add(u64::from(byte - b'0')),
        );
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kin_are_those_of_the_same_group() {
        let (one, other) = (Kin::group(), Kin::group());
        let (a, b) = (one.command(), one.command());
        let covers = |kin: Kin, other: Kin| mark(other.limits()) & kin.mask == kin.value;
        assert!(covers(a, a) && !covers(a, b) && covers(one, a) && covers(one, b));
        assert!(!covers(other, a) && covers(other, other.command()) && covers(Kin::all(), a));
        assert!(mark(a.limits()) < u64::MAX / 2 && a.limits()[0] <= a.limits()[1]);
    }

    #[test]
    fn a_split_mark_fits_into_limits_of_32_bits() {
        for mark in [0, 1, HALF, HALF + 1, 0x1234_5678_9abc_def0, u64::MAX >> 3] {
            let limits = split(mark);
            assert!(limits[0] <= limits[1] && limits[1] < u64::from(u32::MAX), "{limits:x?}");
            assert_eq!(joined(limits), mark);
        }
        // Nobody's, and what a keeper gives itself.
        assert_eq!(joined([u64::MAX; 2]), u64::MAX);
        assert_eq!(joined([split(5)[1]; 2]), u64::MAX);
    }

    #[test]
    fn every_process_is_listed_and_has_its_own_mark() {
        let kin = Kin::group().command();
        let mut child = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let pid = child.id() as i32;
        let table = Table::open().unwrap();
        let found = |kin| {
            let mut found = Vec::new();
            table.each(&mut |pid| found.extend(table.is_of(pid, kin).then_some(pid)));
            found
        };
        assert!(found(kin).is_empty());
        raw::limits(pid, libc::RLIMIT_LOCKS as usize, Some(&kin.limits()), None).unwrap();
        assert_eq!(found(kin), [pid]);
        assert_eq!(table.read_mark(pid), Some(mark(kin.limits())));
        assert_eq!(table.signal(pid, Kin::group(), libc::SIGKILL), Ok(false));
        assert_eq!(table.signal(pid, kin, libc::SIGKILL), Ok(true));
        child.wait().unwrap();
        assert_eq!(table.signal(pid, kin, libc::SIGKILL), Ok(false));
        let mut all = Vec::new();
        table.each(&mut |pid| all.push(pid));
        assert!(all.contains(&1) && all.contains(&(std::process::id() as i32)));
        assert!(all.len() > 1 && all.is_sorted());
    }

    #[test]
    fn a_number_ends_where_its_digits_do() {
        assert_eq!(number(b"12 34"), Some(12));
        assert_eq!(number(b"7\0x"), Some(7));
        assert_eq!(number(b"unlimited"), None);
        assert_eq!(number(b""), None);
    }
}
