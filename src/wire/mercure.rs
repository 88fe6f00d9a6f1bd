//! The Mercure protocol: updates as events, ids as URNs, and what a publisher posts.
//!
//! Its data is text, a message's is JSON: text that is a JSON document, but no JSON string, is that document, and any other
//! text is a JSON string. So every text comes out as it went in. Imports `ids` and `message`.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::sse::{line, lines};
use super::{BASE64, Outgoing};
use crate::ids::Position;
use crate::message::{EventName, Payload, Publication};
use base64::Engine as _;

/// The path of the hub.
pub const PATH: &str = "/.well-known/mercure";
/// The id that asks for all that there is, and stands for nothing.
pub const EARLIEST: &str = "earliest";

/// One event.
pub fn event(message: &Outgoing<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.payload.len() + 96);
    if *message.event != EventName::Message {
        line(b"event: ", message.event.as_str().as_bytes(), &mut out);
    }
    if let Some(retry) = message.retry {
        line(b"retry: ", retry.to_string().as_bytes(), &mut out);
    }
    if let Some(id) = message.id {
        line(b"id: ", id.as_bytes(), &mut out);
    }
    let text = text(message.payload);
    if text.contains(&b'\r') {
        // Each of the three line ends of an event stream, which leaves one of each in the text.
        let text = String::from_utf8_lossy(&text).replace("\r\n", "\n");
        lines(b"data: ", text.as_bytes(), &mut out);
    } else {
        lines(b"data: ", &text, &mut out);
    }
    out.push(b'\n');
    out
}

/// Where a client stands that has seen no update yet: an id alone, which it notes and shows nobody.
pub fn cursor(position: Position) -> Vec<u8> {
    format!("id: {}\n\n", urn(position)).into_bytes()
}

/// The id of an update: its publisher's, or one that all copies of it share.
pub fn update_id(publication: &Publication) -> String {
    match (&publication.id, &publication.terms) {
        (Some(id), _) => id.to_string(),
        (None, None) => urn(publication.position),
        (None, Some(terms)) => urn(Position {
            seq: terms.first,
            ..publication.position
        }),
    }
}

/// A position as an IRI: a UUID of version 8 (RFC 9562, section 5.8), with the epoch in its first 32 bits and the number
/// in the last 64 that are free.
pub fn urn(position: Position) -> String {
    let Position { epoch, seq } = position;
    format!(
        "urn:uuid:{epoch:08x}-0000-8{:03x}-8{:03x}-{:012x}",
        seq >> 60,
        seq >> 48 & 0xfff,
        seq & 0xffff_ffff_ffff
    )
}

/// What [`urn`] made, as the position's own text; other ids as they are.
pub fn since(id: &str) -> Cow<'_, str> {
    match position(id) {
        Some(position) => Cow::Owned(position.text()),
        None => Cow::Borrowed(id),
    }
}

fn position(id: &str) -> Option<Position> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let parts: Vec<&str> = id.strip_prefix("urn:uuid:")?.split('-').collect();
    let [epoch, "0000", high, middle, low] = parts[..] else {
        return None;
    };
    let position = Position {
        epoch: u32::from_str_radix(epoch, 16).ok()?,
        seq: hex(high.strip_prefix('8')?)? << 60
            | hex(middle.strip_prefix('8')?)? << 48
            | hex(low)?,
    };
    // Whatever is written in another way was not made here.
    (urn(position) == id).then_some(position)
}

/// What a subscriber sees of a message's content.
fn text(payload: &Payload) -> Cow<'_, [u8]> {
    match payload {
        Payload::Json(json) if json.first() == Some(&b'"') => {
            match serde_json::from_slice::<String>(json) {
                Ok(text) => Cow::Owned(text.into_bytes()),
                Err(_) => Cow::Borrowed(json),
            }
        }
        Payload::Json(json) => Cow::Borrowed(json),
        Payload::Binary(bytes) => Cow::Owned(BASE64.encode(bytes).into_bytes()),
    }
}

/// The content of a message that a publisher has posted as `text`.
pub fn payload(text: String) -> Payload {
    let is_string = text
        .trim_start_matches([' ', '\t', '\n', '\r'])
        .starts_with('"');
    if !is_string && serde_json::from_str::<IgnoredAny>(&text).is_ok() {
        return Payload::Json(text.into());
    }
    let json = serde_json::to_vec(&text).expect("a string always serializes");
    Payload::Json(json.into())
}

