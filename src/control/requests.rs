//! What another process asks for, done: a [`Request`] in, a [`Response`] out.
//!
//! Called by `control::links`. Imports `node` and `wire::control`.

use std::sync::Arc;

use crate::broker::Walk;
use crate::ids::{Channel, ConnectionId, InvalidId, Pattern};
use crate::message::{ConnectionInfo, EventName, Payload, Publish};
use crate::node::{Accepted, Failure, Node};
use crate::store::Receipt;
use crate::wire::control::{
    Request, Response, WireConnection, WireEntry, WireFailure, WireFound, WireMember,
};

/// What becomes of a request on a thread that must not wait.
#[derive(Debug)]
pub enum Now {
    /// Done.
    Done(Response),
    /// Done, and to be answered when the receipt comes true.
    Kept(Response, Receipt),
    /// The shards are behind, or the disk is: this is to be published as soon as there is room again.
    NoRoom {
        /// What is left of it.
        rest: Publish,
        /// Whether some of its copies are published.
        begun: bool,
    },
    /// It may wait for a shard: to be asked on another thread.
    Elsewhere,
}

/// Whether it is about users, who may be at another hub by now and come there later, rather than about one connection.
pub fn is_of_users(request: &Request<'_>) -> bool {
    matches!(
        request,
        Request::Disconnect { .. } | Request::RevokeUser { .. } | Request::RevokeToken { .. }
    )
}

/// Does what takes no waiting. What is published needs [`Node::rouse`] after the answer.
pub fn now(node: &Node, request: Request<'_>) -> Now {
    let publishes = matches!(request, Request::Publish(_));
    if !publishes && node.predecessor().is_some() {
        // It may have to be asked, too.
        return Now::Elsewhere;
    }
    Now::Done(match request {
        Request::Publish(publish) => match Publish::try_from(publish) {
            Ok(publish) => return published(node, publish),
            Err(invalid) => bad(invalid),
        },
        Request::Send { to, payload, event } => match crate::ids::check_event(&event) {
            Ok(()) => {
                let id = ConnectionId::from_bits(to);
                match node.send_now(id, &Payload::from(payload), &EventName::new(&event)) {
                    Some(sent) => finish(sent.map(Response::Done)),
                    None => return Now::Elsewhere,
                }
            }
            Err(invalid) => bad(invalid),
        },
        Request::Close { who, code, reason } => {
            let closed = node.close(ConnectionId::from_bits(who), code, reason);
            finish(closed.map(Response::Done))
        }
        _ => return Now::Elsewhere,
    })
}

/// Publishes without waiting.
pub fn published(node: &Node, publish: Publish) -> Now {
    // Others may pass here at the same time: then a little more waits than should, which harms nobody.
    if !node.has_room() {
        let (rest, begun) = (publish, false);
        return Now::NoRoom { rest, begun };
    }
    let copies = publish.channels.len();
    match node.publish_now(publish) {
        Ok(Accepted::Done(id)) => Now::Done(Response::Published(id)),
        Ok(Accepted::Kept(id, receipt)) => Now::Kept(Response::Published(id), receipt),
        Ok(Accepted::NoRoom(rest)) => Now::NoRoom {
            begun: rest.channels.len() < copies,
            rest,
        },
        Err(failure) => Now::Done(finish(Err(failure))),
    }
}

