//! As whom a client is present on the channels that it subscribes to, and how that ends.
//!
//! Imports `presence`, `hub` and `node`.

use serde_json::value::RawValue;

use super::{Denied, Session, tell};
use crate::hub;
use crate::ids::{Channel, ConnectionId};
use crate::message::ConnectionInfo;
use crate::node::{Attending, Node};
use crate::presence::{Attendee, Full};
use crate::wire::envelope::ServerFrame;

/// A channel that is open to a client, and as whom it will be there.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which channel.
    pub channel: Channel,
    /// Who it is, on a presence channel. A client of whom that is not known sees the others and is none of them.
    pub attendee: Option<Attendee>,
    /// Whether the client has nothing of it, though it has something of others: what they have missed does not concern it.
    pub is_new: bool,
}

impl Entry {
    /// For a client as its token says.
    pub fn new(connection: &ConnectionInfo, channel: &Channel) -> Self {
        let user = connection.user().filter(|_| channel.is_presence());
        let attendee = user.map(|user| {
            let grant = connection.grant();
            Attendee::new(user, grant.as_ref().and_then(|grant| grant.info.as_deref()))
        });
        Self {
            channel: channel.clone(),
            attendee,
            is_new: false,
        }
    }

    /// For the same client, of whom somebody knows better who it is.
    pub fn known_as(self, attendee: Attendee) -> Self {
        let attendee = self.channel.is_presence().then_some(attendee);
        Self { attendee, ..self }
    }

    /// Refuses who would be one member too many, while that can still be said by an HTTP status.
    pub(super) fn check(self, node: &Node) -> Result<Self, Denied> {
        if let Some(attendee) = &self.attendee {
            node.attendance().check(&self.channel, attendee)?;
        }
        Ok(self)
    }
}

impl From<Full> for Denied {
    fn from(full: Full) -> Self {
        match full {
            Full::Channel | Full::Server => Self::TooManyMembers,
            Full::Info => Self::InfoTooLarge,
        }
    }
}

/// Has a connection be present on those of its channels where somebody can be; on no more of them than before when one
/// refuses. What it returns keeps others from coming and going, where one of the channels is of that kind.
///
/// A connection may be subscribed to one already, and not be present there: PHP has subscribed it without knowing who it is.
pub(super) fn present<'a>(
    node: &'a Node,
    who: ConnectionId,
    entries: &[Entry],
) -> Result<Option<Attending<'a>>, Denied> {
    if !entries.iter().any(|entry| entry.channel.is_presence()) {
        return Ok(None);
    }
    let mut attendance = node.attendance();
    let mut joined: Vec<&Channel> = Vec::new();
    for Entry {
        channel, attendee, ..
    } in entries
    {
        let Some(attendee) = attendee else { continue };
        if attendance.is_present(channel, who) {
            continue;
        }
        if let Err(full) = attendance.join(channel, who, attendee) {
            for channel in joined {
                attendance.leave(channel.as_str(), who);
            }
            return Err(full.into());
        }
        joined.push(channel);
    }
    Ok(Some(attendance))
}

impl Session {
    /// Has the client be present on the channels of `entries` to which it is about to be subscribed.
    pub fn present(&self, entries: &[Entry]) -> Result<Option<Attending<'_>>, Denied> {
        present(self.node(), self.info().id, entries)
    }

    /// Tells the client who is on a channel to which it is subscribed. `false` when it is not.
    pub fn tell_members(&self, channel: &Channel, reference: Option<&RawValue>) -> bool {
        let mut hub = self.hub().borrow_mut();
        if !hub.is_subscribed(self.slot(), channel) {
            return false;
        }
        let attendance = self.node().attendance();
        let frame = ServerFrame::Presence {
            channel: channel.as_str(),
            reference,
            members: &attendance.list(channel.as_str()),
        };
        tell(&mut hub, self.slot(), &frame);
        true
    }

    /// The connection has ended: who was present by it is awaited for a while, unless PHP has sent it away.
    pub(super) fn depart(&self) {
        let hub = self.hub().borrow();
        if hub
            .channels_of(self.slot(), Channel::is_presence)
            .is_empty()
        {
            return;
        }
        let code = hub.closing(self.slot()).map(|closing| closing.code);
        let sent_away = code.is_some_and(hub::is_of_php);
        drop(hub);
        self.node().attendance().end(self.info().id, sent_away);
    }
}
