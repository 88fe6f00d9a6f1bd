//! Where a broker's history comes from and where it goes: another hub, the disk, and the keeper of it.
//!
//! Called by `node` when a hub begins, takes over or is taken over. Imports `history`, `store` and `follow`.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::Memory;
use crate::auth::Lists;
use crate::broker::BrokerEvents;
use crate::broker::follow::{self, Feed};
use crate::history::{self, Note, Past};
use crate::ids::{Channel, InvalidId};
use crate::store::{
    Journal, NotStored, Opened, Receipt, Revoked, Source, Sources, Store, StoreError, Watchers,
    Whole,
};
use crate::wire::handover::WireNote;

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
        state.closed = false;
        state.tell_journal();
        Ok(store)
    }

    /// The keeper is about to end: from here on nothing is published that would have to be kept, until [`Memory::keep`].
    pub fn close(&self) {
        self.lock().closed = true;
    }

    /// Keeps nothing on disk any more.
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

    /// Whether another broker gives the numbers from here on, and nothing is published here.
    pub fn resign(&self, resigned: bool) {
        self.lock().resigned = resigned;
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
}
