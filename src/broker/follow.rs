//! Whoever must know of every publication beside the hub's own clients: the other hub during a hand-over.
//!
//! The broker puts in while it holds its lock; a task of the control thread takes out. Bounded: who falls too far behind
//! is let go, and sees that by the end of its [`Feed`]. Imports `history`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::history::Note;

/// What a waiting publication weighs beside its content, in bytes.
const COST: usize = 256;

fn weight(note: &Note) -> usize {
    COST + note.publication.payload.len()
}

/// The broker's end.
#[derive(Debug)]
pub struct Follower {
    sender: UnboundedSender<Note>,
    waiting: Arc<AtomicUsize>,
    limit: usize,
}

/// The other end: every publication after the moment at which it was made.
#[derive(Debug)]
pub struct Feed {
    receiver: UnboundedReceiver<Note>,
    waiting: Arc<AtomicUsize>,
    limit: usize,
}

/// Makes a pair. More than `limit` bytes should not wait, and more than twice that never do.
pub fn feed(limit: usize) -> (Follower, Feed) {
    let (sender, receiver) = unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let follower = Follower {
        sender,
        waiting: waiting.clone(),
        limit,
    };
    let feed = Feed {
        receiver,
        waiting,
        limit,
    };
    (follower, feed)
}

impl Follower {
    /// Puts a publication in. `false` when nobody is there any more, or too much waits: then drop it.
    pub fn put(&self, note: Note) -> bool {
        let weight = weight(&note);
        if self.waiting.fetch_add(weight, Ordering::Relaxed) + weight > 2 * self.limit {
            return false;
        }
        self.sender.send(note).is_ok()
    }
}

impl Feed {
    /// Waits for publications and takes those that wait, up to about `most` bytes. `None` when some are missing. May be
    /// cancelled without losing any.
    pub async fn next(&mut self, most: usize) -> Option<Vec<Note>> {
        let first = self.receiver.recv().await?;
        Some(self.gather(first, most))
    }

    /// Takes some of those that wait already; `None` when none do.
    pub fn now(&mut self, most: usize) -> Option<Vec<Note>> {
        let first = self.receiver.try_recv().ok()?;
        Some(self.gather(first, most))
    }

    /// Whether some are missing, for want of room.
    pub fn is_broken(&self) -> bool {
        self.receiver.is_closed()
    }

    /// Whether more waits than should.
    pub fn is_behind(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > self.limit
    }

    fn gather(&mut self, first: Note, most: usize) -> Vec<Note> {
        let mut gathered = weight(&first);
        let mut notes = vec![first];
        while gathered < most {
            let Ok(note) = self.receiver.try_recv() else {
                break;
            };
            gathered += weight(&note);
            notes.push(note);
        }
        self.waiting.fetch_sub(gathered, Ordering::Relaxed);
        notes
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::Bytes;

    use super::*;
    use crate::ids::{Channel, Position};
    use crate::message::Publication;
    use crate::message::{EventName, Payload};

    #[test]
    fn who_falls_behind_is_let_go_and_knows() {
        let note = Note {
            publication: Arc::new(Publication {
                channel: Channel::parse("a").unwrap(),
                position: Position { epoch: 1, seq: 1 },
                id: None,
                event: EventName::Message,
                payload: Payload::Json(Bytes::from_static(&[b'1'; 744])),
                except: None,
                at: Instant::now(),
                terms: None,
            }),
            store: true,
        };
        let (follower, mut feed) = feed(2000);
        for _ in 0..2 {
            assert!(follower.put(note.clone()));
        }
        assert!(!feed.is_behind());
        assert!(follower.put(note.clone()) && follower.put(note.clone()));
        assert!(feed.is_behind());
        assert!(!follower.put(note.clone()));
        drop(follower);
        assert!(feed.is_broken());
        assert_eq!(feed.now(2000).map(|notes| notes.len()), Some(2));
        assert_eq!(feed.now(usize::MAX).map(|notes| notes.len()), Some(2));
        assert!(feed.now(2000).is_none());
    }
}
