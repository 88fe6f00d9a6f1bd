//! What was pushed out since somebody asked: what `store` has to know beside the messages themselves.

use std::sync::Arc;

use super::History;
use crate::ids::Channel;
use crate::message::Publication;

/// What `store` has to know beside the messages themselves.
#[derive(Debug, Default)]
pub struct Changes {
    /// What has become of messages, in this order.
    pub fates: Vec<Fate>,
    /// Channels of which something was pushed out, or that came or went.
    pub(super) touched: Vec<Channel>,
}

/// What has become of a message.
#[derive(Clone, Debug)]
pub enum Fate {
    /// Nothing is left of the message with that number.
    Gone(u64),
    /// Only its publisher's id is left of this message.
    Faded(Arc<Publication>),
}

impl Fate {
    /// The message's number.
    pub fn seq(&self) -> u64 {
        match self {
            Self::Gone(seq) => *seq,
            Self::Faded(publication) => publication.position.seq,
        }
    }
}

impl History {
    /// From here on it notes what it pushes out, or no longer does.
    pub fn watch(&mut self, on: bool) {
        self.changes = on.then(Changes::default);
        for log in self.channels.values_mut() {
            log.touched = false;
        }
    }

    /// Puts into `fates` and `marks` what has changed since the last call: what has become of messages, and the newest number that
    /// was pushed out of each channel (none when nothing is left of it).
    pub fn take_changes(&mut self, fates: &mut Vec<Fate>, marks: &mut Vec<(Channel, Option<u64>)>) {
        let Some(changes) = &mut self.changes else {
            return;
        };
        fates.append(&mut changes.fates);
        for channel in changes.touched.drain(..) {
            let log = self.channels.get_mut(channel.as_str());
            let mark = log.map(|log| {
                log.touched = false;
                log.forgotten
            });
            marks.push((channel, mark));
        }
    }

    /// Whether anything has changed since then.
    pub fn has_changed(&self) -> bool {
        let changes = self.changes.as_ref();
        changes.is_some_and(|it| !it.fates.is_empty() || !it.touched.is_empty())
    }
}
