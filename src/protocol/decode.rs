//! Typed values from JSON text that was checked before: the params of calls, and the answers to them.
//!
//! Each type says by hand what it is made of. What serde derives is several KiB of code for each, where this is some
//! hundred bytes; the words for what is wrong are serde's all the same.

use super::error::RpcError;
use super::json::{JsonError, Kind, Scanner, Span};
use super::message::Limits;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, Visitor};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::num::NonZeroUsize;

/// What can be read from JSON.
pub(crate) trait Decode<'a>: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with the value.
    fn decode(value: Span<'a>) -> Result<Self, DecodeError>;
}

/// What is wrong with a value, in serde's words and without the position. A call is refused with that as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub(super) RpcError);

impl DecodeError {
    #[cold]
    pub(crate) fn new(text: impl Into<String>) -> DecodeError {
        DecodeError(RpcError::invalid_params(text))
    }
}

impl From<JsonError> for DecodeError {
    #[cold]
    fn from(error: JsonError) -> DecodeError {
        DecodeError::new(error.to_string())
    }
}

/// Reads `text`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn decode<'a, T: Decode<'a>>(text: &'a [u8]) -> Result<T, DecodeError> {
    T::decode(Span::of_checked(text))
}

/// The members of an object. Those that nobody asks for may be anything.
pub(crate) struct Fields<'a>(Vec<(Cow<'a, str>, Span<'a>)>);

impl<'a> Fields<'a> {
    /// Those of `value`, which `expected` names in the error if it is no object.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn of(value: Span<'a>, expected: &str) -> Result<Fields<'a>, DecodeError> {
        if value.kind != Kind::Object {
            return Err(mismatch(value, expected));
        }
        let mut members = Vec::with_capacity(8);
        scan(value, |scanner| {
            scanner.object(&mut |key, value| members.push((key.clone(), value)))
        })?;
        Ok(Fields(members))
    }

    /// The member of that name.
    pub(crate) fn get(&self, name: &str) -> Option<Span<'a>> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    /// The member of that name, which must be there.
    ///
    /// # Errors
    /// It is missing, or what is wrong with it.
    pub(crate) fn required<T: Decode<'a>>(&self, name: &str) -> Result<T, DecodeError> {
        match self.get(name) {
            Some(value) => T::decode(value),
            None => Err(missing(name)),
        }
    }

    /// The member of that name; `None` if it is missing or null.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn optional<T: Decode<'a>>(&self, name: &str) -> Result<Option<T>, DecodeError> {
        match self.get(name) {
            Some(value) if value.kind != Kind::Null => T::decode(value).map(Some),
            _ => Ok(None),
        }
    }

    /// The member of that name, one of a few words, which must be there.
    ///
    /// # Errors
    /// It is missing, or no text.
    pub(crate) fn word(&self, name: &str) -> Result<Cow<'a, str>, DecodeError> {
        self.get(name).ok_or_else(|| missing(name)).and_then(word)
    }

    /// A switch that is on unless it is turned off; null leaves it on as well.
    ///
    /// # Errors
    /// It is no boolean.
    pub(crate) fn unless_off(&self, name: &str) -> Result<bool, DecodeError> {
        Ok(self.optional(name)?.unwrap_or(true))
    }

    /// The member of that name; the default if it is missing, but not for null.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn or_default<T: Decode<'a> + Default>(&self, name: &str) -> Result<T, DecodeError> {
        match self.get(name) {
            Some(value) => T::decode(value),
            None => Ok(T::default()),
        }
    }
}

/// One of several words, each of which stands for a value.
///
/// # Errors
/// It is none of them.
pub(crate) fn one_of<T: Copy>(value: Span<'_>, words: &[(&str, T)]) -> Result<T, DecodeError> {
    let text = word(value)?;
    match words.iter().find(|(word, _)| *word == text) {
        Some((_, meaning)) => Ok(*meaning),
        None => {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            Err(unknown_variant(&text, &known))
        }
    }
}

/// The text of a value that is one of a few words.
///
/// # Errors
/// It is no text.
pub(crate) fn word(value: Span<'_>) -> Result<Cow<'_, str>, DecodeError> {
    match value.kind {
        Kind::String => text(value),
        _ => Err(DecodeError::new("expected value".to_owned())),
    }
}

/// That `text` is none of the words that are known.
#[cold]
pub(crate) fn unknown_variant(text: &str, known: &[&str]) -> DecodeError {
    let (before, between) = match known.len() {
        1 => ("", ""),
        2 => ("", " or "),
        _ => ("one of ", ", "),
    };
    let known = known.join(&format!("`{between}`"));
    DecodeError::new(format!("unknown variant `{text}`, expected {before}`{known}`"))
}

#[cold]
fn missing(name: &str) -> DecodeError {
    DecodeError::new(format!("missing field `{name}`"))
}

/// That `value` is of another type than what `expected` names.
#[cold]
fn mismatch(value: Span<'_>, expected: &str) -> DecodeError {
    struct Nothing<'a>(&'a str);
    impl Visitor<'_> for Nothing<'_> {
        type Value = Infallible;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }
    match serde_json::Deserializer::from_slice(value.raw).deserialize_any(Nothing(expected)) {
        Ok(never) => match never {},
        Err(error) => DecodeError::new(without_position(&error)),
    }
}

