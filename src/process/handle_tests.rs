use super::*;
use crate::process::Stream;
use std::sync::mpsc::{Receiver, Sender, channel};

const LIMITS: Limits = Limits {
    retention: Retention {
        bytes: 256 * 1024,
        events: 1000,
        credit: 128 * 1024,
        ack_window: None,
    },
    stdin_soft: 1000,
    stdin_hard: 2000,
    totals: None,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Tells a test what an owner is told.
struct Teller(Sender<String>);

impl Owner for Teller {
    fn started(&mut self, outcome: Result<Started, StartError>) {
        let _ = self
            .0
            .send(outcome.map_or_else(|e| e.to_string(), |_| "started".into()));
    }

    fn settled(&mut self) {
        let _ = self.0.send("settled".into());
    }

    fn exited(&mut self, process: &Arc<Process>) {
        let snapshot = process.snapshot();
        assert!(snapshot.pid.is_none() && snapshot.exit.is_none());
        let _ = self.0.send("exited".into());
    }

    fn ended(&mut self, process: &Arc<Process>) {
        assert!(process.snapshot().closed);
        let _ = self.0.send("ended".into());
    }
}

struct Listener(u64, Sender<()>);

impl Audience for Listener {
    fn id(&self) -> u64 {
        self.0
    }

    fn news(&self, _: &Arc<Process>, _: bool) {
        let _ = self.1.send(());
    }
}

fn audience(id: u64) -> (Arc<dyn Audience>, Receiver<()>) {
    let (news, heard) = channel();
    (Arc::new(Listener(id, news)), heard)
}

fn shell(script: &str) -> StartSpec {
    StartSpec::new(["/bin/sh", "-c", script])
}

fn new(spec: &StartSpec, audience: Option<Arc<dyn Audience>>) -> (Arc<Process>, Receiver<String>) {
    let (tell, told) = channel();
    let process = Process::new("p", spec.stdio, LIMITS, audience, Box::new(Teller(tell)));
    (process, told)
}

fn launched(spec: StartSpec, audience: Option<Arc<dyn Audience>>) -> (Arc<Process>, Receiver<String>) {
    let (process, told) = new(&spec, audience);
    process.launch(spec);
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "started");
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "settled");
    (process, told)
}

fn wait_closed(process: &Arc<Process>) {
    let (woken, wake) = channel();
    let then = Box::new(move || woken.send(()).unwrap());
    if let WaitOutcome::Ready(then) = process.wait(0, u64::MAX, then) {
        then();
    }
    wake.recv_timeout(PATIENCE).unwrap();
}

fn output(process: &Process) -> Vec<u8> {
    let replay = process.replay(0, None);
    replay.chunks.iter().flat_map(|(_, _, bytes)| bytes.to_vec()).collect()
}

#[test]
fn an_owner_is_told_of_the_start_and_the_end() {
    let spec = shell("echo hi; exit 2");
    let (process, told) = new(&spec, None);
    process.launch(spec);
    let told: Vec<String> = told.iter().collect();
    assert_eq!(told, ["started", "settled", "exited", "ended"]);
    assert!(!process.once_started(Box::new(|| panic!("too late"))));
    let snapshot = process.snapshot();
    assert_eq!((snapshot.pid, snapshot.closed, snapshot.next_seq), (None, true, 4));
    assert_eq!(
        snapshot.exit,
        Some(Exit {
            code: 2,
            signal: None,
            sandbox_denied: false,
            failure: None,
            limit_met: None
        })
    );
    assert_eq!(output(&process), b"hi\n");
    process.keep_nothing();
    assert!(output(&process).is_empty());
}

#[test]
fn what_waits_for_a_start_has_its_turn_in_order() {
    let spec = shell("exit 0");
    let (process, told) = new(&spec, None);
    let (tell, order) = channel();
    for name in ["first", "second"] {
        let tell = tell.clone();
        assert!(process.once_started(Box::new(move || tell.send(name).unwrap())));
    }
    drop(tell);
    process.launch(spec);
    assert_eq!(order.iter().collect::<Vec<_>>(), ["first", "second"]);
    assert_eq!(told.iter().last().unwrap(), "ended");
}

#[test]
fn a_start_that_fails_or_is_cancelled_is_told_once() {
    for (spec, cancel, reason) in [
        (StartSpec::new(["/no/such"]), false, "failed to execute `/no/such`: "),
        (StartSpec::new(["a\0b"]), false, "nul byte found in argv"),
        (StartSpec::new([""]), false, "missing program"),
        (shell("exit 0"), true, "start was cancelled"),
    ] {
        let (process, told) = new(&spec, None);
        if cancel {
            assert!(process.terminate(Duration::ZERO));
        }
        process.launch(spec);
        let told: Vec<String> = told.iter().collect();
        assert!(told[0].starts_with(reason), "{told:?}");
        assert_eq!(told[1..], ["settled"]);
    }
}

