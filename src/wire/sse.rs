//! Server-Sent Events (HTML standard, section 9.2.6, "interpreting an event stream").
//!
//! Imports `ids` and `message`.

use std::time::Duration;

use super::envelope::{self, ServerFrame};
use super::{Outgoing, base64_json};
use crate::ids::Position;
use crate::message::{EventName, Payload};

/// The first lines of a stream: how long to wait before reconnecting.
pub fn retry(wait: Duration) -> Vec<u8> {
    format!("retry: {}\n\n", wait.as_millis()).into_bytes()
}

/// Where a client stands that has seen no event yet: an id alone, which it notes and shows nobody.
pub fn cursor(position: Position) -> Vec<u8> {
    format!("id: {position}\n\n").into_bytes()
}

/// One event.
pub fn message(message: &Outgoing<'_>, meta: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.payload.len() + 96);
    if let Some(id) = message.id {
        line(b"id: ", id.as_bytes(), &mut out);
    }
    if *message.event != EventName::Message {
        line(b"event: ", message.event.as_str().as_bytes(), &mut out);
    }
    if meta {
        line(b"data: ", &envelope::message_line(message), &mut out);
    } else {
        match message.payload {
            Payload::Json(json) => lines(b"data: ", json, &mut out),
            Payload::Binary(bytes) => {
                out.extend_from_slice(b"data: ");
                base64_json(bytes, &mut out);
                out.push(b'\n');
            }
        }
    }
    out.push(b'\n');
    out
}

/// What a server frame is on a stream: a named event with `meta`, else a comment or nothing.
pub fn server_frame(frame: &ServerFrame<'_>, meta: bool) -> Option<Vec<u8>> {
    let name: &[u8] = match frame {
        ServerFrame::Welcome { .. } => b"realtime.welcome",
        ServerFrame::Subscribed { .. } => b"realtime.subscribed",
        ServerFrame::Unsubscribed { .. } => b"realtime.unsubscribed",
        ServerFrame::Error { .. } => b"realtime.error",
        ServerFrame::Presence { .. } | ServerFrame::Token { .. } | ServerFrame::Pong { .. } => {
            return None;
        }
    };
    let mut out = Vec::new();
    if meta {
        line(b"event: ", name, &mut out);
        line(b"data: ", &envelope::server_frame(frame), &mut out);
    } else if let ServerFrame::Subscribed {
        recovered: Some(false),
        oldest,
        ..
    } = frame
    {
        let oldest = oldest.unwrap_or("none");
        out.extend_from_slice(format!(": recovered=false oldest={oldest}\n").as_bytes());
    } else {
        return None;
    }
    out.push(b'\n');
    Some(out)
}

pub(super) fn line(field: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(field);
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// A field for each line of `value`: pretty-printed JSON has line ends outside its strings.
pub(super) fn lines(field: &[u8], value: &[u8], out: &mut Vec<u8>) {
    for part in value.split(|&b| b == b'\n' || b == b'\r') {
        line(field, part, out);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn an_event_is_one_block() {
        let payload = Payload::Json(Bytes::from_static(b"{\n\"a\":1}"));
        let event = EventName::new("paid");
        let outgoing = Outgoing {
            channel: Some("c"),
            id: Some("i"),
            cursor: None,
            event: &event,
            payload: &payload,
            retry: None,
        };
        assert_eq!(
            message(&outgoing, false),
            b"id: i\nevent: paid\ndata: {\ndata: \"a\":1}\n\n"
        );
        let with_meta = String::from_utf8(message(&outgoing, true)).unwrap();
        assert!(
            with_meta.ends_with(",\"data\":{ \"a\":1}}\n\n"),
            "{with_meta:?}"
        );
        assert_eq!(
            with_meta.matches("data: ").count(),
            1,
            "an envelope is a line"
        );
    }
}
