//! The Pusher protocol, version 7: what its clients send, parsed once, and the events that they get.
//!
//! An event is a JSON object with a name, mostly a channel, and data that is JSON once more inside a string. What an
//! application publishes as such a string ([`payload`]) is the JSON in it to everybody else. Imports `message`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::envelope::{Attendee, ServerFrame};
use super::native::{has_half_a_pair, too_deep};
use super::{Outgoing, websocket};
use crate::message::{EventName, Payload};

/// What a client asks for. Names are as they were sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// `pusher:subscribe`
    Subscribe(Subscribe),
    /// `pusher:unsubscribe`
    Unsubscribe {
        /// Which channel.
        channel: String,
    },
    /// `pusher:signin`
    Signin {
        /// The application's signature.
        auth: String,
        /// As whom: JSON, as it was signed.
        user_data: String,
    },
    /// `pusher:ping`
    Ping,
    /// `pusher:pong`
    Pong,
    /// Any other: an event for others on the channel.
    Event {
        /// Which channel.
        channel: String,
        /// Its name.
        event: String,
        /// Its data.
        data: Payload,
    },
}

/// What is in a `pusher:subscribe`.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Subscribe {
    /// Which channel.
    pub channel: String,
    /// The application's signature.
    #[serde(default)]
    pub auth: Option<String>,
    /// On presence channels, as whom: JSON, as it was signed.
    #[serde(default)]
    pub channel_data: Option<String>,
    /// Of a client that resumes (`/pusher-resume.js`): the newest id that it has of this channel.
    #[serde(default)]
    pub since: Option<String>,
}

/// The client's mistake, in words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Mistake(pub String);

#[derive(Deserialize)]
struct Frame<'a> {
    event: String,
    channel: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// Reads one frame.
pub fn parse(text: &str) -> Result<Command, Mistake> {
    if too_deep(text.as_bytes()) {
        return Err(Mistake("the message is nested deeper than 128".into()));
    }
    let frame: Frame<'_> = serde_json::from_str(text)
        .map_err(|error| Mistake(format!("the message is no event: {error}")))?;
    let data = frame.data.map_or("null", RawValue::get);
    match &*frame.event {
        "pusher:ping" => Ok(Command::Ping),
        "pusher:pong" => Ok(Command::Pong),
        "pusher:subscribe" => object(data).map(Command::Subscribe),
        "pusher:unsubscribe" => {
            let Subscribe { channel, .. } = object(data)?;
            Ok(Command::Unsubscribe { channel })
        }
        "pusher:signin" => {
            #[derive(Deserialize)]
            struct Signin {
                auth: String,
                user_data: String,
            }
            let Signin { auth, user_data } = object(data)?;
            Ok(Command::Signin { auth, user_data })
        }
        _ => {
            let channel = frame
                .channel
                .ok_or_else(|| Mistake("the event has no channel".into()))?;
            if has_half_a_pair(data.as_bytes()) {
                let text = "a \\u escape in the data is half of a surrogate pair";
                return Err(Mistake(text.into()));
            }
            Ok(Command::Event {
                channel,
                event: frame.event,
                data: match serde_json::from_str::<String>(data) {
                    Ok(text) => payload(&text),
                    Err(_) => Payload::Json(Bytes::copy_from_slice(data.as_bytes())),
                },
            })
        }
    }
}

/// Reads data, which some clients send as JSON in a string.
fn object<T: DeserializeOwned>(data: &str) -> Result<T, Mistake> {
    let read = match serde_json::from_str::<String>(data) {
        Ok(text) => serde_json::from_str(&text),
        Err(_) => serde_json::from_str(data),
    };
    read.map_err(|error| Mistake(format!("the event's data does not fit: {error}")))
}

/// What an application publishes: the JSON that `data` is, or `data` as a string if it is none.
pub fn payload(data: &str) -> Payload {
    if is_json(data) {
        return Payload::Json(Bytes::copy_from_slice(data.as_bytes()));
    }
    let json = serde_json::to_vec(data).expect("a string always serializes");
    Payload::Json(json.into())
}

fn is_json(text: &str) -> bool {
    !too_deep(text.as_bytes())
        && !has_half_a_pair(text.as_bytes())
        && serde_json::from_str::<&RawValue>(text).is_ok()
}

/// The reverse of [`payload`]: what is in the string of an event's data.
pub fn data(payload: &Payload) -> String {
    match payload {
        Payload::Json(json) => {
            let text = String::from_utf8_lossy(json);
            if json.first() == Some(&b'"')
                && let Ok(string) = serde_json::from_str::<String>(&text)
                && !is_json(&string)
            {
                return string;
            }
            text.into_owned()
        }
        Payload::Binary(bytes) => {
            use base64::Engine as _;
            super::BASE64.encode(bytes)
        }
    }
}

