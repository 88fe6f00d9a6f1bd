//! What a process asks of the hub: a method for each question.
//!
//! Imports `wire::control` and `node`'s results.

use std::sync::Arc;

use super::Client;
use crate::broker::Walk;
use crate::ids::{Channel, ConnectionId, Pattern};
use crate::message::{ConnectionInfo, EventName, Payload, Publish};
use crate::node::{ChannelSummary, Failure, HistoryEntry, HistoryPage, MemberSummary, Stats};
use crate::presence::Attendee;
use crate::wire::control::{Request, Response};

impl Client {
    /// See [`crate::node::Node::publish`].
    pub fn publish(&mut self, publish: &Publish) -> Result<String, Failure> {
        self.check_size(&publish.payload)?;
        match self.ask(&Request::Publish(publish.into()))? {
            Response::Published(id) => Ok(id),
            _ => Err(self.unexpected()),
        }
    }

    /// See [`crate::node::Node::send`].
    pub fn send(
        &mut self,
        to: ConnectionId,
        payload: Payload,
        event: EventName,
    ) -> Result<bool, Failure> {
        self.check_size(&payload)?;
        let event = event.as_str().to_owned();
        self.done(&Request::Send {
            to: to.to_bits(),
            payload: payload.into(),
            event,
        })
    }

    /// See [`crate::node::Node::subscribe`].
    pub fn subscribe(&mut self, who: ConnectionId, channel: Channel) -> Result<bool, Failure> {
        self.done(&Request::Subscribe {
            who: who.to_bits(),
            channel: channel.to_string(),
        })
    }

    /// See [`crate::node::Node::unsubscribe`].
    pub fn unsubscribe(&mut self, who: ConnectionId, channel: Channel) -> Result<bool, Failure> {
        self.done(&Request::Unsubscribe {
            who: who.to_bits(),
            channel: channel.to_string(),
        })
    }

    /// See [`crate::node::Node::close`].
    pub fn close(&mut self, who: ConnectionId, code: u16, reason: String) -> Result<bool, Failure> {
        self.done(&Request::Close {
            who: who.to_bits(),
            code,
            reason,
        })
    }

    /// See [`crate::node::Node::channels`].
    pub fn channels(&mut self, pattern: &Pattern) -> Result<Vec<ChannelSummary>, Failure> {
        match self.ask(&Request::Channels {
            pattern: pattern.as_str().to_owned(),
        })? {
            Response::Channels(list) => Ok(list
                .into_iter()
                .filter_map(|(name, subscribers)| {
                    let channel = Channel::parse(&name).ok()?;
                    Some(ChannelSummary {
                        channel,
                        subscribers,
                    })
                })
                .collect()),
            _ => Err(self.unexpected()),
        }
    }

    /// See [`crate::node::Node::connections`].
    pub fn connections(
        &mut self,
        channel: Option<&Channel>,
    ) -> Result<Vec<Arc<ConnectionInfo>>, Failure> {
        let channel = channel.map(ToString::to_string);
        match self.ask(&Request::Connections { channel })? {
            Response::Connections(list) => Ok(list
                .into_iter()
                .filter_map(|wire| wire.into_info().map(Arc::new))
                .collect()),
            _ => Err(self.unexpected()),
        }
    }

    /// See [`crate::node::Node::history`].
    pub fn history<'a>(
        &mut self,
        channel: &Channel,
        limit: usize,
        walk: impl Into<Walk<'a>>,
    ) -> Result<HistoryPage, Failure> {
        let (since, before) = match walk.into() {
            Walk::Newest => (None, None),
            Walk::After(id) => (Some(id.to_owned()), None),
            Walk::Before(id) => (None, Some(id.to_owned())),
        };
        let request = Request::History {
            channel: channel.to_string(),
            limit,
            since,
            before,
        };
        match self.ask(&request)? {
            Response::History {
                entries,
                recovered,
                oldest,
                more,
            } => Ok(HistoryPage {
                more,
                entries: entries
                    .into_iter()
                    .map(|wire| HistoryEntry {
                        id: wire.id,
                        event: EventName::new(&wire.event),
                        payload: wire.payload.into(),
                        age: wire.age,
                    })
                    .collect(),
                recovered,
                oldest,
            }),
            _ => Err(self.unexpected()),
        }
    }

    /// See [`crate::node::Node::members`].
    pub fn members(&mut self, channel: &Channel) -> Result<Vec<MemberSummary>, Failure> {
        let channel = channel.to_string();
        match self.ask(&Request::Members { channel })? {
            Response::Members(list) => Ok(list
                .into_iter()
                .map(|wire| {
                    let attendee = Attendee::new(&wire.user, wire.info.as_deref());
                    MemberSummary {
                        user: attendee.user,
                        info: attendee.info,
                        connections: wire.connections,
                    }
                })
                .collect()),
            _ => Err(self.unexpected()),
        }
    }

    /// See [`crate::node::Node::stats`].
    pub fn stats(&mut self) -> Result<Stats, Failure> {
        match self.ask(&Request::Stats)? {
            Response::Stats(stats) => Ok(stats),
            _ => Err(self.unexpected()),
        }
    }

    /// See [`crate::node::Node::disconnect`].
    pub fn disconnect(&mut self, user: &str, code: u16, reason: &str) -> Result<usize, Failure> {
        self.count(&Request::Disconnect {
            user: user.to_owned(),
            code,
            reason: reason.to_owned(),
        })
    }

    /// See [`crate::node::Node::revoke_user`].
    pub fn revoke_user(&mut self, user: &str) -> Result<usize, Failure> {
        let user = user.to_owned();
        self.count(&Request::RevokeUser { user })
    }

    /// See [`crate::node::Node::revoke_token`].
    pub fn revoke_token(&mut self, token: &str) -> Result<usize, Failure> {
        let token = token.to_owned();
        self.count(&Request::RevokeToken { token })
    }

    fn count(&mut self, request: &Request<'_>) -> Result<usize, Failure> {
        match self.ask(request)? {
            Response::Count(count) => Ok(count),
            _ => Err(self.unexpected()),
        }
    }

    fn done(&mut self, request: &Request<'_>) -> Result<bool, Failure> {
        match self.ask(request)? {
            Response::Done(done) => Ok(done),
            _ => Err(self.unexpected()),
        }
    }

    fn check_size(&self, payload: &Payload) -> Result<(), Failure> {
        let (size, limit) = (payload.len(), self.greeting.max_message_size);
        if size > limit {
            Err(Failure::TooLarge { size, limit })
        } else {
            Ok(())
        }
    }
}
