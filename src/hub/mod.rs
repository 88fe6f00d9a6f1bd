//! A shard's connections and channels, and the delivery to them. One thread owns a [`Hub`]; nothing in it is locked.
//!
//! Work comes in through [`mailbox`], from this and other threads; bytes go out through each connection's
//! `outbox`, straight to its socket. Imports `ids`, `message`, `wire`, `outbox` and `socket`.

pub mod connection;
mod delivery;
mod expiry;
mod fitting;
mod lane;
pub mod mailbox;
pub mod packed;
mod patterns;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use slab::Slab;

use self::connection::{Closing, Connection, Replay, Subscription};
use self::expiry::Expiries;
pub use self::expiry::{CLOSE_EXPIRED, CLOSE_REVOKED};
use self::lane::Lane;
use self::mailbox::Shard;
use self::patterns::Patterns;
use crate::ids::Channel;
use crate::message::{ConnectionInfo, Publication};
use crate::outbox::{Flushed, GATHER};
use crate::socket::Socket;
use crate::wire::Format;
use crate::wire::deflate::{Inflater, Packer};

/// A hub that the tasks of one thread share. Borrowed for one call at a time, never across an await.
pub type SharedHub = Rc<RefCell<Hub>>;

/// Reads too slowly: more than `realtime.max_backlog` waited.
pub const CLOSE_SLOW: u16 = 4008;
/// Another hub has taken over: reconnect and resume.
pub const CLOSE_MOVED: u16 = 1012;
/// Did not answer a ping.
pub const CLOSE_SILENT: u16 = 4009;

/// Whether a connection that the hub closes with `code` is closed because PHP wants it gone.
pub fn is_of_php(code: u16) -> bool {
    match code {
        CLOSE_SLOW | CLOSE_SILENT | CLOSE_EXPIRED => false,
        code => code == 1000 || code >= 3000,
    }
}

/// For how much work the room is kept in which it waits.
const BATCH_KEPT: usize = 4096;

/// For how many channels more than there are room is kept.
const CHANNELS_KEPT: usize = 4096;

/// How much is encoded ahead for a connection that catches up, in bytes.
const REPLAY_AHEAD: usize = GATHER;

/// What one shard owns.
#[derive(Debug)]
pub struct Hub {
    shard: Arc<Shard>,
    connections: Slab<Connection>,
    /// By slot; what the broadcast path looks at.
    lanes: Vec<Lane>,
    channels: HashMap<Channel, Vec<Subscriber>>,
    /// Subscriptions to whatever fits a pattern.
    patterns: Patterns,
    /// Connections with something to flush at the end of the batch.
    dirty: Vec<usize>,
    gather: Vec<u8>,
    /// Room to read into, lent to whichever connection has something to read.
    input: Vec<u8>,
    packer: Packer,
    inflater: Inflater,
    max_backlog: usize,
    /// How many sweeps there were.
    sweeps: usize,
    expiries: Expiries,
}

/// A connection in a channel's list.
#[derive(Clone, Copy, Debug)]
struct Subscriber {
    slot: usize,
    /// Messages up to this number came before the subscription, or with its past.
    after: u64,
}

impl Hub {
    /// An empty hub. `max_backlog` bounds what may wait for one connection, in bytes; messages from `compress_min` bytes
    /// on are compressed for those who want it, none with 0.
    pub fn new(shard: Arc<Shard>, max_backlog: usize, compress_min: usize) -> Self {
        Self {
            shard,
            connections: Slab::new(),
            lanes: Vec::new(),
            channels: HashMap::new(),
            patterns: Patterns::default(),
            dirty: Vec::new(),
            gather: Vec::with_capacity(GATHER),
            input: Vec::new(),
            packer: Packer::new(compress_min),
            inflater: Inflater::default(),
            max_backlog,
            sweeps: 0,
            expiries: Expiries::default(),
        }
    }

