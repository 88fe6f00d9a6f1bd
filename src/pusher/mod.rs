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

use std::sync::Arc;

use crate::config::{App, Apps, Config};
use crate::node::Node;
use users::Users;
use webhooks::{Queue, Waiting};

/// What all clients and requests of the protocol share, over all shards.
#[derive(Debug)]
pub struct Pusher {
    apps: Apps,
    users: Users,
    /// What the application is to be told, where it wants to be.
    webhooks: Option<Queue>,
}

impl Pusher {
    /// With the settings' applications, and what [`run`] sends to them.
    pub fn new(config: &Config) -> (Arc<Self>, Option<Waiting>) {
        let wanted = config.pusher_webhook.is_some() && !config.pusher_app.is_empty();
        let (queue, waiting) = wanted.then(webhooks::queue).unzip();
        let pusher = Self {
            apps: config.pusher_app.clone(),
            users: Users::default(),
            webhooks: queue,
        };
        (Arc::new(pusher), waiting)
    }

    /// Notes something that the application is to be told.
    fn report(&self, event: webhooks::Event) {
        if let Some(queue) = &self.webhooks {
            queue.put(event);
        }
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
