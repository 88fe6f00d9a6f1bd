//! One client of the Pusher protocol: what it asks for becomes what any client asks of its session.
//!
//! Called by the WebSocket transport on the thread that owns the connection. Imports `pusher`'s signatures and users,
//! `session` and `wire`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::users::WATCHLIST_MAX;
use super::webhooks::Event;
use super::{Pusher, auth};
use crate::backend::ReplyTo;
use crate::broker::Since;
use crate::config::App;
use crate::hub::CLOSE_REVOKED;
use crate::hub::mailbox::Command as ShardCommand;
use crate::ids::{self, Channel, ConnectionId};
use crate::limits::Held;
use crate::message::{EventName, Incoming, Payload};
use crate::node::Node;
use crate::presence::Attendee;
use crate::session::{self, Denied, Entry, Session};
use crate::wire::pusher::{self, Command, Subscribe};
use crate::wire::websocket;

/// The longest channel data or user data, in bytes.
const DATA_MAX: usize = 10 << 10;

/// A client.
#[derive(Debug)]
pub struct Client {
    pusher: Arc<Pusher>,
    app: Arc<App>,
    /// Where watchers are, when it ends.
    node: Arc<Node>,
    id: ConnectionId,
    socket_id: String,
    user: RefCell<Option<SignedIn>>,
    /// As whom it is present on the presence channels that it has subscribed to.
    members: RefCell<HashMap<Channel, Arc<str>>>,
    /// Since when client events are counted, and how many there were.
    events: Cell<(Instant, usize)>,
}

#[derive(Debug)]
struct SignedIn {
    name: Box<str>,
    watchlist: Vec<String>,
    /// Its place among the user's connections.
    _held: Held,
}

/// What is signed as a user.
#[derive(Deserialize)]
struct UserData {
    id: Name,
    #[serde(default)]
    watchlist: Vec<Name>,
}

/// A user's id: applications write numbers, too.
#[derive(Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Number(serde_json::Number),
}

impl Name {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
        }
    }
}

impl Client {
    /// A client of `app`.
    pub fn new(pusher: Arc<Pusher>, app: Arc<App>, node: Arc<Node>, id: ConnectionId) -> Self {
        Self {
            pusher,
            app,
            node,
            id,
            socket_id: id.socket_id(),
            user: RefCell::default(),
            members: RefCell::default(),
            events: Cell::new((Instant::now(), 0)),
        }
    }

    /// Tells the client that it is connected.
    pub fn greet(&self, session: &Session) {
        // After so much silence from here it asks whether we live; by then we have asked whether it does.
        let activity = self.node.config().ping_interval.as_secs().max(1) * 3;
        self.tell(session, &pusher::established(&self.socket_id, activity));
    }

    /// Does what a frame asks for.
    pub async fn text(&self, session: &Session, text: &str) {
        let command = match pusher::parse(text) {
            Ok(command) => command,
            Err(mistake) => return self.error(session, None, &mistake.to_string()),
        };
        match command {
            Command::Ping => self.tell(session, &pusher::pong()),
            // A sign of life, which has been noted.
            Command::Pong => {}
            Command::Subscribe(subscribe) => self.subscribe(session, subscribe).await,
            Command::Unsubscribe { channel } => {
                self.unsubscribe(session, &channel);
            }
            Command::Signin { auth, user_data } => self.sign_in(session, &auth, &user_data),
            Command::Event {
                channel,
                event,
                data,
            } => {
                if let Err((code, why)) = self.event(session, &channel, &event, data).await {
                    self.error(session, code, &why);
                }
            }
        }
    }

    async fn subscribe(&self, session: &Session, subscribe: Subscribe) {
        let name = &subscribe.channel;
        let refused = match self.admit(session, &subscribe).await {
            Ok(entry) => {
                let since = subscribe.since.as_deref().filter(|since| !since.is_empty());
                let entries = std::slice::from_ref(&entry);
                let denied = session.attach(entries, since, None).err();
                if denied.is_none() && since.is_none() {
                    self.look_for_cached(session, &entry.channel);
                }
                if denied.is_none()
                    && let Some(attendee) = entry.attendee
                {
                    let mut members = self.members.borrow_mut();
                    members.insert(entry.channel, attendee.user);
                }
                denied.map(|denied| (status(denied), denied.to_string()))
            }
            Err(refused) => Some(refused),
        };
        if let Some((status, why)) = refused {
            let kind = if status == 401 {
                "AuthError"
            } else {
                "SubscriptionError"
            };
            self.tell(
                session,
                &pusher::subscription_error(name, kind, &why, status),
            );
            // Libraries that do not know that event know this one.
            let code = (status == 401 || status == 403).then_some(4009);
            self.error(session, code, &format!("{name}: {why}"));
        }
    }

