//! What the server tells a PHP process that handles its clients, and what comes back: batches of events and their
//! outcomes, in postcard's encoding.
//!
//! A batch travels in a parameter or the body of a FastCGI request (`realtime.handler`) or in a frame of the control socket (an
//! attached `php worker.php`); the outcomes come back in the request's output ([`Mark`]) or in such frames. Written and
//! read by `backend` on the server's side and by `php` on the other. Imports `ids`, `message` and `wire::control`.

use bytes::Bytes;
use percent_encoding::{AsciiSet, percent_decode, percent_encode};
use serde::{Deserialize, Serialize};

use super::control::{WireConnection, WirePayload};
use crate::message::ConnectionInfo;

/// The FastCGI parameter that holds the server's secret, in hexadecimal. A request from the web cannot have it: what
/// a browser sends becomes a parameter that begins with `HTTP_`.
pub const SECRET_PARAM: &str = "REALTIME_SECRET";

/// The FastCGI parameter that says how long the server waits for the first outcome, in nanoseconds since the machine was
/// started. A pool that is busy takes a request up much later, when its events have gone to another one or are given up.
/// Only a pool on the same machine is told.
pub const UNTIL_PARAM: &str = "REALTIME_UNTIL";

/// In place of [`UNTIL_PARAM`], in a request that is sent behind one which the process still has: by when it must have come
/// to this one. If it comes later, or went on with a script after that request's end, it answers [`REFUSED`].
pub const AHEAD_PARAM: &str = "REALTIME_AHEAD";

/// The FastCGI parameter that holds a small batch, see [`as_param`]: to read a body takes PHP two more system calls.
pub const BATCH_PARAM: &str = "REALTIME_BATCH";

/// The most that it holds, in bytes.
pub const BATCH_PARAM_MAX: usize = 4096;

/// What a parameter cannot hold as it is, or not without looking odd where PHP shows it.
const ESCAPED: &AsciiSet = &percent_encoding::CONTROLS.add(b'%');

/// Events for one process. Those of one connection are in order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Batch {
    /// Whose events they are, each connection once: a request's head may be large, and its events many.
    pub parties: Vec<WireParty>,
    /// The events. A request with none asks only for [`Outcomes::interest`]; an attached process is told by it that another
    /// server has taken over.
    pub events: Vec<WireEvent>,
}

/// A connection with events in a batch.
#[derive(Debug, Serialize, Deserialize)]
pub struct WireParty {
    /// The connection.
    pub connection: WireConnection,
    /// Its `$connection->state` before the first of these events, as JSON; empty for null.
    pub state: Bytes,
}

/// A [`Batch`] as its writer has it: the same bytes, without a copy of what connections hold.
#[derive(Debug, Serialize)]
pub struct BatchOf<'a> {
    /// [`Batch::parties`]
    pub parties: Vec<PartyOf<'a>>,
    /// [`Batch::events`]
    pub events: &'a [WireEvent],
}

/// A [`WireParty`] as its writer has it.
#[derive(Debug, Serialize)]
pub struct PartyOf<'a> {
    connection: ConnectionOf<'a>,
    state: Box<str>,
}

/// A [`WireConnection`] as its writer has it.
#[derive(Debug, Serialize)]
struct ConnectionOf<'a> {
    id: u128,
    transport: u8,
    ip: &'a str,
    head: &'a str,
    user: Option<&'a str>,
}

impl<'a> PartyOf<'a> {
    /// Of `connection`, with the state that it has now.
    pub fn new(connection: &'a ConnectionInfo) -> Self {
        Self {
            connection: ConnectionOf {
                id: connection.id.to_bits(),
                transport: connection.transport.index() as u8,
                ip: &connection.ip,
                head: connection.head(),
                user: connection.user(),
            },
            state: connection.state().unwrap_or_default(),
        }
    }
}

impl From<PartyOf<'_>> for WireParty {
    fn from(of: PartyOf<'_>) -> Self {
        let PartyOf { connection, state } = of;
        Self {
            connection: WireConnection {
                id: connection.id,
                transport: connection.transport,
                ip: connection.ip.to_owned(),
                head: connection.head.to_owned(),
                user: connection.user.map(ToOwned::to_owned),
            },
            state: state.into_boxed_bytes().into_vec().into(),
        }
    }
}

/// One event.
#[derive(Debug, Serialize, Deserialize)]
pub struct WireEvent {
    /// A number of the server's, by which its outcome is known.
    pub number: u64,
    /// Whose: an index into [`Batch::parties`].
    pub party: u32,
    /// What happened.
    pub what: WireWhat,
}

/// What happened. See [`crate::backend::Event`].
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the variants of Event")]
pub enum WireWhat {
    Open,
    Subscribe {
        channel: String,
    },
    Message {
        channel: String,
        event: String,
        /// [`crate::message::ClientMessage::number`], the same when it is tried again.
        id: u64,
        data: WireIncoming,
    },
    Close {
        code: u16,
        reason: String,
    },
}

/// What a client sent. See [`crate::message::Incoming`].
#[derive(Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the variants of Incoming")]
pub enum WireIncoming {
    Json(Bytes),
    Text(Bytes),
    Binary(Bytes),
}

