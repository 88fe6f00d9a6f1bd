//! The newest messages of every channel, bounded by count and age for each and by bytes over all.
//!
//! Filled by `broker`, read when a client resumes. It never hides a gap: for each channel, and for all channels
//! that it has forgotten, it knows the newest position that it no longer has. Here is what is kept and what is pushed out;
//! `reading` has the questions, `walking` those about all channels, `moving` the way to another hub, `changes` what the store hears,
//! `repacking` the way into other memory. Imports `ids` and `message`.

mod changes;
mod log;
mod moving;
mod reading;
mod repacking;
#[cfg(test)]
mod tests;
mod walking;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indexmap::IndexMap;

pub use self::changes::{Changes, Fate};
use self::log::{Log, Own, channel_cost, cost, id_cost};
pub use self::moving::{Past, publication, wire_note};
pub use self::reading::{Missed, in_epoch};
pub use self::repacking::Repack;
pub use self::walking::{Copies, Piece, Wanted};
use crate::ids::Channel;
use crate::message::Publication;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages for each channel.
    pub count: usize,
    /// How long.
    pub age: Duration,
    /// Bytes over all channels.
    pub bytes: usize,
}

/// The histories of all channels.
#[derive(Debug)]
pub struct History {
    limits: Limits,
    // Those who look through all channels do that from the last to the first, in pieces: what is taken out in between
    // moves none that they have not seen yet out of their way.
    channels: IndexMap<Channel, Log>,
    /// What was noted, oldest first, over all channels: the order in which age and bytes push out. An item
    /// whose message has been pushed out by count already is skipped.
    order: VecDeque<(u64, Instant, Channel)>,
    bytes: usize,
    messages: usize,
    /// Publishers' own ids that are remembered.
    ids: usize,
    /// The newest number that was ever pushed out of a channel of which nothing is left.
    forgotten: u64,
    /// The newest number that was ever pushed out, or never kept, of any channel.
    lost: u64,
    /// The newest number whose publisher's id was pushed out of a channel of which nothing is left.
    ids_lost: u64,
    /// The publisher's id of the newest message, and the number of the first of the copies that have come in a row with it.
    latest: Option<(Box<str>, u64)>,
    /// What was pushed out since somebody asked; none when nobody does.
    changes: Option<Changes>,
    /// How often it was put into other memory.
    repacked: u32,
}

/// A message, and whether history keeps it.
#[derive(Clone, Debug)]
pub struct Note {
    /// The message.
    pub publication: Arc<Publication>,
    /// Whether it is kept. If not, at most its publisher's id is remembered.
    pub store: bool,
}

impl History {
    /// An empty one. `epoch_start` is the number before the first that it will ever see.
    pub fn new(limits: Limits, epoch_start: u64) -> Self {
        Self {
            limits,
            channels: IndexMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            messages: 0,
            ids: 0,
            forgotten: epoch_start,
            lost: epoch_start,
            ids_lost: 0,
            latest: None,
            changes: None,
            repacked: 0,
        }
    }

    /// The newest number that was pushed out of a channel of which nothing is left.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// The newest number that was pushed out of any channel.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// What was published up to `seq` may be incomplete, in every channel.
    pub fn doubt(&mut self, seq: u64) {
        self.lost = self.lost.max(seq);
        self.forgotten = self.forgotten.max(seq);
        for (channel, log) in &mut self.channels {
            log.forgotten = log.forgotten.max(seq);
            log.touch(&mut self.changes, channel);
        }
    }

    /// A channel's name as it is kept here already, which saves an allocation for each message.
    pub fn interned(&self, channel: &str) -> Option<Channel> {
        self.channels
            .get_key_value(channel)
            .map(|(name, _)| name.clone())
    }

