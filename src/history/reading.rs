//! What clients, publishers and PHP ask a history.

use std::collections::HashMap;
use std::sync::Arc;

use super::History;
use crate::ids::{Channel, Position};
use crate::message::Publication;
use crate::selector::Selector;

/// Channels by name and by pattern.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// By name.
    pub channels: &'a [Channel],
    /// By pattern.
    pub patterns: &'a [Selector],
}

/// What was asked already.
struct Answers<'h, 'w> {
    wanted: Wanted<'w>,
    known: HashMap<&'h str, bool>,
}

impl<'h> Answers<'h, '_> {
    fn has(&mut self, channel: &'h Channel) -> bool {
        let (wanted, channel) = (self.wanted, channel.as_str());
        *self
            .known
            .entry(channel)
            .or_insert_with(|| wanted.has(channel))
    }
}

impl Wanted<'_> {
    /// Whether `channel` is one of them.
    pub fn has(&self, channel: &str) -> bool {
        self.channels.iter().any(|its| its.as_str() == channel)
            || self.patterns.iter().any(|its| its.matches(channel))
    }
}

/// What a channel's history has after a position, or before one.
#[derive(Debug, Default)]
pub struct Missed {
    /// The messages, oldest first.
    pub publications: Vec<Arc<Publication>>,
    /// Whether these are all there were.
    pub recovered: bool,
    /// The oldest that is left.
    pub oldest: Option<Arc<Publication>>,
    /// Whether there are more that way.
    pub more: bool,
}

impl History {
    /// Whether a publisher's `id` was accepted in `channel` before.
    pub fn knows(&self, channel: &str, id: &str) -> bool {
        self.channels
            .get(channel)
            .is_some_and(|log| log.ids.contains_key(id))
    }

    /// What `channel` has after `since`, a number of this history; `None` for a position that is not of it.
    pub fn after(&self, channel: &str, since: Option<u64>) -> Missed {
        self.first_after(channel, since, usize::MAX)
    }

    /// The first `limit` of those.
    pub fn first_after(&self, channel: &str, since: Option<u64>, limit: usize) -> Missed {
        let Some(log) = self.channels.get(channel) else {
            let recovered = since.is_some_and(|since| since >= self.forgotten);
            return Missed {
                recovered,
                ..Missed::default()
            };
        };
        let recovered = since.is_some_and(|since| since >= log.forgotten);
        let start = since.map_or(0, |since| {
            log.entries.partition_point(|e| e.position.seq <= since)
        });
        let end = start.saturating_add(limit).min(log.entries.len());
        let whole = log
            .entries
            .partition_point(|e| e.position.seq <= log.forgotten);
        Missed {
            publications: log.entries.range(start..end).cloned().collect(),
            recovered,
            // In doubt also of what is there: none of that is whole back to itself.
            oldest: log.entries.get(whole).cloned(),
            more: end < log.entries.len(),
        }
    }

    /// What came after `since` on all channels that are wanted, oldest first, and the newest number after `since` that is
    /// missing of them, or 0.
    pub fn after_all(&self, since: u64, wanted: Wanted<'_>) -> (Vec<Arc<Publication>>, u64) {
        let mut publications = Vec::new();
        let mut forgotten = 0;
        if wanted.patterns.is_empty() {
            for channel in wanted.channels {
                let log = self.channels.get(channel.as_str());
                forgotten = forgotten.max(log.map_or(self.forgotten, |log| log.forgotten));
                publications.extend(self.after(channel.as_str(), Some(since)).publications);
            }
            publications.sort_unstable_by_key(|publication| publication.position.seq);
        } else {
            // Clients come back after a moment, and there may be many channels: what came since then is the shorter list.
            let start = self.order.partition_point(|(seq, ..)| *seq <= since);
            // Each channel is asked about once: there may be many patterns.
            let mut answers = Answers {
                wanted,
                known: HashMap::new(),
            };
            for (seq, _, channel) in self.order.range(start..) {
                if let Some(found) = self.entry(channel, *seq)
                    && answers.has(channel)
                {
                    publications.push(found.clone());
                }
            }
            // A channel that is gone altogether may have been one of them.
            forgotten = self.forgotten;
            for (channel, log) in &self.channels {
                if log.forgotten > since.max(forgotten) && answers.has(channel) {
                    forgotten = log.forgotten;
                }
            }
        }
        let forgotten = if forgotten > since { forgotten } else { 0 };
        (publications, forgotten)
    }

    fn entry(&self, channel: &Channel, seq: u64) -> Option<&Arc<Publication>> {
        let entries = &self.channels.get(channel)?.entries;
        let place = |entry: &Arc<Publication>| entry.position.seq;
        Some(&entries[entries.binary_search_by_key(&seq, place).ok()?])
    }

    /// The number of the message that has its publisher's `id`, on whatever channel.
    pub fn find_anywhere(&self, id: &str) -> Option<u64> {
        let logs = self.channels.values();
        logs.filter_map(|log| log.ids.get(id)).min().copied()
    }

    /// The last `limit` messages of a channel before the number `before`, oldest first. What is missing there was pushed out,
    /// as all before it was.
    pub fn last_before(&self, channel: &str, before: u64, limit: usize) -> Missed {
        let Some(log) = self.channels.get(channel) else {
            return Missed {
                recovered: true,
                ..Missed::default()
            };
        };
        let end = log.entries.partition_point(|e| e.position.seq < before);
        let start = end.saturating_sub(limit);
        Missed {
            publications: log.entries.range(start..end).cloned().collect(),
            recovered: true,
            oldest: log.entries.front().cloned(),
            more: start > 0,
        }
    }

    /// The newest message of a channel.
    pub fn newest(&self, channel: &str) -> Option<&Arc<Publication>> {
        self.channels.get(channel)?.entries.back()
    }

    /// The number of the message in `channel` that has its publisher's `id`.
    pub fn find(&self, channel: &str, id: &str) -> Option<u64> {
        self.channels.get(channel)?.ids.get(id).copied()
    }
}

/// The number in `position` when it belongs to `epoch` and is not from the future.
pub fn in_epoch(position: Position, epoch: u32, newest: u64) -> Option<u64> {
    (position.epoch == epoch && position.seq <= newest).then_some(position.seq)
}
