//! The client's state of a process, driven like a connection drives it, against models that are too simple to be wrong.

#![cfg(feature = "client")]

#[path = "checks/random.rs"]
mod random;

use exec_server::client::events::{
    AckSink, EventSubscriber, ExecOutputStream, ExecProcessEvent, ProcessEvents, ProcessOptions, ProcessOutputChunk,
    ProcessState, Progress, ReadResponse, RecoverError, Recovery, RecvError,
};
use random::Random;
use std::collections::BTreeSet;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use tungstenite::Bytes;

fn process() -> (Arc<ProcessState>, ProcessEvents) {
    ProcessState::new("p".into(), &ProcessOptions::default(), None)
}

fn chunk(seq: u64, stream: ExecOutputStream, bytes: Vec<u8>) -> ProcessOutputChunk {
    let chunk = Bytes::from(bytes);
    ProcessOutputChunk { seq, stream, chunk }
}

fn output(seq: u64) -> ExecProcessEvent {
    ExecProcessEvent::Output(chunk(seq, ExecOutputStream::Stdout, seq.to_le_bytes().to_vec()))
}

/// The events of a whole process: output, an exit somewhere, and the end.
fn life(random: &mut Random) -> Vec<ExecProcessEvent> {
    let count = 2 + random.below(150) as u64;
    let exit_seq = 1 + random.below(count as usize - 1) as u64;
    let event = |seq| match seq {
        _ if seq == count => ExecProcessEvent::Closed { seq },
        _ if seq == exit_seq => ExecProcessEvent::Exited {
            seq,
            exit_code: 7,
            signal: None,
            sandbox_denied: None,
            ended_by: None,
        },
        _ => output(seq),
    };
    (1..=count).map(event).collect()
}

fn shuffle<T>(random: &mut Random, items: &mut [T]) {
    for i in (1..items.len()).rev() {
        items.swap(i, random.below(i + 1));
    }
}

#[test]
fn any_order_and_any_repetition_is_delivered_in_order_and_once() {
    let mut random = Random::new(1);
    for round in 0..300 {
        let events = life(&mut random);
        let mut arriving = events.clone();
        for _ in 0..random.below(100) {
            arriving.push(events[random.below(events.len())].clone());
        }
        shuffle(&mut random, &mut arriving);

        let (state, stream) = process();
        let mut arrived = BTreeSet::new();
        let mut subscribers = Vec::new();
        for event in arriving {
            arrived.extend(event.seq());
            let progress = state.on_event(event);
            let contiguous = (1..).take_while(|seq| arrived.contains(seq)).count();
            assert_eq!(state.last_published(), contiguous as u64, "round {round}");
            assert_eq!(state.wake().seen(), *arrived.last().unwrap(), "round {round}");
            assert_eq!(
                progress == Progress::Closed,
                contiguous == events.len(),
                "round {round}"
            );
            if random.below(20) == 0 {
                subscribers.push(state.subscribe());
            }
        }
        subscribers.push(state.subscribe());
        let expected: Vec<_> = events.into_iter().map(Ok).collect();
        assert_eq!(stream.collect::<Vec<_>>(), expected, "round {round}");
        for subscriber in subscribers {
            assert_eq!(subscriber.collect::<Vec<_>>(), expected, "round {round}");
        }
    }
}

#[test]
fn the_reorder_buffer_has_the_bounds_of_its_model() {
    let mut random = Random::new(2);
    let mut failures = BTreeSet::new();
    for round in 0..100 {
        let (state, _stream) = process();
        // The numbers and sizes of those that wait.
        let mut waiting: Vec<(u64, usize)> = Vec::new();
        let mut published = 0;
        let largest = [10, 10_000, 1_200_000][random.below(3)];
        let mut expected = None;
        while expected.is_none() && published < 2000 {
            let reach = [3, 600][random.below(2)];
            let seq = published + 1 + random.below(reach) as u64;
            let len = random.below(largest);
            let bytes: usize = waiting.iter().map(|(_, len)| len).sum();
            if seq == published + 1 || waiting.iter().any(|(other, _)| *other == seq) {
            } else if len > 1_048_576 {
                expected = Some("process event exceeds 1048576 bytes");
            } else if waiting.len() == 256 {
                expected = Some("process event reorder buffer exceeds 256 entries");
            } else if bytes + len > 1_048_576 {
                expected = Some("process event reorder buffer exceeds 1048576 bytes");
            }
            if !waiting.iter().any(|(other, _)| *other == seq) {
                waiting.push((seq, len));
            }
            while let Some(next) = waiting.iter().position(|(seq, _)| *seq == published + 1) {
                waiting.swap_remove(next);
                published += 1;
            }
            let zeros = chunk(seq, ExecOutputStream::Pty, vec![0; len]);
            state.on_event(ExecProcessEvent::Output(zeros));
            assert_eq!(state.failure().as_deref(), expected, "round {round}");
            assert_eq!(state.last_published(), published, "round {round}");
        }
        failures.extend(expected);
    }
    assert_eq!(failures.len(), 3, "all bounds were met");
}

