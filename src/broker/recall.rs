//! What a client has missed on all channels that fit its patterns: looked up step by step, since there may be very many of both.
//!
//! Each step copies a few names out of the history under the broker's lock ([`Recall::step`]) and compares them with the
//! patterns outside of it ([`Recall::sift`]), so that no publisher waits for a comparison. Meanwhile messages come and others
//! are pushed out. Those that come are found at the end of the walk, or are live: [`Recall::position`] says where one ends and
//! the other begins. What is pushed out is looked at last, so that nothing is missing of which the client is not told; that it
//! was given some of it may be left unsaid. Used by `node`. Imports `history` and `message`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::history::{History, Wanted};
use crate::ids::{Channel, Position};
use crate::message::Publication;

/// How many channels or messages are looked at while the broker is held.
pub(super) const STEP: usize = 128;

/// How long channels are compared with patterns before others have their turn on the thread.
const TURN: Duration = Duration::from_micros(200);

/// What a client of the Mercure protocol has missed, on all its channels, and on all that fit its patterns.
#[derive(Debug)]
pub struct Recall {
    stage: Stage,
    since: Option<u64>,
    /// The number after which it is looked for.
    after: u64,
    forgotten: u64,
    position: Position,
    publications: Vec<Arc<Publication>>,
    /// The copies of the message by whose id the client says where it stands.
    place: Place,
    /// What is to be compared with the patterns.
    copies: std::vec::IntoIter<(Channel, u64, u64)>,
    messages: std::vec::IntoIter<Arc<Publication>>,
    missing: std::vec::IntoIter<(Channel, u64)>,
    /// What was compared already: each channel is, once.
    known: HashMap<Channel, bool>,
}

/// Which number a publisher's id stands for, as [`History::place_of`] finds it among channels with names.
#[derive(Debug, Default)]
struct Place {
    /// That of the first copy on a channel that is wanted.
    wanted: Option<u64>,
    /// That of the first of all.
    first: Option<u64>,
    /// The newest number of which a channel without a copy has forgotten the id.
    lost: u64,
}

impl Place {
    fn number(&self) -> Option<u64> {
        let first = self.first?;
        // A copy before that may have been wanted, and pushed out: then that is what the client has.
        let known = self.wanted.filter(|_| self.lost < first);
        Some(known.unwrap_or(first))
    }
}

/// What the next step looks for.
#[derive(Debug)]
enum Stage {
    /// Where the client stands.
    Begin(String),
    /// Which of all messages has the publisher's id by which the client says where it stands.
    Find { id: String, from: usize },
    /// Where that is.
    Found,
    /// Messages after a number.
    Messages { after: u64 },
    /// What is missing.
    Missing { from: usize },
    /// Nothing.
    Done,
}

/// What a broker lends for a step.
pub struct Held<'a> {
    /// What there is.
    pub history: &'a History,
    /// The position now.
    pub position: Position,
    /// The number that an id stands for, by itself or on one of the channels with a name.
    pub resolve: &'a dyn Fn(&str) -> Option<u64>,
}

impl Recall {
    /// Nothing yet: what came after `since`, an id, is to be looked up.
    pub fn new(since: &str) -> Self {
        Self {
            stage: Stage::Begin(since.to_owned()),
            since: None,
            after: 0,
            forgotten: 0,
            position: Position { epoch: 0, seq: 0 },
            publications: Vec::new(),
            place: Place::default(),
            copies: Vec::new().into_iter(),
            messages: Vec::new().into_iter(),
            missing: Vec::new().into_iter(),
            known: HashMap::new(),
        }
    }

