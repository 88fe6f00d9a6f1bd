//! One client's doings, whatever its transport: it is admitted, subscribes, publishes to PHP, and ends.
//!
//! Called by the transports on the thread that owns the client's connection. Imports `node`, `hub`, `backend` and `wire`.

mod presence;
mod relay;
mod token;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::value::RawValue;

pub use self::presence::Entry;
use self::presence::present;
use crate::backend::{Answer, Event, Refused, ReplyTo, Ruling, Verdict};
use crate::broker::Since;
use crate::hub::mailbox::Opening;
use crate::hub::{Hub, Membership, SharedHub};
use crate::ids::{Channel, Position};
use crate::limits::Held;
use crate::message::{ClientMessage, ConnectionInfo, EventName, Incoming, Publication};
use crate::node::Node;
use crate::socket::Socket;
use crate::wire::envelope::ServerFrame;
use crate::wire::{Format, encode_server_frame};

/// Why a client does not get what it asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// A handler said no, or the channel is closed.
    #[error("not allowed")]
    Forbidden,
    /// Nobody handles what clients send.
    #[error("nobody handles messages here: no rt_on_message() is registered")]
    NoHandler,
    /// The handler did not decide in time.
    #[error("the handler did not answer in time")]
    TimedOut,
    /// The handler ended without a verdict.
    #[error("the handler failed")]
    HandlerFailed,
    /// PHP is behind.
    #[error("the server is busy, try again later")]
    Busy,
    /// PHP has ended.
    #[error("the server is going away")]
    Gone,
    /// Over `realtime.max_subscriptions`.
    #[error("too many subscriptions on one connection")]
    TooManySubscriptions,
    /// Over `realtime.presence_members` or `realtime.presence_bytes`.
    #[error("the channel has all the members that it may have")]
    TooManyMembers,
    /// Over `realtime.presence_info`.
    #[error("what others may know of this user is over realtime.presence_info")]
    InfoTooLarge,
    /// Over `realtime.max_message_size` as JSON.
    #[error("the message is over realtime.max_message_size")]
    TooLarge,
    /// The disk of `realtime.data_dir` does not take it.
    #[error("the message could not be stored, try again later")]
    NotStored,
}

impl Denied {
    /// The error code of php/docs/protocol.md.
    pub fn code(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::NoHandler => "no_handler",
            Self::TimedOut => "timeout",
            Self::HandlerFailed => "handler_failed",
            Self::Busy => "busy",
            Self::Gone => "gone",
            Self::TooManySubscriptions => "too_many_subscriptions",
            Self::TooManyMembers => "too_many_members",
            Self::TooLarge | Self::InfoTooLarge => "too_large",
            Self::NotStored => "not_stored",
        }
    }
}

impl From<Refused> for Denied {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Busy => Self::Busy,
            Refused::Gone => Self::Gone,
        }
    }
}

/// Asks PHP whether a client may connect.
pub async fn admit(node: &Arc<Node>, info: Arc<ConnectionInfo>) -> Result<Admitted, Denied> {
    let mut opening = None;
    if node.interest().open {
        opening = Some(node.shard(info.id.shard()).begin_opening(info.id));
        let (answer, verdict) = Answer::channel();
        node.dispatch(Event::Open {
            connection: info.clone(),
            answer,
        })
        .await?;
        decided(node, verdict).await?;
    } else if node.interest().close && !node.backend_has_room() {
        // Each connection is an event when it ends, and those must not pile up while PHP is behind.
        return Err(Denied::Busy);
    }
    Ok(Admitted {
        node: node.clone(),
        info,
        opening,
        held: Vec::new(),
        code: 1006,
        reason: String::new(),
    })
}

/// A client that PHP let in. When it is dropped, PHP is told that the client has gone.
#[derive(Debug)]
pub struct Admitted {
    node: Arc<Node>,
    info: Arc<ConnectionInfo>,
    /// Until the connection is in the hub.
    opening: Option<Opening>,
    /// Its place among the connections of its address and its user.
    held: Vec<Held>,
    code: u16,
    reason: String,
}

impl Admitted {
    /// The client.
    pub fn info(&self) -> &Arc<ConnectionInfo> {
        &self.info
    }

    /// Keeps its place among others for as long as it lives.
    pub fn hold(&mut self, held: Vec<Held>) {
        self.held = held;
    }

