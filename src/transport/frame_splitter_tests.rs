use super::*;

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut room = [0; 10];
    let mut frame = super::super::websocket::text_frame_header(payload.len(), &mut room).to_vec();
    frame[0] = first;
    frame.extend_from_slice(payload);
    frame
}

/// The same from a client.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x12, 0x34, 0x56, first];
    let mut frame = Vec::new();
    masked_header(0, payload.len(), key, &mut frame);
    frame[0] = first;
    let start = frame.len();
    frame.extend_from_slice(payload);
    mask(&mut frame[start..], key, 0);
    frame
}

fn for_server(max_bytes: usize) -> FrameSplitter {
    FrameSplitter::for_server(Vec::new(), max_bytes, LargeMemory::keeping_nothing())
}

/// Fills in as much as there is room for, and says how much that was.
fn fill(splitter: &mut FrameSplitter, bytes: &[u8]) -> usize {
    let spare = splitter.spare();
    assert!(!spare.is_empty());
    let n = bytes.len().min(spare.len());
    spare[..n].copy_from_slice(&bytes[..n]);
    splitter.filled(n);
    n
}

fn describe<M: AsRef<[u8]>>(frame: Frame<'_, M>) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match frame {
        Frame::Message(message) => match message.as_ref() {
            long if long.len() > 100 => {
                assert!(long.iter().all(|b| *b == long[0]));
                format!("{} x {}", long.len(), long[0])
            }
            short => text(short),
        },
        Frame::Ping(payload) => format!("ping {}", text(payload)),
        Frame::Pong => "pong".into(),
        Frame::Close(code, reason) => format!("close {code} {}", text(reason)),
    }
}

/// What a splitter makes of bytes that come in pieces of `size`.
fn split(mut splitter: FrameSplitter, bytes: &[u8], size: usize) -> (Vec<String>, Option<FrameViolation>) {
    let mut seen = Vec::new();
    for mut piece in bytes.chunks(size) {
        while !piece.is_empty() {
            let n = fill(&mut splitter, piece);
            piece = &piece[n..];
            loop {
                let next = match splitter.sender {
                    Sender::Server => splitter.next_frame().map(|frame| frame.map(describe)),
                    Sender::Client => splitter.take_frame().map(|frame| {
                        frame.map(|frame| match frame {
                            Frame::Message((message, _)) => describe(Frame::Message(message)),
                            Frame::Ping(payload) => describe::<&[u8]>(Frame::Ping(payload)),
                            Frame::Pong => describe::<&[u8]>(Frame::Pong),
                            Frame::Close(code, reason) => describe::<&[u8]>(Frame::Close(code, reason)),
                        })
                    }),
                };
                match next {
                    Some(Ok(frame)) => seen.push(frame),
                    Some(Err(violation)) => return (seen, Some(violation)),
                    None => break,
                }
            }
        }
    }
    (seen, None)
}

#[test]
fn messages_are_put_together_whatever_the_pieces() {
    let frames: [(u8, &[u8]); 16] = [
        (0x81, b"one"),
        (0x82, b""),
        (0x01, b"tw"),
        (0x89, b"hey"),
        (0x00, b""),
        (0x80, b"o"),
        (0x8a, b""),
        (0x81, &[7; 70_000]),
        (0x81, &[8; 300_000]),
        (0x81, b"small"),
        (0x81, &[9; 1_500_000]),
        (0x02, &[5; 200_000]),
        (0x80, &[5; 200_000]),
        (0x81, b"last"),
        (0x88, b"\x03\xe8bye"),
        (0x88, b""),
    ];
    let expected = [
        "one",
        "",
        "ping hey",
        "two",
        "pong",
        "70000 x 7",
        "300000 x 8",
        "small",
        "1500000 x 9",
        "400000 x 5",
        "last",
        "close 1000 bye",
        "close 1005 ",
    ];
    let of_server = frames.map(|(first, payload)| frame(first, payload)).concat();
    let of_client = frames.map(|(first, payload)| masked(first, payload)).concat();
    for size in [1, 7, 1000, 100_000, of_client.len()] {
        let expected = (expected.map(str::to_owned).to_vec(), None);
        assert_eq!(split(FrameSplitter::new(&[], 2_000_000), &of_server, size), expected);
        assert_eq!(split(for_server(2_000_000), &of_client, size), expected);
    }
}

