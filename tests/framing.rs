//! Lines and frames in pieces against the whole at once.

#[path = "checks/frames.rs"]
mod frames;
#[path = "checks/lines.rs"]
mod lines;
#[path = "checks/random.rs"]
mod random;

use random::Random;

#[test]
fn pieces_do_not_matter() {
    let mut random = Random::new(1);
    for _ in 0..600 {
        let mut text = Vec::new();
        for _ in 0..random.below(12) {
            match random.below(8) {
                0 => text.extend(b"\r\n"),
                1 => text.push(b' '),
                2 => text.extend(std::iter::repeat_n(b'x', random.below(200_000))),
                3 => text.extend(std::iter::repeat_n(b'y', random.below(100))),
                4 => text.push(random.next() as u8),
                5 => text.push(b'\r'),
                _ => text.push(b'\n'),
            }
        }
        let sizes: Vec<usize> = (0..1 + random.below(20))
            .map(|_| match random.below(3) {
                0 => 1 + random.below(3),
                1 => 1 + random.below(5_000),
                _ => 1 + random.below(150_000),
            })
            .chain([4_000])
            .collect();
        let limit = *random.pick(&[&0, &1, &50, &1_000, &70_000, &1_000_000]);
        lines::check(&text, &sizes, limit);
    }
}

