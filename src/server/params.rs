//! The parameters of a request, as they are kept until a method decodes them.

use super::gate::Permit;
use crate::protocol::bytes::{self, Base64, Content};
use crate::protocol::decode::{DecodeError, Fields};
use crate::protocol::json::Span;
use crate::protocol::message;
use tungstenite::Bytes;

/// The parameters of a request: JSON text that was checked and not yet decoded.
pub(super) struct Params {
    text: Option<Bytes>,
    bulk: Option<Bulk>,
    /// Whether bytes of the answer are wanted as they are.
    raw: bool,
    /// Counts the memory of a large message while its request is carried out.
    _permit: Option<Permit>,
}

/// The one large member of the parameters, where the text has an empty string.
struct Bulk {
    key: &'static str,
    bytes: Bytes,
    /// Whether the bytes are still base64, which was checked.
    is_base64: bool,
}

impl Params {
    /// Those of a message: the text, and the one long string of it that need not be gone through again.
    pub(super) fn of_message(
        message: &Bytes,
        text: Option<&[u8]>,
        bulk: Option<message::Bulk<'_>>,
        permit: Option<Permit>,
    ) -> Params {
        let Some((text, bulk)) = text.zip(bulk) else {
            return Params {
                text: text.map(|text| message.slice_ref(text)),
                bulk: None,
                raw: false,
                _permit: permit,
            };
        };
        let base64 = bulk.text.text();
        let start = base64.as_ptr() as usize - text.as_ptr() as usize;
        let without = [&text[..start], &text[start + base64.len()..]].concat();
        Params {
            text: Some(without.into()),
            bulk: Some(Bulk {
                key: bulk.key,
                bytes: message.slice_ref(base64),
                is_base64: true,
            }),
            raw: false,
            _permit: permit,
        }
    }

    /// Those of a client in this program: the text, empty if there are none, under which key it has which bytes, and whether
    /// it wants bytes back as they are.
    pub(super) fn in_process(text: Bytes, bulk: Option<(&'static str, Bytes)>, raw: bool) -> Params {
        Params {
            text: (!text.is_empty()).then_some(text),
            bulk: bulk.map(|(key, bytes)| Bulk {
                key,
                bytes,
                is_base64: false,
            }),
            raw,
            _permit: None,
        }
    }

    /// The text; `null` if there were none.
    pub(super) fn as_json(&self) -> &[u8] {
        self.text.as_deref().unwrap_or(b"null")
    }

    /// Whether the answer is for a client that takes bytes as they are, and not in base64.
    pub(super) fn wants_raw(&self) -> bool {
        self.raw
    }

    /// Their members. `name` is what they are called in the error if they are no object.
    ///
    /// # Errors
    /// They are none.
    pub(super) fn fields(&self, name: &str) -> Result<Fields<'_>, DecodeError> {
        Fields::of(Span::of_checked(self.as_json()), name)
    }

    /// The bytes that `key` stands for: what was taken out, or what is in base64 in the `text` that is there, which is
    /// decoded into `room`.
    ///
    /// # Errors
    /// What is wrong with the text, and where.
    pub(super) fn content<'a>(&'a self, key: &str, text: &str, room: &'a mut Vec<u8>) -> Result<Content<'a>, String> {
        Ok(match &self.bulk {
            Some(bulk) if bulk.key == key && bulk.is_base64 => Content::Base64(Base64::checked(&bulk.bytes)),
            Some(bulk) if bulk.key == key => Content::Plain(&bulk.bytes),
            _ => {
                *room = bytes::decode(text.as_bytes()).map_err(|e| bytes::describe(&e))?;
                Content::Plain(room)
            }
        })
    }
}
