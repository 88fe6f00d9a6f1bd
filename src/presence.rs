//! Who is present on which channel: users, each with the connections that it has there, and for a while those whose last
//! connection has just gone.
//!
//! Told by `node` of every subscription to a presence channel and of its end; answers what others are to be told. Knows no
//! clock and no socket: whoever calls says what time it is. A member without a connection is a lease that runs out, so that
//! none stays for ever, whatever was not told. Imports `ids`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use crate::ids::{Channel, ConnectionId};

/// What a member costs beside its name and info, in bytes: its entries in two maps, and a lease.
const MEMBER_COST: usize = 320;
/// What each connection of a member costs, in bytes.
const PLACE_COST: usize = 160;
/// What a channel costs beside its name, in bytes.
const ROOM_COST: usize = 192;

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Members of one channel.
    pub members: usize,
    /// Bytes of one member's info.
    pub info: usize,
    /// Bytes over all channels.
    pub bytes: usize,
    /// How long a member stays without a connection.
    pub grace: Duration,
}

/// As whom somebody is present.
#[derive(Clone, Debug)]
pub struct Attendee {
    /// Who: the same user is one member, however many connections it has.
    pub user: Arc<str>,
    /// What the others may know of it.
    pub info: Option<Arc<RawValue>>,
}

impl Attendee {
    /// Takes `info` if it is JSON.
    pub fn new(user: &str, info: Option<&str>) -> Self {
        let info = info.and_then(|json| RawValue::from_string(json.to_owned()).ok());
        Self {
            user: user.into(),
            info: info.map(Into::into),
        }
    }

    fn info_size(&self) -> usize {
        self.info.as_ref().map_or(0, |info| info.get().len())
    }

    fn cost(&self) -> usize {
        MEMBER_COST + self.user.len() + self.info_size()
    }
}

/// What the others on the channel are to be told.
#[derive(Clone, Debug)]
pub enum Change {
    /// Somebody is there who was not.
    Joined {
        /// Where.
        channel: Channel,
        /// Who.
        attendee: Attendee,
        /// By this connection, which knows it.
        by: ConnectionId,
    },
    /// Somebody no longer is.
    Left {
        /// Where.
        channel: Channel,
        /// Who.
        user: Arc<str>,
    },
}

/// Why somebody cannot be a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The channel has all the members that it may have.
    Channel,
    /// The server has.
    Server,
    /// Its own info is too large.
    Info,
}

/// A member as others see it.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Who, and what is known of it.
    pub attendee: &'a Attendee,
    /// With how many connections; none while it is only awaited.
    pub connections: usize,
}

/// The members of all channels.
#[derive(Debug)]
pub struct Presence {
    limits: Limits,
    rooms: HashMap<Channel, Room>,
    /// Where each connection is present, and as whom.
    places: HashMap<ConnectionId, Vec<(Channel, Arc<str>)>>,
    /// Who is awaited, soonest given up first.
    leases: BTreeSet<(Instant, Channel, Arc<str>)>,
    bytes: usize,
}

/// By user, so that lists have an order.
type Room = BTreeMap<Arc<str>, Seat>;

#[derive(Debug)]
struct Seat {
    attendee: Attendee,
    connections: usize,
    /// When it is given up, if it has no connection.
    until: Option<Instant>,
}

