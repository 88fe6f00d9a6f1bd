//! The Pusher protocol above the node, beside the native one: who its applications are, what their clients ask for
//! ([`client`]), what their servers ask for ([`api`]), and what those are told ([`webhooks`]).
//!
//! Channels are the node's own: what any client or PHP publishes reaches every subscriber, whatever it speaks. Used by
//! `transport` and `server`; imports `node`, `session`, `hub` and `wire`.

pub mod api;
pub mod auth;
mod call;
pub mod client;
pub mod grant;
mod observer;
pub mod users;
pub mod webhooks;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::{App, Apps, Config};
use crate::ids::Channel;
use crate::node::Node;
use users::Users;
use webhooks::{Queue, Waiting};

/// Channels with new subscribers in one second. Those of more are told when the number changes.
const NEWCOMERS_MAX: usize = 100_000;

/// What all clients and requests of the protocol share, over all shards.
#[derive(Debug)]
pub struct Pusher {
    apps: Apps,
    users: Users,
    /// What the application is to be told, where it wants to be.
    webhooks: Option<Queue>,
    /// The channels with new subscribers that are to be told how many there are; none where nobody is told. Taken for a moment
    /// when a client subscribes and once a second.
    newcomers: Option<Mutex<HashSet<Channel>>>,
}

impl Pusher {
    /// With the settings' applications, and what [`run`] sends to them.
    pub fn new(config: &Config) -> (Arc<Self>, Option<Waiting>) {
        let wanted = config.pusher_webhook.is_some() && !config.pusher_app.is_empty();
        let (queue, waiting) = wanted.then(webhooks::queue).unzip();
        let counts = config.pusher_subscription_count && !config.pusher_app.is_empty();
        let pusher = Self {
            apps: config.pusher_app.clone(),
            users: Users::default(),
            webhooks: queue,
            newcomers: counts.then(Mutex::default),
        };
        (Arc::new(pusher), waiting)
    }

    /// Notes something that the application is to be told.
    fn report(&self, event: webhooks::Event) {
        if let Some(queue) = &self.webhooks {
            queue.put(event);
        }
    }

    /// Notes that a client has subscribed to a channel: it is told the number of subscribers, even if that stays the same.
    fn notice(&self, channel: &Channel) {
        if let Some(newcomers) = &self.newcomers
            && !channel.is_presence()
            && Channel::user_of(channel.as_str()).is_none()
        {
            // A set is whole between any two statements.
            let mut newcomers = newcomers.lock().unwrap_or_else(PoisonError::into_inner);
            if newcomers.len() < NEWCOMERS_MAX {
                newcomers.insert(channel.clone());
            }
        }
    }

    /// What was noted since the last time; none where clients are not told how many they are.
    fn newcomers(&self) -> Option<HashSet<Channel>> {
        let newcomers = self.newcomers.as_ref()?;
        let mut newcomers = newcomers.lock().unwrap_or_else(PoisonError::into_inner);
        Some(std::mem::take(&mut *newcomers))
    }

    /// Whether the protocol is spoken at all.
    pub fn is_on(&self) -> bool {
        !self.apps.is_empty()
    }

    /// The app with this key.
    pub fn by_key(&self, key: &str) -> Option<&Arc<App>> {
        self.apps.by_key(key)
    }
}

/// Looks at the channels for those who want to know of them, and sends the webhooks. For the control thread.
pub async fn run(pusher: Arc<Pusher>, node: Arc<Node>, waiting: Option<Waiting>) {
    let app = pusher.apps.first().cloned();
    let url = node.config().pusher_webhook.clone();
    let sending = async {
        if let (Some(waiting), Some(app), Some(url)) = (waiting, app, url) {
            webhooks::send_all(waiting, &app, &url.0).await;
        }
    };
    tokio::join!(observer::observe(&pusher, &node), sending);
}
