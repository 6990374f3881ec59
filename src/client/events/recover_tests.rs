use super::super::ExecOutputStream::Stdout;
use super::super::fixture::{chunk, closed, exited, output, zeros};
use super::super::order::{MAX_PENDING_BYTES, MAX_PENDING_EVENTS};
use super::*;

/// An order that has published `published` events of output and then got `arrived`.
fn order(published: u64, arrived: impl IntoIterator<Item = ExecProcessEvent>) -> EventOrder {
    let mut order = EventOrder::new();
    order.begin_recovery();
    for event in (1..=published).map(|seq| output(seq, "before")).chain(arrived) {
        order.take(event, &mut |_| ()).unwrap();
    }
    order
}

fn snapshot(chunks: impl IntoIterator<Item = u64>, next_seq: u64) -> ReadResponse {
    ReadResponse {
        chunks: chunks.into_iter().map(|seq| chunk(seq, Stdout, "read")).collect(),
        next_seq,
        ..ReadResponse::default()
    }
}

fn ended(chunks: impl IntoIterator<Item = u64>, next_seq: u64, closed: bool) -> ReadResponse {
    ReadResponse {
        exited: true,
        exit_code: Some(137),
        signal: Some("KILL".into()),
        closed,
        sandbox_denied: Some(true),
        ended_by: Some("timeout".into()),
        ..snapshot(chunks, next_seq)
    }
}

#[test]
fn what_is_lost_is_not_waited_for() {
    let table: [(&[ExecProcessEvent], ReadResponse, &[u64]); 7] = [
        (&[], snapshot([1, 2], 3), &[1, 2]),
        (&[], snapshot([5, 6], 7), &[5, 6]),
        (&[output(3, "x"), output(7, "y")], snapshot([5, 6], 7), &[5, 6, 7]),
        (&[], ended([5, 7], 8, false), &[5, 6, 7]),
        (&[], ended([5, 6], 7, false), &[4, 5, 6]),
        (&[], ended([], 9, true), &[7, 8]),
        (&[], snapshot([], 9), &[]),
    ];
    for (arrived, snapshot, expected) in table {
        let mut order = order(0, arrived.iter().cloned());
        let mut seqs = Vec::new();
        order.skip_lost(&snapshot);
        let text = format!("{snapshot:?}");
        let recovered = order.recover(snapshot, &mut |event| seqs.extend(event.seq()));
        assert_eq!(recovered, Ok(Recovery::Complete), "{text}");
        assert_eq!(seqs, expected, "{text}");
    }
}

fn exit(seq: u64) -> ExecProcessEvent {
    ExecProcessEvent::Exited {
        seq,
        exit_code: 137,
        signal: Some("KILL".into()),
        sandbox_denied: Some(true),
        ended_by: Some("timeout".into()),
    }
}

fn recover(order: &mut EventOrder, snapshot: ReadResponse) -> Result<Vec<ExecProcessEvent>, String> {
    let mut published = Vec::new();
    match order.recover(snapshot, &mut |event| published.push(event)) {
        Ok(recovery) => {
            assert_eq!(recovery, Recovery::Complete);
            Ok(published)
        }
        Err(e) => {
            assert_eq!(published, []);
            Err(e.to_string())
        }
    }
}

#[test]
fn nothing_was_missed() {
    assert_eq!(recover(&mut order(3, []), snapshot([], 4)), Ok(vec![]));
    assert_eq!(recover(&mut order(0, []), snapshot([], 1)), Ok(vec![]));
    let mut order = order(5, []);
    assert_eq!(
        recover(&mut order, snapshot([2, 3], 4)),
        Ok(vec![]),
        "an answer that is older"
    );
    assert_eq!(order.last_published(), 5);
}

#[test]
fn output_was_missed() {
    let published = recover(&mut order(1, []), snapshot([2, 3], 4));
    assert_eq!(published, Ok(vec![output(2, "read"), output(3, "read")]));
}

#[test]
fn what_arrived_before_the_answer_counts() {
    let published = recover(
        &mut order(1, [output(4, "live"), output(6, "live")]),
        snapshot([2, 3, 4], 5),
    );
    assert_eq!(
        published,
        Ok(vec![output(2, "read"), output(3, "read"), output(4, "live")]),
        "number 5 is still on its way"
    );
    let mut order = order(1, [output(4, "live"), output(5, "live")]);
    assert_eq!(recover(&mut order, snapshot([2, 3], 4)).unwrap().len(), 4);
    assert_eq!(order.last_published(), 5);
}

#[test]
fn one_gap_is_the_exit() {
    let published = recover(&mut order(1, []), ended([2, 4], 5, false));
    assert_eq!(published, Ok(vec![output(2, "read"), exit(3), output(4, "read")]));
    let published = recover(&mut order(1, []), ended([2], 4, false));
    assert_eq!(published, Ok(vec![output(2, "read"), exit(3)]));
    let published = recover(&mut order(1, []), ended([3], 5, true));
    assert_eq!(published, Ok(vec![exit(2), output(3, "read"), closed(4)]));
    let published = recover(&mut order(1, []), ended([], 4, true));
    assert_eq!(published, Ok(vec![exit(2), closed(3)]));
}

