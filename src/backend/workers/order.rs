//! What a handler request is sent as: the batch behind the parameters of its first connection, with a mark of its own.
//!
//! Lives on the handler's thread. Imports the queue's batch, `params` and `wire`.

use super::hands::Hands;
use super::{Next, params};
use crate::wire::events::{self, AHEAD_PARAM, BATCH_PARAM, BatchOf, Mark, UNTIL_PARAM};
use crate::wire::fastcgi::Request;

/// A batch on its way to a process.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) next: Next,
    /// Its events that were not answered.
    pub(super) hands: Hands,
    pub(super) mark: Mark,
    pub(super) room: Room,
}

/// By when a process is to have taken up a request, in [`crate::procfs::uptime_ns`]'s time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// It is on another machine, perhaps, where this time means nothing.
    Ever,
    /// A request of its own.
    Alone(u64),
    /// A request behind one that the process still has.
    Ahead(u64),
}

/// Marks, drawn many at a time: each draw is a system call. None is another batch's.
#[derive(Debug, Default)]
pub(super) struct Marks {
    left: Vec<Mark>,
}

/// Marks drawn at a time.
const DRAW: usize = 64;

/// What requests are written in, one after the other.
#[derive(Debug, Default)]
pub(super) struct Room {
    params: Request,
    body: Vec<u8>,
    text: String,
    request: Vec<u8>,
}

/// How much of it is kept from one request to the next, in bytes.
const ROOM_KEPT: usize = 64 << 10;

impl Order {
    /// Writes the request anew.
    pub(super) fn write(&mut self, common: &Request, until: Until) {
        self.room.write(common, &self.next, &self.mark, until);
    }
}

impl Room {
    /// Writes the whole request for a batch.
    pub(super) fn write(&mut self, common: &Request, next: &Next, mark: &Mark, until: Until) {
        self.params.become_like(common);
        match until {
            Until::Ever => {}
            Until::Alone(at) => self.params.param(UNTIL_PARAM, &at.to_string()),
            Until::Ahead(at) => self.params.param(AHEAD_PARAM, &at.to_string()),
        }
        for bytes in [&mut self.body, &mut self.request] {
            bytes.clear();
            bytes.shrink_to(ROOM_KEPT);
        }
        let batch = BatchOf {
            parties: next.parties().collect(),
            events: &next.events,
        };
        self.body = postcard::to_extend(&batch, std::mem::take(&mut self.body))
            .expect("postcard writes everything that a batch holds");
        let mut body = &self.body[..];
        self.text.clear();
        if let Some(text) = events::as_param(body, &mut self.text) {
            self.params.param(BATCH_PARAM, text);
            body = &[];
        }
        let client = next.parties.first().map(|connection| &**connection);
        params::add(&mut self.params, mark, client, body.len());
        self.params.write(body, &mut self.request);
    }

    /// Whether it has become too large to be kept without being used.
    pub(super) fn is_large(&self) -> bool {
        self.body.capacity() > ROOM_KEPT || self.request.capacity() > ROOM_KEPT
    }

    /// What was written last.
    pub(super) fn request(&self) -> &[u8] {
        &self.request
    }
}

impl Marks {
    pub(super) fn next(&mut self) -> Result<Mark, getrandom::Error> {
        if let Some(mark) = self.left.pop() {
            return Ok(mark);
        }
        let mut drawn = [Mark::default(); DRAW];
        getrandom::fill(drawn.as_flattened_mut())?;
        self.left.extend_from_slice(&drawn[1..]);
        Ok(drawn[0])
    }
}