#[test]
fn a_connection_that_is_cut_anywhere_loses_nothing() {
    let mut random = Random::new(3);
    for round in 0..500 {
        let events = life(&mut random);
        let (state, stream) = process();
        // What has happened on the server, and from where on the present connection tells it.
        let mut happened = 0;
        let mut told = 0;
        while !state.is_closed() {
            // Some more happens, and some of it arrives, a little out of order.
            happened += random.below(events.len() - happened + 1);
            let arriving = told + random.below(happened - told + 1);
            let mut arriving = events[told..arriving].to_vec();
            if random.below(2) == 0 {
                shuffle(&mut random, &mut arriving);
                // What is last is lost with the connection.
                arriving.truncate(arriving.len() - random.below(arriving.len() + 1) / 2);
            }
            for event in arriving {
                state.on_event(event);
            }
            // The connection is cut, and the new one begins with what happens from now on.
            state.begin_recovery();
            let after = state.last_published();
            told = happened;
            happened += random.below(events.len() - happened + 1);
            let early = told + random.below(happened - told + 1);
            for event in &events[told..early] {
                state.on_event(event.clone());
            }
            told = early;
            let answer = read(&events[..happened], after, events.len());
            assert_eq!(state.recover(answer), Ok(Recovery::Complete), "round {round}");
            assert!(state.last_published() >= happened as u64, "round {round}");
        }
        assert_eq!(state.wait_exit(None).map(|exit| exit.exit_code), Ok(7));
        assert_eq!(stream.flatten().collect::<Vec<_>>(), events, "round {round}");
    }
}

#[test]
fn what_the_server_has_forgotten_is_never_passed_over() {
    let mut random = Random::new(4);
    let mut losses = 0;
    for round in 0..500 {
        let events = life(&mut random);
        let (state, stream) = process();
        let seen = random.below(events.len());
        for event in &events[..seen] {
            state.on_event(event.clone());
        }
        let mut answer = read(&events, seen as u64, events.len());
        let forgotten = random.below(answer.chunks.len() + 1);
        answer.chunks.drain(..forgotten);
        let recovered = state.recover(answer);
        if forgotten == 0 {
            assert_eq!(recovered, Ok(Recovery::Complete), "round {round}");
            assert_eq!(stream.flatten().collect::<Vec<_>>(), events, "round {round}");
        } else {
            losses += 1;
            assert_eq!(
                recovered,
                Err(RecoverError::NotRetained(events.len() as u64)),
                "round {round}"
            );
            assert!(state.failure().is_some());
        }
    }
    assert!(losses > 100);
}

/// What a server answers that has seen these of `count` events.
fn read(happened: &[ExecProcessEvent], after: u64, count: usize) -> ReadResponse {
    let mut answer = ReadResponse {
        next_seq: happened.len() as u64 + 1,
        closed: happened.len() == count,
        ..ReadResponse::default()
    };
    for event in happened {
        match event {
            ExecProcessEvent::Output(output) if output.seq > after => answer.chunks.push(output.clone()),
            ExecProcessEvent::Exited { exit_code, .. } => {
                answer.exited = true;
                answer.exit_code = Some(*exit_code);
            }
            _ => {}
        }
    }
    answer
}

#[test]
fn who_subscribes_while_events_arrive_gets_neither_gap_nor_double() {
    let (state, stream) = process();
    stream.discard();
    thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            for seq in 1..20_000 {
                state.on_event(output(seq));
            }
            state.on_event(ExecProcessEvent::Closed { seq: 20_000 });
        });
        let mut subscribers = Vec::new();
        while !publisher.is_finished() || subscribers.is_empty() {
            let subscriber = state.subscribe();
            if subscribers.len() < 8 {
                subscribers.push(scope.spawn(|| last_of(subscriber)));
            }
        }
        for subscriber in subscribers {
            assert_eq!(subscriber.join().unwrap(), 20_000);
        }
    });
}

