//! Questions about all channels at once, which are answered piece by piece: whoever holds a lock over the history lets go of
//! it in between.
//!
//! A walk over the channels goes from the last to the first, since one that is taken out leaves its place to the last; new
//! ones come behind it. Asked by `broker`. Imports `ids` and `message`.

use std::sync::Arc;

use super::History;
use crate::ids::Channel;
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

impl Wanted<'_> {
    /// Whether `channel` is one of them.
    pub fn has(&self, channel: &str) -> bool {
        self.channels.iter().any(|its| its.as_str() == channel)
            || self.patterns.iter().any(|its| its.matches(channel))
    }
}

/// Messages with a publisher's id, and whether there may have been more.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// Where they were, their numbers, and that of the first of all copies.
    pub known: Vec<(Channel, u64, u64)>,
    /// The newest number whose publisher's id was pushed out of a channel that does not know this one.
    pub lost: u64,
}

/// A part of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<T> {
    /// What was found.
    pub found: T,
    /// Where the next piece begins; none when this was the last.
    pub next: Option<usize>,
}

impl History {
    /// How many channels there are: where a walk over them begins.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// The messages that had their publisher's `id`, by those in `length` channels before the place `from`.
    pub fn find_among(&self, id: &str, from: usize, length: usize) -> Piece<Copies> {
        self.piece(from, length, |logs| {
            let mut copies = Copies {
                lost: self.ids_lost,
                ..Copies::default()
            };
            for (channel, log) in logs {
                match log.ids.get(id) {
                    Some(own) => copies.known.push((channel.clone(), own.seq, own.first)),
                    None => copies.lost = copies.lost.max(log.ids_lost),
                }
            }
            copies
        })
    }

    /// The channels of which something after the number `above` is missing, with the newest such number, among `length`
    /// before the place `from`. Those of which nothing is left are not among them, see [`History::forgotten`].
    pub fn missing_among(
        &self,
        above: u64,
        from: usize,
        length: usize,
    ) -> Piece<Vec<(Channel, u64)>> {
        self.piece(from, length, |logs| {
            let missing = logs.filter(|(_, log)| log.forgotten > above);
            missing
                .map(|(channel, log)| (channel.clone(), log.forgotten))
                .collect()
        })
    }

    /// The messages of all channels after the number `after`, oldest first, found by looking at no more than `length` notes; and
    /// the number up to which these are all, when that is not yet the last.
    pub fn messages_after(
        &self,
        after: u64,
        length: usize,
    ) -> (Vec<Arc<Publication>>, Option<u64>) {
        let start = self.order.partition_point(|(seq, ..)| *seq <= after);
        let end = self.order.len().min(start.saturating_add(length));
        let notes = self.order.range(start..end);
        let messages = notes.filter_map(|(seq, _, channel)| self.entry(channel, *seq).cloned());
        let messages = messages.collect();
        let is_last = end == self.order.len();
        let up_to = self.order.get(end.wrapping_sub(1)).map(|(seq, ..)| *seq);
        (messages, up_to.filter(|_| !is_last))
    }

    fn piece<'a, T>(
        &'a self,
        from: usize,
        length: usize,
        look: impl FnOnce(&mut dyn Iterator<Item = (&'a Channel, &'a super::Log)>) -> T,
    ) -> Piece<T> {
        // There may be fewer by now.
        let end = from.min(self.channels.len());
        let start = end.saturating_sub(length);
        let logs = self.channels.get_range(start..end);
        let found = look(&mut logs.into_iter().flat_map(|logs| logs.iter()));
        Piece {
            found,
            next: (start > 0).then_some(start),
        }
    }

    fn entry(&self, channel: &Channel, seq: u64) -> Option<&Arc<Publication>> {
        let entries = &self.channels.get(channel)?.entries;
        let place = |entry: &Arc<Publication>| entry.position.seq;
        Some(&entries[entries.binary_search_by_key(&seq, place).ok()?])
    }
}