/// Reads `value` from its opening bracket to its end.
fn scan<'a>(value: Span<'a>, read: impl FnOnce(&mut Scanner<'a>) -> Result<(), JsonError>) -> Result<(), DecodeError> {
    // The limits were kept when the message was read.
    let limits = Limits {
        max_values: usize::MAX,
        ..Limits::default()
    };
    let mut scanner = Scanner::new(value.raw, 0..0, limits);
    read(&mut scanner)?;
    Ok(scanner.finish()?)
}

/// A text, borrowed if there is no escape in it.
fn text(value: Span<'_>) -> Result<Cow<'_, str>, DecodeError> {
    match std::str::from_utf8(value.raw) {
        Ok(text) if value.kind == Kind::String && !text.contains('\\') => Ok(Cow::Borrowed(&text[1..text.len() - 1])),
        _ if value.kind == Kind::String => by_serde(value).map(Cow::Owned),
        _ => Err(mismatch(value, "a string")),
    }
}

/// A value of a small type.
fn by_serde<T: DeserializeOwned>(value: Span<'_>) -> Result<T, DecodeError> {
    serde_json::from_slice(value.raw).map_err(|error| DecodeError::new(without_position(&error)))
}

/// The text of `error` without its trailing ` at line N column M`.
fn without_position(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    if let Some(bare) = text.strip_suffix(&position) {
        text.truncate(bare.len());
    }
    text
}

impl<'a> Decode<'a> for Cow<'a, str> {
    fn decode(value: Span<'a>) -> Result<Self, DecodeError> {
        text(value)
    }
}

impl Decode<'_> for String {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        text(value).map(Cow::into_owned)
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Decode<'_> for $number {
            fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
                by_serde(value)
            }
        }
    )*};
}

numbers!(u64, i64, i32, u16);

/// Amounts: what a machine of 32 bits can't count is as much as it can.
macro_rules! amounts {
    ($($number:ty),*) => {$(
        impl Decode<'_> for $number {
            fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
                match by_serde(value) {
                    Err(_) if cfg!(target_pointer_width = "32") && by_serde::<u64>(value).is_ok_and(|n| n > 0) => Ok(Self::MAX),
                    decoded => decoded,
                }
            }
        }
    )*};
}

amounts!(usize, NonZeroUsize);

impl Decode<'_> for bool {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        match value.kind {
            Kind::Bool => Ok(value.raw == b"true"),
            _ => Err(mismatch(value, "a boolean")),
        }
    }
}

impl Decode<'_> for () {
    fn decode(value: Span<'_>) -> Result<Self, DecodeError> {
        match value.kind {
            Kind::Null => Ok(()),
            _ => Err(mismatch(value, "unit")),
        }
    }
}

impl Decode<'_> for IgnoredAny {
    fn decode(_value: Span<'_>) -> Result<Self, DecodeError> {
        Ok(IgnoredAny)
    }
}

impl<'a, T: Decode<'a>> Decode<'a> for Box<T> {
    fn decode(value: Span<'a>) -> Result<Self, DecodeError> {
        T::decode(value).map(Box::new)
    }
}

impl<'a, T: Decode<'a>> Decode<'a> for Vec<T> {
    fn decode(value: Span<'a>) -> Result<Self, DecodeError> {
        let items = items(value)?;
        let mut list = Vec::with_capacity(items.len());
        for item in items {
            list.push(T::decode(item)?);
        }
        Ok(list)
    }
}

