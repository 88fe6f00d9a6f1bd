//! The queue: a lane for each connection with events, so that those of one connection stay in order.
//!
//! Nothing here waits, calls or locks: [`super::Workers`] holds it under its lock. A lane is always in one of three
//! places: ready, with a process ([`Lane::taken`]), or put off after a failure. Imports `backend` and `wire::events`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::super::Event;
use crate::ids::ConnectionId;
use crate::message::{ConnectionInfo, Incoming};
use crate::wire::events::{WireEvent, WireIncoming, WireWhat};

/// How long the lane of an event waits after its first and its second failed request.
const BACK_OFF: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// Failed requests after which an event is given up.
const ATTEMPTS: u8 = 3;

/// All lanes.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: HashMap<ConnectionId, Lane>,
    ready: VecDeque<ConnectionId>,
    /// Put off until then; the number tells those of one moment apart.
    later: BTreeMap<(Instant, u64), ConnectionId>,
    numbers: u64,
    events: usize,
}

/// An event that waits or is with a process.
#[derive(Debug)]
pub struct Pending {
    number: u64,
    /// The event.
    pub event: Event,
    /// The room that it takes.
    pub units: u32,
    attempts: u8,
}

#[derive(Debug)]
struct Lane {
    connection: Arc<ConnectionInfo>,
    waiting: VecDeque<Pending>,
    /// What a process has, in order.
    taken: VecDeque<Pending>,
    /// Whether an answer is just being passed on.
    settling: bool,
    /// The messages in `waiting`.
    messages: usize,
    /// Whether the first event goes alone, because it may be the one that ends processes.
    alone: bool,
    /// The room that the lane itself takes.
    units: u32,
    /// Whoever waits for a message's place.
    room: Option<Arc<Notify>>,
}

/// How much one batch may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Lanes.
    pub lanes: usize,
    /// Events, over all lanes.
    pub events: usize,
    /// Bytes of data; one event always fits.
    pub bytes: usize,
    /// Whether it may hold events at which a process has failed.
    pub tried: bool,
}

/// Events on their way to a process.
#[derive(Debug, Default)]
pub struct Handed {
    /// Whose, each connection once.
    pub parties: Vec<Arc<ConnectionInfo>>,
    /// The events.
    pub events: Vec<WireEvent>,
    /// Whether a request with one of them has failed before.
    pub tried: bool,
    /// What nobody waits for any more, to be dropped without the lock, and the room that it took.
    pub abandoned: Vec<Event>,
    /// The room that `abandoned` and the lanes that ended took.
    pub freed: u32,
}

/// Which of the events that a process left unanswered count as tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// None: the process never began, or left in order.
    None,
    /// The first: it was the one at which the process ended, if any was.
    First,
    /// All: the process ended in order and has handled none.
    All,
}

impl Lanes {
    /// Whether `connection` has events.
    pub fn has(&self, connection: ConnectionId) -> bool {
        self.lanes.contains_key(&connection)
    }

    /// Whether `limit` messages of `connection` wait; then what to wait for, if asked.
    pub fn is_full(&self, connection: ConnectionId, limit: usize) -> bool {
        self.lanes
            .get(&connection)
            .is_some_and(|lane| lane.messages >= limit)
    }

    /// What is notified when a message of `connection` has left a full lane. `None` when it is not full.
    pub fn room(&mut self, connection: ConnectionId, limit: usize) -> Option<Arc<Notify>> {
        let lane = self.lanes.get_mut(&connection)?;
        (lane.messages >= limit).then(|| lane.room.get_or_insert_default().clone())
    }

    /// Puts an event in. `lane_units` is what its lane takes beside it, if it is new. Says whether a lane became ready.
    pub fn push(&mut self, event: Event, units: u32, lane_units: u32) -> bool {
        let connection = event.connection().clone();
        let id = connection.id;
        self.numbers += 1;
        self.events += 1;
        let mut new = false;
        let lane = self.lanes.entry(id).or_insert_with(|| {
            new = true;
            Lane {
                connection,
                waiting: VecDeque::new(),
                taken: VecDeque::new(),
                settling: false,
                messages: 0,
                alone: false,
                units: lane_units,
                room: None,
            }
        });
        lane.messages += usize::from(matches!(event, Event::Message { .. }));
        lane.waiting.push_back(Pending {
            number: self.numbers,
            event,
            units,
            attempts: 0,
        });
        if new {
            self.ready.push_back(id);
        }
        new
    }

