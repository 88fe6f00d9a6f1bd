//! What clients get.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::data;
use crate::message::{EventName, Payload};
use crate::wire::envelope::{Attendee, ServerFrame};
use crate::wire::{Outgoing, websocket};

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
            before,
            recovered,
            members,
            ..
        } => {
            let data = members.map_or_else(|| "{}".to_owned(), members_data);
            // Its clients note it at once: whoever is cut off before the first message has to ask for that one again.
            let id = before.unwrap_or(id);
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

/// The last that a connection gets which the hub closes, with its code.
pub fn farewell(code: u16, reason: &str) -> Bytes {
    match code {
        // Another hub has taken over, a bug, too slow. Come back at once.
        1011 | 1012 | 4008 => send_away(4200, reason),
        // No answer to a ping.
        4009 => send_away(4201, reason),
        other => dismissal(other, reason),
    }
}

/// The last that a connection gets which PHP closes. What it says about coming back is PHP's to know, who speaks this protocol.
pub fn dismissal(code: u16, reason: &str) -> Bytes {
    let code = match code {
        // The token has expired, or was taken back.
        4010 | 4011 => 4009,
        // Mostly PHP's, for "go away"; in this protocol it would be "come back with TLS".
        4000 => 4003,
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
