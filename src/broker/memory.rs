//! The broker of a single hub: a counter and a history under one lock.
//!
//! Called by `node` from any thread; hands every publication to [`BrokerEvents`]. Imports `broker` and `history`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::follow::{self, Feed, Follower};
use super::{Broker, BrokerEvents, BrokerStats, CatchUp, Resumed, Since, Walk};
use crate::cache::Cache;
use crate::history::{self, History, Limits, Missed, Note, Past, Wanted};
use crate::ids::{Channel, InvalidId, Position};
use crate::message::{Publication, Publish, Terms};
use crate::wire::handover::WireNote;

/// A broker in this process's memory.
pub struct Memory<E> {
    // One lock for all channels, and not one a channel: numbers are one sequence over all channels, and the
    // hand-over must happen in that sequence, or a cursor over several channels could skip a message. It is
    // held for some hundred nanoseconds, never over I/O or PHP.
    state: Mutex<State>,
    events: E,
}

struct State {
    epoch: u32,
    seq: u64,
    history: History,
    cache: Cache,
    /// Nearly always none.
    followers: Vec<Follower>,
    /// Whether another broker gives the numbers, and this one is told: then it may be behind what clients know.
    following: bool,
}

/// Everything at one moment, and what comes after it.
#[derive(Debug)]
pub struct Snapshot {
    /// Which history.
    pub epoch: u32,
    /// Its newest number.
    pub seq: u64,
    /// See [`Past::forgotten`].
    pub forgotten: u64,
    /// See [`Past::marks`].
    pub marks: Vec<(Channel, u64)>,
    /// What is kept, in the order of numbers.
    pub notes: Vec<Note>,
    /// What is kept only as the newest of a cache channel.
    pub cached: Vec<Note>,
    /// What comes after it.
    pub feed: Feed,
}

impl<E: BrokerEvents> Memory<E> {
    /// A broker that has seen nothing, with an epoch of its own.
    pub fn new(limits: Limits, cache: Cache, epoch: u32, events: E) -> Self {
        let state = State {
            epoch,
            seq: 0,
            history: History::new(limits, 0),
            cache,
            followers: Vec::new(),
            following: false,
        };
        Self {
            state: Mutex::new(state),
            events,
        }
    }

    /// Goes on with another broker's history, as long as nothing has been published here.
    pub fn inherit(&self, mut past: Past) -> Result<(), InvalidId> {
        let mut state = self.lock();
        let now = Instant::now();
        state.epoch = past.epoch;
        state.seq = past.seq;
        for note in std::mem::take(&mut past.cached) {
            let publication = history::publication(note, past.epoch, now)?;
            state.cache.put(&Arc::new(publication));
        }
        state.history.restore(past)?;
        let (_, _, notes) = state.history.notes();
        for note in notes.iter().filter(|note| note.store) {
            state.cache.put(&note.publication);
        }
        Ok(())
    }

    /// Takes a snapshot and has the feed begin in the same moment. More than `limit` bytes should not wait in it.
    pub fn follow(&self, limit: usize) -> Snapshot {
        let mut state = self.lock();
        let (follower, feed) = follow::feed(limit);
        state.followers.push(follower);
        let (forgotten, marks, notes) = state.history.notes();
        let cached = state.cache.all().filter(|publication| {
            let newest = state.history.newest(publication.channel.as_str());
            !newest.is_some_and(|its| Arc::ptr_eq(its, publication))
        });
        let cached = cached.map(|publication| Note {
            publication: publication.clone(),
            store: true,
        });
        Snapshot {
            cached: cached.collect(),
            epoch: state.epoch,
            seq: state.seq,
            forgotten,
            marks,
            notes,
            feed,
        }
    }

    /// A feed alone.
    pub fn feed(&self, limit: usize) -> Feed {
        let (follower, feed) = follow::feed(limit);
        self.lock().followers.push(follower);
        feed
    }

    /// Takes over what another broker has accepted and numbered.
    pub fn inject(&self, note: WireNote) -> Result<(), InvalidId> {
        let mut state = self.lock();
        state.following = true;
        if note.seq <= state.seq {
            return Ok(());
        }
        state.seq = note.seq;
        let store = note.store;
        let publication = Arc::new(history::publication(note, state.epoch, Instant::now())?);
        state.keep(&publication, store);
        state.pass_on(&publication, store);
        self.events.publication(publication);
        Ok(())
    }