    /// Takes a batch out of the lanes that are ready. No events: none is.
    pub fn take(&mut self, limits: Limits) -> Handed {
        let mut handed = Handed::default();
        let mut bytes = 0;
        while handed.parties.len() < limits.lanes && handed.events.len() < limits.events {
            let Some(&id) = self.ready.front() else { break };
            let Some(lane) = self.lanes.get_mut(&id) else {
                self.ready.pop_front();
                continue;
            };
            let failed = lane.waiting.front().is_some_and(|next| next.attempts > 0);
            if failed && !limits.tried {
                break;
            }
            let party = handed.parties.len() as u32;
            while let Some(next) = lane.waiting.front() {
                let abandoned = !next.event.is_awaited();
                if !abandoned {
                    let size = next.event.size();
                    let full = handed.events.len() >= limits.events || bytes + size > limits.bytes;
                    if full && !handed.events.is_empty() {
                        break;
                    }
                    bytes += size;
                    handed.tried |= next.attempts > 0;
                    handed.events.push(WireEvent {
                        number: next.number,
                        party,
                        what: what(&next.event),
                    });
                }
                let next = lane.waiting.pop_front().expect("it was looked at");
                lane.messages -= usize::from(matches!(next.event, Event::Message { .. }));
                if abandoned {
                    self.events -= 1;
                    handed.freed += next.units;
                    handed.abandoned.push(next.event);
                    continue;
                }
                lane.taken.push_back(next);
                if std::mem::take(&mut lane.alone) {
                    break;
                }
            }
            if lane.taken.is_empty() && !lane.waiting.is_empty() {
                // No room for its first event in this batch.
                break;
            }
            self.ready.pop_front();
            if let Some(room) = lane.room.take() {
                room.notify_waiters();
            }
            if lane.taken.is_empty() {
                handed.freed += lane.units;
                self.lanes.remove(&id);
            } else {
                handed.parties.push(lane.connection.clone());
            }
        }
        handed
    }

    /// Takes out an event that a process has answered, and keeps the state that it left, if it did. The lane stays where it
    /// is until [`Lanes::release`]: the answer is to be on its way before anybody gets the connection's next event.
    pub fn settle(
        &mut self,
        id: ConnectionId,
        number: u64,
        state: Option<Option<Box<str>>>,
    ) -> Option<Pending> {
        let lane = self.lanes.get_mut(&id)?;
        let index = lane.taken.iter().position(|p| p.number == number)?;
        let settled = lane.taken.remove(index)?;
        lane.settling = true;
        self.events -= 1;
        if let Some(state) = state {
            lane.connection.set_state(state);
        }
        Some(settled)
    }

