//! Bytes that are JSON by convention: params, outputs, progress, definitions.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// Bytes of a worker or a client, shown as what they are.
///
/// JSON is embedded as it is; other text is a JSON string; other bytes are a string that holds them as a data URL
/// (`data:application/octet-stream;base64,…`, RFC 2397).
#[derive(Debug)]
pub(crate) struct Opaque<'a>(&'a [u8]);

impl<'a> Opaque<'a> {
    /// `None` of no bytes.
    pub(crate) fn of(bytes: &'a [u8]) -> Option<Self> {
        (!bytes.is_empty()).then_some(Self(bytes))
    }
}

impl Serialize for Opaque<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(json) = serde_json::from_slice::<&RawValue>(self.0) {
            return json.serialize(serializer);
        }
        match std::str::from_utf8(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_str(&format_args!(
                "data:application/octet-stream;base64,{}",
                BASE64_STANDARD.encode(self.0)
            )),
        }
    }
}

/// The one JSON object that `bytes` is, without the white space around it and otherwise untouched; a slice, not a copy.
///
/// It is checked to be whole and well-formed, not read into memory.
pub(crate) fn json_object(bytes: &Bytes) -> Result<Bytes, NotAnObject> {
    let json = serde_json::from_slice::<&RawValue>(bytes).map_err(NotAnObject::Malformed)?;
    if json.get().starts_with('{') {
        Ok(bytes.slice_ref(json.get().as_bytes()))
    } else {
        Err(NotAnObject::Other(kind_of(json)))
    }
}

/// Why bytes are not a JSON object.
#[derive(Debug)]
pub(crate) enum NotAnObject {
    Malformed(serde_json::Error),
    Other(&'static str),
}

/// What a JSON value is, for a message.
pub(crate) fn kind_of(json: &RawValue) -> &'static str {
    match json.get().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(bytes: &[u8]) -> String {
        serde_json::to_string(&Opaque(bytes)).unwrap()
    }

    #[test]
    fn bytes_are_shown_as_what_they_are() {
        assert_eq!(shown(br#"{"a": 1}"#), r#"{"a": 1}"#);
        assert_eq!(shown(b"42"), "42");
        assert_eq!(shown(b"{\"a\""), r#""{\"a\"""#);
        assert_eq!(shown("Grüße".as_bytes()), "\"Grüße\"");
        assert_eq!(
            shown(b"\xff\x00"),
            r#""data:application/octet-stream;base64,/wA=""#
        );
    }

    #[test]
    fn an_object_is_a_slice_of_what_came() {
        let body = Bytes::from_static(b" \n{\"url\": \"x\"} ");
        let object = json_object(&body).unwrap();
        assert_eq!(object, "{\"url\": \"x\"}");
        assert_eq!(object.as_ptr(), body[2..].as_ptr());
    }

    #[test]
    fn only_one_whole_object_of_utf8_is_an_object() {
        for bad in [
            &b""[..],
            b"{",
            b"{}{}",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":01}",
            b"\xef\xbb\xbf{}",
        ] {
            assert!(matches!(
                json_object(&Bytes::copy_from_slice(bad)),
                Err(NotAnObject::Malformed(_))
            ));
        }
        for (other, kind) in [
            (&b"[]"[..], "an array"),
            (b"-1", "a number"),
            (b"null", "null"),
            (b"\"\"", "a string"),
        ] {
            let found = json_object(&Bytes::copy_from_slice(other)).unwrap_err();
            assert!(matches!(found, NotAnObject::Other(k) if k == kind));
        }
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = Bytes::from(format!(
            "{{\"a\":{}{}}}",
            "[".repeat(200_000),
            "]".repeat(200_000)
        ));
        let object = json_object(&deep).unwrap();
        assert_eq!(shown(&object).len(), deep.len());
    }

    proptest! {
        #[test]
        fn whatever_is_shown_is_json(bytes: Vec<u8>) {
            let shown = shown(&bytes);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&shown).is_ok());
        }
    }
}
