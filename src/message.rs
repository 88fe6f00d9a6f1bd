//! What travels: payloads, publications, connections as PHP sees them, and what clients send.
//!
//! Built by `php` or `control` (outbound) and by the transports (inbound), carried through `node`, and
//! read by `wire`, which turns them into bytes. Imports `ids` and `auth`.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use bytes::Bytes;

use crate::auth::{self, Grant};
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

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// `/ws`: the native protocol over WebSocket.
    WebSocket,
    /// `/raw/{channel}`: bare WebSocket.
    Raw,
    /// `/sse`: Server-Sent Events.
    Sse,
    /// `/stream`: one JSON object a line over HTTP.
    Stream,
    /// `/poll`: long polling.
    Poll,
    /// `POST /publish` of a client that has no other connection.
    Http,
    /// `/app/{key}`: the Pusher protocol over WebSocket.
    Pusher,
}

impl Transport {
    /// All of them, in the order of [`Transport::index`].
    pub const ALL: [Self; 7] = [
        Self::WebSocket,
        Self::Raw,
        Self::Sse,
        Self::Stream,
        Self::Poll,
        Self::Http,
        Self::Pusher,
    ];

    /// Its place in [`Transport::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name that PHP sees.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Raw => "raw",
            Self::Sse => "sse",
            Self::Stream => "stream",
            Self::Poll => "poll",
            Self::Http => "http",
            Self::Pusher => "pusher",
        }
    }
}

/// A connection as PHP sees it: fixed at the handshake.
///
/// The request is kept as one block of text, because most connections are never looked at and there may be
/// a hundred thousand of them.
pub struct ConnectionInfo {
    /// Its id.
    pub id: ConnectionId,
    /// How it is connected.
    pub transport: Transport,
    /// The client's address without the port; empty for a Unix socket. What a proxy said, when it is trusted.
    pub ip: Box<str>,
    /// Whether a trusted proxy said that the client speaks TLS. Known to the server alone.
    pub(crate) secure: bool,
    /// The secret with which a `POST /publish` proves to come from this connection; 0 where it is not known.
    pub(crate) key: u64,
    /// `path?query` on the first line, then `name: value` lines, names in lower case.
    head: Box<str>,
    /// What PHP keeps with the connection between two events, as JSON; none for null. Bounded by
    /// `realtime.state_size`.
    // A lock because shards, the control thread and PHP's own thread hold the same connection; taken only when an
    // event is handed out or its outcome comes back.
    state: Mutex<Option<Box<str>>>,
    /// Who it is: the `sub` of its token, or as whom it has signed in since.
    user: OnceLock<Box<str>>,
    /// What its token allows; none without a token. Another when the client has refreshed it, of the same user.
    // A lock because `rt_revoke()` looks from other threads; taken for a clone of the pointer.
    grant: Mutex<Option<Arc<Grant>>>,
}

impl std::fmt::Debug for ConnectionInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the head, which has cookies and tokens, and without the key.
        f.debug_struct("ConnectionInfo")
            .field("id", &self.id)
            .field("transport", &self.transport)
            .field("ip", &self.ip)
            .finish_non_exhaustive()
    }
}

impl ConnectionInfo {
    /// Makes one of a request's target and headers. Values lose what is not UTF-8.
    pub fn new<'a>(
        id: ConnectionId,
        key: u64,
        transport: Transport,
        ip: &str,
        target: &str,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Self {
        let mut head = String::with_capacity(256);
        head.push_str(target);
        for (name, value) in headers {
            head.push('\n');
            head.push_str(name);
            head.push_str(": ");
            head.push_str(&String::from_utf8_lossy(value));
        }
        Self {
            id,
            transport,
            ip: ip.into(),
            secure: false,
            key,
            head: head.into_boxed_str(),
            state: Mutex::default(),
            user: OnceLock::new(),
            grant: Mutex::default(),
        }
    }

    /// With what its token says.
    pub fn with_grant(self, grant: Option<Grant>) -> Self {
        Self {
            user: known(grant.as_ref().and_then(|grant| grant.user.clone())),
            grant: Mutex::new(grant.map(Arc::new)),
            ..self
        }
    }

    /// As [`ConnectionInfo::user`] of the same connection elsewhere.
    pub fn with_user(self, user: Option<Box<str>>) -> Self {
        Self {
            user: known(user),
            ..self
        }
    }

    /// The same connection rebuilt from [`ConnectionInfo::head`], as the control socket carries it.
    pub fn from_head(id: ConnectionId, transport: Transport, ip: &str, head: &str) -> Self {
        Self {
            id,
            transport,
            ip: ip.into(),
            secure: false,
            key: 0,
            head: head.into(),
            state: Mutex::default(),
            user: OnceLock::new(),
            grant: Mutex::default(),
        }
    }

    /// Whether `key` is its own.
    pub(crate) fn has_key(&self, key: u64) -> bool {
        auth::is_same(&self.key.to_ne_bytes(), &key.to_ne_bytes())
    }

    /// Who it is, if its token said so or it has signed in.
    pub fn user(&self) -> Option<&str> {
        self.user.get().map(|user| &**user)
    }

    /// Notes as whom it has signed in. `false` when it is somebody else already.
    pub fn sign_in(&self, user: &str) -> bool {
        &**self.user.get_or_init(|| user.into()) == user
    }

    /// What its token allows, if it has one.
    pub fn grant(&self) -> Option<Arc<Grant>> {
        self.grant
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes a fresh token of the same user. Returns the grant before.
    pub fn refresh(&self, grant: Arc<Grant>) -> Option<Arc<Grant>> {
        self.grant
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(grant)
    }

    /// The request as one block of text: the target, then a line for each header.
    pub fn head(&self) -> &str {
        &self.head
    }

    /// What PHP keeps with the connection, as JSON.
    pub fn state(&self) -> Option<Box<str>> {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Keeps another state; `None` for null.
    pub fn set_state(&self, state: Option<Box<str>>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// The path of the request, without the query.
    pub fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or_default()
    }

    /// The query of the request as it was sent, without the `?`; empty when there is none.
    pub fn query(&self) -> &str {
        self.target().split_once('?').map_or("", |(_, query)| query)
    }

    /// The headers in the order sent, names in lower case. A name may come more than once.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.head
            .split('\n')
            .skip(1)
            // A name has no colon; to look for one byte costs a third of looking for two.
            .filter_map(|line| {
                let (name, value) = line.split_once(':')?;
                Some((name, value.strip_prefix(' ')?))
            })
    }

    /// The path and query of the request, as they were sent.
    pub fn target(&self) -> &str {
        self.head.split('\n').next().unwrap_or_default()
    }
}

fn known(user: Option<Box<str>>) -> OnceLock<Box<str>> {
    user.map_or_else(OnceLock::new, OnceLock::from)
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
