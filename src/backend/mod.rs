//! What PHP decides about clients, as the server sees it: a [`Backend`] takes [`Event`]s and answers them.
//!
//! Events come from `session` and the transports through `node`. [`queue`] is the backend of a PHP loop
//! (`rt_run()`) in the server's own process; [`workers`] that of a server in a process of its own, whose events go to
//! PHP-FPM or to PHP processes that attach themselves. Imports `ids`, `message`, `presence`, `config` and `wire`.

pub mod queue;
mod room;
pub mod workers;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::ids::{Channel, ConnectionId};
use crate::message::{ClientMessage, ConnectionInfo, Payload};
use crate::presence::Attendee;

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

impl Event {
    /// Whose event it is.
    pub fn connection(&self) -> &Arc<ConnectionInfo> {
        match self {
            Self::Open { connection, .. }
            | Self::Subscribe { connection, .. }
            | Self::Close { connection, .. } => connection,
            Self::Message { message, .. } => &message.from,
        }
    }
}

/// What was decided, or that the handler failed to.
pub type Verdict = Result<Ruling, HandlerFailed>;

/// What a handler decides about a connection or a subscription.
#[derive(Clone, Debug)]
pub enum Ruling {
    /// No.
    Refused,
    /// Yes.
    Admitted,
    /// Yes to a subscription to a presence channel, and this is who it is.
    AdmittedAs(Attendee),
}

/// A verdict's way back. Dropping it unsent means that nobody decided.
#[derive(Debug)]
pub struct Answer(oneshot::Sender<Verdict>);

impl Answer {
    /// An answer and where it arrives.
    pub fn channel() -> (Self, oneshot::Receiver<Verdict>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Decides: `true` admits.
    pub fn decide(self, admit: bool) {
        self.rule(match admit {
            true => Ruling::Admitted,
            false => Ruling::Refused,
        });
    }

    /// The same with more to say.
    pub fn rule(self, ruling: Ruling) {
        // The client may have gone meanwhile; then nobody waits for the verdict.
        let _ = self.0.send(Ok(ruling));
    }

    /// Says that there will be no verdict.
    pub fn fail(self) {
        let _ = self.0.send(Err(HandlerFailed));
    }

    /// Whether somebody still waits for it.
    pub fn is_awaited(&self) -> bool {
        !self.0.is_closed()
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

impl Interest {
    /// Everything.
    pub const ALL: Self = Self::from_bits(0xf);

    /// One bit for each: 1 open, 2 subscribe, 4 message, 8 close.
    pub const fn to_bits(self) -> u8 {
        self.open as u8
            | (self.subscribe as u8) << 1
            | (self.message as u8) << 2
            | (self.close as u8) << 3
    }

    /// Reads [`Interest::to_bits`].
    pub const fn from_bits(bits: u8) -> Self {
        Self {
            open: bits & 1 != 0,
            subscribe: bits & 2 != 0,
            message: bits & 4 != 0,
            close: bits & 8 != 0,
        }
    }
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

/// How much is under way to PHP, for rt_stats().
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Events that wait, or that a process has and has not answered.
    pub queued: usize,
    /// Handler requests ever (`realtime.handler`).
    pub requests: u64,
    /// Events that were handed out again because a request or a process ended without an answer.
    pub retried: u64,
    /// Events that were given up.
    pub failed: u64,
}

/// Where replies go: the server's coordinator, which knows this module and not the other way round.
pub trait Replies: Send + Sync + 'static {
    /// Answers a client's message; it need not go out before [`Replies::send`].
    fn reply(&self, to: ReplyTo, outcome: Outcome);

    /// Sends the replies. Apart, because that wakes threads, which several replies at a time can share.
    fn send(&self);
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

    /// Takes an event that nobody can wait for and that must not be lost (a connection's end).
    fn notify(&self, event: Event);

    /// Its numbers.
    fn load(&self) -> Load;

    /// The events for other processes, when it is that kind of backend.
    fn workers(self: Arc<Self>) -> Option<Arc<workers::Workers>> {
        None
    }
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
