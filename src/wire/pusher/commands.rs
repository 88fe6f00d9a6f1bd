//! What clients send.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::payload;
use crate::message::Payload;
use crate::wire::native::{has_half_a_pair, too_deep};

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
