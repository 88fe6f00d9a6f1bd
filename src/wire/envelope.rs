//! The JSON objects that the server sends (php/docs/protocol.md): `message` by hand, since its data is JSON
//! already and it is the broadcast path; everything else by serde.
//!
//! Imports `ids` and `message`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Outgoing, base64_json};
use crate::ids::Position;
use crate::message::{EventName, Payload};

/// A frame about the connection itself.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[expect(
    missing_docs,
    reason = "the fields are those of php/docs/protocol.md, by name"
)]
pub enum ServerFrame<'a> {
    Welcome {
        connection: &'a str,
        key: &'a str,
        version: u8,
        ping: u64,
        max_message_size: usize,
        /// Seconds until the token expires.
        #[serde(skip_serializing_if = "Option::is_none")]
        expires: Option<u64>,
    },
    Subscribed {
        channel: &'a str,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a RawValue>,
        id: &'a str,
        /// Where it stands before what it gets first, when that was published before this.
        #[serde(skip)]
        before: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        recovered: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        oldest: Option<&'a str>,
        /// Whether the next message is the newest of a cache channel, published before this.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        cached: bool,
        /// Of a presence channel: who is there.
        #[serde(skip_serializing_if = "Option::is_none")]
        members: Option<&'a [Attendee<'a>]>,
    },
    Presence {
        channel: &'a str,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a RawValue>,
        members: &'a [Attendee<'a>],
    },
    Unsubscribed {
        channel: &'a str,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a RawValue>,
    },
    Token {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a RawValue>,
        expires: u64,
    },
    Pong {
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a RawValue>,
        /// Whether it has overtaken messages that were missed.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        behind: bool,
    },
    Error {
        code: &'a str,
        message: &'a str,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        channel: Option<&'a str>,
    },
}

/// Somebody who is present, as others see it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Attendee<'a> {
    /// Who.
    pub user: &'a str,
    /// What the others may know of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<&'a RawValue>,
}

/// The JSON of a server frame, on one line: what a token says of its user may be pretty-printed.
pub fn server_frame(frame: &ServerFrame<'_>) -> Vec<u8> {
    let json = serde_json::to_vec(frame);
    let mut line = json.expect("strings, numbers and ready-made JSON always serialize");
    straighten(&mut line);
    line
}

/// The JSON of a `message`; or of a `join` or `leave`, whose payload is an [`Attendee`].
pub fn message(message: &Outgoing<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.payload.len() + 128);
    out.extend_from_slice(match message.event {
        EventName::Join => b"{\"type\":\"join\"",
        EventName::Leave => b"{\"type\":\"leave\"",
        _ => b"{\"type\":\"message\"",
    });
    if let Some(channel) = message.channel {
        out.extend_from_slice(b",\"channel\":");
        string(channel, &mut out);
    }
    if !message.event.is_presence() {
        out.extend_from_slice(b",\"event\":");
        string(message.event.as_str(), &mut out);
    }
    if let Some(id) = message.id {
        out.extend_from_slice(b",\"id\":");
        string(id, &mut out);
    }
    if let Some(cursor) = message.cursor {
        out.extend_from_slice(b",\"cursor\":");
        string(cursor, &mut out);
    }
    match message.payload {
        // Its fields are the frame's own.
        Payload::Json(attendee) if message.event.is_presence() => {
            out.push(b',');
            out.extend_from_slice(attendee.strip_prefix(b"{").unwrap_or(b"}"));
        }
        payload => {
            data(payload, &mut out);
            out.push(b'}');
        }
    }
    out
}

/// Where a `message` says that it stands: read back from its JSON, where nothing else of it is left.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Place<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    cursor: Option<Cow<'a, str>>,
}

impl<'a> Place<'a> {
    /// Reads it.
    pub fn of(message: &'a [u8]) -> Self {
        serde_json::from_slice(message).unwrap_or_default()
    }

    /// Whether this is its id.
    pub fn goes_by(&self, id: &str) -> bool {
        self.id.as_deref() == Some(id)
    }

