//! The server: connections, sessions, and what each method does.
//!
//! A connection has a reader that parses messages, a dispatcher that carries them out and never blocks, and a writer. The
//! dispatcher has a thread of its own only behind large messages; otherwise the reader's does its work, and writes small
//! answers itself. Processes have one thread each (see [`crate::process`]); file calls go to a
//! few workers; one janitor does what is due at a certain time.

mod answer_text;
mod arrival;
mod channel_sink;
mod config;
mod connection;
#[cfg(test)]
mod defect_tests;
mod desk;
mod dispatcher;
mod drain;
mod encode;
mod environment;
mod file_calls;
mod file_methods;
mod first_wire;
mod gate;
mod handshakes;
mod janitor;
mod listener;
mod liveness;
mod long_poll;
mod missing_watch;
mod outbox;
mod pages;
mod params;
mod path_order;
mod process_calls;
mod pulse;
mod reader;
mod sandbox;
mod session;
mod stream_sink;
mod worker_pool;
mod writer;

pub use config::ServerConfig;
pub use listener::Listener;

use crate::files::LocalDevices;
use crate::metrics;
use crate::process::{Totals, kill_family};
use crate::protocol::environment::EnvironmentInfo;
use crate::protocol::error::RpcError;
use crate::sandbox::Enforcer;
use crate::sys::allocator;
use crate::transport::address::{Address, StreamSocket};
use crate::transport::admission::Admission;
use crate::transport::large_memory::LargeMemory;
use crate::transport::memory::ServerEnd;
use crate::transport::outlet::Outlet;
use crate::transport::socket_file::SocketFile;
use handshakes::Handshakes;
use janitor::Janitor;
use log::debug;
use outbox::Outbox;
use session::{Session, Sessions};
use std::collections::HashMap;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use worker_pool::WorkerPool;

/// A server, shared by its connections.
pub struct Server {
    config: ServerConfig,
    environment: EnvironmentInfo,
    /// The same with all that is examined only when a client asks.
    whole_environment: OnceLock<EnvironmentInfo>,
    sessions: Sessions,
    janitor: Janitor,
    workers: WorkerPool,
    devices: Arc<LocalDevices>,
    memory: LargeMemory,
    sandboxes: Arc<Enforcer>,
    connections: Count,
    handshakes: Handshakes,
    /// Those by which clients come; removed when no more shall.
    files: Mutex<Vec<SocketFile>>,
    /// Connections to which something may still be written.
    writers: Count,
    outboxes: Mutex<HashMap<u64, Arc<Outbox>>>,
    /// Processes that have not had their last event, and those being started.
    live_processes: Count,
    /// What all processes have together.
    totals: Arc<Totals>,
    pulse: pulse::Pulse,
    offers_metrics: AtomicBool,
    is_draining: AtomicBool,
    is_shutting_down: AtomicBool,
}

impl Server {
    /// What `environment/info` answers.
    fn whole_environment(&self) -> &EnvironmentInfo {
        self.whole_environment.get_or_init(|| EnvironmentInfo {
            sandbox: Some(environment::examine_sandboxes(&self.sandboxes)),
            ..self.environment.clone()
        })
    }

    /// A server without connections.
    pub fn new(config: ServerConfig) -> Arc<Server> {
        let janitor = Janitor::new();
        Arc::new(Server {
            environment: environment::examine(),
            whole_environment: OnceLock::new(),
            sessions: Sessions::default(),
            workers: WorkerPool::new(config.max_file_workers, janitor.clone()),
            devices: Arc::default(),
            memory: large_memory(&config, janitor.clone()),
            janitor,
            sandboxes: Arc::default(),
            connections: Count::default(),
            handshakes: Handshakes::default(),
            files: Mutex::default(),
            writers: Count::default(),
            outboxes: Mutex::default(),
            live_processes: Count::default(),
            totals: Totals::new(config.retain_total_bytes, config.stdin_total_bytes),
            pulse: pulse::Pulse::default(),
            offers_metrics: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            is_shutting_down: AtomicBool::new(false),
            config,
        })
    }

    /// Serves one client over a pair of byte streams, a message a line, on threads of its own. Its session ends with
    /// it, and then `ended` is called: after the end of the input, when everything received by then was carried out
    /// and answered as far as [`ServerConfig::drain_limit`] allows; at once when the output is closed.
    ///
    /// # Errors
    /// When there are no threads to be had.
    pub fn serve_lines(
        self: &Arc<Server>,
        input: impl Read + Send + 'static,
        output: Outlet,
        ended: impl Fn() + Send + Sync + 'static,
    ) -> std::io::Result<()> {
        connection::serve_lines(self, input, output, Arc::new(ended))
    }

    /// Serves one client within this program, over `end`, on threads of its own. Its session ends with it, and then
    /// `ended` is called: at once when either end is gone, what was sent before that is not answered then.
    ///
    /// # Errors
    /// When there are no threads to be had.
    pub fn serve_memory(
        self: &Arc<Server>,
        end: ServerEnd,
        ended: impl Fn() + Send + Sync + 'static,
    ) -> std::io::Result<()> {
        connection::serve_memory(self, end, ended)
    }

