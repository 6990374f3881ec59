//! Who is let in, and by which way.

use super::address::{Address, StreamSocket};
use super::auth::Authorizer;
use nix::sys::socket::{VsockAddr, getpeername, getsockopt, sockopt};
use nix::unistd::geteuid;
use std::io;
use std::os::fd::AsRawFd;

/// What clients must be or present, the same for all the ways in.
#[derive(Clone)]
pub struct Admission {
    /// What they must present. Only HTTP has a place for it.
    pub authorizer: Authorizer,
    /// Users who may connect by a socket file, beside root and the user that runs this program.
    pub uids: Vec<u32>,
}

impl From<Authorizer> for Admission {
    fn from(authorizer: Authorizer) -> Admission {
        let uids = Vec::new();
        Admission { authorizer, uids }
    }
}

impl Admission {
    /// The mode of a socket file that these may connect by. Who connects is checked besides.
    pub fn file_mode(&self) -> u32 {
        if self.uids.is_empty() { 0o600 } else { 0o666 }
    }

    /// Who has connected to a server at `address`.
    pub fn examine(&self, stream: &StreamSocket, address: &Address) -> Peer {
        let mut stranger = None;
        let name = match address {
            Address::Tcp(_) => stream.peer_addr().map(|peer| peer.to_string()),
            Address::Vsock { .. } => getpeername::<VsockAddr>(stream.as_raw_fd())
                .map(|peer| {
                    Address::Vsock {
                        cid: peer.cid(),
                        port: peer.port(),
                    }
                    .to_string()
                })
                .map_err(Into::into),
            Address::File(_) => {
                let peer = getsockopt(stream, sockopt::PeerCredentials);
                let uid = peer.map(|peer| peer.uid());
                let may = |uid| uid == 0 || uid == geteuid().as_raw() || self.uids.contains(&uid);
                if !uid.is_ok_and(may) {
                    let user = uid.map_or_else(|e| e.to_string(), |uid| uid.to_string());
                    stranger = Some(format!("user {user} may not connect here"));
                }
                peer.map(|peer| format!("process {} of user {}", peer.pid(), peer.uid()))
                    .map_err(Into::into)
            }
        };
        Peer {
            name: name.unwrap_or_else(|e: io::Error| format!("unknown ({e})")),
            speaks_lines: !matches!(address, Address::Tcp(_)),
            stranger,
        }
    }
}

/// The other side of a connection.
pub struct Peer {
    /// For the log.
    pub name: String,
    /// Whether it may send messages as lines, without HTTP. Not over TCP: a web page could do that.
    pub speaks_lines: bool,
    /// Why it is not let in whatever it presents.
    pub stranger: Option<String>,
}
