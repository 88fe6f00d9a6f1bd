//! Who is on the presence channels of this hub, told to the others there as it changes.
//!
//! What changes is published like a message, and so has its place among them: a client that is told of the members at one
//! position is told of every change after it. While another hub has taken over, that one publishes, and this one tells it
//! what happens here. Imports `presence` and `broker`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;
use tokio::sync::Notify;

use super::{Failure, Node};
use crate::broker::Broker;
use crate::config::Config;
use crate::ids::{Channel, ConnectionId, InvalidId};
use crate::message::{EventName, Payload, Publish};
use crate::presence::{Attendee, Change, Full, Limits, Presence};
use crate::wire::envelope;
use crate::wire::handover::{WireAttendee, WireChange, WireNote};

/// Changes that may wait for the hub that has taken over. Its clients are told when they come there, if these are more.
const UNSAID_MAX: usize = 10_000;

/// The node's part.
pub(super) struct Attendance {
    // Held while clients subscribe to presence channels or end; the broker's lock is taken under it, never the other way
    // round. Never on the way of a message.
    state: Mutex<State>,
    /// Something is in [`State::unsaid`].
    unsaid: Notify,
}

struct State {
    presence: Presence,
    /// What happened here since another hub has taken over, and that one has not heard.
    unsaid: Vec<Change>,
}

/// A member of a presence channel.
#[derive(Clone, Debug)]
pub struct MemberSummary {
    /// Who.
    pub user: Arc<str>,
    /// What is known of it, as JSON.
    pub info: Option<Arc<RawValue>>,
    /// With how many connections; none while it may come back.
    pub connections: usize,
}

impl Attendance {
    pub(super) fn new(config: &Config) -> Self {
        let presence = Presence::new(Limits {
            members: config.presence_members,
            info: config.presence_info,
            bytes: config.presence_bytes,
            grace: config.presence_grace,
        });
        let unsaid = Vec::new();
        Self {
            state: Mutex::new(State { presence, unsaid }),
            unsaid: Notify::new(),
        }
    }
}

/// The members of all channels, for as long as it is held: nobody comes or goes meanwhile.
pub struct Attending<'a> {
    node: &'a Node,
    /// None only when it is dropped.
    state: Option<MutexGuard<'a, State>>,
    published: bool,
}

impl std::fmt::Debug for Attending<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attending").finish_non_exhaustive()
    }
}

impl Attending<'_> {
    /// See [`Presence::check`].
    pub fn check(&self, channel: &Channel, attendee: &Attendee) -> Result<(), Full> {
        self.state().presence.check(channel, attendee)
    }

    /// See [`Presence::is_present`].
    pub fn is_present(&self, channel: &Channel, who: ConnectionId) -> bool {
        self.state().presence.is_present(channel, who)
    }

    /// A connection is present from now on.
    pub fn join(
        &mut self,
        channel: &Channel,
        who: ConnectionId,
        attendee: &Attendee,
    ) -> Result<(), Full> {
        let change = self.state_mut().presence.join(channel, who, attendee)?;
        self.say(change);
        Ok(())
    }

    /// A connection has left a channel.
    pub fn leave(&mut self, channel: &str, who: ConnectionId) {
        let change = self.state_mut().presence.leave(channel, who);
        self.say(change);
    }

    /// A connection has ended, or was sent away.
    pub fn end(&mut self, who: ConnectionId, sent_away: bool) {
        let now = Instant::now();
        let changes = self.state_mut().presence.end(who, sent_away, now);
        self.say(changes);
    }

    /// Gives up who did not come back in time.
    pub fn expire(&mut self) {
        let changes = self.state_mut().presence.expire(Instant::now());
        self.say(changes);
    }

    /// The members of a channel, as clients see them.
    pub fn list(&self, channel: &str) -> Vec<envelope::Attendee<'_>> {
        let members = self.state().presence.members(channel);
        members
            .map(|member| envelope::Attendee {
                user: &member.attendee.user,
                info: member.attendee.info.as_deref(),
            })
            .collect()
    }

    fn state(&self) -> &State {
        self.state.as_ref().expect("it is held until it is dropped")
    }

    fn state_mut(&mut self) -> &mut State {
        self.state.as_mut().expect("it is held until it is dropped")
    }

    /// Tells the others on the channel.
    fn say(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            if !self.node.has_resigned() {
                self.node.broker.publish(publication(&change));
                self.published = true;
                continue;
            }
            let unsaid = &mut self.state_mut().unsaid;
            if unsaid.len() < UNSAID_MAX {
                unsaid.push(change);
            }
            self.node.present.unsaid.notify_one();
        }
    }
}

impl Drop for Attending<'_> {
    fn drop(&mut self) {
        // First the lock: nobody is to wait for the system call.
        self.state = None;
        if self.published {
            self.node.rouse();
        }
    }
}

