//! The calls on a server, the same for one in this process and one behind the control socket.
//!
//! Handed out by `link::with`. Imports `node` and `control`.

use std::sync::Arc;

use crate::broker::Walk;
use crate::control::client::Client;
use crate::ids::{Channel, ConnectionId, Pattern};
use crate::message::{ConnectionInfo, EventName, Payload, Publish};
use crate::node::{ChannelSummary, Failure, HistoryPage, MemberSummary, Node, Stats};

/// The server, wherever it is.
pub enum Link<'a> {
    /// In this process.
    Here(&'a Arc<Node>),
    /// In another one.
    Remote(&'a mut Client),
}

impl Link<'_> {
    /// `Node::publish`. Leaves `publish` empty when nobody will need it again.
    pub fn publish(&mut self, publish: &mut Option<Publish>) -> Result<String, Failure> {
        let gone = || Failure::Link("published twice".to_owned());
        match self {
            Self::Here(node) => node.publish(publish.take().ok_or_else(gone)?),
            Self::Remote(client) => client.publish(publish.as_ref().ok_or_else(gone)?),
        }
    }

    /// `Node::send`
    pub fn send(
        &mut self,
        to: ConnectionId,
        payload: Payload,
        event: EventName,
    ) -> Result<bool, Failure> {
        match self {
            Self::Here(node) => node.send(to, payload, event),
            Self::Remote(client) => client.send(to, payload, event),
        }
    }

    /// `Node::subscribe`
    pub fn subscribe(&mut self, who: ConnectionId, channel: Channel) -> Result<bool, Failure> {
        match self {
            Self::Here(node) => node.subscribe(who, channel),
            Self::Remote(client) => client.subscribe(who, channel),
        }
    }

    /// `Node::unsubscribe`
    pub fn unsubscribe(&mut self, who: ConnectionId, channel: Channel) -> Result<bool, Failure> {
        match self {
            Self::Here(node) => node.unsubscribe(who, channel),
            Self::Remote(client) => client.unsubscribe(who, channel),
        }
    }

    /// `Node::close`
    pub fn close(&mut self, who: ConnectionId, code: u16, reason: String) -> Result<bool, Failure> {
        match self {
            Self::Here(node) => node.close(who, code, reason),
            Self::Remote(client) => client.close(who, code, reason),
        }
    }

    /// `Node::disconnect`
    pub fn disconnect(&mut self, user: &str, code: u16, reason: &str) -> Result<usize, Failure> {
        match self {
            Self::Here(node) => node.disconnect(user, code, reason),
            Self::Remote(client) => client.disconnect(user, code, reason),
        }
    }

    /// `Node::revoke_user`
    pub fn revoke_user(&mut self, user: &str) -> Result<usize, Failure> {
        match self {
            Self::Here(node) => node.revoke_user(user),
            Self::Remote(client) => client.revoke_user(user),
        }
    }

    /// `Node::revoke_token`
    pub fn revoke_token(&mut self, token: &str) -> Result<usize, Failure> {
        match self {
            Self::Here(node) => node.revoke_token(token),
            Self::Remote(client) => client.revoke_token(token),
        }
    }

    /// `Node::channels`
    pub fn channels(&mut self, pattern: &Pattern) -> Result<Vec<ChannelSummary>, Failure> {
        match self {
            Self::Here(node) => node.channels(pattern),
            Self::Remote(client) => client.channels(pattern),
        }
    }

    /// `Node::connections`
    pub fn connections(
        &mut self,
        channel: Option<&Channel>,
    ) -> Result<Vec<Arc<ConnectionInfo>>, Failure> {
        match self {
            Self::Here(node) => node.connections(channel),
            Self::Remote(client) => client.connections(channel),
        }
    }

    /// `Node::history`
    pub fn history(
        &mut self,
        channel: &Channel,
        limit: usize,
        walk: Walk<'_>,
    ) -> Result<HistoryPage, Failure> {
        match self {
            Self::Here(node) => node.history(channel, limit, walk),
            Self::Remote(client) => client.history(channel, limit, walk),
        }
    }

    /// `Node::members`
    pub fn members(&mut self, channel: &Channel) -> Result<Vec<MemberSummary>, Failure> {
        match self {
            Self::Here(node) => node.members(channel),
            Self::Remote(client) => client.members(channel),
        }
    }

    /// `Node::stats`
    pub fn stats(&mut self) -> Result<Stats, Failure> {
        match self {
            Self::Here(node) => node.stats(),
            Self::Remote(client) => client.stats(),
        }
    }
}
