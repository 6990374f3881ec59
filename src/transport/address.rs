//! Where a server is: an address of TCP, a socket file, or a port of a virtual machine.

use nix::errno::Errno;
use nix::libc::{VMADDR_CID_ANY, VMADDR_CID_LOCAL, VMADDR_PORT_ANY};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, SockaddrStorage, UnixAddr, VsockAddr,
    getsockname, socket,
};
use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A connected stream socket of any family. The standard library reads from and writes to one of TCP with calls that mean
/// the same on all of them (`recv`, `send` without SIGPIPE, `shutdown`, time limits); only what is said of delays and
/// addresses is TCP's alone.
pub type StreamSocket = TcpStream;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `ws://IP:PORT`
    Tcp(SocketAddr),
    /// `unix:///PATH`
    File(PathBuf),
    /// `vsock://CID:PORT`
    Vsock {
        /// The machine; `u32::MAX` to listen for all that can reach this one.
        cid: u32,
        /// The port; 0 to listen on a free one.
        port: u32,
    },
}

impl Address {
    /// Reads `unix:///PATH` and `vsock://CID:PORT`, where `any` or nothing stands for all machines and port 0 for a free
    /// one. `None` for what is neither.
    pub fn parse(url: &str) -> Option<Result<Address, &'static str>> {
        if let Some(path) = url.strip_prefix("unix://") {
            let path = Path::new(path);
            let is_file = path.is_absolute() && path.file_name().is_some() && !url.ends_with('/');
            return Some(if is_file && !url.contains('\0') {
                Ok(Address::File(path.to_owned()))
            } else {
                Err("expected `unix:///PATH`")
            });
        }
        let (cid, port) = url.strip_prefix("vsock://")?.split_once(':').unwrap_or_default();
        let cid = match cid {
            "" | "any" => Some(VMADDR_CID_ANY),
            cid => cid.parse().ok(),
        };
        Some(match (cid, port.parse()) {
            (Some(cid), Ok(port)) => Ok(Address::Vsock { cid, port }),
            _ => Err("expected `vsock://CID:PORT`"),
        })
    }

    /// The address of a socket's own end.
    ///
    /// # Errors
    /// What the system said, or that it is of another family.
    pub fn of_socket(socket: BorrowedFd<'_>) -> io::Result<Address> {
        let name: SockaddrStorage = getsockname(socket.as_raw_fd())?;
        Ok(match name.family() {
            Some(AddressFamily::Unix) => {
                let path = name.as_unix_addr().and_then(UnixAddr::path);
                Address::File(path.unwrap_or(Path::new("")).to_owned())
            }
            Some(AddressFamily::Vsock) => {
                let name = name.as_vsock_addr().ok_or(Errno::EAFNOSUPPORT)?;
                let (cid, port) = (name.cid(), name.port());
                Address::Vsock { cid, port }
            }
            _ => match (name.as_sockaddr_in(), name.as_sockaddr_in6()) {
                (Some(name), _) => Address::Tcp(SocketAddr::V4((*name).into())),
                (_, Some(name)) => Address::Tcp(SocketAddr::V6((*name).into())),
                _ => return Err(Errno::EAFNOSUPPORT.into()),
            },
        })
    }

    /// Whether only programs on this machine get there.
    pub fn is_local(&self) -> bool {
        match self {
            Address::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Address::File(_) => true,
            Address::Vsock { cid, .. } => *cid == VMADDR_CID_LOCAL,
        }
    }

    /// A new socket of its family, close-on-exec, and itself in the system's form.
    ///
    /// # Errors
    /// What the system said, or that a path is too long.
    pub fn socket(&self, flags: SockFlag) -> io::Result<(OwnedFd, Box<dyn SockaddrLike>)> {
        let (family, address): (_, Box<dyn SockaddrLike>) = match self {
            Address::Tcp(SocketAddr::V4(address)) => (AddressFamily::Inet, Box::new(SockaddrIn::from(*address))),
            Address::Tcp(SocketAddr::V6(address)) => (AddressFamily::Inet6, Box::new(SockaddrIn6::from(*address))),
            Address::File(path) => (AddressFamily::Unix, Box::new(UnixAddr::new(path)?)),
            Address::Vsock { cid, port } => {
                let port = if *port == 0 { VMADDR_PORT_ANY } else { *port };
                (AddressFamily::Vsock, Box::new(VsockAddr::new(*cid, port)))
            }
        };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | flags, None)?;
        Ok((socket, address))
    }
}

