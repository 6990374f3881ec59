//! The program as a user runs it.

use super::{DEADLINE, command, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// A running program, with pipes for its streams. Killed when it goes out of scope.
pub(crate) struct Cli {
    child: Child,
    input: Option<ChildStdin>,
    output: Arc<Collected>,
    errors: Arc<Collected>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

/// Runs the program without input, to its end.
pub(crate) fn cli(arguments: &[&str]) -> Ended {
    Cli::run(command(arguments).stdin(Stdio::null()))
}

impl Cli {
    /// Starts the program with a pipe for input.
    pub(crate) fn start(arguments: &[&str]) -> Cli {
        Cli::of(command(arguments).stdin(Stdio::piped()))
    }

    /// Starts a command; its input is up to the caller.
    pub(crate) fn of(command: &mut Command) -> Cli {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Cli {
            input: child.stdin.take(),
            output: Collected::of(child.stdout.take().unwrap()),
            errors: Collected::of(child.stderr.take().unwrap()),
            child,
        }
    }

    /// Runs a command to its end.
    pub(crate) fn run(command: &mut Command) -> Ended {
        Cli::of(command).finish()
    }

    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    pub(crate) fn write(&mut self, input: &[u8]) {
        self.input.as_mut().unwrap().write_all(input).unwrap();
    }

    pub(crate) fn close_input(&mut self) {
        self.input = None;
    }

    /// Waits until it has written something, and returns all it has written.
    pub(crate) fn output_until(&self, text: &str) -> String {
        self.output.wait_for(text, 1)
    }

    /// Waits until it has written something so many times.
    pub(crate) fn output_until_times(&self, text: &str, times: usize) -> String {
        self.output.wait_for(text, times)
    }

    /// Waits until it has written a line, or its output has ended, and returns what it has written.
    pub(crate) fn output_or_end(&self) -> String {
        let state = self.output.state.lock().unwrap();
        let nothing = |state: &mut (Vec<u8>, bool)| !state.1 && !state.0.contains(&b'\n');
        let (state, timeout) = self
            .output
            .changed
            .wait_timeout_while(state, DEADLINE, nothing)
            .unwrap();
        assert!(!timeout.timed_out(), "the program writes nothing and does not end");
        String::from_utf8_lossy(&state.0).into_owned()
    }

    /// Waits until it has written something to standard error, and returns all it has written there.
    pub(crate) fn errors_until(&self, text: &str) -> String {
        self.errors.wait_for(text, 1)
    }

    /// Waits for its end; its input stays as it is.
    pub(crate) fn finish(mut self) -> Ended {
        let status = until("the end of the program", || self.child.try_wait().unwrap());
        Ended {
            code: status.code().unwrap_or_else(|| -status.signal().unwrap()),
            stdout: self.output.rest(),
            stderr: String::from_utf8(self.errors.rest()).unwrap(),
        }
    }
}

impl Drop for Cli {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a thread has read from a stream.
#[derive(Default)]
struct Collected {
    /// The bytes, and whether there will be no more.
    state: Mutex<(Vec<u8>, bool)>,
    changed: Condvar,
}

impl Collected {
    fn of(mut stream: impl Read + Send + 'static) -> Arc<Collected> {
        let collected = Arc::<Collected>::default();
        let reading = collected.clone();
        thread::spawn(move || {
            let mut piece = vec![0; 64 * 1024];
            loop {
                let n = stream.read(&mut piece).unwrap_or(0);
                let mut state = reading.state.lock().unwrap();
                state.0.extend_from_slice(&piece[..n]);
                state.1 = n == 0;
                reading.changed.notify_all();
                if n == 0 {
                    return;
                }
            }
        });
        collected
    }

    fn wait_for(&self, text: &str, times: usize) -> String {
        let state = self.state.lock().unwrap();
        let missing =
            |state: &mut (Vec<u8>, bool)| !state.1 && String::from_utf8_lossy(&state.0).matches(text).count() < times;
        let (state, _) = self.changed.wait_timeout_while(state, DEADLINE, missing).unwrap();
        let said = String::from_utf8_lossy(&state.0).into_owned();
        assert!(said.matches(text).count() >= times, "{text:?} is missing in {said:?}");
        said
    }

    /// All there is, once the stream has ended.
    fn rest(&self) -> Vec<u8> {
        let state = self.state.lock().unwrap();
        let (mut state, timeout) = self
            .changed
            .wait_timeout_while(state, DEADLINE, |state| !state.1)
            .unwrap();
        assert!(!timeout.timed_out(), "the stream does not end");
        std::mem::take(&mut state.0)
    }
}