/// The number of the last event, after every one before it was received or told as skipped.
fn last_of(subscriber: EventSubscriber) -> u64 {
    let mut last = 0;
    for item in subscriber {
        match item {
            Ok(event) => {
                assert_eq!(event.seq(), Some(last + 1));
                last += 1;
            }
            Err(lagged) => {
                assert_eq!(lagged.after_seq(), last);
                last = lagged.through_seq;
            }
        }
    }
    last
}

/// A server's window: what was sent and not acknowledged.
#[derive(Default)]
struct Window {
    acked: AtomicU64,
    turn: Mutex<()>,
    changed: Condvar,
}

impl Window {
    fn wait_until_acked(&self, seq: u64) {
        let mut turn = self.turn.lock().unwrap();
        while self.acked.load(Ordering::SeqCst) < seq {
            turn = self.changed.wait(turn).unwrap();
        }
    }
}

impl AckSink for Window {
    fn ack(&self, process_id: &str, seq: u64) {
        assert_eq!(process_id, "p");
        self.acked.fetch_max(seq, Ordering::SeqCst);
        drop(self.turn.lock().unwrap());
        self.changed.notify_all();
    }
}

/// Publishes 4000 events of 4 KiB, and never more than 128 beyond what is acknowledged.
fn publish_within(window: &Window, state: &ProcessState) {
    let streams = [ExecOutputStream::Stdout, ExecOutputStream::Stderr];
    for seq in 1..=4000u64 {
        window.wait_until_acked(seq.saturating_sub(128));
        let bytes = seq.to_le_bytes().repeat(512);
        state.on_event(ExecProcessEvent::Output(chunk(
            seq,
            streams[seq as usize / 7 % 2],
            bytes,
        )));
    }
    state.on_event(ExecProcessEvent::Closed { seq: 4001 });
}

fn with_window(read: impl FnOnce(ProcessEvents) + Send) {
    let window = Arc::new(Window::default());
    let (state, stream) = ProcessState::new("p".into(), &ProcessOptions::default(), Some(window.clone()));
    thread::scope(|scope| {
        scope.spawn(|| publish_within(&window, &state));
        scope.spawn(|| read(stream));
    });
    assert!(state.is_closed());
}

#[test]
fn a_server_that_waits_for_acknowledgements_gets_them() {
    with_window(|stream| {
        let seqs: Vec<_> = stream.map(|event| event.unwrap().seq().unwrap()).collect();
        assert_eq!(seqs, (1..=4001).collect::<Vec<_>>());
    });
    with_window(|mut stream| {
        for _ in 0..100 {
            stream.recv().unwrap();
        }
        stream.discard();
    });
    with_window(drop);
    with_window(|stream| {
        let mut all = Vec::new();
        stream.merge_output().read_to_end(&mut all).unwrap();
        let expected: Vec<u8> = (1..=4000u64).flat_map(|seq| seq.to_le_bytes().repeat(512)).collect();
        assert!(all == expected);
    });
    with_window(|stream| {
        let (stdout, stderr) = stream.take_output();
        let lens = [stdout, stderr]
            .map(|mut reader| thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()).unwrap()));
        let total: u64 = lens.into_iter().map(|len| len.join().unwrap()).sum();
        assert_eq!(total, 4000 * 4096);
    });
    with_window(|stream| {
        let (stdout, mut stderr) = stream.take_output();
        drop(stdout);
        std::io::copy(&mut stderr, &mut std::io::sink()).unwrap();
    });
}

#[test]
fn handles_may_be_dropped_in_any_order() {
    let (state, mut stream) = process();
    let mut subscriber = state.subscribe();
    state.on_event(output(1));
    drop(state.subscribe());
    drop(state);
    let failed = ExecProcessEvent::Failed("exec-server transport closed".into());
    assert_eq!(stream.recv(), Ok(output(1)));
    assert_eq!(stream.recv(), Ok(failed.clone()));
    assert_eq!(stream.recv(), Err(RecvError::Ended));
    assert_eq!(subscriber.recv(), Ok(output(1)));
    assert_eq!(subscriber.recv(), Ok(failed));
    assert_eq!(subscriber.recv(), Err(RecvError::Ended));

    let (state, stream) = process();
    let (stdout, mut stderr) = stream.take_output();
    drop(stdout);
    drop(state);
    let e = stderr.read(&mut [0]).unwrap_err();
    assert_eq!(e.to_string(), "exec-server transport closed");
}