/// An update as it was posted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// The canonical topic, then others.
    pub topics: Vec<String>,
    /// The new version, empty when there is none.
    pub data: String,
    /// Whether it is for those who may have it only.
    pub private: bool,
    /// Its id, if it has one already.
    pub id: Option<String>,
    /// The event's name, if it has one.
    pub event: Option<String>,
    /// How long to wait before one reconnects, in milliseconds.
    pub retry: Option<u64>,
}

impl Update {
    /// Reads a form (`application/x-www-form-urlencoded`). The error is in words.
    pub fn parse(form: &[u8], max_topics: usize) -> Result<Self, String> {
        let mut update = Self::default();
        for (name, value) in form_urlencoded::parse(form) {
            let value = || value.into_owned();
            match &*name {
                "topic" if update.topics.len() == max_topics => {
                    return Err(format!("an update may have {max_topics} topics"));
                }
                "topic" => update.topics.push(value()),
                "data" => update.data = value(),
                "private" => update.private = true,
                "id" => update.id = Some(value()).filter(|id| !id.is_empty()),
                "type" => update.event = Some(value()).filter(|event| !event.is_empty()),
                "retry" => {
                    let text = value();
                    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
                    let retry = text.parse().ok().filter(|_| is_plain);
                    let wrong = || format!("\"retry\" must be milliseconds, {text:?} given");
                    update.retry = match text.is_empty() {
                        true => None,
                        false => Some(retry.ok_or_else(wrong)?),
                    };
                }
                _ => {}
            }
        }
        if update.topics.is_empty() {
            return Err("name a \"topic\"".to_owned());
        }
        Ok(update)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_out_as_it_went_in() {
        for sent in [
            "",
            "hello",
            "{\"a\": 1}",
            "[1,\n2]",
            "12.0",
            "null",
            "\"quoted\"",
            " \"x\" ",
            "<b>\u{e4}</b>",
            "{broken",
            "\u{0}",
        ] {
            assert_eq!(
                *text(&payload(sent.to_owned())),
                *sent.as_bytes(),
                "{sent:?}"
            );
        }
        assert_eq!(
            payload("{\"a\": 1}".into()),
            Payload::Json("{\"a\": 1}".into())
        );
        assert_eq!(payload("hello".into()), Payload::Json("\"hello\"".into()));
    }

    #[test]
    fn a_position_is_a_urn() {
        for seq in [0, 1, 42, 1 << 47, 1 << 48, u64::MAX] {
            let there = Position {
                epoch: 0x1f00_aa31,
                seq,
            };
            assert_eq!(position(&urn(there)), Some(there));
            assert_eq!(since(&urn(there)), there.text());
        }
        let of_42 = urn(Position {
            epoch: 0x1f00_aa31,
            seq: 42,
        });
        assert_eq!(of_42, "urn:uuid:1f00aa31-0000-8000-8000-00000000002a");
        for other in [
            "",
            "1f00aa31-42",
            "urn:uuid:1F00AA31-0000-8000-8000-00000000002a",
            "urn:uuid:1f00aa31-0000-4000-8000-00000000002a",
            "urn:uuid:+f00aa31-0000-8000-8000-00000000002a",
            "urn:uuid:1f00aa31-0000-8000-8000-2a",
        ] {
            assert_eq!(since(other), other);
        }
    }

    #[test]
    fn line_ends_of_all_kinds() {
        let payload = payload("a\r\nb\rc\nd".to_owned());
        let outgoing = Outgoing {
            channel: Some("t"),
            id: Some("i"),
            cursor: None,
            event: &EventName::new("paid"),
            payload: &payload,
            retry: Some(7),
        };
        let expected = "event: paid\nretry: 7\nid: i\ndata: a\ndata: b\ndata: c\ndata: d\n\n";
        assert_eq!(event(&outgoing), expected.as_bytes());
    }

    #[test]
    fn a_form_is_an_update() {
        let update = Update::parse(
            b"topic=a&topic=b%2Fc&data=x+y&private=&id=&type=t&retry=5&more=1",
            2,
        );
        let expected = Update {
            topics: vec!["a".into(), "b/c".into()],
            data: "x y".into(),
            private: true,
            id: None,
            event: Some("t".into()),
            retry: Some(5),
        };
        assert_eq!(update, Ok(expected));
        for wrong in [
            "",
            "data=1",
            "topic=a&topic=b&topic=c",
            "topic=a&retry=-1",
            "topic=a&retry=x",
            "topic=a&retry=%2B5",
        ] {
            assert!(Update::parse(wrong.as_bytes(), 2).is_err(), "{wrong}");
        }
    }
}
