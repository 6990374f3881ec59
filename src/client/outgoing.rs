//! What a client sends.

use crate::protocol::bytes;
use crate::protocol::message::write_json_string;
use std::io::Write;

/// A call or a notification.
pub(super) struct Outgoing<'a> {
    /// `None` for a notification.
    pub(super) id: Option<i64>,
    pub(super) method: &'static str,
    /// An object as JSON text, or nothing.
    pub(super) params: Vec<u8>,
    /// Bytes that are one more member of the params, in base64 where there is a wire: under which key, and what.
    pub(super) bulk: Option<(&'static str, &'a [u8])>,
}

impl Outgoing<'_> {
    /// What comes before the base64, or all if there is none; and what comes behind it.
    pub(super) fn text(&self) -> (Vec<u8>, &'static [u8]) {
        let mut head = Vec::with_capacity(64 + self.params.len());
        head.push(b'{');
        if let Some(id) = self.id {
            // Into a vector, so it cannot fail.
            let _ = write!(head, "\"id\":{id},");
        }
        head.extend_from_slice(b"\"method\":");
        write_json_string(&mut head, self.method);
        if self.params.is_empty() {
            head.push(b'}');
            return (head, b"");
        }
        head.extend_from_slice(b",\"params\":");
        let Some((key, _)) = self.bulk else {
            head.extend_from_slice(&self.params);
            head.push(b'}');
            return (head, b"");
        };
        head.extend_from_slice(&open_for_bulk(&self.params, key));
        (head, b"\"}}")
    }

    /// The length of the base64.
    pub(super) fn bulk_len(&self) -> usize {
        self.bulk.map_or(0, |(_, bulk)| bytes::encoded_len(bulk.len()))
    }

    /// The params with an empty string where the bulk would be.
    pub(super) fn params_without_bulk(&self) -> Vec<u8> {
        let Some((key, _)) = self.bulk else {
            return self.params.clone();
        };
        let mut params = open_for_bulk(&self.params, key);
        params.extend_from_slice(b"\"}");
        params
    }
}

/// An object up to the opening quote of its last member.
fn open_for_bulk(params: &[u8], key: &str) -> Vec<u8> {
    let members = params.strip_suffix(b"}").unwrap_or(params);
    let comma: &[u8] = if members.len() > 1 { b"," } else { b"" };
    [members, comma, b"\"", key.as_bytes(), b"\":\""].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bulk_is_the_last_member() {
        let text = |id, params: &str, bulk| {
            let message = Outgoing {
                id,
                method: "m",
                params: params.into(),
                bulk,
            };
            let (head, tail) = message.text();
            let mut text = head;
            if let Some((_, bulk)) = bulk {
                bytes::append(bulk, &mut text);
            }
            text.extend_from_slice(tail);
            let params = String::from_utf8(message.params_without_bulk()).unwrap();
            (String::from_utf8(text).unwrap(), params)
        };
        let pair = |text: &str, params: &str| (text.to_owned(), params.to_owned());
        assert_eq!(text(None, "", None), pair(r#"{"method":"m"}"#, ""));
        assert_eq!(
            text(Some(3), r#"{"a":1}"#, None),
            pair(r#"{"id":3,"method":"m","params":{"a":1}}"#, r#"{"a":1}"#)
        );
        let bulk = Some(("chunk", &b"hello\n"[..]));
        assert_eq!(
            text(Some(3), r#"{"a":1}"#, bulk),
            pair(
                r#"{"id":3,"method":"m","params":{"a":1,"chunk":"aGVsbG8K"}}"#,
                r#"{"a":1,"chunk":""}"#
            )
        );
        assert_eq!(
            text(Some(3), "{}", bulk),
            pair(
                r#"{"id":3,"method":"m","params":{"chunk":"aGVsbG8K"}}"#,
                r#"{"chunk":""}"#
            )
        );
    }
}