    /// From here on this broker gives the numbers.
    pub fn lead(&self) {
        self.lock().following = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock is a bug of ours that leaves counters at worst: serving on is better than
        // taking every publisher down with it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The number that a client's `since` stands for, if it is one of ours. A publisher's id that went to several
    /// channels stands for the first of them: the client may not have got the others.
    fn resolve(&self, channels: &[Channel], since: &str) -> Option<u64> {
        let own = channels
            .iter()
            .filter_map(|channel| self.history.find(channel.as_str(), since))
            .min();
        own.or_else(|| {
            // The broker that this one follows may be ahead.
            let newest = if self.following { u64::MAX } else { self.seq };
            history::in_epoch(since.parse().ok()?, self.epoch, newest)
        })
    }

    /// Puts a message where it may be asked for again.
    fn keep(&mut self, publication: &Arc<Publication>, store: bool) {
        self.history.add(publication, store);
        if store {
            self.cache.put(publication);
        }
    }

    /// What a channel has after `since`. Its newest message counts also when history has forgotten it.
    fn missed(&self, channel: &Channel, since: Option<u64>) -> Missed {
        let mut missed = self.history.after(channel.as_str(), since);
        let cached = self.cache.get(channel.as_str());
        if let Some(cached) = cached.filter(|_| missed.publications.is_empty())
            && since.is_none_or(|since| cached.position.seq > since)
        {
            missed.publications.push(cached.clone());
        }
        missed
    }

    /// Tells the followers.
    fn pass_on(&mut self, publication: &Arc<Publication>, store: bool) {
        self.followers.retain(|follower| {
            let publication = publication.clone();
            follower.put(Note { publication, store })
        });
    }
}

impl<E: BrokerEvents> Broker for Memory<E> {
    fn publish(&self, publish: Publish) -> String {
        let at = Instant::now();
        let Publish {
            channels,
            payload,
            event,
            except,
            id,
            store,
            terms,
        } = publish;
        let mut state = self.lock();
        let first = state.seq + 1;
        let terms = terms.map(|terms| Arc::new(Terms { first, ..*terms }));
        let mut last = None;
        for channel in channels {
            if id
                .as_ref()
                .is_some_and(|id| state.history.knows(channel.as_str(), id))
            {
                continue;
            }
            state.seq += 1;
            let publication = Arc::new(Publication {
                channel: state.history.interned(channel.as_str()).unwrap_or(channel),
                position: Position {
                    epoch: state.epoch,
                    seq: state.seq,
                },
                id: id.clone(),
                event: event.clone(),
                payload: payload.clone(),
                except,
                at,
                terms: terms.clone(),
            });
            state.keep(&publication, store);
            state.pass_on(&publication, store);
            last = Some(publication.position);
            self.events.publication(publication);
        }
        drop(state);
        match (id, last) {
            (Some(id), _) => id.into(),
            (None, Some(position)) => position.text(),
            (None, None) => String::new(),
        }
    }

    fn catch_up(&self, channels: &[Channel], since: Since<'_>) -> CatchUp {
        let mut state = self.lock();
        state.history.expire(Instant::now());
        let mut seq = state.seq;
        let is_new = |channel: &&Channel| since.id.is_none() || since.except.contains(channel);
        let missed = since.id.map_or_else(Vec::new, |id| {
            let since = state.resolve(channels, id);
            // What the client has of the broker ahead is on its way here, and not for it.
            seq = seq.max(since.unwrap_or(0));
            let missed = channels.iter().map(|channel| match is_new(&channel) {
                true => Missed {
                    recovered: true,
                    ..Missed::default()
                },
                false => state.missed(channel, since),
            });
            missed.collect()
        });
        let new = channels.iter().filter(is_new);
        let newest = new.filter_map(|channel| state.cache.get(channel.as_str()));
        let mut cached: Vec<_> = newest.cloned().collect();
        cached.sort_unstable_by_key(|publication| publication.position.seq);
        CatchUp {
            cached,
            position: Position {
                epoch: state.epoch,
                seq,
            },
            missed,
        }
    }

