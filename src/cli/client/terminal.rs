//! The terminal that this program runs on.

use super::lock;
use crate::cli::log_output;
use exec_server::protocol::process::TerminalSize;
use exec_server::sys::ioctl::terminal_size;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::Mutex;

/// The terminal on standard input, which may be made raw: what is typed then arrives as it is, and nothing is shown but
/// what the command writes. Restored when this is dropped.
#[derive(Default)]
pub(super) struct Terminal {
    /// How it was before.
    saved: Mutex<Option<Termios>>,
}

impl Terminal {
    /// Makes it raw, or raw again. Does nothing if standard input is no terminal.
    pub(super) fn make_raw(&self) -> io::Result<()> {
        let input = io::stdin();
        if !input.is_terminal() {
            return Ok(());
        }
        let mut saved = lock(&self.saved);
        let before = match &*saved {
            Some(before) => before.clone(),
            None => saved.insert(tcgetattr(&input)?).clone(),
        };
        let mut raw = before;
        cfmakeraw(&mut raw);
        tcsetattr(&input, SetArg::TCSADRAIN, &raw)?;
        log_output::set_raw(true);
        Ok(())
    }

    /// Makes it raw again if it was, because whoever continued this program may have changed it.
    pub(super) fn continue_raw(&self) {
        let is_raw = lock(&self.saved).is_some();
        if is_raw && let Err(e) = self.make_raw() {
            log::warn!("failed to make the terminal raw again: {e}");
        }
    }

    /// Makes it what it was.
    pub(super) fn restore(&self) {
        if let Some(before) = lock(&self.saved).take() {
            // Nobody is left to be told.
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &before);
            log_output::set_raw(false);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.restore();
    }
}

/// The size of the terminal, whichever stream it is on. `None` if there is none, or it has no size.
pub(super) fn size() -> Option<TerminalSize> {
    let (input, output, errors) = (io::stdin(), io::stdout(), io::stderr());
    let streams = [input.as_fd(), output.as_fd(), errors.as_fd()];
    let sizes = streams.into_iter().filter_map(|stream| terminal_size(stream).ok());
    let mut sizes = sizes.filter(|&(rows, cols)| rows > 0 && cols > 0);
    sizes.next().map(|(rows, cols)| TerminalSize { rows, cols })
}
