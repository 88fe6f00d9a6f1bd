//! A client as it should be written, on any transport, that checks each thing it is told against the ledger.

mod checks;
mod polls;

use std::collections::HashMap;

use serde_json::json;

use super::client::{Client, Notes};
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
    /// `/app`, as pusher-js with `/pusher-resume.js`.
    Pusher,
}

impl Kind {
    pub const ALL: [Self; 7] = [
        Self::Ws,
        Self::Sse,
        Self::LastEventId,
        Self::Pusher,
        Self::Stream,
        Self::Poll,
        Self::Session,
    ];

    fn form(self) -> Form {
        match self {
            Self::Ws => Form::Frames,
            Self::Pusher => Form::Pusher,
            Self::Sse | Self::LastEventId => Form::Events,
            Self::Stream => Form::Lines,
            Self::Poll | Self::Session => Form::Answers,
        }
    }

    /// Whether it asks for each channel by itself, with a cursor of the channel's own.
    fn asks_for_each(self) -> bool {
        matches!(self, Self::Ws | Self::Pusher)
    }
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
    /// Of `/pusher-resume.js`: the newest number that it has noted, of a message or of an answer.
    noted: u64,
    /// The same protocol does not tell what is left: of the ledger's entries, those before this may be lost.
    excused: usize,
}

pub struct Reader {
    kind: Kind,
    notes: Notes,
    subscribed: Vec<&'static str>,
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
        if kind.asks_for_each() {
            reader.await_frame("welcome", None, ledger);
        }
        reader
    }

    /// Whether a message that is not stored need not come.
    fn is_passing(&self, place: &Place, entry: &Entry) -> bool {
        // A poll is a connection only while it waits.
        !entry.stored && (self.kind.form() == Form::Answers || entry.seq <= place.live)
    }

    fn leave(&mut self, channel: &'static str, ledger: &Ledger) -> Option<()> {
        if self.kind == Kind::Ws {
            let frame = format!(r#"{{"type":"unsubscribe","channel":"{channel}"}}"#);
            self.wire.say(&frame);
            return self.await_frame("unsubscribed", Some(channel), ledger);
        }
        let frame = json!({"event": "pusher:unsubscribe", "data": {"channel": channel}});
        self.wire.say(&frame.to_string());
        // Nobody answers to that.
        self.wire.say(r#"{"event":"pusher:ping","data":{}}"#);
        self.await_frame("pong", None, ledger)
    }

    fn open_socket(&mut self, ledger: &Ledger) -> Option<()> {
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
        let since = place.map(|place| match self.kind {
            Kind::Pusher => book.position(place.noted),
            _ => book.position(place.cursor),
        });
        drop(book);
        let since = since.map_or(String::new(), |since| format!(r#","since":"{since}""#));
        let frame = match self.kind {
            Kind::Pusher => {
                format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}"{since}}}}}"#)
            }
            _ => format!(r#"{{"type":"subscribe","channel":"{channel}"{since}}}"#),
        };
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
                other => panic!("{other:?} on a stream"),
            }
        }
    }

    fn ended(&mut self, code: Option<u16>) {
        // Taken over, too slow; or a body that ended. Or the server was stopped.
        let stopped = code == Some(1001) && self.stops > 0;
        let is_known = match self.kind {
            Kind::Pusher => matches!(code, None | Some(4200)),
            _ => matches!(code, None | Some(1012 | 4008)),
        };
        assert!(stopped || is_known, "{code:?}");
        *self.notes.ends.entry(code.unwrap_or(0)).or_default() += 1;
    }
}

impl Client for Reader {
    fn notes(&self) -> &Notes {
        &self.notes
    }

    fn subscribed(&self) -> &[&'static str] {
        &self.subscribed
    }

    fn subscribe(&mut self, channel: &'static str, ledger: &Ledger) {
        self.subscribed.push(channel);
        if self.kind.asks_for_each() {
            if self.ask_for(channel, ledger).is_none() {
                self.reconnect(ledger);
            }
        } else {
            // What an EventSource has seen says nothing of a channel that is new to it.
            self.last_event = None;
            self.reconnect(ledger);
        }
    }

    fn unsubscribe(&mut self, channel: &'static str, ledger: &Ledger) {
        if self.kind.asks_for_each() {
            let stays = self.leave(channel, ledger);
            self.subscribed.retain(|subscribed| *subscribed != channel);
            if self.kind == Kind::Pusher {
                // It comes back to it as somebody new.
                self.places.remove(channel);
            }
            if stays.is_none() {
                self.reconnect(ledger);
            }
        } else {
            self.subscribed.retain(|subscribed| *subscribed != channel);
            self.last_event = None;
            self.reconnect(ledger);
        }
    }

    fn return_to_all(&mut self, ledger: &Ledger) {
        for channel in CHANNELS {
            if self.places.contains_key(channel) && !self.subscribed.contains(&channel) {
                self.subscribe(channel, ledger);
            }
        }
    }

    fn follow(&mut self, address: &str) {
        address.clone_into(&mut self.address);
        self.stops += 1;
    }

    fn reconnect(&mut self, ledger: &Ledger) {
        self.wire = Wire::open(&self.address, self.kind.form(), self.narrow);
        (self.asked, self.session, self.cursor, self.newest) = (false, None, None, 0);
        for place in self.places.values_mut() {
            place.here = 0;
        }
        if self.subscribed.is_empty() && !self.kind.asks_for_each() {
            return;
        }
        let whole = match self.kind {
            Kind::Ws | Kind::Pusher => self.open_socket(ledger),
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

    fn read(&mut self, most: usize, dice: &mut Dice, ledger: &Ledger) {
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
                other => panic!("{other:?} on a stream"),
            }
        }
    }

    fn leave_waiting(&mut self, ledger: &Ledger) {
        if self.kind.form() == Form::Answers && !self.asked && !self.subscribed.is_empty() {
            self.ask_poll(0.3, ledger);
        }
    }

    fn lacks(&self, newest: u64, book: &Book) -> bool {
        self.subscribed.iter().any(|channel| {
            let Some(place) = self.places.get(channel) else {
                return false;
            };
            let rest = book.of(channel)[place.next.max(place.excused)..].iter();
            let mut rest = rest.take_while(|entry| entry.seq <= newest);
            rest.any(|entry| !self.is_passing(place, entry))
        })
    }
}
