//! A client of the Mercure protocol: one cursor for all its topics, of which an event does not say which it is of.
//!
//! What it gets is known by what it says, and by its id. An update with several topics comes once, as the copy of the first
//! topic that the client follows; what was published to several channels otherwise comes once from each. Both are called by
//! their key: the number of the message, or of an update's first copy, which is what an id stands for.

use std::collections::HashSet;

use serde_json::Value;

use super::client::{Client, Notes};
use super::ledger::{Book, CHANNELS, Dice, Entry, Ledger};
use super::wire::{Form, Item, Wire};

const PATH: &str = "/.well-known/mercure";

/// The client.
pub struct Subscriber {
    notes: Notes,
    subscribed: Vec<&'static str>,
    /// Whether it follows all but the first by templates.
    templates: bool,
    address: String,
    narrow: bool,
    wire: Wire,
    /// How many streams it has opened.
    streams: usize,
    /// The newest id that came.
    last: Option<String>,
    /// Up to this key it has all, or was told.
    at: u64,
    /// Whatever comes again on this stream must be above it.
    since: u64,
    /// The newest key that came on this stream.
    newest: u64,
    /// What is not stored comes on this stream from above this number.
    live: u64,
    /// Of these it was told that they may be lost.
    excused: HashSet<u64>,
    /// What came last was one of the copies of a message with its publisher's id, and may have been another of them.
    doubtful: Option<u64>,
}

/// What an id stands for.
struct Stand {
    /// Whatever is above it may come: it is the first copy of a message that comes from several channels with one id.
    since: u64,
    /// Whatever is above it must come.
    at: u64,
    /// Of a message with its publisher's id.
    own: Option<u64>,
}

impl Entry {
    /// What it is called by.
    fn key(&self) -> u64 {
        if self.is_update { self.first } else { self.seq }
    }
}

impl Subscriber {
    /// One that does not follow anything yet.
    pub fn new(address: &str, templates: bool, narrow: bool) -> Self {
        Self {
            notes: Notes::default(),
            subscribed: Vec::new(),
            templates,
            address: address.to_owned(),
            narrow,
            wire: Wire::open(address, Form::Updates, narrow),
            streams: 0,
            last: None,
            at: 0,
            since: 0,
            newest: 0,
            live: 0,
            excused: HashSet::new(),
            doubtful: None,
        }
    }

    /// With other topics, from where the last id stands.
    fn follow_others(&mut self, ledger: &Ledger) {
        if let Some(id) = &self.last {
            self.at = self.stand(id, &ledger.book()).at;
        }
        self.reconnect(ledger);
    }

    /// Opens a stream; `None` when it has ended before it began.
    fn open(&mut self, ledger: &Ledger) -> Option<()> {
        self.streams += 1;
        self.wire = Wire::open(&self.address, Form::Updates, self.narrow);
        (self.newest, self.live, self.doubtful) = (0, u64::MAX, None);
        let before = ledger.book().seq;
        let mut query = self.query();
        let mut more = String::new();
        if let Some(id) = &self.last {
            if self.streams.is_multiple_of(2) {
                query.push_str(&format!("&lastEventID={id}"));
            } else {
                more = format!("Last-Event-ID: {id}\r\n");
            }
        }
        self.wire.request(&format!("{PATH}?{query}"), &more);
        loop {
            match self.wire.next() {
                Item::Head(preceding) => self.began(preceding.as_deref(), &ledger.book()),
                // How long to wait before one reconnects: by now it is subscribed.
                Item::Update(None, None) => break,
                Item::End(None) => return self.ended(),
                other => panic!("{other:?}"),
            }
        }
        let book = ledger.book();
        self.live = book.seq;
        self.notes.overlaps += usize::from(self.last.is_some() && book.seq > before);
        drop(book);
        if self.last.is_none() {
            // It has missed nothing: first it is told where it stands.
            match self.wire.next() {
                Item::Update(Some(id), None) => self.stands_at(&id, &ledger.book()),
                Item::End(None) => return self.ended(),
                other => panic!("{other:?}"),
            }
        }
        Some(())
    }

    fn query(&self) -> String {
        let all = self.subscribed.len() == CHANNELS.len();
        let topics = self.subscribed.iter().enumerate();
        let named = topics.map(|(index, topic)| match index {
            1.. if self.templates => format!("topic={topic}%7Bx%7D"),
            _ => format!("topic={topic}"),
        });
        match self.streams % 3 {
            0 if all && self.templates => "topic=*".to_owned(),
            1 if all && self.templates => "topic=%7Bx%7D".to_owned(),
            _ => named.collect::<Vec<_>>().join("&"),
        }
    }

    fn ended<T>(&mut self) -> Option<T> {
        *self.notes.ends.entry(0).or_default() += 1;
        None
    }

