//! The control socket's frames: how another PHP process on this machine talks to the hub.
//!
//! A frame is its length (4 bytes, little-endian), then one [`Request`] or [`Response`] in postcard's encoding.
//! A link begins with [`Hello`] and [`Greeting`], as JSON in the same framing, so that any two versions understand each
//! other's refusal. Imports `auth`, `ids` and `message`.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::auth::Grant;
use crate::ids::{Channel, ConnectionId, InvalidId};
use crate::message::{ConnectionInfo, EventName, Payload, Publish, Terms, Transport};

/// The version of these frames. Both sides must have the same.
pub const VERSION: u32 = 8;

/// The largest hello or greeting, in bytes: what is read from a peer before it is known to be one of ours.
pub const HELLO_MAX: usize = 4096;

/// What a frame may hold beside a message's content, in bytes.
pub const FRAME_OVERHEAD: usize = 512 << 10;

/// The first frame of the side that connects.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Always `realtime`.
    pub protocol: String,
    /// [`VERSION`].
    pub version: u32,
    /// Set by a process that a web server's or a pool's master has started.
    #[serde(default)]
    pub worker: Option<Worker>,
    /// What the link is for.
    #[serde(default)]
    pub purpose: Purpose,
}

/// A PHP process that a master has started, as the hub needs to know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// The master's process; the hub lives as long as one of its workers' masters.
    pub master: u32,
    /// See [`Identity::generation`].
    pub generation: u64,
    /// See [`Identity::fingerprint`].
    pub fingerprint: String,
}

/// What a link is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Requests, one after the other.
    #[default]
    Requests,
    /// Events for a PHP process that handles them.
    Attach,
    /// The other side is a new hub and takes everything over. Says which version of the hand-over it speaks.
    Takeover(u32),
}

/// Which hub it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// When the PHP master that it belongs to loaded the extension, in nanoseconds since the machine was started: what
    /// is newer takes over from what is older.
    pub generation: u64,
    /// Of the extension's file and the settings: one that is equal has nothing to take over.
    pub fingerprint: String,
    /// Whether it is a process of its own: then it can be taken over, and PHP processes can attach.
    pub detached: bool,
    /// By which a PHP process knows that a FastCGI request is the hub's, in hexadecimal. Never shown.
    pub secret: String,
}

/// The first frame of the hub.
#[derive(Debug, Serialize, Deserialize)]
pub struct Greeting {
    /// Its [`VERSION`].
    pub version: u32,
    /// Its process.
    pub pid: u32,
    /// Where clients connect.
    pub address: String,
    /// Its largest message, so that a too large one is refused before it is sent.
    pub max_message_size: usize,
    /// Which one it is. Not told to whom it refuses.
    #[serde(default)]
    pub identity: Identity,
    /// Why it refuses the link, when it does.
    pub refused: Option<String>,
}

/// What the other process asks for.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the method of `Node` of that name")]
pub enum Request<'a> {
    #[serde(borrow)]
    Publish(WirePublish<'a>),
    Send {
        to: u128,
        payload: WirePayload,
        event: String,
    },
    Subscribe {
        who: u128,
        channel: String,
    },
    Unsubscribe {
        who: u128,
        channel: String,
    },
    Close {
        who: u128,
        code: u16,
        reason: String,
    },
    Channels {
        pattern: String,
    },
    Connections {
        channel: Option<String>,
    },
    History {
        channel: String,
        limit: usize,
        since: Option<String>,
        before: Option<String>,
    },
    Stats,
    Disconnect {
        user: String,
        code: u16,
        reason: String,
    },
    RevokeUser {
        user: String,
    },
    RevokeToken {
        token: String,
    },
    /// The connection that has this key, for another hub, to which a message of `bytes` has come in its name. That counts here.
    Find {
        who: u128,
        key: u64,
        bytes: usize,
    },
    Members {
        channel: String,
    },
}

