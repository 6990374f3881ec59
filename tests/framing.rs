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

#[test]
fn pieces_of_frames_do_not_matter() {
    let mut random = Random::new(3);
    for _ in 0..2_000 {
        let mut input: Vec<u8> = (0..5).map(|_| random.next() as u8).collect();
        for _ in 0..1 + random.below(6) {
            let first = *random.pick(&[&0x81, &0x01, &0x00, &0x80, &0x82, &0x89, &0x8a, &0x88, &0xc1, &0x83]);
            let payload: Vec<u8> = (0..random.below(400)).map(|_| b'a' + random.below(26) as u8).collect();
            input.extend(frames::frame(
                first,
                &payload[..payload.len().min(if first & 8 == 8 { 125 } else { 400 })],
            ));
        }
        if random.below(3) == 0 {
            let (at, byte) = (random.below(input.len()), random.next() as u8);
            input[at] = byte;
        }
        frames::check(&input);
    }
}
