use super::super::fixture::{Acked, NONE, closed, error_output, exited, output, zeros};
use super::super::{ProcessOptions, ProcessState};
use super::*;

fn process(max_queued_bytes: usize) -> (Arc<ProcessState>, ProcessEvents) {
    let options = ProcessOptions {
        max_queued_bytes,
        ..ProcessOptions::default()
    };
    ProcessState::new("p".into(), &options, None)
}

fn text(mut reader: impl Read) -> io::Result<String> {
    let mut text = String::new();
    reader.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn streams_are_read_apart_or_together() {
    let publish = |state: &ProcessState| {
        for event in [output(1, "a"), error_output(2, "X"), output(3, "b"), exited(4)] {
            state.on_event(event);
        }
        state.on_event(error_output(5, "YZ"));
        state.on_event(closed(6));
    };
    let (state, events) = process(9999);
    publish(&state);
    assert_eq!(text(events.merge_output()).unwrap(), "aXbYZ");

    let (state, events) = process(9999);
    let (stdout, stderr) = events.take_output();
    std::thread::scope(|scope| {
        let stdout = scope.spawn(|| text(stdout).unwrap());
        let stderr = scope.spawn(|| text(stderr).unwrap());
        publish(&state);
        assert_eq!(stdout.join().unwrap(), "ab");
        assert_eq!(stderr.join().unwrap(), "XYZ");
    });

    let (state, events) = process(9999);
    let (stdout, stderr) = events.take_output();
    publish(&state);
    assert_eq!(
        (text(stdout).unwrap(), text(stderr).unwrap()),
        ("ab".into(), "XYZ".into())
    );
}

#[test]
fn small_reads_and_whole_chunks() {
    let (state, events) = process(9999);
    state.on_event(output(1, "abc"));
    state.on_event(output(2, ""));
    state.on_event(output(3, "de"));
    state.on_event(closed(4));
    let mut reader = events.merge_output();
    let mut room = [0; 2];
    assert_eq!(reader.read(&mut room).unwrap(), 2);
    assert_eq!((&room, reader.fill_buf().unwrap()), (b"ab", &b"c"[..]));
    reader.consume(1);
    assert_eq!(reader.fill_buf().unwrap(), b"de", "an empty chunk is not the end");
    reader.consume(2);
    assert_eq!(
        (reader.read(&mut room).unwrap(), reader.read(&mut room).unwrap()),
        (0, 0)
    );
}

#[test]
fn a_failure_comes_after_what_arrived() {
    let (state, events) = process(9999);
    let (mut stdout, mut stderr) = events.take_output();
    state.on_event(output(1, "abc"));
    state.fail("the wire is cut");
    let mut room = [0; 9];
    assert_eq!(stdout.read(&mut room).unwrap(), 3);
    for _ in 0..2 {
        assert_eq!(stdout.read(&mut room).unwrap_err().to_string(), "the wire is cut");
    }
    assert_eq!(stderr.read(&mut room).unwrap_err().to_string(), "the wire is cut");
}

#[test]
fn a_loss_is_told_to_both_once() {
    let (state, events) = process(100);
    let (mut stdout, mut stderr) = events.take_output();
    state.on_event(zeros(1, 100));
    state.on_event(output(2, "lost"));
    state.on_event(exited(3));
    let mut room = [1; 200];
    assert_eq!(stdout.read(&mut room).unwrap(), 100);
    let e = stdout.read(&mut room).unwrap_err();
    let lagged = e.get_ref().unwrap().downcast_ref::<Lagged>();
    assert_eq!(lagged.map(|lagged| (lagged.after_seq(), lagged.skipped)), Some((1, 1)));
    assert!(stderr.read(&mut room).is_err());
    state.on_event(closed(4));
    assert_eq!(
        (stdout.read(&mut room).unwrap(), stderr.read(&mut room).unwrap()),
        (0, 0)
    );
}

#[test]
fn what_is_not_read_holds_up_the_other_within_bounds() {
    let (state, events) = process(usize::MAX);
    let (mut stdout, mut stderr) = events.take_output();
    let large = "x".repeat(MAX_PARKED_BYTES / 4);
    for seq in 1..=10 {
        state.on_event(error_output(seq, &large));
    }
    state.on_event(output(11, "behind"));
    state.on_event(closed(12));
    std::thread::scope(|scope| {
        let stdout = scope.spawn(move || {
            let mut room = [0; 9];
            stdout.read(&mut room).map(|n| (n, room))
        });
        while !stderr.output.state().is_parked_full() {
            std::thread::yield_now();
        }
        assert!(stderr.output.state().sides[1].parked.len() <= 4);
        let mut all = Vec::new();
        stderr.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 10 * large.len());
        assert_eq!(stdout.join().unwrap().unwrap().0, 6);
    });
}