    /// Lets go of a lane after [`Lanes::settle`]. Gives the room that it took, if that was its last event, and whether it
    /// became ready.
    pub fn release(&mut self, id: ConnectionId) -> (u32, bool) {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return (0, false);
        };
        lane.settling = false;
        if !lane.taken.is_empty() {
            return (0, false);
        }
        if lane.waiting.is_empty() {
            let units = lane.units;
            self.lanes.remove(&id);
            return (units, false);
        }
        self.ready.push_back(id);
        (0, true)
    }

    /// Puts what a process has left unanswered of `id` back in front. Returns what is given up; says whether the lane
    /// became ready, and how many events will be tried again.
    pub fn give_back(&mut self, id: ConnectionId, blame: Blame, now: Instant) -> Returned {
        let mut returned = Returned::default();
        let Some(lane) = self.lanes.get_mut(&id) else {
            return returned;
        };
        let mut left = std::mem::take(&mut lane.taken);
        for (index, pending) in left.iter_mut().enumerate() {
            let tried = match blame {
                Blame::None => false,
                Blame::First => index == 0,
                Blame::All => true,
            };
            pending.attempts += u8::from(tried);
        }
        while let Some(pending) = left.pop_back() {
            if pending.attempts >= ATTEMPTS {
                self.events -= 1;
                returned.given_up.push(pending);
            } else {
                returned.again += 1;
                lane.messages += usize::from(matches!(pending.event, Event::Message { .. }));
                lane.waiting.push_front(pending);
            }
        }
        returned.given_up.reverse();
        if lane.waiting.is_empty() {
            returned.freed = lane.units;
            self.lanes.remove(&id);
            return returned;
        }
        let first = lane.waiting.front().map_or(0, |first| first.attempts);
        lane.alone = blame == Blame::First && first > 0;
        let put_off = match (blame, first) {
            (Blame::None, _) | (_, 0) => None,
            (_, failed) => BACK_OFF.get(usize::from(failed) - 1),
        };
        match put_off {
            Some(&pause) => {
                self.later.insert((now + pause, self.numbers), id);
                self.numbers += 1;
            }
            None => {
                self.ready.push_front(id);
                returned.ready = true;
            }
        }
        returned
    }

    /// Makes ready what was put off until `now`. Says whether any was, and when to look again.
    pub fn wake(&mut self, now: Instant) -> (bool, Option<Instant>) {
        let mut any = false;
        while let Some(entry) = self.later.first_entry() {
            let (at, _) = *entry.key();
            if at > now {
                return (any, Some(at));
            }
            self.ready.push_back(entry.remove());
            any = true;
        }
        (any, None)
    }

    /// How many lanes are ready.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// How many events wait or are with a process.
    pub fn events(&self) -> usize {
        self.events
    }

    /// Takes out everything that no process has.
    pub fn drain(&mut self) -> Vec<Pending> {
        self.ready.clear();
        self.later.clear();
        let mut drained = Vec::new();
        self.lanes.retain(|_, lane| {
            lane.messages = 0;
            if let Some(room) = lane.room.take() {
                room.notify_waiters();
            }
            self.events -= lane.waiting.len();
            drained.extend(lane.waiting.drain(..));
            let held = lane.settling || !lane.taken.is_empty();
            if !held && let Some(last) = drained.last_mut() {
                last.units += lane.units;
            }
            held
        });
        drained
    }
}

/// See [`Lanes::give_back`].
#[derive(Debug, Default)]
pub struct Returned {
    /// Events that failed too often.
    pub given_up: Vec<Pending>,
    /// How many will be tried again.
    pub again: usize,
    /// The room that the lane took, if it has ended.
    pub freed: u32,
    /// Whether the lane is ready.
    pub ready: bool,
}

impl Event {
    /// Whether somebody still waits for the verdict; `true` for what needs none.
    fn is_awaited(&self) -> bool {
        match self {
            Self::Open { answer, .. } | Self::Subscribe { answer, .. } => answer.is_awaited(),
            Self::Message { .. } | Self::Close { .. } => true,
        }
    }

    /// The size of its data.
    fn size(&self) -> usize {
        match self {
            Self::Message { message, .. } => message.data.len(),
            _ => 0,
        }
    }
}

fn what(event: &Event) -> WireWhat {
    match event {
        Event::Open { .. } => WireWhat::Open,
        Event::Subscribe { channel, .. } => WireWhat::Subscribe {
            channel: channel.to_string(),
        },
        Event::Message { message, .. } => WireWhat::Message {
            channel: message.channel.to_string(),
            event: message.event.as_str().to_owned(),
            id: message.number,
            data: match &message.data {
                Incoming::Json(bytes) => WireIncoming::Json(bytes.clone()),
                Incoming::Text(bytes) => WireIncoming::Text(bytes.clone()),
                Incoming::Binary(bytes) => WireIncoming::Binary(bytes.clone()),
            },
        },
        Event::Close { code, reason, .. } => WireWhat::Close {
            code: *code,
            reason: reason.clone(),
        },
    }
}
