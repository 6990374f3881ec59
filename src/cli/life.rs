//! The main thread of a server: what signals ask for, and the end.

use exec_server::process::{kill_descendants, reap_orphans};
use exec_server::server::Server;
use exec_server::sys::signals;
use log::info;
use nix::sys::signal::{SigSet, Signal};
use std::convert::Infallible;
use std::time::{Duration, Instant};

/// How often it is looked whether all has been said that is to be said before the end, which nobody tells.
const LOOK: Duration = Duration::from_millis(50);

/// Waits for `signals`, which are blocked, and does what they ask for. SIGTERM ends the server as the others do, but with
/// a `drain_timeout` only when its commands have ended or that time is over; a second one ends it at once. Only returns
/// if that is not possible.
pub(super) fn live(server: &Server, signals: &SigSet, drain_timeout: Duration) -> Result<Infallible, String> {
    let mut drained_by = None;
    loop {
        let limit = drained_by.map(|_| LOOK);
        match signals::wait(signals, limit) {
            Ok(None) => {}
            Ok(Some(Signal::SIGCHLD)) => reap_orphans(),
            Ok(Some(Signal::SIGTERM)) if drained_by.is_none() && !drain_timeout.is_zero() => {
                info!("ending when all commands have ended, within {drain_timeout:?}");
                server.drain();
                drained_by = Some(Instant::now() + drain_timeout);
            }
            Ok(Some(signal)) => {
                info!("ending on {signal}");
                end(server);
            }
            Err(e) => return Err(format!("failed to wait for signals: {e}")),
        }
        if let Some(by) = drained_by {
            let left = by.saturating_duration_since(Instant::now());
            if left.is_zero() {
                info!("ending though commands run: their time is over");
                end(server);
            }
            if server.is_drained() {
                server.finish(left);
                end(server);
            }
        }
    }
}

/// Ends the server with everything that its commands have started.
pub(super) fn end(server: &Server) -> ! {
    server.shut_down();
    kill_descendants();
    std::process::exit(0)
}
