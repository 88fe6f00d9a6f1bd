//! One channel's messages and publishers' ids, and what they cost.
//!
//! Used by the rest of `history`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::changes::{Changes, Fate};
use crate::ids::Channel;
use crate::message::Publication;

/// What a kept message costs beside its content, in bytes.
pub(super) const ENTRY_COST: usize = 192;

/// What a publisher's terms cost, in bytes.
const TERMS_COST: usize = 96;

/// What a channel costs beside its name and its messages, in bytes: its maps and queues.
pub(super) const CHANNEL_COST: usize = 320;

/// The messages and ids of one channel.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) entries: VecDeque<Arc<Publication>>,
    /// The newest number that was pushed out of this channel.
    pub(super) forgotten: u64,
    /// The publishers' own ids, for as long as a message would be kept.
    pub(super) ids: HashMap<Box<str>, Own>,
    pub(super) ids_order: VecDeque<(u64, Box<str>)>,
    /// The newest number whose id was pushed out.
    pub(super) ids_lost: u64,
    /// Whether it is among those that were touched.
    pub(super) touched: bool,
    /// The last time that its name was put into other memory.
    pub(super) repacked: u32,
}

/// What a publisher's own id stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Own {
    /// The number of the message in this channel.
    pub(super) seq: u64,
    /// That of the first of its copies, where it went to several channels at once.
    pub(super) first: u64,
}

impl Log {
    /// Has it looked at when changes are asked for.
    pub(super) fn touch(&mut self, changes: &mut Option<Changes>, channel: &Channel) {
        if let Some(changes) = changes
            && !self.touched
        {
            self.touched = true;
            changes.touched.push(channel.clone());
        }
    }

    /// Returns the bytes that became free.
    pub(super) fn forget_oldest(&mut self, changes: &mut Option<Changes>) -> usize {
        self.entries.pop_front().map_or(0, |oldest| {
            let seq = oldest.position.seq;
            self.forgotten = self.forgotten.max(seq);
            let is_known = |id: &str| self.ids.get(id).is_some_and(|own| own.seq == seq);
            let faded = oldest.id.as_deref().is_some_and(is_known);
            self.touch(changes, &oldest.channel);
            if let Some(changes) = changes {
                changes.fates.push(match faded {
                    true => Fate::Faded(oldest.clone()),
                    false => Fate::Gone(seq),
                });
            }
            cost(&oldest)
        })
    }

    /// The same of the oldest publisher's id.
    pub(super) fn forget_oldest_id(&mut self, changes: &mut Option<Changes>) -> usize {
        self.ids_order.pop_front().map_or(0, |(seq, id)| {
            self.ids.remove(&id);
            self.ids_lost = self.ids_lost.max(seq);
            // What is pushed out is older than what is left.
            let front = self.entries.front();
            if let Some(changes) = changes
                && front.is_none_or(|oldest| seq < oldest.position.seq)
            {
                changes.fates.push(Fate::Gone(seq));
            }
            id_cost(&id)
        })
    }
}

/// What a message costs.
pub(super) fn cost(publication: &Publication) -> usize {
    // The terms are shared by all copies of an update: each has its own topic's part.
    let terms = publication.terms.as_ref().map_or(0, |_| TERMS_COST);
    terms + ENTRY_COST + publication.payload.len() + publication.event.as_str().len()
}

/// What a channel costs beside its messages.
pub(super) fn channel_cost(channel: &Channel) -> usize {
    CHANNEL_COST + channel.as_str().len()
}

/// What it costs to remember a publisher's id.
pub(super) fn id_cost(id: &str) -> usize {
    2 * id.len() + ENTRY_COST
}
