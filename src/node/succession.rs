//! One hub after another: what the old one hands over, and what the two tell each other until it has closed its clients.
//!
//! Called by `server` and `control`'s relay and handover.

use std::sync::atomic::Ordering;

use super::Node;
use crate::broker::follow::Feed;
use crate::broker::memory::Snapshot;
use crate::history::Past;
use crate::ids::InvalidId;
use crate::predecessor::Predecessor;
use crate::wire::handover::WireNote;

impl Node {
    /// Goes on with an old hub's history, before anything is published here.
    pub fn inherit(&self, past: Past) -> Result<(), InvalidId> {
        self.broker.inherit(past)
    }

    /// All that there is, and from this moment on what comes. More than `realtime.queue_bytes` should not wait in it.
    pub fn follow(&self) -> Snapshot {
        self.broker.follow(self.config.queue_bytes)
    }

    /// What is published from this moment on.
    pub fn feed(&self) -> Feed {
        self.broker.feed(self.config.queue_bytes)
    }

    /// Delivers what another hub has accepted. Needs [`Node::rouse`] then.
    pub fn inject(&self, note: WireNote) -> Result<(), InvalidId> {
        self.note_presence(&note)?;
        self.broker.inject(note)
    }

    /// From here on this hub gives the numbers; `predecessor` still has clients.
    pub fn succeed(&self, predecessor: Option<Predecessor>) {
        self.broker.lead();
        if let Some(predecessor) = predecessor {
            // Set once: a hub has one predecessor.
            let _ = self.predecessor.set(predecessor);
        }
    }

    /// The hub that this one has taken over from, while it still has clients.
    pub fn predecessor(&self) -> Option<&Predecessor> {
        self.predecessor.get().filter(|it| it.is_there())
    }

    /// Whether another hub gives the numbers: then nothing is published here any more, only passed on.
    pub(crate) fn resign(&self, resigned: bool) {
        {
            // Held, so that nobody gives a number under it who has seen this as it was before.
            let _attendance = self.attendance();
            self.resigned.store(resigned, Ordering::SeqCst);
            match resigned {
                true => self.broker.resign(),
                false => self.broker.lead(),
            }
        }
        if !resigned {
            self.say_unsaid();
        }
    }

    /// Whether another hub has taken over, and this one only closes its clients.
    pub fn has_resigned(&self) -> bool {
        self.resigned.load(Ordering::SeqCst)
    }
}
