//! Sockets that clients connect to.

use super::Server;
use super::arrival::Arrival;
use super::connection::spawn;
use crate::sys::{defect, descriptor};
use crate::transport::address::{Address, StreamSocket};
use crate::transport::admission::Admission;
use crate::transport::socket_file::SocketFile;
use log::{debug, error, warn};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{Backlog, SockFlag, bind, listen, setsockopt, sockopt};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A socket that clients connect to: of TCP, a socket file, or vsock.
///
/// Over TCP they speak WebSocket. By the others they may also send messages as lines, if they have to present nothing.
pub struct Listener {
    socket: OwnedFd,
    address: Arc<Address>,
    admission: Arc<Admission>,
    file: Option<SocketFile>,
}

impl Listener {
    /// Listens at `address`. What clients must present is for the caller to choose; nothing is only safe where
    /// [`Address::is_local`] is true.
    ///
    /// # Errors
    /// What the system said, such as that the address is in use.
    pub fn bind(address: &Address, admission: Arc<Admission>) -> io::Result<Listener> {
        let (socket, file) = match address {
            Address::File(path) => {
                let (socket, file) = SocketFile::listen(path, admission.file_mode())?;
                (socket, Some(file))
            }
            _ => {
                let (socket, name) = address.socket(SockFlag::empty())?;
                setsockopt(&socket, sockopt::ReuseAddr, &true)?;
                bind(socket.as_raw_fd(), &*name)?;
                listen(&socket, Backlog::MAXCONN)?;
                (socket, None)
            }
        };
        let listener = Listener::of_socket(socket, admission)?;
        Ok(Listener { file, ..listener })
    }

    /// Takes a socket that listens.
    ///
    /// # Errors
    /// What the system said, or that it is of a family that is not known here.
    pub fn of_socket(socket: OwnedFd, admission: Arc<Admission>) -> io::Result<Listener> {
        let address = Address::of_socket(socket.as_fd())?.into();
        // What is waited for is only that somebody is there.
        let socket = TcpListener::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Listener {
            socket: socket.into(),
            address,
            admission,
            file: None,
        })
    }

    /// Where it listens, with the port that was really chosen.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Accepts clients on a thread of its own, for as long as the program runs. A socket file is removed when the server
    /// is shut down.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn serve(mut self, server: Arc<Server>) -> io::Result<()> {
        server.add_file(self.file.take());
        spawn("listener", move || self.accept(&server))
    }

    fn accept(&self, server: &Arc<Server>) {
        // When there are no descriptors left, this one makes room to accept a client and turn it away; it would stay in
        // the queue otherwise and be offered again at once, for ever.
        let open_spare = || File::open("/dev/null").ok();
        let mut spare = open_spare();
        let accept = || descriptor::accept(self.socket.as_fd());
        let beat = server.pulse.beat();
        loop {
            beat.store(true, Ordering::Relaxed);
            let mut waiting = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            let accepted = match poll(&mut waiting, server.pulse.timeout()) {
                Ok(0) => continue,
                Ok(_) => accept(),
                Err(e) => Err(e.into()),
            };
            match accepted {
                Ok(stream) => {
                    let admitted = catch_unwind(AssertUnwindSafe(|| self.admit(server, stream)));
                    if admitted.is_err() {
                        error!("a client of {} is turned away: a defect of the server", self.address);
                    }
                }
                Err(e) if is_short_of_descriptors(&e) => {
                    warn!("failed to accept a client: {e}");
                    drop(spare);
                    let turned_away = accept();
                    spare = open_spare();
                    if turned_away.is_err() || spare.is_none() {
                        std::thread::sleep(AFTER_A_FAILURE);
                    }
                }
                // It has given up before it was accepted, or only the waiting was interrupted.
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) =>
                {
                    debug!("failed to accept a client: {e}");
                }
                // The next one is another matter, but may meet with the same at once.
                Err(e) => {
                    warn!("failed to accept a client: {e}");
                    std::thread::sleep(AFTER_A_FAILURE);
                }
            }
            if spare.is_none() {
                spare = open_spare();
            }
        }
    }

    fn admit(&self, server: &Arc<Server>, stream: OwnedFd) {
        defect::point("listener", || self.address.to_string());
        let stream = StreamSocket::from(stream);
        let arrival = Arrival::new(server, stream, &self.address, self.admission.clone(), None);
        if let Err(e) = arrival.receive() {
            error!("a client of {} is turned away: {e}", self.address);
        }
    }
}

/// After how long accepting clients is tried again that has failed for a reason that may last.
const AFTER_A_FAILURE: Duration = Duration::from_millis(50);

fn is_short_of_descriptors(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error().map(Errno::from_raw),
        Some(Errno::EMFILE | Errno::ENFILE)
    )
}