/// An event with a message. `id` is for clients that resume; others do not look at it.
pub fn message(message: &Outgoing<'_>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Message<'a> {
        event: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        channel: Option<&'a str>,
        data: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        user_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a str>,
    }
    let (event, data) = member(message.event, message.payload)
        .unwrap_or_else(|| (message.event.as_str(), data(message.payload)));
    json(
        data.len() + data.len() / 8 + 160,
        &Message {
            event,
            channel: message.channel,
            data: &data,
            user_id: message.event.by(),
            id: message.cursor.or(message.id),
        },
    )
}

/// A frame about the connection itself, where this protocol has one for it.
pub fn server_frame(frame: &ServerFrame<'_>) -> Option<Vec<u8>> {
    match frame {
        ServerFrame::Subscribed {
            channel,
            id,
            recovered,
            members,
            ..
        } => {
            let data = members.map_or_else(|| "{}".to_owned(), members_data);
            Some(subscribed(channel, &data, id, *recovered))
        }
        ServerFrame::Unsubscribed { channel, .. } => {
            let message = "the server has ended the subscription";
            Some(subscription_error(channel, "Unsubscribed", message, 403))
        }
        ServerFrame::Error { message, .. } => Some(error(None, message)),
        ServerFrame::Welcome { .. }
        | ServerFrame::Presence { .. }
        | ServerFrame::Token { .. }
        | ServerFrame::Pong { .. } => None,
    }
}

/// Who is on a presence channel.
fn members_data(members: &[Attendee<'_>]) -> String {
    #[derive(Serialize)]
    struct Presence<'a> {
        count: usize,
        ids: Vec<&'a str>,
        hash: BTreeMap<&'a str, Option<&'a RawValue>>,
    }
    #[derive(Serialize)]
    struct Data<'a> {
        presence: Presence<'a>,
    }
    let presence = Presence {
        count: members.len(),
        ids: members.iter().map(|member| member.user).collect(),
        hash: members
            .iter()
            .map(|member| (member.user, member.info))
            .collect(),
    };
    serde_json::to_string(&Data { presence }).expect("strings and ready-made JSON always serialize")
}

/// What is published when somebody comes or goes, as this protocol says it.
fn member(event: &EventName, payload: &Payload) -> Option<(&'static str, String)> {
    #[derive(Serialize)]
    struct Member<'a> {
        user_id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        user_info: Option<&'a RawValue>,
    }
    let name = match event {
        EventName::Join => "pusher_internal:member_added",
        EventName::Leave => "pusher_internal:member_removed",
        _ => return None,
    };
    let Payload::Json(json) = payload else {
        return None;
    };
    let said: Said = serde_json::from_slice(json).ok()?;
    let member = Member {
        user_id: &said.user,
        user_info: said.info.as_deref(),
    };
    let data =
        serde_json::to_string(&member).expect("strings and ready-made JSON always serialize");
    Some((name, data))
}

#[derive(Deserialize)]
struct Said {
    user: String,
    info: Option<Box<RawValue>>,
}

/// `pusher:connection_established`
pub fn established(socket_id: &str, activity_timeout: u64) -> Vec<u8> {
    let data = serde_json::json!({
        "socket_id": socket_id,
        "activity_timeout": activity_timeout,
    });
    event("pusher:connection_established", None, &data.to_string())
}

/// `pusher:error`
pub fn error(code: Option<u16>, message: &str) -> Vec<u8> {
    let data = serde_json::json!({ "code": code, "message": message });
    event("pusher:error", None, &data.to_string())
}

/// `pusher:ping`
pub fn ping() -> Vec<u8> {
    event("pusher:ping", None, "{}")
}

/// `pusher:pong`
pub fn pong() -> Vec<u8> {
    event("pusher:pong", None, "{}")
}

/// `pusher_internal:subscription_succeeded`, with what a client needs that resumes: others do not look at it.
fn subscribed(channel: &str, data: &str, id: &str, recovered: Option<bool>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Subscribed<'a> {
        event: &'a str,
        channel: &'a str,
        data: &'a str,
        id: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        recovered: Option<bool>,
    }
    let frame = Subscribed {
        event: "pusher_internal:subscription_succeeded",
        channel,
        data,
        id,
        recovered,
    };
    json(160 + data.len(), &frame)
}

/// `pusher:subscription_error`
pub fn subscription_error(channel: &str, kind: &str, message: &str, status: u16) -> Vec<u8> {
    let data = serde_json::json!({ "type": kind, "error": message, "status": status });
    event(
        "pusher:subscription_error",
        Some(channel),
        &data.to_string(),
    )
}

/// Any event of the protocol's own.
pub fn event(name: &str, channel: Option<&str>, data: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Event<'a> {
        event: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        channel: Option<&'a str>,
        data: &'a str,
    }
    let frame = Event {
        event: name,
        channel,
        data,
    };
    json(128 + data.len(), &frame)
}

