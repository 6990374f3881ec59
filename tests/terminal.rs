//! `exec-server run -t` on a terminal.

#![cfg(feature = "client")]

mod kit;

use exec_server::sys::{ioctl, pty};
use kit::{DEADLINE, Server, cli, is_alive, until};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use nix::unistd::Pid;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command};
use std::time::Instant;

/// A program on a terminal, of which this is the other end.
struct Screen {
    master: OwnedFd,
    /// So that it can be looked at when the program has ended.
    slave: OwnedFd,
    before: Termios,
    child: Child,
    seen: String,
}

impl Screen {
    /// Runs `exec-server` with these arguments on a terminal of 30 rows of 100 columns.
    fn start(arguments: &[&str]) -> Screen {
        let pty = pty::open(30, 100).unwrap();
        let stdio = || pty.slave.try_clone().unwrap();
        // setsid(1) makes it the controlling terminal, and then is the program.
        let child = Command::new("setsid")
            .args(["-c", kit::exec_server()])
            .args(arguments)
            .env("PS1", "$ ")
            .env("TERM", "vt100")
            .stdin(stdio())
            .stdout(stdio())
            .stderr(stdio())
            .spawn()
            .unwrap();
        Screen {
            before: tcgetattr(&pty.slave).unwrap(),
            master: pty.master,
            slave: pty.slave,
            child,
            seen: String::new(),
        }
    }

    fn type_in(&self, keys: &str) {
        assert_eq!(nix::unistd::write(&self.master, keys.as_bytes()), Ok(keys.len()));
    }