    /// What this hub shares with other threads.
    pub fn shard(&self) -> &Arc<Shard> {
        &self.shard
    }

    /// Adds a connection and returns its slot, which is its own until [`Hub::remove`].
    pub fn add(
        &mut self,
        info: Arc<ConnectionInfo>,
        format: Format,
        socket: Option<Rc<Socket>>,
    ) -> usize {
        let lane = Lane::new(format, socket.as_ref());
        let slot = self
            .connections
            .insert(Connection::new(info.clone(), format, socket));
        if slot == self.lanes.len() {
            self.lanes.push(lane);
        } else {
            self.lanes[slot] = lane;
        }
        if let Some(grant) = info.grant() {
            self.expiries.watch(info.id, grant.expires);
        }
        self.shard.register(info, slot);
        slot
    }

    /// Removes a connection and all its subscriptions.
    pub fn remove(&mut self, slot: usize) {
        while let Some(subscription) = self.connections[slot].subscriptions.pop() {
            self.leave(&subscription);
        }
        let patterns = self.patterns.leave(slot);
        let subscriptions = &self.shard.stats.subscriptions;
        subscriptions.fetch_sub(patterns, Ordering::Relaxed);
        let connection = self.connections.remove(slot);
        self.shard.deregister(connection.info.id);
        if connection.dirty {
            self.dirty.retain(|&dirty| dirty != slot);
        }
    }

    /// Subscribes `slot` to `channel` for messages numbered above `after`. `false` when it was already.
    pub fn subscribe(&mut self, slot: usize, channel: &Channel, after: u64) -> bool {
        if self.is_subscribed(slot, channel) {
            return false;
        }
        let (name, index) = match self.channels.get_key_value(channel) {
            Some((name, list)) => (name.clone(), list.len()),
            None => (channel.clone(), 0),
        };
        self.channels
            .entry(name.clone())
            .or_default()
            .push(Subscriber { slot, after });
        self.connections[slot].subscriptions.push(Subscription {
            channel: name,
            index,
        });
        self.shard
            .stats
            .subscriptions
            .fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Ends a subscription. `false` when there was none.
    pub fn unsubscribe(&mut self, slot: usize, channel: &str) -> bool {
        let subscriptions = &mut self.connections[slot].subscriptions;
        let Some(at) = subscriptions
            .iter()
            .position(|s| s.channel.as_str() == channel)
        else {
            return false;
        };
        let subscription = subscriptions.swap_remove(at);
        self.leave(&subscription);
        // What still waits of its past must not come after the client was told, nor twice when it resumes.
        if let Some(replay) = &mut self.connections[slot].replay {
            replay.forget(channel);
        }
        true
    }

    /// Whether `slot` is subscribed to `channel`.
    pub fn is_subscribed(&self, slot: usize, channel: &Channel) -> bool {
        self.connections[slot]
            .subscriptions
            .iter()
            .any(|s| s.channel == *channel)
    }

    /// How many channels `slot` is subscribed to.
    pub fn subscriptions(&self, slot: usize) -> usize {
        self.connections[slot].subscriptions.len()
    }

    /// Every channel that has subscribers here, with their number.
    pub fn channels(&self) -> impl Iterator<Item = (&Channel, usize)> {
        self.channels
            .iter()
            .map(|(channel, list)| (channel, list.len()))
    }

    /// The connections that are subscribed to `channel`.
    pub fn subscribers(&self, channel: &str) -> Vec<Arc<ConnectionInfo>> {
        let list = self.channels.get(channel).map_or(&[][..], Vec::as_slice);
        list.iter()
            .map(|s| self.connections[s.slot].info.clone())
            .collect()
    }

    /// How many connections are subscribed to `channel`.
    pub fn subscriber_count(&self, channel: &str) -> usize {
        self.channels.get(channel).map_or(0, Vec::len)
    }

    /// What PHP may know of `slot`.
    pub fn info(&self, slot: usize) -> &Arc<ConnectionInfo> {
        &self.connections[slot].info
    }

    /// How `slot` wants its messages.
    pub fn format(&self, slot: usize) -> Format {
        self.connections[slot].format
    }

    /// Lends the shard's room to read into.
    pub fn lend_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }

