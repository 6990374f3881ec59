//! The envelope parser against a slow reference, on inputs made to go wrong.

use exec_server::protocol::message::{Limits, parse};

#[path = "checks/json_inputs.rs"]
mod json_inputs;
#[path = "checks/message.rs"]
mod message;
#[path = "checks/random.rs"]
mod random;

use random::Random;

fn as_params(json: &[u8]) -> Vec<u8> {
    [b"{\"method\":\"m\",\"params\":", json, b"}"].concat()
}

#[test]
fn json_of_every_kind_gets_the_verdict_of_serde_json() {
    for &json in json_inputs::VALID {
        // The suite finds repeated keys valid.
        let repeated = json.windows(3).filter(|key| key == b"\"a\"").count() > 1;
        let refused = parse(&as_params(json), &Limits::default()).is_err();
        assert_eq!(refused, repeated, "{}", json.escape_ascii());
    }
    for &json in json_inputs::INVALID {
        let refused = parse(&as_params(json), &Limits::default()).is_err();
        assert!(refused, "{}", json.escape_ascii());
    }
    for list in [json_inputs::VALID, json_inputs::INVALID, json_inputs::OPEN] {
        for &json in list {
            message::check(json);
            message::check(&as_params(json));
        }
    }
}

#[test]
fn numbers_at_the_edge_of_the_range_get_the_verdict_of_serde_json() {
    let mut random = Random::new(1);
    for _ in 0..20_000 {
        let digits = |random: &mut Random, max| -> String {
            (0..1 + random.below(max))
                .map(|_| char::from(b'0' + random.below(10) as u8))
                .collect()
        };
        let whole = digits(&mut random, 25);
        let fraction = match random.below(3) {
            0 => format!(".{}", digits(&mut random, 25)),
            _ => String::new(),
        };
        let sign = random.pick(&["", "+", "-"]);
        let exponent = 270 + random.below(60);
        let number = format!("{}{fraction}e{sign}{exponent}", whole.trim_start_matches('0'));
        message::check(&as_params(number.as_bytes()));
    }
    for number in [
        "1.7976931348623157e308",
        "1.7976931348623158e308",
        "1.7976931348623159e308",
        "17976931348623157e292",
        "17976931348623158e292",
        "17976931348623159e292",
        "1e308",
        "1e309",
        "0e309",
        "0e99999999999",
        "1e-99999999999",
        "-1e99999999999",
        "0.0000000000000000000000000000000001e340",
        "18446744073709551615e289",
        "18446744073709551616e289",
        "123456789012345678901234567890.5e280",
        "0.99999999999999999999999999e309",
    ] {
        message::check(&as_params(number.as_bytes()));
        message::check(&as_params(format!("-{number}").as_bytes()));
    }
    message::check(&as_params("9".repeat(309).as_bytes()));
    message::check(&as_params("1".repeat(309).as_bytes()));
    message::check(&as_params("9".repeat(400).as_bytes()));
}

const SEEDS: &[&str] = &[
    r#"{"id":1,"method":"process/start","params":{"processId":"p","argv":["/bin/echo","a b"],"cwd":"file:///tmp","env":{"A":"1"},"tty":false}}"#,
    r#"{"id":"a\"\u00e9\ud83d\ude00","method":"process/read","params":{"processId":"p","afterSeq":null,"maxBytes":65536,"waitMs":0}}"#,
    r#"{"method":"initialized","params":{},"trace":{"traceparent":"00-x","tracestate":null}}"#,
    r#"{"id":-0,"result":{"a":[1,2.5e3,-7,true,false,null,""]}}"#,
    r#"{"error":{"code":-32600,"message":"x","data":[{}]},"id":-1}"#,
    "{ \"id\" : 9223372036854775807 ,\n \"method\" : \"x\" , \"trace\" : null , \"params\" : [ ] }",
    r#"{"id":1,"method":"m","params":{"a":{"a":{"a":1}},"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"i":1,"j":1,"k":1,"l":1,"m":1,"n":1,"o":1,"p":1,"q":1,"r":1}}"#,
];

const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\\u",
    "\\ud800",
    "\\udc00",
    "\\u0061",
    "\\n",
    "\0",
    "\n",
    " ",
    "0",
    "-",
    "-0",
    "1e",
    "1.",
    "e309",
    "9223372036854775808",
    "null",
    "true",
    "\"id\":1,",
    "\"method\":\"x\",",
    "\"params\":",
    "\"result\":1,",
    "\"error\":",
    "\"trace\":[],",
    "\"a\":1,",
    "{}",
    "[[[[[[[[",
    "]]]]]]]]",
    "é",
    "\u{feff}",
    "\u{7f}",
];

#[test]
fn damaged_messages_get_the_verdict_of_the_reference() {
    let mut random = Random::new(2);
    for round in 0..60_000 {
        let mut text = random.pick(SEEDS).as_bytes().to_vec();
        for _ in 0..1 + random.below(4) {
            let at = random.below(text.len() + 1);
            let end = text.len().min(at + random.below(12));
            match random.below(6) {
                0 => drop(text.drain(at..end)),
                1 => drop(text.splice(at..at, random.pick(PIECES).bytes())),
                2 => drop(text.splice(at..end, random.pick(PIECES).bytes())),
                3 if at < text.len() => text[at] = random.next() as u8,
                4 => {
                    let piece = text[at..end].to_vec();
                    let to = random.below(text.len() + 1);
                    text.splice(to..to, piece);
                }
                _ if at < text.len() => text[at] ^= 1 << random.below(8),
                _ => {}
            }
        }
        if round % 50 == 0 {
            text.truncate(random.below(text.len() + 1));
        }
        message::check(&text);
    }
}

#[test]
fn made_up_messages_get_the_verdict_of_the_reference() {
    let mut random = Random::new(3);
    for _ in 0..20_000 {
        let members: Vec<String> = (0..random.below(5)).map(|_| member(&mut random)).collect();
        message::check(format!("{{{}}}", members.join(",")).as_bytes());
    }
}

fn member(random: &mut Random) -> String {
    let key = random.pick(&[
        "id",
        "method",
        "params",
        "trace",
        "result",
        "error",
        "m\\u0065thod",
        "zzz",
    ]);
    format!("\"{key}\":{}", value(random, 3))
}

fn value(random: &mut Random, depth: usize) -> String {
    match random.below(if depth == 0 { 7 } else { 11 }) {
        0 => random.pick(&["null", "true", "false"]).to_owned(),
        1 | 2 => random
            .pick(&["0", "-0", "7", "1.0", "9223372036854775808", "-1e3"])
            .to_owned(),
        3..=6 => random
            .pick(&["\"\"", "\"x\"", "\"\\ud83d\\ude00\"", "\"é\\n\""])
            .to_owned(),
        7 => {
            let values: Vec<String> = (0..random.below(4)).map(|_| value(random, depth - 1)).collect();
            format!("[{}]", values.join(","))
        }
        8 => format!("{{\"code\":{},\"message\":{}}}", value(random, 0), value(random, 0)),
        9 => format!("{{\"traceparent\":{},\"b\":1}}", value(random, 0)),
        _ => {
            let many = random.below(20);
            let members: Vec<String> = (0..many).map(|n| format!("\"k{n}\":{}", value(random, 0))).collect();
            format!("{{{}}}", members.join(","))
        }
    }
}
