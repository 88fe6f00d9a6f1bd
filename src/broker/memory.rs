//! The broker of a single hub: a counter and a history under one lock.
//!
//! Called by `node` from any thread; hands every publication to [`BrokerEvents`]. Imports `broker` and `history`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::follow::{self, Feed, Follower};
use super::{Broker, BrokerEvents, BrokerStats, CatchUp, Published, Resumed, Since, Walk};
use crate::auth::Lists;
use crate::cache::Cache;
use crate::history::{self, History, Limits, Missed, Note, Past, Wanted};
use crate::ids::{Channel, InvalidId, Position};
use crate::message::{Publication, Publish, Terms};
use crate::store::{
    Journal, NotStored, Opened, Receipt, Revoked, Source, Sources, Store, StoreError, Watchers,
    Whole,
};
use crate::wire::handover::WireNote;

/// A broker in this process's memory.
pub struct Memory<E> {
    // One lock for all channels, and not one a channel: numbers are one sequence over all channels, and the
    // hand-over must happen in that sequence, or a cursor over several channels could skip a message. It is
    // held for some hundred nanoseconds, never over I/O or PHP.
    // Shared with the keeper of `store`, which asks what is new.
    state: Arc<Mutex<State>>,
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
    /// Where it is kept on disk, too.
    journal: Option<Journal>,
    /// Whether the history is another broker's.
    inherited: bool,
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
            journal: None,
            inherited: false,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            events,
        }
    }

    /// Goes on with another broker's history, as long as nothing has been published here.
    pub fn inherit(&self, mut past: Past) -> Result<(), InvalidId> {
        let mut state = self.lock();
        let now = Instant::now();
        state.epoch = past.epoch;
        state.seq = past.seq;
        state.inherited = true;
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

    /// Whether there is a history here that did not come from the disk, or will be in a moment.
    pub fn has_history(&self) -> bool {
        let state = self.lock();
        state.inherited || state.seq > 0
    }

    /// Keeps everything in `opened` from here on. Goes on with what is there, unless it has a history already.
    pub fn keep(
        &self,
        opened: Opened,
        revoked: Revoked,
        watchers: Watchers,
    ) -> Result<Store, StoreError> {
        let mut state = self.lock();
        let mut opened = opened;
        state.history.watch(true);
        let found = !state.inherited && state.seq == 0;
        if let Some(contents) = opened.contents.take()
            && found
        {
            state.epoch = contents.past.epoch;
            state.seq = contents.past.seq;
            // What cannot be is not in it: it was looked at when it was read.
            if let Err(error) = state.history.restore(contents.past) {
                tracing::error!(%error, "a part of the history cannot be read back: a bug in realtime");
            }
            if contents.doubtful {
                let seq = state.seq;
                state.history.doubt(seq);
            }
            let (_, _, notes) = state.history.notes();
            for note in notes.iter().filter(|note| note.store) {
                state.cache.put(&note.publication);
            }
        }
        let sources = Sources {
            news: self.source(),
            revoked,
        };
        let (store, journal) = opened.start(state.seq, found, sources, watchers)?;
        state.journal = Some(journal);
        state.tell_journal();
        Ok(store)
    }

    /// Keeps nothing on disk any more. What is published from here on is in memory alone.
    pub fn keep_no_more(&self) {
        let mut state = self.lock();
        state.journal = None;
        state.history.watch(false);
        // What is here by now is more than what is there.
        state.inherited = true;
    }

    /// Keeps what was revoked. What is to come true then; `Err` with the lists when there is no room, and with the reason when there
    /// will be none soon.
    pub fn keep_revoked(
        &self,
        revoked: Lists,
    ) -> Result<Option<Receipt>, (Lists, Option<NotStored>)> {
        let state = self.lock();
        let Some(journal) = &state.journal else {
            return Ok(None);
        };
        if !journal.revoke(revoked.clone()) {
            return Err((revoked, journal.cannot_begin()));
        }
        state.tell_journal();
        Ok(state.journal.as_ref().and_then(Journal::receipt))
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
        state.tell_journal();
        state.pass_on(&publication, store);
        self.events.publication(publication);
        Ok(())
    }

    /// From here on this broker gives the numbers.
    pub fn lead(&self) {
        self.lock().following = false;
    }

    /// What tells the keeper what is new.
    fn source(&self) -> Source {
        let state = self.state.clone();
        Box::new(move |news| {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            let state = &mut *state;
            let Some(journal) = &mut state.journal else {
                // Not yet, or no longer: the keeper is told to close.
                return;
            };
            news.head = journal.head(state.seq);
            news.epoch = state.epoch;
            news.newest = state.seq;
            news.forgotten = state.history.forgotten();
            state.history.take_changes(&mut news.fates, &mut news.marks);
            if std::mem::take(&mut news.wants_whole) {
                // It has all of what changed before.
                news.fates.clear();
                news.marks.clear();
                let (_, marks, notes) = state.history.notes();
                news.whole = Some(Whole {
                    head: news.head,
                    marks,
                    notes,
                });
            }
        })
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

    /// Tells the journal, if there is one, how the history stands.
    fn tell_journal(&self) {
        if let Some(journal) = &self.journal {
            journal.pass_on(self.seq);
        }
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
    fn publish(&self, mut publish: Publish) -> Published {
        let at = Instant::now();
        let mut state = self.lock();
        let is_kept = publish.store || publish.id.is_some();
        let refuses = state.journal.as_ref().and_then(Journal::refuses);
        if let Some(why) = refuses.filter(|_| is_kept) {
            return Published::Refused(why);
        }
        // The first copy of an update may be published already.
        let began = publish.terms.as_ref().map_or(0, |terms| terms.first);
        let first = if began > 0 { began } else { state.seq + 1 };
        let terms = publish.terms.as_deref().cloned();
        let terms = terms.map(|terms| Arc::new(Terms { first, ..terms }));
        let mut last = None;
        for index in 0..publish.channels.len() {
            let journal = state.journal.as_ref().filter(|_| is_kept);
            if journal.is_some_and(|journal| !journal.has_room(&publish)) {
                publish.channels.drain(..index);
                if let Some(rest) = publish.terms.as_mut().filter(|_| last.is_some()) {
                    rest.first = first;
                }
                return Published::NoRoom(publish);
            }
            let channel = &publish.channels[index];
            let id = &publish.id;
            if id
                .as_ref()
                .is_some_and(|id| state.history.knows(channel.as_str(), id))
            {
                continue;
            }
            state.seq += 1;
            let interned = state.history.interned(channel.as_str());
            let publication = Arc::new(Publication {
                channel: interned.unwrap_or_else(|| channel.clone()),
                position: Position {
                    epoch: state.epoch,
                    seq: state.seq,
                },
                id: id.clone(),
                event: publish.event.clone(),
                payload: publish.payload.clone(),
                except: publish.except,
                at,
                terms: terms.clone(),
            });
            state.keep(&publication, publish.store);
            if let Some(journal) = state.journal.as_ref().filter(|_| is_kept) {
                journal.keep(&publication, publish.store);
            }
            // Before anybody gets it: a number that was seen is never given again.
            state.tell_journal();
            state.pass_on(&publication, publish.store);
            last = Some(publication.position);
            self.events.publication(publication);
        }
        let journal = state.journal.as_ref().filter(|_| is_kept);
        let receipt = journal.and_then(Journal::receipt);
        drop(state);
        let id = match (publish.id, last) {
            (Some(id), _) => id.into(),
            (None, Some(position)) => match terms {
                // What all copies of an update go by.
                Some(_) => Position {
                    seq: first,
                    ..position
                }
                .text(),
                None => position.text(),
            },
            (None, None) => String::new(),
        };
        Published::Done { id, receipt }
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
        let mut state = self.lock();
        state.history.expire(Instant::now());
        if state.history.has_changed() {
            state.tell_journal();
        }
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

    impl Memory<Seen> {
        fn id_of(&self, publish: Publish) -> String {
            match self.publish(publish) {
                Published::Done { id, receipt: None } => id,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn an_id_is_accepted_once_a_channel() {
        let broker = broker();
        assert_eq!(broker.id_of(publish(&["a"], Some("x"))), "x");
        assert_eq!(broker.id_of(publish(&["a"], Some("x"))), "x");
        assert_eq!(broker.id_of(publish(&["a", "b"], Some("x"))), "x");
        assert_eq!(*broker.events.0.lock().unwrap(), [1, 2]);
    }

    #[test]
    fn an_own_id_of_several_channels_skips_none() {
        let broker = broker();
        broker.id_of(publish(&["a", "b"], Some("x")));
        let channels = ["b", "a"].map(|name| Channel::parse(name).unwrap());
        let caught = broker.catch_up(&channels, from(Some("x")));
        let missed = caught.missed.iter().map(|m| m.publications.len());
        assert_eq!(missed.collect::<Vec<_>>(), [1, 0]);
    }

    #[test]
    fn since_takes_positions_and_own_ids() {
        let broker = broker();
        let a = [Channel::parse("a").unwrap()];
        assert_eq!(broker.id_of(publish(&["a"], Some("x"))), "x");
        assert_eq!(broker.id_of(publish(&["a"], None)), "00000007-2");
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