    /// Takes it back. When two were lent at once, one of them is kept.
    pub fn return_input(&mut self, input: Vec<u8>) {
        if input.capacity() > self.input.capacity() {
            self.input = input;
        }
    }

    /// What decompresses for this shard.
    pub fn inflater(&mut self) -> &mut Inflater {
        &mut self.inflater
    }

    /// Notes that a message of the client is on its way to PHP, which answers it.
    pub fn asks(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        connection.unanswered = connection.unanswered.saturating_add(1);
    }

    /// Notes that one of them is answered.
    pub fn answered(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        connection.unanswered = connection.unanswered.saturating_sub(1);
    }

    /// Whether PHP still has a message of the client.
    pub fn is_unanswered(&self, slot: usize) -> bool {
        self.connections[slot].unanswered > 0
    }

    /// Notes that the client gave a sign of life.
    pub fn heard(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        connection.heard = true;
        connection.pinged = false;
    }

    /// How `slot` is being closed, if it is.
    pub fn closing(&self, slot: usize) -> Option<&Closing> {
        self.connections[slot].closing.as_deref()
    }

    /// Begins to close `slot`: what waits is still sent, then the close frame or the end of the body.
    pub fn close(&mut self, slot: usize, code: u16, reason: &str) {
        let connection = &mut self.connections[slot];
        if connection.closing.is_some() {
            return;
        }
        let last = crate::wire::farewell(connection.format, code, reason);
        if !last.is_empty() {
            connection.outbox.push(last);
        }
        connection.replay = None;
        connection.closing = Some(Box::new(Closing {
            code,
            reason: reason.to_owned(),
        }));
        connection.wake();
        self.mark(slot);
    }

    /// Ends the sending to `slot`: whatever is put in from here on is dropped. For a connection that its client ends.
    pub fn seal(&mut self, slot: usize) {
        self.lanes[slot].open = false;
        self.connections[slot].closing.get_or_insert_with(|| {
            Box::new(Closing {
                code: 1006,
                reason: String::new(),
            })
        });
    }

    /// Does what was put off until a connection was open.
    pub fn catch_up(&mut self, deferred: Vec<mailbox::Command>) {
        for command in deferred {
            self.carry_out(command, false);
        }
    }