    /// Waits until something has come to be seen after what was seen before.
    fn wait_for(&mut self, text: &str) -> String {
        let start = Instant::now();
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            assert!(start.elapsed() < DEADLINE, "{text:?} is missing in {:?}", self.seen);
            let mut fds = [PollFd::new(self.master.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::try_from(DEADLINE).unwrap()).unwrap();
            let mut piece = [0; 4096];
            match nix::unistd::read(&self.master, &mut piece) {
                Ok(n) => self.seen.push_str(&String::from_utf8_lossy(&piece[..n])),
                Err(Errno::EAGAIN) => {}
                Err(e) => panic!("{e}: {text:?} is missing in {:?}", self.seen),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_flags.contains(LocalFlags::ICANON)
    }

    /// Waits for the end of the program; the terminal must be as it was.
    fn finish(&mut self) -> i32 {
        let status = until("the end of the program", || self.child.try_wait().unwrap());
        assert!(
            tcgetattr(&self.slave).unwrap() == self.before,
            "the terminal is not restored"
        );
        status.code().unwrap()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_shell_is_used_as_if_it_ran_here() {
    let server = Server::websocket(&[]);
    for place in [&["run", "-t"][..], &["run", "-t", "--connect", server.url()]] {
        let mut screen = Screen::start(&[place, &["--env", "PS1=$ ", "sh"]].concat());
        screen.wait_for("$ ");
        assert!(screen.is_raw());
        screen.type_in("stty size; echo $TERM; tty\r");
        screen.wait_for("30 100\r\n");
        screen.wait_for("vt100\r\n");
        screen.wait_for("/dev/pts/");
        ioctl::set_terminal_size(screen.master.as_fd(), 40, 120).unwrap();
        // The size takes its way by itself.
        until("the new size", || {
            screen.type_in("stty size; echo end-$((1 + 1))\r");
            screen.wait_for("end-2\r\n").contains("40 120").then_some(())
        });
        screen.type_in("sh -c 'echo runs-$((1 + 1)); exec sleep 1000'\r");
        screen.wait_for("runs-2\r\n");
        screen.type_in("\x03");
        screen.wait_for("^C");
        screen.type_in("echo code-$?\r");
        screen.wait_for("code-130\r\n");
        // Backspace is the command's to understand.
        screen.type_in("echo wrong\x7f\x7f\x7f\x7f\x7fright\r");
        // Once as it is typed, and once by the command.
        screen.wait_for("right\r\n");
        screen.wait_for("right\r\n");
        screen.type_in("exit 7\r");
        assert_eq!(screen.finish(), 7);
    }
}

#[test]
fn the_end_of_input_is_typed() {
    let mut screen = Screen::start(&["run", "-t", "cat"]);
    screen.type_in("line\r");
    screen.wait_for("line\r\nline\r\n");
    screen.type_in("\x04");
    assert_eq!(screen.finish(), 0);
}

#[test]
fn without_a_terminal_of_its_own_a_command_gets_lines() {
    let mut screen = Screen::start(&["run", "sh", "-c", "test -t 0 || echo no terminal; cat"]);
    screen.wait_for("no terminal\r\n");
    assert!(!screen.is_raw());
    screen.type_in("line\r");
    screen.wait_for("line\r\nline\r\n");
    screen.type_in("\x03");
    assert_eq!(screen.finish(), 130);
}

#[test]
fn the_terminal_is_restored_whatever_happens() {
    for (signal, code) in [
        (Signal::SIGTERM, 143),
        (Signal::SIGHUP, 129),
        (Signal::SIGINT, 130),
        (Signal::SIGQUIT, 131),
    ] {
        let mut screen = Screen::start(&["run", "-t", "sh", "-c", "ulimit -c 0; echo ready; exec sleep 1000"]);
        screen.wait_for("ready");
        assert!(screen.is_raw());
        screen.signal(signal);
        assert_eq!(screen.finish(), code);
    }
    let mut screen = Screen::start(&["run", "-t", "--timeout", "1", "sleep", "1000"]);
    assert_eq!(screen.finish(), 124);
    let mut screen = Screen::start(&["run", "-t", "no-such-program"]);
    screen.wait_for("failed to execute");
    assert_eq!(screen.finish(), 127);
}

#[test]
fn a_program_that_was_stopped_makes_the_terminal_raw_again() {
    let mut screen = Screen::start(&[
        "run",
        "-t",
        "sh",
        "-c",
        "echo ready; while read x; do stty size; echo end-$x; done",
    ]);
    screen.wait_for("ready");
    screen.signal(Signal::SIGSTOP);
    let pid = screen.child.id() as i32;
    until("the stop", || (kit::stat(pid).unwrap()[0] == "T").then_some(()));
    nix::sys::termios::tcsetattr(&screen.slave, nix::sys::termios::SetArg::TCSANOW, &screen.before).unwrap();
    ioctl::set_terminal_size(screen.master.as_fd(), 20, 60).unwrap();
    assert!(!screen.is_raw());
    screen.signal(Signal::SIGCONT);
    until("a raw terminal", || screen.is_raw().then_some(()));
    until("the new size", || {
        screen.type_in("x\r");
        screen.wait_for("end-x\r\n").contains("20 60").then_some(())
    });
    screen.signal(Signal::SIGTERM);
    assert_eq!(screen.finish(), 143);
}

#[test]
fn a_terminal_that_is_hung_up_ends_the_command() {
    let mut screen = Screen::start(&["run", "-t", "sh", "-c", "echo pid-$$-end; exec sleep 1000"]);
    let said = screen.wait_for("-end");
    let pid: i32 = said.split('-').nth(1).unwrap().parse().unwrap();
    let Screen { master, .. } = &mut screen;
    *master = std::fs::File::open("/dev/null").unwrap().into();
    until("the end of the program", || screen.child.try_wait().unwrap());
    until("the end of the command", || (!is_alive(pid)).then_some(()));
}

#[test]
fn a_terminal_is_left_and_gone_on_with() {
    let server = Server::websocket(&[]);
    let detached = cli(&[
        "run",
        "--connect",
        server.url(),
        "--detach",
        "-t",
        "--env",
        "PS1=$ ",
        "sh",
    ]);
    let session = detached.text().split(' ').next().unwrap().to_owned();
    let on = ["attach", "--connect", server.url(), "--session", &session];
    for rows in [25, 35] {
        let mut screen = Screen::start(&on);
        screen.wait_for("$ ");
        assert!(screen.is_raw());
        ioctl::set_terminal_size(screen.master.as_fd(), rows, 99).unwrap();
        until("the new size", || {
            screen.type_in("stty size; echo end-$((1 + 1))\r");
            screen
                .wait_for("end-2\r\n")
                .contains(&format!("{rows} 99"))
                .then_some(())
        });
        if rows == 25 {
            screen.signal(Signal::SIGHUP);
            assert_eq!(screen.finish(), 129);
        } else {
            screen.type_in("exit 8\r");
            assert_eq!(screen.finish(), 8);
        }
    }
}
