//! Requests that are sent behind one that a process still has: it finds one when it has finished, and goes on without having
//! slept, which is a fifth of what a request costs.
//!
//! Done only while nobody else could take them, and only as many as will soon be done ([`Pace`]). A request ahead says by
//! when the process is to have come to it. A process that comes later runs no handler; and once that time is over while the
//! end of the request before has not come, no process can have come to it in time: its batch goes to another. So an event
//! behind a handler that proves slow waits for [`PATIENCE`], and none is handled twice. Only to a pool on this machine, whose
//! clock is the same. Lives on the handler's thread. Imports the pool and the queue.

use std::cell::Cell;
use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::lanes::Blame;
use super::order::{Order, Room, Until};
use super::pool::Connection;
use crate::procfs;
use crate::wire::fastcgi::Request;

/// The most requests that are sent behind the one that a process has.
const AHEAD: u32 = 8;
/// How long a request waits behind others.
const PATIENCE: Duration = Duration::from_millis(5);
/// In what part of that all of them are to be done, as long as they last as those before did.
const PART: u32 = 4;
/// What one slow request counts at most when those are averaged.
const SLOW: Duration = Duration::from_millis(100);
/// For how long none is sent ahead after a script has gone on after its request.
const WARY: Duration = Duration::from_secs(60);
/// Timers may be early by less than that, beside the clock that counts.
const ROUNDING: Duration = Duration::from_millis(1);

/// How a request ended, as far as the next one on its connection is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parting {
    /// The process has finished it.
    Well,
    /// It takes no other on this connection: it has gone, or said so.
    Gone,
    /// It may have finished, and come to the next one.
    Unknown,
}

/// What one task has beside the batch that a process handles: one process's line of requests.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// The next batches, whose requests were sent behind the one that the process has.
    ahead: VecDeque<Order>,
    /// Where they were sent, while no request is under way.
    sent: Option<Connection>,
    /// By when the process must have come to all of them, and when to see whether it has.
    until: u64,
    look: Option<Instant>,
    /// Requests were sent whose batches went to others.
    outdated: bool,
    rooms: Vec<Room>,
}

/// How long requests have taken, of late.
#[derive(Debug)]
pub(super) struct Pace {
    mean: Cell<Duration>,
    /// When a script last went on after its request.
    left: Cell<Option<Instant>>,
}

impl Default for Pace {
    /// Slow, until some have shown otherwise.
    fn default() -> Self {
        Self {
            mean: Cell::new(SLOW),
            left: Cell::new(None),
        }
    }
}

impl Pace {
    /// A request has taken so long.
    pub(super) fn took(&self, time: Duration) {
        self.mean.set((self.mean.get() * 3 + time.min(SLOW)) / 4);
    }

    /// What was sent ahead came too late.
    pub(super) fn was_too_slow(&self) {
        self.mean.set(SLOW);
    }

    /// A script goes on after its request. It would do so once more for each that was sent behind, with nothing to handle.
    pub(super) fn left(&self) {
        self.left.set(Some(Instant::now()));
    }

    /// How many may be sent behind one.
    pub(super) fn ahead(&self) -> usize {
        if self.left.get().is_some_and(|at| at.elapsed() < WARY) {
            return 0;
        }
        let each = self.mean.get().as_micros().max(1) as u32;
        let time = PATIENCE.as_micros() as u32 / PART;
        (time / each).min(AHEAD) as usize
    }
}

impl Line {
    /// What it writes the next request in.
    pub(super) fn room(&mut self) -> Room {
        self.rooms.pop().unwrap_or_default()
    }

    /// Takes that back.
    pub(super) fn done_with(&mut self, room: Room) {
        if !room.is_large() {
            self.rooms.push(room);
        }
    }

    /// The next batch, and the connection on which its request was sent.
    pub(super) fn next(&mut self) -> Option<(Order, Option<Connection>)> {
        let order = self.ahead.pop_front()?;
        Some((order, self.sent.take()))
    }

    /// Whether one more may be sent behind what was sent. Late in their time none is: it would not have much of it.
    pub(super) fn has_room(&self, pace: &Pace) -> bool {
        let late = || {
            let half = Instant::now() + PATIENCE / 2;
            self.look_at().is_some_and(|at| at < half)
        };
        !self.outdated && self.ahead.len() < pace.ahead() && !late()
    }

    /// Sends a batch behind what was sent on `connection`.
    pub(super) fn send(&mut self, mut order: Order, connection: &mut Connection, common: &Request) {
        if self.ahead.is_empty() {
            self.until = procfs::uptime_ns() + PATIENCE.as_nanos() as u64;
            self.look = Some(Instant::now() + PATIENCE + ROUNDING);
        }
        order.write(common, Until::Ahead(self.until));
        connection.send(order.room.request());
        self.ahead.push_back(order);
    }

    /// When to see whether they wait too long, see [`Line::give_up`].
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.look.filter(|_| !self.ahead.is_empty())
    }

    /// At `now`, the end of the request before had not come: if the process should have come to them by then, their batches go
    /// to others.
    pub(super) fn give_up(&mut self, now: u64) {
        if !self.ahead.is_empty() && self.until < now {
            self.outdated = true;
            self.give_back(Blame::None);
        }
    }

    /// What becomes of a connection when a request has ended on it. `Some`: it may be kept for any other request.
    pub(super) fn part(&mut self, mut connection: Connection, well: Parting) -> Option<Connection> {
        let owed: usize = self
            .ahead
            .iter()
            .map(|order| order.room.request().len())
            .sum();
        let followed = !self.ahead.is_empty();
        // A process that has answered before it took the whole request takes no other.
        let whole = connection.unsent() <= owed && (followed || connection.unread().is_empty());
        let outdated = std::mem::take(&mut self.outdated);
        if well == Parting::Well && whole && !outdated {
            if !followed {
                return Some(connection);
            }
            connection.used = true;
            self.sent = Some(connection);
            return None;
        }
        let blame = match well {
            // The process may have come to them.
            Parting::Unknown => Blame::First,
            Parting::Well | Parting::Gone => Blame::None,
        };
        self.give_back(blame);
        None
    }

    fn give_back(&mut self, blame: Blame) {
        // Each goes before what waits already.
        while let Some(mut order) = self.ahead.pop_back() {
            order.hands.give_back(blame);
            self.done_with(order.room);
        }
    }
}