    /// Whether the client may subscribe: by its application's signature, or as any other client may.
    async fn admit(&self, session: &Session, ask: &Subscribe) -> Result<Entry, (u16, String)> {
        if let Some(user) = Channel::user_of(&ask.channel) {
            let same = session.info().user() == Some(user);
            let why = || (401, "sign in as this user first".to_owned());
            let entry = || Entry::new(session.info(), &Channel::of_user(user));
            return same.then(entry).ok_or_else(why);
        }
        let channel = Channel::parse(&ask.channel)
            .map_err(|error| (400, format!("the channel must {error}")))?;
        if session
            .hub()
            .borrow()
            .is_subscribed(session.slot(), &channel)
        {
            return Err((400, "already subscribed".to_owned()));
        }
        let auth = ask.auth.as_deref().filter(|auth| !auth.is_empty());
        match auth {
            Some(auth) if channel.is_guarded() => {
                let data = ask.channel_data.as_deref();
                auth::check_channel(&self.app, &self.socket_id, channel.as_str(), data, auth)
                    .map_err(|bad| (401, bad.to_string()))?;
                let entry = Entry::new(session.info(), &channel);
                match data {
                    Some(data) if channel.is_presence() => Ok(entry.known_as(member(data)?)),
                    None if channel.is_presence() => {
                        Err((400, "a presence channel wants channel_data".to_owned()))
                    }
                    _ => Ok(entry),
                }
            }
            _ => session::authorize(session.node(), session.info(), &channel)
                .await
                .map_err(|denied| match denied {
                    Denied::Forbidden if channel.is_guarded() => {
                        (401, "the channel wants a signature".to_owned())
                    }
                    denied => (status(denied), denied.to_string()),
                }),
        }
    }

    /// A new subscriber of a cache channel has just got its newest message, or hears that there is none.
    fn look_for_cached(&self, session: &Session, channel: &Channel) {
        if !channel.is_cache() {
            return;
        }
        let channels = std::slice::from_ref(channel);
        let caught = self.node.catch_up(channels, Since::default());
        if caught.cached.is_empty() {
            let frame = pusher::event("pusher:cache_miss", Some(channel.as_str()), "{}");
            self.tell(session, &frame);
            let channel = channel.to_string();
            self.pusher.report(Event::CacheMiss { channel });
        }
    }

    fn unsubscribe(&self, session: &Session, channel: &str) {
        let own = Channel::user_of(channel).map(Channel::of_user);
        let Some(channel) = own.or_else(|| Channel::parse(channel).ok()) else {
            return;
        };
        self.members.borrow_mut().remove(&channel);
        let mut hub = session.hub().borrow_mut();
        session::unsubscribe(session.node(), &mut hub, session.slot(), &channel);
    }

    fn sign_in(&self, session: &Session, auth: &str, user_data: &str) {
        let refuse = |why: &str| {
            let mut hub = session.hub().borrow_mut();
            hub.close(session.slot(), CLOSE_REVOKED, why);
        };
        if user_data.len() > DATA_MAX {
            return refuse("user_data is over 10 KB");
        }
        if let Err(bad) = auth::check_user(&self.app, &self.socket_id, user_data, auth) {
            return refuse(&bad.to_string());
        }
        let Ok(UserData { id, watchlist }) = serde_json::from_str(user_data) else {
            return refuse("user_data has no id");
        };
        let user = id.into_text();
        if !crate::auth::is_user(&user) {
            return refuse("the id in user_data is no user's");
        }
        if let Some(signed_in) = &*self.user.borrow() {
            // It asks again when it missed the answer.
            if *signed_in.name == *user {
                self.signed_in(session, user_data);
            } else {
                self.error(session, None, "already signed in as another user");
            }
            return;
        }
        let limit = self.node.config().max_connections_per_user;
        let Some(held) = self.node.users().hold(&user, limit) else {
            return self.error(
                session,
                Some(4100),
                "this user has all the connections that one may have",
            );
        };
        if !session.info().sign_in(&user) {
            return refuse("the connection's token is another user's");
        }
        let mut watchlist: Vec<String> = watchlist.into_iter().map(Name::into_text).collect();
        let too_many = watchlist.len() > WATCHLIST_MAX;
        watchlist.truncate(WATCHLIST_MAX);
        self.signed_in(session, user_data);
        if too_many {
            let why =
                format!("a watchlist has at most {WATCHLIST_MAX} users: the rest is left out");
            self.error(session, Some(4302), &why);
        }
        let (seen, watchers) = self.pusher.users.arrive(self.id, &user, &watchlist);
        let lists = [("online", seen.online), ("offline", seen.offline)];
        let events: Vec<_> = lists
            .iter()
            .filter(|(_, users)| !users.is_empty())
            .map(|(name, users)| serde_json::json!({ "name": name, "user_ids": users }))
            .collect();
        if !events.is_empty() {
            self.tell(session, &watchlist_events(&events));
        }
        self.tell_watchers("online", &user, &watchers);
        *self.user.borrow_mut() = Some(SignedIn {
            name: user.into(),
            watchlist,
            _held: held,
        });
    }

    fn signed_in(&self, session: &Session, user_data: &str) {
        let data = serde_json::json!({ "user_data": user_data });
        let frame = pusher::event("pusher:signin_success", None, &data.to_string());
        self.tell(session, &frame);
    }