    /// Its number; none of what was sent to one connection alone.
    pub fn position(&self) -> Option<Position> {
        let cursor = self.cursor.as_ref().or(self.id.as_ref());
        cursor?.parse().ok()
    }
}

/// The JSON of a `message` on one line: pretty-printed data has line ends, though never inside a string.
pub fn message_line(outgoing: &Outgoing<'_>) -> Vec<u8> {
    let mut line = message(outgoing);
    straighten(&mut line);
    line
}

/// The JSON of a `reply`; `reference` is the client's own `ref`, JSON already.
pub fn reply(reference: Option<&str>, payload: Option<&Payload>) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.map_or(4, Payload::len) + 48);
    out.extend_from_slice(b"{\"type\":\"reply\"");
    if let Some(reference) = reference {
        out.extend_from_slice(b",\"ref\":");
        out.extend_from_slice(reference.as_bytes());
    }
    match payload {
        Some(payload) => data(payload, &mut out),
        None => out.extend_from_slice(b",\"data\":null"),
    }
    out.push(b'}');
    out
}

fn data(payload: &Payload, out: &mut Vec<u8>) {
    match payload {
        Payload::Json(json) => {
            out.extend_from_slice(b",\"data\":");
            out.extend_from_slice(json);
        }
        Payload::Binary(bytes) => {
            out.extend_from_slice(b",\"encoding\":\"base64\",\"data\":");
            base64_json(bytes, out);
        }
    }
}

/// Puts JSON on one line.
fn straighten(json: &mut [u8]) {
    for byte in json {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

fn string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a Vec takes what is written to it");
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn messages() {
        let payload = Payload::Json(Bytes::from_static(b"{\"a\":1}"));
        let event = EventName::new("it's \"x\"");
        let full = Outgoing {
            retry: None,
            channel: Some("c"),
            id: Some("00000001-2"),
            cursor: None,
            event: &event,
            payload: &payload,
        };
        assert_eq!(
            String::from_utf8(message(&full)).unwrap(),
            r#"{"type":"message","channel":"c","event":"it's \"x\"","id":"00000001-2","data":{"a":1}}"#
        );
        let own = Outgoing {
            id: Some("own"),
            cursor: Some("00000001-2"),
            event: &EventName::Message,
            ..full
        };
        assert_eq!(
            String::from_utf8(message(&own)).unwrap(),
            r#"{"type":"message","channel":"c","event":"message","id":"own","cursor":"00000001-2","data":{"a":1}}"#
        );
        let binary = Payload::Binary(Bytes::from_static(&[0, 255]));
        let direct = Outgoing {
            retry: None,
            channel: None,
            id: None,
            cursor: None,
            event: &EventName::Message,
            payload: &binary,
        };
        assert_eq!(
            String::from_utf8(message(&direct)).unwrap(),
            r#"{"type":"message","event":"message","encoding":"base64","data":"AP8="}"#
        );
        let attendee = Payload::Json(Bytes::from_static(b"{\"user\":\"ada\",\"info\":[1]}"));
        let join = Outgoing {
            event: &EventName::Join,
            payload: &attendee,
            ..full
        };
        assert_eq!(
            String::from_utf8(message(&join)).unwrap(),
            r#"{"type":"join","channel":"c","id":"00000001-2","user":"ada","info":[1]}"#
        );
    }

    #[test]
    fn server_frames() {
        let json = server_frame(&ServerFrame::Error {
            code: "bad_json",
            message: "no",
            reference: None,
            channel: None,
        });
        assert_eq!(
            json,
            br#"{"type":"error","code":"bad_json","message":"no"}"#
        );
        let info = RawValue::from_string("{\r\n\"a\": 1\n}".to_owned()).unwrap();
        let json = server_frame(&ServerFrame::Presence {
            channel: "presence-a",
            reference: None,
            members: &[Attendee {
                user: "ada",
                info: Some(&info),
            }],
        });
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#"{"type":"presence","channel":"presence-a","members":[{"user":"ada","info":{  "a": 1 }}]}"#
        );
    }
}
