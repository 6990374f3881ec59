//! The main thread of a server: what signals ask for, what the service manager is told, and the end.

use super::notify::ServiceManager;
use exec_server::process::{kill_descendants, reap_orphans};
use exec_server::server::Server;
use exec_server::sys::signals;
use log::{error, info};
use nix::sys::signal::{SigSet, Signal};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often it is looked whether all has been said that is to be said before the end, which nobody tells.
const LOOK: Duration = Duration::from_millis(50);

/// A server and the one who has started it.
pub(super) struct Life {
    pub(super) server: Arc<Server>,
    manager: ServiceManager,
}

/// When the service manager is told that the server is alive, or why it is not told.
struct Watchdog {
    interval: Duration,
    due: Instant,
    is_late: bool,
}

impl Life {
    /// Begins; nothing serves yet.
    pub(super) fn new(server: Arc<Server>) -> Life {
        let manager = ServiceManager::of_environment();
        if let Some(limit) = manager.watchdog {
            server.watch(limit / 4);
        }
        Life { server, manager }
    }

    /// The server serves `whom`. Waits for `signals`, which are blocked, and does what they ask for. SIGTERM ends the
    /// server as the others do, but with a `drain_timeout` only when its commands have ended or that time is over; a
    /// second one ends it at once. Only returns if that is not possible.
    pub(super) fn go_on(&self, whom: &str, signals: &SigSet, drain_timeout: Duration) -> Result<Infallible, String> {
        self.manager.tell(&format!("READY=1\nSTATUS={whom}"));
        let mut watchdog = self.manager.watchdog.map(|limit| Watchdog {
            interval: limit / 2,
            due: Instant::now(),
            is_late: false,
        });
        let mut drained_by = None;
        loop {
            let look = drained_by.map(|_| LOOK);
            let due = watchdog.as_mut().map(|watchdog| self.beat(watchdog));
            let limit = look.into_iter().chain(due).min();
            match signals::wait(signals, limit) {
                Ok(None) => {}
                Ok(Some(Signal::SIGCHLD)) => reap_orphans(),
                Ok(Some(Signal::SIGTERM)) if drained_by.is_none() && !drain_timeout.is_zero() => {
                    info!("ending when all commands have ended, within {drain_timeout:?}");
                    let usec = (drain_timeout + LONGEST_END).as_micros();
                    let status = "waiting for the end of the commands";
                    let text = format!("STOPPING=1\nSTATUS={status}\nEXTEND_TIMEOUT_USEC={usec}");
                    self.manager.tell(&text);
                    self.server.drain();
                    drained_by = Some(Instant::now() + drain_timeout);
                }
                Ok(Some(signal)) => {
                    info!("ending on {signal}");
                    self.end();
                }
                Err(e) => return Err(format!("failed to wait for signals: {e}")),
            }
            if let Some(by) = drained_by {
                let left = by.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    info!("ending though commands run: their time is over");
                    self.end();
                }
                if self.server.is_drained() {
                    self.server.finish(left);
                    self.end();
                }
            }
        }
    }

    /// Says that the server is alive, if that is due and true. Returns when to come back.
    fn beat(&self, watchdog: &mut Watchdog) -> Duration {
        let now = Instant::now();
        if now >= watchdog.due {
            let is_alive = self.server.is_alive();
            let mut wait = watchdog.interval;
            if is_alive {
                self.manager.tell("WATCHDOG=1");
            } else {
                if !watchdog.is_late {
                    error!(
                        "the server does not accept clients, or does nothing that is due: the watchdog is not told that it lives"
                    );
                }
                wait /= 8;
            }
            watchdog.is_late = !is_alive;
            watchdog.due = now + wait;
        }
        watchdog.due - now
    }

    /// Ends the server with everything that its commands have started.
    pub(super) fn end(&self) -> ! {
        self.manager.tell("STOPPING=1");
        self.server.shut_down();
        kill_descendants();
        std::process::exit(0)
    }
}

/// What the end itself takes after the commands' time, at most, in the usual case.
const LONGEST_END: Duration = Duration::from_secs(10);