#[test]
fn base64_in_long_lines_is_found_and_what_is_none_is_not() {
    let mut random = Random::new(4);
    for _ in 0..40 {
        let mut text = Vec::new();
        for _ in 0..1 + random.below(3) {
            text.extend(std::iter::repeat_n(b' ', random.below(3)));
            let key = *random.pick(&[&"dataBase64", &"chunk", &"other"]);
            text.extend(format!(r#"{{"method":"m","params":{{"path":"/p","{key}":""#).bytes());
            let letters = random.below(500_000) * 4;
            text.extend(std::iter::repeat_n(b'A', letters));
            let end = *random.pick(&[
                &"",
                &"YQ==",
                &"YQ==AAAA",
                &"A",
                &"_",
                &"\\n",
                &"\n",
                &"\u{e9}",
                &"\"",
                &"\"}}",
            ]);
            text.extend(end.bytes());
            text.extend(std::iter::repeat_n(b'B', random.below(3) * 30_000));
            text.extend(b"\"}}\r\n");
        }
        let size = *random.pick(&[&3_000, &70_000, &1_000_000]) + random.below(500);
        let limit = *random.pick(&[&800_000, &3_000_000]);
        lines::check(&text, &[size], limit);
    }
}

#[test]
fn described_pieces_do_not_matter() {
    let mut random = Random::new(2);
    for _ in 0..300 {
        let length = random.below(60);
        let input: Vec<u8> = (0..length)
            .map(|_| match random.below(4) {
                0 => b'\n',
                1 => b'\r',
                _ => random.next() as u8,
            })
            .collect();
        lines::check_input(&input);
    }
}

/// A mask for a frame of a client, or none for one of a server.
fn key(random: &mut Random, is_client: bool) -> Option<[u8; 4]> {
    is_client.then(|| (random.next() as u32).to_ne_bytes())
}

#[test]
fn small_frames_in_pieces_are_what_tungstenite_makes_of_them() {
    let mut random = Random::new(3);
    for _ in 0..4_000 {
        let mut input: Vec<u8> = (0..5).map(|_| random.next() as u8).collect();
        let is_client = random.below(4) > 0;
        for _ in 0..1 + random.below(6) {
            let first = *random.pick(&[
                &0x81, &0x01, &0x00, &0x80, &0x82, &0x02, &0x89, &0x8a, &0x88, &0xc1, &0x83,
            ]);
            let mut payload = Vec::new();
            if first == 0x88 && random.below(3) > 0 {
                payload.extend((random.below(1030) as u16 + random.below(2) as u16 * 2900).to_be_bytes());
            }
            let len = random.below(if first & 8 == 8 { 124 } else { 400 });
            while payload.len() < len {
                payload.extend(
                    random
                        .pick(&[&"a", &"bc", &"\u{e9}", &"\u{20ac}", &"\u{1f600}", &"x"])
                        .bytes(),
                );
            }
            if random.below(8) > 0 {
                payload.truncate(len);
            }
            let key = key(&mut random, is_client);
            input.extend(frames::frame(first, &payload, key));
        }
        if random.below(3) == 0 {
            let (at, byte) = (random.below(input.len()), random.next() as u8);
            input[at] = byte;
        }
        frames::check(&input);
    }
}

#[test]
fn frames_of_all_lengths_are_what_tungstenite_makes_of_them() {
    let mut random = Random::new(5);
    for _ in 0..30 {
        let mut bytes = Vec::new();
        let is_client = random.below(3) > 0;
        for _ in 0..1 + random.below(6) {
            let first = *random.pick(&[&0x81, &0x81, &0x82, &0x01, &0x00, &0x80, &0x89]);
            let len = match random.below(5) {
                0 => random.below(200),
                1 => random.below(20_000),
                _ => (*random.pick(&[&4096, &16_384, &65_536, &262_144, &524_288, &700_000])) + random.below(40) - 20,
            };
            let mut payload = br#"{"method":"m","params":{"dataBase64":""#.to_vec();
            payload.extend((0..len).map(|i| b'A' + (i % 26) as u8));
            if random.below(3) == 0 {
                payload[len / 2..].fill(b'=');
            }
            if random.below(6) == 0 {
                payload[len] = 0xc3;
            }
            payload.truncate(if first == 0x89 { len % 126 } else { len });
            let key = key(&mut random, is_client);
            bytes.extend(frames::frame(first, &payload, key));
        }
        bytes.truncate(bytes.len() - random.below(2) * random.below(100).min(bytes.len()));
        let sizes: Vec<usize> = (0..1 + random.below(10))
            .map(|_| *random.pick(&[&1, &50, &5_000, &150_000, &150_000]) + random.below(50))
            .chain([30_000])
            .collect();
        let limit = *random.pick(&[&600_000, &3_000_000]);
        let early = random.below(2) * random.below(100_000);
        frames::compare(&bytes, limit, frames::Pieces { early, sizes: &sizes });
    }
}

/// Frames of a client, what comes of them, and the close code if they are refused.
type Case<'a> = (Vec<(u8, &'a [u8])>, Vec<&'a [u8]>, Vec<u8>, Option<u16>);

/// Panics unless that comes of each, in whatever pieces, and tungstenite agrees.
fn all_come_out(cases: Vec<Case<'_>>) {
    for (sent, messages, answers, violation) in cases {
        let bytes: Vec<u8> = sent
            .iter()
            .flat_map(|(first, payload)| frames::frame(*first, payload, Some([0x12, 0x34, 0x56, 0x78])))
            .collect();
        for sizes in [&[][..], &[1], &[1000, 3]] {
            let pieces = frames::Pieces { early: 5, sizes };
            let outcome = frames::server(&bytes, 100_000, pieces);
            assert!(outcome.messages == messages, "{:.200}", format!("{sent:?}"));
            assert_eq!(
                (outcome.sent, outcome.violation),
                (answers.clone(), violation),
                "{sent:?}"
            );
            frames::compare(&bytes, 100_000, pieces);
        }
    }
}

/// An unmasked control frame, as a server answers.
fn answer(first: u8, payload: &[u8]) -> Vec<u8> {
    frames::frame(first, payload, None)
}

#[test]
fn messages_of_all_lengths_come_in() {
    let long = vec![b'*'; 65_537];
    let mut cases: Vec<Case<'_>> = Vec::new();
    for len in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537] {
        for first in [0x81, 0x82] {
            let text = &long[..len];
            cases.push((vec![(first, text), (first, b"and")], vec![text, b"and"], vec![], None));
        }
    }
    all_come_out(cases);
}

