//! What becomes of events: the outcomes that processes give, and what nobody has answered.
//!
//! Called by what holds events for a process (`hands`) and at the server's end. Imports the queue and `wire::events`.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Workers;
use super::lanes::{Blame, Pending};
use crate::backend::{self, Event, HandlerFailed, ReplyTo, Ruling};
use crate::ids::ConnectionId;
use crate::message::Payload;
use crate::presence::Attendee;
use crate::wire::events::{WireOutcome, WireResult};

/// How much of a message that is given up goes to the log, in bytes.
const LOGGED: usize = 1024;

impl Workers {
    /// Takes one outcome of an event of `connection`.
    pub(super) fn settle(&self, connection: ConnectionId, outcome: WireOutcome) {
        let state = outcome.state.and_then(|state| self.check_state(&state));
        let settled = self.lock().settle(connection, outcome.number, state);
        let Some(pending) = settled else {
            return;
        };
        self.pass_on(pending.event, outcome.result);
        // Only now: whoever gets the connection's next event must not answer before this answer is on its way.
        let (freed, ready) = self.lock().release(connection);
        self.room.give_back(pending.units + freed);
        if ready {
            self.wake();
        }
    }

    /// Tells whoever waits what became of an event.
    fn pass_on(&self, event: Event, result: WireResult) {
        match (event, result) {
            (
                Event::Open { answer, .. } | Event::Subscribe { answer, .. },
                WireResult::Verdict(admit),
            ) => answer.decide(admit),
            (Event::Subscribe { answer, .. }, WireResult::AdmittedAs { user, info }) => {
                answer.rule(Ruling::AdmittedAs(Attendee::new(&user, info.as_deref())));
            }
            (Event::Message { reply_to, .. }, WireResult::Reply(payload)) => {
                let payload = payload.map(Payload::from);
                let size = payload.as_ref().map_or(0, Payload::len);
                let limit = self.config.max_message_size;
                if size > limit {
                    tracing::error!(
                        "a reply of {size} bytes: realtime.max_message_size allows {limit}"
                    );
                    self.reply(reply_to, Err(HandlerFailed));
                } else {
                    self.reply(reply_to, Ok(payload));
                }
            }
            (Event::Close { .. }, WireResult::Done | WireResult::Failed) => {}
            (event, WireResult::Failed) => self.fail(event),
            (event, _) => {
                tracing::error!("a handler process gave an answer that does not fit its event");
                self.fail(event);
            }
        }
    }

    /// What becomes the connection's state; `None` when it is refused.
    fn check_state(&self, state: &[u8]) -> Option<Option<Box<str>>> {
        let limit = self.config.state_size;
        if state.len() > limit {
            tracing::error!(
                "a state of {} bytes was not kept: realtime.state_size allows {limit}",
                state.len()
            );
            return None;
        }
        match std::str::from_utf8(state) {
            Ok("") => Some(None),
            Ok(state) => Some(Some(state.into())),
            Err(_) => {
                tracing::error!("a state that is not UTF-8 was not kept");
                None
            }
        }
    }

    /// Takes back what a process left unanswered of `connection`.
    pub(super) fn give_back(&self, connection: ConnectionId, blame: Blame, now: Instant) {
        let returned = self.lock().give_back(connection, blame, now);
        if returned.freed > 0 {
            self.room.give_back(returned.freed);
        }
        if blame != Blame::None {
            let again = returned.again as u64;
            self.counters.retried.fetch_add(again, Ordering::Relaxed);
        }
        if returned.ready {
            self.wake();
        } else {
            self.later_wake.notify_one();
        }
        self.give_up(returned.given_up, "its handler request failed three times");
    }

    /// Answers what nobody will handle, and tells the operator.
    pub(super) fn give_up(&self, events: Vec<Pending>, why: &str) {
        for Pending { event, units, .. } in events {
            self.room.give_back(units);
            let connection = event.connection();
            let (id, ip) = (connection.id, &connection.ip);
            match &event {
                // Whoever waits for the verdict is told, and asks again.
                Event::Open { .. } | Event::Subscribe { .. } => {
                    tracing::error!(connection = %id, %ip, "no verdict on a client: {why}");
                }
                Event::Message { message, .. } => {
                    let data = message.data.bytes();
                    let shown = String::from_utf8_lossy(&data[..data.len().min(LOGGED)]);
                    tracing::error!(
                        connection = %id, %ip, channel = %message.channel, event = message.event.as_str(),
                        number = message.number, bytes = data.len(), data = ?shown,
                        "a client's message was given up: {why}"
                    );
                }
                Event::Close { code, .. } => {
                    tracing::error!(connection = %id, %ip, code, "the end of a connection was not told: {why}");
                }
            }
            self.counters.failed.fetch_add(1, Ordering::Relaxed);
            self.fail(event);
        }
    }

    fn fail(&self, event: Event) {
        match event {
            Event::Open { answer, .. } | Event::Subscribe { answer, .. } => answer.fail(),
            Event::Message { reply_to, .. } => self.reply(reply_to, Err(HandlerFailed)),
            Event::Close { .. } => {}
        }
    }

    fn reply(&self, to: ReplyTo, outcome: backend::Outcome) {
        if let Some(replies) = self.replies.get().and_then(Weak::upgrade) {
            replies.reply(to, outcome);
            self.replied.notify_one();
        }
    }
}
