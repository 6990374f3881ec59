//! The ways in: what is listened on, and whether that may be.

use super::args::{Listen, ServeArgs};
use exec_server::server::{Listener, Server};
use exec_server::sys::descriptor;
use exec_server::transport::address::Address;
use exec_server::transport::admission::Admission;
use exec_server::transport::auth::Authorizer;
use nix::sys::socket::{SockType, SockaddrStorage, getpeername, getsockopt, sockopt};
use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

/// The most sockets that are taken over; far more than anybody passes.
const MAX_SOCKETS: RawFd = 1024;

/// Says that clients may come from elsewhere, and nobody is asked who it is.
pub(super) fn is_open(way: &dyn Display) -> String {
    format!("{way} can be reached from other machines: it needs --ws-auth or --insecure-no-auth")
}

/// Sockets that are served.
struct Ways<'a> {
    args: &'a ServeArgs,
    admission: Arc<Admission>,
    listeners: Vec<Listener>,
    /// One that is connected.
    connection: Option<OwnedFd>,
}

/// Serves in all the ways that were asked for, and tells where. `ended` is called when the only client that there can be
/// is gone, if that is so. Returns what the server does, in a few words.
pub(super) fn serve(
    args: &ServeArgs,
    server: &Arc<Server>,
    ended: impl Fn() + Send + Sync + 'static,
) -> Result<String, String> {
    let admission = Admission {
        authorizer: args.auth.authorizer().map_err(|e| e.to_string())?,
        uids: args.uids.clone(),
    };
    let mut ways = Ways {
        args,
        admission: Arc::new(admission),
        listeners: Vec::new(),
        connection: None,
    };
    for listen in &args.listen {
        match listen {
            Listen::Stdio => {}
            Listen::At(address) => {
                let listener = Listener::bind(address, ways.admission.clone());
                ways.listeners
                    .push(listener.map_err(|e| format!("failed to listen on {address}: {e}"))?);
            }
            Listen::Inherited(number) => ways.take(*number)?,
            Listen::Systemd(name) => {
                for number in passed_sockets(name.as_deref())? {
                    ways.take(number)?;
                }
            }
        }
    }
    let Ways {
        listeners,
        connection,
        admission,
        ..
    } = ways;
    if let Some(socket) = connection {
        if !listeners.is_empty() {
            return Err("a socket that is connected already is served alone, and others are listened on".into());
        }
        let served = server.serve_socket(socket, admission, ended);
        served.map_err(|e| format!("failed to serve the connected socket: {e}"))?;
        return Ok("serving one client".into());
    }
    let urls: Vec<String> = listeners
        .iter()
        .map(|listener| listener.address().to_string())
        .collect();
    io::stdout()
        .write_all((urls.join("\n") + "\n").as_bytes())
        .map_err(|e| format!("failed to tell where clients can connect: {e}"))?;
    for listener in listeners {
        let address = listener.address().clone();
        listener
            .serve(server.clone())
            .map_err(|e| format!("failed to serve {address}: {e}"))?;
    }
    Ok(format!("listening at {}", urls.join(", ")))
}

impl Ways<'_> {
    /// Takes over a socket that listens, or is connected.
    fn take(&mut self, number: RawFd) -> Result<(), String> {
        let failed = |e: &dyn Display| format!("failed to use descriptor {number} as a socket for clients: {e}");
        let socket = descriptor::inherited(number).map_err(|e| failed(&e))?;
        match getsockopt(&socket, sockopt::SockType) {
            Ok(SockType::Stream) => {}
            Ok(_) => return Err(failed(&"it is no stream socket")),
            Err(e) => return Err(failed(&e)),
        }
        let address = Address::of_socket(socket.as_fd()).map_err(|e| failed(&e))?;
        let has_auth = !matches!(self.admission.authorizer, Authorizer::None);
        if !address.is_local() && !has_auth && !self.args.insecure_no_auth {
            return Err(is_open(&format_args!("descriptor {number}, {address},")));
        }
        if getsockopt(&socket, sockopt::AcceptConn).map_err(|e| failed(&e))? {
            let listener = Listener::of_socket(socket, self.admission.clone());
            self.listeners.push(listener.map_err(|e| failed(&e))?);
            return Ok(());
        }
        getpeername::<SockaddrStorage>(socket.as_raw_fd()).map_err(|e| failed(&e))?;
        match self.connection.replace(socket) {
            None => Ok(()),
            Some(_) => Err(failed(&"another connected socket is served, and only one can be")),
        }
    }
}

/// The sockets that systemd has passed (`sd_listen_fds(3)`), or those of that name.
fn passed_sockets(name: Option<&str>) -> Result<Vec<RawFd>, String> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    if variable("LISTEN_PID") != std::process::id().to_string() {
        return Err("no sockets were passed to this process: LISTEN_PID does not name it".into());
    }
    let number = variable("LISTEN_FDS");
    let number = number.parse().ok().filter(|number| (1..=MAX_SOCKETS).contains(number));
    let number: RawFd = number.ok_or("LISTEN_FDS does not tell how many sockets were passed")?;
    let names = variable("LISTEN_FDNAMES");
    let names = names.split(':').chain(std::iter::repeat(""));
    let sockets: Vec<RawFd> = (3..3 + number)
        .zip(names)
        .filter(|(_, given)| name.is_none_or(|name| name == *given))
        .map(|(number, _)| number)
        .collect();
    match name {
        Some(name) if sockets.is_empty() => Err(format!("no socket of the name `{name}` was passed (LISTEN_FDNAMES)")),
        _ => Ok(sockets),
    }
}
