//! The broker of a single hub: a counter and a history under one lock.
//!
//! Called by `node` from any thread; hands every publication to [`BrokerEvents`]. Where its history comes from
//! and goes to is in `keeping`. Imports `broker` and `history`.

mod keeping;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub use self::keeping::Snapshot;
use super::follow::Follower;
use super::recall::{Held, Recall};
use super::{Broker, BrokerEvents, BrokerStats, CatchUp, Published, Since, Walk};
use crate::cache::Cache;
use crate::history::{self, History, Limits, Missed, Note, Repack, Wanted};
use crate::ids::{Channel, Position};
use crate::message::{Publication, Publish, Terms};
use crate::store::Journal;

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
    /// Whether it was kept there, and is no more: nobody is told that something is kept until it is again.
    closed: bool,
    /// Whether the history is another broker's.
    inherited: bool,
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
            closed: false,
            inherited: false,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            events,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under this lock is a bug of ours that leaves counters at worst: serving on is better than
        // taking every publisher down with it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The number that a client's `since` stands for, if it is one of ours.
    fn resolve(&self, channels: &[Channel], since: &str) -> Option<u64> {
        let own = self.history.place_of(channels, since);
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
        if state.following || state.closed && is_kept {
            return Published::Elsewhere;
        }
        let refuses = state.journal.as_ref().and_then(Journal::refuses);
        if let Some(why) = refuses.filter(|_| is_kept) {
            return Published::Refused(why);
        }
        // The first copy may be published already.
        let began = publish.terms.as_ref().map_or(0, |terms| terms.first);
        let first = match began {
            0 => state
                .history
                .first_of_known(&publish)
                .unwrap_or(state.seq + 1),
            began => began,
        };
        // Copies of one id have to be known as such for as long as there are any, also after a restart.
        let copies = publish.id.is_some() && publish.channels.len() > 1;
        let terms = publish.terms.as_deref().cloned();
        let terms = terms.or_else(|| copies.then(Terms::default));
        let terms = terms.map(|terms| Arc::new(Terms { first, ..terms }));
        let mut last = None;
        for index in 0..publish.channels.len() {
            let journal = state.journal.as_ref().filter(|_| is_kept);
            if journal.is_some_and(|journal| !journal.has_room(&publish)) {
                publish.channels.drain(..index);
                if last.is_some() && terms.is_some() {
                    publish.terms.get_or_insert_default().first = first;
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

    fn recall(&self, wanted: Wanted<'_>, recall: &mut Recall) -> bool {
        let state = self.lock();
        recall.step(
            wanted,
            &Held {
                history: &state.history,
                position: Position {
                    epoch: state.epoch,
                    seq: state.seq,
                },
                resolve: &|id| state.resolve(wanted.channels, id),
            },
        )
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

    fn repack(&self, repack: &mut Repack) -> bool {
        let mut state = self.lock();
        let State { history, cache, .. } = &mut *state;
        history.repack(repack, |old, new| cache.renew(old, new)) || cache.repack(repack, history)
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
