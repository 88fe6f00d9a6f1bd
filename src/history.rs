//! The newest messages of every channel, bounded by count and age for each and by bytes over all.
//!
//! Filled by `broker`, read when a client resumes. It never hides a gap: for each channel, and for all channels
//! that it has forgotten, it knows the newest position that it no longer has. Imports `ids` and `message`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::ids::{Channel, ConnectionId, InvalidId, Position, check_any_event, check_custom_id};
use crate::message::{EventName, Payload, Publication, Terms};
use crate::selector::Selector;
use crate::wire::handover::{WireNote, WireTerms};

/// What a kept message costs beside its content, in bytes.
const ENTRY_COST: usize = 192;

/// What a publisher's terms cost, in bytes.
const TERMS_COST: usize = 96;

/// What a channel costs beside its name and its messages, in bytes: its maps and queues.
const CHANNEL_COST: usize = 320;

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
    channels: HashMap<Channel, Log>,
    /// What was noted, oldest first, over all channels: the order in which age and bytes push out. An item
    /// whose message has been pushed out by count already is skipped.
    order: VecDeque<(u64, Instant, Channel)>,
    bytes: usize,
    messages: usize,
    /// Publishers' own ids that are remembered.
    ids: usize,
    /// The newest number that was ever pushed out of a channel of which nothing is left.
    forgotten: u64,
    /// What was pushed out since somebody asked; none when nobody does.
    changes: Option<Changes>,
}

/// What `store` has to know beside the messages themselves.
#[derive(Debug, Default)]
pub struct Changes {
    /// What has become of messages, in this order.
    pub fates: Vec<Fate>,
    /// Channels of which something was pushed out, or that came or went.
    touched: Vec<Channel>,
}

/// What has become of a message.
#[derive(Clone, Debug)]
pub enum Fate {
    /// Nothing is left of the message with that number.
    Gone(u64),
    /// Only its publisher's id is left of this message.
    Faded(Arc<Publication>),
}

impl Fate {
    /// The message's number.
    pub fn seq(&self) -> u64 {
        match self {
            Self::Gone(seq) => *seq,
            Self::Faded(publication) => publication.position.seq,
        }
    }
}

#[derive(Debug, Default)]
struct Log {
    entries: VecDeque<Arc<Publication>>,
    /// The newest number that was pushed out of this channel.
    forgotten: u64,
    /// The publishers' own ids, for as long as a message would be kept.
    ids: HashMap<Box<str>, u64>,
    ids_order: VecDeque<(u64, Box<str>)>,
    /// Whether it is among those that were touched.
    touched: bool,
}

/// A message, and whether history keeps it.
#[derive(Clone, Debug)]
pub struct Note {
    /// The message.
    pub publication: Arc<Publication>,
    /// Whether it is kept. If not, at most its publisher's id is remembered.
    pub store: bool,
}

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

/// A history on its way from one hub to the next.
#[derive(Debug, Default)]
pub struct Past {
    /// Which history.
    pub epoch: u32,
    /// Its newest number.
    pub seq: u64,
    /// The newest number that was pushed out of a channel of which nothing is left.
    pub forgotten: u64,
    /// The newest number that was pushed out of each of the others.
    pub marks: Vec<(String, u64)>,
    /// What there is, in the order of numbers.
    pub notes: Vec<WireNote>,
    /// What there is only as the newest of a cache channel.
    pub cached: Vec<WireNote>,
}

impl History {
    /// An empty one. `epoch_start` is the number before the first that it will ever see.
    pub fn new(limits: Limits, epoch_start: u64) -> Self {
        Self {
            limits,
            channels: HashMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            messages: 0,
            ids: 0,
            forgotten: epoch_start,
            changes: None,
        }
    }

    /// From here on it notes what it pushes out, or no longer does.
    pub fn watch(&mut self, on: bool) {
        self.changes = on.then(Changes::default);
        for log in self.channels.values_mut() {
            log.touched = false;
        }
    }

    /// Puts into `fates` and `marks` what has changed since the last call: what has become of messages, and the newest number that
    /// was pushed out of each channel (none when nothing is left of it).
    pub fn take_changes(&mut self, fates: &mut Vec<Fate>, marks: &mut Vec<(Channel, Option<u64>)>) {
        let Some(changes) = &mut self.changes else {
            return;
        };
        fates.append(&mut changes.fates);
        for channel in changes.touched.drain(..) {
            let log = self.channels.get_mut(channel.as_str());
            let mark = log.map(|log| {
                log.touched = false;
                log.forgotten
            });
            marks.push((channel, mark));
        }
    }

    /// Whether anything has changed since then.
    pub fn has_changed(&self) -> bool {
        let changes = self.changes.as_ref();
        changes.is_some_and(|it| !it.fates.is_empty() || !it.touched.is_empty())
    }

