//! A history on its way to another hub, or back from the disk. What comes from there is checked: it comes from outside.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::log::{Log, channel_cost};
use super::{History, Note};
use crate::ids::{Channel, ConnectionId, InvalidId, Position, check_any_event, check_custom_id};
use crate::message::{EventName, Payload, Publication, Terms};
use crate::wire::handover::{WireNote, WireTerms};

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
            let id = &log.ids_order[found].1;
            let first = log.ids.get(id).map_or(*seq, |own| own.first);
            let publication = Arc::new(Publication {
                channel: channel.clone(),
                position: Position {
                    epoch: 0,
                    seq: *seq,
                },
                id: Some(id.clone()),
                event: EventName::Message,
                payload: Payload::Binary(Bytes::new()),
                except: None,
                at: *at,
                terms: (first != *seq).then(|| {
                    Arc::new(Terms {
                        first,
                        ..Terms::default()
                    })
                }),
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
        self.lost = past.forgotten;
        // An id is pushed out after its message or with it: more than these cannot have been.
        self.ids_lost = past.forgotten;
        for (name, forgotten) in past.marks {
            let channel = Channel::from_hub(&name)?;
            self.lost = self.lost.max(forgotten);
            let log = Log {
                forgotten,
                ids_lost: forgotten,
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