#[test]
fn the_exit_that_was_seen_is_no_gap() {
    let published = recover(&mut order(1, [exited(2)]), ended([3], 5, true));
    assert_eq!(published, Ok(vec![output(3, "read"), closed(4)]));
    let published = recover(&mut order(1, [exited(3)]), ended([2], 5, true));
    assert_eq!(published, Ok(vec![output(2, "read"), exited(3), closed(4)]));
    let e = recover(&mut order(1, [exited(4)]), ended([2], 6, true));
    assert_eq!(
        e.unwrap_err(),
        "process events are no longer retained while recovering through sequence 5"
    );
}

#[test]
fn the_end_that_was_seen_is_no_gap() {
    let mut order = order(1, [closed(4)]);
    assert_eq!(recover(&mut order, ended([3], 5, true)).unwrap().len(), 3);
    assert!(order.is_ended());
    assert_eq!(recover(&mut order, snapshot([], 99)), Ok(vec![]), "nothing follows");
}

#[test]
fn other_gaps_are_losses() {
    let lost = |n| {
        Err(format!(
            "process events are no longer retained while recovering through sequence {n}"
        ))
    };
    assert_eq!(recover(&mut order(1, []), snapshot([3], 4)), lost(3));
    assert_eq!(
        recover(&mut order(1, []), snapshot([2], 4)),
        lost(3),
        "it has not exited"
    );
    assert_eq!(
        recover(&mut order(1, []), ended([4], 5, false)),
        lost(4),
        "two in one place"
    );
    assert_eq!(
        recover(&mut order(1, []), ended([3, 5], 6, false)),
        lost(5),
        "two places"
    );
    assert_eq!(
        recover(&mut order(1, []), ended([2], 3, false)),
        lost(2),
        "none for the exit"
    );
    assert_eq!(recover(&mut order(1, []), snapshot([], u64::MAX)), lost(u64::MAX - 1));
}

#[test]
fn conflicts_are_told() {
    let close_conflict = |n| Err(format!("process close sequence {n} conflicts with recovered output"));
    assert_eq!(recover(&mut order(1, []), ended([2, 3, 4], 5, true)), close_conflict(4));
    assert_eq!(
        recover(&mut order(1, [output(4, "live")]), ended([2], 5, true)),
        close_conflict(4)
    );
    assert_eq!(recover(&mut order(4, []), ended([], 5, true)), close_conflict(4));
    assert_eq!(
        recover(&mut order(1, [closed(3)]), snapshot([2, 3], 5)),
        close_conflict(3)
    );
    assert_eq!(
        recover(&mut order(1, [closed(3)]), snapshot([2, 4], 5)),
        close_conflict(3)
    );
    assert_eq!(
        recover(&mut order(1, [exited(3)]), snapshot([2, 3], 5)).unwrap_err(),
        "process exit sequence 3 conflicts with recovered output"
    );
    assert_eq!(
        recover(&mut order(1, []), snapshot([2, 3, 4], 4)).unwrap_err(),
        "recovered process output sequence 4 exceeds target sequence 3"
    );
    let no_code = ReadResponse {
        exit_code: None,
        ..ended([2], 4, false)
    };
    assert_eq!(
        recover(&mut order(1, []), no_code.clone()).unwrap_err(),
        "recovering exited process did not include its exit code"
    );
    assert_eq!(
        recover(&mut order(1, [exited(3)]), no_code).unwrap().len(),
        2,
        "it is known"
    );
    let failed = ReadResponse {
        failure: Some("out of memory".into()),
        ..snapshot([2], 3)
    };
    assert_eq!(recover(&mut order(1, []), failed).unwrap_err(), "out of memory");
}

#[test]
fn what_had_no_room_meanwhile_is_asked_for() {
    let last = 3 + MAX_PENDING_EVENTS as u64;
    let mut order = order(1, (3..=last).map(|seq| output(seq, "live")));
    assert!(!order.pending.contains_key(&last));
    let mut published = 0;
    let recovery = order.recover(snapshot([2], 3), &mut |_| published += 1);
    assert_eq!((recovery, published), (Ok(Recovery::Again), MAX_PENDING_EVENTS + 1));
    order
        .take(zeros(last + 2, MAX_PENDING_BYTES + 1), &mut |_| panic!())
        .unwrap();
    let recovery = order.recover(snapshot([last], last + 1), &mut |_| ());
    assert_eq!(recovery, Ok(Recovery::Again));
    let recovery = order.recover(snapshot([last + 1, last + 2], last + 3), &mut |_| ());
    assert_eq!((recovery, order.last_published()), (Ok(Recovery::Complete), last + 2));
    order
        .take(zeros(last + 4, MAX_PENDING_BYTES + 1), &mut |_| panic!())
        .unwrap_err();
}

#[test]
fn what_had_no_room_and_was_read_is_not_asked_for() {
    let last = 3 + MAX_PENDING_EVENTS as u64;
    let mut order = order(1, (3..=last).map(|seq| output(seq, "live")));
    assert_eq!(
        recover(&mut order, snapshot(2..=last, last + 1)).unwrap().len() as u64,
        last - 1
    );
}
