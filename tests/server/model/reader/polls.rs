//! Long polling: each answer is a connection of its own, and has all up to its cursor.

use super::super::client::Client;
use super::super::ledger::{Book, Dice, Ledger};
use super::super::wire::{Form, Item, Wire};
use super::{Kind, Place, Reader};

impl Reader {
    pub(super) fn poll(&mut self, dice: &mut Dice, ledger: &Ledger) {
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

    pub(super) fn ask_poll(&mut self, wait: f64, ledger: &Ledger) {
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

    pub(super) fn take_answer(&mut self, ledger: &Ledger) {
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
