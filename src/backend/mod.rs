//! What PHP decides about clients, as the server sees it: a [`Backend`] takes [`Event`]s and answers them.
//!
//! Events come from `session` and the transports through `node`. [`queue`] is the backend of a PHP loop
//! (`rt_run()`); a FastCGI backend for PHP-FPM stands beside it. Imports `ids` and `message`.

pub mod queue;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::ids::{Channel, ConnectionId};
use crate::message::{ClientMessage, ConnectionInfo, Payload};

/// Something that PHP has a say in.
#[derive(Debug)]
pub enum Event {
    /// A client wants to connect; the answer admits or refuses it.
    Open {
        /// Who.
        connection: Arc<ConnectionInfo>,
        /// Where the verdict goes.
        answer: Answer,
    },
    /// A client wants to subscribe; the answer admits or refuses it.
    Subscribe {
        /// Who.
        connection: Arc<ConnectionInfo>,
        /// To what.
        channel: Channel,
        /// Where the verdict goes.
        answer: Answer,
    },
    /// A client sent a message.
    Message {
        /// The message.
        message: ClientMessage,
        /// Where the handler's return value goes.
        reply_to: ReplyTo,
    },
    /// A connection that was opened has ended.
    Close {
        /// Who.
        connection: Arc<ConnectionInfo>,
        /// The close code (RFC 6455, section 7.4), 1006 when the client just went.
        code: u16,
        /// The reason in words, mostly empty.
        reason: String,
    },
}

/// A verdict's way back. Dropping it unsent means that nobody decided.
#[derive(Debug)]
pub struct Answer(oneshot::Sender<bool>);

impl Answer {
    /// An answer and where it arrives.
    pub fn channel() -> (Self, oneshot::Receiver<bool>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Decides: `true` admits.
    pub fn decide(self, admit: bool) {
        // The client may have gone meanwhile; then nobody waits for the verdict.
        let _ = self.0.send(admit);
    }
}

/// What became of a client's message: the reply (`None` for "taken, nothing to say"), or why there is none.
pub type Outcome = Result<Option<Payload>, HandlerFailed>;

/// A handler threw or ended before it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message handler failed")]
pub struct HandlerFailed;

/// Where the reply to a client's message goes. Hand it to `Node::reply`, exactly once.
#[derive(Debug)]
pub enum ReplyTo {
    /// To a connection that stays open; `reference` is the client's own `ref`, as JSON.
    Connection {
        /// Which.
        connection: ConnectionId,
        /// The client's `ref`; without one only a reply with content is sent.
        reference: Option<Box<str>>,
    },
    /// To a waiting `POST /publish`.
    Request(oneshot::Sender<Outcome>),
}

/// Which events somebody handles. The server asks only about those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// `rt_on_open`
    pub open: bool,
    /// `rt_on_subscribe`
    pub subscribe: bool,
    /// `rt_on_message`
    pub message: bool,
    /// `rt_on_close`
    pub close: bool,
}

/// Why an event was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `realtime.queue_bytes` are waiting already, and it did not get better in time.
    #[error("the server is busy, try again later")]
    Busy,
    /// The PHP side has ended.
    #[error("the PHP process has stopped listening")]
    Gone,
}

/// An event that was not taken, handed back.
#[derive(Debug)]
pub struct NotTaken {
    /// The event.
    pub event: Event,
    /// Why.
    pub why: Refused,
}

/// The PHP side.
pub trait Backend: Send + Sync + std::fmt::Debug + 'static {
    /// What is handled at the moment.
    fn interest(&self) -> Interest;

    /// Takes an event if there is room for it. Never blocks.
    fn try_dispatch(&self, event: Event) -> Result<(), Box<NotTaken>>;

    /// Waits until there may be room for `event`.
    fn room<'a>(&'a self, event: &Event) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

    /// Whether there is room for more at all.
    fn has_room(&self) -> bool;

    /// Whether everything that was taken is done: a hub that another has taken over from waits for that before it ends.
    fn is_idle(&self) -> bool {
        true
    }

    /// Takes an event that nobody can wait for and that must not be lost (a connection's end).
    fn notify(&self, event: Event);
}

/// Hands `event` to `backend`, waiting at most `patience` for room.
pub async fn dispatch(
    backend: &dyn Backend,
    event: Event,
    patience: Duration,
) -> Result<(), Refused> {
    let mut rejected = match backend.try_dispatch(event) {
        Ok(()) => return Ok(()),
        Err(rejected) => rejected,
    };
    let deadline = tokio::time::Instant::now() + patience;
    while rejected.why == Refused::Busy {
        if tokio::time::timeout_at(deadline, backend.room(&rejected.event))
            .await
            .is_err()
        {
            break;
        }
        match backend.try_dispatch(rejected.event) {
            Ok(()) => return Ok(()),
            Err(again) => rejected = again,
        }
    }
    Err(rejected.why)
}