/// What the hub answers.
#[derive(Debug, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "each is the result of the request of that name"
)]
pub enum Response {
    Published(String),
    Done(bool),
    Channels(Vec<(String, usize)>),
    Connections(Vec<WireConnection>),
    History {
        entries: Vec<WireEntry>,
        recovered: bool,
        oldest: Option<String>,
        more: bool,
    },
    Stats(WireStats),
    Failed(WireFailure),
    Count(usize),
    Members(Vec<WireMember>),
    Found(Option<Box<WireFound>>),
}

/// A member of a presence channel.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of MemberSummary")]
pub struct WireMember {
    pub user: String,
    /// As JSON.
    pub info: Option<String>,
    pub connections: usize,
}

/// Why a request was not done.
#[derive(Debug, Serialize, Deserialize)]
pub enum WireFailure {
    /// A message over the hub's limit.
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The hub has too much to do.
    Busy,
    /// The hub is stopping.
    Stopped,
    /// The request makes no sense to the hub.
    Bad(String),
    /// The hub will not do it.
    Refused(String),
    /// Another hub serves this socket from now on: nothing was done, connect anew. May come without a request.
    Moved,
}

/// A [`Payload`].
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the variants of Payload")]
pub enum WirePayload {
    Json(Bytes),
    Binary(Bytes),
}

/// A [`Publish`], borrowed from where it is on either side: this is what nearly all requests are.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of Publish")]
pub struct WirePublish<'a> {
    #[serde(borrow)]
    pub channels: Vec<&'a str>,
    pub payload: PayloadRef<'a>,
    pub event: &'a str,
    pub except: Option<u128>,
    pub id: Option<&'a str>,
    pub store: bool,
    pub terms: Option<PublishTerms>,
}

/// What a publisher says of its own of a message's [`Terms`]; the rest is what the channels are, or the broker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of Terms")]
pub struct PublishTerms {
    pub private: bool,
    pub retry: Option<u64>,
    /// Whether the channels are topics of one update.
    pub one_update: bool,
}

