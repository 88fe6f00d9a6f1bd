//! What a reader is told, against the ledger.

use serde_json::Value;

use super::super::ledger::{Book, CHANNELS, Entry};
use super::super::wire::Form;
use super::{Kind, Reader};

impl Reader {
    pub(super) fn take(&mut self, frame: &Value, book: &Book) {
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
        let place = self.places.get(channel);
        let since = match self.kind {
            Kind::Ws => place.map_or(0, |place| place.cursor),
            Kind::Pusher => place.map_or(0, |place| place.noted),
            _ => self.since,
        };
        let own = self.own_since(book);
        let place = self.places.entry(channel).or_default();
        place.live = match self.kind {
            // It is told where it stands before what it missed: what was not stored since then is lost.
            Kind::Pusher => book.seq,
            _ => at,
        };
        place.noted = at;
        if !known {
            // With the others' cursor, or from now on.
            let from = if frame["recovered"].is_null() {
                at
            } else {
                since
            };
            (place.next, place.cursor) = (above(from), from);
        }
        // What it was told before to be lost, it has not asked for again.
        place.excused = place.excused.min(above(since));
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
            _ if self.kind == Kind::Pusher => {
                self.notes.gaps += 1;
                let may_come = |entry: &Entry| entry.stored && !book.may_lack_this(channel, entry);
                let rest = list.iter().skip(place.next);
                place.excused = place.next + rest.take_while(|entry| !may_come(entry)).count();
                return;
            }
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
        if !self.kind.asks_for_each() {
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
        place.noted = seq;
        if seq <= place.cursor {
            assert!(
                !self.kind.asks_for_each() && seq > since,
                "{seq} came again, asked after {since}"
            );
            return;
        }
        let rest = &book.of(channel)[place.next..];
        let excused = place.excused.saturating_sub(place.next);
        let gone = |(index, entry): &(usize, &Entry)| {
            let passing = !entry.stored && (answers || entry.seq <= place.live);
            let told = *index < excused || (self.short && book.may_lack_this(channel, entry));
            entry.seq < seq && (passing || told)
        };
        let skipped = rest.iter().enumerate().take_while(gone).count();
        let entry = &rest[skipped];
        assert_eq!(
            entry.seq, seq,
            "{channel} of {:?} since {since}: {frame}",
            self.kind
        );
        if self.kind == Kind::Pusher {
            assert_eq!(frame["id"], *cursor, "where one resumes");
        } else {
            assert_eq!(frame["id"], *entry.id);
        }
        assert_eq!(frame["data"][0], entry.number);
        self.notes.read += 1;
        self.notes.lost += rest[..skipped].iter().filter(|entry| entry.stored).count();
        place.next += skipped + 1;
        place.excused = 0;
        place.cursor = seq;
    }
}

fn named(frame: &Value) -> &'static str {
    let mut channels = CHANNELS.into_iter();
    channels.find(|name| frame["channel"] == *name).unwrap()
}