    /// The newest number that was pushed out of a channel of which nothing is left.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// What was published up to `seq` may be incomplete, in every channel.
    pub fn doubt(&mut self, seq: u64) {
        self.forgotten = self.forgotten.max(seq);
        for (channel, log) in &mut self.channels {
            log.forgotten = log.forgotten.max(seq);
            log.touch(&mut self.changes, channel);
        }
    }

    /// Everything, for another hub: the newest number that was pushed out of the channels of which nothing is left, that
    /// of each other channel, and what there is. Of a message of which only the publisher's id is left, that.
    pub fn notes(&self) -> (u64, Vec<(Channel, u64)>, Vec<Note>) {
        let marks = self.channels.iter();
        let marks = marks.map(|(channel, log)| (channel.clone(), log.forgotten));
        let notes = self.order.iter().filter_map(|(seq, at, channel)| {
            let log = self.channels.get(channel)?;
            let place = |entry: &Arc<Publication>| entry.position.seq;
            if let Ok(found) = log.entries.binary_search_by_key(seq, place) {
                let publication = log.entries[found].clone();
                return Some(Note {
                    publication,
                    store: true,
                });
            }
            let found = log
                .ids_order
                .binary_search_by_key(seq, |(of, _)| *of)
                .ok()?;
            let publication = Arc::new(Publication {
                channel: channel.clone(),
                position: Position {
                    epoch: 0,
                    seq: *seq,
                },
                id: Some(log.ids_order[found].1.clone()),
                event: EventName::Message,
                payload: Payload::Binary(Bytes::new()),
                except: None,
                at: *at,
                terms: None,
            });
            Some(Note {
                publication,
                store: false,
            })
        });
        (self.forgotten, marks.collect(), notes.collect())
    }

    /// Fills an empty one with another hub's.
    pub fn restore(&mut self, past: Past) -> Result<(), InvalidId> {
        self.forgotten = past.forgotten;
        for (name, forgotten) in past.marks {
            let channel = Channel::from_hub(&name)?;
            let log = Log {
                forgotten,
                ..Log::default()
            };
            let cost = channel_cost(&channel);
            if self.channels.insert(channel, log).is_none() {
                self.bytes += cost;
            }
        }
        let now = Instant::now();
        let mut newest = 0;
        for note in past.notes {
            // Everything here relies on the order of numbers: what has lost its place is lost.
            if note.seq <= newest {
                continue;
            }
            newest = note.seq;
            let store = note.store;
            self.add(&Arc::new(publication(note, past.epoch, now)?), store);
        }
        // With less room, or none, than the other hub had: nothing is left of some channels.
        let empty = |log: &Log| log.entries.is_empty() && log.ids_order.is_empty();
        let forgotten = &mut self.forgotten;
        let bytes = &mut self.bytes;
        let changes = &mut self.changes;
        self.channels.retain(|channel, log| {
            if empty(log) {
                log.touch(changes, channel);
                *forgotten = (*forgotten).max(log.forgotten);
                *bytes -= channel_cost(channel);
            }
            !empty(log)
        });
        Ok(())
    }

