//! What waits for a long-polling session's next poll.
//!
//! The session's own shard puts in; the shard that serves a poll takes out. An answer is kept until the next poll says by
//! its `since` that the client has got it. Imports `ids` and `sync`.

use std::collections::VecDeque;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::ids::Position;
use crate::sync::{Mutex, MutexGuard, Notify, timeout_at};

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
    messages: VecDeque<Bytes>,
    bytes: usize,
    cursor: Position,
    /// The last answer's messages, until it is known to have arrived.
    unconfirmed: VecDeque<Bytes>,
    /// The cursor that the last answer gave, and the one before it.
    answered: Position,
    before: Position,
    /// The number of the newest poll.
    turn: u64,
    /// When it ends if no poll comes; none while one waits.
    deadline: Option<Instant>,
    ended: bool,
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
    /// One with what was missed. The client stands at `since`, and at `cursor` with all of it.
    pub fn new(key: u64, past: Vec<Bytes>, since: Position, cursor: Position) -> Self {
        Self {
            key,
            state: Mutex::new(Waiting {
                bytes: past.iter().map(Bytes::len).sum(),
                messages: past.into(),
                cursor,
                unconfirmed: VecDeque::new(),
                answered: since,
                before: since,
                turn: 0,
                deadline: Some(Instant::now() + BETWEEN_POLLS),
                ended: false,
            }),
            changed: Notify::new(),
        }
    }

    /// Puts messages in, of which `newest` is the highest number. Returns how many bytes wait.
    pub fn put(&self, messages: Vec<Bytes>, newest: u64) -> usize {
        let bytes = {
            let mut state = self.lock();
            state.bytes += messages.iter().map(Bytes::len).sum::<usize>();
            state.messages.extend(messages);
            state.cursor.seq = state.cursor.seq.max(newest);
            state.bytes
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

    /// Waits for messages and takes them; `None` when the session has ended. A newer poll ends the wait of an older one,
    /// whose client is probably no longer there.
    pub async fn next(&self, since: Option<Position>, timeout: Duration) -> Option<Taken> {
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
                    let cursor = state.answered;
                    return Some(Taken {
                        messages: VecDeque::new(),
                        cursor,
                    });
                }
                if !state.messages.is_empty() || (!state.ended && Instant::now() >= deadline) {
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

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // What this lock guards is whole between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Forgets the last answer, or puts it back when the client still stands before it.
    fn confirm(&mut self, since: Option<Position>) {
        let mut again = std::mem::take(&mut self.unconfirmed);
        if since.is_some_and(|since| since == self.before && since != self.answered) {
            self.answered = self.before;
            self.bytes += again.iter().map(Bytes::len).sum::<usize>();
            again.append(&mut self.messages);
            self.messages = again;
        }
    }

    fn take(&mut self) -> Taken {
        let messages = std::mem::take(&mut self.messages);
        self.bytes = 0;
        self.unconfirmed.clone_from(&messages);
        self.before = self.answered;
        self.answered = self.cursor;
        Taken {
            messages,
            cursor: self.cursor,
        }
    }
}

/// Stops a session's clock while a poll waits.
struct Polling<'a> {
    slot: &'a Mailslot,
    turn: u64,
}

impl<'a> Polling<'a> {
    fn begin(slot: &'a Mailslot, since: Option<Position>) -> Self {
        let turn = {
            let mut state = slot.lock();
            state.confirm(since);
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

    fn slot() -> Arc<Mailslot> {
        Arc::new(Mailslot::new(1, Vec::new(), at(0), at(0)))
    }

    #[test]
    fn a_poll_gets_what_comes_while_it_begins_to_wait() {
        loom::model(|| {
            let slot = slot();
            let shard = slot.clone();
            let shard = thread::spawn(move || {
                shard.put(vec!["1".into()], 1);
                shard.put(vec!["2".into()], 2);
                shard.end();
            });
            let mut got = Vec::new();
            let mut since = at(0);
            while let Some(taken) = block_on(slot.next(Some(since), AN_HOUR)) {
                since = taken.cursor;
                got.extend(taken.messages);
            }
            shard.join().unwrap();
            assert_eq!(
                (got, since),
                (vec![Bytes::from("1"), Bytes::from("2")], at(2))
            );
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
                    let taken = block_on(slot.next(Some(at(0)), AN_HOUR)).unwrap();
                    taken.messages.len()
                })
            });
            slot.put(vec!["1".into()], 1);
            let got = polls.map(|poll| poll.join().unwrap());
            // The older one gets nothing, or it has had the message before the newer one came, which gets it again.
            assert!(got.contains(&1), "{got:?}");
        });
    }
}
