//! WebSocket frames as a server sends them (RFC 6455, section 5.2): whole, unmasked, compressed or not.
//!
//! Imports `message` and `wire::deflate`.

use bytes::Bytes;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::deflate::{Packer, Packing};
use crate::message::Payload;

/// An empty ping.
pub const PING: &[u8] = &[0x89, 0x00];

/// A text frame. `text` must be UTF-8.
pub fn text(text: &[u8], packing: Packing, packer: &mut Packer) -> Bytes {
    data(Data::Text, text, packing, packer)
}

/// A text frame without compression.
pub fn plain_text(text: &[u8]) -> Bytes {
    frame(OpCode::Data(Data::Text), false, text)
}

/// The frame of `/raw`: a JSON string as its text, other JSON as it stands, anything else binary.
pub fn raw(payload: &Payload, packing: Packing, packer: &mut Packer) -> Bytes {
    match payload {
        Payload::Binary(bytes) => data(Data::Binary, bytes, packing, packer),
        Payload::Json(json) if json.first() == Some(&b'"') => {
            match serde_json::from_slice::<std::borrow::Cow<'_, str>>(json) {
                Ok(string) => text(string.as_bytes(), packing, packer),
                // A lone surrogate escape is JSON but no string: it travels as the JSON it is.
                Err(_) => text(json, packing, packer),
            }
        }
        Payload::Json(json) => text(json, packing, packer),
    }
}

/// The answer to a ping.
pub fn pong(payload: &[u8]) -> Bytes {
    frame(OpCode::Control(Control::Pong), false, payload)
}

/// A close frame without a code.
pub fn close_without_code() -> Bytes {
    frame(OpCode::Control(Control::Close), false, b"")
}

/// A close frame. The reason is cut to the 123 bytes that fit (RFC 6455, section 5.5).
pub fn close(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let payload = [&code.to_be_bytes(), &reason.as_bytes()[..end]].concat();
    frame(OpCode::Control(Control::Close), false, &payload)
}

fn data(kind: Data, payload: &[u8], packing: Packing, packer: &mut Packer) -> Bytes {
    match packer.pack(payload, packing) {
        Some(packed) => frame(OpCode::Data(kind), true, packed),
        None => frame(OpCode::Data(kind), false, payload),
    }
}

fn frame(opcode: OpCode, compressed: bool, payload: &[u8]) -> Bytes {
    let header = FrameHeader {
        rsv1: compressed,
        opcode,
        ..FrameHeader::default()
    };
    let length = payload.len() as u64;
    let mut bytes = Vec::with_capacity(header.len(length) + payload.len());
    header
        .format(length, &mut bytes)
        .expect("a Vec takes what is written to it");
    bytes.extend_from_slice(payload);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_travels_bare_and_anything_else_as_json() {
        let mut packer = Packer::default();
        let mut raw = |json: &'static str| {
            let payload = Payload::Json(Bytes::from_static(json.as_bytes()));
            raw(&payload, Packing::Plain, &mut packer)
        };
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
