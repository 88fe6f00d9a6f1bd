//! Who a client has signed in as, and whom it watches.

use std::sync::Arc;

use serde::Deserialize;

use super::{Client, Name, signed};
use crate::hub::CLOSE_REVOKED;
use crate::hub::mailbox::Command as ShardCommand;
use crate::limits::Held;
use crate::pusher::auth;
use crate::pusher::users::{News, WATCHLIST_MAX};
use crate::session::Session;
use crate::wire::pusher;
use crate::wire::websocket;

/// The longest user data, in bytes.
const DATA_MAX: usize = 10 << 10;

/// Whom a client has proved to be.
#[derive(Debug)]
pub(super) struct SignedIn {
    name: Box<str>,
    watchlist: Vec<String>,
    /// Its place among the user's connections; none where it has one since it came, by its token.
    _held: Option<Held>,
}

/// What is signed as a user.
#[derive(Deserialize)]
struct UserData {
    id: Name,
    #[serde(default)]
    watchlist: Vec<Name>,
}

impl Client {
    /// Takes the client for the user whom its application has signed.
    pub(super) fn sign_in(&self, session: &Session, auth: &str, user_data: &str) {
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
        let Some(UserData { id, watchlist }) = signed(user_data) else {
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
        let is_counted = session.info().user() == Some(&*user);
        let limit = self.node.config().max_connections_per_user;
        let held = (!is_counted).then(|| self.node.users().hold(&user, limit));
        let Some(held) = held.map_or(Some(None), |held| held.map(Some)) else {
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
        let (seen, news) = self.pusher.users.arrive(self.id, &user, &watchlist);
        let lists = [("online", seen.online), ("offline", seen.offline)];
        let events: Vec<_> = lists
            .iter()
            .filter(|(_, users)| !users.is_empty())
            .map(|(name, users)| serde_json::json!({ "name": name, "user_ids": users }))
            .collect();
        if !events.is_empty() {
            self.tell(session, &watchlist_events(&events));
        }
        self.tell_watchers("online", &user, &news);
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

    fn tell_watchers(&self, what: &str, user: &str, news: &News) {
        if news.watchers.is_empty() {
            return;
        }
        let events = [serde_json::json!({ "name": what, "user_ids": [user] })];
        let frame = websocket::plain_text(&watchlist_events(&events));
        let (user, number): (Arc<str>, u64) = (user.into(), news.number);
        for &watcher in &news.watchers {
            let (frame, user, pusher) = (frame.clone(), user.clone(), self.pusher.clone());
            self.node
                .shard(watcher.shard())
                .put(ShardCommand::Run(Box::new(move |hub| {
                    if let Some(registered) = hub.shard().connection(watcher)
                        && pusher.users.hears(watcher, &user, number)
                    {
                        hub.push(registered.slot, frame);
                    }
                })));
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(user) = self.user.take() {
            let news = self
                .pusher
                .users
                .depart(self.id, &user.name, &user.watchlist);
            self.tell_watchers("offline", &user.name, &news);
        }
    }
}

fn watchlist_events(events: &[serde_json::Value]) -> Vec<u8> {
    let data = serde_json::json!({ "events": events });
    pusher::event("pusher_internal:watchlist_events", None, &data.to_string())
}
