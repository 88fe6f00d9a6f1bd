//! The broker of a single hub: a counter and a history under one lock.
//!
//! Called by `node` from any thread; hands every publication to [`BrokerEvents`]. Imports `broker` and `history`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::follow::{self, Feed, Follower};
use super::{Broker, BrokerEvents, BrokerStats, CatchUp};
use crate::history::{self, History, Limits, Missed, Note, Past};
use crate::ids::{Channel, InvalidId, Position};
use crate::message::{Publication, Publish};
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
    /// What comes after it.
    pub feed: Feed,
}

impl<E: BrokerEvents> Memory<E> {
    /// A broker that has seen nothing, with an epoch of its own.
    pub fn new(limits: Limits, epoch: u32, events: E) -> Self {
        let state = State {
            epoch,
            seq: 0,
            history: History::new(limits, 0),
            followers: Vec::new(),
            following: false,
        };
        Self {
            state: Mutex::new(state),
            events,
        }
    }

    /// Goes on with another broker's history, as long as nothing has been published here.
    pub fn inherit(&self, past: Past) -> Result<(), InvalidId> {
        let mut state = self.lock();
        state.epoch = past.epoch;
        state.seq = past.seq;
        state.history.restore(past)
    }

    /// Takes a snapshot and has the feed begin in the same moment. More than `limit` bytes should not wait in it.
    pub fn follow(&self, limit: usize) -> Snapshot {
        let mut state = self.lock();
        let (follower, feed) = follow::feed(limit);
        state.followers.push(follower);
        let (forgotten, marks, notes) = state.history.notes();
        Snapshot {
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
        state.history.add(&publication, store);
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
        } = publish;
        let mut state = self.lock();
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
            });
            state.history.add(&publication, store);
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

    fn catch_up(&self, channels: &[Channel], since: Option<&str>) -> CatchUp {
        let mut state = self.lock();
        state.history.expire(Instant::now());
        let mut seq = state.seq;
        let missed = since.map_or_else(Vec::new, |since| {
            let since = state.resolve(channels, since);
            // What the client has of the broker ahead is on its way here, and not for it.
            seq = seq.max(since.unwrap_or(0));
            channels
                .iter()
                .map(|channel| state.history.after(channel.as_str(), since))
                .collect()
        });
        CatchUp {
            position: Position {
                epoch: state.epoch,
                seq,
            },
            missed,
        }
    }

    fn history(&self, channel: &Channel, limit: usize, since: Option<&str>) -> Missed {
        let mut state = self.lock();
        state.history.expire(Instant::now());
        match since {
            None => {
                let all = state.history.after(channel.as_str(), Some(0));
                let publications = state.history.newest(channel.as_str(), limit);
                Missed {
                    publications,
                    ..all
                }
            }
            Some(since) => {
                let since = state.resolve(std::slice::from_ref(channel), since);
                let mut missed = state.history.after(channel.as_str(), since);
                missed.publications.truncate(limit);
                missed
            }
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
        Memory::new(limits, 7, Seen::default())
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
        let caught = broker.catch_up(&channels, Some("x"));
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
            let caught = broker.catch_up(&a, Some(since));
            assert_eq!(caught.missed[0].publications.len(), 1, "{since}");
            assert!(caught.missed[0].recovered, "{since}");
        }
        for unknown in ["y", "00000008-1", "00000007-9", ""] {
            let caught = broker.catch_up(&a, Some(unknown));
            assert!(!caught.missed[0].recovered, "{unknown}");
            assert_eq!(caught.missed[0].publications.len(), 2, "{unknown}");
        }
    }
}
