//! Waiting for those who read slowly, until there is no use in it any more.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// The will to wait for a FIFO's reader or a terminal, shared by calls that are all given up at once.
#[derive(Debug, Default)]
pub struct Patience {
    is_over: AtomicBool,
    /// What wakes those who wait; made when somebody does.
    wake: Mutex<Option<std::sync::Arc<EventFd>>>,
}

impl Patience {
    /// Gives up all calls that wait, and those that would.
    pub fn end(&self) {
        let wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(wake) = &*wake {
            // It can only fail when it is full, and then it wakes as well.
            let _ = wake.write(1);
        }
    }

    /// A writer that waits whenever `file`, opened with O_NONBLOCK, takes no more.
    pub(super) fn writer<'a>(&'a self, file: &'a File) -> impl Write + 'a {
        PatientWriter { patience: self, file }
    }

    fn wait_for_room(&self, file: &File) -> io::Result<()> {
        let wake = {
            let mut wake = self.wake.lock().unwrap_or_else(PoisonError::into_inner);
            if self.is_over.load(Ordering::SeqCst) {
                return Err(io::Error::other("the call was given up: its connection has ended"));
            }
            match &*wake {
                Some(wake) => wake.clone(),
                None => {
                    let new = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
                    wake.insert(new.into()).clone()
                }
            }
        };
        let mut either = [
            PollFd::new(file.as_fd(), PollFlags::POLLOUT),
            PollFd::new(wake.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut either, PollTimeout::NONE)?;
        Ok(())
    }
}

struct PatientWriter<'a> {
    patience: &'a Patience,
    file: &'a File,
}

impl Write for PatientWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.file.write(bytes) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.patience.wait_for_room(self.file)?,
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::OFlag;
    use nix::unistd::pipe2;
    use std::io::Read;

    fn pipe() -> (File, File) {
        let (read, write) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap();
        (read.into(), write.into())
    }

    #[test]
    fn a_slow_reader_gets_everything() {
        let (mut read, write) = pipe();
        let patience = Patience::default();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let bytes = vec![b'x'; 300_000];
                patience.writer(&write).write_all(&bytes).unwrap();
            });
            let (mut total, mut room) = (0, [0; 1000]);
            while total < 300_000 {
                match read.read(&mut room) {
                    Ok(n) => total += n,
                    Err(e) => assert_eq!(e.kind(), ErrorKind::WouldBlock),
                }
            }
        });
    }

    #[test]
    fn those_who_wait_are_given_up_together_and_nobody_waits_after_that() {
        let (_read, write) = pipe();
        let patience = Patience::default();
        let fill = || patience.writer(&write).write_all(&[b'x'; 300_000]).unwrap_err();
        std::thread::scope(|scope| {
            let waiting = [scope.spawn(fill), scope.spawn(fill)];
            // Whether they wait already or not: they come back.
            patience.end();
            for writer in waiting {
                assert!(writer.join().unwrap().to_string().contains("given up"));
            }
        });
        assert!(fill().to_string().contains("given up"));
    }
}