fn items(value: Span<'_>) -> Result<Vec<Span<'_>>, DecodeError> {
    if value.kind != Kind::Array {
        return Err(mismatch(value, "a sequence"));
    }
    let mut items = Vec::new();
    scan(value, |scanner| scanner.array(&mut |item| items.push(item)))?;
    Ok(items)
}

impl<'a, T: Decode<'a>> Decode<'a> for BTreeMap<String, T> {
    fn decode(value: Span<'a>) -> Result<Self, DecodeError> {
        let mut map = BTreeMap::new();
        for (key, value) in Fields::of(value, "a map")?.0 {
            map.insert(key.into_owned(), T::decode(value)?);
        }
        Ok(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields<'_> {
        Fields::of(Span::of_checked(text.as_bytes()), "struct Test").unwrap()
    }

    #[track_caller]
    fn check_refused<'a, T: Decode<'a> + fmt::Debug>(text: &'a str, words: &str) {
        assert_eq!(decode::<T>(text.as_bytes()).unwrap_err().to_string(), words);
    }

    #[test]
    fn what_is_wrong_has_the_words_of_serde() {
        check_refused::<String>("5", "invalid type: integer `5`, expected a string");
        check_refused::<String>(" {\n} ", "invalid type: map, expected a string");
        check_refused::<bool>("null", "invalid type: null, expected a boolean");
        check_refused::<u64>("-5", "invalid value: integer `-5`, expected u64");
        check_refused::<u64>("1.5", "invalid type: floating point `1.5`, expected u64");
        check_refused::<u16>("70000", "invalid value: integer `70000`, expected u16");
        check_refused::<NonZeroUsize>("0", "invalid value: integer `0`, expected a nonzero usize");
        check_refused::<Vec<bool>>("\"[]\"", "invalid type: string \"[]\", expected a sequence");
        check_refused::<Vec<bool>>("[true, 1]", "invalid type: integer `1`, expected a boolean");
        check_refused::<BTreeMap<String, String>>("[]", "invalid type: sequence, expected a map");
        check_refused::<()>("true", "invalid type: boolean `true`, expected unit");
        let no_object = Fields::of(Span::of_checked(b"[1]"), "struct Test").map(drop);
        assert_eq!(
            no_object.unwrap_err().to_string(),
            "invalid type: sequence, expected struct Test"
        );
        let missing = fields("{}").required::<bool>("a").unwrap_err();
        assert_eq!(missing.to_string(), "missing field `a`");
    }

    #[test]
    fn an_amount_may_be_more_than_can_be_counted() {
        let most = u64::MAX.to_string();
        assert_eq!(decode(most.as_bytes()), Ok(usize::MAX));
        assert_eq!(decode(most.as_bytes()), Ok(NonZeroUsize::MAX));
        assert_eq!(decode(b"4294967295"), Ok(4_294_967_295usize));
        check_refused::<usize>("-1", "invalid value: integer `-1`, expected usize");
    }

    #[test]
    fn a_word_that_is_not_known_is_told_those_that_are() {
        let known = [("a", 1), ("b", 2), ("c", 3)];
        let refusal = |text: &str, n| {
            one_of(Span::of_checked(text.as_bytes()), &known[..n])
                .unwrap_err()
                .to_string()
        };
        assert_eq!(refusal("\"x\"", 1), "unknown variant `x`, expected `a`");
        assert_eq!(refusal("\"x\"", 2), "unknown variant `x`, expected `a` or `b`");
        assert_eq!(
            refusal("\"x\"", 3),
            "unknown variant `x`, expected one of `a`, `b`, `c`"
        );
        assert_eq!(refusal("null", 3), "expected value");
        assert_eq!(one_of(Span::of_checked(br#""\u0062""#), &known), Ok(2));
    }

    #[test]
    fn members_may_be_absent_or_null() {
        let fields = fields(r#"{"n":null,"off":false,"more":[{}],"t":"\n"}"#);
        assert_eq!(fields.optional::<u64>("n"), Ok(None));
        assert_eq!(fields.optional::<u64>("x"), Ok(None));
        assert_eq!(fields.or_default::<u64>("x"), Ok(0));
        assert!(fields.or_default::<u64>("n").is_err());
        assert_eq!(fields.unless_off("n"), Ok(true));
        assert_eq!(fields.unless_off("off"), Ok(false));
        assert_eq!(fields.required("t"), Ok("\n".to_owned()));
    }

    #[test]
    fn a_text_is_borrowed_if_it_can_be() {
        let fields = fields(r#"{"a":"aGk=","b":"\u0061","\u0063":""}"#);
        assert!(matches!(fields.required("a"), Ok(Cow::Borrowed("aGk="))));
        assert_eq!(fields.required::<Cow<'_, str>>("b").unwrap(), "a");
        assert!(matches!(fields.required("c"), Ok(Cow::Borrowed(""))));
    }

    #[test]
    fn lists_and_maps() {
        let map = decode::<BTreeMap<String, String>>(br#"{"b":"1","\u0061":"2"}"#).unwrap();
        assert_eq!(map, [("a", "2"), ("b", "1")].map(|(k, v)| (k.into(), v.into())).into());
        assert_eq!(
            decode::<Vec<Vec<u16>>>(b"[[1,2],[],[3]]"),
            Ok(vec![vec![1, 2], vec![], vec![3]])
        );
    }
}