    /// Serves one client over a connected socket, as one that has come to a [`Listener`]. Its session ends with the
    /// connection, and then, or if none comes about, `ended` is called.
    ///
    /// # Errors
    /// When there is no thread to be had, or the socket is of a family that is not known here.
    pub fn serve_socket(
        self: &Arc<Server>,
        socket: OwnedFd,
        admission: Arc<Admission>,
        ended: impl Fn() + Send + Sync + 'static,
    ) -> std::io::Result<()> {
        let address = Address::of_socket(socket.as_fd())?;
        let socket = StreamSocket::from(socket);
        socket.set_nonblocking(false)?;
        arrival::Arrival::new(self, socket, &address, admission, Some(Box::new(ended))).receive()
    }

    /// Has a file removed when the server is shut down.
    fn add_file(&self, file: Option<SocketFile>) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).extend(file);
    }

    /// Ends everything: no new requests, all commands and what they have started killed, clients told, within
    /// [`ServerConfig::shutdown_limit`].
    pub fn shut_down(&self) {
        self.end_all(self.config.shutdown_limit);
    }

    /// Lets clients take `limit` to read what is still to be written to them.
    fn end_all(&self, limit: Duration) {
        if self.is_shutting_down.swap(true, Ordering::SeqCst) {
            return;
        }
        let files = std::mem::take(&mut *self.files.lock().unwrap_or_else(PoisonError::into_inner));
        drop(files);
        for outbox in self.outboxes().values() {
            outbox.close(1001, "server is shutting down");
        }
        for session in self.sessions.all() {
            self.end_session(&session, None);
        }
        self.live_processes.wait_zero(self.config.shutdown_limit);
        self.writers.wait_zero(limit);
    }

    /// Lets one more process be there, if there is room for what it will say.
    fn admit_process(&self) -> Result<Present, RpcError> {
        if !self.totals.make_room() {
            for session in self.sessions.all() {
                session.halve_processes();
            }
            if !self.totals.make_room() {
                metrics::limit_met("retain-total-bytes");
                return Err(RpcError::internal(format!(
                    "too much output is retained: all processes together may have {} bytes",
                    self.config.retain_total_bytes
                )));
            }
        }
        let limit = self.config.max_running;
        self.live_processes.enter(limit).ok_or_else(|| {
            metrics::limit_met("max-running");
            RpcError::internal(format!("too many processes run: the server has its limit of {limit}"))
        })
    }

    /// Ends a session and everything in it; with `detachments` see [`Sessions::close`].
    fn end_session(&self, session: &Session, detachments: Option<u64>) {
        let Some(processes) = self.sessions.close(session, detachments) else {
            return;
        };
        debug!(session = session.id(); "session {} has ended", session.id());
        for process in &processes {
            process.kill();
        }
        // Also what those have left that are forgotten by now.
        kill_family(None, session.kin());
        if !processes.is_empty() {
            // When their threads are gone, too.
            self.janitor.after(AFTER_A_SESSION, allocator::give_back);
        }
    }

    fn outboxes(&self) -> MutexGuard<'_, HashMap<u64, Arc<Outbox>>> {
        self.outboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Server {
    /// Its last connection is gone: so are its threads, soon.
    fn drop(&mut self) {
        self.janitor.end();
        self.workers.end();
    }
}

/// How long after the end of a session its memory is given back.
const AFTER_A_SESSION: Duration = Duration::from_secs(1);

/// How long large memory is kept without being used.
const LARGE_MEMORY_KEPT: Duration = Duration::from_secs(1);

/// Large memory that keeps up to the size of a largest message while such messages come.
fn large_memory(config: &ServerConfig, janitor: Janitor) -> LargeMemory {
    fn tidy_later(memory: LargeMemory, janitor: Janitor) {
        let task = {
            let janitor = janitor.clone();
            move || {
                if memory.tidy() {
                    tidy_later(memory, janitor);
                }
            }
        };
        janitor.after(LARGE_MEMORY_KEPT, task);
    }
    LargeMemory::keeping(config.max_message_bytes, move |memory| {
        tidy_later(memory, janitor.clone());
    })
}

/// Counts things that are there, for those who wait until none is.
#[derive(Clone, Default)]
struct Count(Arc<(Mutex<usize>, Condvar)>);

impl Count {
    /// One more, as long as the guard lives, unless there are `limit` already.
    fn enter(&self, limit: usize) -> Option<Present> {
        let mut n = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *n >= limit {
            return None;
        }
        *n += 1;
        Some(Present(self.clone()))
    }

    /// How many there are.
    fn now(&self) -> usize {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_zero(&self, limit: Duration) {
        let n = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = self.0.1.wait_timeout_while(n, limit, |n| *n > 0);
    }
}

/// One of the things that a [`Count`] counts.
struct Present(Count);

impl Drop for Present {
    fn drop(&mut self) {
        let (n, none) = &*self.0.0;
        let mut n = n.lock().unwrap_or_else(PoisonError::into_inner);
        *n -= 1;
        if *n == 0 {
            none.notify_all();
        }
    }
}