    /// Notes a message: keeps it when `store`, and remembers its publisher's id.
    pub fn add(&mut self, publication: &Arc<Publication>, store: bool) {
        self.expire(publication.at);
        let seq = publication.position.seq;
        let first = self.first_of(publication);
        let keep = store && self.limits.count > 0;
        if store && !keep {
            self.forgotten = seq;
            self.lost = seq;
            if let Some(log) = self.channels.get_mut(&publication.channel) {
                log.forgotten = seq;
                log.touch(&mut self.changes, &publication.channel);
            }
        }
        if !keep && publication.id.is_none() {
            return;
        }
        // A channel that comes back may have been here before: what was forgotten then is still missing.
        let forgotten = self.forgotten;
        let changes = &mut self.changes;
        let log = self
            .channels
            .entry(publication.channel.clone())
            .or_insert_with(|| {
                self.bytes += channel_cost(&publication.channel);
                let mut log = Log {
                    forgotten,
                    ..Log::default()
                };
                log.touch(changes, &publication.channel);
                log
            });
        let mut freed = 0;
        if let Some(id) = &publication.id {
            if log.ids_order.len() >= self.limits.count.max(100) {
                freed += log.forget_oldest_id(changes);
                self.ids -= 1;
            }
            log.ids.insert(id.clone(), Own { seq, first });
            self.ids += 1;
            log.ids_order.push_back((seq, id.clone()));
            self.bytes += id_cost(id);
        }
        if keep {
            if log.entries.len() >= self.limits.count {
                freed += log.forget_oldest(changes);
                self.lost = self.lost.max(log.forgotten);
                self.messages -= 1;
            }
            log.entries.push_back(publication.clone());
            self.messages += 1;
            self.bytes += cost(publication);
        }
        self.bytes -= freed;
        self.order
            .push_back((seq, publication.at, publication.channel.clone()));
        while self.bytes > self.limits.bytes && self.forget_front() {}
        if self.order.len() > 2 * (self.messages + self.ids) + 4096 {
            self.compact();
        }
    }

    /// Pushes out what is too old.
    pub fn expire(&mut self, now: Instant) {
        while let Some((_, at, _)) = self.order.front() {
            if now.saturating_duration_since(*at) < self.limits.age {
                return;
            }
            self.forget_front();
        }
    }

    /// How many messages are kept.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// How many bytes are kept, all overhead included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The number of the first of the copies of this message, as its broker says; those that were published one by one come in
    /// a row.
    fn first_of(&mut self, publication: &Publication) -> u64 {
        let seq = match &publication.terms {
            Some(terms) if terms.first > 0 => terms.first,
            _ => publication.position.seq,
        };
        let Some(id) = &publication.id else {
            self.latest = None;
            return seq;
        };
        match &self.latest {
            Some((latest, first)) if latest == id => *first,
            _ => {
                self.latest = Some((id.clone(), seq));
                seq
            }
        }
    }

    /// Pushes out the oldest note. `false` when there is none.
    fn forget_front(&mut self) -> bool {
        let Some((seq, _, channel)) = self.order.pop_front() else {
            return false;
        };
        let Some(log) = self.channels.get_mut(channel.as_str()) else {
            return true;
        };
        while log.entries.front().is_some_and(|e| e.position.seq <= seq) {
            self.bytes -= log.forget_oldest(&mut self.changes);
            self.lost = self.lost.max(log.forgotten);
            self.messages -= 1;
        }
        while log.ids_order.front().is_some_and(|(of, _)| *of <= seq) {
            self.bytes -= log.forget_oldest_id(&mut self.changes);
            self.ids -= 1;
        }
        if log.entries.is_empty() && log.ids_order.is_empty() {
            self.forgotten = self.forgotten.max(log.forgotten);
            self.ids_lost = self.ids_lost.max(log.ids_lost);
            log.touch(&mut self.changes, &channel);
            self.channels.swap_remove(channel.as_str());
            self.bytes -= channel_cost(&channel);
        }
        true
    }

    /// Drops the notes of what count has pushed out, so that a busy channel cannot grow `order` without bound.
    fn compact(&mut self) {
        let channels = &self.channels;
        self.order.retain(|(seq, _, channel)| {
            channels.get(channel.as_str()).is_some_and(|log| {
                log.entries.front().is_some_and(|e| e.position.seq <= *seq)
                    || log.ids_order.front().is_some_and(|(of, _)| of <= seq)
            })
        });
    }
}
