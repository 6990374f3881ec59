use super::super::error::INTERNAL;
use super::*;

fn parsed(text: &str) -> Message<'_> {
    match parse(text.as_bytes(), &Limits::default()) {
        Ok(message) => message,
        Err(error) => panic!("{text}: {error}"),
    }
}

fn refusal(text: impl AsRef<[u8]>) -> String {
    match parse(text.as_ref(), &Limits::default()) {
        Ok(message) => panic!("accepted as {message:?}"),
        Err(error) => error.to_string(),
    }
}

fn request<'a>(id: &str, method: &'a str, params: Option<&'a str>) -> Message<'a> {
    Message::Request {
        id: RequestId(id.into()),
        method: method.into(),
        params: params.map(str::as_bytes),
    }
}

fn notification<'a>(method: &'a str, params: Option<&'a str>) -> Message<'a> {
    Message::Notification {
        method: method.into(),
        params: params.map(str::as_bytes),
    }
}

#[test]
fn messages_are_classified_by_their_members() {
    let table = [
        (r#"{"id":1,"method":"m"}"#, request("1", "m", None)),
        (r#"{"id":1,"method":"m","result":5,"error":6}"#, request("1", "m", None)),
        (r#"{"method":"m"}"#, notification("m", None)),
        (r#"{"method":"m","result":5}"#, notification("m", None)),
        (r#"{"method":""}"#, notification("", None)),
        (
            r#"{"id":1,"result":null}"#,
            Message::Response {
                id: 1.into(),
                result: b"null",
            },
        ),
        (
            r#"{"error":{"code":-1,"message":"x","data":[],"more":1},"id":"a"}"#,
            Message::Error {
                id: "a".into(),
                error: br#"{"code":-1,"message":"x","data":[],"more":1}"#,
            },
        ),
        (
            r#"{"jsonrpc":5,"zzz":[{}],"params":[1],"method":"m","id":"x"}"#,
            request("\"x\"", "m", Some("[1]")),
        ),
        (
            " {\t\"method\" :\r\n\"m\" , \"params\": { \"a\" : 1 } } \n",
            notification("m", Some("{ \"a\" : 1 }")),
        ),
        (r#"{"\u0069d":1,"m\u0065thod":"a\tb"}"#, request("1", "a\tb", None)),
    ];
    for (text, message) in table {
        assert_eq!(parsed(text), message, "{text}");
    }
}

#[test]
fn params_are_handed_over_as_they_came() {
    for (params, text) in [
        ("null", None),
        (" null ", None),
        ("{}", Some("{}")),
        ("[]", Some("[]")),
        ("false", Some("false")),
        (r#" "\u0061" "#, Some(r#""\u0061""#)),
        ("-0.5e-3", Some("-0.5e-3")),
    ] {
        let message = format!(r#"{{"method":"m","params":{params}}}"#);
        assert_eq!(parsed(&message), notification("m", text));
    }
}

#[test]
fn ids_come_back_as_they_were_sent() {
    for (sent, back) in [
        ("0", "0"),
        ("-0", "0"),
        ("-5", "-5"),
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        (r#""""#, r#""""#),
        (r#""7""#, r#""7""#),
        (r#""😀 \ud83d\ude00 \" \\ \u0000""#, r#""😀 \ud83d\ude00 \" \\ \u0000""#),
    ] {
        let text = format!(r#"{{"id":{sent},"method":"m"}}"#);
        assert_eq!(parsed(&text), request(back, "m", None));
        let mut out = Vec::new();
        write_raw_result(&mut out, &RequestId(back.into()), b"{}");
        assert_eq!(out, format!(r#"{{"id":{back},"result":{{}}}}"#).as_bytes());
    }
    let long = "x".repeat(100_000);
    let text = format!(r#"{{"id":"{long}","method":"m"}}"#);
    assert_eq!(parsed(&text), request(&format!("\"{long}\""), "m", None));
}

#[test]
fn other_ids_are_refused() {
    for id in [
        "1.0",
        "1e0",
        "1.5",
        "9223372036854775808",
        "18446744073709551616",
        "-9223372036854775809",
        "true",
        "null",
        "{}",
        "[1]",
    ] {
        for rest in [r#""method":"m""#, r#""result":1"#, r#""zzz":1"#] {
            assert_eq!(
                refusal(format!(r#"{{"id":{id},{rest}}}"#)),
                "data did not match any variant of untagged enum RequestId"
            );
        }
    }
}

#[test]
fn what_is_no_message_is_refused() {
    let table = [
        ("[]", "expected a JSON-RPC object"),
        (r#"[{"method":"m"}]"#, "expected a JSON-RPC object"),
        ("42", "expected a JSON-RPC object"),
        (r#""x""#, "expected a JSON-RPC object"),
        ("null", "expected a JSON-RPC object"),
        ("true", "expected a JSON-RPC object"),
        ("{}", "missing field `error`"),
        (r#"{"id":5}"#, "missing field `error`"),
        (r#"{"result":5}"#, "missing field `error`"),
        (r#"{"error":{"code":1,"message":""}}"#, "missing field `id`"),
        (r#"{"id":1,"error":{"code":1}}"#, "missing field `message`"),
        (
            r#"{"id":1,"error":5}"#,
            "invalid type: integer `5`, expected struct JSONRPCErrorError",
        ),
        (r#"{"id":1,"method":5}"#, "invalid type: integer `5`, expected a string"),
        (r#"{"method":null}"#, "invalid type: null, expected a string"),
    ];
    for (text, error) in table {
        assert_eq!(refusal(text), error, "{text}");
    }
}

#[test]
fn trace_is_checked_in_requests_only() {
    let fine = [
        "null",
        "{}",
        r#"{"traceparent":null,"tracestate":null}"#,
        r#"{"traceparent":"00-x","tracestate":"a=b","more":1}"#,
    ];
    let wrong = [
        ("5", "invalid type: integer `5`, expected struct W3cTraceContext"),
        ("[]", "invalid type: sequence, expected struct W3cTraceContext"),
        (r#"{"traceparent":5}"#, "invalid type: integer `5`, expected a string"),
        (r#"{"tracestate":[]}"#, "invalid type: sequence, expected a string"),
    ];
    for trace in fine {
        let text = format!(r#"{{"id":1,"method":"m","trace":{trace}}}"#);
        assert_eq!(parsed(&text), request("1", "m", None));
    }
    for (trace, error) in wrong {
        let text = format!(r#"{{"id":1,"method":"m","trace":{trace}}}"#);
        assert_eq!(refusal(text), error);
        let text = format!(r#"{{"method":"m","trace":{trace}}}"#);
        assert_eq!(parsed(&text), notification("m", None));
    }
}

#[test]
fn syntax_errors_say_where() {
    let table: [(&[u8], &str); 14] = [
        (b"", "EOF while parsing a value at line 1 column 0"),
        (b"not json", "expected ident at line 1 column 2"),
        (br#"{"id":1,"#, "EOF while parsing a value at line 1 column 8"),
        (br#"{"id":1,}"#, "trailing comma at line 1 column 9"),
        (br#"{"id":1 "a":2}"#, "expected `,` or `}` at line 1 column 9"),
        (br#"{"a":[1 2]}"#, "expected `,` or `]` at line 1 column 9"),
        (b"{}\n{}", "trailing characters at line 2 column 1"),
        (
            br#"{"id":1,"method":"m"} trailing"#,
            "trailing characters at line 1 column 23",
        ),
        (b"\xef\xbb\xbf{}", "expected value at line 1 column 1"),
        (
            b"{\"a\n\":1}",
            "control character (\\u0000-\\u001F) found while parsing a string at line 2 column 0",
        ),
        (br#"{"a":"\ud800"}"#, "unexpected end of hex escape at line 1 column 13"),
        (
            br#"{"a":"\udc00"}"#,
            "lone leading surrogate in hex escape at line 1 column 12",
        ),
        (br#"{"a":1e400}"#, "number out of range at line 1 column 10"),
        (
            b"{\"method\":\"\xff\xfe\"}",
            "invalid unicode code point at line 1 column 12",
        ),
    ];
    for (text, error) in table {
        assert_eq!(refusal(text), error, "{}", text.escape_ascii());
    }
}

#[test]
fn a_repeated_key_is_refused_at_any_depth() {
    let table = [
        (
            r#"{"id":1,"id":1,"method":"m"}"#,
            "duplicate JSON object key `id` at line 1 column 12",
        ),
        (
            r#"{"method":"m","params":[{"a":1,"\u0061":2}]}"#,
            "duplicate JSON object key `a` at line 1 column 39",
        ),
        (
            r#"{"method":"m","zzz":{"":1,"":2}}"#,
            "duplicate JSON object key `` at line 1 column 28",
        ),
    ];
    for (text, error) in table {
        assert_eq!(refusal(text), error, "{text}");
    }
    let reused = r#"{"method":"m","params":{"method":{"method":1},"a":{"b":1},"c":{"b":1}}}"#;
    assert!(matches!(parsed(reused), Message::Notification { .. }));
}

#[test]
fn a_repeated_key_is_found_among_many() {
    let keys: Vec<String> = (0..100)
        .map(|n| format!("\"k{}\":{{\"k\":0}}", n * 7919 % 100))
        .collect();
    let object = |keys: &[String]| format!("{{\"method\":\"m\",\"p\":{{{}}}}}", keys.join(","));
    assert!(matches!(parsed(&object(&keys)), Message::Notification { .. }));
    for again in [0, 10, 50, 98] {
        let mut keys = keys.clone();
        keys.push(keys[again].clone());
        keys.push(keys[again].clone());
        let text = object(&keys);
        let name = &keys[again][1..keys[again].find(':').unwrap() - 1];
        let second = text.match_indices(&format!("\"{name}\"")).nth(1).unwrap().0;
        assert_eq!(
            refusal(&text),
            format!(
                "duplicate JSON object key `{name}` at line 1 column {}",
                second + name.len() + 2
            )
        );
    }
}

#[test]
fn a_repeated_key_is_found_in_objects_of_any_size() {
    for count in 1..40 {
        let keys: Vec<String> = (0..count).map(|n| format!("\"k{n}\":0")).collect();
        let keys = keys.join(",");
        parsed(&format!("{{\"method\":\"m\",\"p\":{{{keys}}}}}"));
        for again in 0..count {
            let text = format!("{{\"method\":\"m\",\"p\":{{{keys},\"k{again}\":0}}}}");
            let key = format!("duplicate JSON object key `k{again}`");
            assert!(refusal(&text).starts_with(&key), "{text}");
        }
    }
}

#[test]
fn an_object_with_very_many_keys_is_not_quadratic() {
    let keys: Vec<String> = (0..200_000).map(|n| format!("\"\\u006b{n}\":0")).collect();
    let text = format!("{{\"method\":\"m\",\"p\":{{{}}}}}", keys.join(","));
    assert!(matches!(parsed(&text), Message::Notification { .. }));
}

#[test]
fn a_long_key_is_not_quoted_whole() {
    let key = "é".repeat(5000);
    let error = refusal(format!("{{\"{key}\":1,\"{key}\":2}}"));
    assert!(error.contains('…') && error.len() < 400, "{error}");
}

#[test]
fn depth_is_limited() {
    let nested = |depth| {
        format!(
            "{{\"method\":\"m\",\"params\":{}{}}}",
            "[".repeat(depth),
            "]".repeat(depth)
        )
    };
    assert!(matches!(parsed(&nested(126)), Message::Notification { .. }));
    assert_eq!(refusal(nested(127)), "recursion limit exceeded at line 1 column 150");
    assert_eq!(
        refusal(nested(100_000)),
        "recursion limit exceeded at line 1 column 150"
    );
    assert_eq!(
        refusal("[".repeat(128)),
        "recursion limit exceeded at line 1 column 128"
    );
}

#[test]
fn values_are_limited() {
    // The message, its method, the array, and what is in the array.
    let numbers = |count: usize| format!("{{\"method\":\"m\",\"params\":[0{}]}}", ",0".repeat(count - 4));
    assert!(matches!(parsed(&numbers(262_144)), Message::Notification { .. }));
    assert_eq!(
        refusal(numbers(262_145)),
        "JSON-RPC message exceeds the limit of 262144 JSON values at line 1 column 524307"
    );
    let limits = Limits {
        max_values: 2,
        ..Limits::default()
    };
    assert!(parse(br#"{"method":"m"}"#, &limits).is_ok());
    assert!(parse(br#"{"method":"m","params":[]}"#, &limits).is_err());
}

#[test]
fn special_bytes_are_found_at_every_offset() {
    for length in 0..40 {
        let plain = "ä~\u{7f}x".repeat(length);
        let plain = plain.get(..length).unwrap_or("");
        let message = |inner: &str| format!("{{\"method\":\"m\",\"params\":\"{plain}{inner}{plain}\"}}");
        for fine in ["", r#"\""#, r"\\", r"\/", r"\n", " ", "\u{20}", "\u{80}", r"\u001f"] {
            let text = message(fine);
            let raw = format!("\"{plain}{fine}{plain}\"");
            assert_eq!(parsed(&text), notification("m", Some(&raw)));
        }
        for wrong in ["\"", r"\x", r"\'", "\0", "\t", "\u{1f}", "\n", r"\u12g4"] {
            refusal(message(wrong));
        }
    }
}

#[test]
fn answers_have_their_members_in_order() {
    #[derive(Serialize)]
    struct Empty {}
    let mut out = b"before ".to_vec();
    write_result(&mut out, &7.into(), &Empty {});
    write_result(&mut out, &"a\"b".into(), &[1, 2]);
    write_error(&mut out, Some(&7.into()), &RpcError::invalid_request("no \"such\"\n"));
    let error = RpcError::with_errno(INTERNAL, "x".into(), Some(2));
    write_error(&mut out, None, &error);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        concat!(
            r#"before {"id":7,"result":{}}{"id":"a\"b","result":[1,2]}"#,
            r#"{"error":{"code":-32600,"message":"no \"such\"\n"},"id":7}"#,
            r#"{"error":{"code":-32603,"message":"x","data":{"errno":2}},"id":-1}"#
        )
    );
}

#[test]
fn a_result_that_is_no_json_becomes_an_error() {
    let mut out = b"before ".to_vec();
    write_result(&mut out, &7.into(), &std::collections::BTreeMap::from([((1, 2), 3)]));
    assert_eq!(
        String::from_utf8(out).unwrap(),
        r#"before {"error":{"code":-32603,"message":"failed to encode the result: key must be a string"},"id":7}"#
    );
}

#[test]
fn strings_are_written_as_serde_json_writes_them() {
    let every: String = (0..0x300)
        .filter_map(char::from_u32)
        .chain("😀\u{2028}".chars())
        .collect();
    for text in ["", "plain", "\"", "\\\\", "a\u{0}b", &every] {
        let mut out = Vec::new();
        write_json_string(&mut out, text);
        assert_eq!(out, serde_json::to_vec(text).unwrap());
    }
}