#[test]
fn pings_are_answered_and_pongs_are_not() {
    let binary: Vec<u8> = (0..125).map(|i| 0xff - i).collect();
    let mut cases: Vec<Case<'_>> = vec![
        (vec![(0x8a, b"unasked"), (0x89, b"")], vec![], answer(0x8a, b""), None),
        (vec![(0x89, &[0; 126])], vec![], vec![], Some(1002)),
    ];
    for payload in [&b""[..], b"hello", &binary] {
        cases.push((
            vec![(0x89, payload); 10],
            vec![],
            answer(0x8a, payload).repeat(10),
            None,
        ));
    }
    all_come_out(cases);
}

#[test]
fn what_is_reserved_is_refused() {
    let mut cases: Vec<Case<'_>> = Vec::new();
    for first in [0x91, 0xa1, 0xb1, 0xc1, 0xd1, 0xe2, 0xf2, 0x99, 0xca, 0xf8] {
        cases.push((
            vec![(0x81, b"ok"), (first, b""), (0x89, b"")],
            vec![b"ok"],
            vec![],
            Some(1002),
        ));
    }
    for opcode in (3..8).chain(11..16) {
        cases.push((
            vec![(0x81, b"ok"), (0x80 | opcode, b"x")],
            vec![b"ok"],
            vec![],
            Some(1002),
        ));
        cases.push((vec![(0x01, b"ok"), (0x80 | opcode, b"")], vec![], vec![], Some(1002)));
    }
    all_come_out(cases);
}

