//! Reading a command line: flags, their values, and what is none.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// A year: longer than any server runs, and far from the end of any clock.
const MAX_SECONDS: u64 = 365 * 24 * 60 * 60;

/// What is wrong with the command line, in one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(String);

/// Says what is wrong, in one line whatever was quoted from the arguments.
pub(super) fn wrong<T>(text: impl Into<String>) -> Result<T, UsageError> {
    let text = text.into();
    if text.contains(char::is_control) {
        return Err(UsageError(text.escape_debug().to_string()));
    }
    Err(UsageError(text))
}

/// The arguments, the next one in sight.
pub(super) type Args<'a> = std::iter::Peekable<&'a mut dyn Iterator<Item = OsString>>;

/// What was asked for instead of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// `--help`
    Help,
    /// `--version`
    Version,
}

/// Gives each argument to `take`, which takes what belongs to it. Stops at `--help` and `--version`.
pub(super) fn read_args(
    args: &mut Args<'_>,
    take: &mut dyn FnMut(&mut Flag<'_, '_>) -> Result<(), UsageError>,
) -> Result<Option<Page>, UsageError> {
    while let Some(word) = args.next() {
        let bytes = word.as_bytes();
        let (name, inline) = match bytes.iter().position(|&byte| byte == b'=') {
            Some(at) if bytes.starts_with(b"--") => {
                let inline = OsStr::from_bytes(&bytes[at + 1..]).to_owned();
                (OsStr::from_bytes(&bytes[..at]), Some(inline))
            }
            _ => (word.as_os_str(), None),
        };
        let mut flag = Flag {
            name: &name.to_string_lossy(),
            word: &word,
            inline,
            args,
        };
        match flag.name {
            "-h" | "--help" => return flag.alone().map(|()| Some(Page::Help)),
            "-V" | "--version" => return flag.alone().map(|()| Some(Page::Version)),
            _ => take(&mut flag)?,
        }
    }
    Ok(None)
}

/// An argument, and where its value comes from if it is a flag.
pub(super) struct Flag<'a, 'b> {
    pub(super) name: &'a str,
    word: &'a OsStr,
    inline: Option<OsString>,
    args: &'a mut Args<'b>,
}

impl Flag<'_, '_> {
    /// Whether it is no flag.
    pub(super) fn is_word(&self) -> bool {
        !self.word.as_bytes().starts_with(b"-")
    }

    /// The argument as it is.
    #[cfg(feature = "client")]
    pub(super) fn word(&self) -> OsString {
        self.word.to_owned()
    }

    /// All arguments behind it.
    #[cfg(feature = "client")]
    pub(super) fn rest(&mut self) -> Vec<OsString> {
        self.args.collect()
    }

    /// Nobody knows it.
    pub(super) fn unknown<T>(&self) -> Result<T, UsageError> {
        if self.is_word() {
            return wrong(format!("unexpected argument `{}`", self.name));
        }
        wrong(format!("unknown flag `{}`", self.name))
    }

    pub(super) fn alone(&self) -> Result<(), UsageError> {
        match self.inline {
            None => Ok(()),
            Some(_) => wrong(format!("{} takes no value", self.name)),
        }
    }

    /// A flag that is only there or not.
    pub(super) fn switch(&self, slot: &mut Option<()>) -> Result<(), UsageError> {
        self.alone()?;
        self.put(slot, ())
    }

    pub(super) fn value(&mut self) -> Result<OsString, UsageError> {
        // A flag where a value should be means that the value was forgotten.
        let args = &mut *self.args;
        let mut next = || args.next_if(|next| !next.as_bytes().starts_with(b"-"));
        match self.inline.take().or_else(&mut next) {
            Some(value) if !value.is_empty() => Ok(value),
            _ => wrong(format!("{} needs a value", self.name)),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, UsageError> {
        self.value()?
            .into_string()
            .or_else(|_| wrong(format!("the value of {} is not UTF-8", self.name)))
    }

    /// A value that `read` understands, or else is not `what`.
    pub(super) fn parsed<T>(&mut self, what: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, UsageError> {
        let text = self.text()?;
        match read(&text) {
            Some(value) => Ok(value),
            None => wrong(format!("{} must be {what}, not `{text}`", self.name)),
        }
    }

    #[cfg(any(feature = "client", feature = "signed-tokens"))]
    pub(super) fn seconds(&mut self) -> Result<Duration, UsageError> {
        let what = format!("a number of seconds from 0 to {MAX_SECONDS}");
        self.parsed(&what, |text| {
            let seconds = text.parse().ok().filter(|&seconds| seconds <= MAX_SECONDS)?;
            Some(Duration::from_secs(seconds))
        })
    }

    /// A number of bytes, with or without a unit.
    pub(super) fn bytes(&mut self) -> Result<usize, UsageError> {
        self.parsed("a number of bytes, at least 1", bytes)
    }

    pub(super) fn number(&mut self) -> Result<usize, UsageError> {
        self.parsed("a number of at least 1", |text| {
            text.parse().ok().filter(|&number| number > 0)
        })
    }

    /// A time of at least `least`, in seconds or, if it says so, in milliseconds.
    pub(super) fn time(&mut self, least: Duration) -> Result<Duration, UsageError> {
        let what = format!("a time from {least:?} to {MAX_SECONDS}s, in seconds or such as 500ms");
        self.parsed(&what, |text| {
            let time = match text.strip_suffix("ms") {
                Some(text) => Duration::from_millis(text.parse().ok()?),
                None => Duration::from_secs(text.strip_suffix('s').unwrap_or(text).parse().ok()?),
            };
            Some(time).filter(|time| (least..=Duration::from_secs(MAX_SECONDS)).contains(time))
        })
    }

    /// Puts the value of a flag where it belongs; a flag may be given only once.
    pub(super) fn put<T>(&self, slot: &mut Option<T>, value: T) -> Result<(), UsageError> {
        match slot.replace(value) {
            None => Ok(()),
            Some(_) => wrong(format!("{} is given twice", self.name)),
        }
    }
}

/// A number of bytes, with or without a unit.
fn bytes(text: &str) -> Option<usize> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let scale: usize = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" => 1,
        "k" | "kib" => 1024,
        "m" | "mib" => 1024 * 1024,
        "g" | "gib" => 1024 * 1024 * 1024,
        _ => return None,
    };
    let number: usize = number.parse().ok()?;
    number.checked_mul(scale).filter(|&bytes| bytes > 0)
}
