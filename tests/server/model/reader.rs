//! A client as it should be written, on any transport, that checks each thing it is told against the ledger.

use std::collections::HashMap;

use serde_json::Value;

use super::ledger::{Book, CHANNELS, Dice, Entry, Ledger};
use super::wire::{Form, Item, Wire};

/// How a reader is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `/ws`: `since` for each channel.
    Ws,
    /// `/sse` with `since`.
    Sse,
    /// `/sse` as a browser's EventSource, with the header.
    LastEventId,
    /// `/stream`.
    Stream,
    /// `/poll`, each for itself.
    Poll,
    /// `/poll` with a session.
    Session,
}

impl Kind {
    pub const ALL: [Self; 6] = [
        Self::Ws,
        Self::Sse,
        Self::LastEventId,
        Self::Stream,
        Self::Poll,
        Self::Session,
    ];

    fn form(self) -> Form {
        match self {
            Self::Ws => Form::Frames,
            Self::Sse | Self::LastEventId => Form::Events,
            Self::Stream => Form::Lines,
            Self::Poll | Self::Session => Form::Answers,
        }
    }
}

/// What became of a reader.
#[derive(Default)]
pub struct Notes {
    /// How its connections ended, by close code; 0 is without one.
    pub ends: HashMap<u16, usize>,
    pub read: usize,
    /// Resumes that were told of a gap.
    pub gaps: usize,
    /// Messages that were lost in those.
    pub lost: usize,
    /// Resumes during which something was published.
    pub overlaps: usize,
}

/// Where a reader stands in a channel.
#[derive(Default)]
struct Place {
    /// Of the ledger's entries, those before it have come or are excused.
    next: usize,
    /// The newest number that has come.
    cursor: u64,
    /// What is not stored comes on this connection from above this number.
    live: u64,
    /// The newest number that came on this connection.
    here: u64,
}

pub struct Reader {
    pub kind: Kind,
    pub notes: Notes,
    pub subscribed: Vec<&'static str>,
    address: String,
    narrow: bool,
    /// How often the server has ended without another that took over.
    stops: usize,
    wire: Wire,
    places: HashMap<&'static str, Place>,
    /// The number after which this connection was asked for; what comes again must be above it.
    since: u64,
    /// The newest number that was noted when this connection was asked for.
    before: u64,
    /// The newest number that came on this connection.
    newest: u64,
    /// The id that an EventSource would send.
    last_event: Option<String>,
    /// A poll that has not been answered yet.
    asked: bool,
    /// The query that continues a session of polls.
    session: Option<String>,
    /// The cursor of the last poll.
    cursor: Option<String>,
    /// Since the last answer of a poll, whether it was told that history falls short.
    short: bool,
}

impl Reader {
    pub fn new(address: &str, kind: Kind, narrow: bool, ledger: &Ledger) -> Self {
        let mut reader = Self {
            kind,
            notes: Notes::default(),
            subscribed: Vec::new(),
            address: address.to_owned(),
            narrow,
            stops: 0,
            wire: Wire::open(address, kind.form(), narrow),
            places: HashMap::new(),
            since: 0,
            before: 0,
            newest: 0,
            last_event: None,
            asked: false,
            session: None,
            cursor: None,
            short: false,
        };
        if kind == Kind::Ws {
            reader.await_frame("welcome", None, ledger);
        }
        reader
    }

    pub fn subscribe(&mut self, channel: &'static str, ledger: &Ledger) {
        self.subscribed.push(channel);
        if self.kind == Kind::Ws {
            if self.ask_for(channel, ledger).is_none() {
                self.reconnect(ledger);
            }
        } else {
            // What an EventSource has seen says nothing of a channel that is new to it.
            self.last_event = None;
            self.reconnect(ledger);
        }
    }