#[test]
fn an_attached_client_that_takes_nothing_stops_the_reading_until_it_is_gone() {
    let (listener, news) = audience(1);
    let (process, told) = launched(shell("head -c 1000000 /dev/zero"), Some(listener));
    let mut taken = Vec::new();
    news.recv_timeout(PATIENCE).unwrap();
    // Another's id takes nothing.
    assert!(!process.take_events(2, usize::MAX, &mut taken) && taken.is_empty());
    while !process.state().stalled {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let kept = process.snapshot().retained_bytes;
    assert!(
        (LIMITS.retention.credit..LIMITS.retention.credit + 64 * 1024).contains(&kept),
        "{kept}"
    );
    assert!(process.take_events(1, 1, &mut taken));
    assert_eq!(taken.len(), 1);
    process.detach(2);
    process.detach(1);
    assert_eq!(told.iter().last().unwrap(), "ended");
    let replay = process.replay(0, None);
    assert_eq!(replay.lost_bytes + process.snapshot().retained_bytes as u64, 1_000_000);
    assert!(
        news.try_recv().is_err(),
        "it is told again only when it has taken everything"
    );
}

#[test]
fn a_wait_ends_once_by_news_or_by_being_given_up() {
    let mut spec = shell("read x; echo hi; read x");
    spec.stdio = Stdio::Pipes { stdin: true };
    let (process, _told) = launched(spec, None);
    let (tell, woken) = channel();
    let wake = |n: u64| {
        let tell = tell.clone();
        Box::new(move || tell.send(n).unwrap())
    };
    assert!(matches!(process.wait(1, 0, wake(1)), WaitOutcome::Waiting));
    assert!(matches!(process.wait(2, 0, wake(2)), WaitOutcome::Waiting));
    assert!(matches!(process.wait(3, 1, wake(3)), WaitOutcome::Waiting));
    assert!(process.stop_waiting(2).is_some() && process.stop_waiting(2).is_none());
    process.write("1", b"\n".to_vec(), false, Box::new(|_| {}));
    assert_eq!(woken.recv_timeout(PATIENCE), Ok(1));
    assert!(matches!(process.wait(4, 0, wake(4)), WaitOutcome::Ready(_)));
    process.terminate(Duration::ZERO);
    assert_eq!(woken.recv_timeout(PATIENCE), Ok(3));
    wait_closed(&process);
}

#[test]
fn only_a_terminal_that_is_there_has_a_size() {
    let size = TerminalSize { rows: 9, cols: 9 };
    let (process, told) = launched(shell("exit 0"), None);
    assert!(matches!(process.resize(size), Err(ResizeError::NoTerminal)));
    let mut spec = shell("read x; stty size");
    spec.stdio = Stdio::Terminal(TerminalSize::default());
    let (terminal, told_of_terminal) = launched(spec, None);
    terminal.resize(size).unwrap();
    terminal.write("1", b"\n".to_vec(), false, Box::new(|_| {}));
    assert_eq!(told_of_terminal.iter().last().unwrap(), "ended");
    assert!(output(&terminal).ends_with(b"9 9\r\n"));
    assert!(
        terminal
            .replay(0, None)
            .chunks
            .iter()
            .all(|(_, stream, _)| *stream == Stream::Pty)
    );
    assert!(matches!(terminal.resize(size), Err(ResizeError::Ended)));
    assert_eq!(told.iter().last().unwrap(), "ended");
}

#[test]
fn what_an_ended_process_leaves_is_killed_with_it_and_nothing_else() {
    // Or else what is left is init's child, and not to be told from a stranger.
    family::adopt_orphans().unwrap();
    let (other, told_of_other) = launched(shell("exec sleep 1000"), None);
    let (process, told) = launched(shell("sleep 1000 & echo $!"), None);
    let (woken, exited) = channel();
    let then = Box::new(move || woken.send(()).unwrap());
    if let WaitOutcome::Ready(then) = process.wait(0, 1, then) {
        then();
    }
    exited.recv_timeout(PATIENCE).unwrap();
    assert!(process.snapshot().exit.is_some() && !process.snapshot().closed);
    let left: i32 = String::from_utf8(output(&process)).unwrap().trim().parse().unwrap();
    let is_killed = || {
        let stat = std::fs::read_to_string(format!("/proc/{left}/stat"));
        stat.is_ok_and(|stat| stat.contains(") Z "))
    };
    assert!(!is_killed());
    assert!(!process.terminate(Duration::ZERO));
    assert_eq!(told.iter().last().unwrap(), "ended");
    while !is_killed() {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    assert!(other.snapshot().exit.is_none());
    other.terminate(Duration::ZERO);
    assert_eq!(told_of_other.iter().last().unwrap(), "ended");
}

#[test]
fn what_is_not_acknowledged_is_kept_without_a_client_too() {
    let mut limits = LIMITS;
    limits.retention.ack_window = Some(64 * 1024);
    let (tell, told) = channel();
    let spec = shell("exec seq 1 200000");
    let process = Process::new("p", spec.stdio, limits, None, Box::new(Teller(tell)));
    process.launch(spec);
    let (mut seen, mut all) = (0, Vec::new());
    loop {
        let replay = process.replay(seen, None);
        assert_eq!(replay.lost_bytes, 0);
        all.extend(replay.chunks.iter().flat_map(|(_, _, bytes)| bytes.to_vec()));
        seen = replay.next_seq - 1;
        process.acknowledge(seen);
        if replay.closed {
            break;
        }
        let (woken, wake) = channel();
        let then = Box::new(move || woken.send(()).unwrap());
        if let WaitOutcome::Ready(then) = process.wait(0, seen, then) {
            then();
        }
        wake.recv_timeout(PATIENCE).unwrap();
    }
    let expected: String = (1..=200_000).map(|n| format!("{n}\n")).collect();
    assert!(all == expected.as_bytes());
    assert_eq!(told.iter().last().unwrap(), "ended");
}
