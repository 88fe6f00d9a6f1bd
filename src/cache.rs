//! The newest message of every cache channel: what a new subscriber gets at once, long after history has forgotten it.
//!
//! Filled by `broker`, read when a client subscribes. Bounded by bytes over all channels: what was published longest ago goes
//! first. Imports `ids`, `message` and `history`.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use crate::history::{History, Repack};
use crate::ids::{Channel, Pattern};
use crate::message::Publication;

/// What a kept message costs beside its content and its channel's name, in bytes.
const COST: usize = 320;

/// How many are put into other memory while the broker is held.
const STEP: usize = 128;

/// The newest messages.
#[derive(Debug)]
pub struct Cache {
    /// Channels that are of this kind beside those that are by their name.
    patterns: Vec<Pattern>,
    limit: usize,
    newest: HashMap<Channel, Arc<Publication>>,
    /// By number: the order in which bytes push out.
    order: BTreeMap<u64, Channel>,
    bytes: usize,
}

impl Cache {
    /// An empty one for `limit` bytes.
    pub fn new(patterns: Vec<Pattern>, limit: usize) -> Self {
        Self {
            patterns,
            limit,
            newest: HashMap::new(),
            order: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Keeps a message, if its channel is of this kind, in place of the one before.
    pub fn put(&mut self, publication: &Arc<Publication>) {
        let channel = &publication.channel;
        if !self.is_for(channel) {
            return;
        }
        let seq = publication.position.seq;
        if let Some(before) = self.newest.get(channel) {
            let before = before.position.seq;
            if before >= seq {
                return;
            }
            self.forget(before);
        }
        self.bytes += cost(publication);
        self.newest.insert(channel.clone(), publication.clone());
        self.order.insert(seq, channel.clone());
        while self.bytes > self.limit
            && let Some(oldest) = self.order.first_key_value()
        {
            self.forget(*oldest.0);
        }
    }

    /// The newest message of a channel.
    pub fn get(&self, channel: &str) -> Option<&Arc<Publication>> {
        self.newest.get(channel)
    }

    /// All of them, in the order of numbers.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Publication>> {
        self.order
            .values()
            .filter_map(|channel| self.newest.get(channel))
    }

    /// Has the copy in place of a message, if that is one of these.
    pub fn renew(&mut self, old: &Arc<Publication>, copy: &Arc<Publication>) {
        let kept = self.newest.get(old.channel.as_str());
        if kept.is_some_and(|kept| Arc::ptr_eq(kept, old)) {
            self.replace(copy);
        }
    }

    /// Does a step of putting what `history` does not have into other memory; `false` when none is left.
    pub fn repack(&mut self, repack: &mut Repack, history: &History) -> bool {
        let next = (Bound::Excluded(repack.cached), Bound::Unbounded);
        let numbers = self.order.range(next).take(STEP);
        let numbers: Vec<u64> = numbers.map(|(seq, _)| *seq).collect();
        for seq in &numbers {
            repack.cached = *seq;
            let name = self.order.get(seq).map(Channel::as_str);
            let Some(kept) = name.and_then(|name| self.newest.get(name)) else {
                continue;
            };
            let newest = history.newest(kept.channel.as_str());
            if newest.is_some_and(|its| Arc::ptr_eq(its, kept)) {
                continue;
            }
            let kept = kept.clone();
            let copy = repack.copier.copy(&kept, kept.channel.copied());
            self.replace(&Arc::new(copy));
            repack.put_aside(kept);
        }
        !numbers.is_empty()
    }

    /// The name as well, which it shares with the message.
    fn replace(&mut self, copy: &Arc<Publication>) {
        self.newest.remove(copy.channel.as_str());
        self.newest.insert(copy.channel.clone(), copy.clone());
        self.order.insert(copy.position.seq, copy.channel.clone());
    }

    fn is_for(&self, channel: &Channel) -> bool {
        channel.is_cache() || self.patterns.iter().any(|it| it.matches(channel.as_str()))
    }

    fn forget(&mut self, seq: u64) {
        if let Some(channel) = self.order.remove(&seq)
            && let Some(gone) = self.newest.remove(&channel)
        {
            self.bytes -= cost(&gone);
        }
    }
}

fn cost(publication: &Publication) -> usize {
    let event = publication.event.as_str().len();
    COST + publication.channel.as_str().len() + event + publication.payload.len()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::Bytes;

    use super::*;
    use crate::ids::Position;
    use crate::message::{EventName, Payload};

    fn publication(channel: &str, seq: u64) -> Arc<Publication> {
        Arc::new(Publication {
            channel: Channel::parse(channel).unwrap(),
            position: Position { epoch: 1, seq },
            id: None,
            event: EventName::Message,
            payload: Payload::Json(Bytes::from_static(&[b'1'; 100])),
            except: None,
            at: Instant::now(),
            terms: None,
        })
    }

    fn seqs(cache: &Cache) -> Vec<u64> {
        cache.all().map(|it| it.position.seq).collect()
    }

    #[test]
    fn the_newest_of_each_channel_is_kept() {
        let patterns = vec![Pattern::parse("state.*").unwrap()];
        let mut cache = Cache::new(patterns, 1 << 20);
        let channels = [
            "cache-a",
            "chat",
            "state.x",
            "private-cache-b",
            "cache-a",
            "presence-cache-c",
            "xcache-d",
        ];
        for (seq, channel) in (1..).zip(channels) {
            cache.put(&publication(channel, seq));
        }
        assert_eq!(seqs(&cache), [3, 4, 5, 6]);
        assert_eq!(cache.get("cache-a").unwrap().position.seq, 5);
        assert!(cache.get("chat").is_none());
        cache.put(&publication("cache-a", 2));
        assert_eq!(cache.get("cache-a").unwrap().position.seq, 5);
    }

    #[test]
    fn bytes_push_out_what_was_published_longest_ago() {
        let one = cost(&publication("cache-1", 1));
        let mut cache = Cache::new(Vec::new(), 3 * one);
        for (seq, channel) in [
            (1, "cache-1"),
            (2, "cache-2"),
            (3, "cache-3"),
            (4, "cache-1"),
        ] {
            cache.put(&publication(channel, seq));
        }
        assert_eq!(seqs(&cache), [2, 3, 4]);
        cache.put(&publication("cache-4", 5));
        assert_eq!(seqs(&cache), [3, 4, 5]);
        assert_eq!(cache.bytes, 3 * one);
        let mut none = Cache::new(Vec::new(), 0);
        none.put(&publication("cache-1", 1));
        assert_eq!((seqs(&none).len(), none.bytes), (0, 0));
    }
}
