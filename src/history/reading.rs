//! What clients, publishers and PHP ask a history.

use std::sync::Arc;

use super::History;
use crate::ids::{Channel, Position};
use crate::message::{Publication, Publish};

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

    /// The newest number that was pushed out of `channel`.
    pub fn forgotten_of(&self, channel: &str) -> u64 {
        let log = self.channels.get(channel);
        log.map_or(self.forgotten, |log| log.forgotten)
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

    /// The number of the first copy of what is published with an id that one of its channels knows already.
    pub fn first_of_known(&self, publish: &Publish) -> Option<u64> {
        let id = publish.id.as_deref()?;
        let logs = publish.channels.iter();
        let logs = logs.filter_map(|channel| self.channels.get(channel.as_str()));
        logs.filter_map(|log| Some(log.ids.get(id)?.first)).min()
    }

    /// Where a client of `channels` stands that has got the message with its publisher's `id`. With several channels that is the
    /// first of its copies: the client may not have got the others.
    pub fn place_of(&self, channels: &[Channel], id: &str) -> Option<u64> {
        let find = |channel: &Channel| self.channels.get(channel.as_str())?.ids.get(id);
        let found = channels.iter().filter_map(find);
        let (seq, first) = found.fold((None, u64::MAX), |(seq, first), own| {
            let seq = seq.map_or(own.seq, |seq: u64| seq.min(own.seq));
            (Some(seq), first.min(own.first))
        });
        let seq = seq?;
        // A copy before that may have been one of these channels', and pushed out: then that is what the client has.
        let may_have_had = |channel: &Channel| {
            let log = self.channels.get(channel.as_str());
            find(channel).is_none() && log.map_or(self.ids_lost, |log| log.ids_lost) >= first
        };
        let is_first = first == seq || !channels.iter().any(may_have_had);
        Some(if is_first { seq } else { first })
    }
}

/// The number in `position` when it belongs to `epoch` and is not from the future.
pub fn in_epoch(position: Position, epoch: u32, newest: u64) -> Option<u64> {
    (position.epoch == epoch && position.seq <= newest).then_some(position.seq)
}
