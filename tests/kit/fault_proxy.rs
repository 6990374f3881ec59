//! A network that fails: stands between clients and a server, and spoils each connection in a way of its own.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What happens to a connection, once so many bytes have gone through it in both directions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It is closed on both sides.
    Cut,
    /// What the server sends ends there, and what the client sends goes on.
    HalfDown,
    /// The other way round.
    HalfUp,
    /// Nothing more goes through, and nobody is told.
    Silence,
    /// Every piece is held up for some milliseconds.
    Delay,
    /// It is closed before anything goes through.
    Refuse,
}

/// Chooses the fault of the n-th connection, and after how many bytes it comes.
type Plan = Box<dyn Fn(usize) -> (Fault, usize) + Send>;

/// The proxy; ended with all its connections when it goes out of scope.
pub(crate) struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    ended: AtomicBool,
    faults: AtomicUsize,
    /// The connections that are not over.
    lines: Mutex<Vec<Weak<Line>>>,
}

impl Shared {
    fn end_lines(&self) {
        for line in self.lines.lock().unwrap().iter().filter_map(Weak::upgrade) {
            let _ = line.client.shutdown(Shutdown::Both);
            let _ = line.server.shutdown(Shutdown::Both);
        }
    }
}

impl FaultProxy {
    pub(crate) fn new(server: SocketAddr, plan: impl Fn(usize) -> (Fault, usize) + Send + 'static) -> FaultProxy {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            ended: AtomicBool::new(false),
            faults: AtomicUsize::new(0),
            lines: Mutex::default(),
        });
        let acceptor = thread::spawn({
            let (shared, plan): (_, Plan) = (shared.clone(), Box::new(plan));
            move || accept(&listener, server, &shared, &plan)
        });
        FaultProxy {
            address,
            shared,
            acceptor: Some(acceptor),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// How many connections were spoiled.
    pub(crate) fn faults(&self) -> usize {
        self.shared.faults.load(Ordering::SeqCst)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.shared.end_lines();
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        self.acceptor.take().unwrap().join().unwrap();
    }
}

/// One connection, as its two directions share it.
struct Line {
    fault: Fault,
    after: usize,
    bytes: AtomicUsize,
    happened: AtomicBool,
    client: TcpStream,
    server: TcpStream,
}

fn accept(listener: &TcpListener, server: SocketAddr, shared: &Arc<Shared>, plan: &Plan) {
    let mut pumps = Vec::new();
    for n in 0.. {
        let Ok((client, _)) = listener.accept() else { break };
        if shared.ended.load(Ordering::SeqCst) {
            break;
        }
        let (fault, after) = plan(n);
        let Ok(server) = TcpStream::connect(server) else {
            continue;
        };
        if fault == Fault::Refuse {
            shared.faults.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
        }
        let line = Arc::new(Line {
            fault,
            after,
            bytes: AtomicUsize::new(0),
            happened: AtomicBool::new(false),
            client,
            server,
        });
        {
            let mut lines = shared.lines.lock().unwrap();
            lines.retain(|line| line.strong_count() > 0);
            lines.push(Arc::downgrade(&line));
        }
        pumps.retain(|pump: &JoinHandle<()>| !pump.is_finished());
        for is_down in [false, true] {
            let (line, shared) = (line.clone(), shared.clone());
            pumps.push(thread::spawn(move || line.pump(is_down, &shared)));
        }
    }
    shared.end_lines();
    for pump in pumps {
        pump.join().unwrap();
    }
}

impl Line {
    fn pump(&self, is_down: bool, shared: &Shared) {
        let (mut from, mut to) = if is_down {
            (&self.server, &self.client)
        } else {
            (&self.client, &self.server)
        };
        let mut piece = vec![0; 16 * 1024];
        loop {
            let n = match from.read(&mut piece) {
                Ok(n) if n > 0 => n,
                _ => break,
            };
            let before = self.bytes.fetch_add(n, Ordering::SeqCst);
            let spoiled = self.fault != Fault::None && before + n > self.after;
            if spoiled && !self.happened.swap(true, Ordering::SeqCst) {
                shared.faults.fetch_add(1, Ordering::SeqCst);
            }
            if !spoiled {
                if to.write_all(&piece[..n]).is_err() {
                    break;
                }
                continue;
            }
            // In the middle of a message more often than not.
            let passes = self.after.saturating_sub(before).min(n);
            match self.fault {
                Fault::Delay => {
                    thread::park_timeout(Duration::from_millis(3));
                    if to.write_all(&piece[..n]).is_err() {
                        break;
                    }
                }
                // Read on, and tell nobody.
                Fault::Silence => {}
                Fault::HalfDown | Fault::HalfUp if is_down != (self.fault == Fault::HalfDown) => {
                    if to.write_all(&piece[..n]).is_err() {
                        break;
                    }
                }
                Fault::HalfDown | Fault::HalfUp => {
                    let _ = to.write_all(&piece[..passes]);
                    let _ = to.shutdown(Shutdown::Write);
                }
                _ => {
                    let _ = to.write_all(&piece[..passes]);
                    break;
                }
            }
        }
        // The other side of a silent line learns nothing, also of the end.
        if self.fault == Fault::Silence && self.happened.load(Ordering::SeqCst) {
            return;
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
