//! What a handler request is sent as: the batch behind the parameters of its first connection, with a mark of its own.
//!
//! Lives on the handler's thread. Imports the queue's batch, `params` and `wire`.

use super::{Next, params};
use crate::wire::events::{BatchOf, Mark};
use crate::wire::fastcgi::Request;

/// Marks, drawn many at a time: each draw is a system call. None is used twice.
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
    request: Vec<u8>,
}

/// How much of it is kept from one request to the next, in bytes.
const ROOM_KEPT: usize = 64 << 10;

impl Room {
    /// The whole request for a batch.
    pub(super) fn write(&mut self, common: &Request, next: &Next, mark: &Mark) -> &[u8] {
        self.params.become_like(common);
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
        let client = next.parties.first().map(|connection| &**connection);
        params::add(&mut self.params, mark, client, self.body.len());
        self.params.write(&self.body, &mut self.request);
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