/// A [`Payload`], borrowed; the same on the wire as [`WirePayload`].
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the variants of Payload")]
pub enum PayloadRef<'a> {
    Json(#[serde(borrow, serialize_with = "as_bytes")] &'a [u8]),
    Binary(#[serde(borrow, serialize_with = "as_bytes")] &'a [u8]),
}

/// In one piece. serde would write a slice element by element.
fn as_bytes<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// A connection, as [`crate::message::ConnectionInfo::from_head`] takes it.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of ConnectionInfo")]
pub struct WireConnection {
    pub id: u128,
    pub transport: u8,
    pub ip: String,
    pub head: String,
    pub user: Option<String>,
}

impl WireConnection {
    /// The connection again, if it is one.
    pub fn into_info(self) -> Option<ConnectionInfo> {
        let transport = *Transport::ALL.get(usize::from(self.transport))?;
        let id = ConnectionId::from_bits(self.id);
        let info = ConnectionInfo::from_head(id, transport, &self.ip, &self.head);
        Some(info.with_user(self.user.map(Into::into)))
    }
}

/// A connection in whose name something comes.
#[derive(Debug, Serialize, Deserialize)]
pub struct WireFound {
    /// The connection.
    pub connection: WireConnection,
    /// What its token allows.
    pub grant: Option<Grant>,
}

impl WireFound {
    /// The connection again, if it is one.
    pub fn into_info(self) -> Option<ConnectionInfo> {
        // As whom it has signed in since, its token does not say.
        let user = self.connection.user.clone().map(Into::into);
        let info = self.connection.into_info()?;
        Some(info.with_grant(self.grant).with_user(user))
    }
}

/// A message of a channel's history.
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of HistoryEntry")]
pub struct WireEntry {
    pub id: String,
    pub event: String,
    pub payload: WirePayload,
    pub age: Duration,
}

/// The hub's counters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields of Stats")]
pub struct WireStats {
    pub uptime: Duration,
    pub pid: u32,
    pub address: String,
    pub connections: usize,
    pub connections_total: u64,
    pub by_transport: [usize; 7],
    pub channels: usize,
    pub subscriptions: usize,
    pub published: u64,
    pub delivered: u64,
    pub received: u64,
    pub dropped_slow: u64,
    pub history_messages: usize,
    pub history_bytes: usize,
    pub shards: usize,
    pub handler_queued: usize,
    pub handler_requests: u64,
    pub handler_retried: u64,
    pub handler_failed: u64,
    pub tasks: Vec<(String, usize)>,
}

impl From<Payload> for WirePayload {
    fn from(payload: Payload) -> Self {
        match payload {
            Payload::Json(bytes) => Self::Json(bytes),
            Payload::Binary(bytes) => Self::Binary(bytes),
        }
    }
}

impl From<WirePayload> for Payload {
    fn from(payload: WirePayload) -> Self {
        match payload {
            WirePayload::Json(bytes) => Self::Json(bytes),
            WirePayload::Binary(bytes) => Self::Binary(bytes),
        }
    }
}

impl<'a> From<&'a Publish> for WirePublish<'a> {
    fn from(publish: &'a Publish) -> Self {
        Self {
            channels: publish.channels.iter().map(Channel::as_str).collect(),
            payload: match &publish.payload {
                Payload::Json(bytes) => PayloadRef::Json(bytes),
                Payload::Binary(bytes) => PayloadRef::Binary(bytes),
            },
            event: publish.event.as_str(),
            except: publish.except.map(ConnectionId::to_bits),
            id: publish.id.as_deref(),
            store: publish.store,
            terms: publish.terms.as_deref().map(|terms| PublishTerms {
                private: terms.private,
                retry: terms.retry,
                one_update: !terms.topics.is_empty(),
            }),
        }
    }
}

impl TryFrom<WirePublish<'_>> for Publish {
    type Error = InvalidId;

    fn try_from(wire: WirePublish<'_>) -> Result<Self, InvalidId> {
        let channels = wire
            .channels
            .iter()
            .map(|name| Channel::parse(name))
            .collect::<Result<Vec<_>, _>>()?;
        if channels.is_empty() {
            return Err(InvalidId::ChannelLength(0));
        }
        if let Some(id) = wire.id {
            crate::ids::check_custom_id(id)?;
        }
        crate::ids::check_event(wire.event)?;
        let terms = wire.terms.map(|terms| terms.of(&channels));
        Ok(Self {
            channels,
            payload: match wire.payload {
                PayloadRef::Json(bytes) => Payload::Json(Bytes::copy_from_slice(bytes)),
                PayloadRef::Binary(bytes) => Payload::Binary(Bytes::copy_from_slice(bytes)),
            },
            event: EventName::new(wire.event),
            except: wire.except.map(ConnectionId::from_bits),
            id: wire.id.map(Into::into),
            store: wire.store,
            terms: terms.transpose()?.map(Box::new),
        })
    }
}

impl PublishTerms {
    fn of(self, channels: &[Channel]) -> Result<Terms, InvalidId> {
        // Every copy of an update tells its topics.
        if self.one_update && channels.len() > Terms::TOPICS_MAX {
            return Err(InvalidId::Topics(channels.len()));
        }
        Ok(Terms {
            private: self.private,
            retry: self.retry,
            topics: match self.one_update {
                true => channels.into(),
                false => Box::default(),
            },
            first: 0,
        })
    }
}

/// Puts `value` into a frame.
pub fn frame(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame_into(&mut bytes, value);
    bytes
}

/// Puts `value` into a frame in place of what `bytes` holds, whose room is used again.
pub fn frame_into(bytes: &mut Vec<u8>, value: &impl Serialize) {
    bytes.clear();
    add_frame(bytes, value);
}

