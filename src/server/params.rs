//! The parameters of a request, as they are kept until a method decodes them.

use super::gate::Permit;
use crate::protocol::bytes::Content;
use crate::protocol::message;
use tungstenite::Bytes;

/// The parameters of a request: JSON text that was checked and not yet decoded.
pub(super) struct Params {
    text: Option<Bytes>,
    bulk: Option<Bulk>,
    /// Counts the memory of a large message while its request is carried out.
    _permit: Option<Permit>,
}

/// The one large member of the parameters, where the text has an empty string.
struct Bulk {
    key: &'static str,
    bytes: Bytes,
    /// Whether the bytes are still base64.
    is_base64: bool,
}

impl Params {
    /// Those of a message: the text, and the one long string of it that need not be gone through again.
    pub(super) fn of_message(
        message: &Bytes,
        text: Option<&str>,
        bulk: Option<message::Bulk<'_>>,
        permit: Option<Permit>,
    ) -> Params {
        let Some((text, bulk)) = text.zip(bulk) else {
            return Params {
                text: text.map(|text| message.slice_ref(text.as_bytes())),
                bulk: None,
                _permit: permit,
            };
        };
        let start = bulk.text.as_ptr() as usize - text.as_ptr() as usize;
        let without = [&text.as_bytes()[..start], &text.as_bytes()[start + bulk.text.len()..]].concat();
        Params {
            text: Some(without.into()),
            bulk: Some(Bulk {
                key: bulk.key,
                bytes: message.slice_ref(bulk.text.as_bytes()),
                is_base64: true,
            }),
            _permit: permit,
        }
    }

    /// Those of a client in this program: the text, empty if there are none, and under which key it has which bytes.
    pub(super) fn in_process(text: Bytes, bulk: Option<(&'static str, Bytes)>) -> Params {
        Params {
            text: (!text.is_empty()).then_some(text),
            bulk: bulk.map(|(key, bytes)| Bulk {
                key,
                bytes,
                is_base64: false,
            }),
            _permit: None,
        }
    }

    /// The text; `null` if there were none.
    pub(super) fn as_json(&self) -> &[u8] {
        self.text.as_deref().unwrap_or(b"null")
    }

    /// The bytes that `key` stands for: the base64 that was decoded for it, or what was taken out in its place.
    pub(super) fn content<'a>(&'a self, key: &str, decoded: &'a str) -> Content<'a> {
        match &self.bulk {
            Some(bulk) if bulk.key == key && bulk.is_base64 => Content::Base64(&bulk.bytes),
            Some(bulk) if bulk.key == key => Content::Plain(&bulk.bytes),
            _ => Content::Base64(decoded.as_bytes()),
        }
    }
}