impl Node {
    /// Holds on to the members of all channels.
    pub fn attendance(&self) -> Attending<'_> {
        let state = self.present.state.lock();
        Attending {
            node: self,
            // What this lock guards is whole between any two statements.
            state: Some(state.unwrap_or_else(PoisonError::into_inner)),
            published: false,
        }
    }

    /// The members of a channel, by user.
    pub fn members(&self, channel: &Channel) -> Result<Vec<MemberSummary>, Failure> {
        let attendance = self.attendance();
        let members = attendance.state().presence.members(channel.as_str());
        let summaries = members.map(|member| MemberSummary {
            user: member.attendee.user.clone(),
            info: member.attendee.info.clone(),
            connections: member.connections,
        });
        Ok(summaries.collect())
    }

    /// Everybody who is present, for the hub that is about to take over, and for how long it should await them.
    pub fn everybody(&self) -> (Duration, Vec<WireAttendee>) {
        let attendance = self.attendance();
        let all = attendance.state().presence.all();
        let everybody = all.map(|(channel, attendee)| wire_attendee(channel, attendee));
        (self.patience(), everybody.collect())
    }

    /// Awaits those who were present at the hub that this one takes over from. Nobody is told: nothing has changed.
    pub fn await_all(
        &self,
        patience: Duration,
        everybody: Vec<WireAttendee>,
    ) -> Result<(), InvalidId> {
        let now = Instant::now();
        let until = now.checked_add(patience).unwrap_or(now);
        let mut attendance = self.attendance();
        for wire in everybody {
            let (channel, attendee) = read_attendee(&wire)?;
            // With smaller limits than the other hub had, some do not fit.
            let _ = attendance
                .state_mut()
                .presence
                .expect(&channel, &attendee, until);
        }
        Ok(())
    }

    /// What happened at the hub that this one has taken over from.
    pub fn hear(&self, changes: Vec<WireChange>) -> Result<(), InvalidId> {
        let until = Instant::now() + self.patience();
        let mut attendance = self.attendance();
        for change in changes {
            match change {
                WireChange::Joined(wire, by) => {
                    let (channel, attendee) = read_attendee(&wire)?;
                    let presence = &mut attendance.state_mut().presence;
                    if presence.expect(&channel, &attendee, until) == Ok(true) {
                        let by = ConnectionId::from_bits(by);
                        attendance.say([Change::Joined {
                            channel,
                            attendee,
                            by,
                        }]);
                    }
                }
                WireChange::Left { channel, user } => {
                    let channel = Channel::parse(&channel)?;
                    let change = attendance.state_mut().presence.give_up(&channel, &user);
                    attendance.say(change);
                }
            }
        }
        Ok(())
    }

    /// What the hub that has taken over is to hear of. Waits for it; may be cancelled without losing any.
    pub async fn unsaid(&self) -> Vec<WireChange> {
        loop {
            let unsaid = std::mem::take(&mut self.attendance().state_mut().unsaid);
            if !unsaid.is_empty() {
                return unsaid.iter().map(wire_change).collect();
            }
            self.present.unsaid.notified().await;
        }
    }

    /// Says what was left to another hub, which has not taken over after all.
    pub(super) fn say_unsaid(&self) {
        let mut attendance = self.attendance();
        let unsaid = std::mem::take(&mut attendance.state_mut().unsaid);
        attendance.say(unsaid);
    }

    /// Notes what another hub publishes, if it is about who is present.
    pub(super) fn note_presence(&self, note: &WireNote) -> Result<(), InvalidId> {
        let event = EventName::new(&note.event);
        let crate::wire::control::WirePayload::Json(json) = &note.payload else {
            return Ok(());
        };
        if !event.is_presence() {
            return Ok(());
        }
        let Ok(said) = serde_json::from_slice::<Said>(json) else {
            return Ok(());
        };
        let channel = Channel::parse(&note.channel)?;
        let until = Instant::now() + self.patience();
        let mut attendance = self.attendance();
        let presence = &mut attendance.state_mut().presence;
        if event == EventName::Join {
            let attendee = Attendee {
                user: said.user.into(),
                info: said.info.map(Into::into),
            };
            // Full here is for the other hub to say.
            let _ = presence.expect(&channel, &attendee, until);
        } else {
            presence.give_up(&channel, &said.user);
        }
        Ok(())
    }

    /// For how long somebody is awaited who is present at another hub: until that has closed its clients, and then as
    /// anybody.
    fn patience(&self) -> Duration {
        self.config.drain + self.config.presence_grace
    }
}

/// The payload of a join or a leave.
#[derive(serde::Deserialize)]
struct Said {
    user: String,
    info: Option<Box<RawValue>>,
}

fn publication(change: &Change) -> Publish {
    let (channel, user, info, event, except) = match change {
        Change::Joined {
            channel,
            attendee,
            by,
        } => {
            let info = attendee.info.as_deref();
            (channel, &attendee.user, info, EventName::Join, Some(*by))
        }
        Change::Left { channel, user } => (channel, user, None, EventName::Leave, None),
    };
    let attendee = envelope::Attendee { user, info };
    let json = serde_json::to_vec(&attendee).expect("strings and ready-made JSON always serialize");
    Publish {
        channels: vec![channel.clone()],
        payload: Payload::Json(json.into()),
        event,
        except,
        id: None,
        store: false,
        terms: None,
    }
}

fn wire_attendee(channel: &Channel, attendee: &Attendee) -> WireAttendee {
    WireAttendee {
        channel: channel.to_string(),
        user: attendee.user.to_string(),
        info: attendee.info.as_ref().map(|info| info.get().to_owned()),
    }
}

fn wire_change(change: &Change) -> WireChange {
    match change {
        Change::Joined {
            channel,
            attendee,
            by,
        } => WireChange::Joined(wire_attendee(channel, attendee), by.to_bits()),
        Change::Left { channel, user } => WireChange::Left {
            channel: channel.to_string(),
            user: user.to_string(),
        },
    }
}

fn read_attendee(wire: &WireAttendee) -> Result<(Channel, Attendee), InvalidId> {
    let channel = Channel::parse(&wire.channel)?;
    Ok((channel, Attendee::new(&wire.user, wire.info.as_deref())))
}
