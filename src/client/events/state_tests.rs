use super::super::ExecOutputStream::Stdout;
use super::super::RecvError;
use super::super::fixture::{chunk, closed, exited, output, zeros};
use super::*;

const NOW: Option<Duration> = Some(Duration::ZERO);

fn process() -> (Arc<ProcessState>, ProcessEvents) {
    ProcessState::new("p".into(), &ProcessOptions::default(), None)
}

#[test]
fn process_events_are_delivered_in_seq_order_when_notifications_are_reordered() {
    let (state, events) = process();
    let subscriber = state.subscribe();
    let arriving = [closed(4), output(1, "one"), exited(3), output(2, "two")];
    let progress = arriving.map(|event| state.on_event(event));
    assert_eq!(
        progress,
        [Progress::Open, Progress::Open, Progress::Open, Progress::Closed]
    );
    let expected = [output(1, "one"), output(2, "two"), exited(3), closed(4)].map(Ok);
    assert_eq!(events.collect::<Vec<_>>(), expected);
    assert_eq!(subscriber.collect::<Vec<_>>(), expected);
    assert_eq!(state.subscribe().collect::<Vec<_>>(), expected);
}

#[test]
fn wake_notifications_do_not_block_other_sessions() {
    let (noisy, _unread) = process();
    let (quiet, mut events) = process();
    let _slow = noisy.subscribe();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| quiet.wake().wait(0, None));
        // Far more than any queue of a subscriber holds, and nobody waits for its wakes.
        for seq in 1..=10_000 {
            noisy.on_event(output(seq, "noise"));
        }
        quiet.on_event(output(1, "quiet"));
        assert_eq!(waiter.join().unwrap(), 1);
    });
    assert_eq!(events.try_recv(), Ok(output(1, "quiet")));
    assert_eq!(noisy.wake().seen(), 10_000);
}

#[test]
fn wakes_tell_of_events_that_wait_for_others() {
    let (state, _events) = process();
    state.on_event(output(5, "early"));
    assert_eq!((state.wake().seen(), state.last_published()), (5, 0));
    state.on_event(output(1, "next"));
    assert_eq!((state.wake().seen(), state.last_published()), (5, 1));
    state.fail("gone");
    assert_eq!(state.wake().seen(), 6);
    state.on_event(output(9, "late"));
    state.fail("again");
    assert_eq!(state.wake().seen(), 6, "nothing happens after a failure");
}

/// Returns once that many threads wait for the process.
fn until_waiting(state: &ProcessState, count: usize) {
    while state.inner().waiting < count {
        std::thread::yield_now();
    }
}

#[test]
fn waiting_ends_with_the_event_the_failure_or_the_time() {
    let (state, _events) = process();
    assert_eq!(state.wait_exit(Some(Duration::from_millis(1))), Err(WaitError::Timeout));
    assert_eq!(state.wait_closed(NOW), Err(WaitError::Timeout));
    let exit = ProcessExit {
        exit_code: 3,
        signal: None,
        sandbox_denied: Some(false),
        ended_by: None,
    };
    std::thread::scope(|scope| {
        let exited_waiter = scope.spawn(|| state.wait_exit(None));
        let closed_waiter = scope.spawn(|| state.wait_closed(None));
        until_waiting(&state, 2);
        state.on_event(exited(1));
        assert_eq!(exited_waiter.join().unwrap(), Ok(exit.clone()));
        assert_eq!((state.exit(), state.is_closed()), (Some(exit.clone()), false));
        until_waiting(&state, 1);
        state.on_event(closed(2));
        assert_eq!(closed_waiter.join().unwrap(), Ok(()));
    });
    state.fail("too late");
    assert_eq!((state.wait_exit(NOW), state.failure()), (Ok(exit), None));

    let (state, _events) = process();
    std::thread::scope(|scope| {
        let waiters = [
            scope.spawn(|| state.wait_exit(None).err()),
            scope.spawn(|| state.wait_closed(None).err()),
        ];
        until_waiting(&state, 2);
        state.fail("the wire is cut");
        for waiter in waiters {
            assert_eq!(
                waiter.join().unwrap(),
                Some(WaitError::Failed("the wire is cut".into()))
            );
        }
    });
    assert_eq!(state.failure().as_deref(), Some("the wire is cut"));
}

#[test]
fn a_process_that_closes_without_an_exit_is_not_waited_for() {
    let (state, _events) = process();
    state.on_event(closed(1));
    let failed = WaitError::Failed("the process was closed without an exit code".into());
    assert_eq!((state.wait_exit(None), state.wait_closed(None)), (Err(failed), Ok(())));
}

#[test]
fn a_gap_that_is_too_large_fails_the_process() {
    let (state, mut events) = process();
    state.on_event(output(1, "a"));
    for seq in 3..3 + 256 {
        assert_eq!(state.on_event(output(seq, "")), Progress::Open);
    }
    assert_eq!(state.on_event(output(999, "")), Progress::Failed);
    assert_eq!(state.on_event(output(2, "")), Progress::Failed);
    let message = "process event reorder buffer exceeds 256 entries";
    assert_eq!(state.failure().as_deref(), Some(message));
    assert_eq!(state.wake().seen(), 1000);
    assert_eq!(events.try_recv(), Ok(output(1, "a")));
    assert_eq!(events.try_recv(), Ok(ExecProcessEvent::Failed(message.into())));
    assert_eq!(events.try_recv(), Err(RecvError::Ended));
    assert_eq!(state.subscribe().flatten().count(), 2, "who comes late is told too");
}

#[test]
fn recovery_continues_the_stream() {
    let (state, events) = process();
    state.on_event(output(1, "a"));
    state.begin_recovery();
    for seq in 4..1000 {
        assert_eq!(state.on_event(zeros(seq, 9)), Progress::Open);
    }
    let snapshot = ReadResponse {
        chunks: vec![chunk(2, Stdout, "b"), chunk(3, Stdout, "c")],
        next_seq: 4,
        ..ReadResponse::default()
    };
    assert_eq!(state.recover(snapshot), Ok(Recovery::Again));
    let last_published = state.last_published();
    let snapshot = ReadResponse {
        chunks: (last_published + 1..1000).map(|seq| chunk(seq, Stdout, "d")).collect(),
        next_seq: 1002,
        exited: true,
        exit_code: Some(0),
        closed: true,
        ..ReadResponse::default()
    };
    assert_eq!(state.recover(snapshot), Ok(Recovery::Complete));
    assert_eq!(state.wake().seen(), 1001);
    assert_eq!(state.wait_closed(NOW), Ok(()));
    let seqs: Vec<_> = events.flatten().filter_map(|event| event.seq()).collect();
    assert_eq!(seqs, (1..=1001).collect::<Vec<_>>());
}

#[test]
fn what_cannot_be_recovered_fails_the_process() {
    let (state, events) = process();
    state.on_event(output(1, "a"));
    let snapshot = ReadResponse {
        next_seq: 9,
        ..ReadResponse::default()
    };
    assert_eq!(state.recover(snapshot), Err(RecoverError::NotRetained(8)));
    let message =
        "failed to recover process p: process events are no longer retained while recovering through sequence 8";
    assert_eq!(state.failure().as_deref(), Some(message));
    assert_eq!(events.flatten().last(), Some(ExecProcessEvent::Failed(message.into())));
    assert_eq!(
        state.recover(ReadResponse::default()),
        Ok(Recovery::Complete),
        "nothing is left to be done"
    );
}
