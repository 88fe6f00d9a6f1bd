//! What is put into a connection's outbox, and how it leaves: bytes, what was missed, and what a task waits for.
//!
//! Publications have a path of their own, `delivery`. Imports `outbox`, `wire` and `message`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::{CLOSE_SLOW, Hub};
use crate::message::Publication;
use crate::outbox::Flushed;
use crate::wire::Format;

impl Hub {
    /// Puts `bytes` into the outboxes of those of a channel's subscribers whose format is meant.
    pub fn push_to_each(
        &mut self,
        channel: &str,
        bytes: &Bytes,
        is_meant: impl Fn(Format) -> bool,
    ) {
        let subscribers = self.channels.get(channel).map_or(&[][..], Vec::as_slice);
        let slots: Vec<usize> = subscribers
            .iter()
            .map(|its| its.slot)
            .filter(|&slot| is_meant(self.lanes[slot].format))
            .collect();
        for slot in slots {
            self.push(slot, bytes.clone());
        }
    }

    /// Puts `bytes` into a connection's outbox. They leave with the next flush.
    pub fn push(&mut self, slot: usize, bytes: Bytes) {
        let connection = &mut self.connections[slot];
        if connection.closing.is_some() || bytes.is_empty() {
            return;
        }
        if !connection.outbox.has_room(bytes.len(), self.max_backlog) {
            self.make_room(slot);
        }
        let connection = &mut self.connections[slot];
        if connection.outbox.has_room(bytes.len(), self.max_backlog) {
            connection.outbox.push(bytes);
            self.mark(slot);
        } else {
            self.too_slow(slot);
        }
    }

    /// Sends what waits, before the end of the batch: a client that reads is not too slow only because much came for it
    /// at once.
    pub(super) fn make_room(&mut self, slot: usize) {
        if let Flushed::Broken(_) = self.flush(slot) {
            // Its task reads the same error from the socket, and ends.
            self.connections[slot].wake();
        }
    }

    /// Gives `slot` what it missed; live messages queue behind it.
    pub fn replay(&mut self, slot: usize, missed: impl IntoIterator<Item = Arc<Publication>>) {
        let connection = &self.connections[slot];
        // Who may have it is asked anew: a token may be another than when it was published.
        let may_have =
            |publication: &Arc<Publication>| self.patterns.may_have(slot, connection, publication);
        let missed: Vec<_> = missed.into_iter().filter(may_have).collect();
        let connection = &mut self.connections[slot];
        let mut missed = missed.into_iter().peekable();
        if missed.peek().is_none() {
            return;
        }
        connection
            .replay
            .get_or_insert_with(Box::default)
            .push_past(missed);
        self.mark(slot);
    }

    /// Whether some of what `slot` missed waits still: what is put in now overtakes that.
    pub fn is_replaying(&self, slot: usize) -> bool {
        self.connections[slot].replay.is_some()
    }

    /// Lets a connection's task go on with what hangs on its socket. Ready with an error when it is broken.
    ///
    /// Also notes the task to wake when the hub wants something of it; call it at each poll.
    pub fn poll_task(&mut self, slot: usize, cx: &mut Context<'_>) -> Poll<std::io::Error> {
        self.connections[slot].register(cx);
        while self.connections[slot].blocked {
            let Some(socket) = self.connections[slot].socket.clone() else {
                break;
            };
            match socket.poll_writable(cx) {
                Poll::Pending => break,
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Ready(Ok(())) => {
                    if let Flushed::Broken(error) = self.flush(slot) {
                        return Poll::Ready(error);
                    }
                }
            }
        }
        Poll::Pending
    }

    /// Whether all that was put into the outbox has left.
    pub fn is_flushed(&self, slot: usize) -> bool {
        let connection = &self.connections[slot];
        connection.outbox.is_empty() && connection.replay.is_none() && !connection.blocked
    }

    /// For long polling: takes what waits, with the newest number in it. `None` while nothing does.
    pub fn poll_collected(&mut self, slot: usize, cx: &mut Context<'_>) -> Poll<(Vec<Bytes>, u64)> {
        let connection = &mut self.connections[slot];
        connection.register(cx);
        if connection.outbox.is_empty() && connection.closing.is_none() {
            return Poll::Pending;
        }
        Poll::Ready(self.collected(slot))
    }

    /// For long polling: takes what waits, which may be nothing.
    pub fn collected(&mut self, slot: usize) -> (Vec<Bytes>, u64) {
        let connection = &mut self.connections[slot];
        (connection.outbox.take().into(), connection.newest)
    }

    pub(super) fn too_slow(&mut self, slot: usize) {
        let connection = &mut self.connections[slot];
        self.shard
            .stats
            .dropped_slow
            .fetch_add(1, Ordering::Relaxed);
        tracing::debug!(connection = %connection.info.id, "too slow: realtime.max_backlog is full");
        connection.outbox.discard();
        connection.replay = None;
        self.close(slot, CLOSE_SLOW, "too slow, reconnect and resume");
    }

    pub(super) fn mark(&mut self, slot: usize) {
        self.lanes[slot].open = false;
        let connection = &mut self.connections[slot];
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push_back(slot);
        }
    }
}
