//! The broadcast path: one publication to all its subscribers, then one write for each of their sockets.
//!
//! Called by [`super::deliver`] with what the mailbox brought. Everything here is counted in nanoseconds a
//! delivery: no allocation, no copy and no hash look-up per connection.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::connection::Connection;
use super::mailbox::Command;
use super::{Hub, REPLAY_AHEAD};
use crate::backend::Outcome;
use crate::ids::ConnectionId;
use crate::message::{EventName, Payload, Publication};
use crate::outbox::Flushed;
use crate::wire::envelope::{self, ServerFrame};
use crate::wire::{self, Format, Outgoing, websocket};

impl Hub {
    /// Does one piece of work. Bytes stay in the outboxes until [`Hub::flush_dirty`].
    pub(super) fn carry_out(&mut self, command: Command) {
        match command {
            Command::Publication(publication) => self.publication(&publication),
            Command::Send { to, payload, event } => self.send(to, &payload, &event),
            Command::Reply {
                to,
                reference,
                outcome,
            } => {
                self.reply(to, reference.as_deref(), outcome);
            }
            Command::Run(work) => work(self),
        }
    }

    /// Sends what this batch has put into outboxes.
    pub fn flush_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for &slot in &dirty {
            self.connections[slot].dirty = false;
            if !self.connections[slot].blocked
                && let Flushed::Broken(_) = self.flush(slot)
            {
                // Its task reads the same error from the socket, and ends.
                self.connections[slot].wake();
            }
        }
        dirty.clear();
        // Flushing marks nobody, so nothing has come into the list meanwhile.
        self.dirty = dirty;
    }

    pub(super) fn flush(&mut self, slot: usize) -> Flushed {
        let connection = &mut self.connections[slot];
        let Some(socket) = &connection.socket else {
            if !connection.outbox.is_empty() {
                connection.wake();
            }
            return Flushed::All;
        };
        connection.sent = true;
        loop {
            if connection.replay.is_some() {
                refill(
                    &mut connection.outbox,
                    &mut connection.replay,
                    connection.format,
                );
            }
            match connection.outbox.flush(socket, &mut self.gather) {
                Flushed::All if connection.replay.is_some() => {}
                Flushed::All => {
                    connection.blocked = false;
                    if connection.closing.is_some() {
                        connection.wake();
                    }
                    return Flushed::All;
                }
                Flushed::Blocked => {
                    if !connection.blocked {
                        connection.blocked = true;
                        connection.wake();
                    }
                    return Flushed::Blocked;
                }
                Flushed::Broken(error) => {
                    connection.outbox = Default::default();
                    connection.replay = None;
                    connection.blocked = false;
                    return Flushed::Broken(error);
                }
            }
        }
    }

    fn publication(&mut self, publication: &Arc<Publication>) {
        let Some(subscribers) = self.channels.get(publication.channel.as_str()) else {
            return;
        };
        let mut encoded: [Option<Bytes>; Format::COUNT] = Default::default();
        let mut delivered = 0;
        let mut too_slow = Vec::new();
        for subscriber in subscribers {
            if publication.position.seq <= subscriber.after {
                continue;
            }
            let connection = &mut self.connections[subscriber.slot];
            if connection.closing.is_some()
                || publication
                    .except
                    .is_some_and(|except| except == connection.info.id)
            {
                continue;
            }
            delivered += 1;
            connection.newest = publication.position.seq;
            if let Some(replay) = &mut connection.replay {
                if !replay.push_live(publication, self.max_backlog) {
                    too_slow.push(subscriber.slot);
                }
                continue;
            }
            let bytes = encoded[connection.format.index()]
                .get_or_insert_with(|| wire::encode_publication(publication, connection.format));
            if connection.outbox.weight() + bytes.len() > self.max_backlog {
                too_slow.push(subscriber.slot);
                continue;
            }
            connection.outbox.push(bytes.clone());
            if !connection.dirty {
                connection.dirty = true;
                self.dirty.push(subscriber.slot);
            }
        }
        self.shard
            .stats
            .delivered
            .fetch_add(delivered, Ordering::Relaxed);
        for slot in too_slow {
            self.too_slow(slot);
        }
    }

    fn send(&mut self, to: ConnectionId, payload: &Payload, event: &EventName) {
        let Some(registered) = self.shard.connection(to) else {
            return;
        };
        let outgoing = Outgoing {
            channel: None,
            id: None,
            event,
            payload,
        };
        let bytes = wire::encode(&outgoing, self.format(registered.slot));
        self.shard.stats.delivered.fetch_add(1, Ordering::Relaxed);
        self.push(registered.slot, bytes);
    }

    fn reply(&mut self, to: ConnectionId, reference: Option<&str>, outcome: Outcome) {
        let Some(registered) = self.shard.connection(to) else {
            return;
        };
        let slot = registered.slot;
        let bytes = match (self.format(slot), outcome) {
            (Format::Native, Ok(payload)) if payload.is_some() || reference.is_some() => {
                websocket::text(&envelope::reply(reference, payload.as_ref()))
            }
            (Format::Raw, Ok(Some(payload))) => websocket::raw(&payload),
            (Format::Native, Err(failed)) => {
                let reference = reference.and_then(|text| serde_json::from_str(text).ok());
                let message = failed.to_string();
                let frame = ServerFrame::Error {
                    code: "handler_failed",
                    message: &message,
                    reference,
                    channel: None,
                };
                websocket::text(&envelope::server_frame(&frame))
            }
            _ => return,
        };
        self.push(slot, bytes);
    }
}

/// Encodes the next of what is being replayed, up to [`REPLAY_AHEAD`] bytes.
fn refill(
    outbox: &mut crate::outbox::Outbox,
    replay: &mut Option<Box<super::Replay>>,
    format: Format,
) {
    let Some(waiting) = replay else { return };
    while outbox.bytes() < REPLAY_AHEAD
        && let Some(publication) = waiting.pop()
    {
        outbox.push(wire::encode_publication(&publication, format));
    }
    if waiting.is_empty() {
        *replay = None;
    }
}

const _: () = assert!(
    size_of::<Connection>() <= 256,
    "there is one of these for every idle connection: keep it small"
);