#[test]
fn fragments_are_put_together() {
    let pong = |payload: &[u8]| answer(0x8a, payload);
    let refused = |sent: Vec<(u8, &'static [u8])>| (sent, vec![], vec![], Some(1002));
    let whole = |sent: Vec<(u8, &'static [u8])>, answers| (sent, vec![&b"fragments"[..]], answers, None);
    all_come_out(vec![
        whole(vec![(0x01, b"frag"), (0x80, b"ments")], vec![]),
        whole(
            vec![(0x02, b""), (0x00, b"fragments"), (0x00, b""), (0x80, b"")],
            vec![],
        ),
        whole(vec![(0x01, b"frag"), (0x89, b"1"), (0x80, b"ments")], pong(b"1")),
        whole(
            vec![
                (0x01, b"f"),
                (0x89, b"1"),
                (0x8a, b""),
                (0x00, b"ragmen"),
                (0x89, b"2"),
                (0x80, b"ts"),
            ],
            [pong(b"1"), pong(b"2")].concat(),
        ),
        (
            vec![(0x01, b"a"), (0x80, b"b"), (0x81, b""), (0x02, b"c"), (0x80, b"d")],
            vec![b"ab", b"", b"cd"],
            vec![],
            None,
        ),
        (vec![(0x01, b""), (0x00, b""), (0x80, b"")], vec![b""], vec![], None),
        // It ends within the message.
        (vec![(0x01, b"a"), (0x00, b"b")], vec![], vec![], None),
        (
            vec![(0x01, b"a"), (0x88, b"\x03\xe8")],
            vec![],
            answer(0x88, b"\x03\xe8"),
            None,
        ),
        refused(vec![(0x09, b"a"), (0x80, b"b")]),
        refused(vec![(0x0a, b"a"), (0x80, b"b")]),
        refused(vec![(0x08, b"\x03\xe8")]),
        refused(vec![(0x80, b"a")]),
        refused(vec![(0x00, b"a"), (0x81, b"b")]),
        refused(vec![(0x01, b"a"), (0x81, b"b")]),
        refused(vec![(0x01, b"a"), (0x01, b"b"), (0x80, b"c")]),
        refused(vec![(0x02, b"a"), (0x00, b"b"), (0x82, b"c")]),
        (
            vec![(0x01, b"a"), (0x80, b"b"), (0x80, b"c")],
            vec![b"ab"],
            vec![],
            Some(1002),
        ),
    ]);
}

#[test]
fn texts_are_utf_8_wherever_they_are_split() {
    let text = "\u{3ba}\u{1f79}\u{3c3} \u{feff}\u{fffe}\u{10ffff} \u{d7ff}\u{e000}\0~\u{80}".as_bytes();
    let mut cases: Vec<Case<'_>> = Vec::new();
    for at in 0..=text.len() {
        let (head, tail) = text.split_at(at);
        cases.push((
            vec![(0x01, head), (0x89, b"\xff"), (0x80, tail)],
            vec![text],
            answer(0x8a, b"\xff"),
            None,
        ));
        let is_whole = str::from_utf8(head).is_ok();
        let (messages, violation) = if is_whole {
            (vec![head], None)
        } else {
            (vec![], Some(1007))
        };
        cases.push((vec![(0x81, head)], messages.clone(), vec![], violation));
        cases.push((vec![(0x01, head), (0x80, b"")], messages, vec![], violation));
        cases.push((vec![(0x02, head), (0x80, b"")], vec![head], vec![], None));
    }
    for wrong in [
        &b"\x80"[..],
        b"\xbf",
        b"\xfe",
        b"\xff",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xed\xa0\x80",
        b"\xed\xaf\xbf\xed\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xc3(",
        b"\xe2\x82(",
    ] {
        for at in 0..=wrong.len() {
            let (head, tail) = wrong.split_at(at);
            cases.push((
                vec![(0x01, head), (0x00, b""), (0x80, tail)],
                vec![],
                vec![],
                Some(1007),
            ));
        }
        cases.push((vec![(0x81, wrong)], vec![], vec![], Some(1007)));
        cases.push((vec![(0x82, wrong)], vec![wrong], vec![], None));
        // It is told before the message ends.
        cases.push((
            vec![(0x01, wrong), (0x00, b"("), (0x89, b"")],
            vec![],
            vec![],
            Some(1007),
        ));
    }
    all_come_out(cases);
}

#[test]
fn close_frames_are_answered_and_nothing_after_them_is_heard() {
    let violation = answer(0x88, b"\x03\xeaProtocol violation");
    let longest = [b"\x03\xe8", &[b'*'; 123][..]].concat();
    let mut cases: Vec<Case<'_>> = vec![
        (
            vec![(0x88, b""), (0x81, b"late"), (0x89, b"")],
            vec![],
            answer(0x88, b""),
            None,
        ),
        (
            vec![(0x88, &longest), (0x83, b"")],
            vec![],
            answer(0x88, &longest),
            None,
        ),
        (
            vec![(0x89, b"x"), (0x88, b"")],
            vec![],
            [answer(0x8a, b"x"), answer(0x88, b"")].concat(),
            None,
        ),
        (vec![(0x88, b"\x03")], vec![], vec![], Some(1002)),
        (vec![(0x88, &[3; 126])], vec![], vec![], Some(1002)),
        (vec![(0x88, b"\x03\xe8\xce\xba\xff")], vec![], vec![], Some(1007)),
        (vec![(0x88, b"\x03\xe8\xce")], vec![], vec![], Some(1007)),
    ];
    let codes: Vec<(bool, [u8; 2])> = [
        (
            true,
            &[
                1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999,
            ][..],
        ),
        (
            false,
            &[
                0, 999, 1004, 1005, 1006, 1014, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
            ],
        ),
    ]
    .into_iter()
    .flat_map(|(is_allowed, codes)| codes.iter().map(move |code: &u16| (is_allowed, code.to_be_bytes())))
    .collect();
    for (is_allowed, code) in &codes {
        let echo = if *is_allowed {
            answer(0x88, code)
        } else {
            violation.clone()
        };
        cases.push((vec![(0x88, &code[..]), (0x81, b"late")], vec![], echo, None));
    }
    all_come_out(cases);
}
