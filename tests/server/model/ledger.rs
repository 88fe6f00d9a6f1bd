//! What was published, in order; and what a history with these bounds may have forgotten of it by now.
//!
//! One publishes after the other, so that each knows its message's number before the hub does: a client may see it before
//! its publisher is answered. Nobody waits for the hub while the book is open: clients resume while others publish.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use realtime::control::client::Client as Link;
use realtime::message::{Publish, Terms};

use crate::harness::{channel_named, message};

pub const CHANNELS: [&str; 4] = ["a", "b", "c", "d"];

/// More than a kept message, its publisher's id and its terms cost beside their bytes.
const ENTRY_COST: usize = 192 + 192 + 96 + 64;
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
    /// The number of the first of its copies.
    pub first: u64,
    /// Whether those are one update, of which some clients get one copy.
    pub is_update: bool,
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

/// Everything that was published, or is about to be.
pub struct Book {
    bounds: Bounds,
    epoch: String,
    pub seq: u64,
    numbers: u64,
    channels: HashMap<&'static str, Vec<Entry>>,
}

/// The book, and those who publish.
pub struct Ledger {
    // Never held while anybody waits for a hub.
    book: Mutex<Book>,
    /// Held for one publication.
    links: Mutex<Vec<Link>>,
}

/// What to publish.
struct Draft {
    channels: Vec<&'static str>,
    size: usize,
    stored: bool,
    /// With an id of its publisher's.
    own: bool,
    /// The channels are topics of one update.
    update: bool,
}

impl Ledger {
    /// Nothing yet.
    pub fn new(bounds: Bounds, links: Vec<Link>) -> Self {
        let book = Book {
            bounds,
            epoch: String::new(),
            seq: 0,
            numbers: 0,
            channels: CHANNELS.map(|name| (name, Vec::new())).into(),
        };
        Self {
            book: Mutex::new(book),
            links: Mutex::new(links),
        }
    }

    /// Opens the book.
    pub fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    /// Nobody publishes until the links are given back.
    pub fn pause(&self) -> MutexGuard<'_, Vec<Link>> {
        self.links.lock().unwrap()
    }

    /// Publishes one thing after the other, sometimes many at once, until it is told to end.
    pub fn publish_on(&self, mut dice: Dice, stop: &AtomicBool) {
        while !stop.load(Ordering::SeqCst) {
            for _ in 0..[1, 1, 1, 12][dice.below(4)] {
                self.publish(&mut dice);
            }
            let pause = [0, 200, 1000, 6000][dice.below(4)];
            std::thread::sleep(Duration::from_micros(pause));
        }
    }

    /// Publishes something to one channel or two, in one of the ways in which that is done.
    pub fn publish(&self, dice: &mut Dice) {
        let mut channels = vec![dice.channel()];
        let size = if dice.one_in(12) { 3000 } else { 10 };
        let stored = !dice.one_in(8);
        let own = dice.one_in(4);
        let mut update = false;
        if dice.one_in(3) {
            let second = dice.channel();
            if second != channels[0] {
                channels.push(second);
                update = dice.one_in(2);
            }
        }
        self.put(&Draft {
            channels,
            size,
            stored,
            own,
            update: update && stored,
        });
    }

    /// Publishes more than a slow reader's sockets and backlog hold.
    pub fn flood(&self, dice: &mut Dice) {
        let draft = Draft {
            channels: vec![dice.channel()],
            size: 8000,
            stored: true,
            own: false,
            update: false,
        };
        (0..80).for_each(|_| self.put(&draft));
    }

    /// A message to every channel.
    pub fn push_all(&self) {
        self.put(&Draft {
            channels: CHANNELS.to_vec(),
            size: 10,
            stored: true,
            own: false,
            update: false,
        });
    }

    fn put(&self, draft: &Draft) {
        let mut links = self.pause();
        let (number, last) = self.book().note(draft);
        let link = &mut links[number as usize % 3];
        let own = draft.own.then(|| own_id(number));
        let channels: Vec<_> = draft.channels.iter().map(|c| channel_named(c)).collect();
        let terms = draft.update.then(|| Terms {
            topics: channels.clone().into(),
            ..Terms::default()
        });
        let publish = Publish {
            channels,
            terms: terms.map(Box::new),
            id: own.as_deref().map(Into::into),
            store: draft.stored,
            ..message(draft.channels[0], &payload(number, draft.size))
        };
        let id = link.publish(&publish).unwrap();
        if let Some(own) = own {
            // With an id of its own it counts once, whichever hub gets it.
            assert_eq!(id, own);
            assert_eq!(link.publish(&publish).unwrap(), own);
        } else {
            let (epoch, given) = id.split_once('-').unwrap();
            let mut book = self.book();
            if book.epoch.is_empty() {
                epoch.clone_into(&mut book.epoch);
                book.name_first();
            }
            assert_eq!(epoch, book.epoch, "the history goes on");
            let copies = draft.channels.len() as u64;
            let told = if draft.update {
                last + 1 - copies
            } else {
                last
            };
            assert_eq!(given, told.to_string());
        }
    }
}

fn own_id(number: u64) -> String {
    format!("own-{number}")
}

fn payload(number: u64, size: usize) -> String {
    format!("[{number},\"{}\"]", "x".repeat(size))
}

impl Book {
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
        seq.parse().ok().filter(|_| epoch == self.epoch)
    }

    /// The number in an id of the Mercure protocol.
    pub fn number_of_urn(&self, id: &str) -> Option<u64> {
        self.number(&realtime::wire::mercure::since(id))
            .filter(|_| id.starts_with("urn:"))
    }

    /// What came to `channel` after `after`.
    pub fn after(&self, channel: &str, after: u64) -> &[Entry] {
        let list = self.of(channel);
        &list[list.partition_point(|entry| entry.seq <= after)..]
    }

    /// The message of `channel` that says `number`.
    pub fn saying(&self, channel: &str, number: u64) -> Option<&Entry> {
        let list = self.of(channel);
        let at = list.binary_search_by_key(&number, |entry| entry.number);
        Some(&list[at.ok()?])
    }

    /// Notes what is about to be published. Returns what it says, and the last number that it gets.
    fn note(&mut self, draft: &Draft) -> (u64, u64) {
        self.numbers += 1;
        let (number, first) = (self.numbers, self.seq + 1);
        for channel in &draft.channels {
            self.seq += 1;
            let id = if draft.own {
                own_id(number)
            } else {
                self.position(self.seq)
            };
            let entry = Entry {
                seq: self.seq,
                first,
                is_update: draft.update,
                number,
                weight: payload(number, draft.size).len() + 3 * id.len() + ENTRY_COST,
                id,
                own: draft.own,
                stored: draft.stored,
                at: Instant::now(),
            };
            self.channels.get_mut(channel).unwrap().push(entry);
        }
        (number, self.seq)
    }

    /// The first message was noted before there was an epoch.
    fn name_first(&mut self) {
        let epoch = &self.epoch;
        for entry in self.channels.values_mut().flatten() {
            entry.id = format!("{epoch}-{}", entry.seq);
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
        let ids = self.bounds.count.map_or(usize::MAX, |count| count.max(IDS));
        newer.filter(|entry| entry.own).count() >= ids || self.may_have_dropped(seq - 1)
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
