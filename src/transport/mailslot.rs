//! What waits for a long-polling session's next poll.
//!
//! The session's own shard puts in; the shard that serves a poll takes out. An answer is kept until a poll says by its `since`
//! that the client has got it. A poll that the client has given up may arrive late, and be answered in vain: what it says of
//! the past is no news, and what it takes is given again. Imports `ids`, `sync` and the messages of `wire`.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::ids::Position;
use crate::sync::{Mutex, MutexGuard, Notify, timeout_at};
use crate::wire::envelope::Place;

/// How long a session waits for its next poll.
pub const BETWEEN_POLLS: Duration = Duration::from_secs(10);

/// One session's messages.
#[derive(Debug)]
pub struct Mailslot {
    /// Proves that a poll is of this session.
    pub key: u64,
    // Locked by the session's shard to put in, and by the shard of a poll to take out; never while waiting.
    state: Mutex<Waiting>,
    /// Something has come, the session has ended, or a newer poll has come.
    changed: Notify,
}

#[derive(Debug)]
struct Waiting {
    /// What no poll has been given yet, and its bytes.
    messages: VecDeque<Bytes>,
    bytes: usize,
    cursor: Position,
    /// What polls have been given, until it is known to have arrived, and its bytes.
    given: VecDeque<Given>,
    given_bytes: usize,
    /// Where the newest poll said that its client stands.
    stands: Position,
    /// The number of the newest poll.
    turn: u64,
    /// When it ends if no poll comes; none while one waits.
    deadline: Option<Instant>,
    ended: bool,
}

/// What an answer has brought that none had before.
#[derive(Debug)]
struct Given {
    messages: VecDeque<Bytes>,
    /// Where a client stands that has got it.
    cursor: Position,
}

impl Given {
    /// Takes out what a client has that stands at `since`. What has no number goes with what comes after it, or before it where
    /// nothing does.
    fn arrived(&mut self, since: u64) -> impl Iterator<Item = Bytes> {
        let all = self.messages.len();
        let count = if self.cursor.seq <= since {
            all
        } else {
            let places = self.messages.iter().map(|it| Place::of(it).position());
            let places: Vec<_> = places.collect();
            let has_more = places.iter().flatten().any(|place| place.seq > since);
            let had = |place: &Option<Position>| place.is_some_and(|place| place.seq <= since);
            match has_more {
                true => places.iter().rposition(had).map_or(0, |last| last + 1),
                false => all,
            }
        };
        self.messages.drain(..count)
    }
}

/// What a poll gets.
#[derive(Debug)]
pub struct Taken {
    /// The messages, encoded.
    pub messages: VecDeque<Bytes>,
    /// Where the client stands with them.
    pub cursor: Position,
}

impl Mailslot {
    /// One with what was missed since `since`, an id. With all of it the client stands at `cursor`.
    pub fn new(key: u64, past: Vec<Bytes>, since: Option<&str>, cursor: Position) -> Self {
        let stands = since.and_then(|since| in_epoch(since, cursor));
        // Whatever else it may have said, it stands before the first of what it gets.
        let first = past
            .iter()
            .find_map(|message| Place::of(message).position());
        let before = first.map_or(cursor, |first| Position {
            seq: first.seq.saturating_sub(1),
            ..cursor
        });
        Self {
            key,
            state: Mutex::new(Waiting {
                bytes: past.iter().map(Bytes::len).sum(),
                messages: past.into(),
                cursor,
                given: VecDeque::new(),
                given_bytes: 0,
                stands: stands.unwrap_or(cursor).min(before),
                turn: 0,
                deadline: Some(Instant::now() + BETWEEN_POLLS),
                ended: false,
            }),
            changed: Notify::new(),
        }
    }

    /// Puts messages in, of which `newest` is the highest number. Returns how many bytes wait: to be given, or to be confirmed.
    pub fn put(&self, messages: Vec<Bytes>, newest: u64) -> usize {
        let bytes = {
            let mut state = self.lock();
            state.bytes += messages.iter().map(Bytes::len).sum::<usize>();
            state.messages.extend(messages);
            state.cursor.seq = state.cursor.seq.max(newest);
            // An answer on its way is not what makes a client slow; many that never arrive are.
            state.bytes.max(state.given_bytes)
        };
        self.changed.notify_waiters();
        bytes
    }

    /// Says that nothing more will come.
    pub fn end(&self) {
        self.lock().ended = true;
        self.changed.notify_waiters();
    }

    /// When the session ends if no poll comes; none while one waits.
    pub fn deadline(&self) -> Option<Instant> {
        self.lock().deadline
    }

    /// What the poll gets with which the session begins.
    pub async fn first(&self, timeout: Duration) -> Option<Taken> {
        let stands = self.lock().stands;
        self.wait(stands, timeout).await
    }

