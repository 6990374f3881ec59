//! Runs the server until a signal or its only client ends it.

use super::args::{Listen, ServeArgs};
use super::life::Life;
use super::ways;
use exec_server::process::adopt_orphans;
use exec_server::server::{Server, ServerConfig};
use exec_server::sys::{allocator, reserve};
use exec_server::transport::outlet::{Outlet, wait_for};
use log::warn;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::PollFlags;
use nix::sys::signal::{SigSet, Signal};
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// What standard input may hold, if it is a pipe: several large messages without a switch to the client.
const INPUT_BYTES: i32 = 1024 * 1024;

/// What standard output may hold, if it is a pipe: two batches, so that one is written while another is read. What is in
/// there is ahead of every answer: more would make those wait behind a process that writes much.
const OUTPUT_BYTES: i32 = 256 * 1024;

/// Serves. Only returns if that cannot even begin.
pub(crate) fn serve(args: &ServeArgs) -> Result<Infallible, String> {
    allocator::limit_arenas();
    reserve::keep_back();
    // Before there is any thread, so that all of them leave these signals to this one.
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD] {
        signals.add(signal);
    }
    signals
        .thread_block()
        .map_err(|e| format!("failed to block signals: {e}"))?;
    if let Err(e) = adopt_orphans() {
        warn!("failed to become a subreaper: {e}; what a command leaves behind may outlive it");
    }
    let life = Arc::new(Life::new(Server::new(ServerConfig::clone(&args.config))));
    if args.metrics {
        life.server.offer_metrics();
    }
    let whom = if let [Listen::Stdio] = args.listen[..] {
        serve_stdio(&life).map_err(|e| format!("failed to serve standard input: {e}"))?;
        "serving one client".to_owned()
    } else {
        let ending = life.clone();
        ways::serve(args, &life.server, move || ending.end())?
    };
    life.go_on(&whom, &signals, args.drain_timeout)
}

fn serve_stdio(life: &Arc<Life>) -> io::Result<()> {
    let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
    let (input, output) = (own(io::stdin().as_fd())?, own(io::stdout().as_fd())?);
    for (pipe, bytes) in [(&input, INPUT_BYTES), (&output, OUTPUT_BYTES)] {
        // It has an effect on pipes only, and is of use but not needed.
        let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(bytes));
    }
    let ending = life.clone();
    let output = Outlet::of_file(output);
    life.server.serve_lines(Patient(input), output, move || ending.end())
}

/// A file that is waited for even if it does not wait by itself, as when somebody who shares it has made it so.
struct Patient(File);

impl Read for Patient {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => wait_for(self.0.as_fd(), PollFlags::POLLIN)?,
                read => return read,
            }
        }
    }
}