    /// After which update it gets everything, by the answer's head.
    fn began(&mut self, preceding: Option<&str>, book: &Book) {
        let Some(asked) = &self.last else {
            assert_eq!(preceding, None, "it was not asked");
            return;
        };
        let stand = self.stand(asked, book);
        let preceding = preceding.expect("it was asked");
        self.since = stand.since;
        // What was lost before is lost again, and told again.
        self.excused.clear();
        if preceding == asked {
            return;
        }
        // With other topics than when it got this, nothing need be lost.
        let mut is_foreign = false;
        let up_to = match book.number_of_urn(preceding) {
            Some(up_to) => {
                let mut topics = self.subscribed.iter();
                let short = topics.any(|topic| book.may_lack(topic, stand.since));
                assert!(short, "after {asked}: {preceding}");
                up_to
            }
            None => {
                assert_eq!(preceding, "earliest", "after {asked}");
                let number = stand.own.expect("it is of this history");
                assert!(!self.must_know(number, book), "{asked} is known");
                // All that is left may come again.
                self.since = 0;
                is_foreign = self.copies(number, book).is_empty();
                u64::MAX
            }
        };
        let rest = self.rest(book);
        let lost = rest.filter(|(_, entry)| entry.stored && entry.key() <= up_to);
        let lost = lost.filter(|(topic, entry)| book.may_lack_this(topic, entry));
        self.excused = lost.map(|(_, entry)| entry.key()).collect();
        self.notes.gaps += usize::from(!is_foreign || !self.excused.is_empty());
    }

    /// What `id` stands for. With its publisher's, of copies on several channels, for the first that this client follows, unless
    /// it may be that the history does not know that one any more.
    fn stand(&self, id: &str, book: &Book) -> Stand {
        if let Some(at) = book.number_of_urn(id) {
            return Stand {
                since: at,
                at,
                own: None,
            };
        }
        let copies = || CHANNELS.iter().flat_map(|topic| book.of(topic));
        let copies: Vec<_> = copies().filter(|entry| entry.id == id).collect();
        let keys = || copies.iter().map(|entry| entry.key());
        let first = keys().min().expect("an id that was given");
        let all_known = |topic: &&str| !book.may_not_know(topic, first);
        let mut followed = self.subscribed.iter().flat_map(|topic| book.of(topic));
        let followed = followed.find(|entry| entry.id == id).map(Entry::key);
        let since = match followed {
            Some(_) if CHANNELS.iter().all(all_known) => {
                let of = |topic: &&str| book.of(topic).iter().find(|entry| entry.id == id);
                let keys = self.subscribed.iter().filter_map(of).map(Entry::key);
                keys.min().unwrap_or(first)
            }
            _ => first,
        };
        Stand {
            since,
            at: keys().max().unwrap_or(first),
            own: Some(copies[0].number),
        }
    }

    /// Whether the history must know the id of the message that says `number`.
    fn must_know(&self, number: u64, book: &Book) -> bool {
        // By templates it is looked for everywhere.
        let by_template = self.templates && self.subscribed.len() > 1;
        let mut topics = CHANNELS.into_iter();
        topics.any(|topic| {
            let is_asked = by_template || self.subscribed.contains(&topic);
            let copy = book.saying(topic, number);
            is_asked && copy.is_some_and(|entry| !book.may_not_know(topic, entry.seq))
        })
    }

    fn take(&mut self, item: Item, ledger: &Ledger) {
        let book = &*ledger.book();
        match item {
            Item::Update(Some(id), None) => self.stands_at(&id, book),
            Item::Update(Some(id), Some(data)) => self.update(&id, &data, book),
            other => panic!("{other:?}"),
        }
    }

    /// An id without an update: it has all up to there.
    fn stands_at(&mut self, id: &str, book: &Book) {
        let at = book.number_of_urn(id).unwrap();
        assert!(at <= book.seq, "from the future: {id}");
        assert_eq!(self.newest, 0, "only at the beginning");
        if self.last.is_some() {
            self.live = at;
            self.pass(at + 1, book);
        }
        self.last = Some(id.to_owned());
        self.at = self.at.max(at);
    }