/// As a URL.
impl Display for Address {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "ws://{address}"),
            Address::File(path) => write!(f, "unix://{}", path.to_string_lossy().escape_debug()),
            Address::Vsock { cid, port } if *cid == VMADDR_CID_ANY => write!(f, "vsock://any:{port}"),
            Address::Vsock { cid, port } => write!(f, "vsock://{cid}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;

    #[test]
    fn urls() {
        let file = |path: &str| Some(Ok(Address::File(path.into())));
        let vsock = |cid, port| Some(Ok(Address::Vsock { cid, port }));
        let no_file = || Some(Err("expected `unix:///PATH`"));
        let no_vsock = || Some(Err("expected `vsock://CID:PORT`"));
        for (url, expected) in [
            ("unix:///run/x.sock", file("/run/x.sock")),
            ("unix:///a b", file("/a b")),
            ("unix://x", no_file()),
            ("unix://", no_file()),
            ("unix:///", no_file()),
            ("unix:///x/", no_file()),
            ("unix:///x/..", no_file()),
            ("unix:///x\0", no_file()),
            ("vsock://1:2", vsock(1, 2)),
            ("vsock://:5000", vsock(u32::MAX, 5000)),
            ("vsock://any:5000", vsock(u32::MAX, 5000)),
            ("vsock://3:0", vsock(3, 0)),
            ("vsock://", no_vsock()),
            ("vsock://3", no_vsock()),
            ("vsock://x:1", no_vsock()),
            ("vsock://3:x", no_vsock()),
            ("vsock://4294967296:1", no_vsock()),
            ("ws://127.0.0.1:1", None),
            ("unix:/x", None),
        ] {
            assert_eq!(Address::parse(url), expected, "{url:?}");
        }
        for url in ["unix:///run/x", "vsock://any:5", "vsock://7:5"] {
            assert_eq!(Address::parse(url).unwrap().unwrap().to_string(), url);
        }
        let odd = Address::File("/a\nb".into());
        assert_eq!(odd.to_string(), "unix:///a\\nb", "one line whatever the path");
    }

    #[test]
    fn who_gets_there() {
        for (address, is_local) in [
            (Address::Tcp("127.0.0.1:1".parse().unwrap()), true),
            (Address::Tcp("[::ffff:127.0.0.1]:1".parse().unwrap()), true),
            (Address::Tcp("[::]:1".parse().unwrap()), false),
            (Address::File("/x".into()), true),
            (Address::Vsock { cid: 1, port: 1 }, true),
            (Address::Vsock { cid: u32::MAX, port: 1 }, false),
            (Address::Vsock { cid: 3, port: 1 }, false),
        ] {
            assert_eq!(address.is_local(), is_local, "{address}");
        }
    }

    #[test]
    fn a_socket_knows_its_address() {
        let tcp = std::net::TcpListener::bind("[::1]:0").or_else(|_| std::net::TcpListener::bind("127.0.0.1:0"));
        let tcp = tcp.unwrap();
        let expected = Address::Tcp(tcp.local_addr().unwrap());
        assert_eq!(Address::of_socket(tcp.as_fd()).unwrap(), expected);
        let path = std::env::temp_dir().join(format!("exec-server-address-{}", std::process::id()));
        let file = UnixListener::bind(&path).unwrap();
        let known = Address::of_socket(file.as_fd());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(known.unwrap(), Address::File(path));
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(Address::of_socket(one.as_fd()).unwrap(), Address::File("".into()));
        let (pipe, _) = nix::unistd::pipe().unwrap();
        assert!(Address::of_socket(pipe.as_fd()).is_err());
    }
}
