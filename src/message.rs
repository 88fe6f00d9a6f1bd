//! What travels: payloads, publications, connections as PHP sees them, and what clients send.
//!
//! Built by `php` or `control` (outbound) and by the transports (inbound), carried through `node`, and
//! read by `wire`, which turns them into bytes. Imports `ids` and `auth`.

mod connection;
mod copying;

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

pub use self::connection::{ConnectionInfo, Transport};
pub use self::copying::Copier;
use crate::auth::Grant;
use crate::ids::{Channel, ConnectionId, Position};

/// A message's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A JSON document in UTF-8, as `json_encode()` made it.
    Json(Bytes),
    /// Bytes that are not JSON: a `Realtime\Binary`, or a PHP string that is not UTF-8.
    Binary(Bytes),
}

impl Payload {
    /// The number of bytes it holds.
    pub fn len(&self) -> usize {
        match self {
            Self::Json(bytes) | Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Whether it holds no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// An event's name. Nearly all are `message`, which costs no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventName {
    /// `message`, the default.
    Message,
    /// Somebody has come to a presence channel: the server's own.
    Join,
    /// Somebody has left one: the server's own.
    Leave,
    /// Any other.
    Other(Arc<str>),
    /// A client event (`client-…`) of somebody that others on the channel know.
    Said {
        /// The event.
        name: Arc<str>,
        /// As whom.
        by: Arc<str>,
    },
}

impl EventName {
    /// Takes a name that [`crate::ids::check_event`] has accepted, or one of the server's own.
    pub fn new(name: &str) -> Self {
        match name {
            "message" => Self::Message,
            "realtime.join" => Self::Join,
            "realtime.leave" => Self::Leave,
            other => Self::Other(other.into()),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Message => "message",
            Self::Join => "realtime.join",
            Self::Leave => "realtime.leave",
            Self::Other(name) | Self::Said { name, .. } => name,
        }
    }

    /// As whom a client said it, if others know it by a name.
    pub fn by(&self) -> Option<&str> {
        match self {
            Self::Said { by, .. } => Some(by),
            _ => None,
        }
    }

    /// Whether it tells who is on a channel, and is no message.
    pub fn is_presence(&self) -> bool {
        matches!(self, Self::Join | Self::Leave)
    }
}

/// What a publisher may say of a message beside its content: the Mercure protocol has all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Whether only those get it whose token says so.
    pub private: bool,
    /// How long EventSource is to wait before it reconnects, in milliseconds.
    pub retry: Option<u64>,
    /// All channels that it went to, when they are topics of one update, of which a client gets one copy.
    pub topics: Box<[Channel]>,
    /// The number of the first of those copies, or of the copies of one publisher's id; the broker sets it.
    pub first: u64,
}

impl Terms {
    /// The most topics of one update.
    pub const TOPICS_MAX: usize = 1000;
}

/// What a publisher asks for: one message to one or several channels.
#[derive(Clone, Debug)]
pub struct Publish {
    /// Where to; at least one.
    pub channels: Vec<Channel>,
    /// What.
    pub payload: Payload,
    /// Under which event name.
    pub event: EventName,
    /// Who does not get it: its author, mostly.
    pub except: Option<ConnectionId>,
    /// The publisher's own id; the same id in the same channel is accepted once.
    pub id: Option<Box<str>>,
    /// Whether it is kept in history.
    pub store: bool,
    /// Mostly nothing.
    pub terms: Option<Box<Terms>>,
}

/// A message that the broker accepted: it has its place in a channel.
#[derive(Debug)]
pub struct Publication {
    /// Where it went.
    pub channel: Channel,
    /// Its place.
    pub position: Position,
    /// The publisher's own id, when given: clients see it in place of the position.
    pub id: Option<Box<str>>,
    /// Its event name.
    pub event: EventName,
    /// Its content.
    pub payload: Payload,
    /// Who does not get it.
    pub except: Option<ConnectionId>,
    /// When it was accepted; history forgets by it.
    pub at: Instant,
    /// Mostly nothing.
    pub terms: Option<Arc<Terms>>,
}

impl Publication {
    /// Whether only those get it whose token says so.
    pub fn is_private(&self) -> bool {
        self.terms.as_ref().is_some_and(|terms| terms.private)
    }

    /// Whether not every subscriber of its channel gets it.
    pub fn has_conditions(&self) -> bool {
        self.is_private() || !self.topics().is_empty()
    }

    /// The topics of the update that this is a copy of, when there are several; its own channel is one of them.
    pub fn topics(&self) -> &[Channel] {
        self.terms.as_ref().map_or(&[], |terms| &terms.topics)
    }

    /// The topics that come before its own channel among those: who follows one of them gets the copy that is there.
    pub fn earlier_topics(&self) -> impl Iterator<Item = &Channel> {
        let topics = self.topics().iter();
        topics.take_while(|topic| **topic != self.channel)
    }

    /// Whether a subscriber of its channel with this token may have it. Who is on a guarded channel was let in by name.
    pub fn is_open_to(&self, grant: Option<&Grant>) -> bool {
        !self.is_private() || self.channel.is_guarded() || self.is_granted(grant)
    }

    /// Whether this token is for its channel, or for another of its update's topics.
    pub fn is_granted(&self, grant: Option<&Grant>) -> bool {
        grant.is_some_and(|grant| {
            let mut topics = self.topics().iter();
            grant.opens(self.channel.as_str()) || topics.any(|topic| grant.opens(topic.as_str()))
        })
    }

    /// The id that clients and publishers see.
    pub fn public_id(&self) -> String {
        match &self.id {
            Some(id) => id.to_string(),
            None => self.position.text(),
        }
    }
}

/// What a client sent, before PHP decoded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// JSON, checked to be well-formed: from the native protocol and `POST /publish`.
    Json(Bytes),
    /// A text frame on `/raw`: valid UTF-8.
    Text(Bytes),
    /// A binary frame on `/raw`.
    Binary(Bytes),
}

impl Incoming {
    /// The bytes as they were sent.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Json(bytes) | Self::Text(bytes) | Self::Binary(bytes) => bytes,
        }
    }

    /// The number of bytes it holds.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Whether it holds no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A client's message on its way to PHP's `rt_on_message()` handlers.
#[derive(Debug)]
pub struct ClientMessage {
    /// Who sent it.
    pub from: Arc<ConnectionInfo>,
    /// For which channel.
    pub channel: Channel,
    /// Under which event name.
    pub event: EventName,
    /// A number of this hub, unique among client messages.
    pub number: u64,
    /// What.
    pub data: Incoming,
}
