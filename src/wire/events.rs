//! What the server tells a PHP process that handles its clients, and what comes back: batches of events and their
//! outcomes, in postcard's encoding.
//!
//! A batch travels in the body of a FastCGI request (`realtime.handler`) or in a frame of the control socket (an
//! attached `php worker.php`); the outcomes come back in the request's output ([`Mark`]) or in such frames. Written and
//! read by `backend` on the server's side and by `php` on the other. Imports `ids`, `message` and `wire::control`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::control::{WireConnection, WirePayload};

/// The FastCGI parameter that holds the server's secret, in hexadecimal. A request from the web cannot have it: what
/// a browser sends becomes a parameter that begins with `HTTP_`.
pub const SECRET_PARAM: &str = "REALTIME_SECRET";

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

/// In place of [`Outcomes::interest`]: the attached process ends in order. What it has not answered it has not begun.
pub const LEAVING: u8 = 0x80;

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
}

/// The FastCGI parameter that holds the request's mark, in hexadecimal: see [`marked`].
pub const MARK_PARAM: &str = "REALTIME_MARK";

/// Random bytes of one request. What they precede in its output is ours, and all else is the script's.
pub type Mark = [u8; 16];

/// The largest frame of outcomes in a request's output, in bytes, over the size of one message.
pub const OUTCOMES_OVERHEAD: usize = 1 << 20;

/// Outcomes as they stand in a request's output: the mark, a length (4 bytes, little-endian), the outcomes.
pub fn marked(mark: &Mark, outcomes: &Outcomes) -> Vec<u8> {
    let mut bytes = mark.to_vec();
    bytes.extend_from_slice(&super::control::frame(outcomes));
    bytes
}