    /// Notes how the connection ends, for `rt_on_close()`. The first word stands.
    pub fn ends(&mut self, code: u16, reason: &str) {
        if self.code == 1006 {
            self.code = code;
            reason.clone_into(&mut self.reason);
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.node.interest().close {
            self.node.notify(Event::Close {
                connection: self.info.clone(),
                code: self.code,
                reason: std::mem::take(&mut self.reason),
            });
        }
    }
}

/// Asks PHP whether a client may subscribe, unless its token says that already. Without a handler only the guarded channels
/// are closed. Returns as whom the client would be there.
pub async fn authorize(
    node: &Node,
    connection: &Arc<ConnectionInfo>,
    channel: &Channel,
) -> Result<Entry, Denied> {
    let entry = Entry::new(connection, channel);
    if connection
        .grant()
        .is_some_and(|grant| grant.opens(channel.as_str()))
    {
        return entry.check(node);
    }
    if !node.interest().subscribe {
        return if channel.is_guarded() {
            Err(Denied::Forbidden)
        } else {
            Ok(entry)
        };
    }
    let (answer, verdict) = Answer::channel();
    let event = Event::Subscribe {
        connection: connection.clone(),
        channel: channel.clone(),
        answer,
    };
    node.dispatch(event).await?;
    match decided(node, verdict).await? {
        Ruling::AdmittedAs(attendee) => entry.known_as(attendee),
        Ruling::Admitted | Ruling::Refused => entry,
    }
    .check(node)
}

/// What was decided, if that is not a refusal.
async fn decided(
    node: &Node,
    verdict: tokio::sync::oneshot::Receiver<Verdict>,
) -> Result<Ruling, Denied> {
    match tokio::time::timeout(node.config().handshake_timeout, verdict).await {
        Ok(Ok(Ok(Ruling::Refused))) => Err(Denied::Forbidden),
        Ok(Ok(Ok(admitted))) => Ok(admitted),
        Ok(Ok(Err(_))) => Err(Denied::HandlerFailed),
        Ok(Err(_)) => Err(Denied::Gone),
        Err(_) => Err(Denied::TimedOut),
    }
}

/// Who has taken a client's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The other subscribers.
    BySubscribers,
    /// PHP.
    ByPhp,
}

/// Hands a client's message to PHP, or passes it on to the other subscribers where that is allowed without asking.
pub async fn publish(
    node: &Node,
    from: &Arc<ConnectionInfo>,
    channel: Channel,
    event: EventName,
    data: Incoming,
    reply_to: ReplyTo,
) -> Result<Taken, Denied> {
    if let Some(way) = relay::past_php(node, from, &channel, &event).await {
        relay::relay(node, from, channel, event, data, way, reply_to).await?;
        return Ok(Taken::BySubscribers);
    }
    if !node.interest().message {
        return Err(Denied::NoHandler);
    }
    let message = ClientMessage {
        from: from.clone(),
        channel,
        event,
        number: node.next_number(),
        data,
    };
    node.dispatch(Event::Message { message, reply_to }).await?;
    Ok(Taken::ByPhp)
}

/// A connected client, removed from the hub when this is dropped.
#[derive(Debug)]
pub struct Session {
    membership: Membership,
    admitted: Admitted,
}

impl Session {
    /// Puts an admitted client into the hub.
    pub fn new(
        admitted: Admitted,
        hub: &SharedHub,
        format: Format,
        socket: Option<Rc<Socket>>,
    ) -> Self {
        let membership = Membership::new(hub, admitted.info.clone(), format, socket);
        let session = Self {
            membership,
            admitted,
        };
        // From here on rt_revoke() finds it; what was revoked before that is seen now.
        session.check_revoked();
        session
    }

    /// The server.
    pub fn node(&self) -> &Arc<Node> {
        &self.admitted.node
    }

    /// The client.
    pub fn info(&self) -> &Arc<ConnectionInfo> {
        &self.admitted.info
    }

    /// The hub of this thread.
    pub fn hub(&self) -> &SharedHub {
        self.membership.hub()
    }

    /// The connection's slot in it.
    pub fn slot(&self) -> usize {
        self.membership.slot()
    }

    /// See [`Admitted::ends`].
    pub fn ends(&mut self, code: u16, reason: &str) {
        self.admitted.ends(code, reason);
    }

    /// Does what `rt_on_open()` has asked for. To be called when the client has been told that it is connected.
    pub fn opened(&mut self) {
        if let Some(opening) = self.admitted.opening.take() {
            self.hub().borrow_mut().catch_up(opening.finish());
        }
    }

    /// Counts a message from the client and notes that it lives.
    pub fn heard(&self) {
        let mut hub = self.hub().borrow_mut();
        hub.heard(self.slot());
        hub.shard().stats.received.fetch_add(1, Ordering::Relaxed);
    }

    /// Puts a server frame into the outbox.
    pub fn tell(&self, frame: &ServerFrame<'_>) {
        tell(&mut self.hub().borrow_mut(), self.slot(), frame);
    }

    /// Subscribes to all `channels` in one moment, with what they have after `since`, in order over all of them.
    ///
    /// The client is told of each, then gets what it missed, then what comes live. Returns where the past ends.
    pub fn attach(
        &self,
        entries: &[Entry],
        since: Option<&str>,
        reference: Option<&RawValue>,
    ) -> Result<Position, Denied> {
        let mut hub = self.hub().borrow_mut();
        attach(
            self.node(),
            &mut hub,
            self.slot(),
            entries,
            since,
            reference,
        )
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let closing = self.hub().borrow().closing(self.slot()).cloned();
        if let Some(closing) = closing {
            self.admitted.ends(closing.code, &closing.reason);
        }
        self.depart();
    }
}