    /// Whether a publisher's `id` was accepted in `channel` before.
    pub fn knows(&self, channel: &str, id: &str) -> bool {
        self.channels
            .get(channel)
            .is_some_and(|log| log.ids.contains_key(id))
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
        let keep = store && self.limits.count > 0;
        if store && !keep {
            self.forgotten = seq;
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
            log.ids.insert(id.clone(), seq);
            self.ids += 1;
            log.ids_order.push_back((seq, id.clone()));
            self.bytes += id_cost(id);
        }
        if keep {
            if log.entries.len() >= self.limits.count {
                freed += log.forget_oldest(changes);
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
        Missed {
            publications: log.entries.range(start..end).cloned().collect(),
            recovered,
            oldest: log.entries.front().cloned(),
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
            for (seq, _, channel) in self.order.range(start..) {
                if let Some(found) = self.entry(channel, *seq)
                    && wanted.has(channel.as_str())
                {
                    publications.push(found.clone());
                }
            }
            let lost = |(channel, log): &(&Channel, &Log)| {
                log.forgotten > since && wanted.has(channel.as_str())
            };
            let lost = self.channels.iter().filter(lost);
            // A channel that is gone altogether may have been one of them.
            forgotten = lost
                .map(|(_, log)| log.forgotten)
                .fold(self.forgotten, u64::max);
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

    /// How many messages are kept.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// How many bytes are kept, all overhead included.
    pub fn bytes(&self) -> usize {
        self.bytes
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
            self.messages -= 1;
        }
        while log.ids_order.front().is_some_and(|(of, _)| *of <= seq) {
            self.bytes -= log.forget_oldest_id(&mut self.changes);
            self.ids -= 1;
        }
        if log.entries.is_empty() && log.ids_order.is_empty() {
            self.forgotten = self.forgotten.max(log.forgotten);
            log.touch(&mut self.changes, &channel);
            self.channels.remove(channel.as_str());
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

impl Log {
    /// Has it looked at when changes are asked for.
    fn touch(&mut self, changes: &mut Option<Changes>, channel: &Channel) {
        if let Some(changes) = changes
            && !self.touched
        {
            self.touched = true;
            changes.touched.push(channel.clone());
        }
    }

    /// Returns the bytes that became free.
    fn forget_oldest(&mut self, changes: &mut Option<Changes>) -> usize {
        self.entries.pop_front().map_or(0, |oldest| {
            let seq = oldest.position.seq;
            self.forgotten = self.forgotten.max(seq);
            let is_known = |id: &str| self.ids.get(id) == Some(&seq);
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

    fn forget_oldest_id(&mut self, changes: &mut Option<Changes>) -> usize {
        self.ids_order.pop_front().map_or(0, |(seq, id)| {
            self.ids.remove(&id);
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

fn cost(publication: &Publication) -> usize {
    // The terms are shared by all copies of an update: each has its own topic's part.
    let terms = publication.terms.as_ref().map_or(0, |_| TERMS_COST);
    terms + ENTRY_COST + publication.payload.len() + publication.event.as_str().len()
}

fn channel_cost(channel: &Channel) -> usize {
    CHANNEL_COST + channel.as_str().len()
}

fn id_cost(id: &str) -> usize {
    2 * id.len() + ENTRY_COST
}

/// Another hub's message, checked: it comes from outside.
pub fn publication(note: WireNote, epoch: u32, now: Instant) -> Result<Publication, InvalidId> {
    if let Some(id) = &note.id {
        check_custom_id(id)?;
    }
    check_any_event(&note.event)?;
    Ok(Publication {
        channel: Channel::from_hub(&note.channel)?,
        position: Position {
            epoch,
            seq: note.seq,
        },
        id: note.id.map(Into::into),
        event: EventName::new(&note.event),
        payload: note.payload.into(),
        except: note.except.map(ConnectionId::from_bits),
        at: now.checked_sub(note.age).unwrap_or(now),
        terms: note.terms.map(terms).transpose()?,
    })
}

fn terms(terms: WireTerms) -> Result<Arc<Terms>, InvalidId> {
    let topics: Result<_, _> = terms
        .topics
        .iter()
        .map(|name| Channel::parse(name))
        .collect();
    Ok(Arc::new(Terms {
        private: terms.private,
        retry: terms.retry,
        topics: topics?,
        first: terms.first,
    }))
}

/// A message as another hub reads it.
pub fn wire_note(note: &Note, now: Instant) -> WireNote {
    let publication = &note.publication;
    WireNote {
        channel: publication.channel.as_str().to_owned(),
        seq: publication.position.seq,
        id: publication.id.as_deref().map(ToOwned::to_owned),
        event: publication.event.as_str().to_owned(),
        payload: publication.payload.clone().into(),
        except: publication.except.map(ConnectionId::to_bits),
        age: now.saturating_duration_since(publication.at),
        terms: publication.terms.as_deref().map(WireTerms::from),
        store: note.store,
    }
}

/// The number in `position` when it belongs to `epoch` and is not from the future.
pub fn in_epoch(position: Position, epoch: u32, newest: u64) -> Option<u64> {
    (position.epoch == epoch && position.seq <= newest).then_some(position.seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(count: usize, bytes: usize) -> History {
        History::new(
            Limits {
                count,
                age: Duration::from_secs(10),
                bytes,
            },
            0,
        )
    }

    fn publication(channel: &str, seq: u64, at: Instant) -> Arc<Publication> {
        Arc::new(Publication {
            channel: Channel::parse(channel).unwrap(),
            position: Position { epoch: 1, seq },
            id: None,
            event: EventName::Message,
            payload: Payload::Json(Bytes::from_static(b"1")),
            except: None,
            at,
            terms: None,
        })
    }

    fn seqs(missed: &Missed) -> Vec<u64> {
        missed.publications.iter().map(|p| p.position.seq).collect()
    }

    #[test]
    fn count_pushes_out_and_is_told() {
        let now = Instant::now();
        let mut history = history(3, 1 << 20);
        for seq in 1..=5 {
            history.add(&publication("a", seq, now), true);
        }
        assert_eq!(seqs(&history.after("a", Some(3))), [4, 5]);
        assert!(history.after("a", Some(2)).recovered);
        let gap = history.after("a", Some(1));
        assert!(!gap.recovered);
        assert_eq!(gap.oldest.unwrap().position.seq, 3);
        assert!(!history.after("a", None).recovered);
    }

    #[test]
    fn a_forgotten_channel_is_not_taken_for_an_empty_one() {
        let now = Instant::now();
        let mut history = history(3, 1 << 20);
        assert!(history.after("a", Some(0)).recovered);
        history.add(&publication("a", 1, now), true);
        history.expire(now + Duration::from_secs(11));
        assert_eq!(history.bytes(), 0);
        assert!(!history.after("a", Some(0)).recovered);
        assert!(history.after("a", Some(1)).recovered);
    }

    #[test]
    fn a_channel_that_comes_back_does_not_hide_what_it_forgot() {
        let now = Instant::now();
        let later = now + Duration::from_secs(11);
        let mut history = history(3, 1 << 20);
        history.add(&publication("a", 1, now), true);
        history.add(&publication("a", 2, now), true);
        history.add(&publication("a", 3, later), true);
        let missed = history.after("a", Some(1));
        assert_eq!(seqs(&missed), [3]);
        assert!(!missed.recovered);
        assert!(history.after("a", Some(2)).recovered);
    }

    #[test]
    fn nothing_kept_is_nothing_recovered() {
        let now = Instant::now();
        let mut history = history(0, 1 << 20);
        let with_id = |seq| {
            let publication = publication("a", seq, now);
            Arc::new(Publication {
                id: Some("own".into()),
                ..Arc::into_inner(publication).unwrap()
            })
        };
        history.add(&with_id(1), true);
        assert!(!history.after("a", Some(0)).recovered);
        history.add(&publication("a", 2, now), true);
        assert!(!history.after("a", Some(1)).recovered);
        assert!(history.after("a", Some(2)).recovered);
    }

    #[test]
    fn bytes_push_out_the_oldest_of_all_channels() {
        let now = Instant::now();
        let mut history = history(100, 3 * (CHANNEL_COST + 1 + ENTRY_COST + 8));
        for (seq, channel) in ["a", "b", "c", "d"].into_iter().enumerate() {
            history.add(&publication(channel, seq as u64 + 1, now), true);
        }
        assert!(seqs(&history.after("a", Some(0))).is_empty());
        assert_eq!(seqs(&history.after("d", Some(0))), [4]);
        assert_eq!(history.messages(), 3);
    }

    #[test]
    fn a_busy_channel_does_not_grow_the_order() {
        let now = Instant::now();
        let mut history = history(10, 1 << 30);
        history.add(&publication("quiet", 1, now), true);
        for seq in 2..100_000 {
            history.add(&publication("busy", seq, now), true);
        }
        assert!(history.order.len() < 5000, "{}", history.order.len());
        assert_eq!(seqs(&history.after("quiet", Some(0))), [1]);
    }

    /// One history's notes into another.
    fn moved(from: &History, mut into: History) -> History {
        let (forgotten, marks, notes) = from.notes();
        let now = Instant::now();
        let past = Past {
            epoch: 1,
            seq: 0,
            forgotten,
            marks: marks
                .into_iter()
                .map(|(channel, seq)| (channel.to_string(), seq))
                .collect(),
            notes: notes.iter().map(|note| wire_note(note, now)).collect(),
            cached: Vec::new(),
        };
        into.restore(past).unwrap();
        into
    }

    #[test]
    fn another_hub_knows_the_same() {
        let now = Instant::now();
        let mut old = history(3, 1 << 20);
        old.add(&publication("gone", 1, now - Duration::from_secs(11)), true);
        for seq in 2..=6 {
            old.add(&publication("a", seq, now), true);
        }
        let own = publication("b", 7, now);
        let own = Publication {
            id: Some("own".into()),
            ..Arc::into_inner(own).unwrap()
        };
        old.add(&Arc::new(own), true);
        for seq in 8..=10 {
            old.add(&publication("b", seq, now), true);
        }
        let new = moved(&old, history(3, 1 << 20));
        for channel in ["a", "b", "gone", "never"] {
            for since in 0..=10 {
                let (left, right) = (
                    old.after(channel, Some(since)),
                    new.after(channel, Some(since)),
                );
                assert_eq!(seqs(&left), seqs(&right), "{channel} {since}");
                assert_eq!(left.recovered, right.recovered, "{channel} {since}");
            }
        }
        // Its message was pushed out by count, but the id is still known.
        assert!(new.knows("b", "own"));
        assert_eq!((new.bytes(), new.messages()), (old.bytes(), old.messages()));
        // With less room the rest is said to be missing.
        let small = moved(&old, history(1, 1 << 20));
        assert_eq!(seqs(&small.after("a", Some(5))), [6]);
        assert!(!small.after("a", Some(4)).recovered);
        let none = moved(&old, history(0, 1 << 20));
        assert!(!none.after("a", Some(5)).recovered);
        assert!(none.after("a", Some(10)).recovered);
        assert!(none.knows("b", "own"));
    }
}
