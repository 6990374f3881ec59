//! Telling the one who has started the server how it goes, as `sd_notify(3)` does.

use log::{debug, warn};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How long it may take to tell something; a service manager that does not listen holds nothing up for longer.
const LIMIT: Duration = Duration::from_secs(1);

/// The service manager, if there is one that wants to know.
pub(super) struct ServiceManager {
    socket: Option<UnixDatagram>,
    /// Within what time it wants to hear that the server is alive, each time.
    pub(super) watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that the environment names: its socket is `NOTIFY_SOCKET`, a path or, after an `@`, an abstract name.
    pub(super) fn of_environment() -> ServiceManager {
        let name = std::env::var("NOTIFY_SOCKET").ok();
        let socket = name.and_then(|name| {
            let connected = connect(&name);
            connected
                .inspect_err(|e| warn!("failed to reach the service manager at {name}: {e}"))
                .ok()
        });
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        // Only one process may be meant, while the variables are handed on.
        let is_meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| is_meant && *usec > 0);
        ServiceManager {
            watchdog: watchdog.filter(|_| socket.is_some()).map(Duration::from_micros),
            socket,
        }
    }

    /// Tells it something: assignments, a line each.
    pub(super) fn tell(&self, text: &str) {
        if let Some(Err(e)) = self.socket.as_ref().map(|socket| socket.send(text.as_bytes())) {
            debug!("failed to tell the service manager {text:?}: {e}");
        }
    }
}

fn connect(name: &str) -> io::Result<UnixDatagram> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(LIMIT))?;
    Ok(socket)
}