    /// Does a step, unless all is done: then it returns `false`. [`Recall::sift`] follows it.
    pub fn step(&mut self, wanted: Wanted<'_>, held: &Held<'_>) -> bool {
        let history = held.history;
        self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Begin(since) => {
                self.since = (held.resolve)(&since);
                // A publisher's id may be known on more channels than those with a name, and on others.
                let is_own = since.parse::<Position>().is_err();
                match !wanted.patterns.is_empty() && is_own {
                    true => Stage::Find {
                        id: since,
                        from: history.channels(),
                    },
                    false => self.begin(),
                }
            }
            Stage::Find { id, from } => {
                let piece = history.find_among(&id, from, STEP);
                self.copies = piece.found.known.into_iter();
                self.place.lost = self.place.lost.max(piece.found.lost);
                match piece.next {
                    Some(from) => Stage::Find { id, from },
                    None => Stage::Found,
                }
            }
            Stage::Found => {
                // What was known by name may be forgotten by now.
                self.since = self.place.number().or(self.since);
                self.begin()
            }
            Stage::Messages { after } if wanted.patterns.is_empty() => {
                self.by_name(wanted.channels, after, held);
                Stage::Done
            }
            Stage::Messages { after } => {
                let (messages, up_to) = history.messages_after(after, STEP);
                self.messages = messages.into_iter();
                match up_to {
                    Some(after) => Stage::Messages { after },
                    None => {
                        self.arrive(held.position);
                        Stage::Missing {
                            from: history.channels(),
                        }
                    }
                }
            }
            // Nothing is: that is soon said.
            Stage::Missing { .. } if history.lost() <= self.after => Stage::Done,
            Stage::Missing { from } => {
                // A channel that is gone altogether may have been one of them.
                self.forgotten = self.forgotten.max(history.forgotten());
                let above = self.after.max(self.forgotten);
                let piece = history.missing_among(above, from, STEP);
                self.missing = piece.found.into_iter();
                match piece.next {
                    Some(from) => Stage::Missing { from },
                    None => Stage::Done,
                }
            }
            Stage::Done => return false,
        };
        true
    }

    /// Keeps what is wanted of what the last step has found. `false` when there is more to do, and others should have their turn.
    pub fn sift(&mut self, wanted: Wanted<'_>) -> bool {
        let begin = Instant::now();
        for (channel, seq, first) in self.copies.by_ref() {
            let least = |known: Option<u64>, number| known.into_iter().chain([number]).min();
            self.place.first = least(self.place.first, first);
            if is_wanted(&mut self.known, wanted, &channel) {
                self.place.wanted = least(self.place.wanted, seq);
            }
            if begin.elapsed() > TURN {
                return false;
            }
        }
        for publication in self.messages.by_ref() {
            if is_wanted(&mut self.known, wanted, &publication.channel) {
                self.publications.push(publication);
            }
            if begin.elapsed() > TURN {
                return false;
            }
        }
        for (channel, forgotten) in self.missing.by_ref() {
            if forgotten > self.forgotten && is_wanted(&mut self.known, wanted, &channel) {
                self.forgotten = forgotten;
            }
            if begin.elapsed() > TURN {
                return false;
            }
        }
        true
    }

    /// Has what came since then looked up, too.
    pub fn go_on(&mut self) {
        self.after = self.position.seq;
        self.forgotten = 0;
        self.stage = Stage::Messages { after: self.after };
    }

    /// Where the client stands with all that was found: live messages with a higher number follow.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The number after which all is that was found; none when `since` is unknown, and this is all there is.
    pub fn since(&self) -> Option<u64> {
        self.since
    }

    /// The newest number of a message after that which is no longer there; 0 when there is none. When it has gone on, of one
    /// that came and went meanwhile.
    pub fn forgotten(&self) -> u64 {
        let is_after = self.forgotten > self.after;
        if is_after { self.forgotten } else { 0 }
    }

    /// What the client missed, oldest first.
    pub fn into_publications(mut self) -> Vec<Arc<Publication>> {
        if let Some(since) = self.since {
            // Whoever has got one copy of an update has got it.
            self.publications.retain(|publication| {
                let terms = publication.terms.as_ref();
                terms.is_none_or(|terms| terms.topics.is_empty() || terms.first > since)
            });
        }
        self.publications
    }

    fn begin(&mut self) -> Stage {
        self.after = self.since.unwrap_or(0);
        Stage::Messages { after: self.after }
    }

    fn by_name(&mut self, channels: &[Channel], after: u64, held: &Held<'_>) {
        let found = self.publications.len();
        for channel in channels {
            let missed = held.history.after(channel.as_str(), Some(after));
            self.publications.extend(missed.publications);
            let forgotten = held.history.forgotten_of(channel.as_str());
            self.forgotten = self.forgotten.max(forgotten);
        }
        self.publications[found..].sort_unstable_by_key(|publication| publication.position.seq);
        self.arrive(held.position);
    }

    fn arrive(&mut self, position: Position) {
        // The broker that this one follows may be ahead: what the client has of it is on its way here, and not for it.
        let seq = position.seq.max(self.since.unwrap_or(0));
        self.position = Position { seq, ..position };
    }
}

fn is_wanted(known: &mut HashMap<Channel, bool>, wanted: Wanted<'_>, channel: &Channel) -> bool {
    if let Some(&is_wanted) = known.get(channel) {
        return is_wanted;
    }
    let is_wanted = wanted.has(channel.as_str());
    known.insert(channel.clone(), is_wanted);
    is_wanted
}
