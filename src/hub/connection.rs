//! One connection as its shard keeps it: small, because there may be a hundred thousand.
//!
//! Imports `ids`, `message`, `outbox`, `socket` and `wire`.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;

use crate::ids::Channel;
use crate::message::{ConnectionInfo, Publication};
use crate::outbox::Outbox;
use crate::socket::Socket;
use crate::wire::Format;

/// A connection. Its fields belong to `hub`; its task reaches them through [`super::Hub`].
#[derive(Debug)]
pub struct Connection {
    pub(super) info: Arc<ConnectionInfo>,
    pub(super) format: Format,
    pub(super) outbox: Outbox,
    /// What comes before live messages; see [`Replay`].
    pub(super) replay: Option<Box<Replay>>,
    /// None for long polling, whose messages leave with the next answer.
    pub(super) socket: Option<Rc<Socket>>,
    pub(super) subscriptions: Vec<Subscription>,
    /// Wakes the connection's task: to wait for writability, to close, to answer a poll.
    pub(super) waker: Option<Waker>,
    pub(super) closing: Option<Box<Closing>>,
    /// The newest number put into the outbox; what a poll's cursor is made of.
    pub(super) newest: u64,
    /// How many of the client's messages PHP has not answered yet.
    pub(super) unanswered: u32,
    /// The kernel's buffer is full: the task waits until the socket is writable.
    pub(super) blocked: bool,
    /// In the shard's list of connections with something to flush.
    pub(super) dirty: bool,
    /// Something came from the client since the last sweep.
    pub(super) heard: bool,
    /// A ping is out, unanswered.
    pub(super) pinged: bool,
}

/// A connection's place in a channel.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) channel: Channel,
    /// Where in the channel's list of subscribers this connection is.
    pub(super) index: usize,
}

/// Why and how a connection is being closed.
#[derive(Clone, Debug)]
pub struct Closing {
    /// The close code (RFC 6455, section 7.4).
    pub code: u16,
    /// In words.
    pub reason: String,
}

/// Messages that a resuming connection has missed, and live ones that came behind them meanwhile.
///
/// They are shared and not encoded yet: a thousand resuming clients cost a thousand short lists, and each takes
/// its bytes when its socket does.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Each with what it weighs as backlog.
    waiting: VecDeque<(Arc<Publication>, usize)>,
    /// The sum of what they weigh.
    backlog: usize,
}

/// What a waiting publication weighs beside its content, in bytes: it may be kept for this connection alone.
const WAITING_COST: usize = 256;

impl Replay {
    /// Puts in what was missed. It is no backlog: the client could not have read it before.
    pub(super) fn push_past(&mut self, missed: impl Iterator<Item = Arc<Publication>>) {
        self.waiting
            .extend(missed.map(|publication| (publication, 0)));
    }

    /// Puts in a live message, unless others wait and it would make them more than `limit` bytes.
    pub(super) fn push_live(&mut self, publication: &Arc<Publication>, limit: usize) -> bool {
        let weight = WAITING_COST + publication.payload.len();
        if self.backlog > 0 && self.backlog + weight > limit {
            return false;
        }
        self.backlog += weight;
        self.waiting.push_back((publication.clone(), weight));
        true
    }

    /// Takes the next.
    pub(super) fn pop(&mut self) -> Option<Arc<Publication>> {
        let (publication, weight) = self.waiting.pop_front()?;
        self.backlog -= weight;
        Some(publication)
    }

    /// Drops what is of `channel`.
    pub(super) fn forget(&mut self, channel: &str) {
        self.waiting
            .retain(|(publication, _)| publication.channel.as_str() != channel);
        self.backlog = self.waiting.iter().map(|(_, weight)| weight).sum();
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Connection {
    pub(super) fn new(
        info: Arc<ConnectionInfo>,
        format: Format,
        socket: Option<Rc<Socket>>,
    ) -> Self {
        Self {
            info,
            format,
            outbox: Outbox::default(),
            replay: None,
            socket,
            subscriptions: Vec::new(),
            waker: None,
            closing: None,
            newest: 0,
            unanswered: 0,
            blocked: false,
            dirty: false,
            heard: true,
            pinged: false,
        }
    }

    /// Puts a live message behind what waits, encoded already or to be encoded in its turn. `false` if it has no room.
    pub(super) fn put(
        &mut self,
        publication: &Arc<Publication>,
        bytes: &Bytes,
        max_backlog: usize,
    ) -> bool {
        match &mut self.replay {
            Some(replay) => replay.push_live(publication, max_backlog),
            None => {
                let room = self.outbox.has_room(bytes.len(), max_backlog);
                if room {
                    self.outbox.push(bytes.clone());
                }
                room
            }
        }
    }

    /// Makes the connection's task run.
    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Notes whom to wake.
    pub(super) fn register(&mut self, cx: &Context<'_>) {
        if !self
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            self.waker = Some(cx.waker().clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Position;
    use crate::message::{EventName, Payload};

    #[test]
    fn one_live_message_may_be_larger_than_the_backlog_of_a_replay() {
        let publication = Arc::new(Publication {
            channel: Channel::parse("a").unwrap(),
            position: Position { epoch: 1, seq: 1 },
            id: None,
            event: EventName::Message,
            payload: Payload::Json(Bytes::from_static(&[b'1'; 2000])),
            except: None,
            at: std::time::Instant::now(),
            terms: None,
        });
        let mut replay = Replay::default();
        replay.push_past([publication.clone()].into_iter());
        assert!(replay.push_live(&publication, 1000));
        assert!(!replay.push_live(&publication, 1000));
        replay.pop();
        replay.pop();
        assert!(replay.push_live(&publication, 1000));
    }
}
