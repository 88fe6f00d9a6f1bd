//! What a client may subscribe to, and what it hears of it.

use serde::Deserialize;

use super::{Client, Name, signed};
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
                let since = given(&subscribe.since);
                let denied = self.attach(session, entry, since).err();
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

    /// Subscribes the client, which may. PHP may have done that already, when the client knew nothing of the channel: then it
    /// is told now.
    fn attach(&self, session: &Session, entry: Entry, since: Option<&str>) -> Result<(), Denied> {
        let channel = &entry.channel;
        let slot = session.slot();
        let was_subscribed = session.hub().borrow().is_subscribed(slot, channel);
        session.attach(std::slice::from_ref(&entry), since, None)?;
        if channel.is_cache() && since.is_none() {
            self.look_for_cached(session, channel, was_subscribed);
        }
        self.pusher.notice(channel);
        let hub = session.hub().borrow();
        let mut asked_for = self.asked_for.borrow_mut();
        if asked_for.len() >= self.node.config().max_subscriptions {
            asked_for.retain(|channel, _| hub.is_subscribed(slot, channel));
        }
        let user = entry.attendee.map(|attendee| attendee.user);
        asked_for.insert(entry.channel, user);
        Ok(())
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
        // PHP may have subscribed it before.
        let asked = self.asked_for.borrow().contains_key(&channel);
        if asked
            && session
                .hub()
                .borrow()
                .is_subscribed(session.slot(), &channel)
        {
            return Err((400, "already subscribed".to_owned()));
        }
        match given(&ask.auth) {
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

    /// A new subscriber of a cache channel has just got its newest message, if there is one for it; one that `was_subscribed`
    /// gets it now. Else it hears that there is none.
    fn look_for_cached(&self, session: &Session, channel: &Channel, was_subscribed: bool) {
        let channels = std::slice::from_ref(channel);
        let mut cached = self.node.catch_up(channels, Since::default()).cached;
        let grant = session.info().grant();
        cached.retain(|publication| publication.is_open_to(grant.as_deref()));
        if cached.is_empty() {
            let frame = pusher::event("pusher:cache_miss", Some(channel.as_str()), "{}");
            self.tell(session, &frame);
            let channel = channel.to_string();
            self.pusher.report(Event::CacheMiss { channel });
        } else if was_subscribed {
            session.hub().borrow_mut().replay(session.slot(), cached);
        }
    }

    /// Ends a subscription, if there is one.
    pub(super) fn unsubscribe(&self, session: &Session, channel: &str) {
        let own = Channel::user_of(channel).map(Channel::of_user);
        let Some(channel) = own.or_else(|| Channel::parse(channel).ok()) else {
            return;
        };
        self.asked_for.borrow_mut().remove(&channel);
        let mut hub = session.hub().borrow_mut();
        session::unsubscribe(session.node(), &mut hub, session.slot(), &channel);
    }
}

/// A text that is there and not empty.
///
/// Never inlined, so that memcheck's report has its name, which tests/valgrind/php.supp knows: the compiler looks at the length
/// first, also when there is no text and so no length, and then takes no notice of what it saw.
#[inline(never)]
fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
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
    let member: Member = signed(data).ok_or_else(why)?;
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
