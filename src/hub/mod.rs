//! A shard's connections and channels, and the delivery to them. One thread owns a [`Hub`]; nothing in it is locked.
//!
//! Work comes in through [`mailbox`], from this and other threads; bytes go out through each connection's
//! `outbox`, straight to its socket. Here is what a shard owns and how it closes; `subscriptions` and `patterns` know who gets
//! what, `delivery` and `sending` bring it, `life` looks who is still there. Imports `ids`, `message`, `wire`, `outbox` and `socket`.

pub mod connection;
mod delivery;
mod expiry;
mod fitting;
mod lane;
mod life;
pub mod mailbox;
pub mod packed;
mod patterns;
mod sending;
mod subscriptions;

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use slab::Slab;

use self::connection::{Closing, Connection, Replay};
use self::expiry::Expiries;
pub use self::expiry::{CLOSE_EXPIRED, CLOSE_REVOKED};
use self::lane::Lane;
use self::mailbox::Shard;
use self::patterns::Patterns;
use crate::ids::Channel;
use crate::message::ConnectionInfo;
use crate::outbox::GATHER;
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

/// After how many writes of a batch the shard looks for more work, which may join it.
const STRIDE: usize = 64;
/// How often that may be before it reads again.
const JOINED: usize = 64;

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
    dirty: VecDeque<usize>,
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
            dirty: VecDeque::new(),
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

    /// How `slot` is being closed, if it is.
    pub fn closing(&self, slot: usize) -> Option<&Closing> {
        self.connections[slot].closing.as_deref()
    }

    /// Begins to close `slot`: what waits is still sent, then the close frame or the end of the body.
    pub fn close(&mut self, slot: usize, code: u16, reason: &str) {
        let last = crate::wire::farewell(self.connections[slot].format, code, reason);
        self.close_with(slot, last, code, reason);
    }

    /// The same for PHP, whose codes mean what the application says, also where the hub has one of that number.
    pub fn dismiss(&mut self, slot: usize, code: u16, reason: &str) {
        let last = crate::wire::dismissal(self.connections[slot].format, code, reason);
        self.close_with(slot, last, code, reason);
    }

    fn close_with(&mut self, slot: usize, last: Bytes, code: u16, reason: &str) {
        let connection = &mut self.connections[slot];
        if connection.closing.is_some() {
            return;
        }
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

    /// Closes so many connections. Last those that PHP owes an answer: they would send once more what it has.
    pub fn close_some(&mut self, count: usize, code: u16, reason: &str) {
        let owed = |slot: &usize| self.is_unanswered(*slot);
        let others = self.open().filter(|slot| !owed(slot));
        let slots = others.chain(self.open().filter(owed)).take(count);
        let slots: Vec<usize> = slots.collect();
        for slot in slots {
            self.close(slot, code, reason);
        }
        self.flush_dirty();
    }
}

/// Delivers what the mailbox brings, for as long as the shard lives.
pub async fn deliver(hub: SharedHub) {
    let shard = hub.borrow().shard.clone();
    let mut commands = Vec::new();
    loop {
        shard.take(&mut commands).await;
        {
            let mut working = shard.working(&commands);
            let mut hub = hub.borrow_mut();
            // With more than one, each socket gets all that is for it in one write, at the end.
            let alone = commands.len() == 1;
            for command in commands.drain(..) {
                hub.carry_out(command, alone);
            }
            // What comes meanwhile leaves in the same writes, where these are still to be made.
            let mut joined = 0;
            while !hub.flush_some(STRIDE) {
                if joined < JOINED && shard.take_more(&mut commands) {
                    joined += 1;
                    working.add(&commands);
                    for command in commands.drain(..) {
                        hub.carry_out(command, false);
                    }
                }
            }
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
