//! WebSocket frames as a server sends them (RFC 6455, section 5.2): whole, unmasked, made by tungstenite.
//!
//! Imports `message`.

use bytes::Bytes;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, Utf8Bytes};

use crate::message::Payload;

/// An empty ping.
pub const PING: &[u8] = &[0x89, 0x00];

/// A text frame. `text` must be UTF-8.
pub fn text(text: &[u8]) -> Bytes {
    data(Data::Text, text)
}

/// The frame of `/raw`: a JSON string as its text, other JSON as it stands, anything else binary.
pub fn raw(payload: &Payload) -> Bytes {
    match payload {
        Payload::Binary(bytes) => data(Data::Binary, bytes),
        Payload::Json(json) if json.first() == Some(&b'"') => {
            match serde_json::from_slice::<std::borrow::Cow<'_, str>>(json) {
                Ok(text) => data(Data::Text, text.as_bytes()),
                // A lone surrogate escape is JSON but no string: it travels as the JSON it is.
                Err(_) => data(Data::Text, json),
            }
        }
        Payload::Json(json) => data(Data::Text, json),
    }
}

/// A close frame. The reason is cut to the 123 bytes that fit (RFC 6455, section 5.5).
pub fn close(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let reason = Utf8Bytes::from(&reason[..end]);
    format(Frame::close(Some(CloseFrame {
        code: code.into(),
        reason,
    })))
}

fn data(kind: Data, payload: &[u8]) -> Bytes {
    format(Frame::message(
        Bytes::copy_from_slice(payload),
        OpCode::Data(kind),
        true,
    ))
}

fn format(frame: Frame) -> Bytes {
    let mut bytes = Vec::with_capacity(frame.len());
    frame
        .format(&mut bytes)
        .expect("a Vec takes what is written to it");
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_travels_bare_and_anything_else_as_json() {
        let raw = |json: &'static str| raw(&Payload::Json(Bytes::from_static(json.as_bytes())));
        assert_eq!(&raw(r#""hi""#)[..], b"\x81\x02hi");
        assert_eq!(&raw(r#""h\u00e9""#)[..], b"\x81\x03h\xc3\xa9");
        assert_eq!(&raw("[1]")[..], b"\x81\x03[1]");
    }

    #[test]
    fn a_long_reason_is_cut_at_a_character() {
        let frame = close(4000, &"é".repeat(100));
        assert_eq!(frame[..2], [0x88, 124]);
        assert!(std::str::from_utf8(&frame[4..]).is_ok());
    }
}