    /// Closes every connection.
    pub fn close_all(&mut self, code: u16, reason: &str) {
        let slots: Vec<usize> = self.connections.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.close(slot, code, reason);
        }
        self.flush_dirty();
    }

    /// The connections that are not being closed.
    pub fn open(&self) -> impl Iterator<Item = usize> {
        self.connections
            .iter()
            .filter(|(_, connection)| connection.closing.is_none())
            .map(|(slot, _)| slot)
    }

    /// Closes so many connections.
    pub fn close_some(&mut self, count: usize, code: u16, reason: &str) {
        let slots: Vec<usize> = self.open().take(count).collect();
        for slot in slots {
            self.close(slot, code, reason);
        }
        self.flush_dirty();
    }

    /// Puts `bytes` into the outboxes of those of a channel's subscribers whose format is meant.
    pub fn push_to_each(
        &mut self,
        channel: &str,
        bytes: &Bytes,
        is_meant: impl Fn(Format) -> bool,
    ) {
        let subscribers = self.channels.get(channel).map_or(&[][..], Vec::as_slice);
        let slots: Vec<usize> = subscribers
            .iter()
            .map(|its| its.slot)
            .filter(|&slot| is_meant(self.lanes[slot].format))
            .collect();
        for slot in slots {
            self.push(slot, bytes.clone());
        }
    }

    /// Puts `bytes` into a connection's outbox. They leave with the next flush.
    pub fn push(&mut self, slot: usize, bytes: Bytes) {
        let connection = &mut self.connections[slot];
        if connection.closing.is_some() || bytes.is_empty() {
            return;
        }
        if !connection.outbox.has_room(bytes.len(), self.max_backlog) {
            self.make_room(slot);
        }
        let connection = &mut self.connections[slot];
        if connection.outbox.has_room(bytes.len(), self.max_backlog) {
            connection.outbox.push(bytes);
            self.mark(slot);
        } else {
            self.too_slow(slot);
        }
    }

    /// Sends what waits, before the end of the batch: a client that reads is not too slow only because much came for it
    /// at once.
    fn make_room(&mut self, slot: usize) {
        if let Flushed::Broken(_) = self.flush(slot) {
            // Its task reads the same error from the socket, and ends.
            self.connections[slot].wake();
        }
    }

    /// Gives `slot` what it missed; live messages queue behind it.
    pub fn replay(&mut self, slot: usize, missed: impl IntoIterator<Item = Arc<Publication>>) {
        let connection = &self.connections[slot];
        // Who may have it is asked anew: a token may be another than when it was published.
        let may_have =
            |publication: &Arc<Publication>| self.patterns.may_have(slot, connection, publication);
        let missed: Vec<_> = missed.into_iter().filter(may_have).collect();
        let connection = &mut self.connections[slot];
        let mut missed = missed.into_iter().peekable();
        if missed.peek().is_none() {
            return;
        }
        connection
            .replay
            .get_or_insert_with(Box::default)
            .push_past(missed);
        self.mark(slot);
    }

    /// Lets a connection's task go on with what hangs on its socket. Ready with an error when it is broken.
    ///
    /// Also notes the task to wake when the hub wants something of it; call it at each poll.
    pub fn poll_task(&mut self, slot: usize, cx: &mut Context<'_>) -> Poll<std::io::Error> {
        self.connections[slot].register(cx);
        while self.connections[slot].blocked {
            let Some(socket) = self.connections[slot].socket.clone() else {
                break;
            };
            match socket.poll_writable(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Ready(Ok(())) => {
                    if let Flushed::Broken(error) = self.flush(slot) {
                        return Poll::Ready(error);
                    }
                }
            }
        }
        Poll::Pending
    }

    /// Whether all that was put into the outbox has left.
    pub fn is_flushed(&self, slot: usize) -> bool {
        let connection = &self.connections[slot];
        connection.outbox.is_empty() && connection.replay.is_none() && !connection.blocked
    }

    /// For long polling: takes what waits, with the newest number in it. `None` while nothing does.
    pub fn poll_collected(&mut self, slot: usize, cx: &mut Context<'_>) -> Poll<(Vec<Bytes>, u64)> {
        let connection = &mut self.connections[slot];
        connection.register(cx);
        if connection.outbox.is_empty() && connection.closing.is_none() {
            return Poll::Pending;
        }
        Poll::Ready(self.collected(slot))
    }

    /// For long polling: takes what waits, which may be nothing.
    pub fn collected(&mut self, slot: usize) -> (Vec<Bytes>, u64) {
        let connection = &mut self.connections[slot];
        (connection.outbox.take().into(), connection.newest)
    }

    /// Visits one part in `parts` of the connections, another at each call: pings the silent ones, ends those that
    /// stayed so. Each is visited at every `parts`-th call, however many there are.
    pub fn sweep(&mut self, parts: usize) {
        let parts = parts.max(1);
        let first = self.sweeps % parts;
        self.sweeps = self.sweeps.wrapping_add(1);
        let end = self
            .connections
            .iter()
            .next_back()
            .map_or(0, |(slot, _)| slot + 1);
        for slot in (first..end).step_by(parts) {
            if self.connections.contains(slot) {
                self.check_life(slot);
            }
        }
        self.flush_dirty();
        if self.channels.capacity() > 4 * (self.channels.len() + CHANNELS_KEPT) {
            self.channels.shrink_to_fit();
        }
    }

    fn check_life(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        let silent = match connection.format {
            // A WebSocket must answer a ping; what is sent to it says nothing about its being there.
            format if format.is_websocket() => !std::mem::take(&mut connection.heard),
            // A stream only has to see something now and then, and so have the proxies before it.
            format if format.is_stream() => !std::mem::take(&mut self.lanes[slot].sent),
            _ => false,
        };
        if !silent || connection.closing.is_some() {
            return;
        }
        if connection.format.is_stream()
            && (!connection.outbox.is_empty() || connection.replay.is_some())
        {
            // Something waits for it already. A heartbeat would overtake a replay, and says to a client that it has all.
            return;
        }
        if connection.pinged {
            tracing::debug!(connection = %connection.info.id, "no answer to a ping");
            self.close(slot, CLOSE_SILENT, "no answer to a ping");
            return;
        }
        connection.pinged = connection.format.is_websocket();
        let heartbeat = crate::wire::heartbeat(connection.format);
        self.push(slot, heartbeat);
    }

    fn too_slow(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        self.shard
            .stats
            .dropped_slow
            .fetch_add(1, Ordering::Relaxed);
        tracing::debug!(connection = %connection.info.id, "too slow: realtime.max_backlog is full");
        connection.outbox.discard();
        connection.replay = None;
        self.close(slot, CLOSE_SLOW, "too slow, reconnect and resume");
    }

    fn mark(&mut self, slot: usize) {
        self.lanes[slot].open = false;
        let connection = &mut self.connections[slot];
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Takes a subscription out of its channel's list, and the channel when it was the last.
    fn leave(&mut self, subscription: &Subscription) {
        self.shard
            .stats
            .subscriptions
            .fetch_sub(1, Ordering::Relaxed);
        let Some(list) = self.channels.get_mut(subscription.channel.as_str()) else {
            return;
        };
        list.swap_remove(subscription.index);
        if list.is_empty() {
            self.channels.remove(subscription.channel.as_str());
            return;
        }
        // The last of the list has moved into the gap.
        if let Some(moved) = list.get(subscription.index) {
            let moved = &mut self.connections[moved.slot].subscriptions;
            if let Some(its) = moved.iter_mut().find(|s| s.channel == subscription.channel) {
                its.index = subscription.index;
            }
        }
    }
}

