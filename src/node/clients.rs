//! What PHP and other processes do with single connections: each is its shard's, which is asked to do it.
//!
//! Called from any thread but the shards' own. Imports `hub`'s mailbox and `session`.

use std::sync::Arc;
use std::time::Instant;

use super::{Failure, Node, ROOM_PAUSE};
use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::backend::{Outcome, ReplyTo};
use crate::hub::Hub;
use crate::hub::mailbox::{Command, Shard};
use crate::ids::{Channel, ConnectionId};
use crate::message::{EventName, Payload};
use crate::session;

impl Node {
    /// Sends to one connection. `false` when it is not there. Blocks as [`Node::publish`] does.
    pub fn send(
        &self,
        to: ConnectionId,
        payload: Payload,
        event: EventName,
    ) -> Result<bool, Failure> {
        let mut deadline = None;
        loop {
            if let Some(done) = self.send_now(to, &payload, &event) {
                return done;
            }
            let now = Instant::now();
            if now >= *deadline.get_or_insert(now + self.config.timeout) {
                return Err(Failure::Busy);
            }
            std::thread::sleep(ROOM_PAUSE);
        }
    }

    /// The same without blocking: `None` when the shard is behind.
    pub fn send_now(
        &self,
        to: ConnectionId,
        payload: &Payload,
        event: &EventName,
    ) -> Option<Result<bool, Failure>> {
        if let Err(too_large) = self.check_size(payload.len()) {
            return Some(Err(too_large));
        }
        let Some(shard) = self.shards.get(to.shard()) else {
            return Some(Ok(false));
        };
        let send = || Command::Send {
            to,
            payload: payload.clone(),
            event: event.clone(),
        };
        if !shard.has(to) {
            return Some(Ok(shard.defer(to, send())));
        }
        (shard.waiting() <= self.config.queue_bytes).then(|| {
            shard.put(send());
            Ok(true)
        })
    }

    /// Subscribes a connection. `false` when it is not there or has `realtime.max_subscriptions`.
    pub fn subscribe(
        self: &Arc<Self>,
        who: ConnectionId,
        channel: Channel,
    ) -> Result<bool, Failure> {
        let node = self.clone();
        self.ask_about(who, move |hub, slot| {
            session::subscribe_for_php(&node, hub, slot, &channel)
        })
    }

    /// Ends a connection's subscription. `false` when there was none.
    pub fn unsubscribe(
        self: &Arc<Self>,
        who: ConnectionId,
        channel: Channel,
    ) -> Result<bool, Failure> {
        let node = self.clone();
        self.ask_about(who, move |hub, slot| {
            session::unsubscribe_for_php(&node, hub, slot, &channel)
        })
    }

    /// Begins to close a connection. `false` when it is not there.
    pub fn close(&self, who: ConnectionId, code: u16, reason: String) -> Result<bool, Failure> {
        let Some(shard) = self.shards.get(who.shard()) else {
            return Ok(false);
        };
        let close = Command::Run(Box::new(move |hub| {
            if let Some(registered) = hub.shard().connection(who) {
                hub.dismiss(registered.slot, code, &reason);
            }
        }));
        if !shard.has(who) {
            return Ok(shard.defer(who, close));
        }
        shard.put(close);
        Ok(true)
    }

    /// Whether a connection is subscribed to a channel. Waits for its shard.
    pub async fn is_subscribed(&self, who: ConnectionId, channel: Channel) -> bool {
        let Some(shard) = self.shards.get(who.shard()) else {
            return false;
        };
        let (sender, answer) = tokio::sync::oneshot::channel();
        shard.put(Command::Run(Box::new(move |hub| {
            let registered = hub.shard().connection(who);
            // Whoever asked may have gone.
            let _ =
                sender.send(registered.is_some_and(|its| hub.is_subscribed(its.slot, &channel)));
        })));
        answer.await.unwrap_or(false)
    }

    /// Answers a client's message.
    pub fn reply(&self, to: ReplyTo, outcome: Outcome) {
        if let Some(shard) = self.reply_quietly(to, outcome) {
            shard.rouse();
        }
    }

    /// Returns the shard that is left to be woken.
    pub(super) fn reply_quietly(&self, to: ReplyTo, outcome: Outcome) -> Option<&Shard> {
        match to {
            ReplyTo::Connection {
                connection,
                reference,
            } => {
                if reference.is_none() && matches!(outcome, Ok(None)) {
                    return None;
                }
                let shard = self.shards.get(connection.shard())?;
                shard.put_quietly(Command::Reply {
                    to: connection,
                    reference,
                    outcome,
                });
                Some(shard)
            }
            ReplyTo::Request(sender) => {
                // The client may have given up waiting.
                let _ = sender.send(outcome);
                None
            }
        }
    }

    /// Has a shard do something about one of its connections, or put it off while `rt_on_open()` decides about it:
    /// then the answer is `true`.
    fn ask_about(
        &self,
        who: ConnectionId,
        question: impl FnOnce(&mut Hub, usize) -> bool + Send + 'static,
    ) -> Result<bool, Failure> {
        let Some(shard) = self.shards.get(who.shard()) else {
            return Ok(false);
        };
        let work = move |hub: &mut Hub| match hub.shard().connection(who) {
            Some(registered) => question(hub, registered.slot),
            None => false,
        };
        if shard.has(who) {
            return self.ask(shard, work);
        }
        let deferred = Box::new(move |hub: &mut Hub| {
            work(hub);
        });
        Ok(shard.defer(who, Command::Run(deferred)))
    }

    /// Has a shard answer a question, from any other thread.
    pub(super) fn ask<R: Send + 'static>(
        &self,
        shard: &Shard,
        question: impl FnOnce(&mut Hub) -> R + Send + 'static,
    ) -> Result<R, Failure> {
        self.await_answer(&pose(shard, question))
    }

    /// Waits for what a shard says to a question that was posed.
    pub(super) fn await_answer<R>(&self, answer: &Receiver<R>) -> Result<R, Failure> {
        answer
            .recv_timeout(self.config.timeout)
            .map_err(|error| match error {
                RecvTimeoutError::Timeout => Failure::Busy,
                RecvTimeoutError::Disconnected => Failure::Stopped,
            })
    }
}

/// Poses a question to a shard, which gets to it sooner or later, whether somebody waits or not.
pub(super) fn pose<R: Send + 'static>(
    shard: &Shard,
    question: impl FnOnce(&mut Hub) -> R + Send + 'static,
) -> Receiver<R> {
    let (sender, receiver) = crossbeam_channel::bounded(1);
    shard.put(Command::Run(Box::new(move |hub| {
        // Nobody may be waiting any more.
        let _ = sender.send(question(hub));
    })));
    receiver
}