    fn resume(&self, since: &str, wanted: Wanted<'_>) -> Resumed {
        let mut state = self.lock();
        state.history.expire(Instant::now());
        let anywhere = || match wanted.patterns {
            [] => None,
            _ => state.history.find_anywhere(since),
        };
        let found = state.resolve(wanted.channels, since).or_else(anywhere);
        let (mut publications, forgotten) = state.history.after_all(found.unwrap_or(0), wanted);
        if let Some(found) = found {
            // Whoever has got one copy of an update has got it.
            publications.retain(|publication| {
                let terms = publication.terms.as_ref();
                terms.is_none_or(|terms| terms.topics.is_empty() || terms.first > found)
            });
        }
        Resumed {
            position: Position {
                epoch: state.epoch,
                // As in catch_up().
                seq: state.seq.max(found.unwrap_or(0)),
            },
            publications,
            since: found,
            forgotten,
        }
    }

    fn position(&self) -> Position {
        let state = self.lock();
        Position {
            epoch: state.epoch,
            seq: state.seq,
        }
    }

    fn history(&self, channel: &Channel, limit: usize, walk: Walk<'_>) -> Missed {
        let mut state = self.lock();
        state.history.expire(Instant::now());
        let place = |id| state.resolve(std::slice::from_ref(channel), id);
        let (history, name) = (&state.history, channel.as_str());
        match walk {
            Walk::Newest => history.last_before(name, u64::MAX, limit),
            Walk::After(id) => history.first_after(name, place(id), limit),
            Walk::Before(id) => match place(id) {
                Some(before) => history.last_before(name, before, limit),
                None => Missed {
                    oldest: history.after(name, None).oldest,
                    ..Missed::default()
                },
            },
        }
    }

    fn expire(&self) {
        self.lock().history.expire(Instant::now());
    }

    fn stats(&self) -> BrokerStats {
        let state = self.lock();
        BrokerStats {
            published: state.seq,
            history_messages: state.history.messages(),
            history_bytes: state.history.bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::message::{EventName, Payload};

    #[derive(Default)]
    struct Seen(Mutex<Vec<u64>>);

    impl BrokerEvents for Seen {
        fn publication(&self, publication: Arc<Publication>) {
            self.0.lock().unwrap().push(publication.position.seq);
        }
    }

    fn broker() -> Memory<Seen> {
        let limits = Limits {
            count: 3,
            age: Duration::from_secs(60),
            bytes: 1 << 20,
        };
        let cache = Cache::new(Vec::new(), 1 << 20);
        Memory::new(limits, cache, 7, Seen::default())
    }

    fn from(id: Option<&str>) -> Since<'_> {
        Since { id, except: &[] }
    }

    fn publish(channels: &[&str], id: Option<&str>) -> Publish {
        Publish {
            channels: channels
                .iter()
                .map(|c| Channel::parse(c).unwrap())
                .collect(),
            payload: Payload::Json(Bytes::from_static(b"1")),
            event: EventName::Message,
            except: None,
            id: id.map(Into::into),
            store: true,
            terms: None,
        }
    }

    #[test]
    fn an_id_is_accepted_once_a_channel() {
        let broker = broker();
        assert_eq!(broker.publish(publish(&["a"], Some("x"))), "x");
        assert_eq!(broker.publish(publish(&["a"], Some("x"))), "x");
        assert_eq!(broker.publish(publish(&["a", "b"], Some("x"))), "x");
        assert_eq!(*broker.events.0.lock().unwrap(), [1, 2]);
    }

    #[test]
    fn an_own_id_of_several_channels_skips_none() {
        let broker = broker();
        broker.publish(publish(&["a", "b"], Some("x")));
        let channels = ["b", "a"].map(|name| Channel::parse(name).unwrap());
        let caught = broker.catch_up(&channels, from(Some("x")));
        let missed = caught.missed.iter().map(|m| m.publications.len());
        assert_eq!(missed.collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn since_takes_positions_and_own_ids() {
        let broker = broker();
        let a = [Channel::parse("a").unwrap()];
        assert_eq!(broker.publish(publish(&["a"], Some("x"))), "x");
        assert_eq!(broker.publish(publish(&["a"], None)), "00000007-2");
        for since in ["x", "00000007-1"] {
            let caught = broker.catch_up(&a, from(Some(since)));
            assert_eq!(caught.missed[0].publications.len(), 1, "{since}");
            assert!(caught.missed[0].recovered, "{since}");
        }
        for unknown in ["y", "00000008-1", "00000007-9", ""] {
            let caught = broker.catch_up(&a, from(Some(unknown)));
            assert!(!caught.missed[0].recovered, "{unknown}");
            assert_eq!(caught.missed[0].publications.len(), 2, "{unknown}");
        }
    }
}
