//! What the envelope parser must do with any bytes, told by a slow reference that builds a tree.

use std::collections::HashSet;
use std::fmt;

use exec_server::protocol::message::{Limits, Message, RequestId, parse};
use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Panics if the parser and the reference disagree about `text`.
pub(crate) fn check(text: &[u8]) {
    let limits = Limits::default();
    let parsed = parse(text, &limits);
    let shown = || format!("{}", text[..text.len().min(2000)].escape_ascii());
    match serde_json::from_slice::<Value>(text) {
        Err(expected) => {
            let error = parsed.expect_err(&shown()).to_string();
            // A limit or a repeated key may have been seen before the syntax error.
            let other = error.starts_with("duplicate JSON object key")
                || error.starts_with("JSON-RPC message exceeds")
                || error.starts_with("invalid unicode code point");
            if !other {
                assert_eq!(error, expected.to_string(), "{}", shown());
            }
        }
        Ok(value) => match (strict(text, &limits), parsed) {
            (Err(_), Err(_)) => {}
            (Ok(()), parsed) => compare(&value, parsed.ok(), &shown),
            (Err(expected), Ok(message)) => {
                panic!("{message:?}, but {expected}: {}", shown())
            }
        },
    }
}

fn compare(value: &Value, parsed: Option<Message<'_>>, shown: &dyn Fn() -> String) {
    let Some(object) = value.as_object() else {
        return assert!(parsed.is_none(), "{}", shown());
    };
    let id = object.get("id");
    let minus_zero = |id: f64| id == 0.0 && id.is_sign_negative();
    if id.and_then(Value::as_f64).is_some_and(minus_zero) {
        // The tree does not tell `-0`, an integer, from `-0.0`.
        return;
    }
    let id_is_good = id.is_some_and(|id| id.is_string() || id.is_i64());
    let method = object.get("method");
    let params = object.get("params").filter(|params| !params.is_null());
    let same_params = |text: Option<&[u8]>| {
        let text = text.map(|text| serde_json::from_slice::<Value>(text).expect("params"));
        assert_eq!(text.as_ref(), params, "{}", shown());
    };
    match parsed {
        None => {
            let fine = match (method, id, object.get("result")) {
                (Some(method), Some(_), _) => method.is_string() && id_is_good && trace_is_good(object.get("trace")),
                (Some(method), None, _) => method.is_string(),
                (None, Some(_), Some(_)) => id_is_good,
                (None, _, _) => id_is_good && object.get("error").is_some_and(error_is_good),
            };
            assert!(!fine, "refused: {}", shown());
        }
        Some(Message::Request {
            id: parsed_id,
            method: name,
            params: text,
        }) => {
            same_id(&parsed_id, id);
            assert_eq!(method.and_then(Value::as_str), Some(&*name), "{}", shown());
            assert!(trace_is_good(object.get("trace")), "{}", shown());
            same_params(text);
        }
        Some(Message::Notification {
            method: name,
            params: text,
        }) => {
            assert!(id.is_none(), "{}", shown());
            assert_eq!(method.and_then(Value::as_str), Some(&*name), "{}", shown());
            same_params(text);
        }
        Some(Message::Response { id: parsed_id, result }) => {
            same_id(&parsed_id, id);
            assert!(method.is_none(), "{}", shown());
            let result: Value = serde_json::from_slice(result).expect("result");
            assert_eq!(Some(&result), object.get("result"), "{}", shown());
        }
        Some(Message::Error { id: parsed_id, error }) => {
            same_id(&parsed_id, id);
            assert!(method.is_none() && !object.contains_key("result"));
            let error: Value = serde_json::from_slice(error).expect("error");
            assert!(error_is_good(&error), "{}", shown());
            assert_eq!(Some(&error), object.get("error"), "{}", shown());
        }
    }
}

fn same_id(parsed: &RequestId, id: Option<&Value>) {
    let parsed = serde_json::from_str::<Value>(parsed.as_json()).expect("id");
    assert_eq!(Some(&parsed), id);
}

fn trace_is_good(trace: Option<&Value>) -> bool {
    let text = |value: Option<&Value>| value.is_none_or(|value| value.is_null() || value.is_string());
    match trace {
        None | Some(Value::Null) => true,
        Some(Value::Object(trace)) => text(trace.get("traceparent")) && text(trace.get("tracestate")),
        Some(_) => false,
    }
}

fn error_is_good(error: &Value) -> bool {
    error["code"].is_i64() && error["message"].is_string()
}

/// Checks keys, depth and number of values; the text is known to be JSON.
fn strict(text: &[u8], limits: &Limits) -> Result<(), serde_json::Error> {
    let mut values = 0;
    let strict = Strict {
        limits,
        values: &mut values,
        depth: 0,
    };
    strict.deserialize(&mut serde_json::Deserializer::from_slice(text))
}

struct Strict<'a> {
    limits: &'a Limits,
    values: &'a mut usize,
    depth: usize,
}

impl Strict<'_> {
    fn inner(&mut self) -> Strict<'_> {
        Strict {
            limits: self.limits,
            values: self.values,
            depth: self.depth + 1,
        }
    }

    fn deeper<E: Error>(&self) -> Result<(), E> {
        if self.depth >= usize::from(self.limits.max_depth) {
            return Err(E::custom("too deep"));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        *self.values += 1;
        if *self.values > self.limits.max_values {
            return Err(D::Error::custom("too many values"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut array: A) -> Result<(), A::Error> {
        self.deeper()?;
        while array.next_element_seed(self.inner())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<(), A::Error> {
        self.deeper()?;
        let mut keys = HashSet::new();
        while let Some(key) = object.next_key::<String>()? {
            if !keys.insert(key) {
                return Err(A::Error::custom("duplicate key"));
            }
            object.next_value_seed(self.inner())?;
        }
        Ok(())
    }
}