    pub fn unsubscribe(&mut self, channel: &'static str, ledger: &Ledger) {
        if self.kind == Kind::Ws {
            let frame = format!(r#"{{"type":"unsubscribe","channel":"{channel}"}}"#);
            self.wire.say(&frame);
            let stays = self.await_frame("unsubscribed", Some(channel), ledger);
            self.subscribed.retain(|subscribed| *subscribed != channel);
            if stays.is_none() {
                self.reconnect(ledger);
            }
        } else {
            self.subscribed.retain(|subscribed| *subscribed != channel);
            self.last_event = None;
            self.reconnect(ledger);
        }
    }

    /// From now on the server is there. The one before has ended.
    pub fn follow(&mut self, address: &str) {
        address.clone_into(&mut self.address);
        self.stops += 1;
    }

    /// Drops the connection with all that is on its way, and opens another.
    pub fn reconnect(&mut self, ledger: &Ledger) {
        self.wire = Wire::open(&self.address, self.kind.form(), self.narrow);
        (self.asked, self.session, self.cursor, self.newest) = (false, None, None, 0);
        for place in self.places.values_mut() {
            place.here = 0;
        }
        if self.subscribed.is_empty() && self.kind != Kind::Ws {
            return;
        }
        let whole = match self.kind {
            Kind::Ws => self.open_ws(ledger),
            Kind::Sse | Kind::LastEventId | Kind::Stream => self.open_stream(ledger),
            Kind::Poll | Kind::Session => {
                // The first answer is the cursor of a channel that it has never seen.
                self.ask_poll(0.0, ledger);
                return self.take_answer(ledger);
            }
        };
        if whole.is_none() {
            self.reconnect(ledger);
        }
    }

    /// Reads at most so many of the messages that must come.
    pub fn read(&mut self, most: usize, dice: &mut Dice, ledger: &Ledger) {
        let goal = self.notes.read + most;
        // Others publish meanwhile: what comes after this is read another time.
        let newest = ledger.book().seq;
        while self.notes.read < goal && self.lacks(newest, &ledger.book()) {
            if self.kind.form() == Form::Answers {
                self.poll(dice, ledger);
                continue;
            }
            match self.wire.next() {
                Item::Frame(frame) => self.take(&frame, &ledger.book()),
                Item::Id(id) => self.last_event = Some(id),
                Item::End(code) => {
                    self.ended(code);
                    self.reconnect(ledger);
                }
                Item::Answer(..) => panic!("an answer on a stream"),
            }
        }
    }

    /// Sends a poll whose answer is read later.
    pub fn leave_waiting(&mut self, ledger: &Ledger) {
        if self.kind.form() == Form::Answers && !self.asked && !self.subscribed.is_empty() {
            self.ask_poll(0.3, ledger);
        }
    }

    pub fn has_joined(&self, channel: &str) -> bool {
        self.places.contains_key(channel)
    }

    /// Whether something up to this number must still come.
    pub fn lacks(&self, newest: u64, book: &Book) -> bool {
        self.subscribed.iter().any(|channel| {
            let Some(place) = self.places.get(channel) else {
                return false;
            };
            let rest = book.of(channel)[place.next..].iter();
            let mut rest = rest.take_while(|entry| entry.seq <= newest);
            rest.any(|entry| !self.is_passing(place, entry))
        })
    }

    /// Whether a message that is not stored need not come.
    fn is_passing(&self, place: &Place, entry: &Entry) -> bool {
        // A poll is a connection only while it waits.
        !entry.stored && (self.kind.form() == Form::Answers || entry.seq <= place.live)
    }

    fn open_ws(&mut self, ledger: &Ledger) -> Option<()> {
        self.await_frame("welcome", None, ledger)?;
        for channel in self.subscribed.clone() {
            self.ask_for(channel, ledger)?;
        }
        Some(())
    }

    fn ask_for(&mut self, channel: &'static str, ledger: &Ledger) -> Option<()> {
        let place = self.places.get(channel);
        let book = ledger.book();
        self.before = book.seq;
        let since = place.map(|place| book.position(place.cursor));
        drop(book);
        let since = since.map_or(String::new(), |since| format!(r#","since":"{since}""#));
        let frame = format!(r#"{{"type":"subscribe","channel":"{channel}"{since}}}"#);
        self.wire.say(&frame);
        self.await_frame("subscribed", Some(channel), ledger)
    }

    fn open_stream(&mut self, ledger: &Ledger) -> Option<()> {
        let (mut query, mut more) = (self.query(&ledger.book()), String::new());
        if let (Kind::LastEventId, Some(id)) = (self.kind, &self.last_event) {
            more = format!("Last-Event-ID: {id}\r\n");
            let book = ledger.book();
            let seq = book.number(id);
            self.since = seq.unwrap_or_else(|| self.of_own_id(id, &book));
        }
        query.push_str("&meta=1");
        let path = if self.kind == Kind::Stream {
            "stream"
        } else {
            "sse"
        };
        self.wire.request(&format!("/{path}?{query}"), &more);
        for channel in self.subscribed.clone() {
            self.await_frame("subscribed", Some(channel), ledger)?;
        }
        Some(())
    }

    /// The channels, and one cursor for all of them.
    fn query(&mut self, book: &Book) -> String {
        self.before = book.seq;
        let mut query: Vec<String> = self
            .subscribed
            .iter()
            .map(|c| format!("channel={c}"))
            .collect();
        let known = self.subscribed.iter().filter_map(|c| self.places.get(c));
        let oldest = known.map(|place| place.cursor).min();
        self.since = oldest.unwrap_or(0);
        // A channel that is new joins where the others stand; of one that was left there is more to come.
        query.extend(oldest.map(|seq| format!("since={}", book.position(seq))));
        query.join("&")
    }

    fn of_own_id(&self, id: &str, book: &Book) -> u64 {
        // With copies on several channels it stands for the first.
        let entries = self.subscribed.iter().flat_map(|c| book.of(c));
        let copies = entries.filter(|entry| entry.id == id);
        let first = copies.map(|entry| entry.seq).min();
        first.expect("an id that was given")
    }

    /// Reads up to a frame of this type; `None` when the connection ends before.
    fn await_frame(&mut self, kind: &str, channel: Option<&str>, ledger: &Ledger) -> Option<()> {
        loop {
            match self.wire.next() {
                Item::Frame(frame) => {
                    self.take(&frame, &ledger.book());
                    if frame["type"] == kind && channel.is_none_or(|name| frame["channel"] == name)
                    {
                        return Some(());
                    }
                }
                Item::Id(id) => self.last_event = Some(id),
                Item::End(code) => {
                    self.ended(code);
                    return None;
                }
                Item::Answer(..) => panic!("an answer on a stream"),
            }
        }
    }

    fn ended(&mut self, code: Option<u16>) {
        // Taken over, too slow; or a body that ended. Or the server was stopped.
        let stopped = code == Some(1001) && self.stops > 0;
        assert!(
            stopped || matches!(code, None | Some(1012 | 4008)),
            "{code:?}"
        );
        *self.notes.ends.entry(code.unwrap_or(0)).or_default() += 1;
    }

    fn take(&mut self, frame: &Value, book: &Book) {
        match frame["type"].as_str() {
            Some("message") => self.message(frame, book),
            Some("subscribed") => self.joined(frame, book),
            Some("error") => panic!("{frame}"),
            _ => {}
        }
    }

    fn joined(&mut self, frame: &Value, book: &Book) {
        let channel = named(frame);
        let at = book.number(frame["id"].as_str().unwrap()).unwrap();
        assert!(at <= book.seq, "from the future: {frame}");
        self.notes.overlaps += usize::from(at > self.before && !frame["recovered"].is_null());
        let list = book.of(channel);
        let above = |seq: u64| list.partition_point(|entry| entry.seq <= seq);
        let known = self.places.contains_key(channel);
        let since = match self.kind {
            Kind::Ws => self.places.get(channel).map_or(0, |place| place.cursor),
            _ => self.since,
        };
        let own = self.own_since(book);
        let place = self.places.entry(channel).or_default();
        place.live = at;
        if !known {
            // With the others' cursor, or from now on.
            let from = if frame["recovered"].is_null() {
                at
            } else {
                since
            };
            (place.next, place.cursor) = (above(from), from);
        }
        if frame["recovered"] != false {
            return;
        }
        let forgotten = own.is_some_and(|(of, seq)| book.may_not_know(of, seq));
        assert!(
            book.may_lack(channel, since) || forgotten,
            "after {since}: {frame}"
        );
        if forgotten {
            // It does not know where the client stands: all that is left may come again.
            self.since = 0;
        }
        let left = match frame["oldest"].as_str() {
            Some(oldest) => {
                let found = list
                    .iter()
                    .position(|entry| entry.stored && entry.id == oldest);
                found.unwrap_or_else(|| panic!("no such id: {frame}"))
            }
            None => {
                let left = list[..above(at)]
                    .iter()
                    .find(|entry| entry.stored && !book.may_lack_this(channel, entry));
                assert!(left.is_none(), "there must be more left: {frame}");
                above(at)
            }
        };
        self.notes.gaps += 1;
        let gap = list.get(place.next..left).unwrap_or_default();
        self.notes.lost += gap.iter().filter(|entry| entry.stored).count();
        for entry in gap.iter().filter(|entry| entry.stored) {
            assert!(
                book.may_lack_this(channel, entry),
                "{} is kept: {frame}",
                entry.id
            );
        }
        place.next = place.next.max(left);
    }

    /// The channel and the number of the publisher's id that this connection resumed from.
    fn own_since(&self, book: &Book) -> Option<(&'static str, u64)> {
        let id = self.last_event.as_deref()?;
        (self.kind == Kind::LastEventId && id.starts_with("own-")).then_some(())?;
        let mut found = self.subscribed.iter().filter_map(|channel| {
            let entry = book.of(channel).iter().find(|entry| entry.id == id)?;
            Some((*channel, entry.seq))
        });
        found.next()
    }

    fn message(&mut self, frame: &Value, book: &Book) {
        let channel = named(frame);
        assert!(self.subscribed.contains(&channel), "{frame}");
        let cursor = frame
            .get("cursor")
            .unwrap_or(&frame["id"])
            .as_str()
            .unwrap();
        let seq = book.number(cursor).unwrap();
        let since = self.since;
        if self.kind != Kind::Ws {
            // One cursor for all channels: what comes must be in its order.
            assert!(seq > self.newest, "{} after {}", seq, self.newest);
        }
        self.newest = seq;
        let answers = self.kind.form() == Form::Answers;
        let place = self.places.entry(channel).or_default();
        assert!(
            seq > place.here,
            "{seq} came twice, or after {}",
            place.here
        );
        place.here = seq;
        if seq <= place.cursor {
            assert!(
                self.kind != Kind::Ws && seq > since,
                "{seq} came again, asked after {since}"
            );
            return;
        }
        let rest = &book.of(channel)[place.next..];
        let gone = |entry: &&Entry| {
            let passing = !entry.stored && (answers || entry.seq <= place.live);
            entry.seq < seq && (passing || (self.short && book.may_lack_this(channel, entry)))
        };
        let skipped = rest.iter().take_while(gone).count();
        let entry = &rest[skipped];
        assert_eq!(
            entry.seq, seq,
            "{channel} of {:?} since {since}: {frame}",
            self.kind
        );
        assert_eq!(frame["id"], *entry.id);
        assert_eq!(frame["data"][0], entry.number);
        self.notes.read += 1;
        self.notes.lost += rest[..skipped].iter().filter(|entry| entry.stored).count();
        place.next += skipped + 1;
        place.cursor = seq;
    }

    fn poll(&mut self, dice: &mut Dice, ledger: &Ledger) {
        if !self.asked {
            let wait = if dice.one_in(2) { 0.0 } else { 0.3 };
            self.ask_poll(wait, ledger);
        }
        if dice.one_in(10) {
            // The answer comes, and does not arrive.
            let item = self.wire.next();
            self.asked = false;
            self.wire = Wire::open(&self.address, Form::Answers, self.narrow);
            if matches!(item, Item::Answer(200, _)) {
                return;
            }
        }
        self.take_answer(ledger);
    }

    fn ask_poll(&mut self, wait: f64, ledger: &Ledger) {
        self.asked = true;
        let query = match (&self.session, &self.cursor) {
            (Some(session), Some(cursor)) => format!("{session}&since={cursor}"),
            (None, Some(cursor)) if self.kind == Kind::Poll => {
                let cursor = cursor.clone();
                self.since = ledger.book().number(&cursor).unwrap();
                let channels = self.subscribed.iter().map(|c| format!("channel={c}&"));
                format!("{}since={cursor}", channels.collect::<String>())
            }
            _ => self.query(&ledger.book()),
        };
        let session = if self.kind == Kind::Session {
            "&session=1"
        } else {
            ""
        };
        let path = format!("/poll?{query}{session}&timeout={wait}");
        self.wire.request(&path, "");
    }

    fn take_answer(&mut self, ledger: &Ledger) {
        if !self.asked {
            return;
        }
        self.asked = false;
        let answer = match self.wire.next() {
            Item::Answer(200, answer) => answer,
            Item::Answer(404, answer) => {
                assert_eq!(answer["error"]["code"], "no_session", "{answer}");
                *self.notes.ends.entry(404).or_default() += 1;
                return self.reconnect(ledger);
            }
            Item::End(code) => {
                self.ended(code);
                return self.reconnect(ledger);
            }
            other => panic!("{other:?}"),
        };
        let book = &*ledger.book();
        let cursor = answer["cursor"].as_str().unwrap();
        let at = book.number(cursor).unwrap();
        assert!(at <= book.seq, "from the future: {answer}");
        let fresh = answer["recovered"].is_null() && self.session.is_none();
        for channel in self.subscribed.clone() {
            let list = book.of(channel);
            let from = if fresh { at } else { self.since };
            self.places.entry(channel).or_insert_with(|| Place {
                next: list.partition_point(|entry| entry.seq <= from),
                cursor: from,
                ..Place::default()
            });
        }
        self.short = answer["recovered"] == false;
        if self.short {
            self.notes.gaps += 1;
            let short = self.subscribed.iter().any(|c| book.may_lack(c, self.since));
            assert!(short, "after {}: {answer}", self.since);
        }
        for frame in answer["messages"].as_array().unwrap() {
            self.take(frame, book);
        }
        self.pass_to(at, book);
        self.short = false;
        // A poll asks for itself: the next begins where this one ended.
        self.cursor = Some(cursor.to_owned());
        if let Some(connection) = answer["connection"].as_str() {
            let key = answer["key"].as_str().unwrap();
            self.session = Some(format!("connection={connection}&key={key}"));
        }
    }

    /// After an answer the client has everything up to its cursor, or was told.
    fn pass_to(&mut self, at: u64, book: &Book) {
        for channel in &self.subscribed {
            let place = self.places.get_mut(channel).unwrap();
            for entry in &book.of(channel)[place.next..] {
                if entry.seq > at {
                    break;
                }
                let told = self.short && book.may_lack_this(channel, entry);
                assert!(
                    !entry.stored || told,
                    "{} of {channel} is missing before {at}",
                    entry.id
                );
                self.notes.lost += usize::from(entry.stored);
                place.next += 1;
            }
            place.cursor = place.cursor.max(at);
        }
    }
}

fn named(frame: &Value) -> &'static str {
    let mut channels = CHANNELS.into_iter();
    channels.find(|name| frame["channel"] == *name).unwrap()
}