    /// A client event, for the others on its channel.
    async fn event(
        &self,
        session: &Session,
        channel: &str,
        event: &str,
        data: Payload,
    ) -> Result<(), (Option<u16>, String)> {
        let refuse = |why: String| Err((None, why));
        if !event.starts_with("client-") {
            return refuse(format!(
                "{event:?} is no event of this protocol, and a client's own begin with \"client-\""
            ));
        }
        if let Err(error) = ids::check_event(event) {
            return refuse(format!("the event's name must {error}"));
        }
        let Ok(channel) = Channel::parse(channel) else {
            return refuse("client events go to a channel".to_owned());
        };
        if !channel.is_guarded() || channel.as_str().starts_with("private-encrypted-") {
            return refuse("client events go to private and presence channels only".to_owned());
        }
        if !session
            .hub()
            .borrow()
            .is_subscribed(session.slot(), &channel)
        {
            return refuse(format!(
                "client events need a subscription, and there is none to {channel}"
            ));
        }
        if !self.is_in_time() {
            let why = "client events come too fast: realtime.pusher_client_rate";
            return Err((Some(4301), why.to_owned()));
        }
        let told = Event::ClientEvent {
            channel: channel.to_string(),
            event: event.to_owned(),
            data: pusher::data(&data),
            socket_id: self.socket_id.clone(),
            user_id: self.members.borrow().get(&channel).map(ToString::to_string),
        };
        let (Payload::Json(data) | Payload::Binary(data)) = data;
        let event = match self.members.borrow().get(&channel) {
            Some(user) => EventName::Said {
                name: event.into(),
                by: user.clone(),
            },
            None => EventName::new(event),
        };
        let reply_to = ReplyTo::Connection {
            connection: self.id,
            reference: None,
        };
        session.hub().borrow_mut().asks(session.slot());
        let data = Incoming::Json(data);
        let sent = session::publish(
            session.node(),
            session.info(),
            channel,
            event,
            data,
            reply_to,
        );
        sent.await
            .map(|()| self.pusher.report(told))
            .map_err(|denied| {
                session.hub().borrow_mut().answered(session.slot());
                match denied {
                    Denied::NoHandler => {
                        (None, "client events are off: realtime.client_events".into())
                    }
                    denied => (None, denied.to_string()),
                }
            })
    }

    /// Counts a client event.
    fn is_in_time(&self) -> bool {
        let limit = self.node.config().pusher_client_rate;
        let (since, count) = self.events.get();
        let (since, count) = if since.elapsed() >= Duration::from_secs(1) {
            (Instant::now(), 0)
        } else {
            (since, count)
        };
        self.events.set((since, count + 1));
        limit == 0 || count < limit
    }

    fn error(&self, session: &Session, code: Option<u16>, message: &str) {
        self.tell(session, &pusher::error(code, message));
    }

    fn tell(&self, session: &Session, json: &[u8]) {
        let mut hub = session.hub().borrow_mut();
        hub.push(session.slot(), websocket::plain_text(json));
    }

    fn tell_watchers(&self, what: &str, user: &str, watchers: &[ConnectionId]) {
        if watchers.is_empty() {
            return;
        }
        let events = [serde_json::json!({ "name": what, "user_ids": [user] })];
        let frame = websocket::plain_text(&watchlist_events(&events));
        for &watcher in watchers {
            let frame = frame.clone();
            self.node
                .shard(watcher.shard())
                .put(ShardCommand::Run(Box::new(move |hub| {
                    if let Some(registered) = hub.shard().connection(watcher) {
                        hub.push(registered.slot, frame);
                    }
                })));
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(user) = self.user.take() {
            let watchers = self
                .pusher
                .users
                .depart(self.id, &user.name, &user.watchlist);
            self.tell_watchers("offline", &user.name, &watchers);
        }
    }
}

/// Who a presence channel's `channel_data` says that a client is.
fn member(data: &str) -> Result<Attendee, (u16, String)> {
    #[derive(Deserialize)]
    struct Member {
        user_id: Name,
        user_info: Option<Box<serde_json::value::RawValue>>,
    }
    let why = || {
        (
            400,
            "channel_data is no JSON object with a user_id".to_owned(),
        )
    };
    let member: Member = serde_json::from_str(data).map_err(|_| why())?;
    let user = member.user_id.into_text();
    if !crate::auth::is_user(&user) {
        return Err(why());
    }
    let info = member.user_info.as_ref().map(|info| info.get());
    Ok(Attendee::new(&user, info))
}

fn watchlist_events(events: &[serde_json::Value]) -> Vec<u8> {
    let data = serde_json::json!({ "events": events });
    pusher::event("pusher_internal:watchlist_events", None, &data.to_string())
}

fn status(denied: Denied) -> u16 {
    match denied {
        Denied::Forbidden => 403,
        Denied::NoHandler | Denied::Gone => 503,
        Denied::HandlerFailed => 502,
        Denied::TimedOut => 504,
        Denied::Busy => 429,
        Denied::NotStored => 507,
        Denied::TooManySubscriptions => 400,
        Denied::TooLarge | Denied::InfoTooLarge => 413,
        Denied::TooManyMembers => 403,
    }
}
