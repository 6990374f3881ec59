//! The parameters of calls, written by hand: a fraction of the code that serde makes of as many types.

use crate::protocol::message::write_json_string;
use crate::protocol::path_uri;
use std::io::Write;
use std::path::Path;

/// A JSON object that is being written.
pub(super) struct JsonObject(Vec<u8>);

impl JsonObject {
    pub(super) fn new() -> JsonObject {
        JsonObject(vec![b'{'])
    }

    fn key(&mut self, key: &str) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        self.0.push(b'"');
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    /// A member whose value is JSON already.
    pub(super) fn raw(mut self, key: &str, json: &[u8]) -> JsonObject {
        self.key(key);
        self.0.extend_from_slice(json);
        self
    }

    pub(super) fn text(mut self, key: &str, text: &str) -> JsonObject {
        self.key(key);
        write_json_string(&mut self.0, text);
        self
    }

    pub(super) fn number(mut self, key: &str, number: u64) -> JsonObject {
        self.key(key);
        // Into a vector, so it cannot fail.
        let _ = write!(self.0, "{number}");
        self
    }

    pub(super) fn flag(self, key: &str, flag: bool) -> JsonObject {
        self.raw(key, if flag { b"true" } else { b"false" })
    }

    pub(super) fn path(self, key: &str, path: &Path) -> JsonObject {
        let uri = path_uri::format(path);
        self.text(key, &uri)
    }

    /// A list of texts.
    pub(super) fn texts(mut self, key: &str, texts: &mut dyn Iterator<Item = &str>) -> JsonObject {
        self.key(key);
        self.0.push(b'[');
        for (i, text) in texts.enumerate() {
            if i > 0 {
                self.0.push(b',');
            }
            write_json_string(&mut self.0, text);
        }
        self.0.push(b']');
        self
    }

    /// An object of texts.
    pub(super) fn map<'a>(mut self, key: &str, members: &mut dyn Iterator<Item = (&'a str, &'a str)>) -> JsonObject {
        self.key(key);
        self.0.push(b'{');
        for (i, (name, text)) in members.enumerate() {
            if i > 0 {
                self.0.push(b',');
            }
            write_json_string(&mut self.0, name);
            self.0.push(b':');
            write_json_string(&mut self.0, text);
        }
        self.0.push(b'}');
        self
    }

    /// The text, complete.
    pub(super) fn done(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_json() {
        assert_eq!(JsonObject::new().done(), b"{}");
        let object = JsonObject::new()
            .text("a", "\"\n")
            .number("b", u64::MAX)
            .flag("c", true)
            .path("d", Path::new("/a b"))
            .texts("e", &mut ["x", "y"].into_iter())
            .map("f", &mut [("k", "v"), ("l", "")].into_iter())
            .raw("g", b"null")
            .done();
        let expected = r#"{"a":"\"\n","b":18446744073709551615,"c":true,"d":"file:///a%20b","e":["x","y"],"f":{"k":"v","l":""},"g":null}"#;
        assert_eq!(String::from_utf8(object).unwrap(), expected);
    }
}