/// What became of some events of a batch, as soon as it is known. A process may send several.
///
/// An event of which nothing was said when the process's request or link ends is handed out again.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Outcomes {
    /// Which events the script has handlers for: 1 open, 2 subscribe, 4 message, 8 close; or [`LEAVING`].
    pub interest: u8,
    /// The outcomes.
    pub outcomes: Vec<WireOutcome>,
}

/// In place of [`Outcomes::interest`]: the attached process ends in order. What it has not answered it has not begun. In a
/// request: its end comes before the script's, and the process takes no other until then.
pub const LEAVING: u8 = 0x80;

/// In place of [`Outcomes::interest`]: the process has come too late to a request that was sent ahead, and handles nothing
/// of it.
pub const REFUSED: u8 = 0x40;

/// What became of one event.
#[derive(Debug, Serialize, Deserialize)]
pub struct WireOutcome {
    /// [`WireEvent::number`]
    pub number: u64,
    /// The verdict, reply or failure.
    pub result: WireResult,
    /// The connection's state as JSON, when a handler has changed it; empty for null.
    pub state: Option<Bytes>,
}

/// See [`WireOutcome`].
#[derive(Debug, Serialize, Deserialize)]
pub enum WireResult {
    /// Of an open or a subscription: whether it is admitted.
    Verdict(bool),
    /// Of a message: the reply, if there is one.
    Reply(Option<WirePayload>),
    /// Of a close.
    Done,
    /// A handler threw, or the script ended within it: trying again would not help.
    Failed,
    /// Of a subscription to a presence channel: it is admitted, and this is who it is.
    AdmittedAs {
        /// The user.
        user: String,
        /// What others may know of it, as JSON.
        info: Option<String>,
    },
}

/// The FastCGI parameter that holds the request's mark, in hexadecimal: see [`marked`].
pub const MARK_PARAM: &str = "REALTIME_MARK";

/// An encoded [`Batch`] as [`BATCH_PARAM`] has it, at the end of `text`. `None`: it is too long for it.
pub fn as_param<'a>(batch: &[u8], text: &'a mut String) -> Option<&'a str> {
    if batch.len() > BATCH_PARAM_MAX {
        return None;
    }
    text.extend(percent_encode(batch, ESCAPED));
    (text.len() <= BATCH_PARAM_MAX).then_some(text)
}

/// What [`as_param`] was given.
pub fn of_param(text: &[u8]) -> Vec<u8> {
    percent_decode(text).collect()
}

/// Random bytes of one request. What they precede in its output is ours, and all else is the script's.
pub type Mark = [u8; 16];

/// The largest frame of outcomes in a request's output, in bytes, over the size of one message.
pub const OUTCOMES_OVERHEAD: usize = 1 << 20;

/// Outcomes as they stand in a request's output: the mark, a length (4 bytes, little-endian), the outcomes.
pub fn marked(mark: &Mark, outcomes: &Outcomes) -> Vec<u8> {
    // Mostly they are one small answer.
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(mark);
    super::control::add_frame(&mut bytes, outcomes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ConnectionId;
    use crate::message::Transport;

    #[test]
    fn a_batch_is_read_as_it_was_written() {
        let headers: [(&str, &[u8]); 1] = [("host", b"a.example")];
        let id = ConnectionId::new(7, 9);
        let headers = headers.into_iter();
        let info = ConnectionInfo::new(id, 0, Transport::Sse, "192.0.2.1", "/sse?a=1", headers)
            .with_user(Some("me".into()));
        info.set_state(Some("[1]".into()));
        let event = WireEvent {
            number: 1 << 40,
            party: 0,
            what: WireWhat::Open,
        };
        let written = BatchOf {
            parties: vec![PartyOf::new(&info)],
            events: &[event],
        };
        let bytes = postcard::to_stdvec(&written).unwrap();
        let read: Batch = super::super::control::read(&bytes).unwrap();
        let party = &read.parties[0];
        assert_eq!(party.state, "[1]");
        assert_eq!(party.connection.id, id.to_bits());
        assert_eq!(party.connection.transport, Transport::Sse.index() as u8);
        assert_eq!(party.connection.ip, "192.0.2.1");
        assert_eq!(party.connection.head, info.head());
        assert_eq!(party.connection.user.as_deref(), Some("me"));
        assert_eq!(read.events[0].number, 1 << 40);
        // Both ways to make one give the same bytes.
        let owned = Batch {
            parties: vec![PartyOf::new(&info).into()],
            events: read.events,
        };
        assert_eq!(postcard::to_stdvec(&owned).unwrap(), bytes);
    }

    #[test]
    fn a_parameter_holds_any_small_batch() {
        let all: Vec<u8> = (0..=u8::MAX).cycle().take(1000).collect();
        let mut room = String::new();
        let text = as_param(&all, &mut room).unwrap();
        // PHP-FPM keeps parameters as C's strings.
        assert!(!text.contains('\0'));
        assert_eq!(of_param(text.as_bytes()), all);
        // What fits only as it is.
        for (byte, fits) in [(b'a', true), (0, false)] {
            let batch = vec![byte; BATCH_PARAM_MAX];
            room.clear();
            assert_eq!(as_param(&batch, &mut room).is_some(), fits);
        }
        room.clear();
        assert_eq!(as_param(&[b'a'; BATCH_PARAM_MAX + 1], &mut room), None);
    }
}
