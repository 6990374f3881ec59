//! A connection of a client that expects to lose it.

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Error, Message, WebSocket};

/// Why a client can't go on as it was.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The connection is lost.
    Lost,
    /// The server did what it must not do.
    Wrong(String),
}

pub(crate) type Result<T> = std::result::Result<T, Stop>;

/// How long a client waits before it has a look at what else there is to do.
pub(crate) const TICK: Duration = Duration::from_millis(20);

pub(crate) struct Wire {
    socket: WebSocket<TcpStream>,
    /// When something came last.
    pub(crate) heard: Instant,
    /// Ticks in which nothing came. A stopped process has none.
    pub(crate) silent_ticks: u32,
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr) -> Result<Wire> {
        let stream = TcpStream::connect(address).map_err(|_| Stop::Lost)?;
        let limit = Some(Duration::from_secs(10));
        stream.set_nodelay(true).map_err(|_| Stop::Lost)?;
        stream.set_read_timeout(limit).map_err(|_| Stop::Lost)?;
        stream.set_write_timeout(limit).map_err(|_| Stop::Lost)?;
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let (socket, _) = tungstenite::client::client_with_config(format!("ws://{address}"), stream, Some(config))
            .map_err(|_| Stop::Lost)?;
        socket.get_ref().set_read_timeout(Some(TICK)).map_err(|_| Stop::Lost)?;
        Ok(Wire {
            socket,
            heard: Instant::now(),
            silent_ticks: 0,
        })
    }

    pub(crate) fn send(&mut self, message: &Value) -> Result<()> {
        let sent = self.socket.send(Message::text(message.to_string()));
        sent.map_err(|_| Stop::Lost)
    }

    /// The next message, if one comes within a tick.
    pub(crate) fn receive(&mut self) -> Result<Option<Value>> {
        match self.socket.read() {
            Ok(Message::Text(text)) => {
                self.heard = Instant::now();
                self.silent_ticks = 0;
                let message = serde_json::from_str(text.as_str());
                message.map(Some).map_err(|e| Stop::Wrong(format!("no JSON: {e}")))
            }
            Ok(Message::Close(Some(frame))) if matches!(frame.code.into(), 1002 | 1007 | 1009 | 1011) => {
                Err(Stop::Wrong(format!("the server closed: {frame}")))
            }
            Ok(_) => Ok(None),
            Err(Error::Io(e)) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                self.silent_ticks += 1;
                Ok(None)
            }
            Err(Error::Io(e)) if e.kind() == ErrorKind::Interrupted => Ok(None),
            Err(_) => Err(Stop::Lost),
        }
    }

    /// Ends as a client does that is killed: nothing is said, perhaps in the middle of a message, and what was received
    /// and not read makes the system reset the connection.
    pub(crate) fn die(mut self, within_a_message: bool) {
        if within_a_message {
            let _ = self.socket.get_mut().write_all(&[0x81, 0xfe, 1, 0, 1, 2, 3, 4, 5, 6]);
        }
        let now = linger {
            l_onoff: 1,
            l_linger: 0,
        };
        let _ = setsockopt(self.socket.get_ref(), sockopt::Linger, &now);
    }

    /// Says that it ends.
    pub(crate) fn close(mut self) {
        let _ = self.socket.close(None);
        let _ = self.socket.flush();
    }
}