/// The last that a connection gets which the hub or PHP closes, with their code.
pub fn farewell(code: u16, reason: &str) -> Bytes {
    let code = match code {
        // Of ours: another hub has taken over, a bug, too slow. Come back at once.
        1011 | 1012 | 4008 => 4200,
        // No answer to a ping.
        4009 => 4201,
        // The token has expired, or was taken back.
        4010 | 4011 => 4009,
        other => other,
    };
    send_away(code, reason)
}

/// An error that says why, then the close frame. What a client should do about it is in the first two digits of a code of this
/// protocol: 40 stay away, 41 come back later, 42 come back at once.
pub fn send_away(code: u16, reason: &str) -> Bytes {
    let close = websocket::close(code, reason);
    if code < 4000 {
        return close;
    }
    let error = websocket::plain_text(&error(Some(code), reason));
    [error, close].concat().into()
}

fn json(size: usize, value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(size);
    serde_json::to_writer(&mut out, value).expect("a Vec takes what is written to it");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn data_comes_back_as_it_was_published() {
        for data in [
            "hello",
            "",
            "5",
            r#"{"a": [1.0, "x"]}"#,
            "null",
            "\"",
            "{broken",
            "\u{0}\u{1f600}",
        ] {
            assert_eq!(super::data(&payload(data)), data);
        }
        let Payload::Json(json) = payload("hello") else {
            panic!("not JSON")
        };
        assert_eq!(&json[..], b"\"hello\"");
        // A string of PHP's that would be taken for a number.
        let five = Payload::Json(Bytes::from_static(b"\"5\""));
        assert_eq!(super::data(&five), "\"5\"");
        // What a JSON string says may be written in two ways.
        assert_eq!(super::data(&payload("\"hello\"")), "hello");
    }

    #[test]
    fn messages() {
        let payload = Payload::Json(Bytes::from_static(b"{\"a\":\"b\\\"\"}"));
        let event = EventName::Said {
            name: "client-typing".into(),
            by: "ada".into(),
        };
        let outgoing = Outgoing {
            channel: Some("presence-a"),
            id: Some("own"),
            cursor: Some("00000001-2"),
            event: &event,
            payload: &payload,
            retry: None,
        };
        assert_eq!(
            text(message(&outgoing)),
            r#"{"event":"client-typing","channel":"presence-a","data":"{\"a\":\"b\\\"\"}","user_id":"ada","id":"00000001-2"}"#
        );
    }

    #[test]
    fn frames_are_read() {
        let subscribe = |data: &str| {
            parse(&format!(r#"{{"event":"pusher:subscribe","data":{data}}}"#)).unwrap()
        };
        let expected = Command::Subscribe(Subscribe {
            channel: "a".into(),
            auth: Some("k:s".into()),
            ..Subscribe::default()
        });
        assert_eq!(subscribe(r#"{"channel":"a","auth":"k:s"}"#), expected);
        // As some clients write it.
        assert_eq!(
            subscribe(r#""{\"channel\":\"a\",\"auth\":\"k:s\",\"more\":1}""#),
            expected
        );
        let event = |data: &str| {
            let frame = format!(r#"{{"event":"client-x","channel":"private-a","data":{data}}}"#);
            match parse(&frame).unwrap() {
                Command::Event { data, .. } => super::data(&data),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(event(r#"{"a": 1}"#), r#"{"a": 1}"#);
        assert_eq!(event(r#""{\"a\":1}""#), r#"{"a":1}"#);
        assert_eq!(event(r#""plain""#), "plain");
        assert_eq!(parse(r#"{"event":"pusher:ping"}"#), Ok(Command::Ping));
        for bad in [
            "",
            "[]",
            "{}",
            "nonsense",
            r#"{"event":7}"#,
            r#"{"event":"pusher:subscribe"}"#,
            r#"{"event":"pusher:subscribe","data":{"channel":7}}"#,
            r#"{"event":"pusher:signin","data":{"auth":"x"}}"#,
            r#"{"event":"client-x","data":{}}"#,
            r#"{"event":"client-x","channel":"a","data":"\ud83d"}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let deep = format!(
            r#"{{"event":"client-x","channel":"a","data":{}"#,
            "[".repeat(200)
        );
        assert!(parse(&deep).is_err());
    }

    #[test]
    fn a_client_is_told_whether_to_come_back() {
        let code = |of: u16| {
            let farewell = farewell(of, "why");
            let close = &farewell[farewell.len() - 5..];
            u16::from_be_bytes([close[0], close[1]])
        };
        assert_eq!(
            [1001, 1012, 4008, 4009, 4011, 4100, 4900].map(code),
            [1001, 4200, 4200, 4201, 4009, 4100, 4900]
        );
        assert!(farewell(4100, "why").starts_with(b"\x81"));
    }
}
