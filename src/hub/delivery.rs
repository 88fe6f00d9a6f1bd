//! The broadcast path: one publication to all its subscribers, then one write for each of their sockets.
//!
//! Called by [`super::deliver`] with what the mailbox brought. Everything here is counted in nanoseconds a
//! delivery: no allocation, no copy and no hash look-up per connection.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::connection::Connection;
use super::mailbox::Command;
use super::{Hub, REPLAY_AHEAD, STRIDE};
use crate::backend::Outcome;
use crate::ids::ConnectionId;
use crate::message::{EventName, Payload, Publication};
use crate::outbox::Flushed;
use crate::wire::{self, Format, Outgoing};

impl Hub {
    /// Does one piece of work. Bytes stay in the outboxes until [`Hub::flush_dirty`], but for a publication that is
    /// `alone` in its batch: nothing could leave together with it, as long as nothing else comes.
    pub(super) fn carry_out(&mut self, command: Command, alone: bool) {
        match command {
            Command::Publication(publication) => self.publication(&publication, alone),
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
        // Flushing marks nobody, so nothing comes into the list meanwhile.
        while !self.flush_some(usize::MAX) {}
    }

    /// The same for at most `count` connections. Whether that were all.
    pub(super) fn flush_some(&mut self, count: usize) -> bool {
        for _ in 0..count {
            let Some(slot) = self.dirty.pop_front() else {
                return true;
            };
            self.connections[slot].dirty = false;
            if !self.connections[slot].blocked
                && let Flushed::Broken(_) = self.flush(slot)
            {
                // Its task reads the same error from the socket, and ends.
                self.connections[slot].wake();
            }
        }
        self.dirty.is_empty()
    }

    pub(super) fn flush(&mut self, slot: usize) -> Flushed {
        let connection = &mut self.connections[slot];
        let Some(socket) = &connection.socket else {
            if !connection.outbox.is_empty() {
                connection.wake();
            }
            return Flushed::All;
        };
        self.lanes[slot].sent = true;
        loop {
            if connection.replay.is_some() {
                let format = connection.format;
                let (outbox, replay) = (&mut connection.outbox, &mut connection.replay);
                refill(outbox, replay, |publication| {
                    let packed = &self.shard.packed;
                    packed.encode(publication, format, &mut self.packer)
                });
            }
            match connection.outbox.flush(socket, &mut self.gather) {
                Flushed::All if connection.replay.is_some() => {}
                Flushed::All => {
                    connection.blocked = false;
                    if connection.closing.is_some() {
                        connection.wake();
                    } else {
                        self.lanes[slot].reopen();
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

    fn publication(&mut self, publication: &Arc<Publication>, mut alone: bool) {
        let exact = self.channels.get(publication.channel.as_str());
        let exact = exact.map_or(&[][..], Vec::as_slice);
        let by_pattern = self.patterns.subscribers(publication, &self.connections);
        if exact.is_empty() && by_pattern.is_empty() {
            return;
        }
        let except = publication
            .except
            .and_then(|except| self.shard.connection(except))
            .map(|registered| registered.slot);
        let seq = publication.position.seq;
        // There are clients who would take it for a message.
        let is_presence = publication.event.is_presence();
        // Once for this shard's subscribers. Not for all shards: to share the bytes took as long as to make them again with a
        // message of 128 bytes, a fifth longer with 4 KB, and five times as long with 64 KB, where one waits for the other.
        let mut encoded: [Option<Bytes>; Format::COUNT] = Default::default();
        let mut delivered = 0;
        let mut stuck = Vec::new();
        // Nearly none has terms, and for those nobody need be asked.
        let with_terms = publication.has_conditions();
        for subscriber in exact.iter().chain(&by_pattern) {
            let slot = subscriber.slot;
            if seq <= subscriber.after || except == Some(slot) {
                continue;
            }
            if with_terms
                && !self
                    .patterns
                    .may_have(slot, &self.connections[slot], publication)
            {
                continue;
            }
            let lane = &mut self.lanes[slot];
            if is_presence && !lane.format.tells_events() {
                continue;
            }
            let bytes = encoded[lane.format.index()].get_or_insert_with(|| {
                let packed = &self.shard.packed;
                packed.encode(publication, lane.format, &mut self.packer)
            });
            if alone && lane.open {
                lane.sent = true;
                delivered += 1;
                match lane.send(bytes) {
                    Ok(sent) if sent == bytes.len() => {}
                    result => stuck.push((slot, Stuck::Send(result))),
                }
                // Whoever has not got it yet gets it together with what has come meanwhile.
                alone = delivered % STRIDE as u64 != 0 || !self.shard.has_more();
                continue;
            }
            let connection = &mut self.connections[slot];
            if connection.closing.is_some() {
                continue;
            }
            delivered += 1;
            connection.newest = seq;
            if !connection.put(publication, bytes, self.max_backlog) {
                stuck.push((slot, Stuck::Full));
                continue;
            }
            lane.open = false;
            if !connection.dirty {
                connection.dirty = true;
                self.dirty.push_back(slot);
            }
        }
        self.shard
            .stats
            .delivered
            .fetch_add(delivered, Ordering::Relaxed);
        for (slot, stuck) in stuck {
            let bytes = encoded[self.lanes[slot].format.index()].clone();
            let bytes = bytes.unwrap_or_default();
            match stuck {
                Stuck::Full => {
                    self.make_room(slot);
                    if self.connections[slot].put(publication, &bytes, self.max_backlog) {
                        self.mark(slot);
                    } else {
                        self.too_slow(slot);
                    }
                }
                Stuck::Send(result) => self.not_sent(slot, result, bytes),
            }
        }
    }

    /// A message that went straight to an idle connection's socket did not get through, or not all of it.
    fn not_sent(&mut self, slot: usize, result: io::Result<usize>, bytes: Bytes) {
        let sent = match result {
            Ok(sent) => sent,
            Err(error) if is_for_later(&error) => 0,
            Err(_) => {
                // Its task reads the same error from the socket, and ends.
                self.lanes[slot].open = false;
                return self.connections[slot].wake();
            }
        };
        self.connections[slot].outbox.push_rest(bytes, sent);
        // The flush finds out whether the socket is still full, and has the task wait for it.
        self.mark(slot);
    }

    fn send(&mut self, to: ConnectionId, payload: &Payload, event: &EventName) {
        let Some(registered) = self.shard.connection(to) else {
            return;
        };
        let outgoing = Outgoing {
            channel: None,
            id: None,
            cursor: None,
            event,
            payload,
            retry: None,
        };
        let format = self.format(registered.slot);
        let bytes = wire::encode(&outgoing, format, &mut self.packer);
        self.shard.stats.delivered.fetch_add(1, Ordering::Relaxed);
        self.push(registered.slot, bytes);
    }

    fn reply(&mut self, to: ConnectionId, reference: Option<&str>, outcome: Outcome) {
        let Some(registered) = self.shard.connection(to) else {
            return;
        };
        let slot = registered.slot;
        self.answered(slot);
        let failure;
        let answer = match &outcome {
            Ok(payload) => Ok(payload.as_ref()),
            Err(failed) => {
                failure = failed.to_string();
                Err(&failure[..])
            }
        };
        let format = self.connections[slot].format;
        if let Some(bytes) = wire::encode_reply(reference, answer, format, &mut self.packer) {
            self.push(slot, bytes);
        }
    }
}

/// Why a subscriber did not get a publication at once.
enum Stuck {
    /// Too much waits for it.
    Full,
    /// What the send said.
    Send(io::Result<usize>),
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Encodes the next of what is being replayed, up to [`REPLAY_AHEAD`] bytes.
fn refill(
    outbox: &mut crate::outbox::Outbox,
    replay: &mut Option<Box<super::Replay>>,
    mut encode: impl FnMut(&Publication) -> Bytes,
) {
    let Some(waiting) = replay else { return };
    while outbox.bytes() < REPLAY_AHEAD
        && let Some(publication) = waiting.pop()
    {
        outbox.push(encode(&publication));
    }
    if waiting.is_empty() {
        *replay = None;
    }
}

const _: () = assert!(
    size_of::<Connection>() <= 256,
    "there is one of these for every idle connection: keep it small"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::mailbox::Shard;
    use crate::ids::{Channel, ConnectionId, Position};
    use crate::message::{ConnectionInfo, Transport};
    use crate::wire::Body;
    use crate::wire::deflate::Packing;
    use std::collections::HashSet;

    /// Of what this protects the price is told by tests/bench; here is that it is so at all.
    #[test]
    fn a_message_is_encoded_once_for_all_subscribers_of_a_format() {
        let formats = [
            Format::Native(Packing::Plain),
            Format::Pusher(Packing::Plain),
            Format::Pusher(Packing::Wide),
            Format::mercure(Body::Chunked),
            Format::mercure(Body::UntilClose),
        ];
        let mut hub = Hub::new(Arc::new(Shard::new(Arc::default())), 1 << 20, 256);
        let channel = Channel::parse("orders").unwrap();
        let mut slots = vec![Vec::new(); formats.len()];
        for number in 0..100 {
            let format = number % formats.len();
            let id = ConnectionId::new(0, number as u128);
            let info = ConnectionInfo::new(id, 0, Transport::Pusher, "", "/", std::iter::empty());
            // Without a socket what it gets stays in its outbox.
            let slot = hub.add(Arc::new(info), formats[format], None);
            hub.subscribe(slot, &channel, 0);
            slots[format].push(slot);
        }
        // One that is too small to be compressed, and one that is not.
        for (seq, length) in [(1, 10), (2, 1000)] {
            let publication = Publication {
                channel: channel.clone(),
                position: Position { epoch: 1, seq },
                id: None,
                event: EventName::Message,
                payload: Payload::Json(format!("\"{}\"", "x".repeat(length)).into()),
                except: None,
                at: std::time::Instant::now(),
                terms: None,
            };
            hub.carry_out(Command::Publication(Arc::new(publication)), false);
        }
        let (mut all, mut kept) = (HashSet::new(), Vec::new());
        for slots in slots {
            let mut distinct = HashSet::new();
            for slot in slots {
                let pieces = hub.connections[slot].outbox.take();
                assert_eq!(pieces.len(), 2);
                distinct.insert([pieces[0].as_ptr(), pieces[1].as_ptr()]);
                // Nothing is freed, and its place given out again, before all have been looked at.
                kept.push(pieces);
            }
            assert_eq!(distinct.len(), 1, "all subscribers share the same bytes");
            all.extend(distinct);
        }
        assert_eq!(all.len(), formats.len());
    }
}
