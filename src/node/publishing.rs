//! How a message gets to the broker: at once, or as soon as there is room for it.
//!
//! Called from any thread. Imports `broker` and the ids of `wire`.

use std::time::Instant;

use super::storage::stored_in_time;
use super::{Accepted, Failure, Node, ROOM_PAUSE};
use crate::broker::{Broker, Published};
use crate::ids::Position;
use crate::message::Publish;
use crate::wire::mercure;

impl Node {
    /// Publishes. Blocks at most `realtime.timeout` when the shards or the disk are behind. Returns the id of the message, with
    /// several channels that of the last.
    pub fn publish(&self, mut publish: Publish) -> Result<String, Failure> {
        self.check(&publish)?;
        let copies = publish.channels.len();
        let mut deadline = None;
        loop {
            if self.has_room() {
                let begun = publish.channels.len() < copies;
                let accepted = self.accept(publish).map_err(|failure| failure.of(begun))?;
                self.rouse();
                publish = match accepted {
                    Accepted::Done(id) => return Ok(id),
                    Accepted::Kept(id, receipt) => {
                        let stored = receipt.wait(self.config.timeout);
                        return stored_in_time(stored).map(|()| id);
                    }
                    Accepted::NoRoom(rest) => rest,
                };
            }
            let now = Instant::now();
            if now >= *deadline.get_or_insert(now + self.config.timeout) {
                return Err(Failure::Busy);
            }
            std::thread::sleep(ROOM_PAUSE);
        }
    }

    /// Publishes without blocking the thread.
    pub async fn publish_async(&self, mut publish: Publish) -> Result<String, Failure> {
        self.check(&publish)?;
        let copies = publish.channels.len();
        let timeout = self.config.timeout;
        let deadline = tokio::time::Instant::now() + timeout;
        loop {
            if self.has_room() {
                let begun = publish.channels.len() < copies;
                let accepted = self.accept(publish).map_err(|failure| failure.of(begun))?;
                self.rouse();
                publish = match accepted {
                    Accepted::Done(id) => return Ok(id),
                    Accepted::Kept(id, receipt) => {
                        let stored = tokio::time::timeout(timeout, receipt.arrived()).await;
                        return stored_in_time(stored.ok()).map(|()| id);
                    }
                    Accepted::NoRoom(rest) => rest,
                };
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(Failure::Busy);
            }
            tokio::time::sleep(ROOM_PAUSE * 5).await;
        }
    }

    /// Publishes without blocking and without waking a shard. The caller has looked for room ([`Node::has_room`]),
    /// answers its publisher first, and then calls [`Node::rouse`].
    pub fn publish_now(&self, publish: Publish) -> Result<Accepted, Failure> {
        self.check(&publish)?;
        self.accept(publish)
    }

    /// Has the shards take up what [`Node::publish_now`] left to them.
    pub fn rouse(&self) {
        for shard in self.shards.iter() {
            shard.rouse();
        }
    }

    fn accept(&self, publish: Publish) -> Result<Accepted, Failure> {
        match self.broker.publish(publish) {
            Published::Done { id, receipt: None } => Ok(Accepted::Done(id)),
            Published::Done {
                id,
                receipt: Some(receipt),
            } => Ok(Accepted::Kept(id, receipt)),
            Published::NoRoom(rest) => Ok(Accepted::NoRoom(rest)),
            Published::Refused(why) => Err(Failure::Unstored(why.to_string())),
            Published::Stopped => Err(Failure::Stopped),
        }
    }

    /// Whether the shards keep up with what is published.
    pub fn has_room(&self) -> bool {
        self.shards
            .iter()
            .all(|shard| shard.waiting() <= self.config.queue_bytes)
    }

    /// Whether it may be published here.
    fn check(&self, publish: &Publish) -> Result<(), Failure> {
        if self.has_resigned() || self.storage.is_closed() {
            return Err(Failure::Stopped);
        }
        if let Some(id) = &publish.id {
            self.check_own_id(id)?;
        }
        self.check_size(publish.payload.len())
    }

    /// Refuses a publisher's id that is also a number of ours: who resumes after one of the two messages that then have it would
    /// be taken to have got all up to the other. That holds for the numbers of a server before this one, too: whoever stands
    /// there has to be told that nothing is known of it here.
    fn check_own_id(&self, id: &str) -> Result<(), Failure> {
        let number: Option<Position> = mercure::since(id).parse().ok();
        let is_given = |number: Position| {
            number.may_be_given() || number.epoch == self.broker.position().epoch
        };
        if number.is_some_and(is_given) {
            return Err(Failure::Invalid(format!(
                "{id:?} is an id as the server gives them itself: take another one"
            )));
        }
        Ok(())
    }

    /// Whether a message of `size` bytes is within `realtime.max_message_size`.
    pub fn check_size(&self, size: usize) -> Result<(), Failure> {
        let limit = self.config.max_message_size;
        if size > limit {
            Err(Failure::TooLarge { size, limit })
        } else {
            Ok(())
        }
    }
}