#[test]
fn a_little_room_is_enough_to_go_on() {
    let (state, events) = process(usize::MAX);
    let (stdout, mut stderr) = events.take_output();
    let large = "x".repeat(MAX_PARKED_BYTES / 2);
    state.on_event(error_output(1, &large));
    state.on_event(error_output(2, &large));
    state.on_event(output(3, "behind"));
    state.on_event(closed(4));
    std::thread::scope(|scope| {
        let stdout = scope.spawn(|| text(stdout).unwrap());
        while !stderr.output.state().is_parked_full() {
            std::thread::yield_now();
        }
        assert_eq!(stderr.fill_buf().unwrap().len(), large.len());
        assert_eq!(stdout.join().unwrap(), "behind");
    });
}

#[test]
fn the_oldest_that_is_parked_on_any_side_is_not_consumed() {
    let (_state, events) = process(0);
    let (stdout, _stderr) = events.take_output();
    let mut state = stdout.output.state();
    state.park(Ok(error_output(1, "a")));
    state.park(Ok(error_output(2, "b")));
    state.park(Ok(output(3, "c")));
    state.park(Ok(output(4, "d")));
    let consumed = [1, 0, 1, 0].map(|side| {
        state.unpark(side);
        state.consumed()
    });
    assert_eq!(consumed, [1, 1, 3, 4]);
}

#[test]
fn who_leaves_holds_up_nobody() {
    let (state, events) = process(usize::MAX);
    let (stdout, stderr) = events.take_output();
    let large = "x".repeat(MAX_PARKED_BYTES);
    for seq in 1..=3 {
        state.on_event(error_output(seq, &large));
    }
    state.on_event(output(4, "behind"));
    state.on_event(closed(5));
    std::thread::scope(|scope| {
        let stdout = scope.spawn(|| text(stdout).unwrap());
        while !stderr.output.state().is_parked_full() {
            std::thread::yield_now();
        }
        drop(stderr);
        assert_eq!(stdout.join().unwrap(), "behind");
    });
}

#[test]
fn what_is_parked_is_not_acknowledged() {
    let acked = Acked::new();
    let options = ProcessOptions {
        ack_bytes: 1000,
        ..ProcessOptions::default()
    };
    let (state, events) = ProcessState::new("p".into(), &options, Some(acked.clone()));
    let (mut stdout, mut stderr) = events.take_output();
    let mut room = [0; 10_000];
    state.on_event(zeros(1, 1000));
    state.on_event(error_output(2, "parked"));
    state.on_event(zeros(3, 1000));
    state.on_event(zeros(4, 1000));
    assert_eq!(stdout.read(&mut room).unwrap(), 1000);
    assert_eq!(acked.take(), [1]);
    assert_eq!(stdout.read(&mut room).unwrap(), 1000);
    assert_eq!(stdout.read(&mut room).unwrap(), 1000);
    assert_eq!(acked.take(), NONE);
    assert_eq!(stderr.read(&mut room).unwrap(), 6);
    assert_eq!(acked.take(), [4]);
    state.on_event(error_output(5, "parked"));
    state.on_event(zeros(6, 1000));
    assert_eq!(stdout.read(&mut room).unwrap(), 1000);
    drop(stderr);
    assert_eq!(acked.take(), [6], "nobody will read it");
    state.on_event(error_output(7, &"x".repeat(2000)));
    state.on_event(output(8, "y"));
    assert_eq!(stdout.read(&mut room).unwrap(), 1);
    assert_eq!(acked.take(), [8]);
}
