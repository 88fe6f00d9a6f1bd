//! What was published, in order; and what a history with these bounds may have forgotten of it by now.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use realtime::control::client::Client as Link;
use realtime::message::Publish;

use crate::harness::{channel_named, message};

pub const CHANNELS: [&str; 4] = ["a", "b", "c", "d"];

/// More than a kept message and its publisher's id cost beside their bytes.
const ENTRY_COST: usize = 192 + 192 + 64;
/// More than the four channels cost.
const CHANNELS_COST: usize = 4 * 400;
/// Of each channel at least so many publishers' ids are known.
const IDS: usize = 100;

/// Small and seeded, so that a failure can be repeated.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub fn channel(&mut self) -> &'static str {
        CHANNELS[self.below(CHANNELS.len())]
    }
}

/// How much a history keeps; `None` is more than is ever published here.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    pub count: Option<usize>,
    pub ttl: Option<Duration>,
    pub bytes: Option<usize>,
}

/// A message in a channel.
pub struct Entry {
    pub seq: u64,
    /// What it says.
    pub number: u64,
    /// As clients see it.
    pub id: String,
    own: bool,
    pub stored: bool,
    /// Before it was published.
    at: Instant,
    weight: usize,
}

/// Everything that was published.
pub struct Ledger {
    bounds: Bounds,
    epoch: String,
    pub seq: u64,
    numbers: u64,
    channels: HashMap<&'static str, Vec<Entry>>,
}

impl Ledger {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            epoch: String::new(),
            seq: 0,
            numbers: 0,
            channels: CHANNELS.map(|name| (name, Vec::new())).into(),
        }
    }

    pub fn of(&self, channel: &str) -> &[Entry] {
        &self.channels[channel]
    }

    /// The place of a number of this history.
    pub fn position(&self, seq: u64) -> String {
        format!("{}-{seq}", self.epoch)
    }

    /// The number in a position.
    pub fn number(&self, position: &str) -> Option<u64> {
        let (epoch, seq) = position.split_once('-')?;
        let ours = self.epoch.is_empty() || epoch == self.epoch;
        seq.parse().ok().filter(|_| ours)
    }

    /// Publishes something to one channel or two, in one of the ways in which that is done.
    pub fn publish(&mut self, dice: &mut Dice, link: &mut Link) {
        let mut channels = vec![dice.channel()];
        let size = if dice.one_in(12) { 3000 } else { 10 };
        let stored = !dice.one_in(8);
        let own = dice.one_in(4);
        // A publisher's id that went to two channels stands for no one place.
        if !own && dice.one_in(8) {
            let second = dice.channel();
            if second != channels[0] {
                channels.push(second);
            }
        }
        self.put(link, &channels, size, stored, own);
    }

    /// Publishes more than a slow reader's sockets and backlog hold.
    pub fn flood(&mut self, dice: &mut Dice, link: &mut Link) {
        let channel = dice.channel();
        for _ in 0..80 {
            self.put(link, &[channel], 8000, true, false);
        }
    }

    /// A message to every channel.
    pub fn push_all(&mut self, link: &mut Link) {
        self.put(link, &CHANNELS, 10, true, false);
    }

    fn put(
        &mut self,
        link: &mut Link,
        channels: &[&'static str],
        size: usize,
        stored: bool,
        own: bool,
    ) {
        self.numbers += 1;
        let number = self.numbers;
        let payload = format!("[{number},\"{}\"]", "x".repeat(size));
        let own = own.then(|| format!("own-{number}"));
        let publish = Publish {
            channels: channels.iter().map(|name| channel_named(name)).collect(),
            id: own.as_deref().map(Into::into),
            store: stored,
            ..message(channels[0], &payload)
        };
        let at = Instant::now();
        let id = link.publish(&publish).unwrap();
        if let Some(own) = &own {
            // With an id of its own it counts once, whichever hub gets it.
            assert_eq!(id, *own);
            assert_eq!(link.publish(&publish).unwrap(), *own);
        } else {
            let (epoch, last) = id.split_once('-').unwrap();
            if self.epoch.is_empty() {
                epoch.clone_into(&mut self.epoch);
            }
            assert_eq!(epoch, self.epoch, "the history goes on");
            assert_eq!(last, (self.seq + channels.len() as u64).to_string());
        }
        for channel in channels {
            self.seq += 1;
            let id = own.clone().unwrap_or_else(|| self.position(self.seq));
            let entry = Entry {
                seq: self.seq,
                number,
                weight: payload.len() + 3 * id.len() + ENTRY_COST,
                id,
                own: own.is_some(),
                stored,
                at,
            };
            self.channels.get_mut(channel).unwrap().push(entry);
        }
    }

    /// Whether the history may have forgotten something that came to `channel` after `after`.
    pub fn may_lack(&self, channel: &str, after: u64) -> bool {
        let newest_pushed_out = || {
            let mut stored = self.of(channel).iter().rev().filter(|entry| entry.stored);
            stored.nth(self.bounds.count?).map(|entry| entry.seq)
        };
        // Of a channel of which nothing is left, only the newest number of all such channels is known.
        self.may_have_dropped(after) || newest_pushed_out().is_some_and(|seq| seq > after)
    }

    /// Whether the history may have forgotten this message.
    pub fn may_lack_this(&self, channel: &str, entry: &Entry) -> bool {
        self.may_lack(channel, entry.seq - 1)
    }

    /// Whether the history may no longer know this publisher's id, which `channel` got as `seq`.
    pub fn may_not_know(&self, channel: &str, seq: u64) -> bool {
        let newer = self.of(channel).iter().rev();
        let newer = newer.take_while(|entry| entry.seq > seq);
        newer.filter(|entry| entry.own).count() >= self.bounds.count.unwrap_or(0).max(IDS)
            || self.may_have_dropped(seq - 1)
    }

    /// Whether age or bytes may have pushed out anything after `after`, in any channel.
    fn may_have_dropped(&self, after: u64) -> bool {
        let all = || self.channels.values().flatten();
        let newer = || all().filter(|entry| entry.seq > after);
        let old = |ttl| newer().any(|entry| entry.at.elapsed() >= ttl);
        let large =
            |bytes| newer().map(|entry| entry.weight).sum::<usize>() + CHANNELS_COST > bytes;
        self.bounds.ttl.is_some_and(old) || self.bounds.bytes.is_some_and(large)
    }
}