    fn update(&mut self, id: &str, data: &Value, book: &Book) {
        let number = data[0].as_u64().unwrap();
        let what = || format!("{number} as {id} on {:?}", self.subscribed);
        let mut copies = self.copies(number, book);
        copies.sort_unstable_by_key(|(_, entry)| entry.seq);
        let (_, first) = copies.first().unwrap_or_else(|| panic!("{}", what()));
        let key = match book.number_of_urn(id) {
            // The update's first copy may be on another topic.
            Some(seq) if first.is_update => {
                assert_eq!(seq, first.first, "{}", what());
                seq
            }
            Some(seq) => {
                let mut seqs = copies.iter().map(|(_, entry)| entry.seq);
                assert!(seqs.any(|its| its == seq), "{}", what());
                seq
            }
            None if self.doubtful == Some(number) => return self.doubtful = None,
            None => {
                assert_eq!(id, first.id, "{}", what());
                let above = self.newest.max(self.since);
                copies.retain(|(_, entry)| entry.key() > above);
                // One that came before, or that may be lost, may be left out.
                let must_come =
                    |(_, entry): &&(&str, &Entry)| entry.key() > self.at && !self.is_excused(entry);
                let certain = copies.iter().find(must_come).or(copies.last());
                let (_, entry) = certain.unwrap_or_else(|| panic!("{} came twice", what()));
                let is_first = copies
                    .first()
                    .is_some_and(|(_, first)| first.seq == entry.seq);
                self.doubtful = Some(number).filter(|_| !is_first);
                entry.key()
            }
        };
        assert!(key > self.newest, "{key} after {}: {}", self.newest, what());
        (self.newest, self.last) = (key, Some(id.to_owned()));
        if key <= self.at {
            assert!(key > self.since, "{} again, after {}", what(), self.since);
            return;
        }
        self.pass(key, book);
        self.at = key;
        self.notes.read += 1;
    }

    /// Whatever is before `key` and has not come need not come.
    fn pass(&mut self, key: u64, book: &Book) {
        let before = || self.rest(book).filter(|(_, entry)| entry.key() < key);
        for (topic, entry) in before() {
            assert!(
                self.is_excused(entry),
                "{} ({}, stored: {}) of {topic} is missing before {key}, asked after {} for {}; live from {}",
                entry.id,
                entry.seq,
                entry.stored,
                self.since,
                self.query(),
                self.live
            );
        }
        self.notes.lost += before().filter(|(_, entry)| entry.stored).count();
    }

    /// What there was above all that it has, topic by topic; of an update the one copy.
    fn rest<'a>(&'a self, book: &'a Book) -> impl Iterator<Item = (&'static str, &'a Entry)> {
        let topics = self.subscribed.iter();
        let all = topics.flat_map(|topic| book.after(topic, self.at).iter().map(|it| (*topic, it)));
        all.filter(|(_, entry)| entry.key() > self.at && !self.gets_another(entry, book))
    }

    /// Whether it gets another copy of the update.
    fn gets_another(&self, entry: &Entry, book: &Book) -> bool {
        let mut topics = self.subscribed.iter();
        let before = |its: &Entry| its.seq < entry.seq;
        entry.is_update && topics.any(|topic| book.saying(topic, entry.number).is_some_and(before))
    }

    fn is_excused(&self, entry: &Entry) -> bool {
        let is_passing = !entry.stored && entry.seq <= self.live;
        is_passing || self.excused.contains(&entry.key())
    }

    fn copies<'a>(&self, number: u64, book: &'a Book) -> Vec<(&'static str, &'a Entry)> {
        let topics = self.subscribed.iter();
        topics
            .filter_map(|topic| Some((*topic, book.saying(topic, number)?)))
            .collect()
    }
}

impl Client for Subscriber {
    fn notes(&self) -> &Notes {
        &self.notes
    }

    fn subscribed(&self) -> &[&'static str] {
        &self.subscribed
    }

    fn subscribe(&mut self, channel: &'static str, ledger: &Ledger) {
        self.subscribed.push(channel);
        self.follow_others(ledger);
    }

    fn unsubscribe(&mut self, channel: &'static str, ledger: &Ledger) {
        self.subscribed.retain(|subscribed| *subscribed != channel);
        self.follow_others(ledger);
    }

    fn return_to_all(&mut self, ledger: &Ledger) {
        self.subscribed = CHANNELS.to_vec();
        self.follow_others(ledger);
    }

    fn follow(&mut self, address: &str) {
        address.clone_into(&mut self.address);
    }

    fn reconnect(&mut self, ledger: &Ledger) {
        while !self.subscribed.is_empty() && self.open(ledger).is_none() {}
    }

    fn read(&mut self, most: usize, _: &mut Dice, ledger: &Ledger) {
        let goal = self.notes.read + most;
        let newest = ledger.book().seq;
        while self.notes.read < goal && self.lacks(newest, &ledger.book()) {
            match self.wire.next() {
                Item::End(None) => {
                    self.ended::<()>();
                    self.reconnect(ledger);
                }
                item => self.take(item, ledger),
            }
        }
    }

    fn leave_waiting(&mut self, _: &Ledger) {}

    fn lacks(&self, newest: u64, book: &Book) -> bool {
        let mut rest = self.rest(book).filter(|(_, entry)| entry.seq <= newest);
        self.last.is_some() && rest.any(|(_, entry)| !self.is_excused(entry))
    }
}