/// Delivers what the mailbox brings, for as long as the shard lives.
pub async fn deliver(hub: SharedHub) {
    let shard = hub.borrow().shard.clone();
    let mut commands = Vec::new();
    loop {
        shard.take(&mut commands).await;
        {
            let _working = shard.working(&commands);
            let mut hub = hub.borrow_mut();
            // With more than one, each socket gets all that is for it in one write, at the end.
            let alone = commands.len() == 1;
            for command in commands.drain(..) {
                hub.carry_out(command, alone);
            }
            hub.flush_dirty();
        }
        // A burst's room is not kept for ever.
        commands.shrink_to(BATCH_KEPT);
        // Reading goes on between two batches, however fast the publishers are.
        tokio::task::yield_now().await;
    }
}

/// Removes the connection when its task ends, however it ends.
#[derive(Debug)]
pub struct Membership {
    hub: SharedHub,
    slot: usize,
}

impl Membership {
    /// Adds a connection for as long as the value lives.
    pub fn new(
        hub: &SharedHub,
        info: Arc<ConnectionInfo>,
        format: Format,
        socket: Option<Rc<Socket>>,
    ) -> Self {
        let slot = hub.borrow_mut().add(info, format, socket);
        Self {
            hub: hub.clone(),
            slot,
        }
    }

    /// The hub.
    pub fn hub(&self) -> &SharedHub {
        &self.hub
    }

    /// The connection's slot.
    pub fn slot(&self) -> usize {
        self.slot
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.hub.borrow_mut().remove(self.slot);
    }
}