    /// What a poll gets whose client has all up to `since`, an id or a cursor.
    pub async fn next(&self, since: Option<&str>, timeout: Duration) -> Option<Taken> {
        let place = match since {
            Some(since) => self.place_of(since),
            // Who does not say stands where it was brought.
            None => Some(self.lock().cursor),
        };
        // Who says what nobody knows has got nothing that was given since: it would know one of those ids.
        let place = place.unwrap_or_else(|| self.lock().stands);
        self.wait(place, timeout).await
    }

    /// Waits for messages and takes them; `None` when the session has ended. A newer poll ends the wait of an older one,
    /// whose client is probably no longer there.
    async fn wait(&self, since: Position, timeout: Duration) -> Option<Taken> {
        let deadline = Instant::now() + timeout;
        // Whatever becomes of this request, the session waits for another from then on.
        let polling = Polling::begin(self, since);
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on a change is noticed, also one before the wait below.
            changed.as_mut().enable();
            {
                let mut state = self.lock();
                if state.turn != polling.turn {
                    // What the newer one is given has not come here.
                    return Some(Taken {
                        messages: VecDeque::new(),
                        cursor: state.stands,
                    });
                }
                if state.has_some() || (!state.ended && Instant::now() >= deadline) {
                    return Some(state.take());
                }
                if state.ended {
                    return None;
                }
            }
            // Late is seen at the top of the loop.
            let _ = timeout_at(deadline, changed).await;
        }
    }

    /// The number that an id stands for, when it is one of the server's own or that of a message which was given.
    fn place_of(&self, id: &str) -> Option<Position> {
        // Looked through outside of the lock, since it may be much.
        let given: Vec<VecDeque<Bytes>> = {
            let state = self.lock();
            if let Some(own) = in_epoch(id, state.cursor) {
                return Some(own);
            }
            let given = state.given.iter();
            given.map(|given| given.messages.clone()).collect()
        };
        // The last of its copies in the first answer that has one: an answer arrives whole, and the others may not have.
        given.iter().find_map(|messages| {
            let mut places = messages.iter().rev().map(|message| Place::of(message));
            places.find(|place| place.goes_by(id))?.position()
        })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // What this lock guards is whole between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Notes where a poll's client stands: forgets what has arrived. `false` for one from the past, which says nothing.
    fn confirm(&mut self, since: Position) -> bool {
        let since = since.min(self.cursor);
        if since.seq < self.stands.seq {
            return false;
        }
        self.stands = since;
        while let Some(oldest) = self.given.front_mut() {
            let arrived = oldest.arrived(since.seq);
            self.given_bytes -= arrived.map(|message| message.len()).sum::<usize>();
            if !oldest.messages.is_empty() {
                break;
            }
            self.given.pop_front();
        }
        true
    }

    /// Whether there is something to give, again or for the first time.
    fn has_some(&self) -> bool {
        !self.messages.is_empty() || !self.given.is_empty()
    }

    fn take(&mut self) -> Taken {
        if !self.messages.is_empty() {
            self.given.push_back(Given {
                messages: std::mem::take(&mut self.messages),
                cursor: self.cursor,
            });
            self.given_bytes += std::mem::take(&mut self.bytes);
        }
        let given = self.given.iter().flat_map(|given| &given.messages);
        Taken {
            messages: given.cloned().collect(),
            cursor: self.cursor,
        }
    }
}

/// The number of an id that is the server's own, of the epoch of `now`.
fn in_epoch(id: &str, now: Position) -> Option<Position> {
    let position: Position = id.parse().ok()?;
    (position.epoch == now.epoch).then_some(position)
}

/// Stops a session's clock while a poll waits.
struct Polling<'a> {
    slot: &'a Mailslot,
    /// Its number; 0, which is nobody's, for one from the past.
    turn: u64,
}

impl<'a> Polling<'a> {
    fn begin(slot: &'a Mailslot, since: Position) -> Self {
        let turn = {
            let mut state = slot.lock();
            if !state.confirm(since) {
                // The client has given it up: the one that it waits for goes on.
                return Self { slot, turn: 0 };
            }
            state.deadline = None;
            state.turn += 1;
            state.turn
        };
        slot.changed.notify_waiters();
        Self { slot, turn }
    }
}

impl Drop for Polling<'_> {
    fn drop(&mut self) {
        let mut state = self.slot.lock();
        if state.turn == self.turn {
            state.deadline = Some(Instant::now() + BETWEEN_POLLS);
        }
    }
}

#[cfg(all(test, feature = "loom"))]
mod meetings {
    use loom::future::block_on;
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    const AN_HOUR: Duration = Duration::from_secs(3600);

    fn at(seq: u64) -> Position {
        Position { epoch: 1, seq }
    }