/// Does any request. May block for `realtime.timeout`.
pub fn ask(node: &Arc<Node>, request: Request<'_>) -> Response {
    let id = ConnectionId::from_bits;
    let asked = match request {
        Request::Publish(publish) => match Publish::try_from(publish) {
            Ok(publish) => node.publish(publish).map(Response::Published),
            Err(invalid) => return bad(invalid),
        },
        Request::Send { to, payload, event } => match crate::ids::check_event(&event) {
            Ok(()) => node
                .send(id(to), Payload::from(payload), EventName::new(&event))
                .map(Response::Done),
            Err(invalid) => return bad(invalid),
        },
        Request::Subscribe { who, channel } => match Channel::parse(&channel) {
            Ok(channel) => node.subscribe(id(who), channel).map(Response::Done),
            Err(invalid) => return bad(invalid),
        },
        Request::Unsubscribe { who, channel } => match Channel::parse(&channel) {
            Ok(channel) => node.unsubscribe(id(who), channel).map(Response::Done),
            Err(invalid) => return bad(invalid),
        },
        Request::Close { who, code, reason } => {
            node.close(id(who), code, reason).map(Response::Done)
        }
        Request::Channels { pattern } => match Pattern::parse(&pattern) {
            Ok(pattern) => node.channels(&pattern).map(|list| {
                let pair = |c: crate::node::ChannelSummary| (c.channel.to_string(), c.subscribers);
                Response::Channels(list.into_iter().map(pair).collect())
            }),
            Err(invalid) => return bad(invalid),
        },
        Request::Connections { channel } => {
            match channel.map(|name| Channel::parse(&name)).transpose() {
                Ok(channel) => node.connections(channel.as_ref()).map(|list| {
                    Response::Connections(list.iter().map(|info| wire_connection(info)).collect())
                }),
                Err(invalid) => return bad(invalid),
            }
        }
        Request::History {
            channel,
            limit,
            since,
            before,
        } => match Channel::parse(&channel) {
            Ok(channel) => node
                .history(&channel, limit, walk(since.as_deref(), before.as_deref()))
                .map(|page| {
                    let entry = |e: crate::node::HistoryEntry| WireEntry {
                        id: e.id,
                        event: e.event.as_str().to_owned(),
                        payload: e.payload.into(),
                        age: e.age,
                    };
                    Response::History {
                        entries: page.entries.into_iter().map(entry).collect(),
                        recovered: page.recovered,
                        oldest: page.oldest,
                        more: page.more,
                    }
                }),
            Err(invalid) => return bad(invalid),
        },
        Request::Members { channel } => match Channel::parse(&channel) {
            Ok(channel) => node.members(&channel).map(|list| {
                let member = |m: crate::node::MemberSummary| WireMember {
                    user: m.user.to_string(),
                    info: m.info.map(|info| info.get().to_owned()),
                    connections: m.connections,
                };
                Response::Members(list.into_iter().map(member).collect())
            }),
            Err(invalid) => return bad(invalid),
        },
        Request::Stats => node.stats().map(Response::Stats),
        Request::Disconnect { user, code, reason } => {
            node.disconnect(&user, code, &reason).map(Response::Count)
        }
        Request::RevokeUser { user } => node.revoke_user(&user).map(Response::Count),
        Request::RevokeToken { token } => node.revoke_token(&token).map(Response::Count),
        Request::Find { who, key, bytes } => find(node, id(who), key, bytes),
    };
    finish(asked)
}

/// The connection that has this key, in whose name a message of `bytes` has come elsewhere.
fn find(node: &Node, who: ConnectionId, key: u64, bytes: usize) -> Result<Response, Failure> {
    let found = node.connection(who).map(|registered| registered.info);
    let Some(info) = found.filter(|info| info.has_key(key)) else {
        return Ok(Response::Found(None));
    };
    if !info.may_spend(node.config().rate(), 1, bytes) {
        return Err(Failure::Busy);
    }
    Ok(Response::Found(Some(Box::new(WireFound {
        connection: wire_connection(&info),
        grant: info.grant().as_deref().cloned(),
    }))))
}

fn walk<'a>(since: Option<&'a str>, before: Option<&'a str>) -> Walk<'a> {
    before.map_or(since.into(), Walk::Before)
}

fn wire_connection(info: &ConnectionInfo) -> WireConnection {
    WireConnection {
        id: info.id.to_bits(),
        transport: info.transport.index() as u8,
        ip: info.ip.to_string(),
        head: info.head().to_owned(),
        user: info.user().map(ToOwned::to_owned),
    }
}

/// The answer to what was tried.
pub fn finish(result: Result<Response, Failure>) -> Response {
    result.unwrap_or_else(|failure| {
        Response::Failed(match failure {
            Failure::TooLarge { size, limit } => WireFailure::TooLarge { size, limit },
            Failure::Busy => WireFailure::Busy,
            Failure::Stopped => WireFailure::Stopped,
            Failure::Refused(reason) | Failure::Unstored(reason) | Failure::Invalid(reason) => {
                WireFailure::Refused(reason)
            }
            Failure::Link(reason) => WireFailure::Bad(reason),
        })
    })
}

fn bad(invalid: InvalidId) -> Response {
    Response::Failed(WireFailure::Bad(format!("the name must {invalid}")))
}
