//! What a client may subscribe to, and what it hears of it.

use serde::Deserialize;

use super::{Client, Name};
use crate::broker::Since;
use crate::ids::Channel;
use crate::presence::Attendee;
use crate::pusher::auth;
use crate::pusher::webhooks::Event;
use crate::session::{self, Denied, Entry, Session};
use crate::wire::pusher::{self, Subscribe};

impl Client {
    /// Subscribes the client, or says why not.
    pub(super) async fn subscribe(&self, session: &Session, subscribe: Subscribe) {
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

    /// Ends a subscription, if there is one.
    pub(super) fn unsubscribe(&self, session: &Session, channel: &str) {
        let own = Channel::user_of(channel).map(Channel::of_user);
        let Some(channel) = own.or_else(|| Channel::parse(channel).ok()) else {
            return;
        };
        self.members.borrow_mut().remove(&channel);
        let mut hub = session.hub().borrow_mut();
        session::unsubscribe(session.node(), &mut hub, session.slot(), &channel);
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