    fn numbered(seq: u64) -> Bytes {
        format!(r#"{{"id":"{}"}}"#, at(seq)).into()
    }

    fn slot() -> Arc<Mailslot> {
        Arc::new(Mailslot::new(1, Vec::new(), None, at(0)))
    }

    #[test]
    fn a_poll_gets_what_comes_while_it_begins_to_wait() {
        loom::model(|| {
            let slot = slot();
            let shard = slot.clone();
            let shard = thread::spawn(move || {
                shard.put(vec![numbered(1)], 1);
                shard.put(vec![numbered(2)], 2);
                shard.end();
            });
            let mut got = Vec::new();
            let mut since = at(0);
            while let Some(taken) = block_on(slot.next(Some(&since.text()), AN_HOUR)) {
                since = taken.cursor;
                got.extend(taken.messages);
            }
            shard.join().unwrap();
            assert_eq!((got, since), (vec![numbered(1), numbered(2)], at(2)));
            assert!(slot.deadline().is_some());
        });
    }

    #[test]
    fn a_newer_poll_ends_the_wait_of_an_older_one() {
        loom::model(|| {
            let slot = slot();
            let polls = [0, 1].map(|_| {
                let slot = slot.clone();
                thread::spawn(move || {
                    let taken = block_on(slot.next(Some(&at(0).text()), AN_HOUR)).unwrap();
                    taken.messages.len()
                })
            });
            slot.put(vec![numbered(1)], 1);
            let got = polls.map(|poll| poll.join().unwrap());
            // The older one gets nothing, or it has had the message before the newer one came, which gets it again.
            assert!(got.contains(&1), "{got:?}");
        });
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    fn at(seq: u64) -> Position {
        Position { epoch: 1, seq }
    }

    fn slot() -> Mailslot {
        Mailslot::new(1, Vec::new(), None, at(0))
    }

    fn put(slot: &Mailslot, seq: u64) -> usize {
        slot.put(vec![numbered(seq)], seq)
    }

    fn numbered(seq: u64) -> Bytes {
        format!(r#"{{"id":"{}"}}"#, at(seq)).into()
    }

    /// What a poll at `since` is answered at once: the messages, and the cursor.
    async fn poll(slot: &Mailslot, since: u64) -> (String, u64) {
        let taken = slot
            .next(Some(&at(since).text()), Duration::ZERO)
            .await
            .unwrap();
        let place = |message: &Bytes| Place::of(message).position().unwrap();
        let numbers = taken.messages.iter().map(|it| place(it).seq.to_string());
        (numbers.collect::<Vec<_>>().join(" "), taken.cursor.seq)
    }

    fn is(text: &str, cursor: u64) -> (String, u64) {
        (text.to_owned(), cursor)
    }

    #[tokio::test]
    async fn an_answer_is_given_again_until_it_has_arrived() {
        let slot = slot();
        put(&slot, 1);
        assert_eq!(poll(&slot, 0).await, is("1", 1));
        assert_eq!(poll(&slot, 0).await, is("1", 1));
        put(&slot, 2);
        assert_eq!(poll(&slot, 0).await, is("1 2", 2));
        assert_eq!(poll(&slot, 2).await, is("", 2));
    }

    #[tokio::test]
    async fn a_late_poll_from_before_does_not_confirm_an_answer() {
        let slot = slot();
        put(&slot, 1);
        assert_eq!(poll(&slot, 0).await, is("1", 1));
        put(&slot, 2);
        // Its answer gets lost.
        assert_eq!(poll(&slot, 1).await, is("2", 2));
        // One that the client gave up long ago arrives only now.
        assert_eq!(poll(&slot, 0).await.0, "");
        assert_eq!(poll(&slot, 1).await, is("2", 2));
    }

    #[tokio::test]
    async fn what_a_late_poll_takes_away_is_given_again() {
        let slot = slot();
        put(&slot, 1);
        // The answer that the client gets.
        assert_eq!(poll(&slot, 0).await, is("1", 1));
        put(&slot, 2);
        // One that it gave up before.
        assert_eq!(poll(&slot, 0).await, is("1 2", 2));
        assert_eq!(poll(&slot, 1).await, is("2", 2));
    }

    #[tokio::test]
    async fn a_poll_that_is_replaced_says_nothing_of_what_the_newer_one_gets() {
        let slot = std::sync::Arc::new(slot());
        let older = tokio::spawn({
            let slot = slot.clone();
            async move {
                slot.next(Some(&at(0).text()), Duration::from_secs(60))
                    .await
            }
        });
        while slot.deadline().is_some() {
            tokio::task::yield_now().await;
        }
        put(&slot, 1);
        assert_eq!(poll(&slot, 0).await, is("1", 1));
        let older = older.await.unwrap().unwrap();
        assert_eq!((older.messages.len(), older.cursor), (0, at(0)));
    }

    #[tokio::test]
    async fn what_is_never_confirmed_counts_as_waiting() {
        let slot = slot();
        for seq in 1..=100 {
            assert_eq!(put(&slot, seq), numbered(seq).len().max(bytes(seq - 1)));
            poll(&slot, 0).await;
        }
        let one = slot
            .next(Some(&at(100).text()), Duration::ZERO)
            .await
            .unwrap();
        assert_eq!(
            (one.messages.len(), put(&slot, 101)),
            (0, numbered(101).len())
        );
    }

    /// How long all messages up to `last` are.
    fn bytes(last: u64) -> usize {
        (1..=last).map(|seq| numbered(seq).len()).sum()
    }
}