/// Puts `value` into a frame behind what `bytes` holds.
pub fn add_frame(bytes: &mut Vec<u8>, value: &impl Serialize) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    *bytes = postcard::to_extend(value, std::mem::take(bytes))
        .expect("the control frames hold nothing that postcard cannot write");
    set_length(&mut bytes[start..]);
}

/// The first frame's content, and the bytes after it. `None` when it is not whole yet.
pub fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(announced(bytes)?)
}

/// The length of the first frame's content, when it is known.
pub fn announced(bytes: &[u8]) -> Option<usize> {
    let (length, _) = bytes.split_first_chunk()?;
    Some(u32::from_le_bytes(*length) as usize)
}

/// Puts a [`Hello`] or [`Greeting`] into a frame.
pub fn json_frame(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = vec![0u8; 4];
    serde_json::to_writer(&mut bytes, value).expect("a Vec takes what is written to it");
    set_length(&mut bytes);
    bytes
}

/// Reads a frame's content.
pub fn read<'a, T: Deserialize<'a>>(content: &'a [u8]) -> Result<T, postcard::Error> {
    match postcard::take_from_bytes(content)? {
        (value, []) => Ok(value),
        _ => Err(postcard::Error::DeserializeBadEncoding),
    }
}

fn set_length(frame: &mut [u8]) {
    let length = u32::try_from(frame.len() - 4).expect("messages are limited to 1 GiB");
    frame[..4].copy_from_slice(&length.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_wire() {
        let request = Request::Send {
            to: 7,
            payload: WirePayload::Binary(Bytes::from_static(&[0, 1])),
            event: "e".into(),
        };
        let bytes = frame(&request);
        assert_eq!(bytes[..4], (bytes.len() as u32 - 4).to_le_bytes());
        let (content, rest) = split(&bytes).unwrap();
        let back: Request = read(content).unwrap();
        assert_eq!(format!("{back:?}"), format!("{request:?}"));
        assert!(rest.is_empty());
        for end in 0..bytes.len() {
            assert!(split(&bytes[..end]).is_none());
        }
    }

    #[test]
    fn an_update_says_its_topics_and_terms() {
        let channels: Vec<_> = ["a", "b"].map(|name| Channel::parse(name).unwrap()).into();
        let publish = Publish {
            payload: Payload::Json(Bytes::from_static(b"1")),
            event: EventName::Message,
            except: None,
            id: None,
            store: true,
            terms: Some(Box::new(Terms {
                private: true,
                retry: Some(5),
                topics: channels.clone().into(),
                first: 0,
            })),
            channels,
        };
        let bytes = frame(&WirePublish::from(&publish));
        let back = Publish::try_from(read::<WirePublish>(&bytes[4..]).unwrap()).unwrap();
        assert_eq!(back.terms, publish.terms);
        let many = vec!["a"; Terms::TOPICS_MAX + 1];
        let wire = WirePublish {
            channels: many,
            ..WirePublish::from(&publish)
        };
        assert!(Publish::try_from(wire).is_err());
    }

    #[test]
    fn a_borrowed_message_is_written_as_an_owned_one() {
        let (owned, borrowed) = (Bytes::from_static(b"[1]"), &b"[1]"[..]);
        assert_eq!(
            frame(&WirePayload::Json(owned.clone())),
            frame(&PayloadRef::Json(borrowed))
        );
        assert_eq!(
            frame(&WirePayload::Binary(owned)),
            frame(&PayloadRef::Binary(borrowed))
        );
    }

    #[test]
    fn garbage_is_refused() {
        assert!(read::<Request>(&[0xff; 40]).is_err());
        assert!(read::<Request>(&[]).is_err());
        let mut trailing = frame(&Request::Stats)[4..].to_vec();
        trailing.push(0);
        assert!(read::<Request>(&trailing).is_err());
    }
}
