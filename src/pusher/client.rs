//! One client of the Pusher protocol: what it asks for becomes what any client asks of its session.
//!
//! Called by the WebSocket transport on the thread that owns the connection. Imports `pusher`'s signatures and users,
//! `session` and `wire`.
//! Here is who it is and what becomes of a frame; what it asks for is in [`subscriptions`], [`signin`] and [`events`].

mod events;
mod signin;
mod subscriptions;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use serde::Deserialize;

use self::signin::SignedIn;
use super::Pusher;
use crate::config::App;
use crate::ids::{Channel, ConnectionId};
use crate::node::Node;
use crate::session::Session;
use crate::wire::pusher::{self, Command};
use crate::wire::websocket;

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
    /// The channels that it has subscribed to itself, and as whom it is present on presence channels. No more than the
    /// connection may have, and some that PHP has taken from it.
    asked_for: RefCell<HashMap<Channel, Option<Arc<str>>>>,
    /// Since when client events are counted, and how many there were.
    events: Cell<(Instant, usize)>,
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

/// Reads what an application has signed: an object, and not the list of its values.
fn signed<'a, T: Deserialize<'a>>(json: &'a str) -> Option<T> {
    let is_object = json.trim_start().starts_with('{');
    is_object.then(|| serde_json::from_str(json).ok()).flatten()
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
            asked_for: RefCell::default(),
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

    fn error(&self, session: &Session, code: Option<u16>, message: &str) {
        self.tell(session, &pusher::error(code, message));
    }

    fn tell(&self, session: &Session, json: &[u8]) {
        let mut hub = session.hub().borrow_mut();
        hub.push(session.slot(), websocket::plain_text(json));
    }
}