/// `rt_subscribe()`: no handler is asked, PHP has decided.
pub fn subscribe_for_php(node: &Node, hub: &mut Hub, slot: usize, channel: &Channel) -> bool {
    let entry = Entry::new(hub.info(slot), channel);
    let attached = attach(node, hub, slot, &[entry], None, None).is_ok();
    hub.flush_dirty();
    attached
}

/// `rt_unsubscribe()`
pub fn unsubscribe_for_php(node: &Node, hub: &mut Hub, slot: usize, channel: &Channel) -> bool {
    let was = unsubscribe(node, hub, slot, channel);
    if was {
        let frame = ServerFrame::Unsubscribed {
            channel: channel.as_str(),
            reference: None,
        };
        tell(hub, slot, &frame);
        hub.flush_dirty();
    }
    was
}

/// Ends a subscription, and being present by it. `false` when there was none.
pub fn unsubscribe(node: &Node, hub: &mut Hub, slot: usize, channel: &Channel) -> bool {
    if channel.is_presence() {
        node.attendance().leave(channel.as_str(), hub.info(slot).id);
    }
    hub.unsubscribe(slot, channel.as_str())
}

fn attach(
    node: &Node,
    hub: &mut Hub,
    slot: usize,
    entries: &[Entry],
    since: Option<&str>,
    reference: Option<&RawValue>,
) -> Result<Position, Denied> {
    let is_new = |entry: &&Entry| !hub.is_subscribed(slot, &entry.channel);
    let new_entries: Vec<&Entry> = entries.iter().filter(is_new).collect();
    let new = channels_of(new_entries.iter());
    if hub.subscriptions(slot) + new.len() > node.config().max_subscriptions {
        return Err(Denied::TooManySubscriptions);
    }
    // While it is held nobody comes or goes: the members that the client is told of are those at `position`.
    let who = hub.info(slot).id;
    let attendance = present(node, who, entries)?;
    // Nothing is delivered between here and `subscribe`: delivery runs on this thread, and what the broker
    // accepts meanwhile has a number above `position`.
    let except = channels_of(new_entries.iter().filter(|it| it.is_new));
    let caught = node.catch_up(
        &new,
        Since {
            id: since,
            except: &except,
        },
    );
    let id = caught.position.text();
    let mut missed = caught.missed.into_iter();
    let mut past: Vec<Arc<Publication>> = caught.cached;
    if past.iter().any(|publication| publication.is_private()) {
        let grant = hub.info(slot).grant();
        past.retain(|publication| publication.is_open_to(grant.as_deref()));
    }
    let cached = channels_in(&past);
    for Entry { channel, .. } in entries {
        let its = if new.contains(channel) {
            missed.next()
        } else {
            None
        };
        hub.subscribe(slot, channel, caught.position.seq);
        let oldest = its
            .as_ref()
            .filter(|its| !its.recovered)
            .and_then(|its| its.oldest.as_ref());
        let oldest = oldest.map(|publication| publication.public_id());
        let members = attendance
            .as_ref()
            .filter(|_| channel.is_presence())
            .map(|attendance| attendance.list(channel.as_str()));
        // Of what comes before it goes live, this is the first.
        let mut of_caches = past.iter().take(cached.len());
        let cached_here = of_caches.find(|publication| publication.channel == *channel);
        let missed_here = its.as_ref().and_then(|its| its.publications.first());
        let first = cached_here.or(missed_here);
        let before = first.map(|publication| Position {
            seq: publication.position.seq - 1,
            ..publication.position
        });
        let before = before.map(Position::text);
        let frame = ServerFrame::Subscribed {
            channel: channel.as_str(),
            reference,
            id: &id,
            before: before.as_deref(),
            recovered: its.as_ref().map(|its| its.recovered),
            oldest: oldest.as_deref(),
            cached: cached.contains(channel),
            members: members.as_deref(),
        };
        tell(hub, slot, &frame);
        past.extend(its.map(|its| its.publications).unwrap_or_default());
    }
    drop(attendance);
    if entries.len() > 1 {
        past.sort_unstable_by_key(|publication| publication.position.seq);
    }
    hub.replay(slot, past);
    Ok(caught.position)
}

fn channels_of<'a>(entries: impl Iterator<Item = &'a &'a Entry>) -> Vec<Channel> {
    entries.map(|entry| entry.channel.clone()).collect()
}

fn channels_in(publications: &[Arc<Publication>]) -> Vec<Channel> {
    let channels = publications.iter().map(|it| it.channel.clone());
    channels.collect()
}

fn tell(hub: &mut Hub, slot: usize, frame: &ServerFrame<'_>) {
    let format: Format = hub.format(slot);
    if let Some(bytes) = encode_server_frame(frame, format) {
        hub.push(slot, bytes);
    }
}
