//! What a process has in its hands: the events of its batches that it has not answered yet.
//!
//! An executor (a FastCGI request, an attached process) has one, tells it what comes back, and drops it at the end: what
//! was not answered goes to the next. Imports the queue and `wire::events`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::interest::Source;
use super::lanes::{Blame, Limits};
use super::{Next, Side, Workers};
use crate::backend::Interest;
use crate::ids::ConnectionId;
use crate::wire::events::{Batch, Outcomes};

/// What one batch for an attached process may hold: less when others have nothing to do meanwhile.
const SHARE: Limits = Limits {
    lanes: 64,
    ..super::BATCH
};

/// Events that are with a process. Dropping it says that the process broke off.
#[derive(Debug)]
pub(super) struct Hands {
    workers: Arc<Workers>,
    source: Source,
    /// In the order in which the process handles them.
    held: VecDeque<(u64, ConnectionId)>,
}

impl Hands {
    pub(super) fn new(workers: Arc<Workers>, source: Source) -> Self {
        Self {
            workers,
            source,
            held: VecDeque::new(),
        }
    }

    /// Adds a batch.
    pub(super) fn hold(&mut self, next: &Next) {
        let ids = next
            .events
            .iter()
            .map(|event| (event.number, next.parties[event.party as usize].id));
        self.held.extend(ids);
    }

    /// Takes what the process says.
    pub(super) fn settle(&mut self, outcomes: Outcomes) {
        self.workers.interests.heard(self.source, outcomes.interest);
        for outcome in outcomes.outcomes {
            // Mostly the first.
            match self.held.iter().position(|(n, _)| *n == outcome.number) {
                Some(index) => {
                    let (_, connection) = self.held.remove(index).expect("it was found");
                    self.workers.settle(connection, outcome);
                }
                None => tracing::warn!("a handler process answered an event that it does not have"),
            }
        }
    }

    /// How many events are not answered.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Gives back what is left, with the blame on some of it.
    pub(super) fn give_back(&mut self, blame: Blame) {
        if self.held.is_empty() {
            return;
        }
        let held = std::mem::take(&mut self.held);
        let mut before: Vec<ConnectionId> = Vec::new();
        let now = Instant::now();
        for (_, id) in held {
            if before.contains(&id) {
                continue;
            }
            let its = match blame {
                // Its handler ran when the process ended, if any did.
                Blame::First if !before.is_empty() => Blame::None,
                other => other,
            };
            self.workers.give_back(id, its, now);
            before.push(id);
        }
    }
}

impl Drop for Hands {
    fn drop(&mut self) {
        self.give_back(Blame::First);
    }
}

/// A PHP process that has attached itself (`php worker.php`): it gets events in place of the handler script, for as
/// long as this lives. Dropped with events unanswered, it says that the process broke off.
#[derive(Debug)]
pub struct Attached {
    number: u64,
    // A lock, so that one task may wait for the next batch while another one reads outcomes. Never held across an await.
    hands: std::sync::Mutex<Hands>,
    workers: Arc<Workers>,
}

impl Attached {
    /// Attaches a process that handles `interest`, as its first [`Outcomes`] tell.
    pub fn new(workers: &Arc<Workers>, interest: Interest) -> Self {
        let number = workers.interests.attach(interest);
        // What waits is now for this process.
        workers.wake();
        Self {
            number,
            hands: std::sync::Mutex::new(Hands::new(workers.clone(), Source::Attached(number))),
            workers: workers.clone(),
        }
    }

    /// Waits for the next batch. May be called while earlier ones are not answered in full: [`Attached::held`] tells how
    /// much that is, and whoever calls this bounds it. Cancelling it loses nothing.
    pub async fn next(&self) -> Batch {
        let next = self.workers.next(Side::Attached, SHARE).await;
        self.lock().hold(&next);
        Batch {
            parties: next.parties().map(Into::into).collect(),
            events: next.events,
        }
    }

    /// Takes what the process says.
    pub fn settle(&self, outcomes: Outcomes) {
        self.lock().settle(outcomes);
    }

    /// How many events the process has not answered.
    pub fn held(&self) -> usize {
        self.lock().len()
    }

    /// The process leaves in order: what it has not answered goes to others, as if it had never had it.
    pub fn leave(self) {
        self.workers.interests.detach(self.number);
        self.lock().give_back(Blame::None);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Hands> {
        self.hands
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.workers.interests.detach(self.number);
        self.lock().give_back(Blame::First);
        // What waits is for others now, or for the handler script.
        self.workers.wake();
    }
}
