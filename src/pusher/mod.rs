//! The Pusher protocol above the node, beside the native one: who its applications are, what their clients ask for
//! ([`client`]), what their servers ask for ([`api`]), and what those are told ([`webhooks`]).
//!
//! Channels are the node's own: what any client or PHP publishes reaches every subscriber, whatever it speaks. Used by
//! `transport` and `server`; imports `node`, `session`, `hub` and `wire`.

pub mod api;
pub mod auth;
pub mod client;
pub mod grant;
pub mod users;

use std::sync::Arc;

use crate::config::{App, Apps, Config};
use users::Users;

/// What all clients and requests of the protocol share, over all shards.
#[derive(Debug)]
pub struct Pusher {
    apps: Apps,
    users: Users,
}

impl Pusher {
    /// With the settings' applications.
    pub fn new(config: &Config) -> Self {
        Self {
            apps: config.pusher_apps.clone(),
            users: Users::default(),
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