impl Presence {
    /// Nobody anywhere.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            rooms: HashMap::new(),
            places: HashMap::new(),
            leases: BTreeSet::new(),
            bytes: 0,
        }
    }

    /// Whether somebody could become a member now, or is one.
    pub fn check(&self, channel: &Channel, attendee: &Attendee) -> Result<(), Full> {
        if attendee.info_size() > self.limits.info {
            return Err(Full::Info);
        }
        let room = self.rooms.get(channel);
        let mut cost = PLACE_COST;
        if !room.is_some_and(|room| room.contains_key(&attendee.user)) {
            if room.map_or(0, Room::len) >= self.limits.members {
                return Err(Full::Channel);
            }
            cost += attendee.cost();
        }
        if room.is_none() {
            cost += room_cost(channel);
        }
        if self.bytes + cost > self.limits.bytes {
            return Err(Full::Server);
        }
        Ok(())
    }

    /// A connection is present from now on. It stays one as whom it is; what is known of a member stays what came first, for
    /// as long as it is one.
    pub fn join(
        &mut self,
        channel: &Channel,
        who: ConnectionId,
        attendee: &Attendee,
    ) -> Result<Option<Change>, Full> {
        if self.is_present(channel, who) {
            return Ok(None);
        }
        self.check(channel, attendee)?;
        let (user, new) = self.seat(channel, attendee);
        let seat = self.seat_mut(channel, &user).expect("it was just taken");
        seat.connections += 1;
        if let Some(until) = seat.until.take() {
            self.leases.remove(&(until, channel.clone(), user.clone()));
        }
        self.places
            .entry(who)
            .or_default()
            .push((channel.clone(), user));
        self.bytes += PLACE_COST;
        Ok(new.then(|| Change::Joined {
            channel: channel.clone(),
            attendee: attendee.clone(),
            by: who,
        }))
    }

    /// A connection has left a channel on purpose: without grace.
    pub fn leave(&mut self, channel: &str, who: ConnectionId) -> Option<Change> {
        let places = self.places.get_mut(&who)?;
        let at = places.iter().position(|(its, _)| its.as_str() == channel)?;
        let (channel, user) = places.swap_remove(at);
        if places.is_empty() {
            self.places.remove(&who);
        }
        self.vacate(&channel, &user, None)
    }

    /// A connection has ended. Its user is awaited for the grace time, unless it was sent away: then it is gone at once.
    pub fn end(&mut self, who: ConnectionId, sent_away: bool, now: Instant) -> Vec<Change> {
        let places = self.places.remove(&who).unwrap_or_default();
        let grace = self.limits.grace;
        let until = (!sent_away && !grace.is_zero()).then(|| now + grace);
        let gone = places
            .iter()
            .filter_map(|(channel, user)| self.vacate(channel, user, until));
        gone.collect()
    }

    /// Somebody is present elsewhere, or was just now, and is awaited here until `until`. Whether that is new.
    pub fn expect(
        &mut self,
        channel: &Channel,
        attendee: &Attendee,
        until: Instant,
    ) -> Result<bool, Full> {
        self.check(channel, attendee)?;
        let (user, new) = self.seat(channel, attendee);
        let seat = self.seat_mut(channel, &user).expect("it was just taken");
        if seat.connections == 0 {
            let before = seat.until.replace(until);
            if let Some(before) = before {
                self.leases.remove(&(before, channel.clone(), user.clone()));
            }
            self.leases.insert((until, channel.clone(), user));
        }
        Ok(new)
    }

    /// Somebody is no longer awaited. Nothing if it is here.
    pub fn give_up(&mut self, channel: &Channel, user: &str) -> Option<Change> {
        let seat = self.rooms.get(channel)?.get(user)?;
        if seat.connections > 0 {
            return None;
        }
        let (until, user) = (seat.until, seat.attendee.user.clone());
        if let Some(until) = until {
            self.leases.remove(&(until, channel.clone(), user.clone()));
        }
        self.remove(channel, &user)
    }

    /// Gives up those who were awaited long enough.
    pub fn expire(&mut self, now: Instant) -> Vec<Change> {
        let mut gone = Vec::new();
        while let Some((until, ..)) = self.leases.first()
            && *until <= now
            && let Some((_, channel, user)) = self.leases.pop_first()
        {
            gone.extend(self.remove(&channel, &user));
        }
        gone
    }

    /// The members of a channel, by user.
    pub fn members(&self, channel: &str) -> impl Iterator<Item = Member<'_>> {
        let seats = self.rooms.get(channel).map(Room::values);
        seats.into_iter().flatten().map(|seat| Member {
            attendee: &seat.attendee,
            connections: seat.connections,
        })
    }

    /// Every member of every channel.
    pub fn all(&self) -> impl Iterator<Item = (&Channel, &Attendee)> {
        self.rooms
            .iter()
            .flat_map(|(channel, room)| room.values().map(move |seat| (channel, &seat.attendee)))
    }

    /// Whether a connection is present on a channel.
    pub fn is_present(&self, channel: &Channel, who: ConnectionId) -> bool {
        let places = self.places.get(&who);
        places.is_some_and(|places| places.iter().any(|(its, _)| its == channel))
    }

    /// How many bytes are kept, all overhead included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a seat, or finds it taken; and whether it is new.
    fn seat(&mut self, channel: &Channel, attendee: &Attendee) -> (Arc<str>, bool) {
        let bytes = &mut self.bytes;
        let room = self.rooms.entry(channel.clone()).or_insert_with(|| {
            *bytes += room_cost(channel);
            Room::new()
        });
        if let Some((user, _)) = room.get_key_value(&attendee.user) {
            return (user.clone(), false);
        }
        *bytes += attendee.cost();
        let seat = Seat {
            attendee: attendee.clone(),
            connections: 0,
            until: None,
        };
        room.insert(attendee.user.clone(), seat);
        (attendee.user.clone(), true)
    }

    fn seat_mut(&mut self, channel: &Channel, user: &str) -> Option<&mut Seat> {
        self.rooms.get_mut(channel)?.get_mut(user)
    }

    /// Takes a connection off a seat. When it was the last, somebody is awaited until `until`, or is gone.
    fn vacate(
        &mut self,
        channel: &Channel,
        user: &Arc<str>,
        until: Option<Instant>,
    ) -> Option<Change> {
        self.bytes -= PLACE_COST;
        let seat = self.seat_mut(channel, user)?;
        seat.connections -= 1;
        if seat.connections > 0 {
            return None;
        }
        let Some(until) = until else {
            return self.remove(channel, user);
        };
        seat.until = Some(until);
        self.leases.insert((until, channel.clone(), user.clone()));
        None
    }

    fn remove(&mut self, channel: &Channel, user: &Arc<str>) -> Option<Change> {
        let room = self.rooms.get_mut(channel)?;
        let seat = room.remove(user)?;
        self.bytes -= seat.attendee.cost();
        if room.is_empty() {
            self.rooms.remove(channel);
            self.bytes -= room_cost(channel);
        }
        Some(Change::Left {
            channel: channel.clone(),
            user: user.clone(),
        })
    }
}

fn room_cost(channel: &Channel) -> usize {
    ROOM_COST + channel.as_str().len()
}

#[cfg(test)]
mod tests;
