//! `fs/watchMissing`: a client is told once that something that was not there may be there now.

use super::outbox::{Outbox, Responder};
use crate::files::{FilesError, MissingWatch};
use crate::protocol::error::RpcError;
use crate::protocol::files::{FsMissingChangedNotification, FsWatchMissingResponse};
use crate::protocol::path_uri::RequestPath;
use crate::sys::thread;
use log::error;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use serde::Serialize;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The stack of the thread that waits for changes.
const STACK_BYTES: usize = 128 * 1024;

/// What is to be watched.
pub(super) struct MissingPaths {
    /// The watch's number, greater than every earlier one of the connection.
    pub(super) watch_id: u64,
    /// Paths that don't exist now, 1 to 64.
    pub(super) missing: Vec<RequestPath>,
    /// A path that exists now.
    pub(super) present: Option<RequestPath>,
}

/// The one watch that a connection may have. Its thread is there from the first until the connection ends.
pub(super) struct MissingWatches {
    outbox: Arc<Outbox>,
    watched: Mutex<Option<Arc<Watched>>>,
}

struct Watched {
    watch: Mutex<MissingWatch>,
    /// Readable when the watch has something to tell.
    ready: OwnedFd,
    stop: EventFd,
    /// There is no thread any more that waits for it.
    is_over: AtomicBool,
}

impl MissingWatches {
    pub(super) fn new(outbox: Arc<Outbox>) -> MissingWatches {
        MissingWatches {
            outbox,
            watched: Mutex::new(None),
        }
    }

    /// Watches in place of what was watched before, and answers.
    pub(super) fn start(&self, paths: &MissingPaths, responder: Responder) {
        let native = |path: &RequestPath| path.native().map(ToOwned::to_owned).ok();
        let missing: Option<Vec<PathBuf>> = paths.missing.iter().map(native).collect();
        let present = paths.present.as_ref().map(native);
        let watched = match self.watched() {
            Ok(watched) => watched,
            Err(e) => return responder.fail(&e),
        };
        // Held until the answer is on its way, so that the notification comes after it.
        let mut watch = watched.watch();
        let watching = match (missing, present) {
            (Some(missing), None) => watch.start(paths.watch_id, &missing, None),
            (Some(missing), Some(Some(present))) => watch.start(paths.watch_id, &missing, Some(&present)),
            // A path of another system can't be watched, but the request counts like any other.
            _ => watch.start(paths.watch_id, &[], None),
        };
        responder.ok(&FsWatchMissingResponse { watching });
    }

    fn watched(&self) -> Result<Arc<Watched>, RpcError> {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watched) = watched
            .as_ref()
            .filter(|watched| !watched.is_over.load(Ordering::Acquire))
        {
            return Ok(watched.clone());
        }
        let new = Arc::new(Watched::new()?);
        let (shared, outbox) = (new.clone(), self.outbox.clone());
        let run = Box::new(move || shared.run(&outbox));
        thread::start("missing-watch", STACK_BYTES, run).map_err(FilesError::from)?;
        *watched = Some(new.clone());
        Ok(new)
    }
}

impl Drop for MissingWatches {
    fn drop(&mut self) {
        if let Some(watched) = self.watched.get_mut().unwrap_or_else(PoisonError::into_inner) {
            // It can only fail when it is about to be read anyway.
            let _ = watched.stop.write(1);
        }
    }
}

impl Watched {
    fn new() -> Result<Watched, FilesError> {
        let watch = MissingWatch::new()?;
        let ready = watch.as_fd().try_clone_to_owned()?;
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(io::Error::from)?;
        Ok(Watched {
            watch: Mutex::new(watch),
            ready,
            stop,
            is_over: AtomicBool::new(false),
        })
    }

    fn watch(&self) -> MutexGuard<'_, MissingWatch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, outbox: &Outbox) {
        loop {
            let wanted = |fd| PollFd::new(fd, PollFlags::POLLIN);
            let mut fds = [wanted(self.stop.as_fd()), wanted(self.ready.as_fd())];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => continue,
                Err(e) => {
                    error!("failed to wait for missing paths: {e}; they are not watched any more");
                    self.is_over.store(true, Ordering::Release);
                    // Whoever is told looks for himself.
                    if let Some(watch_id) = self.watch().give_up() {
                        outbox.notify("fs/missingChanged", &FsMissingChangedNotification { watch_id });
                    }
                    return;
                }
                Ok(_) => {}
            }
            if fds[0].any().unwrap_or(true) {
                return;
            }
            if let Some(watch_id) = self.watch().changed() {
                outbox.notify("fs/missingChanged", &FsMissingChangedNotification { watch_id });
            }
        }
    }
}

impl Outbox {
    /// Sends a notification.
    fn notify(&self, method: &str, params: &impl Serialize) {
        #[derive(Serialize)]
        struct Notification<'a, P> {
            method: &'a str,
            params: P,
        }
        // Plain data, which cannot fail to be written.
        if let Ok(message) = serde_json::to_vec(&Notification { method, params }) {
            self.send(message);
        }
    }
}
