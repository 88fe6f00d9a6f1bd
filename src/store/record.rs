//! What is kept of a message or of a revocation, as bytes: the same in the ring and in the database.
//!
//! Imports `history`, `message`, `auth` and `wire`.

use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use crate::auth::Lists;
use crate::ids::ConnectionId;
use crate::message::{Payload, Publication};
use crate::wire::control::PayloadRef;
use crate::wire::handover::{WireNote, WireTerms};

/// What a record may have beside its names and its content, in bytes.
const OVERHEAD: usize = 96;

/// One thing to keep.
#[derive(Debug, Serialize, Deserialize)]
pub enum Record<'a> {
    /// A message, or what is left of it.
    #[serde(borrow)]
    Message(Message<'a>),
    /// Tokens or users that were taken back.
    Revoked(Lists),
}

/// A message of the history.
#[derive(Debug, Serialize, Deserialize)]
pub struct Message<'a> {
    pub seq: u64,
    pub channel: &'a str,
    pub id: Option<&'a str>,
    pub event: &'a str,
    #[serde(borrow)]
    pub payload: PayloadRef<'a>,
    pub except: Option<u128>,
    /// When it was published, in milliseconds since 1970.
    pub at: u64,
    /// Whether the message is kept, and not only its publisher's id.
    pub store: bool,
    /// What its publisher said beside it.
    pub terms: Option<WireTerms>,
}

impl<'a> Message<'a> {
    /// Of a publication that was accepted at this time since 1970.
    pub fn new(publication: &'a Publication, store: bool, at: Duration) -> Self {
        let content = match (&publication.payload, store) {
            (Payload::Json(bytes), true) => PayloadRef::Json(bytes),
            (Payload::Binary(bytes), true) => PayloadRef::Binary(bytes),
            (_, false) => PayloadRef::Binary(&[]),
        };
        Self {
            seq: publication.position.seq,
            channel: publication.channel.as_str(),
            id: publication.id.as_deref(),
            event: match store {
                true => publication.event.as_str(),
                false => "message",
            },
            payload: content,
            except: publication.except.map(ConnectionId::to_bits),
            at: at.as_millis() as u64,
            store,
            terms: publication.terms.as_deref().map(WireTerms::from),
        }
    }

    /// The same as another hub would tell it.
    pub fn to_note(&self, now: Duration) -> WireNote {
        let at = Duration::from_millis(self.at);
        WireNote {
            channel: self.channel.to_owned(),
            seq: self.seq,
            id: self.id.map(ToOwned::to_owned),
            event: self.event.to_owned(),
            payload: match self.payload {
                PayloadRef::Json(bytes) => Payload::Json(bytes.to_vec().into()),
                PayloadRef::Binary(bytes) => Payload::Binary(bytes.to_vec().into()),
            }
            .into(),
            except: self.except,
            // A clock that was set back makes nothing older than it is.
            age: now.saturating_sub(at),
            store: self.store,
            terms: self.terms.clone(),
        }
    }

    /// How many bytes its record has at most.
    pub fn most(&self) -> usize {
        let (PayloadRef::Json(content) | PayloadRef::Binary(content)) = &self.payload;
        let terms = self.terms.as_ref().map_or(0, WireTerms::size);
        most(self.channel, self.id, self.event, content.len()) + terms
    }
}

/// How many bytes a message's record has at most.
pub fn most(channel: &str, id: Option<&str>, event: &str, content: usize) -> usize {
    OVERHEAD + channel.len() + id.map_or(0, str::len) + event.len() + content
}

/// The time since 1970.
pub fn unix_time() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

/// The time since 1970 at which `at` was.
pub fn unix_time_of(at: Instant) -> Duration {
    unix_time().saturating_sub(Instant::now().saturating_duration_since(at))
}