#[test]
fn a_broken_framing_is_told() {
    let long = |len, max_bytes| FrameViolation::TooLong { len, max_bytes };
    let broken = FrameViolation::Broken;
    type Frames<'a> = &'a [(u8, &'a [u8])];
    let table: [(Frames<'_>, FrameViolation); 9] = [
        (&[(0xc1, b"x")], broken("a reserved bit of a frame is set")),
        (&[(0x80, b"x")], broken("a continuation continues nothing")),
        (&[(0x01, b"x"), (0x81, b"y")], broken("a message begins within another")),
        (&[(0x09, b"x")], broken("a control frame is in pieces or too long")),
        (&[(0x89, &[0; 126])], broken("a control frame is in pieces or too long")),
        (&[(0x83, b"")], broken("a frame is of no known kind")),
        (&[(0x88, b"x")], broken("a close frame has half a code")),
        (&[(0x81, &[0; 131])], long(131, 130)),
        (&[(0x01, &[0; 106]), (0x80, &[0; 25])], long(131, 130)),
    ];
    for (frames, expected) in table {
        let expected = (Vec::new(), Some(expected));
        let of_server: Vec<u8> = frames
            .iter()
            .flat_map(|(first, payload)| frame(*first, payload))
            .collect();
        let of_client: Vec<u8> = frames
            .iter()
            .flat_map(|(first, payload)| masked(*first, payload))
            .collect();
        assert_eq!(split(FrameSplitter::new(&[], 130), &of_server, 1), expected);
        assert_eq!(split(for_server(130), &of_client, 1), expected);
    }
    let refused = |splitter, bytes: &[u8]| split(splitter, bytes, 1).1;
    assert_eq!(
        refused(FrameSplitter::new(&[], 9), &[0x81, 0x81]),
        Some(broken("a frame from the server is masked"))
    );
    assert_eq!(
        refused(for_server(9), &[0x81, 1]),
        Some(broken("a frame from the client is not masked"))
    );
    for bytes in [
        masked(0x81, b"\xc3("),
        [masked(0x01, b"\xc3"), masked(0x80, b"(")].concat(),
    ] {
        assert_eq!(refused(for_server(9), &bytes), Some(FrameViolation::NotText));
    }
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_anything_is_done_about_it() {
    let claim = |len: u64| [&[0x81, 0xff][..], &len.to_be_bytes(), &[0; 4]].concat();
    let mut splitter = for_server(1 << 30);
    fill(&mut splitter, &claim((1 << 30) + 1));
    let refused = FrameViolation::TooLong {
        len: (1 << 30) + 1,
        max_bytes: 1 << 30,
    };
    assert_eq!(splitter.take_frame(), Some(Err(refused)));
    let (seen, violation) = split(for_server(10), &claim(u64::MAX), 1);
    let refused = FrameViolation::TooLong {
        len: u64::MAX,
        max_bytes: 10,
    };
    assert_eq!((seen.len(), violation), (0, Some(refused)));
}

#[test]
fn memory_grows_with_what_comes_and_is_given_back() {
    let mut splitter = for_server(4_000_000);
    let small = masked(0x81, b"small");
    let take_all = |splitter: &mut FrameSplitter| while splitter.take_frame().is_some() {};
    assert_eq!(splitter.spare().len(), LEAST);
    let many = small.repeat(MOST_FOR_SERVER);
    let mut rest = &many[..];
    while !rest.is_empty() {
        rest = &rest[fill(&mut splitter, rest)..];
        take_all(&mut splitter);
        assert!(splitter.buffer.len() <= MOST_FOR_SERVER);
    }
    assert_eq!(splitter.buffer.len(), MOST_FOR_SERVER);
    for _ in 0..3 * QUIET_READS {
        fill(&mut splitter, &small);
        take_all(&mut splitter);
    }
    assert_eq!(splitter.spare().len(), LEAST);
    let long = masked(0x81, &[b'x'; 3_000_000]);
    let mut rest = &long[..];
    while !rest.is_empty() {
        rest = &rest[fill(&mut splitter, rest)..];
        assert!(splitter.buffer.len() <= MOST_FOR_SERVER || splitter.is_own);
        take_all(&mut splitter);
    }
    assert!(splitter.buffer.is_empty(), "its message has taken it along");
    assert_eq!(splitter.spare().len(), LEAST);

    let mut splitter = FrameSplitter::new(&frame(0x81, &[1; 3_000_000]), 4_000_000);
    assert!(splitter.next_frame().is_some() && splitter.next_frame().is_none());
    assert_eq!(splitter.spare().len(), LEAST);
}

#[test]
fn reads_end_where_a_long_frame_ends() {
    for len in [MOST_FOR_SERVER, LONG_AFTER, 3_000_000] {
        let mut splitter = for_server(4_000_000);
        let long = masked(0x81, &vec![b'x'; len]);
        let wire = [&long[..], &masked(0x81, b"next")].concat();
        let mut rest = &wire[..];
        let message = loop {
            rest = &rest[fill(&mut splitter, rest)..];
            if let Some(frame) = splitter.take_frame() {
                break frame;
            }
        };
        assert_eq!(rest.len(), wire.len() - long.len());
        assert!(matches!(message, Ok(Frame::Message((text, _))) if text.len() == len));
        fill(&mut splitter, rest);
        assert!(matches!(splitter.take_frame(), Some(Ok(Frame::Message((text, _)))) if text == "next"));
    }
}

#[test]
fn base64_in_a_long_frame_is_found_and_the_rest_must_be_text() {
    let head = br#"{"id":1,"method":"m","params":{"dataBase64":""#;
    let letters = vec![b'A'; 600_000];
    for (end, is_text) in [
        (&b"\"}}"[..], true),
        (b"=\"}}\xc3\xa9", true),
        (b"\"}}\xc3", false),
        (b"\xff\"}}", false),
    ] {
        let text = [head, &letters[..], end].concat();
        for (first, size) in [(0x81, 9_999), (0x81, 200_000), (0x82, 50_000)] {
            let mut splitter = for_server(1_000_000);
            let wire = masked(first, &text);
            let mut rest = &wire[..];
            let message = loop {
                rest = &rest[fill(&mut splitter, &rest[..rest.len().min(size)])..];
                if let Some(frame) = splitter.take_frame() {
                    break frame;
                }
            };
            match message {
                Ok(Frame::Message((message, base64))) => {
                    assert!(is_text || first == 0x82);
                    assert!(message == text);
                    assert_eq!(base64.start, head.len());
                    assert!(base64.len() > 550_000 && base64.len() <= letters.len());
                }
                other => assert!(!is_text && first == 0x81 && other == Err(FrameViolation::NotText)),
            }
        }
    }
}
